"""Metrics of hard counts against scikit-learn; what is absent, and what would overflow."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics
from tests.discrete.confusion.samples import hard
from torch import Tensor

from throughline.discrete.confusion import (
    Confusion,
    accuracy,
    balanced_accuracy,
    fbeta,
    gmean,
    jaccard,
    mcc,
    precision,
    recall,
    specificity,
)

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


@pytest.mark.parametrize("score", [accuracy, precision, recall, specificity, fbeta, gmean, jaccard, mcc])
def test_nothing_over_nothing_is_zero_without_gradient(score: Callable[[Confusion], Tensor]) -> None:
    counts = [torch.zeros((), requires_grad=True) for _ in range(4)]
    value = score(Confusion(*counts))
    value.backward()
    assert value == 0
    assert all(c.grad is None or c.grad == 0 for c in counts)


def test_an_absent_class_leaves_the_rate_of_the_other() -> None:
    only_negatives = Confusion(*torch.tensor([0.0, 1.0, 0.0, 3.0]))
    assert balanced_accuracy(only_negatives) == gmean(only_negatives) == 0.75
    only_positives = Confusion(*torch.tensor([3.0, 0.0, 1.0, 0.0]))
    assert balanced_accuracy(only_positives) == gmean(only_positives) == 0.75
