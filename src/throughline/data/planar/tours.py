"""Shortest tours: Held and Karp's dynamic programme for a whole batch, Christofides, and local search."""

import torch
from torch import Tensor

__all__ = ["christofides", "distances", "held_karp", "local_search", "oriented"]

AT_ONCE = 2**22  # entries of the dynamic programme's table, instances together; one of 20 points has more
STARTS = 2**17  # entries of a local search's table of moves, starts together


def distances(points: Tensor) -> Tensor:
    """``(..., n, 2)`` to ``(..., n, n)``."""
    step = points.unsqueeze(-2) - points.unsqueeze(-3)
    return step.square().sum(-1).sqrt()


def oriented(tours: Tensor) -> Tensor:
    """Tours ``(..., n)`` from point 0 on, in the direction in which the second index is below the last."""
    n = tours.shape[-1]
    place = torch.arange(n, device=tours.device)
    tours = tours.gather(-1, (tours.argmin(-1, keepdim=True) + place) % n)
    back = torch.cat([tours[..., :1], tours[..., 1:].flip(-1)], -1)
    return torch.where(tours[..., 1:2] > tours[..., -1:], back, tours)


def held_karp(points: Tensor) -> Tensor:
    """Shortest tours of ``(B, n, 2)`` as ``(B, n)``: O(2ⁿ n²) operations, 2ⁿ⁻¹ (n - 1) numbers for each instance."""
    n = points.shape[1]
    each = 2 ** (n - 1) * (n - 1)
    parts = torch.split(points, max(1, AT_ONCE // each))
    return torch.cat([oriented(_held_karp(distances(part))) for part in parts])


def _held_karp(d: Tensor) -> Tensor:
    """The cost of the cheapest path from 0 through a subset to its member j, by size of the subset; instances last."""
    batch, m = len(d), d.shape[-1] - 1
    d = d.movedim(0, -1).contiguous()
    between = d[1:, 1:]
    cost = d.new_full((2**m, m, batch), torch.inf)
    bit = 1 << torch.arange(m, device=d.device)
    cost[bit, bit.log2().long()] = d[0, 1:]
    subsets = torch.arange(2**m, device=d.device)
    member = (subsets.unsqueeze(-1) & bit) > 0
    size = member.sum(-1)
    for many in range(2, m + 1):
        for j in range(m):
            here = subsets[(size == many) & member[:, j]]
            cost[here, j] = (cost[here ^ bit[j]] + between[:, j]).amin(1)
    left = torch.full((batch,), 2**m - 1, device=d.device)
    column = torch.arange(batch, device=d.device)
    step = d[0, 1:]  # from each member to what the tour goes on with
    tour = []
    for _ in range(m):
        last = (cost[left, :, column].mT + step).argmin(0)
        tour.append(last + 1)
        left = left ^ bit[last]
        step = between[:, last, column]
    return torch.stack([torch.zeros_like(column), *tour], -1)


def christofides(points: Tensor) -> Tensor:
    """A tour of ``(n, 2)`` at most half as long again as the shortest, by networkx."""
    import networkx as nx

    if len(points) < 4:
        return torch.arange(len(points))
    graph = nx.from_numpy_array(distances(points).cpu().numpy() + 1e-300)  # an edge of length 0 would be none
    cycle = nx.approximation.christofides(graph)
    return oriented(torch.tensor(cycle[:-1], device=points.device))


def local_search(points: Tensor) -> Tensor:
    """The best of many tours of ``(n, 2)`` that neither 2-opt nor Or-opt improves, from nearest-neighbour tours."""
    n = len(points)
    if n < 4:
        return torch.arange(n, device=points.device)
    d = distances(points)
    tours = _nearest_neighbour(d, max(1, min(n, STARTS // n**2)))
    active = torch.arange(len(tours), device=points.device)
    while len(active):
        current = tours[active]
        gain, order = _two_opt(d, current)
        for length in (1, 2, 3):
            other, moved = _or_opt(d, current, length)
            better = other > gain
            gain = torch.where(better, other, gain)
            order = torch.where(better.unsqueeze(-1), moved, order)
        moves = gain > 1e-12 * d.max()
        tours[active[moves]] = current.gather(-1, order)[moves]
        active = active[moves]
    lengths = d[tours, tours.roll(-1, -1)].sum(-1)
    return oriented(tours[lengths.argmin()])


def _nearest_neighbour(d: Tensor, starts: int) -> Tensor:
    far = d.clone()
    here = torch.linspace(0, len(d) - 1, starts, device=d.device).long()
    row = torch.arange(starts, device=d.device)
    open_ = torch.ones(starts, len(d), dtype=torch.bool, device=d.device)
    tour = [here]
    for _ in range(len(d) - 1):
        open_[row, here] = False
        here = far[here].masked_fill(~open_, torch.inf).argmin(-1)
        tour.append(here)
    return torch.stack(tour, -1)


def _two_opt(d: Tensor, tours: Tensor) -> tuple[Tensor, Tensor]:
    """The best exchange of two edges: what it saves, ``(S,)``, and the new order as places in the old, ``(S, n)``."""
    n = tours.shape[-1]
    after = tours.roll(-1, -1)
    edge = d[tours, after]
    joined = d[tours.unsqueeze(-1), tours.unsqueeze(-2)]
    closed = d[after.unsqueeze(-1), after.unsqueeze(-2)]
    gain = edge.unsqueeze(-1) + edge.unsqueeze(-2) - joined - closed
    best, move = gain.triu(1).flatten(1).max(-1)
    i, j = (move // n).unsqueeze(-1), (move % n).unsqueeze(-1)
    place = torch.arange(n, device=d.device)
    return best, torch.where((place > i) & (place <= j), i + 1 + j - place, place)


def _or_opt(d: Tensor, tours: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The best move of a segment of ``length`` points to between two others, either way round; as `_two_opt`."""
    n = tours.shape[-1]
    place = torch.arange(n, device=d.device)
    if n < length + 2:
        return d.new_zeros(len(tours)), place.expand_as(tours)
    before, first = tours.roll(1, -1), tours
    last, after = tours.roll(1 - length, -1), tours.roll(-length, -1)
    saved = (d[before, first] + d[last, after] - d[before, after]).unsqueeze(-1)  # segment from i on
    left, right = tours.unsqueeze(-2), tours.roll(-1, -1).unsqueeze(-2)  # into the gap behind j
    gap = d[left, right]
    plain = d[left, first.unsqueeze(-1)] + d[last.unsqueeze(-1), right] - gap
    turned = d[left, last.unsqueeze(-1)] + d[first.unsqueeze(-1), right] - gap
    inside = (place - place.unsqueeze(-1) + 1) % n <= length  # gaps that the segment itself borders on
    gain = (saved - torch.minimum(plain, turned)).masked_fill(inside, -torch.inf)
    best, move = gain.flatten(1).max(-1)
    i, j = (move // n).unsqueeze(-1), (move % n).unsqueeze(-1)
    reverse = turned.flatten(1).gather(-1, move.unsqueeze(-1)) < plain.flatten(1).gather(-1, move.unsqueeze(-1))
    rank = (place - i) % n
    within = torch.where(reverse, length - rank, rank + 1) / (length + 1)
    key = torch.where(rank < length, j + within, place.to(within.dtype))
    return best, key.argsort(-1)
