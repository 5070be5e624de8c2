"""
A relaxed architecture search
=============================

Where DARTS and RARTS go on a model of two numbers whose answer is known, and how wide a hidden layer should be, found
by scales of its units that learn from both halves of the digits.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from throughline.search.darts import DartsSearcher, search
from throughline.search.relaxed import RelaxedSearcher

# %%
# The architecture is a number α, the weights are a number w. Training wants w = α, and then the validation loss
# αw - 2α + 1 is least at α = w = 1: the star. First-order DARTS moves α as if w would stay, and ends at (2, 2);
# second order looks a step of 0.02 ahead, and ends at 2/1.04. RARTS has a second w, and ends next to the star, closer
# with a larger λ = β. Crosses are where theory has them end.


class Scalars(nn.Module):
    def __init__(self):
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.w = nn.Parameter(torch.tensor(-2.0, dtype=torch.float64))

    def forward(self, part):
        return (self.w - self.alpha) ** 2 if part == "train" else self.alpha * self.w - 2 * self.alpha + 1


def course(kind, rate=0.02, steps=600, **options):
    net = Scalars()
    optimizers = torch.optim.SGD([net.w], rate), torch.optim.SGD([net.alpha], rate)
    searcher = kind(net, lambda net, part: net(part), *optimizers, arch_params=[net.alpha], grad_clip=None, **options)
    rows = [(net.alpha.item(), net.w.item())]
    for _ in range(steps):
        searcher.step("train", "valid")
        rows.append((net.alpha.item(), net.w.item()))
    return torch.tensor(rows)


def limit(lam, beta):
    alpha = 4 * lam * beta / (4 * lam * beta - 2 * lam - beta)
    return alpha, alpha * (1 - 1 / (2 * lam))


figure, axis = plt.subplots(figsize=(6.8, 4.6), layout="constrained")
axis.plot([0.4, 2.6], [0.4, 2.6], "--", color="0.6", linewidth=0.8, label="w = α")
axis.plot(1, 1, "*", color="0.3", markersize=15)
runs = {
    "DARTS, first order": (course(DartsSearcher), (2, 2), "0.55"),
    "DARTS, second order": (course(DartsSearcher, unrolled=True), (2 / 1.04, 2 / 1.04), "tab:blue"),
    "RARTS, λ = β = 2": (course(RelaxedSearcher, lam=2, beta=2, sweep="fused"), limit(2, 2), "gold"),
    "RARTS, λ = β = 10": (course(RelaxedSearcher, lam=10, beta=10, sweep="fused"), limit(10, 10), "tab:orange"),
}
for label, (rows, end, color) in runs.items():
    axis.plot(*rows.T, color=color, label=label)
    axis.plot(*end, "x", color=color, markersize=9, markeredgewidth=2)
axis.set(xlabel="α", ylabel="w")
axis.legend()

# %%
# A hidden layer of 48 units on digits, each with a scale that is its weight of BatchNorm. The scales are the
# architecture, and the loss has a penalty on their size: the larger it is, the more units are idle at the end (grey).
# They are set to zero before the rest is tested.

pixels, labels = load_digits(return_X_y=True)
torch.manual_seed(0)
order = torch.randperm(len(labels))
images, labels = torch.tensor(pixels, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]
parts = [[*zip(images[rows].split(50), labels[rows].split(50), strict=True)] for rows in torch.arange(1200).chunk(2)]


def narrowed(strength):
    """The network, and the course of its scales."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 10))
    scales, paths = net[1].weight, []

    def loss(network, batch):
        return F.cross_entropy(network(batch[0]), batch[1]) + strength * network[1].weight.abs().sum()

    searcher = RelaxedSearcher(
        net,
        loss,
        torch.optim.SGD([p for p in net.parameters() if p is not scales], 0.05, momentum=0.9),
        torch.optim.SGD([scales], 0.2),
        arch_params=[scales],
        sweep="fused",
    )
    search(searcher, *parts, epochs=45, on_epoch=lambda *_: paths.append(scales.detach().abs().clone()))
    return net.eval(), torch.stack(paths)


figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained", sharey=True)
for axis, strength in zip(axes, (0.003, 0.01, 0.03), strict=True):
    net, paths = narrowed(strength)
    kept = paths[-1] > 0.05
    with torch.no_grad():
        net[1].weight *= kept
        net[1].bias *= kept
    right = (net(images[1200:]).argmax(1) == labels[1200:]).double().mean()
    for mask, color in ((~kept, "0.6"), (kept, "tab:orange")):
        for path in paths.T[mask]:
            axis.plot(path, color=color, linewidth=0.8)
    axis.set_title(f"penalty {strength:g}: {int(kept.sum())} of 48 units, test accuracy {right:.1%}", fontsize=9)
    axis.set_xlabel("epoch")
axes[0].set_ylabel("size of the scale of a unit")
plt.show()
