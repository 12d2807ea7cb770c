# %% [markdown]
# # Inside the paper
#
# *Self-Knowledge Distillation via Dropout* in small steps: two dropout masks, the divergence of their posteriors, and
# what the paper proves about its gradients.

# %%
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from selfdistill import CrossEntropy, SelfDistiller

digits = load_digits()
x, y = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, torch.tensor(digits.target)

torch.manual_seed(0)
features = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU())  # f
head = nn.Linear(128, 10)  # h
distiller = SelfDistiller(nn.Sequential(features, head), CrossEntropy())
optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)
for _ in range(20):
    for batch in torch.randperm(400).split(50):
        optimizer.zero_grad()
        distiller(x[batch], y[batch]).loss.backward()
        optimizer.step()

# %% [markdown]
# ## Two masks (Eq. 2)
#
# Each feature is dropped with probability β = 0.5, the others are doubled; twice, independently. The head classifies
# both copies: two posteriors of one image, at the temperature T = 3.

# %%
from selfdistill.paper.analysis.masks import drop_twice

with torch.no_grad():
    f = features(x[1000:1500])
    dropped_u, dropped_v = drop_twice(f)
    p, q = (head(dropped).div(3).softmax(dim=1) for dropped in (dropped_u, dropped_v))

figure, ax = plt.subplots(figsize=(6, 3))
for offset, (name, posterior) in enumerate([("u", p), ("v", q)]):
    ax.bar([c + 0.4 * offset for c in range(10)], posterior[0].tolist(), width=0.4, label=f"mask {name}")
ax.set(xlabel="class", ylabel="posterior at T = 3", title=f"one image of a {int(y[1000])}")
ax.legend()
# %% [markdown]
# ## How far apart? (Eq. 3)
#
# SD-Dropout adds the divergence in both directions, times λT².

# %%
from selfdistill.losses import kl, symmetric_kl

u, v = head(dropped_u), head(dropped_v)
forward, backward = kl(u, v, temperature=3), kl(v, u, temperature=3)
print(f"D(p||q) = {forward.item():.4f}, D(q||p) = {backward.item():.4f}")
print(f"their sum, the term 'sdd': {symmetric_kl(u, v, temperature=3).item():.4f}")

# %% [markdown]
# ## The gradients of both directions (Lemma 1)
#
# With respect to the logits under u the *forward* divergence (Eq. 6: q is the target, held constant) has the gradient
# (p - q) / T, the *reverse* one (Eq. 7) p (log(p/q) - KL(p||q)) / T. By automatic differentiation and by the lemma:

# %%
from selfdistill.paper.analysis.directions import logit_gradients

a, b = u.detach().double().requires_grad_(), v.detach().double()
log_p, log_q = (a / 3).log_softmax(dim=1), (b / 3).log_softmax(dim=1)
(log_p.exp() * (log_p - log_q)).sum().backward()  # D(p||q), the gradient through p: reverse
lemma, _ = logit_gradients(a.detach(), b, temperature=3.0, direction="reverse")
assert a.grad is not None
float((a.grad - lemma).abs().max())

# %% [markdown]
# Which of the two is the longer? The paper's Fig. 4 measures it during a training; here at its end, image by image.

# %%
lengths = {
    direction: logit_gradients(u.detach(), v.detach(), temperature=3.0, direction=direction)[0].abs().sum(dim=1)
    for direction in ("forward", "reverse")
}
figure, ax = plt.subplots(figsize=(6, 3))
ax.scatter(lengths["forward"].numpy(), lengths["reverse"].numpy(), s=6)
ax.axline((0, 0), slope=1, color="k", linewidth=1, linestyle="--")
ax.set(xlabel="forward, L1 norm", ylabel="reverse, L1 norm", title="gradients in the logits")
print(f"reverse is longer for {float((lengths['reverse'] > lengths['forward']).double().mean()):.0%} of the images")

# %% [markdown]
# What the paper proves, which of its assumptions hold how often, and its errata: the page *The proofs, checked*.
