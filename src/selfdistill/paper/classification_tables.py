"""What every training measures: Tables 1, 2, 3 and 9 to 14, Fig. 2, Caltech-101, and the anchors.

The anchors are the final training losses and test accuracies in the logs of the published runs, tighter than any table.
The logs hold each term of the loss with T squared and without lambda, ours without either: the factor is T squared.
"""

from collections.abc import Iterator
from dataclasses import replace

from selfdistill.paper.scales import DATASETS, NETWORKS, Network, Training
from selfdistill.paper.tables import (
    BASE,
    METHODS,
    SD_DROPOUT,
    CellMetric,
    CellSpec,
    LogTarget,
    PaperTable,
    pair_cells,
    published_numbers,
)

_N = ("evaluation", "n")
TOP1 = CellMetric(("evaluation", "top1"), n_path=_N)
_TOP5 = CellMetric(("evaluation", "top5"), n_path=_N)
_ECE, _GAP, _NLL = (CellMetric(("evaluation", name), unit="", digits=3, n_path=_N) for name in ("ece", "gap", "nll"))

NOT_EACH_EPOCH = "not every epoch measured"
"""Why a run has no mean of all epochs."""

OTHER_RUNS = "Top-1, mean of all epochs, other runs"
"""Our number again, compared with a second set of published runs."""

_CE = "CrossEntropy()"
_BOTH = {"cross_entropy": ("Cross-entropy", _CE), "sd_dropout": ("SD-Dropout", SD_DROPOUT)}
_THREE = ("cifar100", "cub200", "dogs")


def _methods_and_sums() -> Iterator[CellSpec]:
    """Yield the cells of Table 1."""
    for data in _THREE:
        for key, (name, alone, summed) in METHODS.items():
            row, target = f"{DATASETS[data]}: {name}", f"table1_accuracy/rows/{key}/{data}"
            training = Training(alone, data)
            if key == "byot" and data != "cifar100":
                yield from pair_cells(row, replace(training, network="resnet18_byot224"), summed, TOP1, target)
                yield from pair_cells(f"{row}, like for like", training, summed, TOP1)
            else:
                yield from pair_cells(row, training, summed, TOP1, target)


def _calibration() -> Iterator[CellSpec]:
    """Yield the calibration errors of Table 2, in its order."""
    for key in ("cross_entropy", "ddgsd", "cs_kd", "byot", "dml"):
        name, alone, summed = METHODS[key]
        yield from pair_cells(name, Training(alone), summed, _ECE, f"table2_ece_fraction/rows/{key}")


def _over_datasets(target: str, columns: dict[str, str]) -> Iterator[CellSpec]:
    """Yield a row for each of the three sets; the printed numbers are in the order of the columns."""
    for data in _THREE:
        for at, (column, method) in enumerate(columns.items()):
            yield CellSpec(DATASETS[data], column, Training(method, data), (TOP1,), f"{target}/{data}/{at}")


def _networks() -> Iterator[CellSpec]:
    """Yield the cells of Table 10."""
    networks: tuple[Network, ...] = ("resnet18", "resnet34", "densenet121")
    for network in networks:
        target = f"table10_backbones/{network}"
        yield from pair_cells(NETWORKS[network], Training(_CE, network=network), SD_DROPOUT, TOP1, target)


def _positions() -> Iterator[CellSpec]:
    """Yield the cells of Table 12, and rows of our own in which single values are dropped."""
    layers = ("layer1", "layer2", "layer3")
    rows = {
        "Cross-entropy": ("cross_entropy", _CE),
        **{f"After {at}": (at, f"SDDropout(at={at!r}, channels=True, passes='separate')") for at in layers},
        "After layer4 and the pooling": ("layer4 (default)", SD_DROPOUT),
    }
    for row, (key, method) in rows.items():
        yield CellSpec(row, "Top-1", Training(method), (TOP1,), f"table12_position/{key}")
    for at in layers:
        method = f"SDDropout(at={at!r})"
        yield CellSpec(f"After {at}, single values in one batch", "Top-1", Training(method), (TOP1,))


def _few_photographs() -> Iterator[CellSpec]:
    """Yield the cells of a table of our own: few photographs of many classes, as in CUB-200-2011."""
    rows = {**dict(_BOTH.values()), "Label smoothing": "LabelSmoothing()", "Dropout": "Dropout()"}
    for row, method in rows.items():
        for column, metric in {"Top-1": TOP1, "NLL": _NLL, "ECE": _ECE, "Gap": _GAP}.items():
            yield CellSpec(row, column, Training(method, "caltech101"), (metric,))


_LOGGED_LOSSES = {
    "ce": ("Training CE", "ce", 1),
    "ce (sum of two views)": ("Training CE, sum of two views", "ce", 1),
    "sd_dropout": ("Training 9 SDD", "sdd", 3**2),
    "cs_kd": ("Training 16 KL", "cskd", 4**2),
    "ddgsd_kl": ("Training 9 KL, both ways", "ddgsd", 3**2),
    "ddgsd_mmd": ("Training MMD", "mmd", 1),
    "byot_kl (sum of three)": ("Training 9 KL, sum of three branches", "byot", 3**2),
    "byot_ce (sum of three branches)": ("Training CE, sum of three branches", "branch_ce", 1),
}
"""By key of ``targets.json``: the heading of its column, the term in our log, and T squared."""

_BYOT1 = "BYOT(weight=1.0)"
_ONE_SIDED = "sd_dropout one-sided, dropped teaches clean (weight 1)"
_LOGGED_RUNS = (
    ("Cross-entropy", _CE, "cross_entropy", "cross_entropy"),
    ("SD-Dropout", SD_DROPOUT, "sd_dropout (weight 1)", "sd_dropout"),
    ("SD-Dropout, one-sided", "SDDropout(one_sided=True)", _ONE_SIDED, "sd_dropout one-sided"),
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

_MEAN = CellMetric(("log", "test_top1"), n_path=_N, missing_reason=NOT_EACH_EPOCH)


def _anchors() -> Iterator[CellSpec]:
    """Yield our numbers beside the logs of the published runs."""
    for row, method, loss_key, accuracy_key in _LOGGED_RUNS:
        for key, (column, term, factor) in _LOGGED_LOSSES.items():
            path = f"logged_final_train_loss_cifar100_resnet18/{loss_key}/{key}"
            metric = CellMetric(("log", term, -1), unit="", digits=4, n_path=(), factor=factor)
            if path in published_numbers():
                yield CellSpec(row, column, Training(method), (metric,), log_target=LogTarget(path, "one"))
            elif f"{path}/0" in published_numbers():
                yield CellSpec(row, column, Training(method), (metric,), log_target=LogTarget(path, "range"))
        for column, metric, path in (
            ("Top-1, last epoch", TOP1, f"logged_accuracy_cifar100_resnet18/{accuracy_key}"),
            ("Top-1, mean of all epochs", _MEAN, f"logged_mean_accuracy_cifar100_resnet18/{accuracy_key}"),
            (OTHER_RUNS, _MEAN, f"logged_mean_accuracy_cifar100_resnet18/{accuracy_key}, other runs"),
        ):
            if f"{path}/0" in published_numbers():
                yield CellSpec(row, column, Training(method), (metric,), log_target=LogTarget(path, "sd"))


_DIRECTIONS = {
    BASE: _CE,
    "Forward": "SDDropout(direction='forward')",
    "Reverse": "SDDropout(direction='reverse')",
    "Both": SD_DROPOUT,
}
_DROPOUTS = {
    BASE: _CE,
    "Dropout": "Dropout()",
    "Dropout, dagger": "Dropout(dagger=True)",
    "SD-Dropout": SD_DROPOUT,
}

TABLES = (
    PaperTable("table1", tuple(_methods_and_sums())),
    PaperTable(
        "table2",
        (
            *_calibration(),  # the ECE has no sign: the gaps stand beside it
            *(replace(c, column=f"{c.column}: gap", metrics=(_GAP,), target=None) for c in _calibration()),
        ),
    ),
    # The printed numbers stand in Table 2 alone.
    PaperTable("figure2", tuple(replace(cell, target=None) for cell in _calibration()), figure="reliability"),
    PaperTable(
        "table3",
        tuple(
            CellSpec(row, column, Training(method, "imagenet", "resnet152"), (metric,), f"table3_imagenet/rows/{path}")
            for row, method, key in (
                ("Cross-entropy", _CE, "cross_entropy"),
                ("SD-Dropout", "SDDropout(weight=0.1)", "sd_dropout"),
            )
            for column, metric, path in (("Top-1", TOP1, f"{key}/acc1"), ("Top-5", _TOP5, f"{key}/acc5"))
        ),
        one_seed=True,
    ),
    PaperTable("table9", tuple(_over_datasets("table9_directions", _DIRECTIONS))),
    PaperTable("table10", tuple(_networks())),
    PaperTable("table11", tuple(_over_datasets("table11_dropout", _DROPOUTS))),
    PaperTable("table12", tuple(_positions())),
    PaperTable(
        "table13",
        tuple(
            CellSpec(row, "Top-1", Training(method, head_layers=2), (TOP1,), f"table13_two_fc_layers/{key}")
            for key, (row, method) in _BOTH.items()
        ),
    ),
    PaperTable(
        "table14",
        tuple(
            CellSpec(
                f"lambda {weight}",
                f"beta {beta}",
                Training(SD_DROPOUT if (beta, weight) == (0.5, "1.0") else f"SDDropout(p={beta}, weight={weight})"),
                (TOP1,),
                f"table14_hyperparameters/{weight}/{at}",
            )
            for weight in ("0.1", "0.5", "1.0", "2.0", "5.0")
            for at, beta in enumerate((0.1, 0.3, 0.5, 0.7))
        ),
        figure="heat",
        one_seed=True,
    ),
    PaperTable("caltech101", tuple(_few_photographs())),
    PaperTable("anchors", tuple(_anchors())),
)
