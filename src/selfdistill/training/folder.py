"""The run folder: ownership, locking, file layout."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, BinaryIO

from selfdistill.config.yaml_config import YamlConfig
from selfdistill.files import close_to_move, lock, open_lock, refuse_link, remove_leftovers, write_atomically
from selfdistill.text import csv_text
from selfdistill.training.task import Row


class BusyError(RuntimeError):
    """Another process trains in the folder."""


class RunFolder:
    """``runs/<name>/``: recipe, log, checkpoints, model, and the record when the run is finished.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path):
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.log = path / "log.csv"
        self.checkpoints = path / "checkpoints"
        self.result = path / "result.json"
        self._lock = path / ".lock"

    def finished(self) -> bool:
        """Return whether the run's record is there: it is written last."""
        return self.result.is_file()

    def check(self, recipe: YamlConfig, made_by: Mapping[str, Any] | None = None, changed: str = "") -> None:
        """Refuse a folder of another recipe or of other data.

        Args:
            made_by: the fields of the recipe that a record or a checkpoint holds (default: ``recipe.yaml``, if any).
            changed: what of the data is different since, in words.
        """
        if refuse_link(self.recipe).is_file() and made_by is None:
            made_by = vars(type(recipe).from_yaml(self.recipe))
        known = {field.name: made_by[field.name] for field in fields(recipe) if made_by and field.name in made_by}
        if differing := recipe.differences(replace(recipe, **known)):
            raise ValueError(
                f"{self.path} belongs to another recipe: {', '.join(differing)}; choose another `out`, or delete it"
            )
        if changed:
            raise ValueError(
                f"{self.path} was trained on other data: {changed}; restore them, choose another `out`, or delete it"
            )

    @contextmanager
    def opened(self, recipe: YamlConfig) -> Iterator[None]:
        """Make the folder, check that it is this recipe's, write ``recipe.yaml``, and keep other processes out.

        What fails before the first checkpoint or line of the log leaves nothing behind: the next try may have another
        recipe.

        Raises:
            OSError: it cannot be made or written.
            ValueError: it belongs to another recipe.
            BusyError: another process trains in it.
        """
        made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise OSError(f"{self.path} is a file, not a folder: choose another `out`") from None
        except OSError as error:
            raise OSError(
                f"the run folder {self.path} cannot be made: {error.strerror}; choose another `out`"
            ) from None
        self.check(recipe)
        with self._locked() as lock_file:
            remove_leftovers(self.path)
            fresh = not self.recipe.is_file()
            try:
                if fresh:
                    write_atomically(self.recipe, recipe.to_yaml().encode())
                yield
            except BaseException:
                if fresh and not self.log.exists() and not self.checkpoints.exists():
                    close_to_move(lock_file)
                    self._clear(made)
                raise

    def write_log(self, rows: Sequence[Row]) -> None:
        """Write ``log.csv`` anew: a header, then one row per epoch; what was not measured is empty.

        Without rows none is made, but one that is there has rows of epochs that will be trained again: it is emptied.
        """
        if not rows and not self.log.exists():
            return
        names = list(rows[0]) if rows else []
        text = csv_text([names, *([row.get(name) for name in names] for row in rows)] if rows else [])
        write_atomically(self.log, text.encode())

    def _clear(self, made: Sequence[Path]) -> None:
        with suppress(OSError):  # another run is in a parent by now
            if self.path in made:  # with what a tracker has written
                shutil.rmtree(self.path)
            for file in (self.recipe, self._lock):
                file.unlink(missing_ok=True)
            for folder in made:
                if folder != self.path:
                    folder.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(open_lock(self._lock))
                free = lock(file, inherited=False)  # or its workers would keep it when this process is killed
            except OSError as error:
                raise OSError(f"cannot write in {self.path}: {error.strerror or error}; choose another `out`") from None
            if not free:
                raise BusyError(f"another process is training in {self.path}; wait for it or stop it")
            yield file
