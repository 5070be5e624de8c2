"""Delaunay triangulations in the order of their incentres: one instance through qhull, small ones a batch at a time."""

from itertools import combinations

import torch
from scipy.spatial import Delaunay, QhullError
from torch import Tensor
from torch.nn import functional as F

from throughline.data.planar.polygons import ROUNDING

__all__ = ["triangulate", "triangulate_small"]

AT_ONCE = 2**16  # triples times points in one tensor


def triangulate(points: Tensor) -> Tensor:
    """Triangles of ``(n, 2)`` as increasing indices, ``(t, 3)``, sorted by their incentres."""
    try:
        simplices = Delaunay(points.cpu().numpy()).simplices
    except QhullError:
        raise ValueError("points must be three or more and not all on one line") from None
    found = torch.from_numpy(simplices).to(points.device, torch.int64).sort(-1).values
    return found[_order(points[found].unsqueeze(0))[0]]


def triangulate_small(points: Tensor) -> Tensor:
    """The same for ``(B, n, 2)``: ``(B, 3t)``, -1 behind the end. All triples are tested, so n should be small.

    A triple is a triangle when no point lies inside of its circle. Where four points lie on one circle, or three on a
    line, an instance goes to `triangulate`.
    """
    triples = torch.tensor(list(combinations(range(points.shape[1]), 3)), device=points.device)
    rows = max(1, AT_ONCE // (len(triples) * points.shape[1]))
    return torch.cat([_triangulate_small(part, triples) for part in torch.split(points, rows)])


def _triangulate_small(points: Tensor, triples: Tensor) -> Tensor:
    corners = points[:, triples]  # (B, T, 3, 2)
    u, v = (corners[:, :, 1:] - corners[:, :, :1]).unbind(2)
    turn = _cross(u, v)
    # seen from corner a, w is inside of the circle through a, b, c when |w|² (u×v) < |u|² (w×v) + |v|² (u×w), u×v > 0
    w = points.unsqueeze(1) - corners[:, :, :1]  # (B, T, n, 2)
    u, v = u.unsqueeze(2), v.unsqueeze(2)
    outside = w.square().sum(-1) * turn.unsqueeze(-1)
    outside = outside - u.square().sum(-1) * _cross(w, v) - v.square().sum(-1) * _cross(u, w)
    outside = outside * turn.sign().unsqueeze(-1)
    extent = (points.amax(1) - points.amin(1)).amax(-1).view(-1, 1, 1)
    small, straight = ROUNDING * extent**4, turn.abs() <= ROUNDING * extent.squeeze(-1) ** 2
    empty = (outside >= -small).all(-1) & ~straight
    round_ = (outside <= small).sum(-1) > 3  # a fourth point on the circle
    degenerate = (straight | (empty & round_)).any(-1)
    order = _order(corners, last=~empty)
    most = int(empty.sum(-1).max())
    kept = empty.gather(1, order)[:, :most].unsqueeze(-1)
    found = triples[order[:, :most]].masked_fill(~kept, -1).flatten(1)
    for row in degenerate.nonzero().flatten().tolist():
        alone = triangulate(points[row]).flatten()
        found = F.pad(found, (0, max(0, len(alone) - found.shape[1])), value=-1)
        found[row] = -1
        found[row, : len(alone)] = alone
    width = 3 * (2 * points.shape[1] - 5)  # at most, by Euler's formula
    return F.pad(found, (0, width - found.shape[1]), value=-1)


def _order(corners: Tensor, last: Tensor | None = None) -> Tensor:
    """Places of triangles ``(B, T, 3, 2)`` by incentre, x before y; those of ``last`` at the end."""
    opposite = (corners.roll(-1, 2) - corners.roll(1, 2)).square().sum(-1, keepdim=True).sqrt()
    x, y = ((opposite * corners).sum(2) / opposite.sum(2)).unbind(-1)
    by_y = y.argsort(dim=1, stable=True)
    key = x if last is None else x.masked_fill(last, torch.inf)
    return by_y.gather(1, key.gather(1, by_y).argsort(dim=1, stable=True))


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
