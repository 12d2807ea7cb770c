"""The demo's config: real digits, few enough that the network fits all of them."""

from selfdistill.config import TrainConfig
from selfdistill.runs.evaluation import EvaluationConfig

PREFACE = (
    "The 1,797 handwritten digits that ship with scikit-learn, shown as 32 x 32 pictures. Each network sees 50 of "
    "them, 5 of each digit, and is scored on 200 that it has not seen, under attacks and corruptions on 20 of these. "
    "The setting was chosen so that it takes a minute on a laptop and cross-entropy fits its training images "
    "completely, not by which method wins."
)

RECIPE = TrainConfig(
    data="digits",
    per_class=5,
    test_per_class=20,
    model="resnet10_cifar",
    width=16,
    epochs=60,
    batch_size=32,
    lr=0.1,
    weight_decay=1e-4,
    channels_last=True,
    eval_every=20,
)

EVALUATION = EvaluationConfig(max_images=20, max_ood_images=60)
"""Everything, on as few images as the minute allows."""
