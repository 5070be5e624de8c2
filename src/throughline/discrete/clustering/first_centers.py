"""Where clusters start: k-means++, the best of ten k-means, or centres that are given."""

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning

__all__ = ["first_centers"]


def first_centers(
    points: NDArray[np.floating], clusters: int, init: str | ArrayLike, *, directions: bool, rng: np.random.RandomState
) -> NDArray[np.floating]:
    """``(clusters, D)`` of ``points (n, D)``, which have unit length when it is ``directions`` that are clustered."""
    if not isinstance(init, str):
        given = np.asarray(init)
        if given.shape != (wanted := (clusters, points.shape[1])) or not np.isfinite(given).all():
            raise ValueError(f"init must be a name or {wanted} finite centres, got an array {given.shape}")
        return given
    if init == "k-means":
        fitted = KMeans(clusters, n_init=10, random_state=rng).fit(points)
        return np.asarray(fitted.cluster_centers_)
    # an offset costs no digits; in float64, for scikit-learn would widen float32 again with every centre
    near = points.astype(np.float64) if directions else points - points.mean(0, dtype=np.float64)
    _, chosen = kmeans_plusplus(near, clusters, random_state=rng)
    centers: NDArray[np.floating] = points[chosen]
    # equal points are chosen only when there are no others; of equal directions the last digits differ
    kept = centers.round(6 if points.dtype == np.float32 else 12) if directions else centers
    if (found := len(np.unique(kept, axis=0))) < clusters:
        kind, hint = ("directions", "; normalize=False tells lengths apart") if directions else ("points", "")
        warnings.warn(
            f"X has fewer distinct {kind} ({found}) than n_clusters ({clusters}), and clusters stay empty{hint}",
            ConvergenceWarning,
            stacklevel=2,
        )
    return centers
