"""
A student of its own past
=========================

What a vote is, and what three earlier states of a network do to its training: on scikit-learn's digits, few of them and
some with wrong labels, predictions swing less from epoch to epoch and the loss around the weights is flatter.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from throughline.search.darts import search
from throughline.search.self_distillation import (
    SelfDistillationSearcher,
    VotingTeachers,
    distillation_loss,
    dominant_eigenvalue,
    sharpness,
    vote,
)
from throughline.search.supernet import MixedOp, arch_parameters, weight_parameters

# %%
# Three states of a network look at one image and disagree. Their vote is the mean of the probabilities; a higher
# temperature, in the teachers and in the student alike, says more about the classes that come second.

torch.manual_seed(0)
logits = torch.tensor([[4.0, 2.5, 0.0, -1.0], [3.0, 3.5, 0.5, -1.0], [4.5, 1.0, 1.5, -1.0]])
figure, axes = plt.subplots(1, 2, figsize=(7.6, 2.8), layout="constrained", sharey=True)
for axis, temperature in zip(axes, (1.0, 4.0), strict=True):
    teachers = (logits / temperature).softmax(-1)
    for k, teacher in enumerate(teachers):
        places = [c + 0.2 * (k - 1.5) for c in range(4)]
        axis.bar(places, teacher.tolist(), 0.18, color="0.75", label="teachers" if k == 0 else None)
    axis.bar([c + 0.3 for c in range(4)], vote(teachers).tolist(), 0.18, color="tab:orange", label="vote")
    axis.set(title=f"temperature {temperature:g}", xlabel="class", xticks=range(4))
axes[0].set_ylabel("probability")
axes[0].legend()

# %%
# The same network, twice: on labels alone, and with three teachers, an epoch apart. A tenth of the training labels are
# wrong.

pixels, labels = load_digits(return_X_y=True)
images, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
order = torch.randperm(len(images))
train, test = order[:500], order[500:]
targets = labels[train].clone()
targets[:50] = torch.randint(10, (50,))


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def trained(strength, epochs=40):
    """Test loss, sharpness and how far predictions moved, epoch by epoch."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    teachers = VotingTeachers(model, teachers=3, interval=10)
    rows, before = [], None
    for _ in range(epochs):
        model.train()
        for rows_of_batch in torch.randperm(500).split(50):
            x, y = images[train][rows_of_batch], targets[rows_of_batch]
            output = model(x)
            loss = F.cross_entropy(output, y)
            if len(teachers) and strength:
                q = teachers.predict(x, temperature=4.0)
                loss = loss + strength * distillation_loss(output, q, temperature=4.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            teachers.update()
        held = images[test], labels[test]
        rise = sharpness(model, loss_of, held)
        with torch.no_grad():
            model.eval()
            said = model(held[0]).softmax(-1)
        swing = float("nan") if before is None else (said - before).abs().sum(1).mean() / 2
        rows.append([F.nll_loss(said.log(), held[1]), rise, swing])
        before = said
    return torch.tensor(rows)


courses = {"labels alone": trained(0.0), "with three teachers": trained(1.0)}
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3), layout="constrained")
titles = ("test loss", "sharpness of the test loss", "how far predictions moved")
for i, (axis, title) in enumerate(zip(axes, titles, strict=True)):
    for (name, course), color in zip(courses.items(), ("0.5", "tab:orange"), strict=True):
        axis.plot(course[:, i], color=color, label=name)
    axis.set(title=title, xlabel="epoch", ylim=(0, None))
axes[0].legend()

# %%
# A search has its teachers in the searcher. Three layers choose among four operations each; one half of the training
# rows is for the weights, the other for the architecture. The largest eigenvalue of the Hessian in the architecture
# says how sharply the validation loss bends there. On this problem the teachers make the supernet a little more
# accurate and the loss no flatter: whether they flatten yours is seen by the same measure.


def layer():
    norm = nn.BatchNorm1d(64)
    wide = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
    narrow = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 64))
    return MixedOp({"wide": wide, "narrow": narrow, "norm": norm, "skip": nn.Identity()})


def bends(strength, epochs=40):
    """The eigenvalue, and the accuracy of the supernet on the architecture's half, epoch by epoch."""
    torch.manual_seed(2)
    net = nn.Sequential(layer(), layer(), layer(), nn.Linear(64, 10))
    searcher = SelfDistillationSearcher(
        net,
        lambda logits, batch: F.cross_entropy(logits, batch[1]),
        torch.optim.SGD(weight_parameters(net), 0.05, momentum=0.9),
        torch.optim.Adam(arch_parameters(net), 0.01, betas=(0.5, 0.999)),
        interval=5,
        strength=strength,
    )
    batches = [(images[train][i : i + 50], targets[i : i + 50]) for i in range(0, 500, 50)]
    half = images[train][250:], targets[250:]
    rows = []

    def look(epoch, means):
        value = dominant_eigenvalue(net, loss_of, half, iterations=20, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            rows.append([value.item(), (net(half[0]).argmax(1) == half[1]).float().mean().item()])

    search(searcher, batches[:5], batches[5:], epochs=epochs, on_epoch=look)
    return torch.tensor(rows)


found = {"DARTS": bends(0.0), "with three teachers": bends(1.0)}
figure, axes = plt.subplots(1, 2, figsize=(7.6, 3), layout="constrained")
for i, (axis, title) in enumerate(zip(axes, ("dominant eigenvalue", "accuracy of the supernet"), strict=True)):
    for (name, rows), color in zip(found.items(), ("0.5", "tab:orange"), strict=True):
        axis.plot(rows[:, i], color=color, label=name)
    axis.set(title=title, xlabel="epoch")
axes[0].legend()
plt.show()
