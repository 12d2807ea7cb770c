"""A method with what integrations must look after: parameters that are not the model's, and a memory."""

from typing import Any

from torch import Tensor, nn, zeros

from selfdistill.losses import cross_entropy
from selfdistill.method import Method, Needs, Outputs, Step, Term


class Branch(Method):
    """A second classifier of the features, and the number of images that it saw."""

    needs = Needs(progress=True)

    def __init__(self) -> None:
        super().__init__()
        self.seen = zeros(())

    def build(self, probe: Outputs, model: nn.Module) -> None:
        self.linear = nn.Linear(probe.features.shape[1], probe.logits.shape[1])

    def terms(self, step: Step) -> dict[str, Term]:
        self.seen = self.seen + len(step.labels)
        logits = self.linear(step.outputs[0].features)
        return {"branch": Term(cross_entropy(logits, step.labels), 0.5 + 0.5 * step.progress)}

    def get_extra_state(self) -> Tensor:
        return self.seen

    def set_extra_state(self, state: Any) -> None:
        self.seen = state.clone()
