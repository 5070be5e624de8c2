"""Soft images of values at vertices: faces mixed by how surely they cover a pixel and by how near they are."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core._derivatives import eager
from throughline.core.camera import NEAREST, Camera
from throughline.core.raster.edges import Distances, Options, Triangles, add_to_vertices, distances, pull, triangles
from throughline.core.raster.hard import check_attributes, filled
from throughline.core.raster.inputs import ONCE, check_pairs, check_positive, folded, scene, screen_of
from throughline.core.raster.rows import Rows
from throughline.core.raster.silhouette import STEEP

__all__ = ["SoftImage", "soft_rasterize"]

BEHIND = 1e-3  # ε: how near the background is, in units of the range of depths
SPREAD = 0.1  # of the depths of a mesh, by which its range is widened on both sides
CHANNELS = 16  # at a time
LARGE = 1e30  # above all exponents
# e to this, times 1e-4, is below rounding: faces that are so much fainter than another in their pixel are left out
FAINT = {torch.float32: 26.0, torch.float64: 46.0}
WORTHWHILE = 0.85  # a share of the rows of a tile: leaving out fewer than the rest costs more than it saves


class SoftImage(NamedTuple):
    """What `soft_rasterize` gives."""

    silhouette: Tensor  # (..., H, W): as soft_silhouette
    attributes: Tensor | None  # (..., H, W, C); None without attributes
    depth: Tensor  # (..., H, W): mean z under the same weights, without the background; inf where no face reaches


def soft_rasterize(
    vertices: Tensor,
    faces: Tensor,
    camera: Camera,
    attributes: Tensor | None = None,
    *,
    sigma: float = 1e-4,
    gamma: float = 1e-2,
    depth_range: tuple[float, float] | None = None,
    background: float | Tensor = 0.0,
    near: float = 1e-3,
    max_pairs: int = 2**20,
) -> SoftImage:
    """Silhouette, attributes and depth of a mesh, with gradients in all that is near a pixel (arXiv 1904.01786).

    With D_f as in `soft_silhouette` and ẑ_f = (far - z_f)/(far - near) the depth of the face at the pixel,
    attributes = (Σ_f D_f exp(ẑ_f/γ) a_f + exp(ε/γ) background)/(Σ_f D_f exp(ẑ_f/γ) + exp(ε/γ)), ε = 1e-3. Barycentric
    coordinates are clamped to the face, and perspective is right: 1/z and a/z are affine in the image. Faces whose
    weight beside another's is below rounding are left out. As σ and γ go to 0 the result is that of
    `rasterize` and `interpolate`. Memory, and what has no second derivative, are as in `soft_silhouette`.

    Args:
        vertices: world points, floating point, ``(..., V, 3)``.
        faces: numbers of vertices, int64, ``(F, 3)``, for the whole batch; skipped as in `soft_silhouette`.
        camera: one, or leading dimensions that broadcast with those of ``vertices``.
        attributes: floating point, ``(..., V, C)``; leading dimensions broadcast likewise, but add none.
        sigma: σ, positive.
        gamma: γ, positive: how much the nearest face outshines the others, in units of the range of depths.
        depth_range: (near, far), increasing; by default, in each image, the range of the z of all vertices that are
            not nearer than ``near``, widened by a tenth on both sides, as a constant. (SoftRas has 1 … 100 throughout,
            which leaves no occlusion within a small thing far away.)
        background: a number, or ``(C,)``.
        near: least depth that is drawn, positive.
        max_pairs: how many pairs of face and pixel may be in memory at a time, at least 1.

    Returns:
        silhouette, attributes and depth, in the dtype of ``vertices``.

    Raises:
        TypeError: ``vertices`` or ``attributes`` is not floating point, ``faces`` not int64, or ``camera`` no camera.
        ValueError: a shape, number or range that does not fit, or vertices that are not finite.

    >>> camera = Camera(torch.eye(3), torch.eye(3), torch.zeros(3), (1, 4))
    >>> corners = torch.tensor([[-9.0, -9.0, 1.0], [1.0, -9.0, 1.0], [1.0, 99.0, 1.0]])  # ends at the second pixel
    >>> red = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    >>> soft_rasterize(corners, torch.tensor([[0, 1, 2]]), camera, red, sigma=0.01).attributes[..., 0]
    tensor([[1., 1., 0., 0.]])
    """
    given = scene(vertices, faces, camera, near)
    check_positive(sigma=sigma, gamma=gamma)
    options = Options(given.size, float(sigma), float(near), check_pairs(max_pairs))
    screen = screen_of(given.points)
    images, _, count = screen.shape
    table, behind = screen.new_zeros(images, count, 0), None
    if attributes is not None:
        check_attributes(attributes)
        behind = filled(background, attributes).to(screen.dtype)
        wanted = (*given.batch, count, attributes.shape[-1])
        try:
            table = attributes.to(screen.dtype).expand(wanted).reshape(images, count, attributes.shape[-1])
        except RuntimeError:
            raise ValueError(
                f"attributes must be (..., V, C) with V = {count} and leading dimensions that broadcast to "
                f"{tuple(given.batch)}, got shape {tuple(attributes.shape)}"
            ) from None
    far, steepness = _range(screen[:, 2].detach(), near, depth_range, gamma)
    total, bright, mixed, deep, brightest = _mix(screen, table, far, steepness, faces, options)
    lead, dtype = (*given.batch, *given.size), vertices.dtype
    reached = bright > 0
    depth = torch.where(reached, deep / torch.where(reached, bright, 1), torch.inf)
    silhouette = -torch.expm1(-total)
    image = None
    if behind is not None:
        # both the faces' and the background's weight are relative to the larger of the two
        lag = BEHIND / gamma - brightest
        front, back = (-lag.clamp_min(0)).exp(), lag.clamp_max(0).exp()
        values = mixed.movedim(1, -1) * front.unsqueeze(-1) + back.unsqueeze(-1) * behind
        image = (values / (bright * front + back).unsqueeze(-1)).to(dtype).view(*lead, len(behind))
    return SoftImage(silhouette.to(dtype).view(lead), image, depth.to(dtype).view(lead))


def _range(z: Tensor, near: float, given: tuple[float, float] | None, gamma: float) -> tuple[Tensor, Tensor]:
    """far and 1/(γ (far - near)) of every image, ``(B,)``."""
    if given is not None:
        low, high = given
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"depth_range must be increasing and finite, got {given}")
        return z.new_full(z.shape[:1], high), z.new_full(z.shape[:1], 1 / (gamma * (high - low)))
    if not z.shape[1]:
        return z.new_ones(len(z)), z.new_ones(len(z))
    seen = z >= near
    last = torch.where(seen, z, -torch.inf).amax(1)
    first = torch.where(seen, z, torch.inf).amin(1)
    drawn = seen.any(1)
    first, last = torch.where(drawn, first, 0), torch.where(drawn, last, 1)
    margin = (SPREAD * (last - first)).clamp_min(1e-6)
    return last + margin, 1 / (gamma * (last - first + 2 * margin))


@eager
def _mix(*args: Any) -> tuple[Tensor, ...]:
    results: tuple[Tensor, ...] = Mix.apply(*args)  # type: ignore[no-untyped-call]
    return results


class Surface(NamedTuple):
    """Where on its face a pair's point is."""

    inner: Tensor  # (3, width, rows): barycentric coordinates c in the image, clamped to the face
    share: Tensor  # (3, width, rows): c_k/z_k over their sum, weights of the attributes
    sum: Tensor  # (width, rows): Σ c_k/z_k
    z: Tensor  # (width, rows): depth, Σ c_k / Σ (c_k/z_k)


def surface(found: Distances, inverse: Tensor) -> Surface:
    """The points of a tile's faces, of whose corners 1/z is ``(3, rows)``."""
    inner = (found.across * found.edge[15:18].unsqueeze(1)).clamp_(0, 1)
    share = inner * inverse.unsqueeze(1)
    total = share.sum(0)
    return Surface(inner, share.div_(total), total, inner.sum(0) / total)


class Mix(torch.autograd.Function):
    """Sums over the faces of every pixel, with weights W = D exp(ẑ/γ - their largest exponent in the pixel).

    From screen ``(B, 3, V)``, attributes ``(B, V, C)``, far and 1/(γ range) ``(B,)`` to -log Π (1 - D), Σ W,
    Σ W a ``(B, C, H, W)``, Σ W z, and the largest exponents, which are constants.
    """

    @staticmethod
    def forward(
        screen: Tensor, attributes: Tensor, far: Tensor, steepness: Tensor, faces: Tensor, options: Options
    ) -> tuple[Tensor, ...]:
        (images, _, channels), (height, width) = attributes.shape, options.size
        total, bright, deep = screen.new_zeros(3, images * height * width)
        mixed = screen.new_zeros(channels, images * height * width)
        brightest = torch.full_like(total, -torch.inf)
        table, inverse = attributes.movedim(-1, 0).flatten(1), _inverse(screen)
        for drawn in triangles(screen, faces, options):
            depths = depth_table(drawn, inverse, far, steepness)
            for group in drawn.rows(options):
                found, depth = distances(group, drawn.table), depths.index_select(1, group.box)
                point = surface(found, depth[:3])
                near = exponent(point.z, depth)
                reached = torch.minimum(near, found.signed + LARGE)  # -inf where the pair is dropped
                pixels = group.pixels(drawn.first, width)
                brightest.scatter_reduce_(0, pixels, reached.flatten(), "amax")
                total.scatter_add_(0, pixels, F.softplus(found.signed, threshold=STEEP).flatten())
        for drawn in triangles(screen, faces, options):
            depths = depth_table(drawn, inverse, far, steepness)
            for group in drawn.rows(options):
                group, pixels, top = bright_rows(group, drawn.first, depths, brightest, width)
                if not len(group.x):
                    continue
                found, depth = distances(group, drawn.table), depths.index_select(1, group.box)
                numbers = drawn.numbers.index_select(1, group.box)
                point = surface(found, depth[:3])
                near = exponent(point.z, depth)
                weight = near.sub_(top).clamp_max_(0).exp_().mul_(found.signed.sigmoid())
                bright.scatter_add_(0, pixels, weight.flatten())
                deep.scatter_add_(0, pixels, (weight * point.z).flatten())
                share = point.share.mul_(weight)
                for some, values in _values(table, numbers):
                    value = share[0] * values[:, 0]
                    value.addcmul_(share[1], values[:, 1]).addcmul_(share[2], values[:, 2])
                    mixed[some].index_add_(1, pixels, value.flatten(1))
        shape = (images, height, width)
        mixed = mixed.view(channels, *shape).movedim(0, 1).contiguous()
        return total.view(shape), bright.view(shape), mixed, deep.view(shape), brightest.view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.options = inputs
        ctx.mark_non_differentiable(output[-1])
        ctx.save_for_backward(*tensors, output[-1])

    @staticmethod
    def backward(ctx: Any, *by: Tensor) -> tuple[Tensor | None, ...]:
        by_screen, by_attributes = MixGradient.apply(  # type: ignore[no-untyped-call]
            *by[:-1], *ctx.saved_tensors, ctx.options, ctx.needs_input_grad[1]
        )
        return by_screen, by_attributes if ctx.needs_input_grad[1] else None, None, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return folded(Mix, info, in_dims, args)


class MixGradient(torch.autograd.Function):
    """The gradient of `Mix` in screen and, if they are learned, attributes."""

    @staticmethod
    def forward(
        by_total: Tensor,
        by_bright: Tensor,
        by_mixed: Tensor,
        by_deep: Tensor,
        screen: Tensor,
        attributes: Tensor,
        far: Tensor,
        steepness: Tensor,
        faces: Tensor,
        brightest: Tensor,
        options: Options,
        learned: bool,
    ) -> tuple[Tensor, Tensor]:
        images, count, channels = attributes.shape
        by_total, by_bright, by_deep, brightest = (x.flatten() for x in (by_total, by_bright, by_deep, brightest))
        by_values = by_mixed.movedim(1, 0).flatten(1)
        grad, by_inverse = screen.new_zeros(3, images * count), screen.new_zeros(images * count)
        by_attributes = screen.new_zeros(channels if learned else 0, images * count)
        table, inverse = attributes.movedim(-1, 0).flatten(1), _inverse(screen)
        for drawn in triangles(screen, faces, options):
            depths = depth_table(drawn, inverse, far, steepness)
            for group in drawn.rows(options):
                group, pixels, top = bright_rows(group, drawn.first, depths, brightest, options.size[1], by_total)
                if not len(group.x):
                    continue
                by_cover, by_weight, by_depth = (
                    x.index_select(0, pixels).view(top.shape) for x in (by_total, by_bright, by_deep)
                )
                found, depth = distances(group, drawn.table), depths.index_select(1, group.box)
                numbers = drawn.numbers.index_select(1, group.box)
                inner, share, total, z = surface(found, depth[:3])
                covered = found.signed.sigmoid()
                weight = exponent(z, depth).sub_(top).clamp_max_(0).exp_().mul_(covered)
                by_share = torch.zeros_like(share)
                for some, values in _values(table, numbers):
                    by_value = by_values[some].index_select(1, pixels).view(-1, *top.shape)
                    for one, corners in zip(by_value, values, strict=True):
                        by_share.addcmul_(one, corners)
                    if learned:
                        by_value.mul_(weight)
                        by_corner = torch.stack([(by_value * part).sum(1) for part in share], 1)
                        by_attributes[some].index_add_(1, numbers.flatten(), by_corner.flatten(1))
                value = (share * by_share).sum(0)
                gain = (by_weight + by_depth * z + value) * weight  # W ∂/∂W
                by_z = by_depth * weight - gain * depth[4]
                # share = y / Σ y and z = Σ c / Σ y, with y = c / z_k of the corners
                by_y = ((by_share - value) * weight - by_z * z).div_(total)
                by_inverse.scatter_add_(0, numbers.flatten(), (inner * by_y).sum(1).flatten())
                by_inner = by_y.mul_(depth[:3].unsqueeze(1)).add_(by_z / total)
                by_inner.mul_(torch.addcmul(inner, inner, inner, value=-1).sign_())  # where clamped, nothing
                corners = pull(found, gain * (1 - covered) + by_cover * covered)
                add_to_vertices(grad[:2], numbers, corners.sub_(_pull_inner(found, by_inner, group.steps(by_inner))))
        grad[2] = -inverse.square() * by_inverse
        by_attributes = by_attributes.view(len(by_attributes), images, count).permute(1, 2, 0).contiguous()
        return grad.view(3, images, count).movedim(0, 1).contiguous(), by_attributes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(ONCE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return folded(MixGradient, info, in_dims, args)


def depth_table(drawn: Triangles, inverse: Tensor, far: Tensor, steepness: Tensor) -> Tensor:
    """Of every face 1/z of its corners, far and 1/(γ range) of its image, and ẑ/γ of its nearest corner: ``(6, n)``."""
    corners = inverse.index_select(0, drawn.numbers.flatten()).view(drawn.numbers.shape)
    far, steepness = (x.index_select(0, drawn.image) for x in (far, steepness))
    nearest = (far - corners.amax(0).reciprocal()) * steepness
    return torch.cat([corners, torch.stack([far, steepness, nearest])])


def exponent(z: Tensor, depth: Tensor) -> Tensor:
    """ẑ/γ of depths ``(width, rows)`` of faces with these columns of `depth_table`."""
    return (depth[3] - z).mul_(depth[4])


def bright_rows(
    group: Rows, first: Tensor, depths: Tensor, brightest: Tensor, image_width: int, also: Tensor | None = None
) -> tuple[Rows, Tensor, Tensor]:
    """The rows without most of those that are faint throughout, their pixels, and the largest exponents there.

    A face is nowhere nearer than its nearest corner. A row is kept too where ``also`` is not zero in a pixel of it.
    """
    pixels = group.pixels(first, image_width)
    top = brightest.index_select(0, pixels).view(group.width, -1)
    bright = depths[5].index_select(0, group.box) > top.amin(0) - FAINT[top.dtype]
    if also is not None:
        bright |= also.index_select(0, pixels).view(top.shape).abs().amax(0) != 0
    kept = bright.nonzero().squeeze(1)
    if len(kept) > WORTHWHILE * top.shape[1]:
        return group, pixels, top
    return group.select(kept), pixels.view(top.shape).index_select(1, kept).flatten(), top.index_select(1, kept)


def _values(table: Tensor, numbers: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some channels at a time, with their values ``(some, 3, 1, rows)`` at corners."""
    for start in range(0, len(table), CHANNELS):
        some = slice(start, start + CHANNELS)
        yield some, table[some].index_select(1, numbers.flatten()).view(-1, 3, 1, numbers.shape[1])


def _inverse(screen: Tensor) -> Tensor:
    """1/z of all vertices, ``(B · V,)``; 1 where no face is drawn."""
    z = screen[:, 2].flatten()
    return torch.where(z < NEAREST, 1, z).reciprocal()


def _pull_inner(found: Distances, by_inner: Tensor, steps: Tensor) -> Tensor:
    """Σ over each row of ``by_inner`` · the barycentric coordinates b, by u and v of the corners, with a minus sign.

    Moving corner l by δ moves b as moving the pixel by -b_l δ does, and b is affine along the row.
    """
    x, y, slope = found.edge[6:9], found.edge[9:12], found.edge[15:18]
    normal = torch.stack([-y * slope, x * slope])  # ∂b/∂(u, v), (2, 3, rows)
    level, tilt = ((normal * moment.sum(1)).sum(1, keepdim=True) for moment in (by_inner, by_inner * steps))
    return found.start * slope * level + normal[0] * tilt
