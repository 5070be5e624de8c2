"""
Four values for a weight
========================

What two bits do to the weights of a layer, and what a network of such weights can still learn on scikit-learn's digits.
"""

import copy

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from throughline.discrete.quantization import (
    PointQuantizer,
    WeightQuantizer,
    distillation_loss,
    quantile_points,
)

# %%
# A teacher, and a student distilled from it at full precision.

pixels, digits = load_digits(return_X_y=True)
parts = train_test_split(pixels / 16, digits, test_size=600, random_state=0)
x, x_test = (torch.tensor(part, dtype=torch.float32) for part in parts[:2])
y, y_test = (torch.tensor(part) for part in parts[2:])


def network(hidden):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def fit(parameters, loss_of, epochs, optimizer):
    torch.manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            loss_of(rows)
            optimizer.step()
            optimizer.zero_grad()


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)


def accuracy(model):
    with torch.no_grad():
        return (model(x_test).argmax(1) == y_test).double().mean().item()


teacher, student = network(128), network(16)
fit(teacher, lambda rows: nn.functional.cross_entropy(teacher(x[rows]), y[rows]).backward(), 20, sgd(teacher))
with torch.no_grad():
    soft = teacher(x)
fit(student, lambda rows: distillation_loss(student(x[rows]), soft[rows], y[rows]).backward(), 20, sgd(student))

# %%
# Three ways to few bits: round the student when all is done, train a student whose weights are rounded all the time, or
# leave the weights of the first and let the levels move.


def afterwards(bits):
    quantizer = WeightQuantizer(copy.deepcopy(student), bits)
    return accuracy(quantizer.finalize()), quantizer.size().bytes


def under_quantisation(bits):
    model = network(16)
    quantizer = WeightQuantizer(model, bits)

    def loss_of(rows):
        with quantizer:
            distillation_loss(model(x[rows]), soft[rows], y[rows], temperature=2.0).backward()

    fit(model, loss_of, 20, sgd(model))
    return accuracy(quantizer.finalize()), quantizer.size().bytes


def learned_points(bits):
    model = copy.deepcopy(student)
    quantizer = PointQuantizer(model, bits)
    with torch.no_grad():
        own = student(x)

    def loss_of(rows):
        with quantizer:
            distillation_loss(model(x[rows]), own[rows], y[rows]).backward()

    fit(model, loss_of, 20, torch.optim.Adam(quantizer.parameters(), 1e-3))
    moved.setdefault(bits, quantizer.points[1].detach().sort().values)
    return accuracy(quantizer.finalize()), quantizer.size().bytes


moved = {}
every = (1, 2, 3, 4, 6)
found = {
    "rounded afterwards": [afterwards(bits) for bits in every],
    "trained under quantisation": [under_quantisation(bits) for bits in every],
    "learned points": [learned_points(bits) for bits in every],
}

# %%
# Left, the accuracy over the size on disk: a Huffman code of the levels, the scales of the buckets and the biases.
# Right, the weights of the middle layer, scaled to their bucket, with four levels: even ones, quantiles, and where they
# moved.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
full = 4 * sum(p.numel() for p in student.parameters())
for (name, results), color in zip(found.items(), ("0.55", "tab:orange", "tab:blue"), strict=True):
    left.plot([size for _, size in results], [score for score, _ in results], "o-", color=color, label=name)
left.plot(full, accuracy(student), "s", color="tab:purple", label="full precision")
for (_, size), bits in zip(found["trained under quantisation"], every, strict=True):
    left.annotate(f"{bits}", (size, 1.0), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
left.set(xscale="log", xlabel="bytes (above: bits)", ylabel="accuracy on 600 digits")
left.minorticks_off()
left.set_xticks([400, 600, 1000, 2000, 5000], ["400", "600", "1,000", "2,000", "5,000"])
left.legend()

weight = student[2].weight.detach()
scaled = (weight - weight.min()) / (weight.max() - weight.min())  # 256 weights: one bucket
right.hist(scaled.flatten().numpy(), bins=50, color="0.75")
levels = {"even": torch.linspace(0, 1, 4), "quantiles": quantile_points(weight, 4), "learned": moved[2]}
for place, ((name, points), color) in enumerate(
    zip(levels.items(), ("0.4", "tab:green", "tab:blue"), strict=True), start=1
):
    right.plot(points.numpy(), [-2.0 * place] * 4, "|", markersize=12, markeredgewidth=3, color=color, label=name)
right.set(xlabel="weight, scaled to its bucket", yticks=[])
right.legend()
plt.show()
