"""The distance between an observed mask and the projected vertices of a body."""

import math

import torch
from torch import Tensor

from throughline.core.checks import check_floating, check_tensor, readable
from throughline.core.raster import distance_transform
from throughline.geometry.motion.checks import check_points, common_lead, widened

__all__ = ["segmentation_loss"]

TILE = 2**22  # bytes of distances that are held at a time: few enough to stay in a processor's cache
HALF = 0.5  # pixel: a vertex that is nearer covers it


def segmentation_loss(
    uv: Tensor,
    mask: Tensor,
    *,
    silhouette: Tensor | None = None,
    distance: Tensor | None = None,
    alpha: float = 0.5,
) -> Tensor:
    """mean_p (α S_M C_I + (1 − α) S_I C_M)²: what a body pays outside of the mask, and the mask outside of the body.

    The third label-free loss of "Self-supervised Learning of Motion Capture" (arXiv 1712.01337), a Chamfer distance of
    masks in pixels². S_I is the observed mask and C_I(p) the distance of pixel p from it. d(p) is the distance from the
    nearest vertex, of which S_M = clamp(1 − d, 0, 1), the body as drawn by its vertices, and C_M, which is d where a
    vertex is half a pixel away or more. Both terms pull without any overlap too, which an intersection does not.

    Distances are computed where they count: at the mask's pixels, V each, in tiles of 4 MB, and about each vertex.

    Args:
        uv: floating point, ``(..., V, 2)``, projected vertices, x and y in pixels of the mask, V at least 1.
        mask: ``(..., H, W)``, bool or numbers of which those above 0.5 are inside; leading dimensions broadcast with
            those of ``uv``.
        silhouette: S_M by another renderer, such as `throughline.core.raster.soft_silhouette`, ``(..., H, W)`` in
            [0, 1].
        distance: C_I, ``distance_transform(mask > 0.5)``, ``(..., H, W)``, to compute it once for many calls.
        alpha: α, in [0, 1].

    Returns:
        ``(...,)``, in the dtype of ``uv``.

    Raises:
        TypeError: ``uv`` is no floating point tensor, or another argument no tensor.
        ValueError: shapes do not match, ``mask`` holds NaN, or α is out of range.

    >>> mask = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    >>> segmentation_loss(torch.tensor([[3.0, 0.0]]), mask)  # three pixels from the mask to the body, and back
    tensor(1.1250)
    """
    check_points("uv", uv)
    check_tensor("mask", mask)
    if uv.shape[-2] == 0:
        raise ValueError(f"uv must hold at least one vertex, got shape {tuple(uv.shape)}")
    if mask.ndim < 2 or 0 in mask.shape[-2:]:
        raise ValueError(f"mask must be (..., H, W), not empty, got shape {tuple(mask.shape)}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    if mask.is_floating_point() and readable(mask) and mask.isnan().any():
        raise ValueError("mask must not hold NaN")
    leads = {"uv": uv.shape[:-2], "mask": mask.shape[:-2]}
    for name, image in {"silhouette": silhouette, "distance": distance}.items():
        if image is not None:
            check_floating(name, image)
            if image.shape[-2:] != mask.shape[-2:]:
                raise ValueError(
                    f"{name} must have the pixels of mask {tuple(mask.shape)}, got shape {tuple(image.shape)}"
                )
            leads[name] = image.shape[:-2]
    lead = common_lead(**leads)
    count, pixels = math.prod(lead), math.prod(mask.shape[-2:])
    wide = widened(uv)
    inside = mask > HALF
    outwards = distance_transform(inside) if distance is None else distance
    points = wide.expand(*lead, *uv.shape[-2:]).reshape(count, *uv.shape[-2:])
    covered = inside.expand(*lead, *mask.shape[-2:]).reshape(count, *mask.shape[-2:])
    gap = _nearest(points, covered).view(*lead, pixels)

    def flat(image: Tensor) -> Tensor:
        return image.to(wide.dtype).flatten(-2)

    shown = (1 - gap).clamp(0, 1) if silhouette is None else flat(silhouette)
    lacking = torch.where(inside.flatten(-2) & ~(gap < HALF), gap, 0.0)
    paid = alpha * shown * flat(outwards) + (1 - alpha) * lacking
    lost = wide.isnan().flatten(-2).any(-1)
    return torch.where(lost, torch.nan, paid.square().mean(-1)).to(uv.dtype)


def _nearest(points: Tensor, covered: Tensor) -> Tensor:
    """Distance from the nearest vertex, ``(B, H W)``; 1 where it is not asked for: off the mask, a pixel away or more.

    Which vertex is the nearest is found without gradient; then the distance is computed from it with gradient.
    """
    height, width = covered.shape[1:]
    fixed, wanted = points.detach(), covered.flatten(1)
    index, close = _adjacent(fixed, height, width)
    index = _far(fixed, index, wanted & ~close, width)
    vertex = points.gather(1, index.unsqueeze(-1).expand(-1, -1, 2))
    x, y = _grid(torch.arange(height * width, device=points.device), width, points.dtype)
    square = (vertex[..., 0] - x).square() + (vertex[..., 1] - y).square()
    apart = square > 0
    gap = torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)  # a root whose slope at 0 is 0
    return torch.where(wanted | close, gap, 1.0)


def _adjacent(points: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The nearest vertex of each pixel that has one less than a pixel away, and which pixels these are.

    Only the four pixels about a vertex can be so near to it: 4 V distances, whatever the image.
    """
    count, vertices = points.shape[:2]
    corners = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=points.dtype, device=points.device)
    corners = points.floor().unsqueeze(-2) + corners  # (B, V, 4, 2)
    square = (corners - points.unsqueeze(-2)).square().sum(-1)
    x, y = corners.unbind(-1)
    near = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (square < 1)
    x, y = (torch.where(near, along, 0.0).long() for along in (x, y))
    spare = height * width  # a pixel more, for what is outside or too far
    pixel = torch.where(near, y * width + x, spare).flatten(1)
    square = torch.where(near, square, 1.0).flatten(1)
    least = square.new_ones(count, spare + 1).scatter_reduce(1, pixel, square, "amin")
    number = torch.arange(vertices, device=points.device).view(-1, 1).expand(-1, 4).reshape(1, -1)
    number = torch.where(square == least.gather(1, pixel), number, vertices)
    index = number.new_full((count, spare + 1), vertices).scatter_reduce(1, pixel, number, "amin")
    return index[:, :-1].clamp(max=vertices - 1), least[:, :-1] < 1


def _far(points: Tensor, index: Tensor, wanted: Tensor, width: int) -> Tensor:
    """``index`` with the nearest vertex of the ``wanted`` pixels, each of which is compared with all vertices."""
    count, pixels = wanted.shape
    if not readable(points):  # no shape may depend on values here: all pixels are compared
        every = torch.arange(pixels, device=points.device).expand(count, -1)
        return torch.where(wanted, _search(points, every, width), index)
    image, pixel = wanted.nonzero(as_tuple=True)
    if len(image) == 0:
        return index
    many = wanted.sum(1)
    place = torch.arange(len(image), device=points.device) - (many.cumsum(0) - many)[image]
    listed = pixel.new_zeros(count, int(many.max()))  # of each image, filled up with its first pixel
    listed[image, place] = pixel
    return index.index_put((image, pixel), _search(points, listed, width)[image, place])


def _search(points: Tensor, pixel: Tensor, width: int) -> Tensor:
    """The nearest vertex of pixels ``(B, P)``, tile by tile."""
    count, vertices = points.shape[:2]
    x, y = _grid(pixel, width, points.dtype)
    right, down = (along.unsqueeze(1) for along in points.unbind(-1))
    images = max(1, TILE // (2 * points.element_size() * vertices))
    found = []
    for first in range(0, count, images):
        rows = slice(first, first + images)
        step = max(1, images // (min(first + images, count) - first))
        parts = []
        for start in range(0, pixel.shape[1], step):
            part = slice(start, start + step)
            square = (x[rows, part, None] - right[rows]).square_()
            parts.append(square.add_((y[rows, part, None] - down[rows]).square_()).argmin(-1))
        found.append(torch.cat(parts, 1))
    return torch.cat(found)


def _grid(pixel: Tensor, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """x and y of pixels that are numbered row by row."""
    return (pixel % width).to(dtype), (pixel // width).to(dtype)
