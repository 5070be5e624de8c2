"""AnyLoss as a scikit-learn estimator (arXiv 2405.14745): a linear model or small network fitted to a metric."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from throughline.core.checks import integer
from throughline.discrete.confusion.counts import check_options, count
from throughline.discrete.confusion.metrics import Metric, find_metric

__all__ = ["MetricClassifier"]


class MetricClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Binary classifier trained on 1 minus a metric of its soft confusion matrix, by Adam in float64.

    The linear model is the network without hidden layers; each of these is linear (He initialisation), batch
    normalisation and sigmoid, as in the paper. The last layer starts at zero, where every sample lies on the decision
    boundary. Standardise the features first: samples that the first step throws far from the boundary learn no more.
    ``score`` is the accuracy, as everywhere in scikit-learn. Sample weights are repetitions, for the full batch.

    Args:
        metric: a name or function as for `metric_loss`.
        hidden_layer_sizes: widths of hidden layers, or the width of one; none is the linear model.
        amplification: L, positive and finite, or None.
        alpha: squared-norm penalty on the weights as in `sklearn.neural_network.MLPClassifier`, not negative.
        learning_rate_init: of Adam, positive.
        max_iter: passes over the data, at least 1.
        batch_size: rows of a step, at least 2; None for all. The metric of a batch without positives says little.
        pos_label: label of the positive class; None for ``classes_[1]``.
        random_state: draws the hidden layers and the batches.

    Attributes:
        classes_: ``(2,)``, sorted.
        coef_: ``(1, d)``, linear model only; like `decision_function` it speaks for ``classes_[1]``.
        intercept_: ``(1,)``, linear model only.
        network_: the trained module; its logit speaks for ``pos_label``.
        loss_curve_: the loss of every pass, a mean over its batches.
        n_iter_: passes made.
        n_features_in_: columns of X.

    >>> X, y = np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.array(["no", "no", "no", "yes"])
    >>> MetricClassifier("f1").fit(X, y).predict(X)
    array(['no', 'no', 'no', 'yes'], dtype='<U3')
    """

    def __init__(
        self,
        metric: Metric = "f1",
        *,
        hidden_layer_sizes: int | Sequence[int] = (),
        amplification: float | None = 73.0,
        alpha: float = 0.0,
        learning_rate_init: float = 0.01,
        max_iter: int = 1000,
        batch_size: int | None = None,
        pos_label: Any = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.metric = metric
        self.hidden_layer_sizes = hidden_layer_sizes
        self.amplification = amplification
        self.alpha = alpha
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.pos_label = pos_label
        self.random_state = random_state

    @torch.enable_grad()
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train afresh.

        Raises:
            TypeError: a count that is no integer.
            ValueError: other than two classes, ``pos_label`` not among them, an option out of range, values that are
                not finite, or negative or only zero weights.
        """
        self._check_options()
        rows, labels = validate_data(self, X, y, dtype=np.float64)
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        positive = self._positive(labels)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, rows, dtype=np.float64)
            if weight.min() < 0 or not weight.any():
                raise ValueError(
                    f"sample_weight must not be negative, nor 0 throughout, got a least of {weight.min():g}"
                )
        target = (codes == positive).astype(np.float64)
        self._sign = 1.0 if positive == 1 else -1.0
        self._train(_tensor(rows), _tensor(target), None if weight is None else _tensor(weight))
        self.n_iter_ = self.max_iter
        if not self._widths():
            weights, bias = (parameter.detach().numpy() for parameter in self.network_.parameters())
            self.coef_, self.intercept_ = self._sign * weights, self._sign * bias
        return self

    def _train(self, rows: Tensor, target: Tensor, weight: Tensor | None) -> None:
        score = find_metric(self.metric)
        generator = torch.Generator().manual_seed(int(check_random_state(self.random_state).randint(2**31)))
        network = _network(rows.shape[1], self._widths(), generator)
        penalised = [parameter for parameter in network.parameters() if parameter.ndim == 2]
        optimizer = torch.optim.Adam(network.parameters(), lr=self.learning_rate_init, fused=True)
        self.loss_curve_ = []
        for _ in range(self.max_iter):
            losses = []
            for batch in _batches(len(rows), self.batch_size, generator):
                own = None if weight is None else weight[batch]
                logits, labels = network(rows[batch])[:, 0], target[batch]
                loss = 1 - score(count(logits, labels, self.amplification, weight=own))
                losses.append(loss.detach())
                if self.alpha:
                    total = len(labels) if own is None else own.sum().clamp_min(torch.finfo(own.dtype).tiny)
                    loss = loss + self.alpha / 2 * torch.stack([p.square().sum() for p in penalised]).sum() / total
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            self.loss_curve_.append(float(torch.stack(losses).mean()))
        self.network_ = network.eval()

    @torch.no_grad()
    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits ``(n,)``, positive where ``classes_[1]`` is predicted."""
        check_is_fitted(self)
        rows = _tensor(validate_data(self, X, dtype=np.float64, reset=False))
        logits: NDArray[np.float64] = self._sign * self.network_(rows)[:, 0].numpy()
        return logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels ``(n,)``."""
        above = self.decision_function(X) > 0
        labels: NDArray[Any] = self.classes_[above.astype(int)]
        return labels

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """σ of the logits, ``(n, 2)``: scores that rank samples, not calibrated probabilities."""
        z = torch.from_numpy(self.decision_function(X))
        return torch.stack([(-z).sigmoid(), z.sigmoid()], 1).numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def _positive(self, labels: NDArray[Any]) -> int:
        if len(self.classes_) == 1:
            raise ValueError(f"y must hold two classes, got one class: {self.classes_[0]!r}")
        if len(self.classes_) > 2:
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {type_of_target(labels)}: "
                f"y must hold two classes, got {len(self.classes_)}"
            )
        label = self.classes_[1] if self.pos_label is None else self.pos_label
        found = np.flatnonzero(self.classes_ == label)
        if not len(found):
            raise ValueError(f"pos_label must be one of the labels {self.classes_.tolist()}, got {label!r}")
        return int(found[0])

    def _check_options(self) -> None:
        find_metric(self.metric)
        check_options(self.amplification)
        if self.batch_size is not None:
            wanted = "an integer, or None for all rows"
            if integer("batch_size", self.batch_size, wanted) < 2:
                raise ValueError(f"batch_size must be at least 2, or None for all rows, got {self.batch_size}")
        if integer("max_iter", self.max_iter) < 1:
            raise ValueError(f"max_iter must be at least 1, got {self.max_iter}")
        if not 0 < self.learning_rate_init < math.inf:
            raise ValueError(f"learning_rate_init must be positive and finite, got {self.learning_rate_init}")
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"alpha must be finite and not negative, got {self.alpha}")
        if any(size < 1 for size in self._widths()):
            raise ValueError(f"hidden_layer_sizes must hold widths of at least 1, got {self.hidden_layer_sizes}")

    def _widths(self) -> tuple[int, ...]:
        sizes: Any = self.hidden_layer_sizes
        listed = sizes if np.iterable(sizes) else [sizes]
        return tuple(integer("hidden_layer_sizes", size, "an integer, or several") for size in listed)


def _tensor(values: NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(np.require(values, requirements="W"))  # a copy of read-only memory only


def _network(columns: int, hidden: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [_linear(columns, size, generator), nn.BatchNorm1d(size, dtype=torch.float64), nn.Sigmoid()]
        columns = size
    return nn.Sequential(*layers, _linear(columns, 1, None))


def _linear(columns: int, size: int, generator: torch.Generator | None) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, columns, size, dtype=torch.float64)  # type: ignore[no-untyped-call]
    nn.init.zeros_(layer.bias)
    if generator is None:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.kaiming_normal_(layer.weight, generator=generator)
    return layer


def _batches(rows: int, size: int | None, generator: torch.Generator) -> Iterator[slice | Tensor]:
    if size is None or size >= rows:
        yield slice(None)
        return
    batches = list(torch.randperm(rows, generator=generator).split(int(size)))  # type: ignore[no-untyped-call]
    if len(batches[-1]) == 1:  # batch normalisation needs two
        batches[-2:] = [torch.cat(batches[-2:])]
    yield from batches
