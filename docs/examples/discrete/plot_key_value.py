"""
Writing only where one reads
============================

A key-value bottleneck learns digits two classes at a time. What it predicts, which pairs hold it, and what happens to a
linear probe on the same embeddings.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from throughline.continual.streams import class_incremental
from throughline.discrete.key_value import CodebookVote, KeyValueBottleneck

# %%
# Embeddings of scikit-learn's digits by a frozen random layer. The keys are found without labels, on mirrored digits:
# they only have to lie where data will.

pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(64, 300), nn.ReLU()).requires_grad_(False)
train, test = torch.randperm(len(x)).split([1400, 397])
z, mirrored = encoder(x), encoder(x.view(-1, 8, 8).flip(2).flatten(1))

draw = torch.Generator().manual_seed(0)
bottleneck = KeyValueBottleneck(300, 10, num_codebooks=48, num_pairs=128, dim_key=12, generator=draw)
bottleneck.fit_keys(mirrored[train].split(256), epochs=5, generator=draw)
heads = {"linear probe": nn.Linear(300, 10), "bottleneck": nn.Sequential(bottleneck, CodebookVote())}
rates = {"linear probe": 1e-3, "bottleneck": 0.3}  # the probe's is the best of 3e-4, 1e-3, 3e-3, 1e-2, 3e-2

# %%
# Five tasks of two classes. After each, the share of every class that is recognised, among all ten.

stream = class_incremental(y[train], generator=draw)
order = torch.cat([y[train][task].unique() for task in stream])
recognised = {name: [] for name in heads}
writers = []
for task in stream:
    before = bottleneck.usage.clone()
    for name, head in heads.items():
        optimizer = torch.optim.SGD(head.train().parameters(), lr=rates[name])
        for _ in range(30):
            for rows in train[task[torch.randperm(len(task))]].split(64):
                loss = F.cross_entropy(head(z[rows]), y[rows], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        with torch.no_grad():
            right = head.eval()(z[test]).argmax(1) == y[test]
        recognised[name].append(torch.stack([right[y[test] == digit].float().mean() for digit in order]))
    writers.append(bottleneck.usage > before)

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.4), layout="constrained", sharey=True)
for axis, (name, table) in zip(axes, recognised.items(), strict=True):
    picture = axis.imshow(torch.stack(table).numpy(), vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set(title=f"{name}: {(table[-1]).mean():.0%} at the end", xlabel="class, in the order of the stream")
    axis.set_xticks(range(10), order.tolist())
axes[0].set(ylabel="after task", yticks=range(5), yticklabels=range(1, 6))
figure.colorbar(picture, ax=axes, label="recognised")

# %%
# Why little is lost: a pair is a region of one head's space, and few regions are read by every task. Left, the task
# that wrote each pair last, codebook by codebook; right, by how many tasks a pair was written. Where tasks share a pair
# the other codebooks outvote it.

wrote = torch.stack(writers)
tasks = torch.arange(1, 6)[:, None, None]
last = (wrote * tasks).amax(0)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.2), layout="constrained", width_ratios=(5, 3))
picture = left.imshow(last.sort(1).values.numpy(), cmap=plt.get_cmap("viridis", 6), vmin=-0.5, vmax=5.5, aspect="auto")
left.set(xlabel="pair, sorted", ylabel="codebook")
figure.colorbar(picture, ax=left, label="last writer (0: never)", ticks=range(6))
counts = torch.bincount(wrote.sum(0).flatten(), minlength=6) / last.numel()
right.bar(range(6), counts.numpy(), color="tab:orange")
right.set(xlabel="tasks that wrote a pair", ylabel="share of pairs")
plt.show()
