"""Streaming linear discriminant analysis, the best exemplar-free rival in the G-ACIL paper (arXiv 2403.15706).

The method is "Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis" (arXiv 1909.01520), with the
covariance accumulated over the whole stream.
"""

from typing import Any, Self

import torch
from torch import Tensor, nn

from throughline.continual.analytic.labels import check_batch, check_features, columns, enrol
from throughline.continual.labels import Labels
from throughline.core._growing import resize_to_saved

__all__ = ["StreamingLDA"]


class StreamingLDA(nn.Module):
    """Linear discriminant analysis over a stream, exact for any order and partition; no class priors.

    Keeps running class means μ_c and the pooled within-class scatter S of N rows. With the precision
    Λ = ((1 - ε) S/N + ε I)⁻¹, class c scores μ_cᵀ Λ x - ½ μ_cᵀ Λ μ_c. Its interface is that of `AnalyticHead`.

    Args:
        in_features: m, at least 1.
        shrinkage: ε in (0, 1]: how far the covariance is pulled to the identity, in the units of the features squared.
        dtype: of state and arithmetic, whatever the dtype of the features; float64 or float32.

    Raises:
        ValueError: an argument out of range.

    >>> lda = StreamingLDA(2).partial_fit(torch.eye(2), torch.tensor([7, 3]))
    >>> lda.predict(torch.eye(2))
    tensor([7, 3])
    """

    classes: Tensor
    means: Tensor
    counts: Tensor
    scatter: Tensor
    _discriminant: Tensor | None

    def __init__(
        self,
        in_features: int,
        *,
        shrinkage: float = 1e-4,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if in_features < 1:
            raise ValueError(f"in_features must be >= 1, got {in_features}")
        if not 0 < shrinkage <= 1:
            raise ValueError(f"shrinkage must be in (0, 1], got {shrinkage}")
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
        self.in_features = in_features
        self.shrinkage = shrinkage
        self.register_buffer("classes", torch.zeros(0, dtype=torch.int64, device=device))
        self.register_buffer("means", torch.zeros(0, in_features, device=device, dtype=dtype))
        self.register_buffer("counts", torch.zeros(0, device=device, dtype=torch.int64))
        self.register_buffer("scatter", torch.zeros(in_features, in_features, device=device, dtype=dtype))
        self.register_buffer("_discriminant", None, persistent=False)

    @property
    @torch.no_grad()
    def weight(self) -> Tensor:
        """``(m, C)``: Λ μ_c by columns, in the order of ``classes``; solved at the first read after an update."""
        if self._discriminant is None:
            system = self.scatter * ((1 - self.shrinkage) / self.counts.sum().clamp_min(1).to(self.scatter))
            system.diagonal().add_(self.shrinkage)
            try:
                factor = torch.linalg.cholesky(system)
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
                raise RuntimeError(
                    f"the covariance is not positive definite in {system.dtype}: shrinkage={self.shrinkage:g} is too "
                    f"small for these features ({error})"
                ) from error
            self._discriminant = torch.cholesky_solve(self.means.mT, factor)
        return self._discriminant

    @torch.no_grad()
    def partial_fit(self, features: Tensor, labels: Labels) -> Self:
        """Learn from ``features (n, m)`` with integer ids ``labels (n,)`` of any value, and forget the rows.

        The labels may be the list or array that a data set has.

        Raises:
            TypeError: features that are no tensor, labels that are no numbers.
            ValueError: shapes that do not fit, labels that are not integers, features that are not finite. The learner
                is then as it was.
        """
        labels = check_batch(features, labels, self.in_features).to(self.classes)
        x = features.to(self.means)
        if not torch.linalg.vector_norm(x).isfinite():
            raise ValueError("features must be finite, got NaN or infinity (or values whose squares overflow)")
        if not len(x):
            return self
        classes = enrol(self.classes, labels)
        new = len(classes) - len(self.classes)
        means, old = nn.functional.pad(self.means, (0, 0, 0, new)), nn.functional.pad(self.counts, (0, new))
        column = columns(classes, labels)
        fresh = torch.bincount(column, minlength=len(classes))
        batch_means = torch.zeros_like(means).index_add_(0, column, x) / fresh.clamp_min(1)[:, None]
        within = x - batch_means[column]
        shift = (batch_means - means) * (fresh > 0)[:, None]
        share = (fresh.to(x) / (old + fresh).to(x))[:, None]  # k / (n + k), class by class
        between = shift * (share * old[:, None]).sqrt()  # n k / (n + k)
        self.scatter.addmm_(within.mT, within).addmm_(between.mT, between)
        self.means = means + shift * share
        self.counts = old + fresh
        self.classes = classes
        self._discriminant = None
        return self

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """Scores ``(..., m)`` to ``(..., C)`` in the features' dtype.

        Raises:
            ValueError: features of another width, or no data yet.
        """
        scores = self._scores(features)
        return scores.to(features.dtype) if features.is_floating_point() else scores

    @torch.no_grad()
    def predict(self, features: Tensor) -> Tensor:
        """The id of the best class seen so far: ``(..., m)`` to ``(...)``. Errors are those of `forward`."""
        return self.classes[self._scores(features).argmax(-1)]

    def _scores(self, features: Tensor) -> Tensor:
        check_features(features, self.in_features)
        if not len(self.classes):
            raise ValueError("partial_fit must be called with data before forward or predict, got no class so far")
        with torch.autocast(features.device.type, enabled=False):
            offset = (self.weight * self.means.mT).sum(0) / 2
            return features.to(self.means) @ self.weight - offset

    def extra_repr(self) -> str:
        return f"{self.in_features}, shrinkage={self.shrinkage:g}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        resize_to_saved(self, state_dict, prefix, classes=0, means=0, counts=0)
        self._discriminant = None
        super()._load_from_state_dict(state_dict, prefix, *args)
