"""Measures of TELL's claim: agreement with classes, inertia on the unit sphere, and what the pictures show."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

from throughline.claims.tell.data import Samples
from throughline.lab import Log

__all__ = ["agreement", "keep_pictures", "sphere_inertia", "spherical_lloyd"]


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


def agreement(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well a clustering agrees with classes: NMI, accuracy under the best matching of clusters, and ARI."""
    table = contingency_matrix(truth, labels)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(truth, labels)),
        "accuracy": float(matched / len(truth)),
        "ari": float(adjusted_rand_score(truth, labels)),
    }


def keep_pictures(pictures: np.ndarray, distances: np.ndarray, samples: Samples, log: Log) -> None:
    """Centres as samples, the sample nearest to each, and the class that most of a cluster's samples have."""
    counts = np.zeros((samples.clusters, samples.clusters), np.int64)  # of a cluster's samples by class
    np.add.at(counts, (distances.argmin(1), samples.labels), 1)
    log.keep(
        pictures=pictures.reshape(samples.clusters, *samples.shape),
        typical=samples.flat.numpy()[distances.argmin(0)].reshape(samples.clusters, *samples.shape),
        majority=counts.argmax(1),
        share=counts.max(1) / np.maximum(counts.sum(1), 1),
        size=counts.sum(1),
    )
