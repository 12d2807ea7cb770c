"""`train`, `compare` and `tune`."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.utils.data import Dataset

from selfdistill.api.images import collect_images, name_of_images
from selfdistill.api.results import Comparison, TrainedRun, TunedRuns, report_runs, report_search
from selfdistill.config.train_config import COMPARED_METHODS, IN_PYTHON, TUNED_METHODS, TrainConfig
from selfdistill.data import ImageData
from selfdistill.errors import ArgumentError
from selfdistill.method import Method
from selfdistill.models.function import ModelFunction, is_function
from selfdistill.models.pretrained import pretrained
from selfdistill.records.evaluation import SuiteConfig
from selfdistill.runs.compare import run_comparison
from selfdistill.runs.evaluation import evaluation_config
from selfdistill.runs.failures import FailedRunsError
from selfdistill.runs.folders import name_of
from selfdistill.runs.grid import ExecutorConfig, plan_runs
from selfdistill.runs.search import SearchConfig
from selfdistill.runs.search import tune as run_search
from selfdistill.runs.single import run_single
from selfdistill.text import suggest

Model = str | Callable[[], nn.Module] | None
"""A name as for ``--model``, a function without arguments that builds the model, or None: chosen by the image size."""

Data = str | Path | ImageData | Dataset[Any] | tuple[Any, Any]
"""What ``--data`` takes, a map-style dataset of (image, label), or images and labels; see `collect_images`."""


def train(
    model: Model,
    data: Data,
    method: str | Method = "SDDropout()",
    *,
    test: Data | None = None,
    val: Data | None = None,
    out: str | Path | None = None,
    **config: Any,
) -> TrainedRun:
    """Train one network with one method, as ``selfdistill train`` does.

    To resume an interrupted run, call it again with the same arguments; a finished run is returned as it is, and other
    images or another recipe than those of the run in ``out`` are refused. Images given in Python are read once, into
    memory, and augmented while training; photographs are better passed as a folder.

    Args:
        model: a function without arguments that builds the model, or a name as for ``--model``; None: by image size.
        data: the training images: a map-style dataset of (image, label); a pair of images, uint8 ``(N, H, W, C)`` or
            ``(N, C, H, W)``, and labels ``(N,)``; or a path or a named set as for ``--data``. Grey images stay grey for
            a function's model.
        method: a method, or its expression.
        test: the test images, if ``data`` are not a path; None: about 20 % of each class are held out.
        val: validation images, likewise; None: none, or ``val_fraction``.
        out: folder of the run (default: ``runs/DATA-METHOD-seedN``).
        config: fields of :class:`~selfdistill.config.train_config.TrainConfig`, such as ``epochs=30``.

    Returns:
        The record, and the trained network as ``.model``.

    Raises:
        ValueError: what does not fit; one line that names the argument.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the state is saved.

    Example:
        >>> import tempfile, torch, selfdistill
        >>> images, labels = torch.randint(256, (40, 1, 8, 8), dtype=torch.uint8), torch.arange(40) % 2
        >>> def small():
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = selfdistill.train(small, (images, labels), selfdistill.SDDropout(weight=0.1), epochs=2, out=out)
        ...     run.record.data.train_n + run.record.data.test_n, type(run.model).__name__
        (40, 'Sequential')
    """
    recipe, images = _recipe(
        model, data, test, val, config | {"method": repr(method) if isinstance(method, Method) else method}
    )
    (run,) = plan_runs(recipe, [recipe.method], [recipe.seed])
    out = Path(out) if out is not None else Path("runs") / f"{_name(recipe)}-{run.name}"
    record, _ = run_single(recipe, out, devices=1, nodes=1, accelerator="auto", data=images)
    assert record is not None  # the first of one process
    shown = report_runs([record], out, f"{record.method} on {record.data.name}", folders=[out])
    return TrainedRun(**vars(shown), function=recipe.model)


def compare(
    model: Model,
    data: Data,
    methods: Sequence[str | Method] = COMPARED_METHODS,
    *,
    seeds: int = 3,
    epochs: int | None = None,
    budget: str | None = None,
    test: Data | None = None,
    val: Data | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    ood: Sequence[str] = SuiteConfig().ood,
    corruptions: str | Path | None = None,
    max_images: int | None = None,
    quick: bool = False,
    retry_failed: bool = False,
    **config: Any,
) -> Comparison:
    """Train several methods on the same images and say whether any helped, as ``selfdistill compare`` does.

    An interrupted comparison is resumed as by :func:`train`. Where runs fail the others go on, and ``failed`` says why.

    Args:
        model: as for :func:`train`, like ``data``, ``test`` and ``val``.
        data: the training images.
        methods: methods or their expressions; differences are to the first.
        seeds: number of seeds, from 0 up.
        epochs: passes over the training set; None: as many as fit in ``budget``.
        budget: time for everything, such as ``"30m"`` (default: ``"60m"``).
        test: the test images.
        val: validation images.
        out: folder for the runs and the report (default: ``runs/DATA``).
        jobs: parallel processes; more than 1 need a model and images that are given by name.
        ood: out-of-distribution sets.
        corruptions: folder of the published CIFAR-10-C or CIFAR-100-C (default: synthetic corruptions).
        max_images: most test images for PGD and synthetic corruptions (default: what a quarter of ``budget`` allows).
        quick: measure accuracy and calibration only.
        retry_failed: try runs again that diverged before.
        config: as for :func:`train`, but for ``seed``.

    Raises:
        ValueError: what does not fit; one line that names the argument.
        FailedRunsError: all runs failed.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the runs are saved.
    """
    _refuse_method(config)
    recipe, images = _recipe(model, data, test, val, config)
    name = _name(recipe)
    out = Path(out) if out is not None else Path("runs") / name
    evaluation = evaluation_config(
        ood,
        None if corruptions is None else Path(corruptions),
        max_images,
        quick,
        recipe.data_root,
        recipe.skip_unreadable,
        recipe.max_pixels,
    )
    failed: dict[str, str] = {}
    try:
        records = run_comparison(
            recipe,
            _texts(methods),
            seeds=seeds,
            epochs=epochs,
            budget=budget,
            jobs=jobs,
            out=out,
            evaluation=evaluation,
            fit=max_images is None and epochs is None,
            retry_failed=retry_failed,
            data=images,
        )
    except FailedRunsError as error:
        if not error.records:
            raise
        records, failed = error.records, error.reasons
    counted = "1 method" if len(methods) == 1 else f"{len(methods)} methods compared"
    return report_runs(records, out, f"{name}: {counted}", failed=failed, folders=[out])


def tune(
    model: Model,
    data: Data,
    methods: Sequence[str | Method] = TUNED_METHODS,
    *,
    metric: Literal["nll", "accuracy"] = "nll",
    rates: bool = False,
    trials: int | None = None,
    epochs: int | None = None,
    budget: str | None = None,
    seeds: int = 3,
    test: Data | None = None,
    val: Data | None = None,
    out: str | Path | None = None,
    jobs: int = 1,
    **config: Any,
) -> TunedRuns:
    """Search for the method and settings that help, by validation images, as ``selfdistill tune`` does.

    A search that was stopped goes on when the same call is made again.

    Args:
        model: as for :func:`train`, like ``data``, ``test`` and ``val``.
        data: the training images.
        methods: the baseline, then others, or their expressions. Of an expression the arguments that it names are kept
            and the others searched; of a method, which knows all its arguments, those that are not the default.
        metric: what the search improves on the validation images.
        rates: search the learning rate and the weight decay too, for every method.
        trials: of each method; None: as many as fit in ``budget``.
        epochs: passes over the training set; None: as many as fit in ``budget``.
        budget: time for everything, such as ``"30m"`` (default: ``"60m"``).
        seeds: number of seeds of the last runs, from 0 up.
        test: the test images.
        val: the validation images; None: a fifth of the training images.
        out: folder of the search (default: ``runs/DATA-tuned``).
        jobs: parallel processes; more than 1 need a model and images that are given by name.
        config: as for :func:`train`, but for ``seed``.

    Returns:
        The winner and the tuned baseline, trained on training and validation images, and the network to use.

    Raises:
        ValueError: what does not fit; one line that names the argument.
        Interrupted: SIGINT, SIGTERM or SIGHUP came; the trials in progress are saved.
    """
    _refuse_method(config)
    search = SearchConfig(tuple(_texts(methods)), metric, rates, trials, epochs, budget, seeds)
    recipe, images = _recipe(model, data, test, val, config)
    name = _name(recipe)
    out = Path(out) if out is not None else Path("runs") / f"{name}-tuned"
    tuned = run_search(recipe, search, out=out, executor=ExecutorConfig(jobs), data=images)
    assert tuned is not None  # it is no dry run
    return report_search(tuned, out, name, recipe.model)


def _refuse_method(config: dict[str, Any]) -> None:
    if ignored := next((name for name in ("method", "seed") if name in config), None):
        raise ArgumentError(ignored, "would be ignored: give `methods` and `seeds`")


def _texts(methods: Sequence[str | Method]) -> list[str]:
    return [repr(method) if isinstance(method, Method) else method for method in methods]


def _recipe(
    model: Model, data: Data, test: Data | None, val: Data | None, config: dict[str, Any]
) -> tuple[TrainConfig, ImageData | None]:
    """Return the config of a training and its images, if they are not given by name."""
    known = [field.name for field in fields(TrainConfig) if field.metadata.get("option", True)]
    if unknown := next((name for name in config if name not in known), None):
        raise ArgumentError(
            unknown, f"is not a field of TrainConfig; {suggest(unknown, known, 'see its documentation')}"
        )
    named = ModelFunction(model) if callable(model) else model
    by_name = isinstance(data, str | Path)
    if by_name or isinstance(data, ImageData):
        for argument, part in (("test", test), ("val", val)):
            if part is not None:
                raise ArgumentError(argument, "would be ignored: `data` has its own")
    if by_name:
        return TrainConfig(data=str(data), model=named, **config), None
    name = data.name if isinstance(data, ImageData) else name_of_images(data)
    recipe = TrainConfig(data=f"{name}{IN_PYTHON}", model=named, **config)
    if isinstance(data, ImageData):
        return recipe, data
    known_size = pretrained(recipe.model, recipe.weights) if recipe.fine_tunes else None
    size = recipe.image_size or (known_size.size if known_size and known_size.fixed_size else None)
    return recipe, collect_images(data, test, val, image_size=size, as_they_are=is_function(recipe.model))


def _name(recipe: TrainConfig) -> str:
    return name_of(recipe.data.removesuffix(IN_PYTHON))
