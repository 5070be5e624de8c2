"""Convex hulls of a whole batch at once, and closed index sequences as polygons: areas, crossings, equality."""

import torch
from torch import Tensor

__all__ = ["areas", "canonical", "check_indices", "crossing", "hulls"]

ROUNDING = 1e-12  # of the squared extent: a smaller turn counts as straight
AT_ONCE = 2**16  # triples of points in one tensor: they stay in the cache


def hulls(points: Tensor) -> Tensor:
    """Hull vertices of every instance, counter-clockwise from the lowest index: ``(B, n, 2)`` to ``(B, n)``, -1 behind.

    The pair i, j is an edge when every other point lies to its left, or on it between i and j. A point that repeats an
    earlier one is no vertex, which is what padding by copies of a point makes use of. Points on one line have fewer
    than three vertices.
    """
    rows = max(1, AT_ONCE // points.shape[1] ** 3)
    return torch.cat([_hulls(part) for part in torch.split(points, rows)])


def _hulls(points: Tensor) -> Tensor:
    n = points.shape[1]
    step = points.unsqueeze(1) - points.unsqueeze(2)  # (B, i, j, 2): from i to j
    x, y = step[..., 0].contiguous(), step[..., 1].contiguous()
    small = ROUNDING * step.abs().amax((1, 2, 3)).square().view(-1, 1, 1, 1)
    turn = x.unsqueeze(-1) * y.unsqueeze(-2) - y.unsqueeze(-1) * x.unsqueeze(-2)  # (B, i, j, k): k to the left of i j?
    new = ~((x == 0) & (y == 0)).tril(-1).any(-1)  # (B, i): no earlier point is the same
    distinct = new.unsqueeze(-1) & new.unsqueeze(-2) & ~torch.eye(n, dtype=torch.bool, device=points.device)
    row, i, j = ((turn >= -small).all(-1) & distinct).nonzero(as_tuple=True)  # few pairs have nothing to their right
    straight = turn[row, i, j] <= small[row, 0, 0]
    between = x[row, i] * x[row, j] + y[row, i] * y[row, j] <= 0  # i k and j k are opposed
    edge = (~straight | between).all(-1)
    vertex = torch.zeros_like(new)
    vertex[row[edge], i[edge]] = True
    count = vertex.sum(-1, keepdim=True)
    centre = (points * vertex.unsqueeze(-1)).sum(1, keepdim=True) / count.unsqueeze(-1)
    angle = torch.atan2(*(points - centre).flip(-1).unbind(-1)).masked_fill(~vertex, torch.inf)
    order = angle.argsort(-1)
    place = torch.arange(n, device=points.device)
    first = torch.where(place < count, order, n).argmin(-1, keepdim=True)
    return order.gather(-1, (first + place) % count).masked_fill(place >= count, -1)


def canonical(sequences: Tensor) -> Tensor:
    """Closed sequences ``(B, m)``, negative behind their end, from the lowest index towards its lower neighbour."""
    count = (sequences >= 0).sum(-1, keepdim=True).clamp_min(1)
    place = torch.arange(sequences.shape[-1], device=sequences.device)
    inside = place < count
    first = torch.where(inside & (sequences >= 0), sequences, torch.iinfo(sequences.dtype).max).argmin(-1, keepdim=True)
    forward = sequences.gather(-1, (first + place) % count)
    backward = sequences.gather(-1, (first - place) % count)
    second = 1 % count
    turned = backward.gather(-1, second) < forward.gather(-1, second)
    return torch.where(inside, torch.where(turned, backward, forward), -1)


def areas(points: Tensor, sequences: Tensor) -> Tensor:
    """Unsigned area of closed polygons: ``(B, n, 2)`` and ``(B, m)``, negative behind their end, to ``(B,)``."""
    x, y = _corners(points, sequences).unbind(-1)  # copies of the first corner behind the end add nothing
    return ((x * y.roll(-1, -1) - y * x.roll(-1, -1)).sum(-1) / 2).abs()


def crossing(points: Tensor, sequences: Tensor) -> Tensor:
    """Whether two edges of a closed polygon meet that are no neighbours: bool ``(B,)``."""
    m = sequences.shape[-1]
    start = _corners(points, sequences)
    count = (sequences >= 0).sum(-1).clamp_min(1).view(-1, 1, 1)
    place = torch.arange(m, device=points.device)
    end = start.roll(-1, -2)  # behind the last corner stands the first again

    def side(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Of c, seen from a to b, for edges (B, m, 1, 2) and points (B, 1, m, 2)."""
        (x, y), (u, v) = (b - a).unbind(-1), (c - a).unbind(-1)
        return (x * v - y * u).sign()

    a, b, c, d = start.unsqueeze(2), end.unsqueeze(2), start.unsqueeze(1), end.unsqueeze(1)
    apart = (side(a, b, c) * side(a, b, d) <= 0) & (side(c, d, a) * side(c, d, b) <= 0)
    overlap = (torch.minimum(a, b) <= torch.maximum(c, d)) & (torch.minimum(c, d) <= torch.maximum(a, b))
    gap = (place.unsqueeze(-1) - place).remainder(count)
    real = (place.view(1, -1, 1) < count) & (place.view(1, 1, -1) < count)
    strangers = real & (gap > 1) & (gap < count - 1)
    return (apart & overlap.all(-1) & strangers).any((1, 2))


def _corners(points: Tensor, sequences: Tensor) -> Tensor:
    index = torch.where(sequences < 0, sequences[:, :1], sequences).clamp_min(0)
    return points.gather(1, index.unsqueeze(-1).expand(-1, -1, 2))


def check_indices(name: str, x: Tensor, n: int) -> None:
    """Integers below n."""
    if x.is_floating_point() or x.dtype == torch.bool:
        raise TypeError(f"{name} must be integer, got {x.dtype}")
    if x.numel() and int(x.max()) >= n:
        raise ValueError(f"{name} must hold indices below {n}, got {int(x.max())}")
