"""Tables 1, 2, 3 and 9 to 14, Fig. 2 and Caltech-101: accuracy and calibration."""

from dataclasses import replace

from selfdistill.paper.scales import SETS, Network, Training
from selfdistill.paper.tables import (
    BASE,
    METHODS,
    PHOTOGRAPHS,
    SCORED,
    SD_DROPOUT,
    SUMS,
    WITH,
    Entry,
    Measure,
    PaperTable,
)

TOP1 = Measure(("top1",))
TOP5 = Measure(("top5",))

CE, SDD = "CrossEntropy()", SD_DROPOUT
_THREE = ("cifar100", "cub200", "dogs")


def _table1() -> PaperTable:
    entries = []
    for data in _THREE:
        for key, (name, alone, summed) in METHODS.items():
            larger = key == "byot" and data != "cifar100"
            network: Network = "resnet18_byot224" if larger else "resnet18"
            row = f"{SETS[data]}: {name}"
            target = f"table1_accuracy/rows/{key}/{data}"
            entries += [
                Entry(row, BASE, Training(alone, data, network), (TOP1,), f"{target}/base"),
                Entry(row, WITH, Training(summed, data, network), (TOP1,), f"{target}/sd_dropout"),
            ]
            if larger:
                row = f"{row}, like for like"
                entries += [
                    Entry(row, BASE, Training(alone, data), (TOP1,)),
                    Entry(row, WITH, Training(summed, data), (TOP1,)),
                ]
    title = "Accuracy of self-knowledge distillation methods, with and without SD-Dropout"
    return PaperTable("table1", title, tuple(entries), (SCORED, SUMS), (PHOTOGRAPHS,))


def _table3() -> PaperTable:
    entries = []
    for key, name, method in (
        ("cross_entropy", "Cross-entropy", CE),
        ("sd_dropout", "SD-Dropout", "SDDropout(weight=0.1)"),
    ):
        training = Training(method, "imagenet", "resnet152")
        target = f"table3_imagenet/rows/{key}"
        entries += [
            Entry(name, "Top-1", training, (TOP1,), f"{target}/acc1"),
            Entry(name, "Top-5", training, (TOP5,), f"{target}/acc5"),
        ]
    protocol = (
        "ImageNet, ResNet-152, 90 epochs, rate 0.1 as for all networks, divided by 10 after 30 and 60, lambda 0.1. The "
        "paper's batch of 32 is read as that of each of 8 GPUs, as in the authors' script: 256 images a step. Central "
        "square of 224 px. One seed.",
        "BatchNorm sees 32 images at a time, on one GPU (8 passes a step) as with --devices 8 (one pass each). A batch "
        "of 32 over 8 GPUs would be another network: its BatchNorm would see 4.",
    )
    return PaperTable("table3", "Accuracy on ImageNet, ResNet-152", tuple(entries), protocol, one_seed=True)


def _table9() -> PaperTable:
    columns = {
        BASE: CE,
        "Forward": "SDDropout(direction='forward')",
        "Reverse": "SDDropout(direction='reverse')",
        "Both": SDD,
    }
    protocol = (
        SCORED,
        "Forward is Eq. 6, the target side detached; reverse is Eq. 7.",
    )
    at_full = (
        "The base and both of CUB-200-2011 and Stanford Dogs are the runs of Table 1, for which that table prints "
        "other averages.",
    )
    entries = _over_sets("table9_directions", columns)
    return PaperTable("table9", "Directions of the KL divergence", entries, protocol, at_full)


def _table11() -> PaperTable:
    columns = {
        BASE: CE,
        "Dropout": "Dropout()",
        "Dropout, dagger": "Dropout(dagger=True)",
        "SD-Dropout": SDD,
    }
    protocol = (
        SCORED,
        "Dropout's label loss sees the dropped features alone. The paper does not define its dagger row, which "
        "equalises the number of training steps; here it is the sum of the clean and the dropped label loss, "
        "inferred from the authors' code.",
    )
    title = "Standard dropout and SD-Dropout"
    return PaperTable("table11", title, _over_sets("table11_dropout", columns), protocol)


def _over_sets(target: str, columns: dict[str, str]) -> tuple[Entry, ...]:
    """Return a row for each of the three sets; the printed numbers are in the order of the columns."""
    return tuple(
        Entry(SETS[data], column, Training(method, data), (TOP1,), f"{target}/{data}/{at}")
        for data in _THREE
        for at, (column, method) in enumerate(columns.items())
    )


def _table10() -> PaperTable:
    names: dict[Network, str] = {"resnet18": "ResNet-18", "resnet34": "ResNet-34", "densenet121": "DenseNet-121"}
    entries = [
        Entry(name, column, Training(method, network=network), (TOP1,), f"table10_backbones/{network}/{key}")
        for network, name in names.items()
        for column, method, key in ((BASE, CE, "base"), (WITH, SDD, "sd_dropout"))
    ]
    protocol = (
        SCORED,
        "CIFAR-100. DenseNet-121's growth rate is half of a ResNet's first stage, and its stem is 3 x 3.",
    )
    return PaperTable("table10", "Other networks on CIFAR-100", tuple(entries), protocol)


def _table12() -> PaperTable:
    layers = ("layer1", "layer2", "layer3")
    rows = {
        "Cross-entropy": ("cross_entropy", CE),
        **{f"After {at}": (at, f"SDDropout(at={at!r}, channels=True, passes='separate')") for at in layers},
        "After layer4 and the pooling": ("layer4 (default)", SDD),
    }
    entries = [
        Entry(row, "Top-1", Training(method), (TOP1,), f"table12_position/{key}") for row, (key, method) in rows.items()
    ]
    entries += [
        Entry(f"After {at}, single values in one batch", "Top-1", Training(f"SDDropout(at={at!r})"), (TOP1,))
        for at in layers
    ]
    protocol = (
        SCORED,
        "CIFAR-100. The paper does not say how it dropped inside the network. As in the authors' code of that time, "
        "whole channels of a map are dropped, and the later layers run on the clean map, on u and on v one after the "
        "other, so that BatchNorm takes its statistics of each alone; cross-entropy is of the clean pass.",
        "Rows of their own: single values are dropped, and the clean and both dropped maps run as one batch.",
    )
    return PaperTable("table12", "Position of the dropout", tuple(entries), protocol)


def _table13() -> PaperTable:
    rows = {"Cross-entropy": ("cross_entropy", CE), "SD-Dropout": ("sd_dropout", SDD)}
    entries = [
        Entry(row, "Top-1", Training(method, head_layers=2), (TOP1,), f"table13_two_fc_layers/{key}")
        for row, (key, method) in rows.items()
    ]
    protocol = (
        SCORED,
        "CIFAR-100; the head is two fully connected layers with as many hidden units as there are features. The "
        "dropout stands before the first of them, not on the hidden units.",
    )
    return PaperTable("table13", "Two fully connected layers", tuple(entries), protocol)


BETAS, LAMBDAS = (0.1, 0.3, 0.5, 0.7), ("0.1", "0.5", "1.0", "2.0", "5.0")


def _table14() -> PaperTable:
    entries = [
        Entry(
            f"lambda {weight}",
            f"beta {beta}",
            Training(f"SDDropout(p={beta}, weight={weight})" if (beta, weight) != (0.5, "1.0") else SDD),
            (TOP1,),
            f"table14_hyperparameters/{weight}/{at}",
        )
        for weight in LAMBDAS
        for at, beta in enumerate(BETAS)
    ]
    protocol = (SCORED, "CIFAR-100. beta is the probability that a feature is dropped, lambda the weight.")
    title = "SD-Dropout's beta and lambda"
    return PaperTable("table14", title, tuple(entries), protocol, figure="heat", one_seed=True)


ECE = Measure(("ece",), unit="", digits=3)
GAP = Measure(("gap",), unit="", digits=3)

_CALIBRATED = ("cross_entropy", "ddgsd", "cs_kd", "byot", "dml")  # the table's order


def _eces() -> tuple[Entry, ...]:
    return tuple(
        Entry(METHODS[key][0], column, Training(METHODS[key][at]), (ECE,), f"table2_ece_fraction/rows/{key}/{target}")
        for key in _CALIBRATED
        for at, column, target in ((1, BASE, "base"), (2, WITH, "sd_dropout"))
    )


_ECE_PROTOCOL = (
    "CIFAR-100, ResNet-18, last epoch: Eq. 12 with ten equal-width bins on the largest softmax probability at "
    "temperature 1, a fraction; mean over seeds. ± is the sd over seeds.",
    SUMS,
)


def _gaps() -> tuple[Entry, ...]:
    """The sign that the ECE has not."""
    return tuple(
        Entry(METHODS[key][0], f"{column}: gap", Training(METHODS[key][at]), (GAP,))
        for key in _CALIBRATED
        for at, column in ((1, BASE), (2, WITH))
    )


_GAP_NOTE = "Gap: mean confidence minus accuracy, above 0 over-confident."

_CALIBRATION = (
    PaperTable("table2", "Expected calibration error", _eces() + _gaps(), (*_ECE_PROTOCOL, _GAP_NOTE)),
    PaperTable(
        "figure2",
        "Reliability diagrams",
        tuple(replace(entry, target=None) for entry in _eces()),  # Table 2 holds the printed numbers
        (*_ECE_PROTOCOL, "The numbers are the calibration errors; the diagrams sum the counts of the seeds."),
        figure="reliability",
    ),
)


_PHOTOGRAPH_METHODS = {
    "Cross-entropy": "CrossEntropy()",
    "SD-Dropout": SD_DROPOUT,
    "Label smoothing": "LabelSmoothing()",
    "Dropout": "Dropout()",
}
_PHOTOGRAPH_COLUMNS = {
    "Top-1": Measure(("top1",)),
    "NLL": Measure(("nll",), unit="", digits=3),
    "ECE": Measure(("ece",), unit="", digits=3),
    "Gap": Measure(("gap",), unit="", digits=3),
}

_CALTECH101 = PaperTable(
    "caltech101",
    "Few photographs of many classes: Caltech-101 from scratch",
    tuple(
        Entry(name, column, Training(method, "caltech101"), (measure,))
        for name, method in _PHOTOGRAPH_METHODS.items()
        for column, measure in _PHOTOGRAPH_COLUMNS.items()
    ),
    (
        SCORED,
        "Caltech-101 without its background class, 30 training photographs of each class, at 64 px: torchvision's "
        "ResNet-18 from scratch, batches of 32, 100 epochs, the rate of 0.1 divided by 10 after 50 and 75. The "
        "paper has no such table: no number of it stands here.",
        "Gap: mean confidence minus accuracy, above 0 over-confident.",
    ),
)

TABLES = (
    _table1(),
    _table3(),
    _table9(),
    _table10(),
    _table11(),
    _table12(),
    _table13(),
    _table14(),
    *_CALIBRATION,
    _CALTECH101,
)
