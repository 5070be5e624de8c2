"""TELL as a scikit-learn clusterer (arXiv 1808.07292): of features as they are, or end to end with an autoencoder."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import integer
from throughline.discrete.clustering.first_centers import first_centers
from throughline.discrete.clustering.kmeans_layer import KMeansLayer, nearest, unit

__all__ = ["TELL"]

CHUNK = 2**20  # numbers of a table (rows × features or clusters) at a time: bounds what predict needs
FIRST_ROWS = 2**17  # the most that k-means++ looks at


class TELL(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """k-means by gradient steps on mini-batches, with or without a network in front that learns to be clustered.

    Without ``encoder`` it clusters X itself. ``normalize=True`` is the paper's clustering of directions: `KMeansLayer`
    on x/‖x‖ under Adadelta. ``normalize=False`` is classical online k-means: every centre is the mean of the samples
    that it has received so far, over all epochs.

    With ``encoder`` and ``decoder`` it trains copies of both. After ``pretrain_epochs`` of reconstruction, epochs
    alternate (counted from the first): in even ones the networks follow the reconstruction error and the centres the
    clustering loss, in odd ones the networks follow both and the centres rest. X may then be images of any shape. A
    centre decoded, ``decoder_(layer_.centers)``, is a picture of its cluster.

    Centres start as ``init`` says, on all samples (on 131,072 of them, where there are more). Batches are shuffled in
    every epoch; a last one that is not full is left out, except by ``normalize=False``. But for these first centres
    nothing larger than a batch, or a chunk of predictions, is made beside X. An epoch of n samples and K clusters takes
    O(nK) time.

    Args:
        n_clusters: K, at least 1.
        encoder: maps a batch of X, in float32, to latents ``(n, L)``; it goes with ``decoder``.
        decoder: maps latents of unit length ``(n, L)`` back to the shape of the batch.
        normalize: cluster directions; must be True with an encoder.
        alpha: of the `KMeansLayer`, positive.
        clustering_weight: λ of the clustering loss beside the mean squared error of the reconstruction, not negative.
            The authors' code averages over clusters too: its weight corresponds to 0.01/K here.
        pretrain_epochs: epochs of reconstruction alone, fewer than ``max_epochs``; not used without an encoder.
        max_epochs: passes over X, at least 1.
        batch_size: rows of a step, at least 1.
        lr: learning rate of ``optimizer``, positive.
        tol: stop when no centre has moved by more than this in an epoch, in standard deviations of the data; 0 never
            stops early.
        optimizer: class of the networks' optimizer, called with parameters and ``lr``. The authors use Adadelta at 1.
        init: where centres start: "k-means++", "k-means", the best of ten runs of scikit-learn's, or the centres
            themselves, ``(K, D)``. Behind an encoder "k-means" pays: it learns to keep whatever clusters it is given.
        random_state: draws first centres and batches, and what the networks draw in training.

    Attributes:
        cluster_centers_: ``(K, D)``, of unit length with ``normalize``; of latents with an encoder.
        labels_: ``(n,)`` int32, what `predict` says of the training rows (of the batch, after `partial_fit`).
        inertia_: sum of squared distances to the nearest centre, of x/‖x‖ with ``normalize``.
        n_iter_: epochs made, and steps of `partial_fit`.
        layer_: the `KMeansLayer`.
        encoder_, decoder_: the trained copies, in evaluation mode; None without.
        n_features_in_: columns of X.

    >>> X = np.array([[9.0, 1.0], [1.0, 9.0], [8.0, 2.0], [2.0, 8.0]])
    >>> labels = TELL(2, random_state=0).fit_predict(X)
    >>> bool(labels[0] == labels[2] != labels[1] == labels[3])
    True
    """

    _first: int  # the epoch in which clustering starts

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        normalize: bool = True,
        alpha: float = 1e-3,
        clustering_weight: float = 1e-3,
        pretrain_epochs: int = 0,
        max_epochs: int = 100,
        batch_size: int = 256,
        lr: float = 1e-3,
        tol: float = 1e-4,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        init: Literal["k-means++", "k-means"] | ArrayLike = "k-means++",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.encoder = encoder
        self.decoder = decoder
        self.normalize = normalize
        self.alpha = alpha
        self.clustering_weight = clustering_weight
        self.pretrain_epochs = pretrain_epochs
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.tol = tol
        self.optimizer = optimizer
        self.init = init
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Cluster ``X (n, D)``, or images with an encoder, afresh; ``y`` is not used.

        Where k-means++ finds fewer distinct points (directions, with ``normalize``) than clusters, it warns as
        scikit-learn does, with a ConvergenceWarning.

        Raises:
            TypeError: a count that is no integer.
            ValueError: an option out of range, values that are not finite, fewer (non-zero, with ``normalize``) samples
                than clusters, or networks whose results do not have the promised shapes.
        """
        for _ in self._epochs(X):
            pass
        return self

    def partial_fit(self, X: ArrayLike, y: object = None) -> Self:
        """Take one step on a batch, which counts as an epoch of its own; the first one finds the first centres.

        Errors are those of `fit`. A step with an encoder alternates as epochs do, and centres start again in every one
        of the first ``pretrain_epochs``.
        """
        fresh = not hasattr(self, "layer_")
        rows = self._validated(X, reset=fresh)
        if fresh:
            self._start()
        if self.n_iter_ <= self._first:
            self._place_centers(rows)
        self._step([rows], self.n_iter_)
        self.n_iter_ += 1
        self._describe(rows)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """The number of the nearest centre, ``(n,)``."""
        check_is_fitted(self)
        return self._nearest(self._validated(X, reset=False))[0]

    @torch.no_grad()
    def transform(self, X: ArrayLike) -> NDArray[Any]:
        """Distances (not squared) to all centres, ``(n, K)``."""
        check_is_fitted(self)
        rows = self._validated(X, reset=False)
        parts = [(self.layer_.distances(z.double()).sqrt().to(z.dtype).cpu().numpy()) for z in self._latents(rows)]
        return np.concatenate(parts)

    def _epochs(self, X: ArrayLike) -> Iterator[int]:
        """Fit, and say after every epoch which one it was."""
        rows = self._validated(X, reset=True)
        self._start()
        size, ragged = min(self.batch_size, len(rows)), not self.normalize
        for epoch in range(self.max_epochs):
            if epoch == self._first:
                self._place_centers(rows)
                still = self.tol * self._spread(rows) if self.tol else -1.0
            order = self._rng.permutation(len(rows))
            end = len(rows) if ragged else len(rows) - len(rows) % size
            before = self.layer_.centers.detach() if epoch >= self._first else None
            self._step((rows[order[i : i + size]] for i in range(0, end, size)), epoch)
            self.n_iter_ = epoch + 1
            yield epoch
            if before is not None and self._centers_move(epoch):
                moved = torch.linalg.vector_norm(self.layer_.centers.detach() - before, dim=-1).max()
                if moved <= still:
                    break
        self._describe(rows)

    def _start(self) -> None:
        """Check the options, and forget everything."""
        self._check_options()
        self._rng = check_random_state(self.random_state)
        self.n_iter_ = 0
        self._first = 0 if self.encoder is None else self.pretrain_epochs
        self.encoder_, self.decoder_ = copy.deepcopy(self.encoder), copy.deepcopy(self.decoder)
        if self.encoder_ is not None and self.decoder_ is not None:
            self._optimizer = self.optimizer([*self.encoder_.parameters(), *self.decoder_.parameters()], lr=self.lr)

    def _place_centers(self, rows: NDArray[Any]) -> None:
        """A new layer with its first centres."""
        if len(rows) < self.n_clusters:
            raise ValueError(f"X must have at least n_clusters={self.n_clusters} samples, got n_samples={len(rows)}")
        if len(rows) > FIRST_ROWS:
            rows = rows[self._rng.choice(len(rows), max(FIRST_ROWS, self.n_clusters), replace=False)]
        z = torch.cat(list(self._latents(rows)))
        if self.normalize:
            z = unit(z[z.any(-1)])
            if len(z) < self.n_clusters:
                raise ValueError(
                    f"X must have at least n_clusters={self.n_clusters} samples with a direction when normalize=True, "
                    f"got n_samples={len(z)} that are not zero"
                )
        layer = KMeansLayer(
            z.shape[1],
            self.n_clusters,
            alpha=self.alpha,
            normalize=self.normalize,
            generator=torch.Generator().manual_seed(0),  # these centres are replaced at once
        )
        self.layer_ = layer.to(z.device, z.dtype if self.normalize else torch.float64)  # running means want all digits
        centers = first_centers(z.cpu().numpy(), self.n_clusters, self.init, directions=self.normalize, rng=self._rng)
        self.layer_.set_centers_(torch.as_tensor(centers).to(self.layer_.weight))
        self._adadelta = torch.optim.Adadelta(self.layer_.parameters())
        self._received = torch.zeros(self.n_clusters, dtype=torch.int64, device=z.device)

    @torch.enable_grad()
    def _step(self, batches: Iterable[NDArray[Any]], epoch: int) -> None:
        """One step on each batch, of the kind that ``epoch`` takes."""
        if self.encoder_ is None or self.decoder_ is None:
            for batch in batches:
                self._move_centers(self._tensor(batch))
            return
        gpus = [device] if (device := _device(self.encoder_)).type == "cuda" else []
        with torch.random.fork_rng(gpus):  # what dropout draws is ours to seed, and leaks nowhere
            torch.manual_seed(int(self._rng.randint(2**31 - 1)))
            self.encoder_.train()
            self.decoder_.train()
            for batch in batches:
                x = self._tensor(batch)
                z = F.normalize(self._encoded(x), dim=-1)
                decoded = self.decoder_(z)
                if decoded.shape != x.shape:
                    raise ValueError(
                        f"decoder must map latents {tuple(z.shape)} to the shape of X, {tuple(x.shape)}, "
                        f"got {tuple(decoded.shape)}"
                    )
                loss = F.mse_loss(decoded, x)
                if epoch >= self._first and not self._centers_move(epoch):
                    loss = loss + self.clustering_weight * self.layer_.loss(z)
                self._optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
                if self._centers_move(epoch):
                    self._move_centers(z.detach())

    def _centers_move(self, epoch: int) -> bool:
        return self.encoder_ is None or (epoch >= self._first and epoch % 2 == 0)

    def _move_centers(self, z: Tensor) -> None:
        if self.normalize:
            spherical_step_(self.layer_, z, self._adadelta)
        else:
            online_step_(self.layer_, z, self._received)

    def _describe(self, rows: NDArray[Any]) -> None:
        self.labels_, self.inertia_ = self._nearest(rows)
        centers = self.layer_.centers.detach().cpu().numpy()
        self.cluster_centers_ = centers.astype(np.float32, copy=False) if rows.dtype == np.float32 else centers
        self._n_features_out = self.n_clusters

    @torch.no_grad()
    def _nearest(self, rows: NDArray[Any]) -> tuple[NDArray[np.int32], float]:
        """The nearest centre of every row, and the sum of its squared distances."""
        labels, inertia = [], 0.0
        for z in self._latents(rows):
            places, seen, centers = nearest(self.layer_, z)
            apart = seen - F.embedding(places, centers.to(seen.dtype))  # exact where ‖x‖² - 2xΩ + ‖Ω‖² cancels
            inertia += float(apart.square_().sum(-1).sum(dtype=torch.float64))
            labels.append(places.to(torch.int32).cpu().numpy())
        return np.concatenate(labels), inertia

    @torch.no_grad()
    def _spread(self, rows: NDArray[Any]) -> float:
        """The standard deviation of what is clustered, over all columns."""
        total: Any = 0.0
        squares: Any = 0.0
        first = None
        for z in self._latents(rows):
            z = (unit(z) if self.normalize else z).double()
            first = z[0] if first is None else first  # shifted, the squares do not swamp the variance
            total = total + (z - first).sum(0)
            squares = squares + (z - first).square().sum(0)
        return float((squares / len(rows) - (total / len(rows)).square()).clamp_min(0).mean().sqrt())

    @torch.no_grad()
    def _latents(self, rows: NDArray[Any]) -> Iterator[Tensor]:
        """What is clustered of X, in chunks: the rows themselves, or the encoder's output in evaluation mode."""
        if self.encoder_ is not None and self.decoder_ is not None:
            self.encoder_.eval()
            self.decoder_.eval()
            size = self.batch_size
        else:
            size = max(1, CHUNK // max(rows.shape[1], self.n_clusters))
        for i in range(0, len(rows), size):
            x = self._tensor(rows[i : i + size])
            yield x if self.encoder_ is None else self._encoded(x)

    def _encoded(self, x: Tensor) -> Tensor:
        assert self.encoder_ is not None
        z: Tensor = self.encoder_(x)
        if z.ndim != 2 or len(z) != len(x):
            raise ValueError(f"encoder must map {tuple(x.shape)} to ({len(x)}, L), got {tuple(z.shape)}")
        return z

    def _tensor(self, rows: NDArray[Any]) -> Tensor:
        """A few rows in the dtype and on the device of the computation."""
        dtype = np.float64 if self.encoder_ is None and rows.dtype != np.float32 else np.float32
        x = torch.from_numpy(np.require(rows, dtype, "W"))  # a copy where the dtype differs or memory is read-only
        return x if self.encoder_ is None else x.to(_device(self.encoder_))

    def _validated(self, X: ArrayLike, *, reset: bool) -> NDArray[Any]:
        rows: NDArray[Any] = validate_data(self, X, reset=reset, dtype="numeric", allow_nd=self.encoder is not None)
        if reset:
            self._sample_shape = rows.shape[1:]
        elif rows.shape[1:] != self._sample_shape:
            raise ValueError(f"X must have samples of shape {self._sample_shape} as in fit, got {rows.shape[1:]}")
        return rows

    def _check_options(self) -> None:
        for name in ("n_clusters", "max_epochs", "batch_size", "pretrain_epochs"):
            integer(name, getattr(self, name))
        for name in ("n_clusters", "max_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if (self.encoder is None) != (self.decoder is None):
            given, missing = ("decoder", "encoder") if self.encoder is None else ("encoder", "decoder")
            raise ValueError(f"encoder and decoder go together, got {given} and no {missing}")
        if self.encoder is not None and not self.normalize:
            raise ValueError("normalize must be True with an encoder, whose latents live on the sphere; got False")
        if self.encoder is not None and not 0 <= self.pretrain_epochs < self.max_epochs:
            raise ValueError(
                f"pretrain_epochs must be in [0, max_epochs) with max_epochs={self.max_epochs}, "
                f"got {self.pretrain_epochs}"
            )
        if np.ndim(self.init) != 2 and not (isinstance(self.init, str) and self.init in ("k-means++", "k-means")):
            raise ValueError(f'init must be "k-means++", "k-means" or an array of centres, got {self.init!r}')
        for name in ("alpha", "lr"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {getattr(self, name)}")
        for name in ("clustering_weight", "tol"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


@torch.no_grad()
def spherical_step_(layer: KMeansLayer, x: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """The step of the paper: against the gradient of `KMeansLayer.loss`, -Σ_{i∈j} x_i/(αn), at a length of its own."""
    labels, x, centers = nearest(layer, x)
    layer.weight.grad = torch.zeros_like(centers).index_add_(0, labels, x).neg_()
    layer.normalize_gradient_()
    optimizer.step()
    layer.project_()


@torch.no_grad()
def online_step_(layer: KMeansLayer, x: Tensor, received: Tensor) -> None:
    """Ω_j ← Ω_j + Σ_{i∈j}(x_i - Ω_j)/N_j over a batch, with N_j, ``received (K,)``, counted on."""
    labels, seen, near = nearest(layer, x)
    number = torch.bincount(labels, minlength=layer.n_clusters)
    received += number
    sums = torch.zeros(near.shape, dtype=x.dtype, device=x.device).index_add_(0, labels, seen)
    gain = (sums - number[:, None] * near) / received.clamp_min(1)[:, None]
    layer.set_centers_(layer.centers + gain)
