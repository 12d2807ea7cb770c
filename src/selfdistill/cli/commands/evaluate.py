"""``selfdistill evaluate``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

from selfdistill.cli.options import (
    DATA,
    File,
    FileOrScreen,
    OptionalDecimals,
    OptionalText,
    OptionalWholeNumber,
    Text,
    TextOrOn,
    Texts,
)
from selfdistill.cli.show import OOD, print_lines, print_skipped, print_table, write_or_print
from selfdistill.errors import ArgumentError

_OfModel = Parameter(group=Group.create_ordered("Network, instead of RUN"))


def evaluate(
    run: File | None = None,
    /,
    *,
    data: Annotated[OptionalText, Parameter(group=DATA)] = None,
    data_root: Annotated[Text, Parameter(group=DATA)] = "data",
    skip_unreadable: Annotated[bool, Parameter(group=DATA)] = False,
    max_pixels: Annotated[OptionalWholeNumber, Parameter(group=DATA)] = None,
    ood: Texts = list(OOD),  # noqa: B006 - shown in the help, not changed
    corruptions: File | None = None,
    max_images: OptionalWholeNumber = None,
    quick: bool = False,
    grad_cam: TextOrOn = False,
    out: File | None = None,
    json: FileOrScreen = False,
    model: Annotated[OptionalText, _OfModel] = None,
    checkpoint: Annotated[File | None, _OfModel] = None,
    width: Annotated[OptionalWholeNumber, _OfModel] = None,
    image_size: Annotated[OptionalWholeNumber, _OfModel] = None,
    mean: Annotated[OptionalDecimals, _OfModel] = None,
    std: Annotated[OptionalDecimals, _OfModel] = None,
) -> None:
    """Evaluate a network: accuracy, calibration, robustness, OOD detection.

    The network of a run is evaluated on the run's own test images, and the run's report then shows the numbers; or on
    other images of the same classes, --data. Any torchvision or timm model, --model, is evaluated on --data. Images
    without a test split are all used.

    For example:
        selfdistill evaluate runs/photos/sddropout-seed0
        selfdistill evaluate runs/photos/sddropout-seed0 --data more-photos --quick
        selfdistill evaluate --model timm:resnet18.a1_in1k --data imagenet/val

    Args:
        run: folder of a run, or a file that selfdistill export --format safetensors wrote
        data: images: a folder, a named dataset or .npz arrays (default: those of the run)
        data_root: folder of the named datasets; they are downloaded to it
        skip_unreadable: skip files that cannot be read instead of stopping
        max_pixels: refuse image files of more pixels (default: 89,478,485)
        ood: out-of-distribution datasets: photographs, lsun_resize, isun, dtd, svhn, cifar10,
            imagenet_resize, folders, .npy or .npz
        corruptions: folder of the published CIFAR-10-C or CIFAR-100-C arrays (default: synthetic corruptions)
        max_images: maximum test images for PGD and synthetic corruptions (default: 1000)
        quick: measure accuracy and calibration only
        grad_cam: show in the report where in its pictures the network looked, in the map of this layer (without a name:
            the deepest)
        out: folder of the report (default: RUN, or runs/MODEL-on-DATA)
        json: write the numbers to this file (without a name: to the screen)
        model: network to evaluate instead of RUN: torchvision:NAME, timm:NAME, one of our own or
            package.module:function
        checkpoint: file of its weights (default: the pretrained weights of its package)
        width: width of one of our own networks
        image_size: side of the images in pixels (default: what the network was trained at)
        mean: mean of each channel, in [0, 1] (default: that of the pretrained weights)
        std: standard deviation of each channel (default: that of the pretrained weights)
    """
    from selfdistill.records.record import to_json
    from selfdistill.report import digest, terminal, write_evaluation_report, write_report
    from selfdistill.runs.evaluation import evaluation_config
    from selfdistill.runs.folders import check_writable, check_writable_file
    from selfdistill.runs.score import score

    if quick and out is not None:
        raise ArgumentError("out", "would be ignored: with `quick=True` no report is written")
    if out is not None:
        check_writable(out)
    if isinstance(json, Path):
        check_writable_file("json", json)
    config = evaluation_config(ood, corruptions, max_images, quick, data_root, skip_unreadable, max_pixels)
    scored = score(
        run,
        model,
        data,
        config,
        checkpoint=checkpoint,
        width=width,
        image_size=image_size,
        mean=mean,
        std=std,
        grad_cam=grad_cam,
    )
    shows = json is not True  # JSON on the screen stands alone
    if json:
        write_or_print(json, to_json(scored.evaluation).decode())
    if shows:
        print_table(terminal(digest(scored.evaluation), title=scored.title, prose=(0, 2)))
        print_skipped(scored.skipped)
    if quick:
        return
    folder = out or scored.folder
    if scored.record is not None:
        page = write_report([scored.record], folder, title=scored.title, folders=[scored.folder])
    else:
        page = write_evaluation_report(scored.label, scored.evaluation, folder, title=scored.title, facts=scored.facts)
    if shows:
        print_lines(f"Report: {page}")
