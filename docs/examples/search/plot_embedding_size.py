"""
Tables that give each feature its own size
==========================================

Users and items of very different popularity share one budget of embedding dimensions. A search learns on validation
data which dimensions each group of them can use, and one threshold cuts the rest.
"""

import copy

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.nn import functional as F

from throughline.search.embedding_size import (
    EmbeddingSizeSearch,
    frequency_blocks,
    make_searchable,
    prune,
    weight_parameters,
)

# %%
# Ratings that four hidden tastes explain, and noise. A few of the 300 users and 300 items have most of the ratings: how
# often the one at rank r occurs falls as 1 / r.

torch.manual_seed(0)
n, hidden, K, blocks = 300, 4, 16, 6
popularity = 1 / torch.arange(1.0, n + 1)
users, items = (torch.multinomial(popularity, 30_000, replacement=True) for _ in range(2))
ids = torch.stack([users, n + items], 1)
tastes = torch.randn(2 * n, hidden)
ratings = tastes[ids].prod(1).sum(1) / hidden**0.5 + 0.7 * torch.randn(len(ids))
rows = {"train": slice(0, 9_000), "valid": slice(9_000, 14_000), "test": slice(14_000, None)}
parts = {name: (ids[some], ratings[some]) for name, some in rows.items()}
counts = parts["train"][0].flatten().bincount(minlength=2 * n)


class Machine(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.table, self.bias = nn.Embedding(2 * n, size), nn.Embedding(2 * n, 1)
        nn.init.normal_(self.table.weight, std=0.3)
        nn.init.zeros_(self.bias.weight)

    def forward(self, ids):
        return self.table(ids).prod(1).sum(1) + self.bias(ids).sum((1, 2))


def loss(model, batch):
    return F.mse_loss(model(batch[0]), batch[1])


def batches(part):
    x, y = parts[part]
    while True:
        for some in torch.randperm(len(x)).split(500):
            yield x[some], y[some]


def error(model):
    with torch.no_grad():
        return loss(model, parts["test"]).item()


# %%
# A warm start without a search, ended when validation is at its best, and then the search at a tenth of the rate.
# Beside it the same table goes on without one.


def trained(model, rate, steps, search=False):
    """The model at its best moment on validation data, and α along the way."""
    optimizer = torch.optim.Adam(weight_parameters(model), rate)
    searcher = EmbeddingSizeSearch(model, loss, optimizer) if search else None
    train, valid, best, course = batches("train"), batches("valid"), (float("inf"), None), []
    for step in range(steps):
        if searcher is not None:
            searcher.step(next(train), next(valid))
        else:
            optimizer.zero_grad()
            loss(model, next(train)).backward()
            optimizer.step()
        if step % 10 == 9:
            with torch.no_grad():
                reached = loss(model, parts["valid"]).item()
            if reached < best[0]:
                best = reached, copy.deepcopy(model)
            if search:
                course.append(model.table.alpha.detach().clone())
    return best[1], course


start, _ = trained(Machine(K), 2e-2, 300)
plain, _ = trained(copy.deepcopy(start), 2e-3, 300)
searched, course = trained(make_searchable(start, {"table": counts}, num_blocks=blocks), 2e-3, 300, search=True)
make_searchable(plain, {"table": counts}, num_blocks=blocks)  # α stays 1: the cut goes by magnitude alone

figure, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained", sharey=True)
order = course[-1].mean(0).argsort(descending=True)
for axis, place in zip(axes, (0, len(course) // 2, -1), strict=True):
    drawn = axis.imshow(course[place][:, order].numpy(), vmin=0, vmax=1, aspect="auto")
    axis.set(title=f"after {range(10, 301, 10)[place]} steps", xlabel="dimension")
axes[0].set_ylabel("block, frequent first")
figure.colorbar(drawn, ax=axes, label="α")

# %%
# What is left at each sparsity, and how large the features of each block are at a half. Cut without a search, the
# table keeps large weights that have fitted noise. With it, half of the table does better than any uniform one. Where
# less than a third is to be left a small table from the start is better: nothing is trained again behind the cut.

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
shares = [0.0, 0.25, 0.5, 0.625, 0.75, 0.85, 0.9, 0.95]
block = frequency_blocks(counts, blocks)
for name, model, color in (("cut by magnitude", plain, "tab:grey"), ("searched, then cut", searched, "tab:orange")):
    errors, sizes = [], []
    for share in shares:
        made = copy.deepcopy(model)
        sizes.append(prune(made, sparsity=share)[0])
        errors.append(error(made))
    left.plot([100 * (1 - share) for share in shares], errors, "o-", color=color, label=name)
    half = sizes[shares.index(0.5)].float()
    mean = [half[block == b].mean() for b in range(blocks)]
    often = [counts[block == b].float().mean() for b in range(blocks)]
    right.plot(often, mean, "o-", color=color, label=name)
for size in (1, 2, 4, 8, 16):
    model, _ = trained(Machine(size), 2e-2, 300)
    label = "uniform" if size == 1 else None
    left.plot(100 * size / K, error(trained(model, 2e-3, 300)[0]), "s", color="tab:blue", label=label)
left.set(xlabel="entries of the table, % of the largest", ylabel="test error", xscale="log")
right.set(xlabel="mean occurrences in a block", ylabel="mean size, half of all entries kept", xscale="log", ylim=(0, K))
left.set_xticks([5, 12.5, 25, 50, 100], ["5", "12.5", "25", "50", "100"])
left.minorticks_off()
left.legend()
right.axhline(K / 2, color="tab:blue", linestyle="--")
plt.show()
