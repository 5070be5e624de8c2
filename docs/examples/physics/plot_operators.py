"""
A plate that a network bends
============================

An operator network learns, from some hundred solutions, how a plate with a hole answers to a load. Its solutions are
finite-element functions: zero where the plate is held, to the last bit, and with a value anywhere.
"""

import matplotlib.pyplot as plt
import numpy as np
import skfem
import torch
from scipy.sparse.linalg import splu
from skfem.models.poisson import laplace

from throughline.physics.operators import MultigridProcessor, OperatorNetwork, hierarchy

# %%
# A square with a hole, held at its outer edge. Three meshes, each the refinement of the one before; what the
# network knows crosses the plate on the smallest.

square = skfem.MeshTri.init_sqsymmetric().refined(1)
hole = np.abs(square.p[:, square.t].mean(1) - 0.5).max(0) < 0.25
mesh = square.remove_elements(np.flatnonzero(hole))
spaces = hierarchy(mesh, 3, dirichlet=lambda x: np.abs(x - 0.5).max(0) > 0.49)
space = spaces[-1]

# %%
# Loads are a few waves; scikit-fem solves −Δu = f for each of them.

torch.manual_seed(0)
x = space.coordinates.float()
waves, phases = 6 * torch.randn(160, 3, 2), 6 * torch.rand(160, 3, 1)
loads = torch.cos(waves @ x.T + phases).sum(1)
stiffness, free = laplace.assemble(space.basis).tocsc(), np.flatnonzero(~space.constrained)
solutions = torch.zeros_like(loads)
right = (space.mass @ loads.T.double()).numpy()
solutions[:, free] = torch.from_numpy(splu(stiffness[free][:, free]).solve(right[free]).T).float()
scale = solutions.std()

# %%
# Training: the relative L² error, through the mass matrix. Units are chosen inside of the processor, so that what is
# held stays held.


class InUnits(torch.nn.Module):
    def __init__(self, processor):
        super().__init__()
        self.processor = processor

    def forward(self, f):
        return self.processor(f) * scale


net = OperatorNetwork(space, space, InUnits(MultigridProcessor(spaces, hidden=24)))
optimizer = torch.optim.AdamW(net.parameters(), 8e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, 250)
losses = []
for _ in range(250):
    rows = torch.randint(140, (8,))
    loss = (space.norm(net(loads[rows]) - solutions[rows]) / space.norm(solutions[rows])).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())
with torch.no_grad():
    found = net(loads[140:])
errors = space.norm(found - solutions[140:]) / space.norm(solutions[140:])
print(f"error on new loads {errors.mean():.3f}, at the held edge {found[:, space.constrained].abs().max():.1f}")

# %%
# A load that it has not seen. The error is shown in the units of the solution.

i = int(errors.argsort()[len(errors) // 2])  # the median one
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
most = float(solutions[140 + i].abs().max())
for axis, values, title, cmap, limit in (
    (axes[0], loads[140 + i], "load", "cividis", 3),
    (axes[1], solutions[140 + i], "finite elements", "RdBu_r", most),
    (axes[2], found[i], "network", "RdBu_r", most),
    (axes[3], found[i] - solutions[140 + i], f"error ({errors[i]:.1%} in L²)", "RdBu_r", most),
):
    drawn = axis.tripcolor(*space.mesh.p, space.mesh.t.T, values, cmap=cmap, vmin=-limit, vmax=limit, shading="gouraud")
    axis.set_aspect("equal")
    axis.set_axis_off()
    axis.set_title(title, fontsize=10)
    if title != "load":
        axis.triplot(*mesh.p, mesh.t.T, color="0.6", linewidth=0.3)
figure.colorbar(drawn, ax=axes, shrink=0.8)

# %%
# Along a line across the plate, at points that are no nodes.

line = torch.stack([torch.linspace(0, 1, 400), torch.full((400,), 0.2)], 1)
figure, axis = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
for c, label, style in ((solutions[140 + i], "finite elements", "-"), (found[i], "network", "--")):
    axis.plot(line[:, 0], space.evaluate(c, line), style, label=label)
axis.set(xlabel="x, at y = 0.2", ylabel="deflection")
axis.legend(frameon=False)
plt.show()
