"""A classifier head that learns a stream in closed form: frozen random expansion, then recursive ridge regression.

"G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning" (arXiv 2403.15706).
"""

import copy
import math
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.continual.analytic.labels import check_batch, check_features, columns, enrol
from throughline.continual.labels import Labels
from throughline.core._growing import resize_to_saved
from throughline.core.ridge import RecursiveRidge

__all__ = ["AnalyticHead", "RandomExpansion"]


class RandomExpansion(nn.Module):
    """A frozen random ReLU layer relu(x Wᵀ), entries of W uniform on ±1/√in_features: the law of the authors' code.

    W is a buffer; there is nothing to train. The same ``generator`` seed gives the same W in every dtype.

    Args:
        in_features: m, at least 1.
        out_features: d, at least 1; useful when larger than m.

    Raises:
        TypeError: features (in `forward`) that are no tensor.
        ValueError: a width below 1, or features of another width.

    >>> RandomExpansion(4, 16)(torch.randn(2, 3, 4)).shape
    torch.Size([2, 3, 16])
    """

    weight: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int = 5000,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ValueError(f"in_features and out_features must be >= 1, got {in_features} and {out_features}")
        source = generator.device if generator is not None else "cpu"
        draw = torch.rand(out_features, in_features, generator=generator, dtype=torch.float64, device=source)
        bound = 1 / math.sqrt(in_features)
        self.register_buffer(
            "weight", (bound * (2 * draw - 1)).to(dtype=dtype or torch.get_default_dtype(), device=device)
        )
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, features: Tensor) -> Tensor:
        check_features(features, self.in_features)
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(features, self.weight.to(features.dtype)).relu()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class AnalyticHead(nn.Module):
    """The G-ACIL classifier: after any part of a stream, exactly the weights of ridge regression on all of it.

    One-hot targets over the classes seen so far, features widened by a frozen random layer, weights by
    `RecursiveRidge` (eqs. 1 to 3). No gradient step, no stored sample; classes may appear at any time and return at any
    time, in batches of any size, and neither order nor partition changes the result.

    Put it behind a frozen encoder: ``head.partial_fit(backbone(x), labels)``, then ``nn.Sequential(backbone, head)``.
    Call ``backbone.eval()`` first (and that of your own ``expansion``): batch norm and dropout in training mode make
    the features depend on the batch, and the result on the partition, silently.

    Args:
        in_features: m, the width of the encoder's features.
        expansion: width of a `RandomExpansion`, a frozen module (n, m) -> (n, d) of your own, or None for none.
        penalty: ridge penalty γ; 100 suits 5,000 expanded features of a vision transformer.
        form: which form of `RecursiveRidge`; ``"covariance"`` when predictions are wanted after every small batch.
        generator: draws the expansion.
        dtype: of state and arithmetic, whatever the dtype of the features; float64 or float32.

    Attributes:
        expansion: what widens the features, or None.
        ridge: the `RecursiveRidge` over them, a column for each class seen.

    Raises:
        ValueError: an argument out of range.

    >>> head = AnalyticHead(2, expansion=None, penalty=0.1)
    >>> head = head.partial_fit(torch.tensor([[1.0, 0.0]]), torch.tensor([7]))
    >>> head = head.partial_fit(torch.tensor([[0.0, 1.0]]), torch.tensor([3]))
    >>> head.predict(torch.eye(2))
    tensor([7, 3])
    """

    classes: Tensor

    def __init__(
        self,
        in_features: int,
        *,
        expansion: int | nn.Module | None = 5000,
        penalty: float = 100.0,
        form: Literal["information", "covariance"] = "information",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        super().__init__()
        if in_features < 1:
            raise ValueError(f"in_features must be >= 1, got {in_features}")
        self.in_features = in_features
        self.expansion: nn.Module
        if expansion is None:
            self.expansion, width = nn.Identity(), in_features
        elif isinstance(expansion, nn.Module):
            self.expansion, width = expansion, _width(expansion, in_features)
        else:
            self.expansion = RandomExpansion(in_features, expansion, generator=generator, device=device, dtype=dtype)
            width = expansion
        self.ridge = RecursiveRidge(width, penalty=penalty, form=form, device=device, dtype=dtype)
        self.register_buffer("classes", torch.zeros(0, dtype=torch.int64, device=device))

    @property
    def weight(self) -> Tensor:
        """``(d, C)``, columns in the order of ``classes`` (ids in order of first appearance, row by row)."""
        return self.ridge.weight

    @torch.no_grad()
    def partial_fit(self, features: Tensor, labels: Labels) -> Self:
        """Learn from ``features (n, m)`` with integer ids ``labels (n,)`` of any value, and forget the rows.

        The labels may be the list or array that a data set has.

        Raises:
            TypeError: features that are no tensor, labels that are no numbers.
            ValueError: shapes that do not fit, labels that are not integers, features that are not finite.
            RuntimeError: see `RecursiveRidge.update`. After either error the head is as it was.
        """
        labels = check_batch(features, labels, self.in_features).to(self.classes)
        classes = enrol(self.classes, labels)
        targets = F.one_hot(columns(classes, labels), len(classes)) if len(labels) else labels[:, None]
        if not torch.linalg.vector_norm(features.to(self.ridge.dtype)).isfinite():  # a ReLU may hide an infinity
            raise ValueError("features must be finite, got NaN or infinity (or values whose squares overflow)")
        self.ridge.update(self._expand(features), targets)
        self.classes = classes
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
        scores: Tensor = self.ridge(self._expand(features).to(self.ridge.dtype))
        return scores

    def _expand(self, features: Tensor) -> Tensor:
        expanded: Tensor = self.expansion(features.to(_dtype(self.expansion, self.ridge.dtype)))
        return expanded

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        resize_to_saved(self, state_dict, prefix, classes=0)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _dtype(module: nn.Module, default: torch.dtype) -> torch.dtype:
    tensors = (*module.parameters(), *module.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), default)


def _width(expansion: nn.Module, in_features: int) -> int:
    """Columns that ``expansion`` makes of ``in_features``; found on a copy, so that no state of it moves."""
    probe = copy.deepcopy(expansion).eval()
    device = next((t.device for t in (*probe.parameters(), *probe.buffers())), None)
    with torch.no_grad():
        made = probe(torch.zeros(1, in_features, dtype=_dtype(probe, torch.get_default_dtype()), device=device))
    if made.dim() != 2 or made.shape[0] != 1:
        raise ValueError(f"expansion must map (n, {in_features}) to (n, d), got {tuple(made.shape)} for n = 1")
    return int(made.shape[1])
