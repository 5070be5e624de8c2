"""Exact signed distances to a mesh: the nearest point of any triangle, and the winding number for the sign."""

import torch
from torch import Tensor

from throughline.geometry.isosurface.checks import check_mesh, check_points

__all__ = ["signed_distance"]

PAIRS = 2**19  # of a point and a face, that are looked at together
# a turn by √14 about (1, 2, 3): rays along its last column are parallel to nothing that people build or sample
FRAME = torch.linalg.matrix_exp(
    torch.tensor([[0.0, -3.0, 2.0], [3.0, 0.0, -1.0], [-2.0, 1.0, 0.0]], dtype=torch.float64, device="cpu")
)


def signed_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Distance of points to the triangles of a mesh, negative inside, as fields of DeepMesh (arXiv 2106.11795) have it.

    The distance is exact, and differentiable in points and vertices. Inside is where the generalised winding number is
    more than a half: on a closed mesh the signed number of faces that a ray crosses, otherwise the sum of all solid
    angles over 4π. So holes are closed as if by a skin, and parts that overlap are one. Faces are to be
    counter-clockwise as seen from outside; a mesh that is turned inside out has no inside.

    Time grows with N · F, memory does not: the pairs are looked at in parts.

    Args:
        points: ``(N, 3)``, floating point and finite.
        vertices: ``(V, 3)``, likewise.
        faces: ``(F, 3)`` int64, at least one.

    Returns:
        ``(N,)``, in the dtype and on the device of ``points``.

    Raises:
        TypeError: ``points`` or ``vertices`` is no floating point tensor.
        ValueError: another shape, values that are not finite, ``faces`` that are not int64, empty, or out of range.

    >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    >>> signed_distance(torch.tensor([[0.1, 0.2, 0.3], [0.0, 0.0, 3.0]]), corners, faces)
    tensor([-0.1000,  2.0000])
    """
    check_points("points", points)
    check_mesh(vertices, faces)
    if not len(points):
        return points[:, 0]
    wide = torch.promote_types(points.dtype, torch.float32)
    p, v, used = points.to(wide), vertices.to(wide), torch.unique(faces)
    unit = torch.maximum(_power_of_two(v[used]), 2.0**-60 * _power_of_two(p))
    p, v = p / unit, v / unit  # so that no square of an area, or of a distance, is too small or too large
    corners = v[faces]
    with torch.no_grad():
        nearest = _nearest_face(p, v[used], corners)
        winding = _crossings(p, v, faces) if _closed(faces, len(vertices)) else _solid_angles(p, corners)
    distance = torch.linalg.vector_norm(p - _closest(p, corners[nearest]), dim=1)
    return (unit * torch.where(winding > 0.5, -distance, distance)).to(points.dtype)


def _power_of_two(x: Tensor) -> Tensor:
    """One near the largest |x|: to divide by it rounds nothing."""
    return torch.exp2(torch.frexp(x.detach().abs().amax()).exponent.to(x.dtype) - 1)


def _nearest_face(points: Tensor, vertices: Tensor, corners: Tensor) -> Tensor:
    """The number of the nearest face for each point: exactly among those whose bounding sphere is near enough."""
    centres = corners.mean(1)
    radii = torch.linalg.vector_norm(corners - centres[:, None], dim=2).amax(1)
    slack, found = 1e-5 * radii.amax(), []
    for part in torch.split(points, max(1, PAIRS // max(len(vertices), len(corners)))):
        bound = _distances(part, vertices).amin(1)  # no further than the nearest corner
        near = _distances(part, centres) - radii <= (bound * (1 + 1e-5) + slack)[:, None]
        row, face = near.nonzero(as_tuple=True)
        squared = (part[row] - _closest(part[row], corners[face])).square().sum(1)
        least = squared.new_full((len(part),), torch.inf).scatter_reduce(0, row, squared, "amin")
        hit = squared == least[row]
        found.append(row.new_full((len(part),), len(corners)).scatter_reduce(0, row[hit], face[hit], "amin"))
    return torch.cat(found)


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")  # the other way loses half of the digits


def _closest(points: Tensor, corners: Tensor) -> Tensor:
    """The point of triangle ``corners[i] (3, 3)`` that is nearest to ``points[i]``."""
    starts, sides = corners, corners.roll(-1, 1) - corners
    along = ((points[:, None] - starts) * sides).sum(2) / _nonzero(sides.square().sum(2))
    on_sides = starts + along.clamp(0, 1)[..., None] * sides  # (n, 3, 3)
    best = (points[:, None] - on_sides).square().sum(2).argmin(1)
    on_side = on_sides.take_along_dim(best[:, None, None], 1)[:, 0]

    normal = torch.linalg.cross(sides[:, 0], -sides[:, 2])
    area = normal.square().sum(1)
    weights = (torch.linalg.cross(sides, points[:, None] - starts) * normal[:, None]).sum(2)  # of the corner opposite
    within = (weights.amin(1) >= 0) & (area > 0)
    above = ((points - corners[:, 0]) * normal).sum(1) / _nonzero(area)
    return torch.where(within[:, None], points - above[:, None] * normal, on_side)


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 1)


def _closed(faces: Tensor, vertices: int) -> bool:
    """Whether each edge is passed as often in one direction as in the other."""
    a, b = faces.flatten(), faces.roll(-1, 1).flatten()
    place = torch.unique(torch.minimum(a, b) * vertices + torch.maximum(a, b), return_inverse=True)[1]
    passed = torch.zeros(len(a), dtype=torch.int64, device=a.device).index_add(0, place, (a < b).long() * 2 - 1)
    return not bool(passed.any())


def _crossings(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """How often more a ray from each point leaves a closed mesh than it enters: its winding number.

    Points are sorted along one coordinate, so that each face meets but the few within its width. The side of an edge on
    which a point lies is computed from the edge's lower vertex to its higher: both of its faces agree on it, and no ray
    slips through between them.
    """
    frame = FRAME.to(points.device)
    p, v = (x.double() @ frame for x in (points, vertices))
    order = p[:, 0].argsort()
    p = p[order]
    corners = v[faces]
    low, high = corners.amin(1), corners.amax(1)
    first = torch.searchsorted(p[:, 0].contiguous(), low[:, 0].contiguous())
    counts = torch.searchsorted(p[:, 0].contiguous(), high[:, 0].contiguous(), right=True) - first
    winding = torch.zeros(len(p), dtype=torch.float64, device=p.device)
    for some in _parts(counts, PAIRS):
        face = torch.repeat_interleave(some, counts[some])
        ends = counts[some].cumsum(0)
        point = torch.arange(len(face), device=p.device) + torch.repeat_interleave(
            first[some] - ends + counts[some], counts[some]
        )
        w = p[point, 1]
        fits = (w >= low[face, 1]) & (w <= high[face, 1]) & (p[point, 2] <= high[face, 2])
        face, point = face[fits], point[fits]
        left = _left_of_sides(p[point], v, faces[face])
        turns = left.all(1).double() - (~left).all(1).double()  # counter-clockwise as seen against the ray, or not
        a, b, c = corners[face].unbind(1)
        normal = torch.linalg.cross(b - a, c - a)
        ahead = ((a - p[point]) * normal).sum(1) * normal[:, 2] > 0
        winding.index_add_(0, point, turns * ahead)
    return torch.empty_like(winding).index_copy(0, order, winding)


def _left_of_sides(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Whether a point lies left of each side of a face, ``(n, 3)``, in the plane of the first two coordinates."""
    a, b = faces, faces.roll(-1, 1)
    start, end = (vertices[ends][..., :2] for ends in (torch.minimum(a, b), torch.maximum(a, b)))
    side, to = end - start, points[:, None, :2] - start
    return (side[..., 0] * to[..., 1] - side[..., 1] * to[..., 0] >= 0) ^ (a > b)


def _parts(counts: Tensor, size: int) -> list[Tensor]:
    """Numbers of consecutive entries, in parts that sum to about ``size`` each."""
    part = counts.cumsum(0) // size
    sizes: list[int] = torch.unique_consecutive(part, return_counts=True)[1].tolist()
    return list(torch.split(torch.arange(len(counts), device=counts.device), sizes))


def _solid_angles(points: Tensor, corners: Tensor) -> Tensor:
    """The winding number of any mesh: solid angles of all faces over 4π, by van Oosterom's and Strackee's formula."""
    found = []
    for part in torch.split(points, max(1, PAIRS // 4 // len(corners))):
        a, b, c = (corners[None] - part[:, None, None]).unbind(2)  # (n, F, 3)
        la, lb, lc = (torch.linalg.vector_norm(x, dim=2) for x in (a, b, c))
        volume = (a * torch.linalg.cross(b, c)).sum(2)
        rest = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
        found.append(torch.atan2(volume, rest).sum(1) / (2 * torch.pi))
    return torch.cat(found)
