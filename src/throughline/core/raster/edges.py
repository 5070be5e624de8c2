"""Signed distances of pixels to triangles in the image, and their gradient: what both soft renderers share.

With a unit vector along an edge, a pixel is s along it from its middle and h across it, both affine in the pixel. The
nearest point of the edge is min(max(s, -L/2), L/2), so that d² = h² + (s - clamp s)²; the distance to a triangle is the
least of its three edges', and the pixel is inside where all h are positive. All lengths are in units of √σ, so that
±d² is what the sigmoid takes.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core.raster.rows import (
    Boxes,
    Rows,
    blocks,
    boxes,
    corner_numbers,
    number_and_image,
    rows,
    tile_size,
)

__all__ = ["CUT", "Distances", "Options", "Triangles", "add_to_vertices", "distances", "pull", "triangles"]

CUT = math.log(1e4 - 1)  # pairs outside by this much σ or more, of probabilities below 1e-4, are dropped
FLAT = 1e-10  # px², of faces that are skipped


class Options(NamedTuple):
    """What stays the same through a rendering; all numbers, so that it may go through autograd and vmap."""

    size: tuple[int, int]
    sigma: float
    near: float
    max_pairs: int

    @property
    def scale(self) -> float:
        """√σ in a pixel: σ is in units in which the shorter side of the image is 2."""
        return 2 / (min(self.size) * math.sqrt(self.sigma))


class Triangles(NamedTuple):
    """Faces that are drawn, wound so that their area is positive."""

    numbers: Tensor  # (3, n): the vertices of their corners among those of all images
    table: Tensor  # (18, n): per edge its start u, v, direction x, y, half length, and 1 / height over it
    image: Tensor  # (n,): the image that each is in
    first: Tensor  # (n,): where its pixels start
    boxes: Boxes

    def rows(self, options: Options, *, share: int = 1) -> Iterator[Rows]:
        """The pixels near them, in tiles of a share of what may be in memory."""
        limit = tile_size(options.max_pairs, self.first.device)
        return rows(self.boxes, options.size[1], max(1, limit // share))


class Distances(NamedTuple):
    """A tile of pairs; edge k is opposite of corner k."""

    across: Tensor  # (3, width, rows): h, positive inside
    along: Tensor  # (3, width, rows): s clamped to the edge
    beyond: Tensor  # (3, width, rows): s less that
    square: Tensor  # (3, width, rows): d² to each edge
    signed: Tensor  # (width, rows): δ d², and -inf for pairs that are dropped
    start: Tensor  # (3, rows): h of the first pixel of each row
    edge: Tensor  # (18, rows): the table's columns


def triangles(screen: Tensor, faces: Tensor, options: Options) -> Iterator[Triangles]:
    """The faces of all images ``(B, 3, V)`` of u, v and z that are in front and not flat, block by block."""
    images, _, count = screen.shape
    height, width = options.size
    table = screen.movedim(1, 0).flatten(1)
    reach = math.sqrt(CUT) / options.scale
    for part, some in blocks(images, len(faces), max(1, options.max_pairs // 2)):
        numbers = corner_numbers(faces[some], part, count)
        u, v, z = table.index_select(1, numbers.flatten()).view(3, 3, -1)
        area = _area(u, v)
        drawn = (_least(z) >= options.near) & (area.abs() >= 2 * FLAT)
        low = torch.stack([_least(u), _least(v)])
        high = torch.stack([torch.maximum(torch.maximum(x[0], x[1]), x[2]) for x in (u, v)])
        chosen, found = boxes(low, high, drawn, options.size, reach)
        image = number_and_image(chosen, part, some, len(faces))[1]
        numbers, area = numbers.index_select(1, chosen), area.index_select(0, chosen)
        numbers = torch.where(area < 0, torch.cat([numbers[:1], numbers[1:].flip(0)]), numbers)
        u, v, _ = table.index_select(1, numbers.flatten()).view(3, 3, -1)
        du, dv = u.roll(-2, 0) - u.roll(-1, 0), v.roll(-2, 0) - v.roll(-1, 0)
        length = torch.hypot(du, dv)
        unit = options.scale / length
        edges = [u.roll(-1, 0), v.roll(-1, 0), du * unit, dv * unit, length * (options.scale / 2)]
        heights = length / (options.scale * area.abs())
        yield Triangles(numbers, torch.cat([*edges, heights]), image, image * (height * width), found)


def distances(group: Rows, table: Tensor) -> Distances:
    """From the pixels of a tile to their triangles."""
    edge = table.index_select(1, group.box)
    u, v, x, y, half = (edge[k : k + 3] for k in range(0, 15, 3))
    du, dv = group.x.to(u.dtype) - u, group.y.to(u.dtype) - v
    step = group.steps(edge)
    start = x * dv - y * du
    across = torch.addcmul(start.unsqueeze(1), y.unsqueeze(1), step, value=-1)
    beyond = torch.addcmul((x * du + y * dv - half).unsqueeze(1), x.unsqueeze(1), step)
    half = half.unsqueeze(1)
    along = beyond.clamp(-half, half)
    beyond.sub_(along)
    square = torch.addcmul(beyond * beyond, across, across)
    signed = torch.copysign(square.amin(0), across.amin(0))
    F.threshold(signed, -CUT, -torch.inf, inplace=True)
    return Distances(across, along, beyond, square, signed, start, edge)


def pull(found: Distances, weight: Tensor) -> Tensor:
    """Σ over each row of ``weight`` · ∂(δ d²), by u and v of the corners: ``(2, 3, rows)``.

    With q = (1 - t) a + t b the nearest point of the nearest edge, ∂d²/∂a = -2 (1 - t)(p - q), ∂d²/∂b = -2 t (p - q).
    """
    across, along, beyond, square, signed, _, edge = found
    x, y, half = edge[6:9], edge[9:12], edge[12:15]
    weight = _nearest(square, weight * signed.sign())
    twist = along.mul_(half.reciprocal().unsqueeze(1)).mul_(weight)  # weight (2 t - 1)
    straight, twisted = ([(w * v).sum(1) for v in (across, beyond)] for w in (weight, twist))
    (h, s), (h_end, s_end) = (
        [one + sign * other for one, other in zip(straight, twisted, strict=True)] for sign in (-1, 1)
    )
    # p - q is h times the normal (-y, x) and s times the direction (x, y)
    start = torch.stack([y * h - x * s, -x * h - y * s])
    end = torch.stack([y * h_end - x * s_end, -x * h_end - y * s_end])
    return start.roll(1, 1) + end.roll(2, 1)  # edge k runs from corner k + 1 to corner k + 2


def _nearest(square: Tensor, weight: Tensor) -> Tensor:
    """The weights of pairs on the edge that is nearest, ``(3, width, rows)``; in halves where two are.

    By signs, since comparisons of floats and choices between tensors are slow on a CPU.
    """
    found, half = torch.empty_like(square), weight / 2
    first = torch.minimum(square[1], square[2]).sub_(square[0]).sign_()
    torch.addcmul(half, half, first, out=found[0])
    rest = weight - found[0]
    half = rest / 2
    torch.addcmul(half, half, (square[2] - square[1]).sign_(), out=found[1])
    torch.sub(rest, found[1], out=found[2])
    return found


def add_to_vertices(grad: Tensor, numbers: Tensor, values: Tensor) -> None:
    """Add values of corners ``(K, 3, rows)`` to ``(K, B · V)`` of vertices, at ``numbers`` of ``(3, rows)``."""
    for k in range(len(values)):
        grad[k].scatter_add_(0, numbers.flatten(), values[k].flatten())


def _least(x: Tensor) -> Tensor:
    """Of each three, ``(3, n)``: several times as fast as amin."""
    return torch.minimum(torch.minimum(x[0], x[1]), x[2])


def _area(u: Tensor, v: Tensor) -> Tensor:
    """Twice the area of triangles ``(3, n)``, with a sign."""
    return (u[1] - u[0]) * (v[2] - v[0]) - (v[1] - v[0]) * (u[2] - u[0])
