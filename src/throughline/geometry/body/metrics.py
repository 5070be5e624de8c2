"""How far a body is from the truth: mean distances, in the unit of the input."""

import torch
from torch import Tensor

from throughline.core.checks import check_floating, integer

__all__ = ["joint_error", "procrustes_error", "vertex_error"]


def joint_error(pred: Tensor, true: Tensor, *, root: int | None = 0) -> Tensor:
    """The mean distance of joints, once joint ``root`` is subtracted: the field's MPJPE.

    Args:
        pred: floating point, ``(..., J, 3)``.
        true: likewise; leading dimensions broadcast.
        root: which joint both are moved to; None for neither.

    Returns:
        ``(...,)``.

    Raises:
        TypeError: ``pred`` or ``true`` is no floating point tensor, ``root`` no integer.
        ValueError: shapes do not fit, or there is no joint ``root``.

    >>> pred = torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 5.0]])
    >>> joint_error(pred, torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))  # the second joint is 4 too far back
    tensor(2.)
    """
    _check(pred, true)
    if root is not None:
        count = pred.shape[-2]
        if not -count <= integer("root", root, "a joint's number or None") < count:
            raise ValueError(f"root must be one of {count} joints, got {root}")
        pred, true = (x - x[..., root, :].unsqueeze(-2) for x in (pred, true))
    return _mean_distance(pred, true)


def vertex_error(
    pred: Tensor, true: Tensor, *, pred_root: Tensor | None = None, true_root: Tensor | None = None
) -> Tensor:
    """The mean distance of vertices, once each body's own root is subtracted: per-vertex error.

    Args:
        pred: floating point, ``(..., V, 3)``.
        true: likewise; leading dimensions broadcast.
        pred_root: what is subtracted from ``pred``, ``(..., 3)``; None for nothing.
        true_root: likewise of ``true``.

    Returns:
        ``(...,)``.

    Raises:
        TypeError: an argument is no floating point tensor.
        ValueError: shapes do not fit.

    >>> vertex_error(torch.ones(5, 3), torch.zeros(5, 3), pred_root=torch.tensor([1.0, 1.0, 0.0]))
    tensor(1.)
    """
    _check(pred, true)
    for name, root in (("pred_root", pred_root), ("true_root", true_root)):
        if root is not None:
            check_floating(name, root)
            if root.ndim < 1 or root.shape[-1] != 3:
                raise ValueError(f"{name} must be (..., 3), got shape {tuple(root.shape)}")
    pred = pred if pred_root is None else pred - pred_root.unsqueeze(-2)
    true = true if true_root is None else true - true_root.unsqueeze(-2)
    return _mean_distance(pred, true)


@torch.no_grad()
def procrustes_error(pred: Tensor, true: Tensor) -> Tensor:
    """The mean distance after the rotation, scale and shift of ``pred`` with least squared distance: PA-MPJPE.

    Umeyama's closed form (IEEE TPAMI 13(4), 1991): of K = Σ (x − x̄)(y − ȳ)ᵀ = U S Vᵀ the rotation is V diag(1, 1, ±1)
    Uᵀ, without a reflection. A measure: nothing is differentiated. Where ``pred`` is a single point, that is moved to
    the mean of ``true``.

    Args:
        pred: floating point, ``(..., J, 3)``.
        true: likewise; leading dimensions broadcast.

    Returns:
        ``(...,)``, computed in single precision at least.

    Raises:
        TypeError: ``pred`` or ``true`` is no floating point tensor.
        ValueError: shapes do not fit.

    >>> true = torch.randn(5, 3)
    >>> procrustes_error(2 * true.roll(1, -1) - 7, true) < 1e-5  # permuted axes are a rotation here
    tensor(True)
    """
    _check(pred, true)
    wide = torch.promote_types(torch.promote_types(pred.dtype, true.dtype), torch.float32)
    with torch.autocast(pred.device.type, enabled=False):
        x, y = (a.to(wide) - a.to(wide).mean(-2, keepdim=True) for a in (pred, true))
        size = x.abs().amax((-2, -1), keepdim=True)  # so that squares neither vanish nor overflow
        x = x / torch.where(size > 0, size, 1.0)
        k = x.mT @ y
        usable = k.isfinite().all(-1).all(-1)[..., None, None]  # otherwise the distance is not finite either
        u, s, vh = torch.linalg.svd(torch.where(usable, k, 0.0))
        sign = (torch.linalg.det(u) * torch.linalg.det(vh)).sign()
        flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
        variance = x.square().sum((-2, -1))
        scale = (s * flip).sum(-1) / torch.where(variance > 0, variance, 1.0)
        fitted = scale[..., None, None] * (x @ ((u * flip.unsqueeze(-2)) @ vh))
        return _mean_distance(fitted, y).to(torch.promote_types(pred.dtype, true.dtype))


def _mean_distance(pred: Tensor, true: Tensor) -> Tensor:
    distance: Tensor = torch.linalg.vector_norm(pred - true, dim=-1)
    return distance.mean(-1)


def _check(pred: Tensor, true: Tensor) -> None:
    for name, points in (("pred", pred), ("true", true)):
        check_floating(name, points)
        if points.ndim < 2 or points.shape[-1] != 3 or points.shape[-2] == 0:
            raise ValueError(f"{name} must be (..., n, 3) with n >= 1, got shape {tuple(points.shape)}")
    if pred.shape[-2] != true.shape[-2]:
        raise ValueError(f"pred and true must have as many points, got {pred.shape[-2]} and {true.shape[-2]}")
