"""Write every table and figure of the docs from the committed records; a test compares the two.

uv run python docs/make.py
"""

import json
import re
import sys
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path

import selfdistill.methods
from selfdistill.methods import parse_method
from selfdistill.records import RunRecord
from selfdistill.report import write_report
from selfdistill.report.diagram import write_diagram
from selfdistill.timing.synthetic import example_methods

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent / "studies"), str(DOCS)]

import auto_weight  # noqa: E402  (scripts beside this one)
import confidence  # noqa: E402
import corruptions  # noqa: E402
import detection  # noqa: E402
import docstrings  # noqa: E402
import every_method  # noqa: E402
import fine_tuning  # noqa: E402
import notebooks  # noqa: E402
import paper_scales  # noqa: E402
import performance  # noqa: E402
import regimes  # noqa: E402
import sign_flip  # noqa: E402
import trust  # noqa: E402
from when_it_helps import SETTINGS  # noqa: E402

import paper  # noqa: E402

REPORTS = {
    "CIFAR-100, 20 classes x 250 images: can it be trusted?": trust.SETTING,
    "CIFAR-100, 20 classes x 100 images: four methods": SETTINGS["cifar_base"],
    "CIFAR-100, 20 classes x 50 images: every method, with and without SD-Dropout": every_method.SETTING,
}
"""Settings whose records make a report of their own, by its heading."""

SHARED = (
    "Run with one CPU thread per training, two trainings at a time, on a machine that did other work meanwhile: "
    "seconds and images/s say little here."
)

DRAWN_SUM = "BYOT() + SDDropout(weight=0.1)"
"""A sum of the paper's Table 1, whose diagram is on the card of SD-Dropout."""


def pages(out: Path) -> dict[Path, str]:
    """Write the reports and figures below ``out`` and return the texts of the pages that hold numbers or diagrams."""
    for title, setting in REPORTS.items():
        folder = out / setting.folder.relative_to(DOCS.parent)
        write_report(setting.load(), folder, title=title, preface=SHARED)
        (folder / "report.html").unlink()  # the Markdown is what a repository shows
    reproduced, sections, gpu_runs = {}, {}, ""
    for scale in paper.SCALES:
        with paper.committed(scale) as setting:
            if setting.runs.is_dir():
                reproduced[scale] = paper.results(setting)
                paper.write_pages(reproduced[scale], out / (paper.FOLDER / scale).relative_to(DOCS.parent))
            sections[scale] = paper_scales.section(setting, reproduced.get(scale, ()))
            if scale == "full":
                gpu_runs = paper_scales.gpu_speed(setting)
    every_table = [result for found in reproduced.values() for result in found]
    detector = json.loads(detection.RESULT.read_text())
    study = {name: setting.load() for name, setting in SETTINGS.items()}
    sign_flip.write_figure(study, out / "docs" / "results" / "when_it_helps" / "sign_flip.svg")
    measured = regimes.points()
    every = every_method.SETTING.load()
    trusted = trust.SETTING.load()
    promised = confidence.load()
    texts = {
        DOCS.parent / "README.md": {
            "headline": regimes.front_page(measured),
            "paper": paper_scales.front_page(reproduced),
            "photographs": fine_tuning.front_page(fine_tuning.load()),
        },
        DOCS / "when_it_helps.md": {
            "accuracy": regimes.accuracy_table(measured),
            "says": regimes.findings(measured),
            "probabilities": regimes.probability_table(measured),
            "rules": auto_weight.rules_table(),
            "spreads": auto_weight.spreads_table(),
        },
        DOCS / "every_method.md": {
            "measured": f"Means of {measured_on(every)}.",
            "pairs": every_method.pairs_table(every),
            "says": every_method.findings(every),
            "losses": every_method.losses_table(every),
        },
        DOCS / "trust.md": {
            "measured": f"Means of {measured_on(trusted)}. {trust.measured_how(trusted)}",
            "measures": trust.measures_table(trusted),
            "says": trust.findings(trusted),
            "detection": trust.detection_table(trusted),
            "spread": trust.spread_table(trusted),
            "cost": trust.cost_table(),
        },
        DOCS / "confidence.md": {
            "measured": confidence.measured_how(promised),
            "promises": confidence.promise_findings(promised),
            "abstention": confidence.abstention_table(promised),
            "unknown": confidence.unknown_table(promised),
            "auroc": confidence.unknown_table(promised, auroc=True),
            "sets": confidence.sets_table(promised),
            "says": confidence.findings(promised),
        },
        paper.FOLDER / "README.md": {
            **sections,
            "tables": paper.index(every_table),
            "missing": paper.missing_table(every_table),
            "detector": f"{detection.precision_table(detector)}\n\n{detection.caption(detector)}",
        },
        DOCS / "gpu.md": {"runs": gpu_runs},
        DOCS / "performance.md": {
            "targets": performance.targets_table(),
            "step": performance.step_table("step_fp32", "step_bf16", "step_compiled", "step_methods"),
            "throughput": performance.throughput_table(),
            "agreement": performance.agreement_table(),
            "startup": performance.startup_table(),
            "input": performance.input_tables(),
            "scale": performance.scale_table(),
            "ddp": performance.ddp_table(),
            "comparison": performance.comparison_table(),
            "gpu": performance.gpu_tables(),
        },
        DOCS / "guide" / "photographs.md": {
            "baselines": fine_tuning.table(fine_tuning.load()),
            "says": fine_tuning.findings(fine_tuning.load()),
        },
        DOCS / "help" / "platforms.md": {"versions": versions()},
        DOCS / "corruptions.md": {"small": distances("cifar100"), "large": distances("photographs")},
    }
    figures = out / "docs" / "methods" / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    for method in [*example_methods().values(), parse_method(DRAWN_SUM)]:
        diagram = write_diagram(method, figures)
        texts.setdefault(card_of(diagram), {})[diagram.name] = shown(diagram)
    for name in selfdistill.methods.__all__:
        method = getattr(selfdistill.methods, name)
        texts[DOCS / "methods" / f"{method.__module__.rpartition('.')[2]}.md"] |= docstrings.card(method)
    made = {
        DOCS.parent / "notebooks" / f"{source.stem}.ipynb": notebooks.to_ipynb(source.read_text(encoding="utf-8"))
        for source in sorted(notebooks.SOURCES.glob("*.py"))
    }
    return made | {path: filled(path.read_text(), blocks) for path, blocks in texts.items()}


def card_of(diagram: Path) -> Path:
    """Return the card that shows a diagram: the method's, of a sum its last part's."""
    return DOCS / "methods" / f"{diagram.stem.rpartition('-')[2]}.md"


def shown(diagram: Path) -> str:
    """Return the image for a card, with its description for those who do not see it."""
    words = ET.parse(diagram).findtext("{http://www.w3.org/2000/svg}desc")
    return f"![{words}](figures/{diagram.name})"


def measured_on(records: list[RunRecord]) -> str:
    """Return the seeds, the images and the network of a comparison."""
    first, seeds = records[0], len({record.seed for record in records})
    return (
        f"{seeds} seed{'s' if seeds > 1 else ''}, last epoch: {first.data.name}, "
        f"{first.data.classes} classes, {first.data.train_n:,} training and {first.evaluation.n:,} test "
        f"images; {first.recipe.model} of {first.parameters:,} parameters, {first.epochs} epochs"
    )


def versions() -> str:
    """Return a table of the oldest versions that are promised, out of ``pyproject.toml``."""
    project = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lab = dict(_at_least(project["optional-dependencies"]["lab"]))
    rows = [("Python", project["requires-python"].removeprefix(">="), "core")]
    rows += [(name, version, "core") for name, version in _at_least(project["dependencies"])]
    rows += [
        (name, lab[name], "command line")
        for name in ("torch", "torchvision", "timm", "lightning-fabric")
        if name in lab
    ]
    return "\n".join(["| needs | at least | for the |", "|:--|:--|:--|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)])


def _at_least(requirements: list[str]) -> list[tuple[str, str]]:
    found = (re.match(r"([\w-]+)>=([\d.]+)", requirement) for requirement in requirements)
    return [(match[1], match[2]) for match in found if match]


def distances(name: str) -> str:
    """Return a table of the corruptions' distances and what it was measured on."""
    record = corruptions.load(name)
    return f"{corruptions.distance_table(record)}\n\n{corruptions.caption(record)}"


def filled(text: str, blocks: dict[str, str]) -> str:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``."""
    for name, block in blocks.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        after = rest.split(f"<!-- end {name} -->")[1]
        text = f"{before}<!-- {name} -->\n{block}\n<!-- end {name} -->{after}"
    return text


if __name__ == "__main__":
    for path, text in pages(DOCS.parent).items():
        path.write_text(text)
