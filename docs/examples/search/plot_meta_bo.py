"""
A search that remembers
=======================

A policy learns from searches on a family of functions, and then searches one that it has not seen: what it believes,
what it wants to try, and how a Gaussian process that starts from nothing does beside it.
"""

import matplotlib.pyplot as plt
import torch

from throughline.search.meta_bo import AcquisitionTrainer, GPOptimizer, NAPOptimizer, NeuralAcquisitionProcess

# %%
# The family: one hill somewhere on the right half of a ripple. Whoever knows the family need not look on the left. In
# training there are as many candidates as later: a policy counts on how close the next best one is.


def family(generator, size=80):
    x = torch.rand(size, 1, generator=generator)
    centre = 0.5 + 0.5 * torch.rand(1, generator=generator)
    height = 0.6 + 0.3 * torch.rand(1, generator=generator)
    y = 0.15 * torch.sin(20 * x[:, 0]).square() + height * torch.exp(-0.5 * ((x[:, 0] - centre) / 0.12).square())
    return x, y.clamp(0, 1)


torch.manual_seed(0)
policy = NeuralAcquisitionProcess(1, d_model=32, num_layers=2, dim_feedforward=64, num_bars=50)
options = {"horizon": 8, "num_candidates": 80, "generator": torch.Generator().manual_seed(0)}
AcquisitionTrainer(policy, family, lr=2e-3, **options).pretrain(120)
trainer = AcquisitionTrainer(
    policy,
    family,
    **options,
    episodes=8,
    epochs=4,
    lr=1e-3,
    gamma=0.9,
    gae_lambda=0.8,
    value_coef=0.1,
    regret_floor=1e-3,
    top_k=40,
    warmup=5,
    total=20,
)
regret = [trainer.step()["regret"] for _ in range(20)]

# %%
# A new member. Shaded is the density that the surrogate predicts, below it the acquisition values; dots are trials, the
# dashed line is what it tries next.

grid, truth = family(torch.Generator().manual_seed(77), size=80)
order = grid[:, 0].argsort()
grid, truth = grid[order], truth[order]
search = NAPOptimizer(policy, grid, horizon=8, y_bounds=(0.0, 1.0))
figure, axes = plt.subplots(2, 3, figsize=(10, 4.4), height_ratios=(3, 1), sharex=True, layout="constrained")
levels = torch.linspace(-0.1, 1.1, 120)
tried, outcomes = [], []
for trial in range(8):
    x = search.ask()
    if trial in (0, 3, 7):
        column = axes[:, (0, 3, 7).index(trial)]
        history = torch.stack(tried) if tried else grid[:0]
        told = torch.tensor(outcomes)
        state = torch.tensor([[max(outcomes, default=0.0), trial / 8]])
        with torch.no_grad():
            out = policy(history[None], told[None], grid[None], state)
            density = policy.bars.log_prob(out.bars[0, :, None].expand(-1, 120, -1), levels.expand(80, -1)).exp()
        column[0].pcolormesh(grid[:, 0], levels, density.T.clamp_max(12), cmap="Blues", shading="nearest")
        column[0].plot(grid[:, 0], truth, color="0.3", linewidth=1)
        column[0].plot([float(p) for p in tried], outcomes, "o", color="tab:orange")
        column[1].plot(grid[:, 0], out.acquisition[0] * policy.temperature, color="tab:blue")
        for axis in column:
            axis.axvline(float(x), color="tab:red", linestyle="--", linewidth=1)
        column[0].set_title(f"after {trial} trials")
    y = float(truth[(grid == x).all(-1)][0])
    search.tell(x, y)
    tried.append(x)
    outcomes.append(y)
axes[0, 0].set_ylabel("outcome")
axes[1, 0].set_ylabel("acquisition")

# %%
# Regret over eight trials, mean of six new members, beside a Gaussian process with expected improvement: experience
# leads early, and a short training leaves the end to the process that is fitted to the very function.

curves = {"policy": [], "Gaussian process": []}
for seed in range(6):
    x, y = family(torch.Generator().manual_seed(1_000 + seed), size=80)
    for name, opt in (
        ("policy", NAPOptimizer(policy, x, horizon=8, y_bounds=(0.0, 1.0))),
        ("Gaussian process", GPOptimizer(x, generator=torch.Generator().manual_seed(seed))),
    ):
        found = []
        for _ in range(8):
            asked = opt.ask()
            opt.tell(asked, float(y[(x == asked).all(-1)][0]))
            found.append(float(y.max()) - opt.best()[1])
        curves[name].append(found)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot(range(1, 21), regret, color="tab:blue")
left.set(xlabel="iteration", ylabel="regret of its own runs", title="training")
for name, found in curves.items():
    right.plot(range(1, 9), torch.tensor(found).mean(0), marker="o", markersize=4, label=name)
right.set(xlabel="trials", ylabel="regret", title="six functions that it has not seen")
right.legend()
plt.show()
