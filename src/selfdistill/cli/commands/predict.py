"""``selfdistill predict``."""

from pathlib import Path

from selfdistill.cli.options import File, FileOrScreen, Files, OptionalWholeNumber
from selfdistill.cli.show import print_lines, print_skipped, print_table, write_or_print


def predict(
    run: File,
    /,
    *paths: Files,
    csv: FileOrScreen = False,
    skip_unreadable: bool = False,
    max_pixels: OptionalWholeNumber = None,
) -> None:
    """Classify image files with a trained network.

    For example:
        selfdistill predict runs/photos/sddropout-seed0 new-photos --csv out.csv

    Args:
        run: folder of a run, or a file that selfdistill export --format safetensors wrote
        paths: image files, or folders to search for them
        csv: write one row per image, with the probability of every class, to this file (without a name: to the screen)
        skip_unreadable: skip files that cannot be read instead of stopping
        max_pixels: refuse image files of more pixels (default: 89,478,485)
    """
    from selfdistill.report.tables import Table, terminal
    from selfdistill.runs.predict import predict_run, to_csv

    file = csv if isinstance(csv, Path) else None
    predictions, skipped, classes = predict_run(
        run, paths, csv=file, skip_unreadable=skip_unreadable, max_pixels=max_pixels
    )
    if csv:
        write_or_print(csv, to_csv(predictions, classes))
    else:
        rows = tuple((str(p.path), p.label, f"{p.confidence:.1%}") for p in predictions)
        print_table(terminal(Table(("File", "Class", "Probability"), rows), prose=(0, 1)))
    if file:
        print_lines(f"{len(predictions)} images, {file}")
    print_skipped(skipped)
