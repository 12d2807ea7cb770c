"""One comparison of a study: what is trained, where its committed records are, and the training of what is missing."""

from dataclasses import dataclass
from pathlib import Path

import archive
import msgspec

from selfdistill.config import TrainConfig
from selfdistill.records import RunRecord, load_run_record
from selfdistill.runs.compare import run_comparison
from selfdistill.runs.evaluation import BASIC_EVALUATION, EvaluationConfig

PAGES = Path(__file__).resolve().parents[1] / "docs" / "results"
JOBS = 2


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Attributes:
        title: what it is called in a table.
        records: its committed records: the archive's name, and the folder there if it holds several comparisons.
        recipe: everything but method and seed.
        methods: the baseline first.
        seeds: how many.
        evaluation: which evaluations to run beyond accuracy and calibration.
    """

    title: str
    records: str
    recipe: TrainConfig
    methods: tuple[str, ...]
    seeds: int = 3
    evaluation: EvaluationConfig = BASIC_EVALUATION

    @property
    def folder(self) -> Path:
        """Where its report is, if it has one."""
        return PAGES / self.records

    @property
    def archive(self) -> Path:
        """Where the committed records are."""
        return archive.RESULTS / f"{self.records.partition('/')[0]}.jsonl.xz"

    def load(self) -> list[RunRecord]:
        """Return the committed records, in the order of the methods and seeds."""
        with archive.unpacked(self.archive) as folder:
            found = [RunRecord.load(path) for path in folder.glob(f"{self.records}/*.json")]
        return sorted(found, key=lambda record: (self.methods.index(record.method), record.seed))

    def train(self) -> None:
        """Train and measure what is missing, and put the records into the archive."""
        out = Path("runs") / self.records
        run_comparison(
            self.recipe,
            self.methods,
            seeds=self.seeds,
            epochs=self.recipe.epochs,
            jobs=JOBS,
            out=out,
            evaluation=self.evaluation,
        )
        found = {
            f"{self.records}/{run.parent.name}.json": msgspec.to_builtins(load_run_record(run.parent))
            for run in sorted(out.glob("*/result.json"))
        }
        archive.write(self.archive, archive.read(self.archive) | found)
