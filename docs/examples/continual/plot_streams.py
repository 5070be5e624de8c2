"""
What a Si-Blurry stream looks like
==================================

Benchmarks of continual learning often show classes in tidy, disjoint tasks. A Si-Blurry stream is nearer to life: tasks
differ in size, some classes belong to one task alone, others come back. Two ratios say how much of each.
"""

import matplotlib.pyplot as plt
import torch

from throughline.continual.streams import si_blurry

labels = torch.arange(12).repeat_interleave(100)
settings = {
    "disjoint=1, blurry=0: the textbook": {"disjoint": 1.0, "blurry": 0.0},
    "disjoint=0.5, blurry=0.1: the default": {},
    "disjoint=0, blurry=0.5": {"disjoint": 0.0, "blurry": 0.5},
    "disjoint=0, blurry=1: uniform": {"disjoint": 0.0, "blurry": 1.0},
}

# %%
# One row per class, time from left to right, a dashed line where a task ends. Every sample appears exactly once.

figure, axes = plt.subplots(2, 2, figsize=(9, 5.4), sharex=True, sharey=True, layout="constrained")
for axis, (title, options) in zip(axes.flat, settings.items(), strict=True):
    tasks = si_blurry(labels, tasks=4, generator=torch.Generator().manual_seed(5), **options)
    order = labels[torch.cat(tasks)]
    counts = torch.stack([part.bincount(minlength=12) for part in order.chunk(60)], 1).double()
    axis.imshow(
        counts.where(counts > 0, torch.nan).numpy(),
        aspect="auto",
        interpolation="nearest",
        extent=(0, 1200, 11.5, -0.5),
    )
    for end in torch.tensor([len(task) for task in tasks]).cumsum(0)[:-1]:
        axis.axvline(end, color="grey", linestyle="--", linewidth=1)
    axis.set_title(title, fontsize=10)
for axis in axes[1]:
    axis.set_xlabel("samples seen")
for axis in axes[:, 0]:
    axis.set_ylabel("class")

# %%
# Spreading samples moves them between tasks but keeps every task's size, which the dashed lines show: they stand still
# from ``blurry=0.5`` to ``blurry=1``.
