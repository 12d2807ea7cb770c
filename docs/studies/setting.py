"""One comparison of a study: what is trained, where its committed records are, and the training of what is missing."""

from dataclasses import dataclass
from pathlib import Path

from selfdistill.experiments.compare import run_comparison
from selfdistill.experiments.measuring import NOTHING_MORE, Asked
from selfdistill.records import RunRecord, load_run_record
from selfdistill.train import Recipe

RESULTS = Path(__file__).resolve().parents[1] / "results"
JOBS = 2


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Attributes:
        title: what it is called in a table.
        records: folder of its committed records, below docs/results.
        recipe: everything but method and seed.
        methods: the baseline first.
        seeds: how many.
        asked: what is measured of each network beyond accuracy and calibration.
    """

    title: str
    records: str
    recipe: Recipe
    methods: tuple[str, ...]
    seeds: int = 3
    asked: Asked = NOTHING_MORE

    @property
    def folder(self) -> Path:
        """Where the committed records are."""
        return RESULTS / self.records

    def load(self) -> list[RunRecord]:
        """Return the committed records, in the order of the methods and seeds."""
        found = [RunRecord.load(path) for path in self.folder.glob("*.json")]
        return sorted(found, key=lambda record: (self.methods.index(record.method), record.seed))

    def train(self) -> None:
        """Train and measure what is missing, and write the records beside the docs."""
        out = Path("runs") / self.records
        run_comparison(
            self.recipe,
            self.methods,
            seeds=self.seeds,
            epochs=self.recipe.epochs,
            jobs=JOBS,
            out=out,
            asked=self.asked,
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        for result in sorted(out.glob("*/result.json")):
            load_run_record(result.parent).save(self.folder / f"{result.parent.name}.json")
