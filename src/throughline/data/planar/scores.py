"""How good predicted hulls and triangulations are ("Pointer Networks", arXiv 1506.03134, section 4)."""

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from throughline.data.planar.polygons import areas, canonical, check_indices, crossing

__all__ = ["hull_scores", "triangulation_scores"]


def hull_scores(
    points: ArrayLike | Tensor, predicted: ArrayLike | Tensor, target: ArrayLike | Tensor
) -> dict[str, float]:
    """How good predicted hulls are.

    A prediction is a simple polygon when it has three points or more and no two of its edges meet but neighbours at
    their common corner. A point named twice in a row (or first and last) counts once.

    Args:
        points: ``(B, n, 2)``.
        predicted: ``(B, m)`` indices, negative behind the end.
        target: ``(B, h)`` the same.

    Returns:
        ``accuracy``, the share of predictions that are the same polygon, from whichever corner and in either
        direction; ``area``, the mean share of the true area that simple polygons cover, 0 when there is none;
        ``invalid``, the share that are no simple polygons. Of a batch of none, each is NaN.

    Raises:
        TypeError: indices are not integer.
        ValueError: shapes do not fit, a point is not finite, or an index is not below n.

    >>> square = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]])
    >>> hull_scores(square, torch.tensor([[0, 1, 2, -1, -1]]), torch.tensor([[0, 1, 2, 3, -1]]))
    {'accuracy': 0.0, 'area': 0.5, 'invalid': 0.0}
    """
    p, sequences = torch.as_tensor(points), (torch.as_tensor(predicted), torch.as_tensor(target))
    for name, x in zip(("predicted", "target"), sequences, strict=True):
        if x.ndim != 2 or p.ndim != 3 or p.shape[-1] != 2 or len(x) != len(p):
            raise ValueError(
                f"points and {name} must be (B, n, 2) and (B, m), got {tuple(p.shape)} and {tuple(x.shape)}"
            )
        check_indices(name, x, p.shape[1])
    wide = p.double()
    if not bool(wide.isfinite().all()):
        raise ValueError(f"points must be finite, got {wide[~wide.isfinite()][0].item()}")
    if not len(p):
        return dict.fromkeys(("accuracy", "area", "invalid"), math.nan)
    width = max(*(x.shape[1] for x in sequences), 1)
    ours, truth = (_without_repetition(_widened(x, width)) for x in sequences)
    valid = ((ours >= 0).sum(-1) >= 3) & ~crossing(wide, ours)
    same = (canonical(ours) == canonical(truth)).all(-1)
    covered = (areas(wide, ours) / areas(wide, truth))[valid]
    return {
        "accuracy": float(same.double().mean()),
        "area": float(covered.mean()) if len(covered) else 0.0,
        "invalid": float((~valid).double().mean()),
    }


def triangulation_scores(predicted: ArrayLike | Tensor, target: ArrayLike | Tensor) -> dict[str, float]:
    """How good predicted triangulations are.

    Args:
        predicted: ``(B, m)`` indices in groups of three, negative behind the end.
        target: ``(B, 3t)`` or wider, the same.

    Returns:
        ``accuracy``, the share of predictions with the same set of triangles (and no incomplete one); ``coverage``,
        the mean share of the true triangles that were found. Of a batch of none, both are NaN.

    Raises:
        TypeError: indices are not integer.
        ValueError: shapes do not fit.

    >>> truth = torch.tensor([[0, 1, 2, 1, 2, 3, -1]])
    >>> triangulation_scores(torch.tensor([[2, 1, 3]]), truth)
    {'accuracy': 0.0, 'coverage': 0.5}
    """
    found, truth = torch.as_tensor(predicted), torch.as_tensor(target)
    if found.ndim != 2 or truth.ndim != 2 or len(found) != len(truth):
        raise ValueError(
            f"predicted and target must be (B, m) and (B, t), got {tuple(found.shape)} and {tuple(truth.shape)}"
        )
    ours, theirs = _triples("predicted", found), _triples("target", truth)
    real, true = (ours >= 0).all(-1), (theirs >= 0).all(-1)
    equal = (ours.unsqueeze(2) == theirs.unsqueeze(1)).all(-1) & real.unsqueeze(-1) & true.unsqueeze(1)  # (B, m, t)
    found = equal.any(1)
    right = equal.any(2) | (ours < 0).all(-1)
    same = (right.all(-1)) & (found | ~true).all(-1)
    coverage = found.sum(-1) / true.sum(-1).clamp_min(1)
    return {"accuracy": float(same.double().mean()), "coverage": float(coverage.double().mean())}


def _widened(x: Tensor, width: int) -> Tensor:
    ended = x.new_full((len(x), width), -1)
    ended[:, : x.shape[1]] = x.masked_fill((x < 0).cumsum(-1) > 0, -1)
    return ended


def _without_repetition(x: Tensor) -> Tensor:
    """Closed sequences in which no index follows itself."""
    count = (x >= 0).sum(-1, keepdim=True)
    before = x.gather(-1, (torch.arange(x.shape[1], device=x.device) - 1) % count.clamp_min(1))
    drop = ((x == before) & (count > 1)) | (x < 0)
    return x.masked_fill(drop, -1).gather(-1, drop.int().argsort(dim=-1, stable=True))


def _triples(name: str, x: Tensor) -> Tensor:
    """``(B, t, 3)`` increasing, -1 for what is not there; an incomplete triple keeps its -1."""
    check_indices(name, x, torch.iinfo(torch.int64).max)
    width = 3 * max(1, -(-x.shape[1] // 3))
    return _widened(x, width).view(len(x), width // 3, 3).sort(-1).values
