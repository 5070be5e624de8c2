"""Metrics of soft confusion matrices as losses: limits, the paper's pitfalls, and what is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from tests.discrete.confusion.samples import Y, Z, eq_1, hard
from torch.autograd import gradcheck

from throughline.discrete.confusion import (
    MetricLoss,
    fbeta,
    metric_loss,
    soft_confusion,
)

NAMES = (
    "accuracy", "balanced_accuracy", "f0.5", "f1", "f2", "gmean", "jaccard", "mcc", "precision", "recall", "specificity"
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_repeating_the_set_changes_no_metric(name: str) -> None:
    once, thrice = metric_loss(Z, Y, name), metric_loss(Z.repeat(3), Y.repeat(3), name)
    torch.testing.assert_close(once, thrice)
    torch.testing.assert_close(metric_loss(Z, Y, name, weight=torch.full_like(Z, 0.1)), once)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_every_metric(name: str) -> None:
    assert gradcheck(lambda z: metric_loss(z, Y, name), Z.clone().requires_grad_())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("amplification", [73.0, 1e6, None])
@pytest.mark.parametrize("positives", [0, 1, 3, 6])
@pytest.mark.parametrize("size", [1e-30, 1.0, 80.0, 95.0, 1e30, math.inf])
def test_extremes_stay_finite(name: str, amplification: float | None, positives: int, size: float) -> None:
    y = (torch.arange(6) < positives).float()
    for signs in (torch.ones(6), -torch.ones(6), torch.tensor([1.0, -1.0] * 3)):
        z = (size * signs).requires_grad_()
        loss = metric_loss(z, y, name, amplification=amplification)
        loss.backward()
        assert loss.isfinite()
        assert -1e-6 <= loss <= 2
        assert z.grad is not None
        assert z.grad.isfinite().all()


def test_nan_is_not_hidden() -> None:
    for name in NAMES:
        assert metric_loss(torch.tensor([math.nan, 0.1]), torch.tensor([1.0, 0.0]), name).isnan()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_in_float32(dtype: torch.dtype) -> None:
    z = torch.full((5000,), 8.0, dtype=dtype, requires_grad=True)
    counts = soft_confusion(z, torch.ones(5000, dtype=dtype))
    assert counts.tp.dtype == torch.float32
    assert counts.tp.item() == pytest.approx(5000, abs=0.1)  # bfloat16 stops counting at 256
    loss = metric_loss(z, torch.zeros(5000, dtype=torch.int64))
    loss.backward()
    assert loss.dtype == z.grad.dtype == dtype  # type: ignore[union-attr]


def test_autocast_keeps_the_loss_wide() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert metric_loss(Z.bfloat16(), Y).dtype == torch.float32


@pytest.mark.parametrize("dim", [None, 0, 1, -1, (0, 1), (-2,), ()])
def test_dimensions_against_a_loop(dim: int | tuple[int, ...] | None) -> None:
    z, y, w = Z.reshape(5, 8), Y.reshape(5, 8), torch.linspace(0, 1, 8, dtype=torch.float64)
    counts = soft_confusion(z, y, dim=dim, weight=w)
    axes = tuple(range(2)) if dim in (None, ()) else dim
    a = eq_1(z.numpy(), 73.0) * w.numpy()
    expected = (a * y.numpy()).sum(axes)
    assert counts.tp.shape == expected.shape
    np.testing.assert_allclose(counts.tp.numpy(), expected, rtol=1e-9)
    loss = metric_loss(z, y, dim=dim, weight=w)
    torch.testing.assert_close(loss, (1 - fbeta(counts)).mean())
    gradient = torch.autograd.functional.jacobian(lambda z: metric_loss(z, y, dim=dim, weight=w), z)
    swept = torch.func.grad(lambda z: metric_loss(z, y, dim=dim, weight=w))(z)  # the path that reuses no buffers
    torch.testing.assert_close(gradient, swept)


def test_one_matrix_whatever_the_shape() -> None:
    flat = metric_loss(Z, Y)
    for shape in ((40, 1), (4, 1, 5, 2)):
        torch.testing.assert_close(metric_loss(Z.reshape(shape), Y.reshape(shape)), flat)
    assert soft_confusion(Z[0], Y[0]).tp.shape == ()


def test_labels_of_any_kind() -> None:
    expected = metric_loss(Z, Y)
    for target in (Y.bool(), Y.long(), Y.half(), Y.float()):
        assert metric_loss(Z, target) == expected


def test_a_metric_of_ones_own() -> None:
    loss = metric_loss(Z, Y, lambda c: c.tp - 5 * c.fp)
    counts = soft_confusion(Z, Y)
    torch.testing.assert_close(loss, 1 - counts.tp + 5 * counts.fp)


def test_module_is_the_function() -> None:
    w = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    module = MetricLoss("gmean", amplification=20.0, dim=0)
    assert module(Z, Y, w) == metric_loss(Z, Y, "gmean", amplification=20.0, dim=0, weight=w)
    assert "gmean" in repr(module)
    p = Z.sigmoid()
    assert MetricLoss(from_logits=False)(p, Y) == metric_loss(p, Y, from_logits=False)


def test_torch_func_agrees() -> None:
    z, y = Z.reshape(5, 8), Y.reshape(5, 8)
    each = torch.func.vmap(torch.func.grad(metric_loss))(z, y)
    torch.testing.assert_close(
        each, torch.stack([torch.func.grad(metric_loss)(a, b) for a, b in zip(z, y, strict=True)])
    )
    torch.testing.assert_close(
        torch.func.vmap(metric_loss, (None, 0))(z[0], y), torch.stack([metric_loss(z[0], row) for row in y])
    )


def test_gradient_descent_raises_the_metric() -> None:
    draw = torch.Generator().manual_seed(0)
    y = (torch.rand(400, generator=draw) < 0.1).double()
    x = torch.randn(400, 3, generator=draw, dtype=torch.float64) + y[:, None]
    weight = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    for _ in range(300):
        loss = metric_loss(x @ weight[:3] + weight[3], y)
        (gradient,) = torch.autograd.grad(loss, weight)
        weight.data -= 0.03 * gradient
    found = metrics.f1_score(y.numpy(), (x @ weight[:3] + weight[3] > 0).detach().numpy())
    assert found > 0.5 > 2 * metrics.f1_score(y.numpy(), np.ones(400))


ONE = torch.zeros(3)
BAD: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (ValueError, r"one shape, got input \(3, 1\) and target \(3,\)", lambda: metric_loss(ONE[:, None], ONE)),
    (ValueError, r"target must be in \[0, 1\], got values from 0 to 2", lambda: metric_loss(ONE, torch.arange(3))),
    (ValueError, r"target must be in \[0, 1\], got values from -1", lambda: metric_loss(ONE, ONE - 1)),
    (ValueError, r"target must be in", lambda: metric_loss(ONE, ONE * math.nan)),
    (ValueError, r"input must be probabilities", lambda: metric_loss(ONE + 1.5, ONE, from_logits=False)),
    (ValueError, r"input must be probabilities", lambda: metric_loss(ONE - 0.1, ONE, from_logits=False)),
    (ValueError, r"amplification must be positive .* got 0", lambda: metric_loss(ONE, ONE, amplification=0)),
    (ValueError, r"amplification must be positive .* got -73", lambda: MetricLoss(amplification=-73)),
    (ValueError, r"amplification must be positive .* got nan", lambda: MetricLoss(amplification=math.nan)),
    (ValueError, r"one of accuracy, .*mcc.* got 'auc'", lambda: metric_loss(ONE, ONE, "auc")),
    (ValueError, r"got 'auc'", lambda: MetricLoss("auc")),
    (ValueError, r"beta must be positive and finite, got 0", lambda: fbeta(hard([1], [1]), beta=0)),
    (ValueError, r"beta must be positive and finite, got -1", lambda: fbeta(hard([1], [1]), -1)),
    (ValueError, r"weight must be finite and not negative, got .* -1", lambda: metric_loss(ONE, ONE, weight=ONE - 1)),
    (ValueError, r"weight must be finite", lambda: metric_loss(ONE, ONE, weight=ONE + math.inf)),
    (ValueError, r"weight must broadcast to \(3,\), got .*\(2,\)", lambda: metric_loss(ONE, ONE, weight=torch.ones(2))),
    (ValueError, r"weight must broadcast", lambda: metric_loss(ONE, ONE, weight=torch.ones(2, 3))),
    (ValueError, r"input must not be empty, got shape \(0,\)", lambda: metric_loss(ONE[:0], ONE[:0])),
    (TypeError, r"input must be floating point, got torch.int64", lambda: metric_loss(ONE.long(), ONE)),
    (TypeError, r"input must be floating point, got torch.bool", lambda: metric_loss(ONE.bool(), ONE)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "match", "call"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_bad_input_is_named(error: type[Exception], match: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=match):
        call()
