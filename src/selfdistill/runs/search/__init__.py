"""Search for a method and its settings by validation images, then measure what was found on test images."""

from selfdistill.runs.search.tune import SearchConfig, Tuned, keep_best, tune

__all__ = ["SearchConfig", "Tuned", "keep_best", "tune"]
