# %% [markdown]
# # Compare methods
#
# The difference of two trainings is partly luck: other initial weights, another order of the images. So every method
# is trained with several seeds, and the differences are taken within each seed. Here: a tiny network on handwritten
# digits, in seconds.

# %%
from pathlib import Path

from selfdistill.config import TrainConfig
from selfdistill.runs.compare import run_comparison

images = {"data": "digits", "per_class": 10, "test_per_class": 20, "image_size": 16}
network = {"model": "resnet10_cifar", "width": 4, "features": 64}
recipe = TrainConfig(**images, **network, batch_size=10, lr=0.05, eval_every=12, threads=1)
methods = ["CrossEntropy()", "SDDropout(weight=0.1)"]
records = run_comparison(recipe, methods, seeds=3, epochs=12, jobs=1, out=Path("runs/digits"))
len(records)

# %% [markdown]
# In a terminal: `selfdistill compare --data digits --per-class 10`. A finished run is never repeated: call it again
# with more seeds, and only the new ones are trained.
#
# ## Means, and differences paired by seed

# %%
from selfdistill.records import summarise

summary = summarise(records)
for method in summary.methods:
    top1, gap = summary.statistics[method, "top1"], summary.statistics[method, "gap"]
    print(f"{method:24} top-1 {top1.mean:.3f} (sd {top1.sd:.3f}, n = {top1.n})  gap {gap.mean:+.3f}")

# %% [markdown]
# An interval that holds zero is *unclear*: it shows neither a gain nor that there is none.

# %%
for (method, metric), difference in summary.differences.items():
    if metric in ("top1", "nll", "ece"):
        print(
            f"{method:24} {metric:5} {difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})", end=": "
        )
        print(difference.effect)

# %% [markdown]
# ## The report
#
# The same and more as a page, with figures: open `report/report.html`.

# %%
from selfdistill.report import verdict, write_report

page = write_report(records, Path("report"), title="Digits")
print(verdict(summary).decision.headline)
page
