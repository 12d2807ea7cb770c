"""``selfdistill predict``."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from cyclopts import Group, Parameter, Token

from selfdistill.cli import say
from selfdistill.cli.options import File, FileOrScreen, Files, OptionalWholeNumber
from selfdistill.cli.show import print_lines, print_table, write_or_print
from selfdistill.errors import ArgumentError, naming
from selfdistill.text import quote, suggest

if TYPE_CHECKING:
    from selfdistill.runs.predict import Prediction

_Detector = Literal["energy", "max_softmax", "mahalanobis", "knn", "vim", "react", "dice", "ash"]
_TRUST = Parameter(group=Group.create_ordered("Decision, by validation images"))


def _detector(_: type, tokens: Sequence[Token]) -> str:
    """Return the name of a detector; cyclopts would take 0 for a switch."""
    text = tokens[0].value
    if text not in get_args(_Detector):
        raise ValueError(f"must not be {quote(text)}; {suggest(text, get_args(_Detector))}")
    return text


def predict(
    run: File,
    /,
    *paths: Files,
    csv: FileOrScreen = False,
    json: FileOrScreen = False,
    skip_unreadable: bool = False,
    max_pixels: OptionalWholeNumber = None,
    watch: bool = False,
    abstain: Annotated[float | None, _TRUST] = None,
    ood: Annotated[_Detector | bool, _TRUST, Parameter(converter=_detector)] = False,
    conformal: Annotated[float | None, _TRUST] = None,
    sets: Annotated[Literal["thr", "aps", "raps"], _TRUST] = "thr",
) -> None:
    """Classify image files with a trained network.

    Probabilities are at the temperature that was fitted on validation images, if there were any. What decides needs
    such images too: those of the training (a val folder, --val-fraction) or of selfdistill calibrate.

    With - for PATHS, the paths come from standard input, one per line, and rows go out as they come. So they do with
    --watch, until Ctrl-C.

    For example:
        selfdistill predict runs/photos/sddropout-seed0 new-photos --csv out.csv
        selfdistill predict runs/photos/sddropout-seed0 photos --abstain 0.05 --ood
        find new-photos | selfdistill predict runs/photos/sddropout-seed0 - --json

    Args:
        run: folder of a run, or a file that selfdistill export --format safetensors wrote
        paths: image files, or folders to search for them; - reads paths from standard input
        csv: write one row per image, with the probability of every class, to this file (without a name: to the screen)
        json: the same as one JSON object per line
        skip_unreadable: skip files that cannot be read instead of stopping
        max_pixels: refuse image files of more pixels (default: 89,478,485)
        watch: go on with the images that come into the folders, and with those that change, until interrupted
        abstain: say "not sure" where needed to be wrong on at most this share of the other images, such as 0.05
        ood: say "unknown" of images that this detector takes for none of the classes, and of 5 % of those that are
            (without a name: energy); all but energy and max_softmax need selfdistill calibrate
        conformal: give a set of classes that holds the right one this often, such as 0.9
        sets: how the sets are made
    """
    from selfdistill.evaluation.decision import Rules, describe_decisions
    from selfdistill.runs.predict import (
        count_decisions,
        describe_counts,
        make_predictor,
        predict_lines,
        predict_new,
        predict_paths,
        to_csv,
        to_json_lines,
    )

    from_input = Path("-") in paths
    is_stream = from_input or watch
    _check_output(csv, json, is_stream=is_stream)
    if from_input and len(paths) > 1:
        raise ArgumentError("paths", "must be - alone, or files and folders")
    if watch and (other := next((path for path in paths if not path.is_dir()), None)):
        raise ArgumentError("watch", f"takes folders, and {other} is not a folder")
    rules = Rules(abstain, "energy" if ood is True else ood or None, conformal, sets)
    predictor = make_predictor(run, rules, skip_unreadable=skip_unreadable, max_pixels=max_pixels)
    classes = predictor.loaded.classes
    counts: Counter[str] = Counter()
    with naming(run):
        if is_stream:
            batches = predict_new(predictor, paths) if watch else predict_lines(predictor, sys.stdin.buffer)
            for batch in filter(None, batches):
                rows = to_json_lines(batch, classes) if json else to_csv(batch, classes, heading=not counts)
                print(rows, end="", flush=True)
                counts += count_decisions(batch)
        else:
            predictions = predict_paths(predictor, paths)
            counts += count_decisions(predictions)
            if csv or json:
                write_or_print(csv or json, (to_json_lines if json else to_csv)(predictions, classes))
            else:
                _show(predictions)
    file = next((where for where in (csv, json) if isinstance(where, Path)), None)
    counted = ("" if file is None else f"{file}: ") + describe_counts(counts, predictor.skipped)
    for line in (*describe_decisions(predictor.decisions, rules), counted):
        # Rows on the screen may be another program's input.
        (say if is_stream or True in (csv, json) else print_lines)(line)


def _check_output(csv: Path | bool, json: Path | bool, *, is_stream: bool) -> None:
    from selfdistill.runs.folders import check_writable_file
    from selfdistill.runs.predict import refuse_image_name

    if csv and json:
        raise ArgumentError("json", "and `csv` exclude each other")
    for name, where in (("csv", csv), ("json", json)):
        if isinstance(where, Path):
            if is_stream:
                raise ArgumentError(name, f"is {where}, but the rows are written as they come: use > {where}")
            refuse_image_name(where, name)
            check_writable_file(name, where)


def _show(predictions: "Sequence[Prediction]") -> None:
    from selfdistill.report.tables import Table, terminal

    headings = ("File", "Class", "Probability", *(name.title() for name, _ in predictions[0].asked))
    rows = tuple(
        (str(p.path), p.label, f"{p.confidence:.1%}", *(v if isinstance(v, str) else ", ".join(v) for _, v in p.asked))
        for p in predictions
    )
    print_table(terminal(Table(headings, rows), prose=(0, 1, 3, 4)))
