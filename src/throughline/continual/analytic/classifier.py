"""G-ACIL as a scikit-learn estimator (arXiv 2403.15706): `fit`, or `partial_fit` over any stream, with one result."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import nn

from throughline.continual.analytic.head import AnalyticHead

__all__ = ["AnalyticClassifier"]

ROWS = 2048  # of a fit at a time: bounds the expanded features held at once


class AnalyticClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Ridge regression on randomly expanded features, learnable in pieces: `AnalyticHead` for scikit-learn.

    ``fit(X, y)`` equals, to rounding, ``partial_fit`` over any partition of the rows in any order (with a fixed
    ``random_state``). Labels of any kind may appear at any time, announced or not.

    Args:
        expansion: width of the frozen random ReLU layer; None fits the columns of X themselves (no intercept).
        penalty: ridge penalty γ.
        random_state: draws the expansion.

    Attributes:
        classes_: ``(C,)``, sorted, those seen so far.
        n_features_in_: columns of X.
        head_: the `AnalyticHead` underneath; its ids are positions in the order of appearance.

    >>> X, y = [[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]], ["up", "right", "up"]
    >>> AnalyticClassifier(None, penalty=0.1).fit(X, y).predict([[3.0, 1.0]])
    array(['right'], dtype='<U5')
    """

    def __init__(self, expansion: int | None = 5000, *, penalty: float = 100.0, random_state: Any = None) -> None:
        self.expansion = expansion
        self.penalty = penalty
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Forget everything, then learn from ``X (n, m)`` and labels ``y (n,)``."""
        return self._learn(X, y, reset=True)

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> Self:
        """Learn from some more rows. ``classes`` is taken for compatibility and needs no announcing."""
        return self._learn(X, y, reset=not hasattr(self, "head_"))

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores ``(n, C)`` in the order of ``classes_``; for two classes their difference ``(n,)``, as is usual."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The best class of each row."""
        best = self._scores(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    @property
    def coef_(self) -> NDArray[np.float64]:
        """``(C, m)``, in the order of ``classes_``; without ``expansion`` alone: a weight for each column of X."""
        if not isinstance(self.head_.expansion, nn.Identity):
            raise AttributeError("coef_ is one weight for each column of X: fit with expansion=None to have it")
        weights: NDArray[np.float64] = self.head_.weight[:, self._columns].mT.contiguous().numpy()
        return weights

    def _learn(self, X: Any, y: Any, *, reset: bool) -> Self:
        X, y = validate_data(self, X, y, reset=reset, dtype=np.float64)
        check_classification_targets(y)
        if reset:
            seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            self.head_ = AnalyticHead(
                X.shape[1],
                expansion=self.expansion,
                penalty=self.penalty,
                generator=torch.Generator().manual_seed(seed),
            )
            self.classes_, self._order = np.unique(y)[:0], np.zeros(0, np.int64)
        if len(self.classes_) and _texts(self.classes_) != _texts(y):
            kinds = ("texts", "numbers") if _texts(y) else ("numbers", "texts")
            raise ValueError(f"y must hold labels of one kind in all pieces, got {kinds[0]} after {kinds[1]}")
        classes = np.union1d(self.classes_, y)
        known = np.isin(classes, self.classes_)
        ids = np.empty(len(classes), np.int64)
        ids[known], ids[~known] = self._order, np.arange(len(self.classes_), len(classes))
        labels = torch.from_numpy(ids[np.searchsorted(classes, y)])
        for rows, some in zip(torch.split(torch.tensor(X), ROWS), torch.split(labels, ROWS), strict=True):
            self.head_.partial_fit(rows, some)
        self.classes_, self._order = classes, ids
        self._columns = torch.from_numpy(ids)[:, None].eq(self.head_.classes).int().argmax(1)
        return self

    def _scores(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        parts = [self.head_(rows)[:, self._columns] for rows in torch.split(torch.tensor(X), ROWS)]
        scores: NDArray[np.float64] = torch.cat(parts).numpy()
        return scores


def _texts(labels: NDArray[Any]) -> bool:
    return labels.dtype.kind in "US" or (labels.dtype.kind == "O" and isinstance(labels.flat[0], str))
