# %% [markdown]
# # Fine-tune on a folder
#
# One folder per class is all that is needed. Here the "photographs" are drawn: a few handwritten digits as image
# files, so that this runs in seconds and without a download. Put your own folder in their place.

# %%
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
photos = Path("photos")
for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
    if label in (5, 6, 7) and number < 900:
        folder = photos / f"digit {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 15).astype("uint8")).resize((32, 32)).save(folder / f"{number}.png")

{folder.name: len(list(folder.iterdir())) for folder in sorted(photos.iterdir())}

# %% [markdown]
# ## Pretrained weights
#
# For photographs take `weights="default"`: the weights of torchvision's or timm's network, downloaded once. Here a
# network is trained on other digits (0 to 4) first, and its run is where the fine-tuning starts.

# %%
from selfdistill.config import TrainConfig
from selfdistill.training import train

small = {"model": "resnet10_cifar", "width": 4, "batch_size": 32, "threads": 1}
train(
    TrainConfig(data="digits", classes=5, per_class=40, epochs=3, method="CrossEntropy()", **small), "runs/pretrained"
)

# %% [markdown]
# ## Fine-tune
#
# A new head starts as a linear probe, the pretrained layers train at a rate of their own with AdamW. In a terminal
# the same is `selfdistill train --data photos --weights default`.

# %%
recipe = TrainConfig(
    data="photos", method="SDDropout(weight=0.1)", weights="runs/pretrained/model.safetensors", epochs=5, **small
)
record = train(recipe, "runs/fine-tuned")
print(record.data.train_n, "training images,", record.evaluation.n, "test images, held out by file name")
print(f"top-1 {record.evaluation.top1:.3f}, gap {record.evaluation.gap:+.3f}")

# %% [markdown]
# ## Use it
#
# `load_run` returns a plain module in evaluation mode, with the classes' names and how to prepare an image;
# `predict_files` does all of it.

# %%
from selfdistill.runs.predict import predict_files
from selfdistill.training import load_run

loaded = load_run("runs/fine-tuned")
predictions, skipped = predict_files(loaded, [photos / "digit 5"], workers=0)
for prediction in predictions[:3]:
    print(prediction.path, prediction.label, f"{prediction.confidence:.0%}")

# %% [markdown]
# What the percentage is worth, and how to tell images of something else: the page *Trust* of the guide.
