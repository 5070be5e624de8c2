"""
Ridge regression over a stream
==============================

A recursive learner sees each row once and forgets it. Three ways to write it down give one answer on paper; on features
of low rank they do not. We stream 2,048 rows of rank 30 in 300 columns and compare the predictions with an SVD.
"""

import matplotlib.pyplot as plt
import torch

from throughline.core.ridge import RecursiveRidge

penalty, batch = 1e-3, 64
generator = torch.Generator().manual_seed(0)


def normal(*size):
    return torch.randn(size, dtype=torch.float64, generator=generator)


x, y = normal(2048, 30) @ normal(30, 300), normal(2048, 5)

# %%
# What every prefix of the stream should predict, from a singular value decomposition of that prefix.


def exact(rows, targets):
    u, s, _ = torch.linalg.svd(rows, full_matrices=False)
    return u @ ((s**2 / (s**2 + penalty))[:, None] * (u.mT @ targets))


# %%
# The recursion as papers print it: it multiplies a freshly subtracted matrix by the data again.


class Plain:
    def __init__(self):
        self.inverse = torch.eye(300, dtype=torch.float64) / penalty
        self.weight = torch.zeros(300, 5, dtype=torch.float64)

    def update(self, x, y):
        r = self.inverse
        inner = torch.inverse(torch.eye(len(x), dtype=x.dtype) + x @ r @ x.mT)
        self.inverse = r - r @ x.mT @ inner @ x @ r
        self.weight = self.weight + self.inverse @ x.mT @ (y - x @ self.weight)


# %%
# Both forms of :class:`~throughline.core.ridge.RecursiveRidge` and the plain recursion, on the same batches.

learners = {
    "plain recursion": Plain(),
    "covariance form": RecursiveRidge(300, penalty=penalty, form="covariance"),
    "information form": RecursiveRidge(300, penalty=penalty),
}
errors = {name: [] for name in learners}
seen = range(batch, len(x) + 1, batch)
for end in seen:
    truth = exact(x[:end], y[:end])
    for name, learner in learners.items():
        learner.update(x[end - batch : end], y[end - batch : end])
        errors[name].append((x[:end] @ learner.weight - truth).norm() / truth.norm())

figure, axis = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, values in errors.items():
    axis.plot(seen, values, label=name)
axis.set(yscale="log", xlabel="rows seen", ylabel="relative error of the predictions")
axis.legend(loc=(0.66, 0.2))

# %%
# The plain recursion has lost most of its digits at once. The gain form keeps what a matrix of this condition allows,
# and the information form, which solves from the accumulated sums, is exact to rounding: it is the default.
#
# Being sums, two learners also merge into one that has seen the rows of both.

here = RecursiveRidge(300, penalty=penalty).update(x[:700], y[:700])
there = RecursiveRidge(300, penalty=penalty).update(x[700:], y[700:])
merged = x @ here.merge(there).weight
print(f"merged against all at once: {(merged - exact(x, y)).norm() / merged.norm():.1e}")
