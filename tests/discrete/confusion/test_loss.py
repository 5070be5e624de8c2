"""The soft confusion matrix and its metrics: scikit-learn, the printed formula, limits and the paper's pitfalls."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from throughline.discrete.confusion import (
    Confusion,
    MetricLoss,
    accuracy,
    balanced_accuracy,
    fbeta,
    gmean,
    jaccard,
    mcc,
    metric_loss,
    precision,
    recall,
    soft_confusion,
    specificity,
)

NAMES = (
    "accuracy", "balanced_accuracy", "f0.5", "f1", "f2", "gmean", "jaccard", "mcc", "precision", "recall", "specificity"
)  # fmt: skip
Z = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.2
Y = (torch.arange(40) % 4 == 0).double()


def hard(truth: list[int], called: list[int]) -> Confusion:
    """Counts by the definition, one sample at a time."""
    pairs = list(zip(truth, called, strict=True))
    counts = (pairs.count(pair) for pair in ((1, 1), (0, 1), (1, 0), (0, 0)))
    return Confusion(*(torch.tensor(float(count), dtype=torch.float64) for count in counts))


def eq_1(z: np.ndarray, steepness: float) -> np.ndarray:
    return 1 / (1 + np.exp(-steepness * (expit(z) - 0.5)))  # as printed in the paper


LABELS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30)
SKLEARN: list[tuple[Callable[[Confusion], Tensor], Callable[[Any, Any], float]]] = [
    (accuracy, metrics.accuracy_score),
    (precision, lambda t, p: metrics.precision_score(t, p, zero_division=0)),
    (recall, lambda t, p: metrics.recall_score(t, p, zero_division=0)),
    (specificity, lambda t, p: metrics.recall_score(t, p, pos_label=0, zero_division=0)),
    (fbeta, lambda t, p: metrics.f1_score(t, p, zero_division=0)),
    (lambda c: fbeta(c, 0.5), lambda t, p: metrics.fbeta_score(t, p, beta=0.5, zero_division=0)),
    (lambda c: fbeta(c, beta=2), lambda t, p: metrics.fbeta_score(t, p, beta=2, zero_division=0)),
    (jaccard, lambda t, p: metrics.jaccard_score(t, p, zero_division=0)),
    (mcc, metrics.matthews_corrcoef),
    (balanced_accuracy, lambda t, p: np.mean([np.mean(p[t == k] == k) for k in np.unique(t)])),
    (gmean, lambda t, p: np.prod([np.mean(p[t == k] == k) for k in np.unique(t)]) ** (1 / len(np.unique(t)))),
]


@pytest.mark.filterwarnings("ignore:A single label was found")
@given(LABELS)
def test_hard_counts_give_the_scores_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, called = (np.array(side) for side in zip(*pairs, strict=True))
    for ours, theirs in SKLEARN:
        assert ours(hard(truth.tolist(), called.tolist())).item() == pytest.approx(theirs(truth, called), abs=1e-12)
    if len(set(truth)) == 2:
        ours_balanced = balanced_accuracy(hard(truth.tolist(), called.tolist())).item()
        assert ours_balanced == pytest.approx(metrics.balanced_accuracy_score(truth, called))


def test_gmean_against_imbalanced_learn() -> None:
    theirs = pytest.importorskip("imblearn.metrics").geometric_mean_score
    truth, called = [0, 0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0, 1]
    assert gmean(hard(truth, called)).item() == pytest.approx(theirs(truth, called))


def test_metrics_work_elementwise_and_on_whole_numbers() -> None:
    counts = Confusion(*torch.randint(1, 50, (4, 3, 2), generator=torch.Generator().manual_seed(0)))
    for score in (accuracy, precision, recall, specificity, fbeta, balanced_accuracy, gmean, jaccard, mcc):
        whole = score(counts)
        assert whole.shape == (3, 2)
        for i, j in product(range(3), range(2)):
            torch.testing.assert_close(whole[i, j], score(Confusion(*(one[i, j].float() for one in counts))))


def test_mcc_survives_counts_whose_product_overflows() -> None:
    counts = Confusion(*torch.tensor([3e20, 1e20, 2e20, 4e20]))
    assert mcc(counts).item() == pytest.approx(10 / math.sqrt(4 * 5 * 5 * 6), rel=1e-5)
    assert mcc(Confusion(*torch.tensor([3e-20, 1e-20, 2e-20, 4e-20]))).item() == pytest.approx(mcc(counts).item())


@pytest.mark.parametrize("steepness", [1.0, 10.0, 73.0])
def test_counts_are_sums_of_the_printed_formula(steepness: float) -> None:
    a, y, w = eq_1(Z.numpy(), steepness), Y.numpy(), np.linspace(0, 2, len(Y))
    counts = soft_confusion(Z, Y, amplification=steepness, weight=torch.as_tensor(w))
    expected = (w * y * a, w * (1 - y) * a, w * y * (1 - a), w * (1 - y) * (1 - a))
    for ours, theirs in zip(counts, expected, strict=True):
        assert ours.item() == pytest.approx(theirs.sum(), rel=1e-12)
    from_p = soft_confusion(Z.sigmoid(), Y, amplification=steepness, weight=torch.as_tensor(w), from_logits=False)
    torch.testing.assert_close(tuple(from_p), tuple(counts), rtol=1e-10, atol=1e-12)


def test_no_amplification_counts_probabilities() -> None:
    counts = soft_confusion(Z, Y, amplification=None)
    assert counts.tp.item() == pytest.approx((Y * Z.sigmoid()).sum().item())
    assert counts.tn.item() == pytest.approx(((1 - Y) * (-Z).sigmoid()).sum().item())


def test_confident_logits_are_hard_counts() -> None:
    z = torch.tensor([20.0, 20.0, -20.0, -20.0, -20.0])
    counts = soft_confusion(z, torch.tensor([1, 0, 1, 0, 0]))
    torch.testing.assert_close(torch.stack(counts), torch.tensor([1.0, 1.0, 1.0, 2.0]))


@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(0, 1), st.floats(0, 9)), min_size=1, max_size=12))
def test_counts_are_shares_of_the_total_weight(rows: list[tuple[float, float, float]]) -> None:
    z, y, w = torch.tensor(rows, dtype=torch.float64).unbind(1)
    counts = torch.stack(soft_confusion(z, y, weight=w))
    assert (counts >= 0).all()
    torch.testing.assert_close(counts.sum(), w.sum())
    flipped = soft_confusion(-z, 1 - y, weight=w)  # the other class as the positive one
    torch.testing.assert_close(counts, torch.stack((flipped.tn, flipped.fn, flipped.fp, flipped.tp)))


@pytest.mark.parametrize("name", NAMES)
def test_repeating_the_set_changes_no_metric(name: str) -> None:
    once, thrice = metric_loss(Z, Y, name), metric_loss(Z.repeat(3), Y.repeat(3), name)
    torch.testing.assert_close(once, thrice)
    torch.testing.assert_close(metric_loss(Z, Y, name, weight=torch.full_like(Z, 0.1)), once)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("amplification", [73.0, 5.0, None])
def test_first_and_second_derivatives(amplification: float | None, from_logits: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    z, y, w = (torch.rand(size, dtype=torch.float64, generator=draw) for size in ((5, 3), (5, 3), (5, 1)))
    z = (z - 0.5) * 0.4 if from_logits else z * 0.2 + 0.4
    inputs = tuple(t.requires_grad_() for t in (z, y, w))

    def counts(z: Tensor, y: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        return tuple(soft_confusion(z, y, weight=w, amplification=amplification, from_logits=from_logits, dim=0))

    assert gradcheck(counts, inputs)
    assert gradgradcheck(counts, inputs)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_every_metric(name: str) -> None:
    assert gradcheck(lambda z: metric_loss(z, Y, name), Z.clone().requires_grad_())


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("z", [-45.0, -20.0, -1.0, -1e-9, 0.0, 1e-3, 0.3, 5.0, 16.0, 30.0, 45.0])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_float32_keeps_the_tails(z: float, target: float, create_graph: bool) -> None:
    single = torch.tensor([z], requires_grad=True)
    counts = soft_confusion(single, torch.tensor([target]))
    (slope,) = torch.autograd.grad(counts.tp + 3 * counts.fn + counts.fp, single, create_graph=create_graph)
    s = 36.5 * math.tanh(z / 2)
    exact = 73 * expit(s) * expit(-s) * expit(z) * expit(-z) * (-2 if target else 1)
    assert slope.item() == pytest.approx(exact, rel=2e-5, abs=0)
    assert exact != 0
    true = counts.tp if target else counts.fp
    assert true.item() == pytest.approx(expit(s), rel=2e-5, abs=0)


def test_a_zero_start_has_the_largest_gradient() -> None:
    z = torch.zeros(4, requires_grad=True)
    soft_confusion(z, torch.ones(4)).tp.backward()
    torch.testing.assert_close(z.grad, torch.full((4,), 73 / 16))


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


@pytest.mark.parametrize("score", [accuracy, precision, recall, specificity, fbeta, gmean, jaccard, mcc])
def test_nothing_over_nothing_is_zero_without_gradient(score: Callable[[Confusion], Tensor]) -> None:
    counts = [torch.zeros((), requires_grad=True) for _ in range(4)]
    value = score(Confusion(*counts))
    value.backward()
    assert value == 0
    assert all(c.grad is None or c.grad == 0 for c in counts)


def test_nan_is_not_hidden() -> None:
    for name in NAMES:
        assert metric_loss(torch.tensor([math.nan, 0.1]), torch.tensor([1.0, 0.0]), name).isnan()


def test_an_absent_class_leaves_the_rate_of_the_other() -> None:
    only_negatives = Confusion(*torch.tensor([0.0, 1.0, 0.0, 3.0]))
    assert balanced_accuracy(only_negatives) == gmean(only_negatives) == 0.75
    only_positives = Confusion(*torch.tensor([3.0, 0.0, 1.0, 0.0]))
    assert balanced_accuracy(only_positives) == gmean(only_positives) == 0.75


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
