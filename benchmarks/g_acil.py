"""Recursive ridge regression beside scikit-learn's Ridge and beside the plain recursion: 4,096 × 1,000, 10 classes."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import sklearn
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.continual.analytic import AnalyticHead
from throughline.core.ridge import RecursiveRidge

N, D, C, BATCH, READ = 4096, 1000, 10, 64, 16
FLOAT = 8  # bytes


def data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(C, (N,), generator=draw)
    return torch.randn(N, D, dtype=torch.float64, generator=draw), torch.eye(C, dtype=torch.float64)[labels]


def stream(form: Literal["information", "covariance"], x: Tensor, y: Tensor, read: int) -> Tensor:
    learner = RecursiveRidge(D, C, form=form)
    for number, (rows, targets) in enumerate(zip(x.split(BATCH), y.split(BATCH), strict=True), start=1):
        learner.update(rows, targets)
        if number % read == 0:
            _ = learner.weight
    return learner.weight


def plain(x: Tensor, y: Tensor) -> Tensor:
    """Equations (2) and (3) as printed, with an explicit inverse."""
    inverse = torch.eye(D, dtype=x.dtype)
    weight = x.new_zeros(D, C)
    eye = torch.eye(BATCH, dtype=x.dtype)
    for rows, targets in zip(x.split(BATCH), y.split(BATCH), strict=True):
        inner = torch.inverse(eye + rows @ inverse @ rows.mT)
        inverse = inverse - inverse @ rows.mT @ inner @ rows @ inverse
        weight = weight - inverse @ rows.mT @ (rows @ weight) + inverse @ rows.mT @ targets
    return weight


def information() -> dict[str, Callable[[], Any]]:
    x, y = data()
    rows, targets = x.numpy(), y.numpy()
    peer = Ridge(alpha=1.0, solver="cholesky", fit_intercept=False)

    def agree() -> None:
        expected = torch.from_numpy(peer.fit(rows, targets).coef_.T)
        torch.testing.assert_close(stream("information", x, y, READ), expected, rtol=1e-9, atol=1e-12)

    return {
        "ours": lambda: stream("information", x, y, READ),
        "peer": lambda: peer.fit(rows, targets),
        "agree": agree,
    }


def covariance() -> dict[str, Callable[[], Any]]:
    x, y = data()

    def agree() -> None:
        torch.testing.assert_close(stream("covariance", x, y, 1), plain(x, y), rtol=1e-7, atol=1e-10)

    return {"ours": lambda: stream("covariance", x, y, 1), "peer": lambda: plain(x, y), "agree": agree}


def one_row() -> dict[str, Callable[[], Any]]:
    x, _ = data()
    head = AnalyticHead(D, expansion=None, penalty=1.0, form="covariance").partial_fit(x[:C], torch.arange(C))
    label = torch.tensor([3])

    def agree() -> None:
        ours, theirs = (
            AnalyticHead(D, expansion=None, penalty=1.0, form=form) for form in ("covariance", "information")
        )
        for row in range(3):
            for learner in (ours, theirs):
                learner.partial_fit(x[row : row + 1], label)
        torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-9, atol=1e-12)

    return {"ours": lambda: head.partial_fit(x[:1], label), "agree": agree}


CASES = [
    Case(
        name=f"information form, {N} × {D} in batches of {BATCH}, a read every {READ}",
        setup=information,
        peer=f"scikit-learn {sklearn.__version__} Ridge, Cholesky, all rows at once",
        bar=3.0,
        work="less",
        flops=N * D * (D + 2 * C) + N / BATCH / READ * (D**3 / 3 + 2 * D**2 * C),
        bytes=FLOAT * (N * (D + C) + D * (D + C)),
        dtype=torch.float64,
    ),
    Case(
        name=f"covariance form, {N} × {D} in batches of {BATCH}, a read after each",
        setup=covariance,
        peer="the plain recursion with torch.inverse, as printed",
        bar=0.3,
        flops=N * D * (3 * D + BATCH + 4 * C),
        bytes=FLOAT * (N * (D + C) + 2 * N / BATCH * D**2),
        dtype=torch.float64,
    ),
    Case(
        name=f"partial_fit of one row, covariance form, d = {D}",
        setup=one_row,
        bar_seconds=3e-3,
        flops=D * (3 * D + 4 * C),
        bytes=FLOAT * 2 * D**2,
        dtype=torch.float64,
    ),
]


def learning(form: Literal["information", "covariance"], width: int) -> Callable[[], Any]:
    learner = RecursiveRidge(width, C, form=form)
    rows, targets = torch.ones(32, width, dtype=torch.float64), torch.ones(32, C, dtype=torch.float64)

    def call() -> Tensor:
        learner.update(rows, targets)
        return learner.weight

    return call


GROWTH = [
    Growth(
        "information form, 32 rows and a read",
        "features d",
        256,
        partial(learning, "information"),
        time=3,
        memory=2,
        step=2,
    ),
    Growth(
        "covariance form, 32 rows and a read",
        "features d",
        256,
        partial(learning, "covariance"),
        time=2,
        memory=2,
        step=2,
    ),
]
