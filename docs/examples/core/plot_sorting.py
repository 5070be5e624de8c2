"""
Sorting that lets gradients through
===================================

A sorting network compares and swaps. When each comparator mixes its wires instead, by the probability that they are in
order, the sort becomes smooth, and the permutation a doubly stochastic matrix.
"""

import matplotlib.pyplot as plt
import torch

from throughline.core.sorting import relaxed_sort, sorting_network

# %%
# The two networks over eight wires. Time runs to the right; every vertical bar is a comparator.

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
for axis, kind in zip(axes, ("odd_even", "bitonic"), strict=True):
    layers = sorting_network(8, kind)
    for wire in range(8):
        axis.axhline(wire, color="0.8", linewidth=0.8, zorder=0)
    for depth, layer in enumerate(layers):
        for place, (low, high) in enumerate(layer):
            x = depth + 0.13 * place
            axis.plot([x, x], [low, high], "o-", color="tab:blue", markersize=3, linewidth=1)
    axis.set(title=f"{kind}: {len(layers)} layers, {sum(map(len, layers))} comparators", xticks=[], yticks=range(8))
    axis.invert_yaxis()

# %%
# The matrix of one permutation, from soft to hard. Row i says where the i-th smallest value comes from. The relaxed
# values, P x, move from the common mean to the sorted values.

x = torch.randn(12, generator=torch.Generator().manual_seed(3))
figure, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for axis, steepness in zip(axes, (1, 10, 100, 1000), strict=True):
    order = relaxed_sort(x, steepness=steepness)
    axis.imshow(order.matrix().numpy(), vmin=0, vmax=1, cmap="magma")
    error = (order.values - x.sort().values).abs().max()
    axis.set(title=f"steepness {steepness}\nvalues off by {error:.2f}", xlabel="element", xticks=[], yticks=[])
axes[0].set_ylabel("sorted position")

# %%
# What the gradient does: pull the third largest of twelve numbers up to 2. Neighbours in rank feel it as well, the
# others do not; this is what a hard sort cannot do.

x = torch.linspace(-1.5, 1.5, 12).roll(5).requires_grad_()
paths = []
optimizer = torch.optim.SGD([x], lr=0.2)
for _ in range(60):
    paths.append(x.detach().clone())
    loss = (relaxed_sort(x, steepness=20.0).values[-3] - 2).square()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

figure, axis = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
axis.plot(torch.stack(paths).numpy(), linewidth=1.4)
axis.axhline(2, color="0.5", linestyle=":")
axis.set(xlabel="gradient step", ylabel="value", title="lifting the third largest to 2")
plt.show()
