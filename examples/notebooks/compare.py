# %% [markdown]
# # Compare and tune
#
# The difference of two trainings is partly luck: other initial weights, another order of the images. So every method
# is trained with several seeds, and the differences are taken within each seed. Here: a tiny network on handwritten
# digits, in seconds.

# %%
import selfdistill
from selfdistill import CrossEntropy, SDDropout

images = {"data": "digits", "per_class": 10, "test_per_class": 20, "image_size": 16}
training = {"width": 4, "features": 64, "batch_size": 10, "lr": 0.05, "eval_every": 12, "threads": 1}
methods = [CrossEntropy(), SDDropout(weight=0.1)]
compared = selfdistill.compare(
    "resnet10_cifar", methods=methods, seeds=3, epochs=12, quick=True, out="runs/digits", **images, **training
)
compared

# %% [markdown]
# In a terminal: `selfdistill compare --data digits --per-class 10`. A finished run is never repeated: call it again
# with more seeds, and only the new ones are trained. Without `quick=True` attacks, corruptions and images of another
# kind are measured too; images and models of your own: [from Python](../docs/guide/python.md).
#
# ## Means, and differences paired by seed

# %%
summary = compared.summary
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
# The same and more, with figures, is on a page:

# %%
compared.report

# %% [markdown]
# ## Tune
#
# How strong should the method be? `tune` tries settings of each method on validation images, cross-entropy as often as
# the others, stops the weak ones early, and measures the winner and the baseline once on the test images. In earnest it
# gets a `budget="60m"` instead of two trials.

# %%
tuned = selfdistill.tune(
    "resnet10_cifar",
    methods=["CrossEntropy()", "SDDropout()"],
    trials=2,
    epochs=8,
    seeds=1,
    out="tuned",
    **images,
    **training,
)
for trial in tuned.search.trials:
    print(f"{trial.method:70} {trial.state:9} validation top-1 {trial.top1:.3f}, NLL {trial.nll:.3f}")
tuned

# %% [markdown]
# The network to use, with the temperature that its trial needs on the validation images:

# %%
tuned.network
