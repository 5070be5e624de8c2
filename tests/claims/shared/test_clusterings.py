"""Measures of clusterings against other arithmetic, and k-means on the sphere by its invariants."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import kmeans_plusplus
from sklearn.preprocessing import normalize

from throughline.claims.shared.clusterings import (
    agreement,
    count_directions,
    on_sphere,
    sphere_inertia,
    spherical_lloyd,
)

DRAW = np.random.default_rng(0)


def test_accuracy_is_that_of_the_best_renaming() -> None:
    for _ in range(5):
        truth, labels = DRAW.integers(4, size=(2, 40))
        best = max(np.mean(np.array(names)[labels] == truth) for names in itertools.permutations(range(4)))
        assert agreement(truth, labels)["accuracy"] == pytest.approx(best)
    assert agreement(truth, (truth + 1) % 4) == {"nmi": pytest.approx(1), "accuracy": 1, "ari": 1}
    assert agreement(truth, np.zeros(40, int))["nmi"] == 0
    assert agreement(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]))["accuracy"] == 0.5  # more clusters than classes


def test_lloyd_on_the_sphere_only_falls_and_ends_in_a_fixed_point() -> None:
    x = normalize(DRAW.standard_normal((300, 6)) + 1)
    x[7] = 0
    start, _ = kmeans_plusplus(x, 5, random_state=0)
    course = spherical_lloyd(x, start)
    assert course[0] == pytest.approx((cdist(x, start) ** 2).min(1).sum())
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(course))
    assert len(course) < 300
    centers = start
    for _ in range(len(course) + 3):  # the same, cluster by cluster
        labels = cdist(x, centers).argmin(1)
        centers = normalize(np.stack([x[labels == j].mean(0) for j in range(5)]))
    assert course[-1] == pytest.approx(sphere_inertia(x, centers))


def test_lloyd_keeps_the_centre_of_an_empty_cluster() -> None:
    x, start = np.eye(3)[:2], np.concatenate([np.eye(3)[:2], -np.eye(3)[:1]])
    assert spherical_lloyd(x, start) == [0.0, 0.0]


def test_rows_on_the_sphere_are_those_of_scikit_learn() -> None:
    x = np.concatenate([DRAW.standard_normal((5, 3)), np.zeros((1, 3))])
    np.testing.assert_allclose(on_sphere(x), normalize(x))


def test_directions_are_counted_whatever_the_length() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0], [-1.0, -2.0], [0.0, 1.0], [0.0, 0.0]])
    assert count_directions(x) == 3
    assert count_directions(x[:2]) == 1
