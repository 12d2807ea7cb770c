"""The risk of the k surest, averaged over every order of the rows that confidence allows."""

from itertools import pairwise, permutations


def risks(confidence: list[float], correct: list[bool]) -> list[float]:
    """``r(k)`` for k = 1..N, over all permutations that put no surer image behind a less sure one."""
    totals, orders = [0.0] * len(confidence), 0
    for order in permutations(range(len(confidence))):
        if any(confidence[a] < confidence[b] for a, b in pairwise(order)):
            continue
        orders += 1
        wrong = 0
        for k, i in enumerate(order):
            wrong += not correct[i]
            totals[k] += wrong / (k + 1)
    return [total / orders for total in totals]
