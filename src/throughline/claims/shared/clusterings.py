"""Clusterings: their agreement with classes, and k-means with directions for samples and centres."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from torch import Tensor
from torch.nn import functional as F

__all__ = ["agreement", "count_directions", "on_sphere", "sphere_inertia", "spherical_lloyd"]


def agreement(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well a clustering agrees with classes: NMI, accuracy under the best matching of clusters, and ARI."""
    table = contingency_matrix(truth, labels)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(truth, labels)),
        "accuracy": float(matched / len(truth)),
        "ari": float(adjusted_rand_score(truth, labels)),
    }


def count_directions(x: Tensor) -> int:
    """How many directions rows ``(n, d)`` have, told apart by their shadows on a random line."""
    line = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shadows = torch.cat([F.normalize(part.double(), dim=-1) @ line for part in x.split(4096)])  # type: ignore[no-untyped-call]
    return len(np.unique(shadows[x.any(1)].numpy().round(5)))


def on_sphere(centers: np.ndarray) -> np.ndarray:
    """Rows ``(k, d)`` scaled to length one; zeros stay zeros."""
    length = np.linalg.norm(centers, axis=1, keepdims=True)
    unit: np.ndarray = centers / np.where(length > 0, length, 1.0)
    return unit


def spherical_lloyd(x: np.ndarray, centers: np.ndarray, passes: int = 300) -> list[float]:
    """Inertia of k-means with unit centres, at its start and after every pass, until no sample changes its cluster."""
    course, labels = [sphere_inertia(x, centers)], np.full(len(x), -1)
    for _ in range(passes):
        before, labels = labels, (x @ centers.T).argmax(1)
        if np.array_equal(before, labels):
            break
        sums = np.zeros_like(centers)
        np.add.at(sums, labels, x)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centers = np.where(length > 0, sums / np.where(length > 0, length, 1.0), centers)
        course.append(sphere_inertia(x, centers))
    return course


def sphere_inertia(x: np.ndarray, centers: np.ndarray) -> float:
    """Sum of squared distances of unit (or zero) rows to the nearest of unit centres."""
    return float(((x**2).sum(1) + 1 - 2 * (x @ centers.T).max(1)).sum())
