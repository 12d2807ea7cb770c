"""What the benchmarks measured, as tables; and that bfloat16 and the compiler leave a training's end as it was.

uv run python studies/performance.py    trains what is missing of the second
"""

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from archive import RESULTS
from setting import Setting

from selfdistill.config import TrainConfig
from selfdistill.records import RunRecord
from selfdistill.report.tables import Table, markdown

FOLDER = RESULTS / "performance"
_METHODS = ("CrossEntropy()", "SDDropout()")
_RECIPE = TrainConfig(
    data="cifar100",
    classes=20,
    per_class=50,
    test_per_class=25,
    model="resnet10_cifar",
    width=16,
    batch_size=64,
    epochs=10,
    eval_every=10,
)
FLOAT32 = Setting("float32", "performance/float32", _RECIPE, _METHODS)
COMPILED = Setting(
    "bfloat16, channels_last, compiled",
    "performance/compiled",
    TrainConfig(**{**vars(_RECIPE), "precision": "bf16-mixed", "channels_last": True, "compile": True}),
    _METHODS,
)

_COMPARED = {
    "frozen": ("compare with a frozen backbone / the plain loop", 0.5),
    "whole": ("compare of whole networks / the plain loop", 0.5),
    "probe": ("a linear probe / a pass and scikit-learn's on its features", 2.0),
}
"""The parts of the benchmark of a comparison, with the target of their ratio."""

_PARTS = {"small": "CIFAR-sized, in memory", "stages": "photographs, one process", "epochs": "photographs, loader"}

Record = dict[str, Any]


def load(name: str) -> Record:
    """Return what a benchmark wrote."""
    found: Record = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def targets_table() -> str:
    """The targets, what was measured, and whether they are met."""
    step, others, compiled = load("step_fp32"), load("step_methods"), load("step_compiled")
    speed, start, growth = load("throughput"), load("startup"), load("scale")
    many = max((row for row in growth["rows"] if row["axis"] == "classes"), key=lambda row: row["value"])
    compiled_speed = speed["rows"][-1]
    imports = {row["what"]: row for row in start["rows"]}
    core = imports["from selfdistill import SelfDistiller, SDDropout"]
    loader = next(row for row in load("input")["rows"] if row["what"] == "loader")
    rows = [
        ("SD-Dropout's step / cross-entropy's, float32", *_at_most(step["rows"][0]["time"], 1.02)),
        ("the same, bfloat16 and compiled", *_at_most(compiled["rows"][0]["time"], 1.02)),
        ("what it keeps for the backward pass / cross-entropy", *_value(step["rows"][0]["memory"], 1.01)),
        *[(f"{row['method']}'s step / cross-entropy's", *_at_most(row["time"], _bound(row))) for row in others["rows"]],
        (
            f"training / the plain script ({compiled_speed['method']}, {compiled_speed['recipe']})",
            *_at_least(compiled_speed["over_plain"], 2),
        ),
        ("small images from memory / a training step of ResNet-18", *_at_least(loader["ratio"], 5)),
        (f"peak of a step at {many['value']:,} classes / cross-entropy", *_value(many["memory"], 1.5)),
        *[(what, *_value(measured, bound)) for _, what, bound, measured in _compared()],
        ("import selfdistill / import torch", *_at_most(imports["import selfdistill"]["over"], 1.05)),
        ("import of the distiller and a method / import of torch", *_at_most(core["over"], 1.05)),
        ("selfdistill --help, seconds", *_value(imports["selfdistill --help"]["seconds"], 1.0)),
    ]
    return markdown(Table(("What", "Target", "Measured", "Met"), tuple(rows)))


def step_table(*names: str) -> str:
    """Each method's step beside cross-entropy's."""
    rows, captions = [], []
    for name in names:
        record = load(name)
        setting = record["setting"]
        how = f"{setting['precision']}{', compiled' if setting['compile'] else ''}"
        rows += [
            (
                row["method"],
                how,
                _interval(row["time"]),
                f"{row['passes']:.2f}",
                f"{row['added_microseconds']:+,.0f}",
                f"{1e3 * row['seconds']:.0f}",
                f"{row['memory']:.3f}",
                str(row["time"]["pairs"]),
            )
            for row in record["rows"]
        ]
        captions.append(_measured(record, f"batches of {setting['batch_size']}"))
    headings = ("Method", "How", "Time", "Passes", "Added, µs", "Step, ms", "Kept", "Pairs")
    return f"{markdown(Table(headings, tuple(rows)))}\n\n{' '.join(dict.fromkeys(captions))}"


def gpu_tables() -> str:
    """What gpu.py measured on a GPU, as far as it did."""
    tables: dict[str, Callable[[str], str]] = {
        "gpu_step": step_table,
        "gpu_step_compiled": step_table,
        "gpu_throughput": throughput_table,
        "gpu_input": input_tables,
        "gpu_scale": scale_table,
    }
    found = [table(name) for name, table in tables.items() if (FOLDER / f"{name}.json").is_file()]
    return "\n\n".join(found) or "Not measured yet: no GPU was at hand."


def throughput_table(name: str = "throughput") -> str:
    """Images per second beside a plain script's."""
    record = load(name)
    plain = ("the plain script", "cross-entropy", f"{record['plain_images_per_second']:.0f}", "1")
    rows = [
        (row["recipe"], row["method"], f"{row['images_per_second']:.0f}", _interval(row["over_plain"]))
        for row in record["rows"]
    ]
    setting = record["setting"]
    said = f"{setting['images']:,} images per epoch, batches of {setting['batch_size']}"
    return _table(("Recipe", "Method", "Images/s", "Over the plain script"), [plain, *rows], record, said)


def agreement_table() -> str:
    """Final training loss and test accuracy of three seeds, float32 against bfloat16 and compiled."""
    rows = []
    for method in _METHODS:
        for what, unit, value in (("final training loss", 1, _final_loss), ("test top-1, %", 100, _top1)):
            exact, fast = ([unit * value(record) for record in _of(setting, method)] for setting in (FLOAT32, COMPILED))
            change = [b - a for a, b in zip(exact, fast, strict=True)]
            rows.append((method, what, _each(exact), _each(fast), f"{statistics.mean(change):+.3f}", _sd(exact)))
    headings = ("Method", "What", "float32, by seed", "bfloat16 and compiled", "Mean change", "Sd of the seeds")
    first = FLOAT32.load()[0]
    return (
        f"{markdown(Table(headings, tuple(rows)))}\n\n{first.recipe.model}, width {first.recipe.width}, "
        f"{first.data.train_n:,} training and {first.evaluation.n:,} test images of {first.data.name}, "
        f"{first.epochs} epochs, last epoch."
    )


def startup_table() -> str:
    """Seconds until something happens."""
    record = load("startup")
    rows = [
        (row["what"], f"{row['seconds']:.2f}", "" if row["over"] is None else _interval(row["over"]))
        for row in record["rows"]
    ]
    said = f"the first step is of a ResNet-18, width {record['setting']['width']}, bfloat16, 64 images"
    return _table(("What", "Seconds", "Over the import of torch"), rows, record, said)


def input_tables(name: str = "input") -> str:
    """Images per second of the loaders, and where their time goes."""
    record = load(name)
    rows = [
        (
            _PARTS[row["part"]],
            row["what"],
            "" if row["workers"] is None else str(row["workers"]),
            f"{row['images_per_second']:,.0f}",
            "" if row["share"] is None else f"{row['share']:.1%}",
            "" if row["ratio"] is None else _interval(row["ratio"]),
        )
        for row in record["rows"]
    ]
    said = f"{record['photographs']:,} photographs of {record['kilobytes']:.0f} kB"
    if not record["photographs"]:
        said = f"{record['setting']['images']:,} images, batches of {record['setting']['batch_size']}"
    return _table(("Images", "What", "Workers", "Images/s", "Share", "Ratio"), rows, record, said)


def scale_table(name: str = "scale") -> str:
    """How the cost of SD-Dropout grows."""
    record = load(name)
    rows = [
        (
            row["axis"],
            f"{row['value']:,}",
            f"{1e3 * row['baseline_seconds']:.1f}",
            _interval(row["time"]),
            f"{row['baseline_bytes'] / 2**20:,.1f}",
            f"{row['memory']:.2f}",
        )
        for row in record["rows"]
    ]
    headings = ("Axis", "Value", "Cross-entropy, ms", "Time", "Cross-entropy's peak, MiB", "Peak")
    return _table(headings, rows, record, "128 images, 100 classes, 512 features, 32 px where not said otherwise")


def comparison_table() -> str:
    """What a comparison on photographs takes beside the same runs of a plain loop."""
    rows = [
        (
            what,
            row["what"],
            f"{row['ours']['processor']:,.0f}",
            f"{row['theirs']['processor']:,.0f}",
            f"{measured:.2f}",
        )
        for row, what, _, measured in _compared()
    ]
    record = load("comparison_frozen")
    setting = record["setting"]
    said = (
        f"{setting['photographs']} photographs, {setting['classes']} classes, {setting['size']} px, "
        f"{setting['model']}, one thread each"
    )
    return _table(("What", "Runs", "Ours, processor s", "Beside, processor s", "Ratio"), rows, record, said)


def ddp_table() -> str:
    """Bytes that two processes all-reduce a step."""
    record = load("ddp")
    rows = [
        (
            row["method"],
            f"{row['bytes'] / 1e6:.2f}",
            f"{row['over_cross_entropy']:.3f}",
            f"{row['images_per_second']:.0f}",
            f"{row['over_one_process']:.2f}",
        )
        for row in record["rows"]
    ]
    headings = ("Method", "MB a step", "Over cross-entropy", "Images/s", "Over one process")
    setting = record["setting"]
    said = f"{setting['model']}, width {setting['width']}, {setting['batch_size']} images per step"
    return _table(headings, rows, record, said)


def _compared() -> list[tuple[Record, str, float, float]]:
    """Return each row of the benchmark of a comparison, what it is of, its target and its ratio."""
    rows = [row for part in ("frozen", "whole") for row in load(f"comparison_{part}")["rows"]]
    ratios = [row["ours"]["processor"] / row["theirs"]["processor"] for row in rows]
    return [(row, *_COMPARED[row["part"]], ratio) for row, ratio in zip(rows, ratios, strict=True)]


def _bound(row: Record) -> float:
    return 1.3 if row["method"] == "BYOT()" else 1.02 * row["passes"]


def _at_most(measured: Record, bound: float) -> tuple[str, str, str]:
    return f"≤ {bound:.2f}", _interval(measured), _met(measured["high"] <= bound, measured["low"] > bound)


def _at_least(measured: Record, bound: float) -> tuple[str, str, str]:
    return f"≥ {bound:g}", _interval(measured), _met(measured["low"] >= bound, measured["high"] < bound)


def _met(surely: bool, surely_not: bool) -> str:
    return "yes" if surely else "no" if surely_not else "undecided"


def _value(measured: float, bound: float) -> tuple[str, str, str]:
    return f"≤ {bound:.2f}", f"{measured:.3f}", "yes" if measured <= bound else "no"


def _interval(ratio: Record) -> str:
    digits = 3 if ratio["median"] < 100 else 0
    median, low, high = (f"{ratio[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} [{low}, {high}]"


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], record: Record, what: str) -> str:
    return f"{markdown(Table(headings, tuple(rows)))}\n\n{_measured(record, what)}"


def _measured(record: Record, what: str) -> str:
    return (
        f"{what[0].upper()}{what[1:]}; {record['device']}, {record['threads']} threads, torch "
        f"{record['versions']['torch']}, commit {record['commit'][:9]}, {record['date'][:10]}."
    )


def _of(setting: Setting, method: str) -> list[RunRecord]:
    return [record for record in setting.load() if record.method == method]


def _final_loss(record: RunRecord) -> float:
    return record.log[-1].loss or 0.0


def _top1(record: RunRecord) -> float:
    return record.evaluation.top1


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _sd(values: Sequence[float]) -> str:
    return f"{statistics.stdev(values):.3f}"


if __name__ == "__main__":
    for one in (FLOAT32, COMPILED):
        one.train()
