"""What each command does. A function's signature is its options, its docstring its help; no torch until it runs."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from selfdistill.detect.recipe import DetectRecipe
from selfdistill.train.recipe import Recipe

if TYPE_CHECKING:
    from selfdistill.experiments.paper import PaperTable, Setting
    from selfdistill.records import RunRecord
    from selfdistill.runs.evaluation import EvaluationConfig
    from selfdistill.runs.executor import ExecutorConfig

DEFAULT_METHODS = ("CrossEntropy()", "LabelSmoothing()", "SDDropout(weight=0.1)", "SDDropout()")
DEFAULT_OOD = ("photographs",)


def demo(out: Path = Path("runs/demo"), seeds: int = 3, jobs: int = 2) -> None:
    """Compare methods on handwritten digits: a minute, no download.

    Cross-entropy, label smoothing and SD-Dropout, at the paper's weight 1.0 and at 0.1, learn from 50 of the 1,797
    digits that ship with scikit-learn, and are scored on held-out ones: accuracy, calibration, attacks, corruptions,
    and pieces of two photographs that are no digits.

    Args:
        out: folder for the runs and the report
        seeds: how many seeds, from 0 up
        jobs: trainings at a time; more than 1 run in processes of their own
    """
    from selfdistill.runs.compare import run_comparison
    from selfdistill.runs.demo import EVALUATION, PREFACE, RECIPE

    records = run_comparison(
        RECIPE, DEFAULT_METHODS, seeds=seeds, epochs=RECIPE.epochs, jobs=jobs, out=out, evaluation=EVALUATION
    )
    _show(records, out, "Handwritten digits: does it help?", PREFACE)


def compare(
    recipe: Recipe,
    methods: list[str] = list(DEFAULT_METHODS),  # noqa: B006 - shown in the help, never changed
    seeds: int = 3,
    epochs: int | None = None,
    budget: str = "60m",
    jobs: int = 1,
    out: Path | None = None,
    ood: list[str] = list(DEFAULT_OOD),  # noqa: B006
    corruptions: Path | None = None,
    max_images: int | None = None,
    quick: bool = False,
) -> None:
    """Train several methods on your images; report whether any helped.

    The images: a folder (DIR/train/CLASS/* with DIR/test/CLASS/* or DIR/val/CLASS/*; or just DIR/CLASS/*, of which
    20 % are held out), a named set (digits, cifar10, cifar100, svhn, cub200, dogs, dogs_full, imagenet), or arrays
    (FILE.npz; or train.npz and test.npz in DIR) with images, uint8 (N, H, W, C), and labels.

    Each network is then measured as by selfdistill evaluate. A comparison that was stopped goes on where it was: give
    the same command again.

    Args:
        methods: what to compare; differences are to the first
        seeds: how many seeds, from 0 up
        epochs: passes over the training images; as many as fit in --budget where not given
        budget: time for everything, such as 90s, 60m or 1h30m; gives 200 epochs at most
        jobs: trainings at a time; more than 1 run in processes of their own
        out: folder for the runs and the report; runs/DATA where not given
        ood: other images: photographs, lsun_resize, isun, dtd, svhn, imagenet_resize, cifar10, folders, .npy or .npz
        corruptions: folder of the published CIFAR-10-C or CIFAR-100-C arrays; own corruptions where not given
        max_images: test images under PGD and own corruptions; what fits in a quarter of --budget where not given
        quick: accuracy and calibration alone

    Example:
        selfdistill compare --data photos --weights default
        selfdistill compare --data cifar100 --per-class 100 --budget 30m --jobs 2
        selfdistill compare --data photos --methods "CrossEntropy()" "SDDropout()"
    """
    from selfdistill.runs.compare import run_comparison

    name = _name_of(recipe.data)
    out = out or Path("runs") / name
    records = run_comparison(
        recipe,
        methods,
        seeds=seeds,
        epochs=epochs,
        budget=budget,
        jobs=jobs,
        out=out,
        evaluation=_evaluation_config(
            ood, corruptions, max_images, quick, Path(recipe.data_root), recipe.skip_unreadable
        ),
        fit=max_images is None and epochs is None,
    )
    counted = "1 method" if len(methods) == 1 else f"{len(methods)} methods compared"
    _show(records, out, f"{name}: {counted}")


def train(
    recipe: Recipe,
    out: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    accelerator: Literal["auto", "cuda", "cpu"] = "auto",
    tensorboard: bool = False,
) -> None:
    """Train one network with one method.

    A run that was stopped goes on where it was, to the same weights: give the same command again.

    Args:
        out: the run's folder; runs/DATA-METHOD-seedN where not given
        devices: GPUs (or CPU processes) on each machine
        nodes: machines
        accelerator: cuda, cpu, or auto for a GPU where there is one
        tensorboard: also write OUT/tensorboard

    Example:
        selfdistill train --data photos --weights default --epochs 30
        selfdistill train --recipe recipes/cifar100.yaml --seed 1 --devices 2
    """
    from selfdistill.runs.single import run_single

    (record, out) = run_single(
        recipe,
        out,
        name=_name_of(recipe.data),
        devices=devices,
        nodes=nodes,
        accelerator=accelerator,
        tensorboard=tensorboard,
    )
    if record is not None:
        _show([record], out, f"{record.method} on {record.data['name']}")


def evaluate(
    run: Path | None,
    model: str | None = None,
    checkpoint: Path | None = None,
    data: str | None = None,
    ood: list[str] = list(DEFAULT_OOD),  # noqa: B006 - shown in the help, never changed
    corruptions: Path | None = None,
    max_images: int | None = None,
    quick: bool = False,
    out: Path | None = None,
    json: Path | bool = False,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    width: int | None = None,
    data_root: str = "data",
    skip_unreadable: bool = False,
) -> None:
    """Measure a network: calibration, robustness, unknown images.

    A run's network is measured on the run's own test images, and the run's report gets what was measured; or on other
    images of the same classes, --data. Any network of torchvision or timm, --model, is measured on --data. Images
    without a test part are all scored.

    Args:
        run: a run's folder, or a file that selfdistill export --format safetensors wrote
        model: torchvision:NAME, timm:NAME or one of our own, in the place of RUN
        checkpoint: the file of its weights; the package's pretrained ones where not given
        data: images: a folder, a named set or .npz arrays
        ood: other images: photographs, lsun_resize, isun, dtd, svhn, imagenet_resize, cifar10, folders, .npy or .npz
        corruptions: folder of the published CIFAR-10-C or CIFAR-100-C arrays; own corruptions where not given
        max_images: test images under PGD and own corruptions; 1,000 where not given
        quick: accuracy and calibration alone
        out: folder of the report; RUN, or runs/MODEL-on-DATA, where not given
        json: write the numbers to this file; to the screen where no file is named
        image_size: side of the images for --model; what it was trained at where not given
        mean: of each channel for --model, in [0, 1]; that of its package's weights where not given
        std: of each channel for --model; likewise
        width: the width of --model, where it is one of our own
        data_root: folder where named sets are looked for and downloaded to
        skip_unreadable: leave out files that cannot be read instead of stopping

    Example:
        selfdistill evaluate runs/photos/sddropout-seed0
        selfdistill evaluate runs/photos/sddropout-seed0 --data more-photos --quick
        selfdistill evaluate --model timm:resnet18.a1_in1k --data imagenet/val
    """
    from json import dumps

    from selfdistill.report import terminal, write_evaluation_report, write_report
    from selfdistill.report.lists import evaluation_table
    from selfdistill.runs.score import score_external, score_run

    config = _evaluation_config(ood, corruptions, max_images, quick, Path(data_root), skip_unreadable)
    if (run is None) == (model is None):
        raise ValueError("RUN or --model must be given, and not both: selfdistill evaluate RUN [--option value ...]")
    if model is None:
        assert run is not None
        of_model = {"checkpoint": checkpoint, "image-size": image_size, "mean": mean, "std": std, "width": width}
        for name, value in of_model.items():
            option = f"--{name}"
            if value is not None:
                raise ValueError(f"{option} belongs to --model: a run knows its own")
        scored = score_run(run, data, config)
        out = out or (run if data is None else run / f"on-{_name_of(data)}")
    else:
        if data is None:
            raise ValueError("--model needs --data: the images that it is measured on")
        scored = score_external(model, checkpoint, data, config, image_size=image_size, mean=mean, std=std, width=width)
        out = out or Path("runs") / f"{model.replace(':', '-')}-on-{_name_of(data)}"
    if json:
        _write(json, dumps(scored.evaluation.to_dict(), indent=1) + "\n")
    if json is not True:
        _print(terminal(evaluation_table(scored.evaluation), title=scored.title, prose=(0, 2)))
        _tell_skipped(scored.skipped)
    if config.measures:
        if scored.record is not None:
            page = write_report([scored.record], out, title=scored.title)
        else:
            page = write_evaluation_report(
                scored.label, scored.evaluation.to_dict(), out, title=scored.title, facts=scored.facts
            )
        if json is not True:
            print(f"Report: {page}")


def detect(
    recipe: DetectRecipe,
    out: Path | None = None,
    devices: int = 1,
    nodes: int = 1,
    accelerator: Literal["auto", "cuda", "cpu"] = "auto",
) -> None:
    """Train an object detector on a backbone; measure its mAP.

    Faster R-CNN with a feature pyramid on a ResNet: that of a run of selfdistill train (--backbone RUN, trained as
    --model torchvision:resnet50 or another), or --model, from scratch or with torchvision's weights. The images and
    boxes lie as COCO's do. Two detectors of one recipe on backbones that were trained by two methods are a row each of
    the paper's Table 4.

    A training that was stopped goes on where it was: give the same command again.

    Args:
        out: folder of the run; detectors/DATA-BACKBONE-SCHEDULE-seedN where not given
        devices: GPUs (or CPU processes) on each machine
        nodes: machines
        accelerator: cuda, cpu, or auto for a GPU where there is one

    Example:
        selfdistill detect --data coco --backbone runs/imagenet/sddropout-seed0
        selfdistill detect --data coco --model resnet50 --weights default
    """
    from selfdistill.report import detector_headline, precision_table, terminal, write_detector_report
    from selfdistill.runs.detector import run_detector

    record, out = run_detector(recipe, out, devices=devices, nodes=nodes, accelerator=accelerator)
    if record is not None:
        page = write_detector_report(record, out)
        _print(terminal(precision_table(record), prose=(0, 2)))
        print(detector_headline(record))
        print(f"Report: {page}")


def reproduce(
    table: str | None,
    scale: Literal["smoke", "small", "medium", "full"] = "small",
    out: Path | None = None,
    data_root: str = "data",
    jobs: int = 1,
    ray: str | None = None,
    cpus: int = 1,
    seeds: list[int] = [],  # noqa: B006 - shown in the help, never changed
    list: bool = False,
    print_commands: bool = False,
) -> None:
    """Reproduce a table or a figure of the paper, our numbers beside its.

    TABLE is table1, table2 ..., figure1 ..., lemma1, lemma2, proposition1, anchors (the losses and accuracies of the
    published runs' logs), or all. What is missing is run and measured; a finished run is never repeated, and tables
    share their runs. A cell whose images are not there says no data and how to get them.

    The scales: smoke is seconds on synthetic images. small and medium are CIFAR-100 with 15 and 30 images of each class
    at 16 pixels, narrow networks and 200 epochs: 5 and 35 minutes a run on one core. full is the paper's protocol.

    Args:
        table: what to reproduce; --list and --print-commands are of all where it is not given
        scale: smoke, small, medium or full
        out: folder for the runs and the pages; runs/paper-SCALE where not given
        data_root: folder where named sets are looked for and downloaded to
        jobs: trainings, and then measurings, at a time; more than 1 run in processes of their own, one a GPU
        ray: hand the trainings to this Ray cluster instead: HOST:PORT, or auto for the one that this machine belongs to
            (or else one of this machine alone); all its machines must see --out and --data-root
        cpus: of a Ray cluster without GPUs, processors for each training
        seeds: in the place of 41 42 43, or of 41 alone where the scale has one
        list: show what is done and what the rest would take on this machine; run nothing
        print_commands: write the recipes of the missing runs and print a command for each; run nothing. A command with
            --devices N at its end shares its batches among N GPUs, as one would for Table 3

    Example:
        selfdistill reproduce --list
        selfdistill reproduce table12 --scale small --jobs 2
        selfdistill reproduce all --scale full --ray auto
        selfdistill reproduce all --scale full --print-commands
    """
    from selfdistill.experiments.paper import Setting, tables_named
    from selfdistill.runs.executor import ExecutorConfig
    from selfdistill.train.writable import check_writable

    if any(not 0 <= seed < 2**63 for seed in seeds) or len(set(seeds)) < len(seeds):
        told = " ".join(map(str, seeds))
        raise ValueError(f"--seeds must be different whole numbers from 0 to 2**63 - 1, not {told}")
    if list and print_commands:
        raise ValueError("--list and --print-commands exclude each other")
    if table is None and not (list or print_commands):
        raise ValueError("TABLE must be given: selfdistill reproduce --list shows them, and all is all of them")
    tables = tables_named(table or "all")
    machines = ExecutorConfig(jobs, ray, cpus)
    setting = Setting(scale, out or Path("runs") / f"paper-{scale}", Path(data_root), tuple(seeds))
    if print_commands:
        from selfdistill.experiments.paper.listing import commands_of

        commands = commands_of(tables, setting)
        print("".join(f"{command}\n" for command in commands), end="")
        if not commands:
            print(f"No run is missing that --scale {scale} makes.", file=sys.stderr)
    elif list:
        _list_needs(tables, setting)
    else:
        check_writable(setting.out)
        _reproduce(tables, setting, machines)


def report(
    runs: list[Path], out: Path = Path("report"), title: str = "Comparison", baseline: str | None = None
) -> None:
    """Write the report of finished runs: HTML, Markdown and figures.

    Args:
        runs: folders of runs, or folders that hold such
        out: folder of the report
        title: its heading
        baseline: the method that the others are compared with; the first found where not given

    Example:
        selfdistill report runs/photos runs/more-seeds --baseline "CrossEntropy()"
    """
    from selfdistill.runs.finished import collect_finished

    _show(collect_finished(runs, baseline), out, title)


def predict(run: Path, paths: list[Path], csv: Path | bool = False, skip_unreadable: bool = False) -> None:
    """Classify image files with a trained network.

    Args:
        run: a run's folder
        paths: image files, and folders that are searched for them
        csv: write a row an image, with every class's probability, to this file; to the screen where no file is named
        skip_unreadable: leave out files that cannot be read instead of stopping

    Example:
        selfdistill predict runs/photos/sddropout-seed0 new-photos --csv out.csv
    """
    from torch import cuda

    from selfdistill.report.tables import Table, terminal
    from selfdistill.runs.predict import predict_files, refuse_image_name, to_csv
    from selfdistill.train import load_run

    if isinstance(csv, Path):
        refuse_image_name(csv)
    loaded = load_run(run)
    device = "cuda" if cuda.is_available() else "cpu"
    predictions, unreadable = predict_files(loaded, paths, skip_unreadable=skip_unreadable, device=device)
    if csv:
        _write(csv, to_csv(predictions, loaded.classes))
    else:
        rows = tuple((str(p.path), p.label, f"{p.confidence:.1%}") for p in predictions)
        _print(terminal(Table(("File", "Class", "Probability"), rows), prose=(0, 1)))
    if isinstance(csv, Path):
        print(f"{len(predictions)} images, {csv}")
    _tell_skipped(unreadable)


def export(run: Path, format: Literal["onnx", "pt2", "safetensors"] = "onnx", out: Path | None = None) -> None:
    """Write a trained network as one file for use elsewhere.

    ONNX, a PyTorch program (torch.export) or the bare weights; the file holds the classes, the image size and the
    normalisation too. It appears when its outputs were compared with PyTorch's. ONNX needs pip install
    "selfdistill[onnx]".

    Args:
        run: a run's folder
        format: what to write
        out: the file; exported.onnx, .pt2 or .safetensors in the run's folder where not given

    Example:
        selfdistill export runs/photos/sddropout-seed0 --format onnx --out photos.onnx
    """
    from selfdistill.runs.export import export_run, in_words

    print(in_words(export_run(run, format, out)))


def methods(
    no_measure: bool = False,
    model: str = "resnet18_cifar",
    width: int | None = None,
    image_size: int | None = None,
    batch_size: int = 64,
) -> None:
    """List the methods, what they need, and what they cost.

    The cost is measured on this machine, in half a minute or so: the time and the memory of a training step beside
    those of a step of cross-entropy, on noise.

    Args:
        no_measure: list the methods and measure nothing
        model: the network that is trained; resnet18_cifar, torchvision:NAME, timm:NAME ...
        width: its width, of our networks; 16 where not given
        image_size: 32 for our CIFAR networks and 224 for others where not given
        batch_size: images of a step, before what a method needs further

    Example:
        selfdistill methods --no-measure
        selfdistill methods --model timm:vit_tiny_patch16_224 --batch-size 8
    """
    from selfdistill.report.lists import cost_table, method_lines

    print("\n".join(method_lines()))
    print('\nMethods are added with +, for example "SDDropout(weight=0.1) + LabelSmoothing()".', flush=True)
    if no_measure:
        return
    from selfdistill.report import terminal
    from selfdistill.runs.cost import run_costs

    setting, costs = run_costs(model, width=width, image_size=image_size, batch_size=batch_size)
    table = cost_table(costs)
    print(f"\nWhat a step costs with {setting}:")
    _print(terminal(table))
    print("\n".join(table.notes))


def _list_needs(tables: "Sequence[PaperTable]", setting: "Setting") -> None:
    from rich.console import Console

    from selfdistill.experiments.paper.entry import Training
    from selfdistill.experiments.paper.listing import needs_of
    from selfdistill.report import terminal
    from selfdistill.report.paper import duration, needs_table

    timed: dict[Training, float] = {}
    left: dict[Training, float] = {}  # tables share their runs
    for table in tables:
        with Console(stderr=True).status(f"{table.name}: measuring how long a step takes"):
            needs = needs_of(table, setting, timed=timed)
        if not needs:
            print(f"{table.name}: {table.title}: needs no run")
            continue
        title = f"{table.name}: {table.title}, {len(table.entries)} cells"
        _print(terminal(needs_table(needs), title=title, prose=(0, 1, 2)))
        for need in needs:
            left[need.training] = max(left.get(need.training, 0.0), need.seconds_left)
    if not any(left.values()):
        print("No run is missing.")
        return
    print(
        f"The missing runs would take about {duration(sum(left.values()))} here, one after another, on a machine that "
        "does nothing else; what is measured of them, and the detectors of Table 4, come on top."
    )


def _reproduce(tables: "Sequence[PaperTable]", setting: "Setting", machines: "ExecutorConfig") -> None:
    from selfdistill.experiments.paper import Line, reproduce
    from selfdistill.report import terminal
    from selfdistill.report.paper import (
        anchors_table,
        deviations,
        facts,
        reproduced_table,
        title_of,
        write_figure1,
        write_reproduced,
    )

    lines: list[Line] = []
    for table in tables:
        if table.figure == "diagrams":
            print(f"Page: {write_figure1(setting.out)}", flush=True)
            continue
        result = reproduce(table, setting, machines)
        page = write_reproduced(result, setting.out)
        shown = anchors_table(result, published=False) if result.beside_logs else reproduced_table(result)
        _print(terminal(shown, title=title_of(result), prose=(0,) if result.beside_logs else (0, 1)))
        print(*deviations(result), facts(result), *result.protocol, sep="\n")
        for note in shown.notes:
            print(f"Missing: {note}")
        print(f"Page: {page}", flush=True)
        lines += result.lines
    if lines and not any(line.values for line in lines):
        raise ValueError(f"no cell has a number: {lines[0].absent}")


def _evaluation_config(
    ood: list[str], corruptions: Path | None, max_images: int | None, quick: bool, data_root: Path, skip: bool
) -> "EvaluationConfig":
    from selfdistill.runs.evaluation import BASIC_EVALUATION, EvaluationConfig

    if max_images is not None and max_images < 1:
        raise ValueError(f"--max-images must be at least 1, not {max_images}")
    if quick:
        return replace(BASIC_EVALUATION, data_root=data_root, skip_unreadable=skip)
    most = 1000 if max_images is None else max_images
    return EvaluationConfig(
        ood=tuple(ood), corruptions=corruptions, max_images=most, data_root=data_root, skip_unreadable=skip
    )


def _name_of(data: str) -> str:
    """Return what runs on these images are called: a set's name, a folder's, a file's without .npz."""
    return Path(data).expanduser().resolve().name.removesuffix(".npz") or "data"


def _show(records: "Sequence[RunRecord]", out: Path, title: str, preface: str | None = None) -> None:
    from rich.console import Console

    from selfdistill.records import summarise
    from selfdistill.report import terminal_table, verdict, write_report

    page = write_report(records, out, title=title, preface=preface)
    summary = summarise(records)
    _print(terminal_table(summary, title=title, width=Console().width))
    print(verdict(summary).headline)
    print(f"Report: {page}")


def _tell_skipped(files: Sequence[object]) -> None:
    if files:
        counted = "1 unreadable file" if len(files) == 1 else f"{len(files)} unreadable files"
        print(f"{counted} left out; the first: {files[0]}")


def _write(where: Path | bool, text: str) -> None:
    """Write to a file, whole or not at all; to the screen where no file is named."""
    from selfdistill.records import write_atomically

    if isinstance(where, Path):
        write_atomically(where, text.encode())
    else:
        print(text, end="")


def _print(table: object) -> None:
    from rich.console import Console

    Console().print(table)
