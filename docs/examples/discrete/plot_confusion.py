"""
Training on the metric
======================

What the amplification does to probabilities and gradients, and where a linear model puts its boundary when it learns
from F1 in place of cross-entropy.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from throughline.discrete.confusion import metric_loss

# %%
# The amplification turns probabilities into almost-labels. The steeper it is, the closer the soft counts come to the
# counts that are reported, and the narrower the band around the boundary in which a sample still learns.

z = torch.linspace(-4, 4, 401, requires_grad=True)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for amplification in (10.0, 33.0, 73.0):
    soft = (amplification * (z.sigmoid() - 0.5)).sigmoid()
    (gradient,) = torch.autograd.grad(soft.sum(), z)
    left.plot(z.sigmoid().detach(), soft.detach(), label=f"L = {amplification:g}")
    right.semilogy(z.detach(), gradient.clamp_min(1e-16))
left.set(xlabel="probability p", ylabel="almost-label A(p)")
right.set(xlabel="logit z", ylabel="dA/dz", ylim=(1e-12, 20))
left.legend()

# %%
# Two overlapping clouds, one point in sixteen positive. Full-batch gradient descent from zero weights, as in the paper:
# once on cross-entropy, once on F1.

draw = torch.Generator().manual_seed(0)
labels = torch.rand(4000, generator=draw) < 1 / 16
features = torch.randn(4000, 2, generator=draw) + labels[:, None] * torch.tensor([1.6, 1.0])
x = F.pad(features.double(), (0, 1), value=1.0)  # the intercept is a column
y = labels.double()


def train(loss_of, rate):
    weight = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    for _ in range(1000):
        (gradient,) = torch.autograd.grad(loss_of(x @ weight, y), weight)
        weight.data.sub_(rate * gradient)
    return weight.detach()


found = {"cross-entropy": train(F.binary_cross_entropy_with_logits, 1.0), "F1": train(metric_loss, 0.03)}

# %%
# Cross-entropy asks for probabilities and puts the line where a positive is as likely as a negative: it gives most of
# the rare class away. F1 moves the line to where the trade is best.

figure, axis = plt.subplots(figsize=(6, 4.4), layout="constrained")
axis.scatter(*features[~labels].T, s=4, color="#8a8f98", alpha=0.5, label="negative")
axis.scatter(*features[labels].T, s=9, color="#e0692f", label="positive")
ends = torch.tensor([features[:, 0].min(), features[:, 0].max()])
for (name, weight), style in zip(found.items(), ("--", "-"), strict=True):
    score = f1_score(labels, (x @ weight > 0).numpy())
    axis.plot(
        ends, -(weight[0] * ends + weight[2]) / weight[1], style, color="#2f7fd6", label=f"{name}: F1 {score:.2f}"
    )
axis.set(xlabel="first feature", ylabel="second feature", ylim=(features[:, 1].min(), features[:, 1].max()))
axis.legend(loc="best")
plt.show()
