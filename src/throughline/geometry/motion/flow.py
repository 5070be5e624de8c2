"""Optical flow at projected vertices, and whether they move as it says."""

import math

import torch
from torch import Tensor

from throughline.core.checks import check_floating
from throughline.geometry.motion.checks import check_points, common_lead, widened

__all__ = ["motion_loss", "sample_flow"]


def sample_flow(flow: Tensor, uv: Tensor) -> Tensor:
    """The flow at points of the image, bilinear between pixel centres, which are integers; beyond the border its own.

    Args:
        flow: floating point, ``(..., H, W, 2)``, H and W at least 1.
        uv: floating point, ``(..., V, 2)``, x and y in pixels; leading dimensions broadcast.

    Returns:
        ``(..., V, 2)``, in the dtype of ``uv``. Gradients reach both arguments.

    Raises:
        TypeError: an argument is no floating point tensor.
        ValueError: a shape does not fit.

    >>> flow = torch.tensor([[[0.0, 0.0], [4.0, 0.0]], [[0.0, 2.0], [4.0, 2.0]]])
    >>> sample_flow(flow, torch.tensor([[0.5, 0.25], [9.0, -9.0]]))
    tensor([[2.0000, 0.5000],
            [4.0000, 0.0000]])
    """
    check_floating("flow", flow)
    check_points("uv", uv)
    if flow.ndim < 3 or flow.shape[-1] != 2 or 0 in flow.shape[-3:-1]:
        raise ValueError(f"flow must be (..., H, W, 2), not empty, got shape {tuple(flow.shape)}")
    common_lead(flow=flow.shape[:-3], uv=uv.shape[:-2])
    height, width = flow.shape[-3:-1]
    places = widened(uv)
    left, x = _cell(places[..., 0], width)
    top, y = _cell(places[..., 1], height)
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    lead = flow.shape[:-3]
    pixels = widened(flow).reshape(math.prod(lead) * height * width, 2)
    first = torch.arange(math.prod(lead), device=flow.device).view(*lead, 1) * (height * width)

    def at(row: Tensor, column: Tensor) -> Tensor:
        return pixels[first + row * width + column].to(places.dtype)

    x, y = x.unsqueeze(-1), y.unsqueeze(-1)
    above = at(top, left) * (1 - x) + at(top, right) * x
    below = at(bottom, left) * (1 - x) + at(bottom, right) * x
    return (above * (1 - y) + below * y).to(uv.dtype)


def motion_loss(uv0: Tensor, uv1: Tensor, flow: Tensor, visible: Tensor) -> Tensor:
    """Σ_i v_i |û_i − F_i|₁ / Σ_i v_i with û = uv1 − uv0: do visible vertices move with the observed flow, in pixels?

    The second label-free loss of "Self-supervised Learning of Motion Capture" (arXiv 1712.01337); its code divides by
    the number of all vertices instead, so that the weight of motion depends on how much is seen. The gradient reaches
    both frames, but not through the place at which the flow is read.

    Args:
        uv0: floating point, ``(..., V, 2)``, where the vertices are in the first frame, in pixels.
        uv1: likewise, in the second.
        flow: from the first frame to the second, x and y in pixels: an image ``(..., H, W, 2)``, which is read at
            ``uv0``, or already sampled ``(..., V, 2)``.
        visible: v, bool, ``(..., V)``, of the first frame. Where it is False, nothing else counts.

    Returns:
        ``(...,)``, in the dtype of ``uv0``; 0 without a visible vertex.

    Raises:
        TypeError: ``visible`` is not boolean, or another argument no floating point tensor.
        ValueError: shapes do not match.

    >>> uv0 = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> motion_loss(uv0, uv0 + 1, torch.tensor([[1.0, 0.5], [9.0, 9.0]]), torch.tensor([True, False]))
    tensor(0.5000)
    """
    check_points("uv0", uv0)
    check_points("uv1", uv1)
    check_floating("flow", flow)
    if not isinstance(visible, Tensor) or visible.dtype != torch.bool:
        got = visible.dtype if isinstance(visible, Tensor) else type(visible).__name__
        raise TypeError(f"visible must be a boolean tensor, got {got}")
    if uv0.shape != uv1.shape:
        raise ValueError(f"uv0 and uv1 must have one shape, got {tuple(uv0.shape)} and {tuple(uv1.shape)}")
    if visible.shape != uv0.shape[:-1]:
        raise ValueError(
            f"visible must be {tuple(uv0.shape[:-1])}, as uv0 {tuple(uv0.shape)}, got {tuple(visible.shape)}"
        )
    if flow.ndim == uv0.ndim + 1:
        if flow.shape[:-3] != uv0.shape[:-2]:
            raise ValueError(
                "flow and uv0 must have the same leading dimensions, "
                f"got shapes {tuple(flow.shape)} and {tuple(uv0.shape)}"
            )
        flow = sample_flow(flow, uv0.detach())
    if flow.shape != uv0.shape:
        raise ValueError(
            f"flow must be an image (..., H, W, 2) or sampled as uv0 {tuple(uv0.shape)}, got shape {tuple(flow.shape)}"
        )
    first = widened(uv0)
    off = uv1.to(first.dtype) - first - flow.to(first.dtype)
    off = torch.where(visible.unsqueeze(-1), off, 0.0)  # ahead of the absolute value, whose slope at NaN is NaN
    return (off.abs().sum((-1, -2)) / visible.sum(-1).clamp(min=1)).to(uv0.dtype)


def _cell(at: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The pixel before each place on an axis, and how far behind it the place is."""
    inside = at.clamp(0, size - 1)
    before = inside.detach().nan_to_num().floor()
    return before.long(), inside - before
