"""
Selection by removal
====================

One supernet of digits, and two ways to read an architecture out of it; why the largest weights mislead; and a space
that is small enough to be trained as a whole.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from throughline.search.darts import DartsSearcher, search
from throughline.search.selection import magnitude_selection, perturbation_selection
from throughline.search.spaces import nas_bench_201
from throughline.search.supernet import MixedOp, arch_parameters, choices, weight_parameters
from throughline.search.tabular import ArchitectureTable

# %%
# A supernet of the NAS-Bench-201 space, six channels wide, learns digits for a few epochs: weights on one half, alpha
# on the other. Then each option is removed in turn, and the one that is missed most is kept; one epoch of tuning
# follows before the next edge. Most options are hardly missed, whatever their weight, and what is missed most is often
# not what has the largest.

pixels, digits = load_digits(return_X_y=True)
torch.manual_seed(0)
rows = torch.randperm(len(digits))
images, labels = torch.tensor(pixels, dtype=torch.float32)[rows].view(-1, 1, 8, 8) / 16, torch.tensor(digits)[rows]
train, valid, test = (list(zip(images[p].split(64), labels[p].split(64), strict=True)) for p in rows.argsort().chunk(3))


def loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def accuracy(net):
    return float(torch.cat([net(x).argmax(1) == y for x, y in valid]).double().mean())


def sgd(net, lr):
    return torch.optim.SGD(weight_parameters(net), lr, momentum=0.9, weight_decay=3e-4)


net = nas_bench_201(channels=6, cells=1, in_channels=1)
alphas = torch.optim.Adam(arch_parameters(net), 3e-3, betas=(0.5, 0.999), weight_decay=1e-3)
search(DartsSearcher(net, loss, sgd(net, 0.025), alphas), train, valid, epochs=10)

weights, scores = {}, {}


def note(name, removed):
    weights[name], scores[name] = choices(net)[name].probabilities().tolist(), removed


tuner = DartsSearcher(net, loss, sgd(net, 0.0025), alphas)
picked = perturbation_selection(net, accuracy, lambda net: search(tuner, train, valid, epochs=1), on_step=note)

figure, axes = plt.subplots(2, 3, figsize=(9.5, 5), layout="constrained", sharey=True)
for axis, (name, removed) in zip(axes.flat, scores.items(), strict=True):
    for weight, (option, score) in zip(weights[name], removed.items(), strict=True):
        axis.plot(weight, score, "o", label=option.replace("_", " "))
    most = weights[name].index(max(weights[name]))
    axis.plot(weights[name][most], list(removed.values())[most], "s", color="0.6", markersize=12, fillstyle="none")
    kept = list(removed).index(picked.decisions[name])
    axis.plot(weights[name][kept], removed[picked.decisions[name]], "o", color="0", markersize=12, fillstyle="none")
    axis.set_title(f"edge {name.rpartition('.')[2]}, decided as number {list(scores).index(name) + 1}", fontsize=9)
figure.supxlabel("weight of an option, softmax of alpha", fontsize=9)
figure.supylabel("validation accuracy without it", fontsize=9)
handles, names = axes[0, 0].get_legend_handles_labels()
handles += [
    plt.Line2D([], [], marker=m, color=c, linestyle="", fillstyle="none", markersize=10) for m, c in ("o0", "s0")
]
figure.legend(handles, [*names, "kept by removal", "largest weight"], loc="outside upper center", ncols=4)

# %%
# Why (the paper's proposition 1). A skip and a convolution both estimate the same best features, with independent
# errors of variances s and c. The mixture p·skip + (1 - p)·convolution has the variance p²s + (1 - p)²c, least at
# p = c / (s + c): the better the features are that arrive already, the larger the weight of the skip, however good the
# convolution is at its work. Lines are this closed form; points are the best of a grid for errors that were drawn.

generator = np.random.default_rng(0)
skip_error, conv_error = generator.standard_normal((2, 20_000))
spread = np.linspace(0.2, 2.0, 10)  # of the skip's error; the convolution's is 1
shares = np.linspace(0, 1, 201)
measured = [shares[np.argmin([(p * s * skip_error + (1 - p) * conv_error).var() for p in shares])] for s in spread]
figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
axis.plot(spread, 1 / (spread**2 + 1), color="tab:green", label="skip, closed form")
axis.plot(spread, spread**2 / (spread**2 + 1), color="tab:blue", label="convolution, closed form")
axis.plot(spread, measured, "o", color="tab:green")
axis.plot(spread, 1 - np.array(measured), "o", color="tab:blue")
axis.set(xlabel="error of the skip, with that of the convolution at 1", ylabel="weight in the best mixture")
axis.legend(loc="center right")

# %%
# Two places for an activation, four candidates for each: all 16 networks are trained from five seeds, and a table says
# what a search in this space was worth.

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "sigmoid": nn.Sigmoid, "sine": lambda: Sine()}
x, y = images.flatten(1), labels


class Sine(nn.Module):
    def forward(self, x):
        return x.sin()


def perceptron(first, second):
    return nn.Sequential(nn.Linear(64, 32), first, nn.Linear(32, 32), second, nn.Linear(32, 10))


def trained(decisions, seed):
    torch.manual_seed(seed)
    net = perceptron(*(ACTIVATIONS[option]() for option in decisions))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(net(x[:600]), y[:600]).backward()
        optimizer.step()
    return (net(x[1200:]).argmax(1) == y[1200:]).double().mean().item()


torch.manual_seed(0)
both = perceptron(*(MixedOp({name: op() for name, op in ACTIVATIONS.items()}) for _ in range(2)))
searcher = DartsSearcher(
    both,
    lambda net, rows: F.cross_entropy(net(x[rows]), y[rows]),
    torch.optim.Adam(weight_parameters(both), 0.01),
    torch.optim.Adam(arch_parameters(both), 0.01),
)
search(searcher, [slice(0, 600)], [slice(600, 1200)], epochs=100)
found = {
    "largest weight": magnitude_selection(both, exclude=()),
    "removal": perturbation_selection(
        both, lambda net: -float(F.cross_entropy(net(x[600:1200]), y[600:1200]))
    ).decisions,
}
options = {name: choice.names for name, choice in choices(both).items()}
every = {key: {seed: trained(key, seed) for seed in range(5)} for key in itertools.product(*options.values())}
table = ArchitectureTable(options, every)

figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
for key in every:
    decisions = dict(zip(options, key, strict=True))
    axis.plot(table.rank(decisions), table.score(decisions), "o", color="0.6")
    axis.annotate(", ".join(key), (table.rank(decisions), table.score(decisions)), rotation=60, fontsize=7, va="bottom")
for (rule, decisions), color in zip(found.items(), ("tab:orange", "tab:blue"), strict=True):
    size = 9 if rule == "removal" else 14
    label = f"{rule}: rank {table.rank(decisions)} of {len(table)}, regret {table.regret(decisions):.3f}"
    axis.plot(
        table.rank(decisions), table.score(decisions), "o", color=color, markersize=size, fillstyle="none", label=label
    )
axis.set(xlabel="rank in the table", ylabel="test accuracy, mean of five seeds")
axis.margins(y=0.35)
axis.legend(loc="lower left")
plt.show()
