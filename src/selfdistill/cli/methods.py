"""``selfdistill methods``."""

from selfdistill.cli.options import OptionalWholeNumber, WholeNumber
from selfdistill.cli.show import print_lines, print_table


def methods(
    *,
    no_measure: bool = False,
    model: str = "resnet18_cifar",
    width: OptionalWholeNumber = None,
    image_size: OptionalWholeNumber = None,
    batch_size: WholeNumber = 64,
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
    from selfdistill.report.lists import cost_table, method_lines

    print_lines(*method_lines(), '\nCombine methods with +, for example "SDDropout(weight=0.1) + LabelSmoothing()".')
    if no_measure:
        return
    from selfdistill.report import terminal
    from selfdistill.runs.cost import run_costs

    setting, costs = run_costs(model, width=width, image_size=image_size, batch_size=batch_size)
    table = cost_table(costs)
    print_lines(f"\nCost of a training step with {setting}:")
    print_table(terminal(table))
    print_lines(*table.notes)
