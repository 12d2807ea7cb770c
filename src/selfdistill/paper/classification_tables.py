"""Tables 1, 3 and 9 to 14: accuracies."""

from selfdistill.paper.names import BASE, METHODS, PHOTOGRAPHS, SCORED, SD_DROPOUT, SUMS, WITH
from selfdistill.paper.tables import SETS, Entry, Measure, Network, PaperTable, Training

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


TABLES = (_table1(), _table3(), _table9(), _table10(), _table11(), _table12(), _table13(), _table14())
