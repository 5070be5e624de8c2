"""
Dropout that tunes itself
=========================

What a best-response network knows, held against the exact answer where there is one, and a schedule of dropout and
noise that one training run finds on scikit-learn's digits.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from throughline.search.best_response import Hyperparameter, HyperparameterSpace, SelfTuner, convert

# %%
# Ridge regression has an exact best response: the weights as a function of the penalty. A linear network with gates is
# trained around one penalty, a perturbed one for every sample. Its weights then are the tangent of the exact curves,
# over about the width of the perturbation.

torch.manual_seed(0)
n, d, center, scale = 60, 3, -1.0, 0.5
x = torch.randn(n, d) * torch.tensor([0.4, 1.0, 2.0])
y = x @ torch.tensor([1.5, -1.0, 0.5]) + 0.5 * torch.randn(n)
space = HyperparameterSpace([Hyperparameter("log penalty", center, scale=scale)])
network = convert(nn.Sequential(nn.Linear(d, d, bias=False), nn.Linear(d, 1, bias=False)), space, exclude=["1"])
axes_of_input = torch.eye(d).expand(n, d, d)


def penalty(output, values):
    return (values["log penalty"].exp() * output[:, 1:, 0].square().sum(1)).mean()  # of the network's slopes


tuner = SelfTuner(
    network,
    optimizer=torch.optim.Adam(network.parameters(), 5e-3),
    loss=lambda output, target: F.mse_loss(output[:, 0, 0], target),
    penalty=penalty,
    generator=torch.Generator().manual_seed(0),
)
inputs = torch.cat([x[:, None], axes_of_input], 1)
for _ in range(2000):
    tuner.train_step(inputs, y)

places = torch.linspace(center - 2.5, center + 2.5, 61)
exact = torch.stack([torch.linalg.solve(x.T @ x / n + p.exp() * torch.eye(d), x.T @ y / n) for p in places])
with torch.no_grad():
    found = torch.stack([network(torch.eye(d), hyper=p[None])[:, 0] for p in places])
figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for i, color in enumerate(("tab:orange", "tab:blue", "tab:green")):
    axis.plot(places, exact[:, i], color=color, label=f"weight {i + 1}")
    axis.plot(places, found[:, i], color=color, linestyle="--")
axis.axvspan(center - scale, center + scale, color="0.5", alpha=0.15, linewidth=0)
axis.plot([], [], color="0.5", linestyle="--", label="best-response network")
axis.set(xlabel="logarithm of the penalty", ylabel="weight", ylim=(-1.3, 1.6))
axis.legend(ncols=2)

# %%
# Digits, 200 of them to train on. Two dropout rates and the strength of noise start at next to nothing; one run moves
# them by the validation loss while it trains.

pixels, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
order = torch.randperm(len(images))
parts = {"train": order[:200], "valid": order[200:600], "test": order[600:]}
model = nn.Sequential(
    *(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10))
)
space = HyperparameterSpace(
    [
        Hyperparameter("first dropout", 0.05, low=0.0, high=0.9),
        Hyperparameter("second dropout", 0.05, low=0.0, high=0.9),
        Hyperparameter("noise", 0.05, low=0.0, high=1.0),
    ]
)
network = convert(model, space, dropout={"2": "first dropout", "5": "second dropout"})
tuner = SelfTuner(
    network,
    optimizer=torch.optim.SGD(network.parameters(), 0.03, momentum=0.9),
    loss=F.cross_entropy,
    augment=lambda x, values: x + values["noise"][:, None] * torch.randn_like(x),
    hyper_lr=0.03,
    scale_lr=0.03,
    warmup_steps=50,
)


def batches(rows):
    while True:
        for some in rows[torch.randperm(len(rows))].split(50):
            yield images[some], labels[some]


train, valid = batches(parts["train"]), batches(parts["valid"])
bands, losses = [], []
for step in range(1800):
    tuner.step(train, valid)
    if step % 20 == 0:
        network.eval()
        with torch.no_grad():
            around = torch.stack([space.location, space.location - space.scale, space.location + space.scale])
            bands.append(torch.stack(list(space.constrain(around).values()), 1))
            losses.append([F.cross_entropy(network(images[parts[p]]), labels[parts[p]]).item() for p in parts])
bands, losses = torch.stack(bands), torch.tensor(losses)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
steps = torch.arange(len(bands)) * 20
for i, name in enumerate(space.names):
    (line,) = left.plot(steps, bands[:, 0, i], label=name)
    left.fill_between(steps, bands[:, 1, i], bands[:, 2, i], color=line.get_color(), alpha=0.15, linewidth=0)
left.set(title="what is tuned, and σ", xlabel="step", ylim=(0, None))
left.legend()
for i, name in enumerate(("training", "validation", "test")):
    right.plot(steps, losses[:, i], label=name)
right.set(title="loss at the current values", xlabel="step", yscale="log")
right.legend()
plt.show()
