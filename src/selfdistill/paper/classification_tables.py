"""Tables 1, 2, 3 and 9 to 14, Fig. 2 and Caltech-101: accuracy and calibration."""

from dataclasses import replace

from selfdistill.paper.scales import DATASETS, Network, Training
from selfdistill.paper.tables import (
    BASE,
    LAMBDA_NOTE,
    METHODS,
    SD_DROPOUT,
    WITH_SD_DROPOUT,
    CellMetric,
    CellSpec,
    PaperTable,
)

TOP1 = CellMetric(("top1",))
TOP5 = CellMetric(("top5",))

ECE = CellMetric(("ece",), unit="", digits=3)
GAP = CellMetric(("gap",), unit="", digits=3)
NLL = CellMetric(("nll",), unit="", digits=3)

_CE = "CrossEntropy()"
_THREE = ("cifar100", "cub200", "dogs")

_TOP1_NOTE = "Top-1 accuracy on the test images after the last epoch, mean over seeds; ± is the sd over seeds."
_GAP_NOTE = "Gap: mean confidence minus accuracy, above 0 over-confident."


def _table1() -> PaperTable:
    cells = []
    for data in _THREE:
        for key, (name, alone, summed) in METHODS.items():
            larger = key == "byot" and data != "cifar100"
            network: Network = "resnet18_byot224" if larger else "resnet18"
            row = f"{DATASETS[data]}: {name}"
            target = f"table1_accuracy/rows/{key}/{data}"
            cells += [
                CellSpec(row, BASE, Training(alone, data, network), (TOP1,), f"{target}/base"),
                CellSpec(row, WITH_SD_DROPOUT, Training(summed, data, network), (TOP1,), f"{target}/sd_dropout"),
            ]
            if larger:
                row = f"{row}, like for like"
                cells += [
                    CellSpec(row, BASE, Training(alone, data), (TOP1,)),
                    CellSpec(row, WITH_SD_DROPOUT, Training(summed, data), (TOP1,)),
                ]
    title = "Accuracy of self-knowledge distillation methods, with and without SD-Dropout"
    full_scale_protocol = (
        "Stanford Dogs is cut to the annotated box, as run; CUB-200-2011 is whole. On these two BYOT ran on a "
        "ResNet-18 with a stem of stride 1 (maps of twice the sides): that row stands beside the printed number, and "
        "BYOT on the other rows' network is a row of its own.",
    )
    return PaperTable("table1", title, tuple(cells), (_TOP1_NOTE, LAMBDA_NOTE), full_scale_protocol)


def _table3() -> PaperTable:
    cells = []
    for key, name, method in (
        ("cross_entropy", "Cross-entropy", _CE),
        ("sd_dropout", "SD-Dropout", "SDDropout(weight=0.1)"),
    ):
        training = Training(method, "imagenet", "resnet152")
        target = f"table3_imagenet/rows/{key}"
        cells += [
            CellSpec(name, "Top-1", training, (TOP1,), f"{target}/acc1"),
            CellSpec(name, "Top-5", training, (TOP5,), f"{target}/acc5"),
        ]
    protocol = ("Top-1 and top-5 accuracy on the test images after the last epoch. One seed.",)
    full_scale_protocol = (
        "ImageNet, ResNet-152, 90 epochs, learning rate 0.1 as for all networks, divided by 10 after epochs 30 and 60, "
        "lambda 0.1. The paper's batch of 32 is read as that of each of 8 GPUs, as in the authors' script: 256 images "
        "per step. Central square of 224 px.",
        "BatchNorm sees 32 images at a time, on one GPU (8 micro-batches per step) as with --devices 8 (one each). A "
        "batch of 32 over 8 GPUs would be another network: its BatchNorm would see 4.",
    )
    title = "Accuracy on ImageNet, ResNet-152"
    return PaperTable("table3", title, tuple(cells), protocol, full_scale_protocol, one_seed=True)


def _table9() -> PaperTable:
    columns = {
        BASE: _CE,
        "Forward": "SDDropout(direction='forward')",
        "Reverse": "SDDropout(direction='reverse')",
        "Both": SD_DROPOUT,
    }
    protocol = (
        _TOP1_NOTE,
        "Forward is Eq. 6, the target side detached; reverse is Eq. 7.",
    )
    full_scale_protocol = (
        "The base and both of CUB-200-2011 and Stanford Dogs are the runs of Table 1, for which that table prints "
        "other averages.",
    )
    cells = _over_sets("table9_directions", columns)
    return PaperTable("table9", "Directions of the KL divergence", cells, protocol, full_scale_protocol)


def _table11() -> PaperTable:
    columns = {
        BASE: _CE,
        "Dropout": "Dropout()",
        "Dropout, dagger": "Dropout(dagger=True)",
        "SD-Dropout": SD_DROPOUT,
    }
    protocol = (
        _TOP1_NOTE,
        "Dropout's label loss sees the dropped features alone. The paper does not define its dagger row, which "
        "equalises the number of training steps; here it is the sum of the clean and the dropped label loss, "
        "inferred from the authors' code.",
    )
    title = "Standard dropout and SD-Dropout"
    return PaperTable("table11", title, _over_sets("table11_dropout", columns), protocol)


def _over_sets(target: str, columns: dict[str, str]) -> tuple[CellSpec, ...]:
    """Return a row for each of the three sets; the printed numbers are in the order of the columns."""
    return tuple(
        CellSpec(DATASETS[data], column, Training(method, data), (TOP1,), f"{target}/{data}/{at}")
        for data in _THREE
        for at, (column, method) in enumerate(columns.items())
    )


def _table10() -> PaperTable:
    names: dict[Network, str] = {"resnet18": "ResNet-18", "resnet34": "ResNet-34", "densenet121": "DenseNet-121"}
    cells = [
        CellSpec(name, column, Training(method, network=network), (TOP1,), f"table10_backbones/{network}/{key}")
        for network, name in names.items()
        for column, method, key in ((BASE, _CE, "base"), (WITH_SD_DROPOUT, SD_DROPOUT, "sd_dropout"))
    ]
    protocol = (
        _TOP1_NOTE,
        "CIFAR-100. DenseNet-121's growth rate is half of a ResNet's first stage, and its stem is 3 x 3.",
    )
    return PaperTable("table10", "Other networks on CIFAR-100", tuple(cells), protocol)


def _table12() -> PaperTable:
    layers = ("layer1", "layer2", "layer3")
    rows = {
        "Cross-entropy": ("cross_entropy", _CE),
        **{f"After {at}": (at, f"SDDropout(at={at!r}, channels=True, passes='separate')") for at in layers},
        "After layer4 and the pooling": ("layer4 (default)", SD_DROPOUT),
    }
    cells = [
        CellSpec(row, "Top-1", Training(method), (TOP1,), f"table12_position/{key}")
        for row, (key, method) in rows.items()
    ]
    cells += [
        CellSpec(f"After {at}, single values in one batch", "Top-1", Training(f"SDDropout(at={at!r})"), (TOP1,))
        for at in layers
    ]
    protocol = (
        _TOP1_NOTE,
        "CIFAR-100. The paper does not say how it dropped inside the network. As in the authors' code of that time, "
        "whole channels of a map are dropped, and the later layers run on the clean map, on u and on v one after the "
        "other, so that BatchNorm takes its statistics of each alone; cross-entropy is of the clean pass.",
        "Rows of their own: single values are dropped, and the clean and both dropped maps run as one batch.",
    )
    return PaperTable("table12", "Position of the dropout", tuple(cells), protocol)


def _table13() -> PaperTable:
    rows = {"Cross-entropy": ("cross_entropy", _CE), "SD-Dropout": ("sd_dropout", SD_DROPOUT)}
    cells = [
        CellSpec(row, "Top-1", Training(method, head_layers=2), (TOP1,), f"table13_two_fc_layers/{key}")
        for row, (key, method) in rows.items()
    ]
    protocol = (
        _TOP1_NOTE,
        "CIFAR-100; the head is two fully connected layers with as many hidden units as there are features. The "
        "dropout stands before the first of them, not on the hidden units.",
    )
    return PaperTable("table13", "Two fully connected layers", tuple(cells), protocol)


def _table14() -> PaperTable:
    betas, lambdas = (0.1, 0.3, 0.5, 0.7), ("0.1", "0.5", "1.0", "2.0", "5.0")
    cells = [
        CellSpec(
            f"lambda {weight}",
            f"beta {beta}",
            Training(f"SDDropout(p={beta}, weight={weight})" if (beta, weight) != (0.5, "1.0") else SD_DROPOUT),
            (TOP1,),
            f"table14_hyperparameters/{weight}/{at}",
        )
        for weight in lambdas
        for at, beta in enumerate(betas)
    ]
    protocol = (_TOP1_NOTE, "CIFAR-100. beta is the probability that a feature is dropped, lambda the weight.")
    title = "SD-Dropout's beta and lambda"
    return PaperTable("table14", title, tuple(cells), protocol, figure="heat", one_seed=True)


def _calibration_tables() -> tuple[PaperTable, PaperTable]:
    rows = ("cross_entropy", "ddgsd", "cs_kd", "byot", "dml")  # in the table's order
    columns = ((BASE, "base", 1), (WITH_SD_DROPOUT, "sd_dropout", 2))
    eces = [
        CellSpec(
            METHODS[key][0], column, Training(METHODS[key][at]), (ECE,), f"table2_ece_fraction/rows/{key}/{target}"
        )
        for key in rows
        for column, target, at in columns
    ]
    gaps = [  # the ECE has no sign
        CellSpec(METHODS[key][0], f"{column}: gap", Training(METHODS[key][at]), (GAP,))
        for key in rows
        for column, _, at in columns
    ]
    protocol = (
        "CIFAR-100, ResNet-18, last epoch: Eq. 12 with ten equal-width bins on the largest softmax probability at "
        "temperature 1, a fraction; mean over seeds. ± is the sd over seeds.",
        LAMBDA_NOTE,
    )
    diagrams_note = "The numbers are the calibration errors; the diagrams sum the counts of the seeds."
    return (
        PaperTable("table2", "Expected calibration error", (*eces, *gaps), (*protocol, _GAP_NOTE)),
        PaperTable(
            "figure2",
            "Reliability diagrams",
            tuple(replace(cell, target=None) for cell in eces),  # Table 2 holds the printed numbers
            (*protocol, diagrams_note),
            figure="reliability",
        ),
    )


def _caltech101() -> PaperTable:
    """A table of our own: few photographs of many classes, as in CUB-200-2011."""
    rows = {
        "Cross-entropy": _CE,
        "SD-Dropout": SD_DROPOUT,
        "Label smoothing": "LabelSmoothing()",
        "Dropout": "Dropout()",
    }
    columns = {"Top-1": TOP1, "NLL": NLL, "ECE": ECE, "Gap": GAP}
    cells = tuple(
        CellSpec(row, column, Training(method, "caltech101"), (metric,))
        for row, method in rows.items()
        for column, metric in columns.items()
    )
    protocol = (
        _TOP1_NOTE,
        "Caltech-101 without its background class, 30 training photographs per class, at 64 px: torchvision's "
        "ResNet-18 from scratch, batches of 32, 100 epochs, learning rate 0.1, divided by 10 after epochs 50 and 75. "
        "The paper has no such table: no printed number stands here.",
        _GAP_NOTE,
    )
    return PaperTable("caltech101", "Few photographs of many classes: Caltech-101 from scratch", cells, protocol)


TABLES = (
    _table1(),
    *_calibration_tables(),
    _table3(),
    _table9(),
    _table10(),
    _table11(),
    _table12(),
    _table13(),
    _table14(),
    _caltech101(),
)
