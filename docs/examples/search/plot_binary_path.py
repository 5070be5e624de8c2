"""
One path at a time
==================

A supernet that runs a single candidate of each layer: what it keeps in memory, and a search along paths that pays for
measured latency.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from throughline.search.binary_path import BinaryPathSearcher, LatencyTable, binary_paths
from throughline.search.darts import search
from throughline.search.supernet import MixedOp, arch_parameters, choices, weight_parameters

# %%
# Six layers for scikit-learn's digits, each with a choice: to do nothing, or one of four hidden widths.

WIDTHS = (32, 128, 512, 1024)


def layer():
    hidden = {
        f"{width}": nn.Sequential(nn.Linear(64, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 64))
        for width in WIDTHS
    }
    return MixedOp({"skip": nn.Identity(), **hidden})


def supernet():
    torch.manual_seed(0)
    return nn.Sequential(*(layer() for _ in range(6)), nn.Linear(64, 10))


# %%
# The mixture of all candidates keeps the hidden layers of all of them for the backward pass, one path those of one.


def kept(net, x):
    """Bytes of distinct tensors that the backward pass needs, beside the parameters."""
    seen, own = {}, {p.data_ptr() for p in net.parameters()}

    def note(tensor):
        if tensor.data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(x)
    assert output.requires_grad
    return sum(seen.values()) / 2**20


net, x = supernet(), torch.randn(256, 64)
mixture, paths = kept(net, x), []
for _ in range(60):
    with binary_paths(net):
        paths.append(kept(net, x))
figure, axis = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
axis.hist(paths, bins=20, color="tab:blue", alpha=0.7, label="60 random paths")
axis.axvline(mixture, color="tab:orange", label="mixture of all candidates")
axis.set(xlabel="MiB kept for the backward pass, batch of 256", ylabel="paths", xlim=(0, None))
axis.legend()

# %%
# Every candidate is timed on this machine. The same search then runs twice, without the expected latency in its loss
# and with it.

pixels, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32) / 8 - 1, torch.tensor(labels)
order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
train, valid = ([(images[rows], labels[rows]) for rows in part.split(64)] for part in (order[:896], order[896:1792]))
names = list(choices(net)["0.choice"].names)
histories = {}
for strength in (0.0, 0.3):
    net = supernet()
    table = LatencyTable.measure(net, x, warmup=5, repeats=20)
    searcher = BinaryPathSearcher(
        net,
        lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        torch.optim.SGD(weight_parameters(net), 0.02, momentum=0.9, nesterov=True),
        torch.optim.Adam(arch_parameters(net), 0.05, betas=(0.0, 0.999)),
        latency=table,
        strength=strength,
        generator=torch.Generator().manual_seed(1),
    )
    history = histories.setdefault(strength, [])
    search(searcher, train, None, epochs=2)
    search(
        searcher,
        train,
        valid,
        epochs=14,
        on_epoch=lambda epoch, means, history=history, net=net: history.append(
            torch.stack([choice.probabilities() for choice in choices(net).values()]).mean(0).detach()
        ),
    )
    decided = {name: choice.names[int(choice.alpha.argmax())] for name, choice in choices(net).items()}
    print(f"strength {strength}: {', '.join(decided.values())}; {table.latency(decided):.2f} ms")

# %%
# Mean probability of each option over the six layers. With latency in the loss the wide ones, which cost most, fade
# first.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for axis, (strength, history) in zip(axes, histories.items(), strict=True):
    curves = torch.stack(history)
    for place, name in enumerate(names):
        axis.plot(range(1, len(curves) + 1), curves[:, place], label=name)
    title = f"latency in the loss, strength {strength}" if strength else "latency ignored"
    axis.set(title=title, xlabel="epoch")
axes[0].set(ylabel="mean probability", ylim=(0, None))
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", title="option")
plt.show()
