"""Probes of features: neighbours against scikit-learn, and linear ones where the best is known."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from throughline.claims.shared.probes import knn_accuracy, linear_accuracy, nearest_neighbours, trained_accuracy


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_is_scikit_learns(k: int) -> None:
    labels = torch.arange(300) % 7
    x = noise(300, 6) + 1.5 * noise(7, 6, seed=1)[labels]
    peer = KNeighborsClassifier(k, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
    peer.fit(x[:200].double().numpy(), labels[:200].numpy())
    expected = peer.score(x[200:].double().numpy(), labels[200:].numpy())
    assert 0.3 < expected < 1
    assert knn_accuracy(x[:200], labels[:200], x[200:], labels[200:], k=k) == pytest.approx(expected)


def test_neighbours_are_by_angle() -> None:
    bank = torch.tensor([[10.0, 0.0], [1.0, 1.0], [0.0, 0.1]])
    similarity, rows = nearest_neighbours(bank, torch.tensor([[0.0, 3.0], [2.0, 0.5]]), 2)
    assert rows.tolist() == [[2, 1], [0, 1]]
    torch.testing.assert_close(similarity[0], torch.tensor([1.0, 0.5**0.5]))


def test_linear_probes_find_what_is_linear_whatever_its_scale() -> None:
    labels = torch.arange(300) % 3
    x = (noise(300, 4) + 3 * noise(3, 4, seed=1)[labels]) * torch.tensor([1e-2, 1.0, 1e2, 1.0])
    parts = x[:200], labels[:200], x[200:], labels[200:]
    torch.manual_seed(0)
    regression, trained = linear_accuracy(*parts), trained_accuracy(*parts, epochs=40, seed=0)
    assert regression > 0.9
    assert trained == pytest.approx(regression, abs=0.05)
