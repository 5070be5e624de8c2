"""Points on and around a mesh, and the distance between two sets of them."""

import torch
from torch import Tensor

from throughline.core.checks import check_floating
from throughline.geometry.isosurface.checks import check_mesh, count
from throughline.geometry.isosurface.distance import signed_distance

__all__ = ["chamfer_distance", "sample_sdf", "sample_surface"]

PAIRS = 2**20  # of two points, that are looked at together


def sample_surface(vertices: Tensor, faces: Tensor, n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Points of a mesh, uniform by area and differentiable in its vertices.

    The vertices of a mesh are a poor sample of its surface: they crowd where triangles are small. A mesh without any
    area is sampled uniformly by face.

    Args:
        vertices: ``(V, 3)``, floating point and finite.
        faces: ``(F, 3)`` int64, at least one.
        n: how many, at least 1.
        generator: the only source of randomness, on the device of ``vertices``.

    Returns:
        ``(n, 3)``, in the dtype and on the device of ``vertices``.

    Raises:
        TypeError: ``vertices`` is no floating point tensor, or ``n`` no integer.
        ValueError: another shape, values that are not finite, ``faces`` that are not int64, empty, or out of range, or
            ``n`` under 1.

    >>> square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    >>> faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    >>> sample_surface(square, faces, 1000, generator=torch.Generator().manual_seed(0)).mean(0).round(decimals=1)
    tensor([0.5000, 0.5000, 0.0000])
    """
    check_mesh(vertices, faces)
    n = count("n", n)
    wide = torch.promote_types(vertices.dtype, torch.float32)
    corners = vertices.to(wide)[faces]
    with torch.no_grad():
        sides = (corners[:, 1:] - corners[:, :1]).double()
        area = torch.linalg.vector_norm(torch.linalg.cross(sides[:, 0], sides[:, 1]), dim=1)
        ends = torch.where(area.sum() > 0, area, 1).cumsum(0)
        draw = torch.rand(3, n, generator=generator, dtype=torch.float64, device=vertices.device)
        face = torch.searchsorted(ends, draw[0] * ends[-1], right=True).clamp(max=len(faces) - 1)
        root = draw[1].sqrt()  # so that a strip near the apex has no more than its share
        weights = torch.stack([1 - root, root * (1 - draw[2]), root * draw[2]], 1).to(wide)
    return (weights[..., None] * corners[face]).sum(1).to(vertices.dtype)


@torch.no_grad()
def sample_sdf(
    vertices: Tensor,
    faces: Tensor,
    n: int,
    *,
    std: float = 0.04,
    near: float = 0.7,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Points around a mesh with their signed distances: what a field like `DeepSDF` learns a shape from.

    A share ``near`` of them, which come first, lies about the surface: a point of it and normal noise. The others are
    uniform in [-1, 1]³. `signed_distance` says what is inside.

    Args:
        vertices, faces: as in `sample_surface`; the mesh fits into [-1, 1]³.
        n: how many, at least 1.
        std: deviation of the noise along each axis, at least 0.
        near: share in [0, 1].
        generator: the only source of randomness, on the device of ``vertices``.

    Returns:
        Points ``(n, 3)`` and signed distances ``(n,)``, in the dtype and on the device of ``vertices``.

    Raises:
        TypeError, ValueError: as `sample_surface`, and ``std`` or ``near`` out of range.

    >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    >>> points, sdf = sample_sdf(corners, faces, 1000, generator=torch.Generator().manual_seed(0))
    >>> points.shape, bool((sdf[:700].abs() < 0.2).all()), bool((sdf < 0).any())
    (torch.Size([1000, 3]), True, True)
    """
    check_mesh(vertices, faces)
    n = count("n", n)
    if not 0 <= std < torch.inf:
        raise ValueError(f"std must be at least 0 and finite, got {std}")
    if not 0 <= near <= 1:
        raise ValueError(f"near must be in [0, 1], got {near}")
    close, device = round(near * n), vertices.device
    found = []
    if close:
        on = sample_surface(vertices, faces, close, generator=generator)
        noise = torch.randn(close, 3, generator=generator, dtype=torch.float64, device=device)
        found.append(on + std * noise.to(on.dtype))
    if n - close:
        rest = torch.rand(n - close, 3, generator=generator, dtype=torch.float64, device=device)
        found.append((2 * rest - 1).to(vertices.dtype))
    points = torch.cat(found)
    return points, signed_distance(points, vertices, faces)


def chamfer_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared distance of each point to the nearest of the other set, both directions summed.

    Differentiable in both; the choice of the nearest is a constant. For two surfaces, sample them (`sample_surface`).
    Time grows with N · M, memory with N + M: the pairs are looked at in parts.

    Args:
        a: ``(N, 3)``, floating point, at least one point.
        b: ``(M, 3)``, likewise.

    Returns:
        A scalar, in the dtype and on the device of ``a``, in squared units of the points.

    Raises:
        TypeError: ``a`` or ``b`` is no floating point tensor.
        ValueError: another shape, or no point.

    >>> chamfer_distance(torch.zeros(1, 3), torch.tensor([[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]]))
    tensor(3.5000)
    """
    for name, points in (("a", a), ("b", b)):
        check_floating(name, points)
        if points.ndim != 2 or points.shape[1] != 3 or not len(points):
            raise ValueError(f"{name} must be (N, 3) with at least one point, got shape {tuple(points.shape)}")
    wide = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    x, y = a.to(wide), b.to(wide)
    with torch.no_grad():
        to_y, to_x = _nearest(x, y)
    there, back = (x - y[to_y]).square().sum(1), (y - x[to_x]).square().sum(1)
    return (there.mean() + back.mean()).to(a.dtype)


def _nearest(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For each point of ``a`` the number of the nearest of ``b``, and the other way round."""
    rows = max(1, PAIRS // len(b))
    forth, best, back = [], b.new_full((len(b),), torch.inf), torch.zeros(len(b), dtype=torch.int64, device=b.device)
    for number, part in enumerate(torch.split(a, rows)):
        distance = torch.cdist(part, b, compute_mode="donot_use_mm_for_euclid_dist")
        forth.append(distance.argmin(1))
        least, row = distance.min(0)
        back = torch.where(least < best, row + number * rows, back)
        best = torch.minimum(least, best)
    return torch.cat(forth), back
