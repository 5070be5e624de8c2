"""Exact labels of planar point sets: hulls, triangulations, tours, and random problems made with them."""

import operator
from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial import ConvexHull
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from throughline.data.planar.files import PlanarBatch, batch_of
from throughline.data.planar.polygons import ROUNDING, check_indices, hulls
from throughline.data.planar.tours import christofides, held_karp, local_search
from throughline.data.planar.triangles import triangulate, triangulate_small

__all__ = ["convex_hull", "delaunay", "label_planar", "make_planar", "solve_tsp", "tour_length"]

Task = Literal["hull", "delaunay", "tsp"]
LEAST = {"hull": 3, "delaunay": 3, "tsp": 2}  # points
VECTORISED = 64  # points: up to here the hulls of a batch are found together
EXACT = 20  # points
SMALL = 8  # points: up to here so are the triangulations


def convex_hull(points: ArrayLike | Tensor) -> Tensor:
    """Vertices of the convex hull, counter-clockwise from the one of lowest index.

    Points on an edge are no vertices, and of equal points only the first can be one.

    Args:
        points: ``(n, 2)``, n >= 3, finite, not all on one line.

    Returns:
        ``(h,)`` int64.

    Raises:
        ValueError: fewer than three points, all on one line, or not finite.

    >>> convex_hull([[0, 1], [0, 0], [0.2, 0.3], [1, 0]])
    tensor([0, 1, 3])
    """
    p = _points(points, "hull")
    _check_spread(p)
    if len(p) <= VECTORISED:
        found = hulls(p.unsqueeze(0))[0]
        return found[found >= 0]
    corners = ConvexHull(p.cpu().numpy()).vertices.astype(np.int64)
    found = (p[corners].unsqueeze(1) == p).all(-1).int().argmax(-1)  # the first of equal points
    return found.roll(-int(found.argmin()))


def delaunay(points: ArrayLike | Tensor) -> Tensor:
    """Triangles of the Delaunay triangulation as increasing indices, sorted by their incentres (x, then y).

    Args:
        points: ``(n, 2)``, n >= 3, finite, not all on one line.

    Returns:
        ``(t, 3)`` int64.

    Raises:
        ValueError: fewer than three points, all on one line, or not finite.

    >>> delaunay([[0, 0], [4, 0], [0, 3], [4, 4]])
    tensor([[0, 1, 2],
            [1, 2, 3]])
    """
    p = _points(points, "delaunay")
    _check_spread(p)
    return triangulate(p)


def solve_tsp(points: ArrayLike | Tensor, *, method: Literal["exact", "christofides", "local"] = "exact") -> Tensor:
    """A short closed tour from point 0 on, its second index below its last.

    Args:
        points: ``(n, 2)``, n >= 2, finite.
        method: "exact" by Held and Karp's dynamic programme, O(2ⁿ n²), up to 20 points; "christofides", at most half
            as long again as the shortest, by networkx; "local", the best of many tours that neither 2-opt nor Or-opt
            improves, within a few per cent, in about O(n³) time and O(n²) memory.

    Returns:
        ``(n,)`` int64.

    Raises:
        ValueError: fewer than two points, more than 20 for "exact", not finite, or an unknown method.

    >>> solve_tsp([[0, 0], [1, 1], [0, 1], [1, 0]])
    tensor([0, 2, 1, 3])
    """
    p = _points(points, "tsp")
    if method == "exact":
        if len(p) > EXACT:
            raise ValueError(f'method="exact" takes at most {EXACT} points, got {len(p)}; method="local" takes any')
        return held_karp(p.unsqueeze(0))[0]
    solvers = {"christofides": christofides, "local": local_search}
    if method not in solvers:
        raise ValueError(f"method must be one of exact, christofides, local, got {method!r}")
    return solvers[method](p)


def tour_length(points: ArrayLike | Tensor, tour: ArrayLike | Tensor) -> Tensor:
    """Length of closed tours, differentiable in the points.

    Args:
        points: ``(..., n, 2)``.
        tour: ``(..., m)``, integers below n; negative entries at the end (padding) are left out.

    Returns:
        ``(...)``.

    Raises:
        TypeError: ``tour`` is not integer.
        ValueError: shapes do not fit, or an index is not below n.

    >>> tour_length([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], [0, 1, 2])
    tensor(12.)
    """
    p, order = torch.as_tensor(points), torch.as_tensor(tour)
    p = p if p.is_floating_point() else p.to(torch.get_default_dtype())
    if p.ndim < 2 or p.shape[-1] != 2 or order.shape[:-1] != p.shape[:-2] or not order.shape[-1]:
        raise ValueError(
            f"points and tour must be (..., n, 2) and (..., m), got {tuple(p.shape)}, {tuple(order.shape)}"
        )
    check_indices("tour", order, p.shape[-2])
    order = torch.where(order < 0, order[..., :1], order)
    stops = p.gather(-2, order.unsqueeze(-1).expand(*order.shape, 2))
    length: Tensor = torch.linalg.vector_norm(stops - stops.roll(-1, -2), dim=-1).sum(-1)
    return length


def make_planar(
    task: Task, n_samples: int, n_points: int | tuple[int, int], *, generator: torch.Generator | None = None
) -> PlanarBatch:
    """Instances uniform in the unit square with their labels, as the paper draws them.

    Tours are exact up to 20 points and by local search beyond.

    Args:
        task: "hull", "delaunay" or "tsp".
        n_samples: B, at least 1.
        n_points: of every instance, or the least and the most of a uniform draw.
        generator: the only source of randomness.

    Raises:
        ValueError: an unknown task, no sample, or fewer than 3 points (2 for "tsp").

    >>> batch = make_planar("hull", 2, 5, generator=torch.Generator().manual_seed(0))
    >>> batch.targets
    tensor([[ 0,  4,  3,  2,  1, -1],
            [ 0,  3,  2,  4,  1, -1]])
    """
    _check_task(task)
    low, high = map(operator.index, n_points if isinstance(n_points, tuple | list) else (n_points, n_points))
    if not LEAST[task] <= low <= high:
        raise ValueError(f"n_points must be {LEAST[task]} or more, or such a range, got {n_points}")
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    device = generator.device if generator is not None else None
    lengths = torch.randint(low, high + 1, (n_samples,), generator=generator, device=device)
    points = torch.rand(n_samples, high, 2, generator=generator, device=device)
    there = torch.arange(high, device=points.device) < lengths.unsqueeze(-1)
    points = points.masked_fill(~there.unsqueeze(-1), 0)
    return label_planar(task, points, lengths)


def label_planar(task: Task, points: ArrayLike | Tensor, lengths: ArrayLike | Tensor) -> PlanarBatch:
    """Instances with their labels; those of one size are solved together where there is a way.

    Args:
        task: "hull", "delaunay" or "tsp" (exact up to 20 points, by local search beyond).
        points: ``(B, n, 2)``.
        lengths: ``(B,)`` integer, how many of the n are there.

    Raises:
        TypeError: ``lengths`` is not integer.
        ValueError: an unknown task, shapes that do not fit, or an instance that has no such label, by its index: too
            few points, some that are not finite, or for hulls and triangulations all on one line.

    >>> label_planar("tsp", torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]]]), torch.tensor([4])).targets
    tensor([[ 0,  2,  1,  3, -1]])
    """
    _check_task(task)
    p, lengths = torch.as_tensor(points), torch.as_tensor(lengths)
    wide, there = _instances(task, p, lengths)
    if not len(p):
        return PlanarBatch(p, lengths.new_empty(0, 1), lengths)
    if task == "hull" and p.shape[1] <= VECTORISED:
        found = hulls(torch.where(there.unsqueeze(-1), wide, wide[:, :1]))  # copies of a point are no vertices
        _check_all((found >= 0).sum(-1) >= 3)
        return batch_of(p, found, lengths)
    solve = {"hull": convex_hull, "delaunay": lambda p: delaunay(p).flatten(), "tsp": local_search}[task]
    labels = [lengths[:0]] * len(p)
    for n in torch.unique(lengths).tolist():
        rows = (lengths == n).nonzero().flatten()
        part = wide[rows, :n]
        if task == "tsp" and n <= EXACT:
            solved: Iterable[Tensor] = held_karp(part)
        elif task == "delaunay" and n <= SMALL:
            solved = triangulate_small(part)
        else:
            solved = map(solve, part)
        for row, one in zip(rows.tolist(), solved, strict=True):
            labels[row] = one
    return batch_of(p, pad_sequence(labels, batch_first=True, padding_value=-1), lengths)


def _check_task(task: Task) -> None:
    if task not in LEAST:
        raise ValueError(f"task must be one of {', '.join(LEAST)}, got {task!r}")


def _points(points: ArrayLike | Tensor, task: Task) -> Tensor:
    p = torch.as_tensor(points)
    if p.ndim != 2 or p.shape[-1] != 2:
        raise ValueError(f"points must be (n, 2), got {tuple(p.shape)}")
    if len(p) < LEAST[task]:
        raise ValueError(f"points must be {LEAST[task]} or more, got {len(p)}")
    p = p.double()
    if not bool(p.isfinite().all()):
        raise ValueError(f"points must be finite, got {p[~p.isfinite().all(-1)][0].tolist()}")
    return p


def _instances(task: Task, points: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Points in float64, zeros where none are, and where they are."""
    if points.ndim != 3 or points.shape[-1] != 2 or lengths.shape != points.shape[:1]:
        raise ValueError(
            f"points and lengths must be (B, n, 2) and (B,), got {tuple(points.shape)} and {tuple(lengths.shape)}"
        )
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths must be integer, got {lengths.dtype}")
    wrong = (lengths < LEAST[task]) | (lengths > points.shape[1])
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        raise ValueError(
            f"lengths must be from {LEAST[task]} to {points.shape[1]}, got {int(lengths[row])} in instance {row}"
        )
    there = torch.arange(points.shape[1], device=points.device) < lengths.unsqueeze(-1)
    wide = points.double().masked_fill(~there.unsqueeze(-1), 0)
    finite = wide.isfinite().all(-1).all(-1)
    if not bool(finite.all()):
        raise ValueError(f"points must be finite, not so in instance {int(finite.int().argmin())}")
    if task != "tsp" and len(wide):
        _check_all(_spread(torch.where(there.unsqueeze(-1), wide, wide[:, :1])))
    return wide, there


def _check_all(fine: Tensor) -> None:
    if not bool(fine.all()):
        row = int(fine.int().argmin())
        raise ValueError(f"points must be three or more and not on one line, not so in instance {row}")


def _spread(points: Tensor) -> Tensor:
    """Whether the points of each instance ``(..., n, 2)`` do not all lie on one line."""
    away = points - points[..., :1, :]
    squared = away.square().sum(-1)
    far = away.gather(-2, squared.argmax(-1, keepdim=True).unsqueeze(-1).expand(*squared.shape[:-1], 1, 2))
    turn = (far[..., 0] * away[..., 1] - far[..., 1] * away[..., 0]).abs().amax(-1)
    return turn > ROUNDING * squared.amax(-1)


def _check_spread(p: Tensor) -> None:
    if not bool(_spread(p)):
        raise ValueError(f"points must not all lie on one line, got {len(p)} that do")
