"""``selfdistill calibrate``."""

from typing import Annotated

from cyclopts import Parameter

from selfdistill.cli.options import DATA, File, OptionalText, OptionalWholeNumber, Text
from selfdistill.cli.show import OOD, print_lines


def calibrate(
    run: File,
    /,
    *,
    data: Annotated[OptionalText, Parameter(group=DATA)] = None,
    data_root: Annotated[Text, Parameter(group=DATA)] = "data",
    skip_unreadable: Annotated[bool, Parameter(group=DATA)] = False,
    max_pixels: Annotated[OptionalWholeNumber, Parameter(group=DATA)] = None,
) -> None:
    """Fit temperature and OOD detectors of a network on validation images.

    After a training with validation images (a val folder, --val-fraction) the temperature is there already, and predict
    --abstain, --conformal and --ood work. This adds the OOD detectors that read features; and it calibrates a network
    that was trained without validation images, or anew for images of another kind, on --data.

    For example:
        selfdistill calibrate runs/photos/sddropout-seed0 --data labelled-photos

    Args:
        run: folder of a run
        data: labelled images of the same classes that the network has not seen, the test images neither: a folder, a
            named dataset or .npz arrays (default: the run's validation images)
        data_root: folder of the named datasets; they are downloaded to it
        skip_unreadable: skip files that cannot be read instead of stopping
        max_pixels: refuse image files of more pixels (default: 89,478,485)
    """
    from selfdistill.runs.calibrate import calibrate_run, describe
    from selfdistill.runs.evaluation import evaluation_config

    config = evaluation_config(OOD, None, None, True, data_root, skip_unreadable, max_pixels)
    print_lines(*describe(calibrate_run(run, data, config)))
