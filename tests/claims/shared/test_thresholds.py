"""Thresholds by brute force, and decisions against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from throughline.claims.shared.thresholds import best_threshold, hard_counts
from throughline.discrete.confusion import accuracy, balanced_accuracy, fbeta, gmean


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1)), min_size=1, max_size=12))
def test_best_threshold_by_trying_all(rows: list[tuple[int, int]]) -> None:
    z, y = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    for score in (fbeta, balanced_accuracy, gmean, accuracy):
        tried = [float(score(hard_counts(z, y, edge))) for edge in np.arange(-4, 4) + 0.5]  # every way to cut integers
        assert float(score(hard_counts(z, y, best_threshold(z, y, score)))) == pytest.approx(max(tried))


def test_hard_counts_are_scikit_learns() -> None:
    z, y = torch.randn(50, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3 == 0
    tn, fp, fn, tp = confusion_matrix(y, z > 0.2).ravel()
    assert tuple(hard_counts(z, y, 0.2)) == (tp, fp, fn, tn)
