"""``selfdistill report``."""

from pathlib import Path

from selfdistill.cli.options import File, Files, OptionalText, Text
from selfdistill.cli.show import show_comparison


def report(*runs: Files, out: File = Path("report"), title: Text = "Comparison", baseline: OptionalText = None) -> None:
    """Write the report of finished runs: HTML, Markdown and figures.

    For example:
        selfdistill report runs/photos runs/more-seeds --baseline "CrossEntropy()"

    Args:
        runs: folders of runs, or folders that contain them
        out: folder of the report
        title: heading of the report
        baseline: method that the others are compared with (default: the first found)
    """
    from selfdistill.runs.folders import check_writable, collect_finished

    check_writable(out)
    show_comparison(collect_finished(runs, baseline), out, title, folders=runs)
