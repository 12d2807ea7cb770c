"""``selfdistill detect``."""

from selfdistill.cli.options import Accelerator, File, MachineNumber, takes_recipe
from selfdistill.cli.show import print_lines, print_table
from selfdistill.detect.config import DetectConfig


@takes_recipe(DetectConfig)
def detect(
    recipe: DetectConfig,
    *,
    out: File | None = None,
    devices: MachineNumber = 1,
    nodes: MachineNumber = 1,
    accelerator: Accelerator = "auto",
) -> None:
    """Train an object detector on a backbone; measure its mAP.

    Faster R-CNN with a feature pyramid on a ResNet. The ResNet comes from a run of selfdistill train (--backbone RUN,
    trained as --model torchvision:resnet50 or another), or is --model, from scratch or with torchvision's weights.
    Images and boxes are in COCO's layout. Two detectors of one recipe, on backbones that were trained by two methods,
    are two rows of the paper's Table 4.

    To resume an interrupted training, run the same command again.

    For example:
        selfdistill detect --data coco --backbone runs/imagenet/sddropout-seed0
        selfdistill detect --data coco --model resnet50 --weights default

    Args:
        out: folder of the run (default: detectors/DATA-BACKBONE-E-epochs-seedN)
        devices: GPUs (or CPU processes) on each machine
        nodes: number of machines
        accelerator: cuda, mps (of a Mac), cpu, or auto for a GPU where there is one
    """
    from selfdistill.report import detector_headline, precision_table, terminal, write_detector_report
    from selfdistill.runs.single import run_detector

    record, out = run_detector(recipe, out, devices=devices, nodes=nodes, accelerator=accelerator)
    if record is not None:  # the first of several processes
        page = write_detector_report(record, out)
        print_table(terminal(precision_table(record), prose=(0, 2)))
        print_lines(detector_headline(record), f"Report: {page}")
