"""The metric loss against cross-entropy on the same logits, and the time of one fit of the classifier."""

from collections.abc import Callable
from typing import Any

import torch
from sklearn.datasets import make_classification
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.discrete.confusion import MetricClassifier, metric_loss

N = 1_000_000


def loss() -> dict[str, Callable[[], Any]]:
    draw = torch.Generator().manual_seed(0)
    logits = (2 * torch.randn(N, generator=draw)).requires_grad_()
    target = (torch.rand(N, generator=draw) < 0.2).float()

    def ours() -> Tensor | None:
        logits.grad = None
        metric_loss(logits, target, "f1").backward()
        return logits.grad

    def peer() -> Tensor | None:
        logits.grad = None
        F.binary_cross_entropy_with_logits(logits, target).backward()
        return logits.grad

    def agree() -> None:
        # another function than the peer's, so what it must agree with is eqs. 1 and 4 under autograd in float64
        z = logits.detach().double().requires_grad_()
        y = target.double()
        amplified = (73.0 * (z.sigmoid() - 0.5)).sigmoid()
        tp, fp, fn = (y * amplified).sum(), ((1 - y) * amplified).sum(), (y * (1 - amplified)).sum()
        expected = 1 - 2 * tp / (2 * tp + fp + fn)
        expected.backward()
        torch.testing.assert_close(metric_loss(logits, target, "f1").double(), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(ours().double(), z.grad, rtol=1e-3, atol=1e-12)  # type: ignore[union-attr]

    return {"ours": ours, "peer": peer, "agree": agree}


def fit() -> dict[str, Callable[[], Any]]:
    x, y = make_classification(5_000, 20, weights=[0.9, 0.1], random_state=0)

    def ours() -> MetricClassifier:
        return MetricClassifier().fit(x, y)

    def agree() -> None:
        assert f1_score(y, MetricClassifier(max_iter=100).fit(x, y).predict(x)) > 0.6

    return {"ours": ours, "agree": agree}


CASES = [
    Case(
        name="metric_loss F1, 1,000,000 logits, forward and backward",
        setup=loss,
        peer=f"F.binary_cross_entropy_with_logits of torch {torch.__version__.split('+')[0]}",
        bar=4.0,
        work="less",
        flops=40.0 * N,  # three exponentials and a few products, each way
        bytes=4.0 * 5 * N,  # logits and targets read twice, the gradient written
    ),
    Case(name="MetricClassifier().fit, 5,000 × 20", setup=fit, bar_seconds=2.0, dtype=torch.float64),
]


def growing(rows: int) -> Callable[[], Any]:
    logits, target = torch.zeros(rows, requires_grad=True), torch.ones(rows)

    def call() -> Tensor:
        return torch.autograd.grad(metric_loss(logits, target, "f1"), logits)[0]

    return call


GROWTH = [Growth("metric_loss F1, forward and backward", "rows", 2**18, growing, time=1, memory=1)]
