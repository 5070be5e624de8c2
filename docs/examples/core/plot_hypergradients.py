"""
Gradients by a penalty
======================

How does the validation loss change with the penalty of a regression that was fitted under it? A hypergradient answers
without fitting twice. Here the exact answer is known, so that each estimator of `hypergradient` can be seen to
approach it, and the penalty of a real regression can be seen to find its place.
"""

# %%
# A regression on the diabetes data with all products of two features: 65 columns for 220 patients, so that the penalty
# matters. Its solution is known in closed form, and with it the derivative of the validation loss.
import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from throughline.core.bilevel import hypergradient
from throughline.core.implicit import conjugate_gradient

features, target = load_diabetes(return_X_y=True)
features = StandardScaler().fit_transform(PolynomialFeatures(2, include_bias=False).fit_transform(features))
a = torch.from_numpy(features)
b = torch.from_numpy((target - target.mean()) / target.std())
order = torch.randperm(len(a), generator=torch.Generator().manual_seed(0))
fit, valid = order[:220], order[220:]


def inner(x, y):
    """The training loss: mean squared error and a penalty of e^x."""
    return (a[fit] @ y - b[fit]).square().mean() / 2 + x.exp() * y.square().sum() / 2


def outer(x, y):
    """The validation loss; the penalty enters through the weights alone."""
    return (a[valid] @ y - b[valid]).square().mean() / 2


def solution(x):
    gram = a[fit].T @ a[fit] / len(fit) + x.exp() * torch.eye(a.shape[1], dtype=a.dtype)
    return torch.linalg.solve(gram, a[fit].T @ b[fit] / len(fit))


# %%
# At a penalty of 1, the derivative through the closed form, and what each estimator makes of it with more and more
# steps. Conjugate gradients need the fewest. From the solution, on a quadratic, a Neumann series and unrolled descent
# are one sum, a term apart: their curves almost coincide.
x = torch.tensor(0.0, dtype=a.dtype, requires_grad=True)
(exact,) = torch.autograd.grad(outer(x, solution(x)), x)
y = solution(x).detach()
lr = 1 / (torch.linalg.matrix_norm(a[fit], 2).item() ** 2 / len(fit) + 1)
counts = [1, 2, 4, 8, 16, 32, 64, 128]
styles = {"cg": "o-", "neumann": "s-", "unrolled": "x:"}
picture, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
for method, options in {"cg": {"tol": 1e-12}, "neumann": {"lr": lr}, "unrolled": {"lr": lr}}.items():
    found = [hypergradient(outer, inner, x, y, method=method, steps=n, **options) for n in counts]
    axis.loglog(counts, [((f - exact) / exact).abs().item() for f in found], styles[method], label=method)
one = hypergradient(outer, inner, x, y, method="identity", lr=lr)
axis.axhline(((one - exact) / exact).abs().item(), ls="--", color="0.6", label="identity")
axis.set(xlabel="steps", ylabel="relative error", title="Estimates of one derivative")
axis.legend(frameon=False)

# %%
# Any optimizer takes the estimate as a gradient. The penalty descends from either side on the exact validation loss.
# Nothing is factorised on the way: the regression too is solved by products alone, each time from the solution before.


def products(x):
    return lambda p: a[fit].T @ (a[fit] @ p) / len(fit) + x.exp() * p


grid = torch.linspace(-8, 3, 80, dtype=a.dtype)
picture, axis = plt.subplots(figsize=(6.5, 3.6), layout="constrained")
axis.plot(grid, [outer(g, solution(g)) for g in grid], color="0.6", label="exact validation loss")
for start, colour in ((-7.5, "tab:blue"), (2.5, "tab:orange")):
    x, path = torch.tensor(start, dtype=a.dtype), []
    optimizer, y = torch.optim.Adam([x], lr=0.5), None
    for _ in range(40):
        y = conjugate_gradient(products(x), a[fit].T @ b[fit] / len(fit), init=y, steps=200, tol=1e-8)
        path.append((x.item(), outer(x, y).item()))
        x.grad = hypergradient(outer, inner, x, y, steps=10)
        optimizer.step()
    axis.plot(*zip(*path, strict=True), ".-", color=colour, label=f"from {start}")
axis.set(xlabel="log penalty", ylabel="validation loss", title="A penalty tuned by gradient")
axis.legend(frameon=False)
