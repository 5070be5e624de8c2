"""
A hole that closes
==================

A network holds two shapes, a ring and a ball, as the zeros of one field. Points of the ball are all that is known; a
loss on the mesh moves the code from the ring to the ball, and on the way the hole closes. No mesh of fixed topology can
do that.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib import cm
from mpl_toolkits.mplot3d.art3d import Poly3DCollection

from throughline.geometry.isosurface import (
    DeepSDF,
    chamfer_distance,
    extract_surface,
    marching_cubes,
    sample_surface,
)

# %%
# Two fields in closed form, and a decoder that learns both of them near their surfaces: one number tells which.


def ring(x):
    return torch.hypot(x[:, :2].norm(dim=1) - 0.5, x[:, 2]) - 0.22


def ball(x):
    return x.norm(dim=1) - 0.6


torch.manual_seed(0)
decoder = DeepSDF(1, (64, 64, 64), skip=(2,), fourier_degree=1)
optimizer = torch.optim.Adam(decoder.parameters(), 5e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, 400)
for _ in range(400):
    x = 0.85 * (2 * torch.rand(1024, 3) - 1)
    loss = sum(
        (decoder(x, torch.tensor([code])).clamp(-0.2, 0.2) - shape(x).clamp(-0.2, 0.2)).abs().mean()
        for code, shape in ((-1.0, ring), (1.0, ball))
    )
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
print(f"mean error of the two fields {loss.item() / 2:.3f}")

# %%
# The target is a cloud of points on the ball. Each step extracts the mesh of the present code, samples it and compares.
# The gradient of that loss goes through the mesh's vertices and the field behind them into the code. The number of
# vertices, less edges, plus faces is Euler's number: 0 for a ring, 2 for a ball.

axis = torch.linspace(-1, 1, 32)
grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
target = sample_surface(*marching_cubes(ball(grid.view(-1, 3)).view(32, 32, 32), spacing=2 / 31, origin=-1.0), 2000)

decoder.requires_grad_(False)
z = torch.tensor([-1.0], requires_grad=True)
optimizer = torch.optim.Adam([z], 0.1)
strip = []
for step in range(40):
    vertices, faces = extract_surface(lambda x: decoder(x, z), resolution=32)
    loss = chamfer_distance(sample_surface(vertices, faces, 2000), target)
    (push,) = torch.autograd.grad(loss, vertices, retain_graph=True)
    strip.append((step, loss.item(), vertices.detach(), faces, push, len(vertices) - len(faces) // 2))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("Euler's number on the way:", [euler for *_, euler in strip])

# %%


def draw(axes, vertices, faces, colors=None):
    """Triangles, lit from above; ``colors`` are values at the vertices."""
    corners = vertices[faces].numpy()
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-12
    light = 0.35 + 0.65 * np.clip(normal @ np.array([0.3, -0.5, 0.81]), 0, 1)
    base = np.tile([0.88, 0.62, 0.38], (len(faces), 1))
    if colors is not None:
        base = cm.RdBu(0.5 + 0.5 * colors[faces].mean(1).numpy())[:, :3]
    axes.add_collection3d(Poly3DCollection(corners, facecolors=np.clip(base * light[:, None], 0, 1)))
    axes.set(xlim=(-0.7, 0.7), ylim=(-0.7, 0.7), zlim=(-0.55, 0.55))
    axes.set_box_aspect((1.4, 1.4, 1.1), zoom=1.4)
    axes.view_init(35, -70)
    axes.set_axis_off()


change = next(i for i, (*_, euler) in enumerate(strip) if euler == 2)
shown = sorted({0, change // 2, change - 1, change, (change + len(strip)) // 2, len(strip) - 1})
figure, axes = plt.subplots(
    1, len(shown), figsize=(2 * len(shown), 2.4), subplot_kw={"projection": "3d"}, layout="constrained"
)
for place, i in zip(axes, shown, strict=True):
    step, loss, vertices, faces, _, euler = strip[i]
    draw(place, vertices, faces)
    place.set_title(f"step {step}\nEuler {euler}, loss {loss:.3f}", fontsize=9)

# %%
# What the loss asks of the field, vertex by vertex: ∂L/∂f = −∂L/∂v · ∇f / |∇f|². Where it is positive (blue) the loss
# falls as f falls and the surface flows outward; where it is negative (red), inward. The code's gradient is the sum of
# this inflow times ∂f/∂z, so the change that the network knows how to make is the one that is made.


def inflow(vertices, push):
    x = vertices.clone().requires_grad_()
    (slope,) = torch.autograd.grad(decoder(x, z.detach()).sum(), x)
    return -(push * slope).sum(1) / slope.square().sum(1).clamp(min=1e-4)


figure, axes = plt.subplots(1, 3, figsize=(8.4, 2.9), subplot_kw={"projection": "3d"}, layout="constrained")
for place, i in zip(axes, (0, change, len(strip) - 1), strict=True):
    step, loss, vertices, faces, push, _ = strip[i]
    values = inflow(vertices, push)
    most = values.abs().quantile(0.95) if i != len(strip) - 1 else most  # noqa: F821 - the last in the scale before it
    draw(place, vertices, faces, (values / most).clamp(-1, 1))
    place.set_title(f"step {step}", fontsize=9)
figure.colorbar(cm.ScalarMappable(cmap="RdBu"), ax=axes, shrink=0.7, ticks=[0, 1]).ax.set_yticklabels(["in", "out"])
plt.show()
