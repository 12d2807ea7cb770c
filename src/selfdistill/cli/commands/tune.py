"""``selfdistill tune``."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from selfdistill.cli.options import (
    MACHINE,
    METHOD,
    OPTIMISATION,
    File,
    MachineNumber,
    OptionalText,
    OptionalWholeNumber,
    Texts,
    WholeNumber,
    takes_recipe,
)
from selfdistill.cli.show import print_lines, show_result
from selfdistill.config.train_config import TUNED_METHODS, TrainConfig


@takes_recipe(TrainConfig, without=("method", "seed", "train_on_val", "keep_epochs"))
def tune(
    recipe: TrainConfig,
    *,
    methods: Annotated[Texts, Parameter(group=METHOD)] = list(TUNED_METHODS),  # noqa: B006 - shown in the help, not changed
    metric: Literal["nll", "accuracy"] = "nll",
    rates: Annotated[bool, Parameter(group=OPTIMISATION)] = False,
    trials: OptionalWholeNumber = None,
    epochs: Annotated[OptionalWholeNumber, Parameter(group=OPTIMISATION)] = None,
    budget: OptionalText = None,
    seeds: WholeNumber = 3,
    jobs: MachineNumber = 1,
    ray: Annotated[OptionalText, Parameter(group=MACHINE)] = None,
    cpus: MachineNumber = 1,
    out: File | None = None,
    dry_run: bool = False,
) -> None:
    """Search for the method and settings that help on your images.

    Settings are chosen by validation images, never by test images: those of the val folder, or a fifth of the training
    images. Every method gets as many trials, cross-entropy too; weak ones are stopped early. Then the winner and the
    baseline, each with its best settings, are trained with several seeds on training and validation images and measured
    once on the test images. The report says whether it helped. OUT/best holds the network to use.

    To go on with a search that was stopped, run the same command again; several machines that see the same --out share
    one.

    For example:
        selfdistill tune --data photos --weights default --budget 2h
        selfdistill tune --data photos --rates --jobs 2
        selfdistill tune --data photos --methods "CrossEntropy()" "SDDropout(p=0.5)"

    Args:
        methods: the baseline, then others; an argument that you give is kept, the others are searched
        metric: what the search improves on the validation images: nll (probabilities) or accuracy
        rates: search the learning rate and the weight decay too, for every method
        trials: trials of each method (default: as many as fit in --budget)
        epochs: passes over the training set (default: as many as fit in --budget)
        budget: time for everything, such as 90s or 1h30m (default: 60m)
        seeds: number of seeds of the last runs, from 0 up
        jobs: number of parallel training processes, one per GPU
        ray: address of a Ray cluster that trains instead: HOST:PORT, or auto; its machines must see --out and --data
        cpus: processors per training, on a Ray cluster without GPUs
        out: folder of the search (default: runs/DATA-tuned)
        dry_run: print the plan and stop
    """
    from selfdistill.api.results import report_search
    from selfdistill.runs.folders import name_of
    from selfdistill.runs.grid import ExecutorConfig
    from selfdistill.runs.search import SearchConfig
    from selfdistill.runs.search import tune as run_search

    name = name_of(recipe.data)
    out = out or Path("runs") / f"{name}-tuned"
    config = SearchConfig(tuple(methods), metric, rates, trials, epochs, budget, seeds)
    tuned = run_search(recipe, config, out=out, executor=ExecutorConfig(jobs, ray, cpus), dry_run=dry_run)
    if tuned is None:
        return
    shown = report_search(tuned, out, name)
    show_result(shown)
    print_lines(f"The network to use, calibrated on the validation images: {shown.network}")
