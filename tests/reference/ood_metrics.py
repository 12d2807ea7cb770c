"""How well scores separate two sets, counted threshold by threshold and pair by pair. Lists of floats in."""


def fpr_at_95_tpr(in_distribution: list[float], ood: list[float]) -> float:
    """The share of ``ood`` at or above the highest threshold that at least 95 % of ``in_distribution`` reach."""
    for threshold in sorted({*in_distribution, *ood}, reverse=True):
        if 100 * accepted(in_distribution, threshold) >= 95 * len(in_distribution):
            return accepted(ood, threshold) / len(ood)
    raise AssertionError("the lowest threshold accepts everything")


def detection_error_at_95_tpr(in_distribution: list[float], ood: list[float]) -> float:
    """``(1 - TPR) / 2 + FPR / 2`` there."""
    for threshold in sorted({*in_distribution, *ood}, reverse=True):
        if 100 * accepted(in_distribution, threshold) >= 95 * len(in_distribution):
            return error(in_distribution, ood, threshold)
    raise AssertionError("the lowest threshold accepts everything")


def detection_error(in_distribution: list[float], ood: list[float]) -> float:
    """The smallest over all thresholds, one above every score included."""
    return min(error(in_distribution, ood, threshold) for threshold in [*in_distribution, *ood, float("inf")])


def auroc(in_distribution: list[float], ood: list[float]) -> float:
    """The share of pairs in which ``in_distribution`` is the higher; equal ones count a half."""
    total = 0.0
    for a in in_distribution:
        for b in ood:
            total += 1.0 if a > b else 0.5 if a == b else 0.0
    return total / (len(in_distribution) * len(ood))


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


def error(in_distribution: list[float], ood: list[float], threshold: float) -> float:
    """``(P(in below) + P(out at or above)) / 2``."""
    return (1 - accepted(in_distribution, threshold) / len(in_distribution) + accepted(ood, threshold) / len(ood)) / 2


def accepted(scores: list[float], threshold: float) -> int:
    """How many are at or above."""
    return sum(score >= threshold for score in scores)
