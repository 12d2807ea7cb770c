"""``selfdistill methods``."""

from selfdistill.cli.options import OptionalWholeNumber, Text, WholeNumber
from selfdistill.cli.show import print_lines, print_table

MODEL, BATCH_SIZE = "resnet18_cifar", 64


def methods(
    *,
    no_measure: bool = False,
    model: Text = MODEL,
    width: OptionalWholeNumber = None,
    image_size: OptionalWholeNumber = None,
    batch_size: WholeNumber = BATCH_SIZE,
) -> None:
    """List the methods, what they need, and what they cost.

    The cost is measured on this machine, in about half a minute: time and memory of a training step on noise, relative
    to a step of cross-entropy.

    For example:
        selfdistill methods --no-measure
        selfdistill methods --model timm:vit_tiny_patch16_224 --batch-size 8

    Args:
        no_measure: list the methods without measuring their cost
        model: network to train: resnet18_cifar, torchvision:NAME, timm:NAME ...
        width: width of our own networks (default: 16)
        image_size: side of the images in pixels (default: 32 for our CIFAR networks, 224 for others)
        batch_size: images per step, before what a method needs on top
    """
    from selfdistill.errors import ArgumentError
    from selfdistill.report.lists import cost_table, method_lines
    from selfdistill.runs.cost import prepare_costs

    given = {"model": model != MODEL, "width": width, "image_size": image_size, "batch_size": batch_size != BATCH_SIZE}
    if no_measure and (ignored := next((name for name, value in given.items() if value), None)):
        raise ArgumentError(ignored, "would be ignored: `no_measure=True` measures nothing")
    measure = None
    if not no_measure:  # a wrong option is refused before anything is printed
        measure = prepare_costs(model, width=width, image_size=image_size, batch_size=batch_size)
    print_lines(*method_lines(), '\nCombine methods with +, for example "SDDropout(weight=0.1) + LabelSmoothing()".')
    if measure is None:
        return
    from selfdistill.report import terminal

    setting, costs = measure()
    table = cost_table(costs)
    print_lines(f"\nCost of a training step with {setting}:")
    print_table(terminal(table))
    print_lines(*table.notes)
