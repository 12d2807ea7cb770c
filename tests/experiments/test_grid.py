import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from selfdistill.data import load_data
from selfdistill.experiments import grid
from selfdistill.experiments.grid import Cell, at_a_time, expand, finished_in, run_grid, slug
from selfdistill.experiments.measuring import NOTHING_MORE
from selfdistill.records import NOT_COMPARED
from selfdistill.train import Recipe
from selfdistill.train.run import load


def test_expand_goes_seed_by_seed_and_spells_methods_in_one_way(recipe: Recipe) -> None:
    cells = expand(recipe, ["SDDropout(weight=0.10)", "LabelSmoothing()+SDDropout()"], [3, 1])
    assert [cell.name for cell in cells] == [
        "sddropout-weight-0.1-seed3",
        "labelsmoothing-sddropout-seed3",
        "sddropout-weight-0.1-seed1",
        "labelsmoothing-sddropout-seed1",
    ]
    assert (cells[0].recipe.method, cells[0].recipe.seed) == ("SDDropout(weight=0.1)", 3)
    assert {cell.recipe.width for cell in cells} == {4}


def test_a_method_is_compared_once(recipe: Recipe) -> None:
    with pytest.raises(ValueError, match=r"^`methods` "):
        expand(recipe, ["SDDropout()", "CrossEntropy()", "SDDropout(p=0.5)"], [0])
    with pytest.raises(ValueError, match=r"^unknown method 'SDDrop'"):
        expand(recipe, ["SDDrop()"], [0])


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("CrossEntropy()", "crossentropy"),
        ("SDDropout(p=0.3, direction='reverse')", "sddropout-p-0.3-direction-reverse"),
        ("SDDropout(at='layer3.0')", "sddropout-at-layer3.0"),
        ("LabelSmoothing(eps=1e-05) + SDDropout()", "labelsmoothing-eps-1e-05-sddropout"),
    ],
)
def test_a_folder_name_has_no_odd_character(method: str, name: str) -> None:
    assert slug(method) == name


def test_jobs_share_the_processors_and_nothing_that_is_compared(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grid, "cpu_count", lambda: 8)
    free = Recipe()
    assert at_a_time(free, 1) == free
    assert (at_a_time(free, 3).threads, at_a_time(free, 3).workers) == (2, 2)
    assert at_a_time(free, 20).threads == 1
    assert at_a_time(Recipe(threads=5, workers=0), 3) == Recipe(threads=5, workers=0)
    assert free.differences(at_a_time(free, 3)) == []
    assert {"threads", "workers"} <= NOT_COMPARED


def test_only_what_is_missing_is_run(recipe: Recipe, tmp_path: Path) -> None:
    data = load(recipe)
    one = Recipe(**{**vars(recipe), "epochs": 1})
    cells = expand(one, ["CrossEntropy()"], [0, 1])
    told: list[tuple[str, str]] = []
    first = run_grid(cells[:1], tmp_path, data=data)
    assert [finished_in(cell, tmp_path, NOTHING_MORE) for cell in cells] == [True, False]
    records = run_grid(
        cells,
        tmp_path,
        data=data,
        running=lambda cell, update: told.append((update.kind, cell.name)),
        finished=lambda cell, record: told.append(("finished", record.name)),
    )
    assert records[0] == first[0]
    assert [record.seed for record in records] == [0, 1]
    assert told[0] == ("finished", "crossentropy-seed0")
    assert ("epoch", "crossentropy-seed1") in told
    assert told[-1] == ("finished", "crossentropy-seed1")


def test_jobs_below_one(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^`jobs` must be at least 1, not 0$"):
        run_grid([], tmp_path, data=load_data("digits", per_class=2), jobs=0)


@pytest.mark.slow
def test_a_process_that_dies_or_fails_is_named_and_the_others_save(recipe: Recipe, tmp_path: Path) -> None:
    """The first run is killed from outside; then one whose data are gone fails."""
    data = load(recipe)
    cells = expand(Recipe(**{**vars(recipe), "epochs": 400}), ["CrossEntropy()", "Dropout()"], [0])
    killed: list[int] = []

    def kill(cell: Cell, update: object) -> None:
        if not killed and cell.name.startswith("dropout"):
            victim = multiprocessing.active_children()[1]
            assert victim.pid is not None
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"dropout-seed0: its process was killed by signal 9 before it was done"):
        run_grid(cells, tmp_path, data=data, jobs=2, running=kill)
    assert multiprocessing.active_children() == []
    gone = expand(Recipe(**{**vars(recipe), "data": str(tmp_path / "gone")}), ["CrossEntropy()"], [5])
    with pytest.raises(RuntimeError, match=r"crossentropy-seed5: no data set '.*gone'"):
        run_grid(gone, tmp_path, data=data, jobs=2)
