"""The anchors: final training losses and test accuracies in the logs of the published runs, tighter than any table.

The logs hold each term of the loss with T squared and without lambda, ours without either: the factor is T squared.
"""

from collections.abc import Iterator

from selfdistill.paper.classification_tables import TOP1
from selfdistill.paper.scales import Training
from selfdistill.paper.tables import METHODS, SD_DROPOUT, CellMetric, CellSpec, LogTarget, PaperTable, published_numbers

_LOSSES = "logged_final_train_loss_cifar100_resnet18"
_LAST = "logged_accuracy_cifar100_resnet18"
_EPOCHS = "logged_mean_accuracy_cifar100_resnet18"

_TERMS = {
    "ce": ("Training CE", "ce", 1),
    "ce (sum of two views)": ("Training CE, sum of two views", "ce", 1),
    "sd_dropout": ("Training 9 SDD", "sdd", 3**2),
    "cs_kd": ("Training 16 KL", "cskd", 4**2),
    "ddgsd_kl": ("Training 9 KL, both ways", "ddgsd", 3**2),
    "ddgsd_mmd": ("Training MMD", "mmd", 1),
    "byot_kl (sum of three)": ("Training 9 KL, sum of three branches", "byot", 3**2),
    "byot_ce (sum of three branches)": ("Training CE, sum of three branches", "branch_ce", 1),
}
"""By its key in ``targets.json``: the heading of its column, the term in our log, and T squared."""

_BYOT1 = "BYOT(weight=1.0)"
_ROWS = (
    ("Cross-entropy", "CrossEntropy()", "cross_entropy", "cross_entropy"),
    ("SD-Dropout", SD_DROPOUT, "sd_dropout (weight 1)", "sd_dropout"),
    (
        "SD-Dropout, one-sided",
        "SDDropout(one_sided=True)",
        "sd_dropout one-sided, dropped teaches clean (weight 1)",
        "sd_dropout one-sided",
    ),
    ("CS-KD", METHODS["cs_kd"][1], "cs_kd", "cs_kd"),
    ("CS-KD + 0.1 SD-Dropout", METHODS["cs_kd"][2], "cs_kd + 0.1 sd_dropout", "cs_kd+sd_dropout"),
    ("DDGSD", METHODS["ddgsd"][1], "ddgsd", "ddgsd"),
    ("DDGSD + 0.1 SD-Dropout", METHODS["ddgsd"][2], "ddgsd + 0.1 sd_dropout", "ddgsd+sd_dropout"),
    ("BYOT, lambda 1", _BYOT1, "byot (lambda_kd 1)", "byot (lambda_kd 1)"),
    (
        "BYOT, lambda 1, + 0.1 SD-Dropout",
        f"{_BYOT1} + SDDropout(weight=0.1)",
        "byot (lambda_kd 1) + 0.1 sd_dropout",
        "byot (lambda_kd 1)+sd_dropout",
    ),
    ("BYOT, lambda 0.1", METHODS["byot"][1], "", "byot"),
    ("BYOT, lambda 0.1, + 0.1 SD-Dropout", METHODS["byot"][2], "", "byot+sd_dropout"),
    ("DML", METHODS["dml"][1], "", "dml"),
    ("DML + 0.1 SD-Dropout", METHODS["dml"][2], "", "dml+sd_dropout"),
)
"""Name, method, key among the losses and key among the accuracies of ``targets.json``."""

OTHER_RUNS = "Top-1, mean of all epochs, other runs"
"""Our number again, compared with a second set of published runs."""

NOT_EACH_EPOCH = "not every epoch measured"
"""Why a run has no mean of all epochs."""

_MEAN = CellMetric(("log", "test_top1"), missing_reason=NOT_EACH_EPOCH)


def _cells() -> Iterator[CellSpec]:
    for row, method, losses, accuracy in _ROWS:
        training = Training(method)
        for key, (column, term, factor) in _TERMS.items():
            path = f"{_LOSSES}/{losses}/{key}"
            metric = CellMetric(("log", term, -1), unit="", digits=4, n_path=(), factor=factor)
            if path in published_numbers():
                yield CellSpec(row, column, training, (metric,), log_target=LogTarget(path, "one"))
            elif f"{path}/0" in published_numbers():
                yield CellSpec(row, column, training, (metric,), log_target=LogTarget(path, "range"))
        for column, metric, path in (
            ("Top-1, last epoch", TOP1, f"{_LAST}/{accuracy}"),
            ("Top-1, mean of all epochs", _MEAN, f"{_EPOCHS}/{accuracy}"),
            (OTHER_RUNS, _MEAN, f"{_EPOCHS}/{accuracy}, other runs"),
        ):
            if f"{path}/0" in published_numbers():
                yield CellSpec(row, column, training, (metric,), log_target=LogTarget(path, "sd"))


_PROTOCOL = (
    "CIFAR-100, ResNet-18. Losses are means over the training images of the last epoch, taken while it trains: in "
    "training mode, of augmented images. They include T squared, written as a number (9 SDD), but not lambda.",
    "CS-KD's cross-entropy is of the anchors alone. DDGSD's is the sum over its two views, its KL that of both "
    "directions, its MMD without a weight. The terms of BYOT's branches are sums over the three.",
    "BYOT's losses and means over the epochs were logged with lambda 1; Table 1 has the lambda 0.1.",
    "Top-1 accuracy is on the test images, after the last epoch and as the mean over all epochs.",
    "The logs are in the repository of the paper's authors; the paper prints none of these numbers.",
)

TABLES = (PaperTable("anchors", "Losses and accuracies of the published runs' logs", tuple(_cells()), _PROTOCOL),)
