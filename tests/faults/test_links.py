"""No symbolic link is followed below a run folder: not to read, not to write, not to delete."""

import os
import shutil
from pathlib import Path

import pytest

from selfdistill.data.cache import _alone
from selfdistill.detect.record import DetectRecord
from selfdistill.files import make_folder, open_lock, read_file, remove_leftovers, write_atomically
from selfdistill.records import EvaluationRecord, RunRecord
from selfdistill.report.pages import write_pages
from selfdistill.runs.grid import ExecutorConfig
from selfdistill.runs.search import SearchConfig, tune
from selfdistill.training import load_run
from selfdistill.training.checkpoint import Checkpoints
from selfdistill.training.folder import RunFolder
from selfdistill.training.run import find_weight
from tests.faults.tiny import RECIPE, images, run_tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_tiny(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of somebody else, with files that ours would be called."""
    folder = tmp_path / "outside"
    folder.mkdir()
    names = ("epoch-00001-step-0000000.pt", ".mine.tmp", ".a.json.abcdefgh.tmp", "seeds.svg", "curves.svg", "precious")
    for name in names:
        (folder / name).write_text("precious")
    return folder


def untouched(folder: Path) -> bool:
    return len(list(folder.iterdir())) == 6 and all(file.read_text() == "precious" for file in folder.iterdir())


@pytest.mark.parametrize("name", [".lock", "recipe.yaml", "checkpoints", "result.json"])
def test_training_refuses_a_link(run: Path, outside: Path, name: str) -> None:
    if name != "result.json":
        (run / "result.json").unlink()
    shutil.rmtree(run / name) if name == "checkpoints" else (run / name).unlink()
    (run / name).symlink_to(outside if name == "checkpoints" else outside / "precious")
    with pytest.raises(OSError, match="is a symbolic link"):
        run_tiny(run)
    assert untouched(outside)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_loading_refuses_a_link(run: Path, name: str) -> None:
    (run / name).rename(run.parent / name)
    (run / name).symlink_to(run.parent / name)
    with pytest.raises(OSError, match=f"{name} is a symbolic link"):
        load_run(run)


@pytest.mark.parametrize("kind", [RunRecord, EvaluationRecord, DetectRecord])
def test_records_are_not_read_through_a_link(tmp_path: Path, kind: type[RunRecord]) -> None:
    (tmp_path / "record.json").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="is a symbolic link"):
        kind.load(tmp_path / "record.json")


@pytest.mark.parametrize("step", ["newest", "save"])
def test_checkpoints_are_neither_read_nor_deleted_through_a_link(tmp_path: Path, outside: Path, step: str) -> None:
    (tmp_path / "checkpoints").symlink_to(outside)
    store = Checkpoints(tmp_path / "checkpoints")
    with pytest.raises(OSError, match="checkpoints is a symbolic link"):
        store.newest() if step == "newest" else store.save(9, 0, {"a": 1})
    assert untouched(outside)


@pytest.mark.parametrize("name", ["search.json", "search.journal", "searchers", "trials", "final", "best", "best.new"])
def test_a_search_refuses_a_link(tmp_path: Path, outside: Path, name: str) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / name).symlink_to(outside / "precious" if "." in name[:-4] else outside)
    config = SearchConfig(("CrossEntropy()", "LabelSmoothing()"), trials=1, epochs=1)
    with pytest.raises(OSError, match=f"{name} is a symbolic link"):
        tune(RECIPE, config, out=tmp_path / "search", executor=ExecutorConfig(), data=images())
    assert untouched(outside)


def test_a_search_for_the_weight_refuses_a_link(run: Path, outside: Path) -> None:
    (run / "result.json").unlink()
    (run / "pilot").symlink_to(outside)
    with pytest.raises(OSError, match="pilot is a symbolic link"):
        find_weight(RECIPE.resolve(images()), run, images(), lambda *_: pytest.fail("it trained"))
    assert untouched(outside)


def test_a_report_deletes_nothing_through_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "figures").symlink_to(outside)
    with pytest.raises(OSError, match="figures is a symbolic link"):
        write_pages("report", tmp_path, [], {}, methods=(), former=("seeds", "curves"))
    assert untouched(outside)


def test_a_lock_that_is_a_link_leaves_its_target(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".lock").symlink_to(outside / "precious")
    with pytest.raises(OSError, match="is a symbolic link"), _alone(tmp_path / "cache"):
        pass
    (tmp_path / "mine").write_text("kept")
    with open_lock(tmp_path / "mine"):
        assert (tmp_path / "mine").read_text() == "kept"
    assert untouched(outside)


def test_a_file_is_written_in_the_place_of_a_link(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "log.csv").symlink_to(outside / "precious")
    write_atomically(tmp_path / "log.csv", b"new")
    assert not (tmp_path / "log.csv").is_symlink()
    assert untouched(outside)
    (tmp_path / "folder").symlink_to(outside)
    with pytest.raises(OSError, match="is a symbolic link"):
        make_folder(tmp_path / "folder")
    remove_leftovers(tmp_path / "folder")
    assert untouched(outside)


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        read_file(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="has more than"):
        read_file(tmp_path / "huge")


def test_a_run_folder_itself_may_be_a_link(run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(run)
    assert load_run(tmp_path / "elsewhere").classes == load_run(run).classes
    with RunFolder(tmp_path / "elsewhere").opened(RECIPE.resolve(images())):
        pass
