"""Accuracy under corruption (Table 6): fifteen corruptions, five severities each, and the mean corruption accuracy.

`corrupt` makes the images for any data set, `open_published` reads CIFAR-10-C and CIFAR-100-C, `measure_corruptions`
scores a network on either, and `summarise` gives accuracy by corruption, by severity and mCA.
"""

from selfdistill.evaluation.corruptions.apply import LEAST_SIZE, corrupt
from selfdistill.evaluation.corruptions.measure import measure_corruptions, summarise
from selfdistill.evaluation.corruptions.pixels import mean_distance
from selfdistill.evaluation.corruptions.published import PublishedCorruptions, fetch_cifar100c, open_published
from selfdistill.evaluation.corruptions.table import CORRUPTIONS, SEVERITIES

__all__ = [
    "CORRUPTIONS",
    "LEAST_SIZE",
    "SEVERITIES",
    "PublishedCorruptions",
    "corrupt",
    "fetch_cifar100c",
    "mean_distance",
    "measure_corruptions",
    "open_published",
    "summarise",
]
