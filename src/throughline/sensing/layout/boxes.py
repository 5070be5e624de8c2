"""Exact means of a bilinear image over rectangles."""

import math

import torch
from torch import Tensor

from throughline.core.checks import check_floating, readable
from throughline.sensing.layout.warp import geometry

__all__ = ["averaged", "box_average", "check_image"]


def box_average(image: Tensor, x_edges: Tensor, y_edges: Tensor) -> Tensor:
    """Exact mean of the bilinear image over every rectangle of a grid, by two small matrix products.

    The image is continued as a constant in its outermost half pixel. Everything is C¹ in the edges, so that autograd
    yields the integral over the pixel boundary that the paper estimates by sampling.

    Args:
        image: floating point, ``(..., H, W)``.
        x_edges: ``(w + 1,)``, increasing, in [-1, 1].
        y_edges: ``(h + 1,)``, increasing, in [-1, 1].

    Returns:
        ``(..., h, w)`` in the dtype of ``image``; differentiable in all three arguments.

    Raises:
        TypeError: an argument is not floating point.
        ValueError: ``image`` has fewer than 2 dimensions, or edges are not 1-D, do not increase or leave [-1, 1].

    >>> box_average(torch.arange(4.0).expand(4, 4), torch.tensor([-1.0, 0.0, 1.0]), torch.tensor([-1.0, 1.0]))
    tensor([[0.5625, 2.4375]])
    """
    check_image(image, 2)
    for name, edges in (("x_edges", x_edges), ("y_edges", y_edges)):
        check_floating(name, edges)
        if edges.ndim != 1 or len(edges) < 2:
            raise ValueError(f"{name} must have shape (n,) with n >= 2, got {tuple(edges.shape)}")
        if readable(edges):
            if not bool((edges.diff() > 0).all()):
                raise ValueError(f"{name} must increase, got {edges.tolist()}")
            if edges[0] < -1 or edges[-1] > 1:
                raise ValueError(f"{name} must lie in [-1, 1], got {edges.tolist()}")
    return averaged(image, x_edges, y_edges)


def averaged(image: Tensor, x_edges: Tensor, y_edges: Tensor) -> Tensor:
    rows = _box_weights(geometry(y_edges, image.dtype), image.shape[-2]).to(image.dtype)
    columns = _box_weights(geometry(x_edges, image.dtype), image.shape[-1]).to(image.dtype)
    count = math.prod(image.shape[:-2])
    # bmm on a view of the rows: broadcasting matmul would transpose and copy the images instead
    with torch.autocast(image.device.type, enabled=False):
        narrow = torch.bmm(rows.expand(count, -1, -1), image.reshape(count, *image.shape[-2:]))
        return (narrow @ columns.mT).reshape(*image.shape[:-2], len(rows), len(columns))


def _box_weights(edges: Tensor, n: int) -> Tensor:
    """Mean of each of the n clamped linear basis functions over each interval: ``(k + 1,)`` to ``(k, n)``."""
    position = (edges + 1) * (n / 2)
    center = torch.arange(n, device=edges.device, dtype=edges.dtype) + 0.5
    distance = (position[:, None] - center).clamp(-1, 1)
    before = distance.clamp(max=0)
    after = distance - before  # not a second clamp: at distance 0 the gradient must be counted once
    rising = (center > 1).to(edges.dtype)  # the first function is flat before its pixel's centre, the last behind it
    falling = (center < n - 1).to(edges.dtype)
    # integrals over the rising and the falling side, as products: thin intervals lose no digits to cancellation
    rise = before.diff(dim=0) * (1 + rising * (before[1:] + before[:-1]) / 2)
    fall = after.diff(dim=0) * (1 - falling * (after[1:] + after[:-1]) / 2)
    return (rise + fall) / position.diff()[:, None]


def check_image(image: Tensor, dims: int, name: str = "image") -> None:
    check_floating(name, image)
    if image.ndim < dims:
        raise ValueError(f"{name} must have at least {dims} dimensions, got shape {tuple(image.shape)}")
