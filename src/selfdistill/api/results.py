"""What the functions of the package return: typed numbers that print as text and show as HTML in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as RichTable
from torch import nn

from selfdistill.records import Evaluation, LinearProbeRecord, RunRecord, Summary, summarise
from selfdistill.records.search import SearchRecord
from selfdistill.report import digest, metric_table, next_step, terminal, terminal_table, verdict, write_report
from selfdistill.report.html import best_network
from selfdistill.report.tables import Table, html
from selfdistill.report.words import evidence
from selfdistill.runs.search import Tuned, keep_best
from selfdistill.text import count_of, printable
from selfdistill.training import LoadedModel, load_run

_SHOWN = 10  # predictions


class Result(ABC):
    """Prints as a table with lines below it; a notebook shows the same as HTML."""

    @abstractmethod
    def cells(self) -> Table:
        """Return the table."""

    @abstractmethod
    def table(self, width: int) -> RichTable:
        """Return the table for so many characters."""

    def lines(self) -> Sequence[str]:
        """Return what is said below the table."""
        return ()

    def __repr__(self) -> str:
        console = Console(width=Console().width, color_system=None, force_terminal=False, force_jupyter=False)
        with console.capture() as captured:
            console.print(self.table(console.width))
        return "\n".join([*map(str.rstrip, captured.get().splitlines()), *map(printable, self.lines())])

    def _repr_html_(self) -> str:
        return html(self.cells()) + "".join(f"<p>{escape(printable(line))}</p>" for line in self.lines())


@dataclass(frozen=True, repr=False)
class Comparison(Result):
    """Finished runs, the first method's first, and their report.

    Attributes:
        records: one per run.
        folder: of the runs.
        report: the page on them.
        title: of the table.
        failed: why further runs failed, by name.
        folders: where the runs are.
        probe: a linear probe of the same images, where weights are pretrained.
        search: the search that chose the methods' settings, if there was one.
    """

    records: tuple[RunRecord, ...]
    folder: Path
    report: Path
    title: str
    failed: Mapping[str, str]
    folders: tuple[Path, ...]
    probe: LinearProbeRecord | None
    search: SearchRecord | None = None

    @property
    def summary(self) -> Summary:
        """Mean and sd over the seeds of each method, and paired differences to the first."""
        return summarise(self.records, tuned=self.search is not None)

    def cells(self) -> Table:
        """Return the quality of each method."""
        return metric_table(self.summary, probe=self.probe)

    def table(self, width: int) -> RichTable:
        """Return the quality of each method, in the columns that fit."""
        return terminal_table(self.summary, title=self.title, width=width, probe=self.probe)

    def lines(self) -> Sequence[str]:
        """Return the verdict, what it rests on, what failed, what to do next, and where the report is."""
        summary = self.summary
        said = verdict(summary)
        step = next_step(
            said.decision, summary, self.records, self.folders, best=best_network(self.folder, self.search)
        )
        return [
            said.decision.headline,
            *filter(None, [said.compared]),
            *(f"{line.title}{f', {line.judged}' if line.judged else ''}: {line.text}" for line in said.lines),
            evidence(self.records, summary, said.decision.method),
            *(f"{name} failed: {reason}" for name, reason in self.failed.items()),
            *([step.why, f"  {step.command}"] if step else []),
            f"Report: {self.report}",
        ]


@dataclass(frozen=True, repr=False)
class WithNetwork(Comparison):
    """Finished runs of which there is a network to use.

    Attributes:
        function: the name of its model, with the function that builds it.
    """

    function: str | None = None

    @property
    def network(self) -> Path:
        """The folder of the network."""
        return self.folder

    def load(self) -> LoadedModel:
        """Load the network, with its classes and how it is fed."""
        return load_run(self.network, self.function)

    @property
    def model(self) -> nn.Module:
        """The network, in evaluation mode on the CPU."""
        return self.load().model


@dataclass(frozen=True, repr=False)
class TunedRuns(WithNetwork):
    """The winner of a search and the tuned baseline; the network is the one to use, with its temperature."""

    @property
    def network(self) -> Path:
        """The folder of the network to use."""
        found = best_network(self.folder, self.search)
        assert found is not None
        return found


@dataclass(frozen=True, repr=False)
class TrainedRun(WithNetwork):
    """One finished run."""

    @property
    def record(self) -> RunRecord:
        """The run's record."""
        return self.records[0]

    @property
    def evaluation(self) -> Evaluation:
        """What was measured on the test images."""
        return self.record.evaluation


@dataclass(frozen=True, repr=False)
class EvaluationResult(Result):
    """What was measured of one network.

    Attributes:
        evaluation: the numbers.
        title: the network and the images.
        report: the page, if one was written.
    """

    evaluation: Evaluation
    title: str
    report: Path | None = None

    def cells(self) -> Table:
        """Return one row per number."""
        return digest(self.evaluation)

    def table(self, width: int) -> RichTable:
        """Return one row per number."""
        return terminal(self.cells(), title=self.title, prose=(0, 2))


@dataclass(frozen=True, eq=False, repr=False)
class PredictionResult(Result):
    """The posteriors of some images.

    Attributes:
        probabilities: float64 ``(N, C)``.
        classes: names of the C classes.
        paths: of image files; None for others.
        skipped: a line for each file that was left out.
    """

    probabilities: NDArray[np.float64]
    classes: tuple[str, ...]
    paths: tuple[Path, ...] | None = None
    skipped: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The likeliest class of each image."""
        return [self.classes[at] for at in self.probabilities.argmax(axis=1)]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the likeliest class ``(N,)``."""
        return np.asarray(self.probabilities.max(axis=1))

    def cells(self) -> Table:
        """Return the first images."""
        names = range(len(self.probabilities)) if self.paths is None else self.paths
        rows = zip(map(str, names), self.labels, (f"{p:.1%}" for p in self.confidence), strict=True)
        heading = "Image" if self.paths is None else "File"
        return Table((heading, "Class", "Probability"), tuple(row for row, _ in zip(rows, range(_SHOWN), strict=False)))

    def table(self, width: int) -> RichTable:
        """Return the first images."""
        return terminal(self.cells(), prose=(0, 1))

    def lines(self) -> Sequence[str]:
        """Return how many more images there are, and what was left out."""
        more = len(self.probabilities) - _SHOWN
        return [*([f"and {count_of(more, 'more image')}"] if more > 0 else []), *self.skipped]


def report_runs(
    records: Sequence[RunRecord],
    out: Path,
    title: str,
    preface: str | None = None,
    failed: Mapping[str, str] | None = None,
    *,
    folders: Sequence[Path],
    search: SearchRecord | None = None,
) -> Comparison:
    """Write the report of the runs in some folders; where there is one, a linear probe stands beside them.

    Args:
        records: the first one's method is the baseline.
        out: folder of the report.
        title: of the page.
        preface: before the verdict.
        failed: why further runs failed, by name.
        folders: where the runs are.
        search: the search that chose the methods' settings.
    """
    probe = next((found for folder in folders if (found := LinearProbeRecord.beside(folder))), None)
    page = write_report(
        records, out, title=title, preface=preface, failed=failed or {}, probe=probe, folders=folders, search=search
    )
    return Comparison(tuple(records), out, page, title, failed or {}, tuple(folders), probe, search)


def report_search(tuned: Tuned, out: Path, name: str, function: str | None = None) -> TunedRuns:
    """Keep the network to use in ``out/best`` and write the report of a search in ``out``."""
    decision = verdict(summarise(tuned.records, tuned=True)).decision
    keep_best(tuned, decision.network(tuned.records[0].method), out)
    shown = report_runs(tuned.records, out, f"{name}: tuned", folders=[out / "final"], search=tuned.search)
    return TunedRuns(**vars(shown), function=function)
