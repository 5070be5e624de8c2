"""Marching cubes in torch: on the device and in the dtype of the grid, differentiable in its values."""

import torch
from torch import Tensor

from throughline.core.checks import check_floating
from throughline.geometry.isosurface.checks import check_finite, check_level
from throughline.geometry.isosurface.table import AXES, COUNTS, LOWER, OWNED, TRIANGLES

__all__ = ["inside_of", "marching_cubes"]


def marching_cubes(
    values: Tensor, level: float = 0.0, *, spacing: float | Tensor = 1.0, origin: float | Tensor = 0.0
) -> tuple[Tensor, Tensor]:
    """The surface on which a field, sampled on a grid, has the value ``level``, as a mesh of triangles.

    Lorensen and Cline's algorithm as "DeepMesh: Differentiable Iso-Surface Extraction" (arXiv 2106.11795) uses it, with
    a case table that is derived. What is below the level is inside; a value right at the level is outside. There is one
    vertex for each grid edge between inside and outside, at t = (level − a) / (b − a) from its end a to its end b.
    Within the grid the surface is closed: two triangles meet at each edge, and all are wound counter-clockwise as seen
    from outside. It is open where it leaves the grid; pad ``values`` with a value above the level to close it. Two
    vertices coincide, and triangles have no area, where a value equals the level.

    Gradients reach ``values`` through t: they know two values an edge, and explode where these are nearly equal. For a
    field that can be evaluated anywhere, `extract_surface` has the gradient of the surface itself.

    Time and memory are those of one byte for each value and of what is crossed: for X = Y = Z = N both grow as N³, with
    a copy of the grid at most.

    Args:
        values: ``(X, Y, Z)``, floating point and finite, at least two along each side.
        level: where the surface is, rounded to the dtype of ``values``.
        spacing: distance of neighbours on the grid, a number or one for each axis, ``(3,)``.
        origin: where ``values[0, 0, 0]`` stands, a number or ``(3,)``.

    Returns:
        Vertices ``(V, 3)`` at origin + spacing · index, in the dtype and on the device of ``values``, and faces
        ``(F, 3)`` int64; both are empty without a surface.

    Raises:
        TypeError: ``values`` is no floating point tensor.
        ValueError: ``values`` is not 3-d, has a side of less than two, or is not finite; ``level`` is not finite;
            ``spacing`` or ``origin`` is neither a number nor ``(3,)``.

    >>> x, y, z = torch.meshgrid(*3 * [torch.linspace(-1, 1, 20)], indexing="ij")
    >>> vertices, faces = marching_cubes((x**2 + y**2 + z**2).sqrt() - 0.5, spacing=2 / 19, origin=-1.0)
    >>> len(vertices) + len(faces) - faces.numel() // 2  # corners and faces less edges: Euler's number of a ball
    2
    """
    check_floating("values", values)
    if values.ndim != 3 or min(values.shape) < 2:
        raise ValueError(f"values must be (X, Y, Z), at least 2 along each, got shape {tuple(values.shape)}")
    check_finite("values", values)
    check_level(level)
    device, wide = values.device, torch.promote_types(values.dtype, torch.float32)
    scale, start = (_vector(name, value, values.to(wide)) for name, value in (("spacing", spacing), ("origin", origin)))

    points, patterns = _crossed(inside_of(values, level))
    index = torch.stack(torch.unravel_index(points, values.shape), 1)
    _, width, depth = values.shape
    strides = torch.tensor([width * depth, depth, 1], device=device)

    owned = OWNED.to(device)[patterns]  # (points, 3)
    row, axis = owned.nonzero(as_tuple=True)
    low, flat = points[row], values.flatten()
    a, b = (flat.index_select(0, end).to(wide) for end in (low, low + strides[axis]))
    t = (torch.tensor(level, dtype=values.dtype, device=device) - a) / (b - a)
    vertices = start + scale * index[row].to(wide).scatter_add(1, axis[:, None], t[:, None])

    counts = COUNTS.to(device)[patterns] * (index + 1 < torch.tensor(values.shape, device=device)).all(1)
    cube = torch.repeat_interleave(counts)
    slot = torch.arange(len(cube), device=device) - (counts.cumsum(0) - counts)[cube]
    edges = TRIANGLES.to(device)[patterns[cube], slot]  # (F, 3)
    rank = torch.empty(values.numel(), dtype=torch.int32, device=device)  # read only where it is written
    rank[points] = torch.arange(len(points), dtype=torch.int32, device=device)
    corner = points[cube, None] + (LOWER.to(device) * strides).sum(1)[edges]
    number = owned.flatten().cumsum(0) - 1
    return vertices.to(values.dtype), number[3 * rank[corner].long() + AXES.to(device)[edges]]


def inside_of(values: Tensor, level: float) -> Tensor:
    """Where a grid is below ``level``, which is rounded to its dtype first, as everywhere."""
    return values.detach() < torch.tensor(level, dtype=values.dtype, device=values.device)


def _crossed(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Flat indices of grid points whose cube has corners on both sides, and the patterns of these cubes.

    Each point is corner 0 of a cube; those of the last planes reach into a copy of their plane, where no edge is
    crossed.
    """
    cubes = torch.empty([n + 1 for n in inside.shape], dtype=torch.uint8, device=inside.device)
    cubes[:-1, :-1, :-1] = inside
    cubes[-1] = cubes[-2]
    cubes[:, -1] = cubes[:, -2]
    cubes[:, :, -1] = cubes[:, :, -2]
    for dim, weight in ((0, 2), (1, 4), (2, 16)):  # corner dx + 2 dy + 4 dz is that bit
        n = inside.shape[dim]
        cubes = torch.add(cubes.narrow(dim, 0, n), cubes.narrow(dim, 1, n), alpha=weight)
    patterns = cubes.flatten()
    points = (patterns - 1 < 254).nonzero()[:, 0]  # neither 0 nor 255: the byte wraps around
    return points, patterns[points].long()


def _vector(name: str, value: float | Tensor, like: Tensor) -> Tensor:
    made = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    if made.shape not in ((), (3,)):
        raise ValueError(f"{name} must be a number or (3,), got shape {tuple(made.shape)}")
    return made
