"""How well scores separate two sets, counted threshold by threshold and pair by pair. Lists of floats in."""


def fpr_at_95_tpr(inside: list[float], outside: list[float]) -> float:
    """The share of ``outside`` at or above the highest threshold with at least 95 % of ``inside`` at or above it."""
    for threshold in sorted({*inside, *outside}, reverse=True):
        if 100 * accepted(inside, threshold) >= 95 * len(inside):
            return accepted(outside, threshold) / len(outside)
    raise AssertionError("the lowest threshold accepts everything")


def detection_error_at_95_tpr(inside: list[float], outside: list[float]) -> float:
    """``(1 - TPR) / 2 + FPR / 2`` there."""
    for threshold in sorted({*inside, *outside}, reverse=True):
        if 100 * accepted(inside, threshold) >= 95 * len(inside):
            return error(inside, outside, threshold)
    raise AssertionError("the lowest threshold accepts everything")


def detection_error(inside: list[float], outside: list[float]) -> float:
    """The smallest over all thresholds, one above every score included."""
    return min(error(inside, outside, threshold) for threshold in [*inside, *outside, float("inf")])


def auroc(inside: list[float], outside: list[float]) -> float:
    """The share of pairs in which ``inside`` is the higher; equal ones count a half."""
    total = 0.0
    for a in inside:
        for b in outside:
            total += 1.0 if a > b else 0.5 if a == b else 0.0
    return total / (len(inside) * len(outside))


def aupr(positive: list[float], negative: list[float], *, balanced: bool) -> float:
    """``sum_k (R_k - R_k-1) P_k``, positives high; balanced: precision of shares instead of counts."""
    area, before = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        hits, misses = float(accepted(positive, threshold)), float(accepted(negative, threshold))
        recall = hits / len(positive)
        if balanced:
            hits, misses = hits / len(positive), misses / len(negative)
        area += (recall - before) * hits / (hits + misses)
        before = recall
    return area


def error(inside: list[float], outside: list[float], threshold: float) -> float:
    """``(P(in below) + P(out at or above)) / 2``."""
    return (1 - accepted(inside, threshold) / len(inside) + accepted(outside, threshold) / len(outside)) / 2


def accepted(scores: list[float], threshold: float) -> int:
    """How many are at or above."""
    return sum(score >= threshold for score in scores)
