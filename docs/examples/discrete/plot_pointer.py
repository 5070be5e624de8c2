"""
Pointing at the corners of a hull
=================================

A pointer network learns convex hulls of 4 to 7 points in seconds. Where it points, step by step, and what it does with
twice as many points.
"""

import matplotlib.pyplot as plt
import torch

from throughline.data.planar import hull_scores, make_planar
from throughline.discrete.pointer import PointerNetwork

# %%
# Fresh instances at every step, and the learning rate falls to zero. The loss first stays where it is, until the
# network can tell one point from another.

steps, losses = 1200, []
draw = torch.Generator().manual_seed(0)
torch.manual_seed(0)
net = PointerNetwork(hidden_size=48, init_range=0.3)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
for _ in range(steps):
    batch = make_planar("hull", 64, (4, 7), generator=draw)
    loss = -net.log_prob(batch.points, batch.targets, lengths=batch.lengths).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
    optimizer.step()
    schedule.step()
    losses.append(loss.item())

# %%
# One instance of seven points: the target in its order on the left, the pointer's distribution on the right. A row is a
# step, and the squares are the target.

one = make_planar("hull", 1, 7, generator=draw)
points, corners = one.points[0].numpy(), [i for i in one.targets[0].tolist() if i >= 0]
with torch.no_grad():
    p = net(one.points, one.targets)[0].softmax(-1).numpy()

figure, (curve, left, right) = plt.subplots(1, 3, figsize=(10.5, 3.1), layout="constrained", width_ratios=(3, 3, 4))
curve.plot(range(20, steps + 1, 20), torch.tensor(losses).unfold(0, 20, 20).mean(-1).numpy(), color="tab:blue")
curve.set(xlabel="step", ylabel="nats a hull")
left.plot(*points.T, "o", color="0.5")
left.plot(*points[[*corners, corners[0]]].T, color="tab:orange")
for index, xy in enumerate(points.tolist()):
    left.annotate(str(index), xy, (4, 4), textcoords="offset points")
left.set(aspect="equal", xticks=[], yticks=[])
image = right.imshow(p[: len(corners) + 1], vmin=0, vmax=1, aspect="auto")
right.plot([*corners, 7], range(len(corners) + 1), "s", color="white", markerfacecolor="none", markersize=12)
right.set_xticks(range(8), [*map(str, range(7)), "end"])
right.set(xlabel="input point", ylabel="step")
figure.colorbar(image, ax=right, label="probability")

# %%
# The same network on more points than it was trained with. Exactly right it is less and less often, but what it misses
# are flat corners: the area stays covered.

sizes = range(4, 15)
scores = []
for n in sizes:
    test = make_planar("hull", 500, n, generator=draw)
    found = net.decode(test.points, beam_size=2, constraint="polygon").sequences
    scores.append(hull_scores(test.points, found, test.targets))

figure, axis = plt.subplots(figsize=(6, 3.2), layout="constrained")
axis.axvspan(3.75, 7.25, color="0.85", label="sizes of training")
for name, color in (("area", "tab:green"), ("accuracy", "tab:orange"), ("invalid", "tab:red")):
    axis.plot(sizes, [score[name] for score in scores], "o-", color=color, label=name)
axis.set(xlabel="points", ylim=(0, 1.02))
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
