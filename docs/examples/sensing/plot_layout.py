"""
Where should 48 pixels go?
==========================

A sensor of 6 × 8 pixels looks at handwritten digits (scikit-learn's, 8 × 8) that stand somewhere near the middle of a
larger scene. Its pixel grid is trained together with the classifier behind it, and we watch where the pixels go.
"""

# %%
# The scenes: every digit on a dark ground of 24 × 32 pixels, shifted at random by a few pixels.
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from throughline.data import digits, stratified_split
from throughline.sensing.layout import SensorLayout

torch.manual_seed(0)
small, labels, _ = digits()
scenes = torch.zeros(len(small), 1, 24, 32)
for scene, digit, (dy, dx) in zip(scenes, small, torch.randint(-2, 3, (len(small), 2)).tolist(), strict=True):
    scene[:, 8 + dy : 16 + dy, 12 + dx : 20 + dx] = digit
train, test = (torch.as_tensor(rows) for rows in stratified_split(labels, 0, test=0.3))

# %%
# Three sensors with the same number of pixels. The uniform one is a layout whose parameter is frozen at zero.
sensors = {
    "uniform": SensorLayout((6, 8)).requires_grad_(False),
    "rectangular": SensorLayout((6, 8)),
    "curvilinear": SensorLayout((6, 8), shape="curvilinear"),
}
history, accuracy = {}, {}
for name, sensor in sensors.items():
    torch.manual_seed(1)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(
        [{"params": network.parameters(), "lr": 1e-2}, {"params": sensor.parameters(), "lr": 3e-2}]
    )
    path = []
    for _ in range(15):
        for rows in train[torch.randperm(len(train))].split(64):
            loss = F.cross_entropy(network(sensor(scenes[rows])), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            path.append(sensor.curvature.tolist())
    history[name] = np.array(path)
    network.eval()
    with torch.no_grad():
        accuracy[name] = (network(sensor(scenes[test])).argmax(-1) == labels[test]).float().mean().item()
print({name: round(value, 3) for name, value in accuracy.items()})

# %%
# The grids over the mean scene, and below each what the sensor sees of one digit, pixels at their true place and size.
# Both learned sensors crowd the place where the digits are; the curvilinear one cannot move its corners.
figure, axes = plt.subplots(2, 3, figsize=(9, 4.8), layout="constrained")
for (top, bottom), (name, sensor) in zip(axes.T, sensors.items(), strict=True):
    fine = SensorLayout(
        (48, 64), shape=sensor.shape, curvature=tuple(sensor.curvature.tolist())
    )  # the same bend in small steps, so that curved sides look curved
    corners = fine.vertices().detach().numpy()
    top.imshow(scenes.mean((0, 1)), extent=(-1, 1, 1, -1), cmap="gray")
    for lines in (corners[::8], corners[:, ::8].transpose(1, 0, 2)):
        top.plot(lines[..., 0].T, lines[..., 1].T, color="tab:orange", linewidth=1)
    top.set_title(f"{name}: {accuracy[name]:.1%} right")
    seen = sensor(scenes[test[:1]])[0, 0].detach().numpy()
    bottom.pcolormesh(corners[..., 0], corners[..., 1], seen.repeat(8, 0).repeat(8, 1), cmap="gray")
    for axis in (top, bottom):
        axis.set(xlim=(-1, 1), ylim=(1, -1), xticks=[], yticks=[], aspect=24 / 32)

# %%
# How the curvature got there. The layout has a learning rate of its own: with a much smaller one it would hardly leave
# zero, which would look as if the uniform sensor were the best.
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name in ("rectangular", "curvilinear"):
    for component, style in ((0, "-"), (1, "--")):
        axis.plot(history[name][:, component], style, label=f"{name}, {'xy'[component]}")
axis.set(xlabel="step", ylabel="curvature")
axis.legend()
plt.show()
