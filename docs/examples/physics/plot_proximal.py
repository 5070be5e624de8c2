"""
A prior that can be looked at
=============================

A denoiser that is the exact proximal operator of something: what that is, after training with three losses.
"""

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from throughline.physics.proximal import (
    InputConvexMLP,
    LearnedProximalNetwork,
    keep_convex,
    pnp_pgd,
    proximal_matching_loss,
)

# %%
# The data are Laplacian, the noise has deviation 1. Then −log p is the absolute value, and its proximal operator the
# soft threshold. l2 and l1 find the mean and the median of the posterior; proximal matching goes for its mode.

torch.manual_seed(0)
laplace = torch.distributions.Laplace(0.0, 1.0)
stages = {0: None, 400: 0.7, 700: 0.5, 950: 0.35}  # γ from these steps on; l1 before


def trained(loss_of):
    torch.manual_seed(0)
    f = LearnedProximalNetwork(InputConvexMLP(1, 32, depth=2))
    optimizer = torch.optim.Adam(f.parameters(), 3e-3)
    keep_convex(f, optimizer)
    gamma = None
    for step in range(1200):
        gamma = stages.get(step, gamma)
        clean = laplace.sample((256, 1))
        loss = loss_of(f(clean + torch.randn(256, 1)), clean, gamma)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return f


def matching(output, clean, gamma):
    return F.l1_loss(output, clean) if gamma is None else proximal_matching_loss(output, clean, gamma=gamma)


networks = {
    "l2": trained(lambda output, clean, gamma: F.mse_loss(output, clean)),
    "l1": trained(lambda output, clean, gamma: F.l1_loss(output, clean)),
    "proximal matching": trained(matching),
}

# %%
# R comes out of the network itself, by inverting it: no table, no fit.

y, x = torch.linspace(-3, 3, 201)[:, None].double(), torch.linspace(-2, 2, 101)[:, None].double()
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for (name, f), color in zip(networks.items(), ("0.55", "tab:blue", "tab:orange"), strict=True):
    f.double()
    with torch.no_grad():
        left.plot(y[:, 0], f(y)[:, 0], color=color, label=name)
        prior = f.prior(x)
        right.plot(x[:, 0], prior - prior[50], color=color, label=name)
left.plot(y[:, 0], y[:, 0].sign() * (y[:, 0].abs() - 1).clamp(min=0), "k--", linewidth=1, label="soft threshold")
right.plot(x[:, 0], x[:, 0].abs(), "k--", linewidth=1, label="−log p")
left.set(title="what the denoiser does", xlabel="noisy", ylabel="denoised")
right.set(title="what it holds for likely", xlabel="x", ylabel="R(x) − R(0)")
left.legend()
right.legend()

# %%
# As a proximal operator it minimises: 200 unknowns, most of them zero, from 120 mixtures of them. The learned map
# stands where the soft threshold would, and the objective falls at every step.

f = networks["proximal matching"]
truth = 3 * laplace.sample((1, 200)).double()
truth[truth.abs() < 4] = 0
mixing = torch.randn(120, 200, dtype=torch.float64)
mixing = mixing / torch.linalg.matrix_norm(mixing, 2)
observed = truth @ mixing.T
objective = []


def prox(v):
    inputs = v.T  # every coordinate is a sample of the one-dimensional network
    moved = f(inputs).T
    objective.append(float((moved @ mixing.T - observed).square().sum() / 2 + f.prior_at_output(inputs).sum()))
    return moved


result = pnp_pgd(observed, lambda v: v @ mixing.T, lambda r: r @ mixing, prox, max_iter=200, tol=1e-6)
figure, axis = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
axis.semilogy([value - objective[-1] for value in objective[:-1]])
axis.set(xlabel="iteration", ylabel="½‖Ax − y‖² + R(x), above its last value")
plt.show()
