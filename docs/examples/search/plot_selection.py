"""
What a supernet would miss
==========================

Why the largest architecture weight is a poor guide, in two Gaussian variables; and a small supernet on scikit-learn's
digits, read by its weights and by what it loses when an option is removed.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from throughline.search.darts import DartsSearcher, search
from throughline.search.selection import magnitude_selection, perturbation_selection
from throughline.search.spaces import cells_1d
from throughline.search.supernet import arch_parameters, batch_statistics, choices, weight_parameters

# %%
# An edge mixes its input x (a skip connection) with a convolution o(x), and both estimate the feature map m that the
# network wants. The mixture p·x + (1 − p)·o(x) of least variance has p = var(o − m) / (var(x − m) + var(o − m)): the
# better the network, the closer its x is to m, and the larger the weight of the skip connection. That says how little
# is left to do, not that the convolution may go. The dots are the best p on a grid, from samples.

torch.manual_seed(0)
errors = torch.linspace(0.1, 2.0, 20)  # var(x − m); var(o − m) is 1
grid = torch.linspace(0, 1, 401)[:, None]
noise = torch.randn(2, 20_000)
found = []
for variance in errors:
    x, o = variance.sqrt() * noise[0], noise[1]
    found.append(grid[(grid * x + (1 - grid) * o).var(1).argmin()].item())
figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
axis.plot(errors, 1 / (errors + 1), label="skip connection, closed form")
axis.plot(errors, errors / (errors + 1), label="convolution, closed form")
axis.plot(errors, found, "o", color="tab:blue", markersize=4, label="best on the grid")
axis.set(xlabel="variance of the input around the feature map that is wanted", ylabel="weight", ylim=(0, 1))
axis.invert_xaxis()  # training goes to the right
axis.legend()

# %%
# A supernet of six edges with three options each, trained by first-order DARTS: the rows of a digit are its channels.

pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32).view(-1, 8, 8) / 8 - 1, torch.tensor(labels)
order = torch.randperm(len(x))
halves = [(x[rows], y[rows]) for rows in (order[:300], order[300:600])]
loaders = [list(zip(part[0].split(50), part[1].split(50), strict=True)) for part in halves]
net = cells_1d(channels=8, in_channels=8)
searcher = DartsSearcher(
    net,
    lambda net, batch: F.cross_entropy(net(batch[0]), batch[1]),
    torch.optim.SGD(weight_parameters(net), 0.05, momentum=0.9, weight_decay=3e-4),
    torch.optim.Adam(arch_parameters(net), 3e-3, betas=(0.5, 0.999), weight_decay=1e-3),
)
search(searcher, *loaders, epochs=20)


def accuracy(net):
    inputs, targets = halves[1]
    with torch.no_grad(), batch_statistics(net):
        return (net(inputs).argmax(1) == targets).double().mean().item()


# %%
# Each option is removed alone, with the others as they were. On every edge a ring is around the option that the network
# misses most, and a white star is on the one of the largest weight: often two different ones, and then the largest
# weight is that of a skip connection.

colors = dict(zip(net.edge["1_0"].names, ("tab:purple", "tab:blue", "tab:orange"), strict=True))
figure, axes = plt.subplots(1, 6, figsize=(10, 2.6), sharey=True, layout="constrained")
for axis, (name, choice) in zip(axes, choices(net).items(), strict=True):
    weights, without = choice.probabilities().detach(), {}
    for option in choice.names:
        with choice.without(option):
            without[option] = accuracy(net)
    for weight, (option, score) in zip(weights, without.items(), strict=True):
        axis.plot(weight, score, "o", color=colors[option], label=option)
    missed, largest = min(without, key=without.get), choice.names[int(weights.argmax())]
    axis.plot(weights[choice.names.index(missed)], without[missed], "o", color="0.4", markersize=12, fillstyle="none")
    axis.plot(weights.max(), without[largest], "*", color="white", markersize=4)
    axis.margins(0.25)
    axis.set(title=name, xlabel="weight")
axes[0].set_ylabel("accuracy without it")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)

# %%
# The selection goes edge by edge in random order, and tunes the rest of the supernet before it goes on. Read all at
# once by the largest weights, the same supernet loses more.

start, state = accuracy(net), searcher.state_dict()["model"]
kept = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in state.items()}
for name, option in magnitude_selection(net).items():
    choices(net)[name].select(option)
at_once = accuracy(net)
net.load_state_dict(kept)  # opens the choices again

course = [start]
tuner = DartsSearcher(
    net,
    searcher.loss,
    torch.optim.SGD(weight_parameters(net), 0.005, momentum=0.9, weight_decay=3e-4),
    searcher.arch_optimizer,
)


def tune(net):
    course.append(accuracy(net))
    search(tuner, *loaders, epochs=2)
    course.append(accuracy(net))


picked = perturbation_selection(net, accuracy, tune)
course.append(accuracy(net))
figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
places = [0, *(i / 2 for i in range(2, len(course) + 1))]
axis.plot(places, course, "o-", label="one by one, the option that is missed most")
axis.plot([0, 6], [start, at_once], "s--", color="0.5", label="all at once, the largest weights")
axis.set(xlabel="edges decided; half a step on, after tuning", ylabel="validation accuracy", ylim=(0, 1.02))
axis.legend(loc="lower left")
print(picked.decisions)
plt.show()
