"""k-means written as a linear layer ("XAI Beyond Classification: Interpretable Neural Clustering", TELL, arXiv
1808.07292): rows are centres, logits are shifted squared distances, the loss is the inertia.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.core.checks import check_floating, check_tensor, integer, readable

__all__ = ["KMeansLayer"]


class KMeansLayer(nn.Module):
    """A linear layer whose rows are cluster centres and whose argmax is the nearest of them.

    With centres Ω, W = 2αΩ and b_j = -α‖Ω_j‖², the logits W x + b are α(‖x‖² - ‖x - Ω_j‖²): their softmax is the soft
    assignment by squared distance at inverse temperature α, their argmax the nearest centre. The bias is made of W in
    every pass, so that W is all there is to learn. With ``normalize`` samples and centres live on the unit sphere, the
    bias is one constant and is left out; `project_` puts the centres back there after a step.

    The step of the paper, which moves centres of crowded and of deserted clusters alike::

        layer.loss(z).backward(); layer.normalize_gradient_(); optimizer.step(); layer.project_()

    with ``torch.optim.Adadelta(layer.parameters())``. Results have the dtype of the input, float32 at least, for half
    precision would tie near centres. A zero vector is equally far from all centres of unit length.

    Args:
        n_features: D, at least 1.
        n_clusters: K, at least 1.
        alpha: inverse temperature of the soft assignment, positive and finite. It scales the logits, not the clusters.
        normalize: cluster x/‖x‖ with centres of unit length; otherwise x as it is.
        generator: draws the first centres, Gaussian and, with ``normalize``, projected.

    Attributes:
        weight: W ``(K, D)``, the one parameter; 2α times the centres.

    Raises:
        TypeError: a number of features or clusters that is no integer.
        ValueError: an argument out of range.

    >>> layer = KMeansLayer(2, 2, normalize=False)
    >>> layer.set_centers_(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    >>> x = torch.tensor([3.0, 0.0])
    >>> layer.distances(x).detach().round(decimals=3), layer.assign(x)
    (tensor([ 9., 16.]), tensor(0))
    """

    def __init__(
        self,
        n_features: int,
        n_clusters: int,
        *,
        alpha: float = 1e-3,
        normalize: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        n_features, n_clusters = integer("n_features", n_features), integer("n_clusters", n_clusters)
        if n_features < 1 or n_clusters < 1:
            raise ValueError(f"n_features and n_clusters must be >= 1, got {n_features} and {n_clusters}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be positive and finite, got {alpha}")
        self.n_features = n_features
        self.n_clusters = n_clusters
        self.alpha = alpha
        self.normalize = normalize
        device = generator.device if generator is not None else None
        drawn = torch.randn(n_clusters, n_features, generator=generator, device=device)
        self.weight = nn.Parameter(2 * alpha * drawn)
        self.project_()

    @property
    def centers(self) -> Tensor:
        """Ω, ``(K, D)``, with the gradient of ``weight``: what a decoder turns into pictures of the clusters."""
        return self.weight / (2 * self.alpha)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, ``(..., D)`` to ``(..., K)``.

        Without ``normalize`` they lose digits far from the origin, by their definition; `distances`, `assign` and
        `loss` measure from the middle of the centres, and do not.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: the last dimension is not ``n_features``.
        """
        x = self._samples(x)
        return self._logits(x, self.weight)

    def distances(self, x: Tensor) -> Tensor:
        """Squared distances of ``x`` (of x/‖x‖ with ``normalize``) to all centres, ``(..., D)`` to ``(..., K)``.

        By way of the logits, so to about the rounding of ‖x‖² + ‖Ω_j‖², measured from the middle of the centres. Errors
        are those of `forward`.
        """
        x, weight = self._centred(x)
        return self._squared(x, self._logits(x, weight)).clamp_min(0)

    @torch.no_grad()
    def assign(self, x: Tensor) -> Tensor:
        """The number of the nearest centre, ``(..., D)`` to ``(...)`` int64.

        Errors are those of `forward`, and ValueError for NaN and infinities; where values cannot be looked at (under
        torch.compile and torch.func) these get -1.
        """
        return nearest(self, x)[0]

    def loss(self, x: Tensor, *, hard: bool = True) -> Tensor:
        """Mean over samples of the squared distance to the nearest centre, or of its mean under the soft assignment.

        ``x (..., D)``, at least one sample, to a scalar. The hard loss is k-means: it moves x towards its centre, and
        its gradient reaches the nearest row alone, which it moves in Lloyd's direction. On the sphere it is the paper's
        2 - max_j logit_j/α, linear in W. Errors are those of `forward`.
        """
        x, weight = self._centred(x)
        if not hard:
            logits = self._logits(x, weight)
            return (logits.softmax(-1) * self._squared(x, logits)).sum(-1).mean()
        with torch.no_grad():
            labels = self._logits(x, weight).argmax(-1)
        center = F.embedding(labels, weight.to(x.dtype) / (2 * self.alpha))
        if self.normalize:
            return (x.square().sum(-1) + 1 - 2 * (x * center).sum(-1)).mean()
        return (x - center).square().sum(-1).mean()

    @torch.no_grad()
    def set_centers_(self, centers: Tensor) -> None:
        """Take ``centers (K, D)``, projected with ``normalize``; ValueError for another shape."""
        check_tensor("centers", centers)
        if centers.shape != self.weight.shape:
            raise ValueError(f"centers must have shape {tuple(self.weight.shape)}, got {tuple(centers.shape)}")
        self.weight.copy_(2 * self.alpha * centers)
        self.project_()

    @torch.no_grad()
    def normalize_gradient_(self, scale: float = 0.2) -> None:
        """Bring every row of the weight's gradient to length ``scale``·α; rows without samples stay zero.

        Raises:
            RuntimeError: there is no gradient yet.
        """
        if self.weight.grad is None:
            raise RuntimeError("normalize_gradient_ needs the gradient of weight: call loss(x).backward() before it")
        self.weight.grad.copy_(scale * self.alpha * unit(self.weight.grad))

    @torch.no_grad()
    def project_(self) -> None:
        """Bring the centres to unit length, the rows to 2α; nothing without ``normalize``, and to rows of zeros."""
        if self.normalize:
            self.weight.copy_(2 * self.alpha * unit(self.weight))

    def _samples(self, x: Tensor) -> Tensor:
        check_floating("x", x)
        if x.ndim == 0 or x.shape[-1] != self.n_features:
            raise ValueError(f"x must be (..., {self.n_features}), got shape {tuple(x.shape)}")
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return unit(x) if self.normalize else x

    def _centred(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Samples and weight seen from the middle of the centres: distances stay, an offset cancels no digits.

        The weight keeps the digits that it has.
        """
        x = self._samples(x)
        if self.normalize:
            return x, self.weight.to(x.dtype)
        weight = self.weight.to(torch.promote_types(self.weight.dtype, x.dtype))
        middle = (weight.detach().mean(0) / (2 * self.alpha)).to(x.dtype)
        return x - middle, weight - 2 * self.alpha * middle.to(weight.dtype)

    def _logits(self, x: Tensor, weight: Tensor) -> Tensor:
        weight = weight.to(x.dtype)
        bias = None if self.normalize else weight.square().sum(-1) / (-4 * self.alpha)
        with without_autocast(x.device):
            return F.linear(x, weight, bias)

    def _squared(self, x: Tensor, logits: Tensor) -> Tensor:
        constant = 1.0 if self.normalize else 0.0  # what the bias that was left out would have added
        return x.square().sum(-1, keepdim=True) + constant - logits / self.alpha

    def extra_repr(self) -> str:
        return f"{self.n_features}, {self.n_clusters}, alpha={self.alpha}, normalize={self.normalize}"


@torch.no_grad()
def nearest(layer: KMeansLayer, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `KMeansLayer.assign` returns, with the samples and the centres that it has compared."""
    x, weight = layer._centred(x)
    best, labels = layer._logits(x, weight).max(-1)
    known = best.isfinite()
    if not readable(known):
        labels = labels.masked_fill(~known, -1)
    elif not known.all():
        raise ValueError("x must be finite, got NaN, an infinity or what overflows")
    return labels, x, weight / (2 * layer.alpha)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """No autocast; nothing at all where there is none, for small products notice a context."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()


def unit(x: Tensor) -> Tensor:
    """x/‖x‖ along the last dimension, however small; zero vectors stay zero and have the gradient of the identity."""
    peak = x.detach().abs().amax(-1, keepdim=True)
    x = x / torch.where(peak > 0, peak, 1.0)  # the result does not depend on this factor, nor does its gradient
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / length.clamp_min(1)
