"""
Clusters that can be looked at
==============================

What the k-means layer does to its centres, step by step, and what the centres of scikit-learn's digits look like when
an autoencoder has learned to be clustered.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score
from torch import nn

from throughline.discrete.clustering import TELL, KMeansLayer

# %%
# Directions in the plane, in three groups of very different size. The gradient of the loss is Lloyd's direction: with
# it as it is, the crowded centre moves and the others hardly do. With every row brought to one length, as in the paper,
# all arrive together.

draw = torch.Generator().manual_seed(0)
angles = torch.cat([a + 0.15 * torch.randn(n, generator=draw) for a, n in ((0.3, 900), (2.2, 80), (4.2, 20))])
points = torch.stack([angles.cos(), angles.sin()], -1)


def walk(normalized, steps=40):
    layer = KMeansLayer(2, 3)
    starts = torch.tensor([0.3, 2.2, 4.2]) + 0.75
    layer.set_centers_(torch.stack([starts.cos(), starts.sin()], -1))
    path = [layer.centers.detach()]
    optimizer = torch.optim.Adadelta(layer.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        layer.loss(points).backward()
        if normalized:
            layer.normalize_gradient_()
        else:  # as long on average, but each as its cluster is
            layer.weight.grad.mul_(0.2 * layer.alpha / layer.weight.grad.norm(dim=1).mean())
        optimizer.step()
        layer.project_()
        path.append(layer.centers.detach())
    return torch.stack(path)


best = torch.stack([points[:900].mean(0), points[900:980].mean(0), points[980:].mean(0)])
best = nn.functional.normalize(best, dim=-1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", width_ratios=(1, 1.3))
radii = 1 + 0.05 * torch.randn(len(points), 1, generator=draw)
left.scatter(*(points * radii).T, s=4, color="#8a8f98", alpha=0.5)
for path, color in zip(walk(True).unbind(1), ("#e0692f", "#2f7fd6", "#2a9d62"), strict=True):
    left.plot(*path.T, color=color)
    left.plot(*path[-1], "X", color=color, markeredgecolor="black", markersize=9)
left.set(aspect="equal", xticks=[], yticks=[], title="samples, and the paths of the centres")
for name, normalized, style in (("rows of one length", True, "-"), ("gradient as it is", False, "--")):
    apart = (walk(normalized) * best).sum(-1).clamp(-1, 1).arccos()
    for size, color, line in zip((900, 80, 20), ("#e0692f", "#2f7fd6", "#2a9d62"), apart.T, strict=True):
        right.plot(line, style, color=color, label=f"{name}, {size} samples")
right.set(xlabel="step", ylabel="angle to the mean direction of the group", ylim=(0, 1.3))
right.legend(ncols=2, fontsize="small")

# %%
# An autoencoder of the digits, sixty epochs of which 45 only reconstruct; no label is used. Above: the ten centres,
# decoded. Below: the sample that lies nearest to each.

images, digits = load_digits(return_X_y=True)
images = images / 16
torch.manual_seed(0)
encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
decoder = nn.Sequential(
    *(nn.Linear(10, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()), *(nn.Linear(128, 64), nn.Sigmoid())
)
model = TELL(
    10,
    encoder=encoder,
    decoder=decoder,
    pretrain_epochs=45,
    max_epochs=60,
    clustering_weight=0.025,
    init="k-means",
    batch_size=128,
    random_state=0,
)
distances = model.fit(images).transform(images)
with torch.no_grad():
    decoded = model.decoder_(model.layer_.centers).numpy()
names = [np.bincount(digits[model.labels_ == j]).argmax() for j in range(10)]
order = np.argsort(names)
figure, axes = plt.subplots(2, 10, figsize=(9, 2.2), layout="constrained")
for column, j in enumerate(order):
    for axis, picture in zip(axes[:, column], (decoded[j], images[distances[:, j].argmin()]), strict=True):
        axis.imshow(picture.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
    share = np.mean(digits[model.labels_ == j] == names[j])
    axes[1, column].set_xlabel(f"{names[j]}: {share:.0%}")
figure.suptitle(
    f"normalised mutual information with the labels: {normalized_mutual_info_score(digits, model.labels_):.2f}"
)
plt.show()
