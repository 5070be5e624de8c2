"""The z-buffer: which face every pixel shows, and where on it, with gradients of both in the vertices."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core._derivatives import eager
from throughline.core.camera import Camera
from throughline.core.checks import check_floating, readable
from throughline.core.raster.inputs import ONCE, check_faces, folded, scene
from throughline.core.raster.rows import blocks, boxes, corner_numbers, number_and_image, rows, tile_size

__all__ = ["Fragments", "interpolate", "rasterize", "visible_vertices"]

PAIRS = 2**20  # (face, pixel) pairs, and faces, at a time
LAST = 2**32 - 1  # less the number of a face, in the lower half of its key
ENDS = ((1, 2), (2, 0), (0, 1))  # the corners of the edge that is opposite of each
NEAR = 1e-3


class Fragments(NamedTuple):
    """What every pixel shows."""

    face: Tensor  # (..., H, W) int64: the face that is nearest, -1 where there is none
    barycentric: Tensor  # (..., H, W, 3): weights of its corners at the pixel's point in space; 0 where there is none
    depth: Tensor  # (..., H, W): z in the camera; infinite where there is none


def rasterize(vertices: Tensor, faces: Tensor, camera: Camera, *, near: float = NEAR) -> Fragments:
    """Draw a triangle mesh by a z-buffer: for every pixel the nearest face, depth and barycentric coordinates.

    Homogeneous edge functions need no clipping, also of faces that reach behind the camera, and are exact enough that
    neighbours leave no crack: coverage is computed in double precision. Both sides of a face are drawn; of equal depths
    (in single precision) the lower face wins. Time is O(F + Σ boxes of faces + H·W), memory that of the result and at
    most about 2²⁰ pairs of face and pixel. The depth and barycentric coordinates of the face that is seen have
    gradients in vertices and camera, once; what is seen has none: that is what `soft_rasterize` is for.

    "Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480).

    Args:
        vertices: world points, floating point, ``(..., V, 3)``.
        faces: numbers of vertices, int64, ``(F, 3)``, for the whole batch; none is legal.
        camera: one, or leading dimensions that broadcast with those of ``vertices``.
        near: least depth that is drawn, positive.

    Returns:
        face, barycentric and depth, each ``(..., H, W)``, in the dtype of ``vertices``.

    Raises:
        TypeError: ``vertices`` is not floating point, ``faces`` not int64, or ``camera`` no camera.
        ValueError: a shape, number or range that does not fit, or vertices that are not finite.

    >>> camera = Camera(torch.eye(3), torch.eye(3), torch.zeros(3), (2, 3))
    >>> corners = torch.tensor([[0.0, 0.0, 2.0], [4.0, 0.0, 2.0], [0.0, 4.0, 2.0]])  # pixels (0, 0), (2, 0), (0, 2)
    >>> rasterize(corners, torch.tensor([[0, 1, 2]]), camera).face
    tensor([[ 0,  0,  0],
            [ 0,  0, -1]])
    """
    given = scene(vertices, faces, camera, near)
    face, barycentric, depth = _rasterize(given.points, faces, given.size, float(near))
    lead = (*given.batch, *given.size)
    return Fragments(
        face.view(lead), barycentric.to(vertices.dtype).view(*lead, 3), depth.to(vertices.dtype).view(lead)
    )


def interpolate(fragments: Fragments, faces: Tensor, attributes: Tensor, *, background: float | Tensor = 0.0) -> Tensor:
    """Values at vertices carried to pixels by the barycentric coordinates of `rasterize`: perspective is right.

    Differentiable in the attributes, in the background and, through the fragments, in vertices and camera.

    Args:
        fragments: of `rasterize`, ``(..., H, W)``.
        faces: those that were drawn, int64, ``(F, 3)``.
        attributes: floating point, ``(..., V, C)``; leading dimensions broadcast with those of the fragments.
        background: a number, or ``(C,)``, where no face is.

    Returns:
        ``(..., H, W, C)``, in the dtype of ``attributes``.

    Raises:
        TypeError: ``attributes`` is not floating point, ``faces`` not int64, or ``fragments`` something else.
        ValueError: shapes that do not fit, or ``faces`` out of range.

    >>> camera = Camera(torch.eye(3), torch.eye(3), torch.zeros(3), (1, 3))
    >>> corners, faces = torch.tensor([[0.0, 0.0, 1.0], [4.0, 0.0, 1.0], [0.0, 4.0, 1.0]]), torch.tensor([[0, 1, 2]])
    >>> interpolate(rasterize(corners, faces, camera), faces, corners[:, :1])
    tensor([[[0.],
             [1.],
             [2.]]])
    """
    if not isinstance(fragments, Fragments):
        raise TypeError(f"fragments must be Fragments of rasterize, got {type(fragments).__name__}")
    check_attributes(attributes)
    check_faces(faces, attributes.shape[-2], "the rows of attributes")
    lead, count = fragments.face.shape[:-2], attributes.shape[-2]
    try:
        batch = torch.broadcast_shapes(lead, attributes.shape[:-2])  # type: ignore[no-untyped-call]
    except RuntimeError:
        shapes = f"{tuple(lead)} and {tuple(attributes.shape[:-2])}"
        raise ValueError(f"leading dimensions of fragments and attributes must broadcast, got {shapes}") from None
    if readable(fragments.face) and fragments.face.numel() and int(fragments.face.max()) >= len(faces):
        raise ValueError(f"faces must be those of fragments, got {len(faces)} and face {int(fragments.face.max())}")
    behind = filled(background, attributes)
    seen = (fragments.face >= 0).unsqueeze(-1)
    if not len(faces) or not count:
        return behind.expand(*batch, *fragments.face.shape[-2:], attributes.shape[-1]).clone()
    table = attributes.to(torch.promote_types(attributes.dtype, torch.float32))
    numbers = faces[fragments.face.clamp_min(0)]  # (..., H, W, 3)
    if attributes.ndim > 2:
        table = table.expand(*batch, *table.shape[-2:])
        offset = torch.arange(0, table[..., 0].numel(), count, device=faces.device).view(*batch, 1, 1, 1)
        numbers, table = numbers + offset, table.reshape(-1, table.shape[-1])
    weights = fragments.barycentric.to(table.dtype)
    value = sum(weights[..., k : k + 1] * F.embedding(numbers[..., k], table) for k in range(3))
    return torch.where(seen, value, behind.to(table.dtype)).to(attributes.dtype)


@torch.no_grad()
def visible_vertices(vertices: Tensor, faces: Tensor, camera: Camera, *, tolerance: float = 0.02) -> Tensor:
    """Which vertices the camera sees: in the image, and hidden by nothing that is nearer by more than ``tolerance``.

    A vertex is compared with the largest depth of the four pixels around it, so that a silhouette's own are seen.

    Args:
        vertices: world points, floating point, ``(..., V, 3)``.
        faces: numbers of vertices, int64, ``(F, 3)``.
        camera: one, or leading dimensions that broadcast with those of ``vertices``.
        tolerance: in the unit of the vertices (metres), not negative.

    Returns:
        ``(..., V)``, boolean, without gradient.

    Raises:
        TypeError: as `rasterize`.
        ValueError: as `rasterize`, or ``tolerance`` is negative.

    >>> camera = Camera(torch.eye(3), torch.eye(3), torch.zeros(3), (4, 4))
    >>> wall = torch.tensor([[-1.0, -1.0, 1.0], [9.0, -1.0, 1.0], [-1.0, 9.0, 1.0], [2.0, 2.0, 2.0], [0.5, 0.5, 0.5]])
    >>> visible_vertices(wall, torch.tensor([[0, 1, 2]]), camera)
    tensor([False, False, False, False,  True])
    """
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance must be at least 0 and finite, got {tolerance}")
    depth = rasterize(vertices, faces, camera).depth
    uv, z = camera.project(vertices)
    height, width = camera.image_size
    inside = (uv >= -0.5).all(-1) & (uv[..., 0] <= width - 0.5) & (uv[..., 1] <= height - 0.5) & (z >= NEAR)
    corner = uv.float().floor().clamp(-1, max(height, width)).long()
    columns, lines = (
        torch.stack([corner[..., i], corner[..., i] + 1], -1).clamp(0, n - 1) for i, n in ((0, width), (1, height))
    )
    around = (lines.unsqueeze(-1) * width + columns.unsqueeze(-2)).flatten(-2)  # (..., V, 4)
    around = around.expand(*depth.shape[:-2], *around.shape[-2:])
    found = depth.flatten(-2).gather(-1, around.flatten(-2)).reshape(around.shape)
    return inside & (z <= found.amax(-1) + tolerance)


def check_attributes(attributes: Tensor) -> None:
    check_floating("attributes", attributes)
    if attributes.ndim < 2:
        raise ValueError(f"attributes must be (..., V, C), got shape {tuple(attributes.shape)}")


def filled(background: float | Tensor, attributes: Tensor) -> Tensor:
    """The background as ``(C,)``."""
    channels = attributes.shape[-1]
    if not isinstance(background, Tensor):
        return torch.full((channels,), float(background), dtype=attributes.dtype, device=attributes.device)
    check_floating("background", background)
    if background.shape not in ((), (channels,)):
        raise ValueError(f"background must be a number or ({channels},), got shape {tuple(background.shape)}")
    return background.to(attributes.dtype).expand(channels)


@eager
def _rasterize(points: Tensor, faces: Tensor, size: tuple[int, int], near: float) -> tuple[Tensor, Tensor, Tensor]:
    results: tuple[Tensor, Tensor, Tensor] = Rasterize.apply(points, faces, size, near)  # type: ignore[no-untyped-call]
    return results


class Rasterize(torch.autograd.Function):
    """Face, barycentric coordinates and depth, ``(B, H, W)``, of homogeneous pixels ``(B, 3, V)``."""

    @staticmethod
    def forward(points: Tensor, faces: Tensor, size: tuple[int, int], near: float) -> tuple[Tensor, Tensor, Tensor]:
        face = nearest_faces(points, faces, size, near)
        barycentric = points.new_zeros(*face.shape, 3)
        depth = points.new_full(face.shape, torch.inf)
        table = _by_coordinate(points)
        for seen in _seen(face):
            corners = Corners.of(seen, face, faces, table)
            total = corners.cross.sum(0)
            barycentric.view(-1, 3).index_copy_(0, seen, (corners.cross / total).T.to(points.dtype))
            depth.view(-1).index_copy_(0, seen, (corners.det / total).to(points.dtype))
        return face, barycentric, depth

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        points, faces, ctx.size, _ = inputs
        ctx.mark_non_differentiable(output[0])
        ctx.save_for_backward(points, faces, output[0])

    @staticmethod
    def backward(ctx: Any, _: Any, by_barycentric: Tensor, by_depth: Tensor) -> tuple[Tensor, None, None, None]:
        points, faces, face = ctx.saved_tensors
        return RasterizeGradient.apply(by_barycentric, by_depth, points, face, faces, ctx.size), None, None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return folded(Rasterize, info, in_dims, args)


class RasterizeGradient(torch.autograd.Function):
    """The gradient of `Rasterize` in the points.

    With M the corners as columns and q the pixel, u = M⁻¹ q has the sum 1/z and the weights u z, and moving corner k
    by δ moves u by -u_k M⁻¹ δ.
    """

    @staticmethod
    def forward(
        by_barycentric: Tensor, by_depth: Tensor, points: Tensor, face: Tensor, faces: Tensor, size: tuple[int, int]
    ) -> Tensor:
        images, _, count = points.shape
        grad = points.new_zeros(3, images * count)
        table = _by_coordinate(points)
        for seen in _seen(face):
            corners = Corners.of(seen, face, faces, table)
            u = corners.cross / corners.det
            z = u.sum(0).reciprocal()
            by_weight = by_barycentric.reshape(-1, 3).index_select(0, seen).T.double()
            by_z = by_depth.flatten().index_select(0, seen).double()
            by_u = z * (by_weight - (by_weight * u).sum(0) * z) - z.square() * by_z
            for row, pull in zip(grad, corners.pull(by_u / corners.det), strict=True):
                row.scatter_add_(0, corners.numbers.flatten(), (-u * pull).to(row.dtype).flatten())
        return grad.view(3, images, count).movedim(0, 1).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(ONCE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return folded(RasterizeGradient, info, in_dims, args)


def nearest_faces(points: Tensor, faces: Tensor, size: tuple[int, int], near: float) -> Tensor:
    """The face that every pixel shows, ``(B, H, W)``: of all that cover it the largest key (float32 1/z, -face).

    With q = (p_u - x z, p_v - y z) the corners as the pixel sees them, an edge function is the cross product of two q.
    Products and sums are rounded one by one, never fused: along a common edge those of two faces are then each other's
    negative to the last bit, and a pixel on it is inside of one of them at least.
    """
    height, width = size
    images, _, count = points.shape
    table = _by_coordinate(points)
    ahead = table[2] >= near
    clipped = not bool(ahead.all())
    screen = table[:2] / torch.where(ahead, table[2], 1)
    keys = torch.zeros(images * height * width, dtype=torch.int64, device=points.device)
    for part, some in blocks(images, len(faces), PAIRS):
        numbers = corner_numbers(faces[some], part, count)
        low, high, drawn = _bounds(screen.index_select(1, numbers.flatten()).view(2, 3, -1), ahead, numbers, clipped)
        chosen, found = boxes(low, high, drawn, size, 0.0)
        numbers = numbers.index_select(1, chosen)
        face, image = number_and_image(chosen, part, some, len(faces))
        first = image * (height * width)
        drawn_faces = torch.cat([numbers, (LAST - face).unsqueeze(0)])
        for group in rows(found, width, tile_size(PAIRS, points.device)):
            own = drawn_faces.index_select(1, group.box)
            x, y, z = table.index_select(1, own[:3].flatten()).view(3, 3, -1).double()
            y = y - z * group.y.double()
            line = torch.stack([x[a] * y[b] - x[b] * y[a] for a, b in ENDS])
            slope = torch.stack([z[b] * y[a] - z[a] * y[b] for a, b in ENDS])
            det = (z * line).sum(0)
            sign = det.sign()
            line.mul_(sign).sub_((det == 0).double())  # of a face that is seen from its edge nothing is inside
            place = group.x.double() + group.steps(det)
            e = (slope.mul_(sign).unsqueeze(1) * place).add_(line.unsqueeze(1))
            inverse = (e[0] + e[1]).add_(e[2]).div_(det.abs_())
            least = torch.minimum(torch.minimum(e[0], e[1]), e[2])
            seen = torch.copysign(inverse, least.add_(0.0)).float()  # 1/z, negative outside; + 0 turns -0 into 0
            if clipped:
                seen.masked_fill_(seen * near > 1, -1)
            key = seen.view(torch.int32).long().bitwise_left_shift_(32).add_(own[3])
            keys.scatter_reduce_(0, group.pixels(first, width), key.flatten(), "amax")  # negative ones never win
    return (~keys.int()).long().view(images, height, width)  # the lower half is the complement of the face, or 0


def _bounds(uv: Tensor, ahead: Tensor, numbers: Tensor, clipped: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Least and largest u and v of faces, ``(2, n)``, and which may be seen: all of the plane if one reaches behind."""
    a, b, c = uv.unbind(1)
    low, high = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
    if not clipped:
        return low, high, None
    front = ahead.index_select(0, numbers.flatten()).view(3, -1)
    behind = ~front.all(0)
    return low.masked_fill(behind, -torch.inf), high.masked_fill(behind, torch.inf), front.any(0)


def _by_coordinate(points: Tensor) -> Tensor:
    """``(3, B · V)``: the vertices of all images, coordinate by coordinate."""
    return points.movedim(1, 0).flatten(1)


def _seen(face: Tensor) -> tuple[Tensor, ...]:
    """The pixels that show a face, in parts that fit into the cache."""
    return torch.split((face.flatten() >= 0).nonzero().squeeze(1), tile_size(PAIRS, face.device))


class Corners(NamedTuple):
    """The corners of the faces that pixels show, ``(3, n)`` of each."""

    numbers: Tensor  # among the vertices of all images
    x: Tensor  # (n,): the pixels
    y: Tensor
    u: Tensor  # (u - x) z, as the pixel sees it
    v: Tensor  # (v - y) z
    z: Tensor
    cross: Tensor  # the cross products of (u, v) of the other two: det M · M⁻¹ q
    det: Tensor  # (n,): of M, which has (u z, v z, z) of the corners as columns

    @classmethod
    def of(cls, seen: Tensor, face: Tensor, faces: Tensor, table: Tensor) -> "Corners":
        images, height, width = face.shape
        numbers = faces.index_select(0, face.flatten().index_select(0, seen)).T
        line = seen.div(width, rounding_mode="floor")
        y = line
        if images > 1:
            image = seen.div(height * width, rounding_mode="floor")
            numbers, y = numbers + image * (table.shape[1] // images), line - image * height
        u, v, z = table.index_select(1, numbers.flatten()).view(3, 3, -1).double()
        x, y = (seen - line * width).double(), y.double()
        u, v = u - z * x, v - z * y
        cross = torch.stack([u[a] * v[b] - u[b] * v[a] for a, b in ENDS])
        return cls(numbers, x, y, u, v, z, cross, (z * cross).sum(0))

    def pull(self, by: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """det M · M⁻ᵀ times ``(3, n)``: in the pixel's coordinates, then in the image's."""
        _, x, y, u, v, z, cross, _ = self
        first = sum(g * (v[a] * z[b] - v[b] * z[a]) for g, (a, b) in zip(by, ENDS, strict=True))
        second = sum(g * (z[a] * u[b] - z[b] * u[a]) for g, (a, b) in zip(by, ENDS, strict=True))
        return first, second, (by * cross).sum(0) - x * first - y * second
