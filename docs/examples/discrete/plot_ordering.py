"""
Positives above negatives
=========================

What the group ordering loss asks of an anchor, where its gradient goes, and what it makes of scikit-learn's digits.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from throughline.discrete.ordering import GroupOrderingLoss, group_ordering_loss

# %%
# One anchor, one positive at 0.4 and eight negatives from -0.8 to 0.7. The loss pushes hardest at the border between
# the groups: on the positive, and on the negatives just below and above it. Made steeper it turns to the top negative,
# as InfoNCE does at a low temperature.

negative = torch.linspace(-0.8, 0.7, 8)
positive = torch.tensor([0.4])


def gradients(loss_of):
    groups = positive.clone().requires_grad_(), negative.clone().requires_grad_()
    loss_of(*groups).backward()
    gradient = torch.cat([group.grad for group in groups])
    return gradient / gradient.abs().sum()


losses = {
    "group ordering, steepness 1": group_ordering_loss,
    "group ordering, steepness 10": lambda p, n: group_ordering_loss(p, n, steepness=10.0),
    "InfoNCE, temperature 0.1": lambda p, n: -(torch.cat([p, n]) / 0.1).log_softmax(0)[0],
}
figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained", sharey=True)
for axis, (name, loss_of) in zip(axes, losses.items(), strict=True):
    push = -gradients(loss_of)
    axis.bar(negative.numpy(), push[1:].numpy(), width=0.12, color="tab:red", label="negatives")
    axis.bar(positive.numpy(), push[:1].numpy(), width=0.12, color="tab:green", label="positive")
    axis.axhline(0, color="0.5", linewidth=0.8)
    axis.set(title=name, xlabel="similarity to the anchor")
axes[0].set_ylabel("push, share of the whole")
axes[0].legend()

# %%
# Self-supervised: two shifted views of every digit, no labels. Left, the similarities of training images to their other
# view and to their hardest negative, before and after; right, the nearest neighbours of five digits.

pixels, labels = load_digits(return_X_y=True)
images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16
torch.manual_seed(0)


def augment(x):
    shift = torch.randint(-1, 2, (2,)).tolist()
    return (x.roll(shift, (2, 3)) * (0.7 + 0.6 * torch.rand(len(x), 1, 1, 1)) + 0.1 * torch.randn_like(x)).clamp(0, 1)


encoder = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
)
projector = nn.Sequential(
    *(nn.Linear(256, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()),
    *(nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64, affine=False)),  # normalised at the end, as in the paper
)
network = nn.Sequential(encoder, projector)


@torch.no_grad()
def margins():
    one, other = (nn.functional.normalize(network(augment(images[:500])), dim=-1) for _ in range(2))
    hardest = (one @ one.T).fill_diagonal_(-1).amax(1)
    return (one * other).sum(1) - hardest


before = margins()
criterion = GroupOrderingLoss()
optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
for _ in range(8):
    for rows in torch.randperm(len(images)).chunk(7):
        loss = criterion([network(augment(images[rows])) for _ in range(2)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
after = margins()

with torch.no_grad():
    features = nn.functional.normalize(encoder.eval()(images), dim=-1)
nearest = (features @ features.T).fill_diagonal_(-1).topk(6).indices
figure = plt.figure(figsize=(9.5, 3.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
axis = left.subplots()
axis.hist([before.numpy(), after.numpy()], bins=40, label=["before", "after"], histtype="stepfilled", alpha=0.6)
axis.axvline(0, color="0.5", linestyle=":")
axis.set(xlabel="similarity of the other view - hardest negative", yticks=[])
axis.legend()
for row, axes in enumerate(right.subplots(5, 7)):
    for axis, image in zip(axes, [row, *nearest[row]], strict=True):
        axis.imshow(images[image, 0].numpy(), cmap="gray_r", alpha=1.0 if image != row else 0.5)
        axis.set_axis_off()
agree = (torch.tensor(labels)[nearest] == torch.tensor(labels)[:, None]).double().mean()
right.suptitle(f"six neighbours: {agree:.0%} of the same class")
plt.show()
