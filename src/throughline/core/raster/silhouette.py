"""The soft silhouette: how probably any face covers a pixel, over all faces, in closed form both ways."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core._derivatives import eager
from throughline.core.camera import Camera
from throughline.core.raster.edges import Options, add_to_vertices, distances, pull, triangles
from throughline.core.raster.inputs import ONCE, check_pairs, check_positive, folded, scene, screen_of

__all__ = ["Cover", "soft_silhouette"]

STEEP = 50.0  # from here on softplus(x) is x, in every precision


def soft_silhouette(
    vertices: Tensor,
    faces: Tensor,
    camera: Camera,
    *,
    sigma: float = 1e-4,
    near: float = 1e-3,
    max_pairs: int = 2**20,
) -> Tensor:
    """The probability 1 - Π_f (1 - D_f) that a pixel is covered, D_f = sigmoid(±d²/σ) (arXiv 1904.01786, eqs. 1 and 3).

    d is the distance to the face's boundary in units in which the shorter side of the image is 2, + inside. The sum of
    the logarithms goes over all faces, none is left out but those outside by 9.21 σ, where D_f < 1e-4. The backward
    pass computes the pairs once more: nothing is kept for them, and memory beyond arguments and result is at most 600
    bytes times ``max_pairs`` both ways. Time is O(F + pairs), pairs = Σ_f (w_f + 2r)(h_f + 2r) with boxes of w × h
    pixels and r = min(H, W)/2 · √(9.21 σ). The gradient is zero in the depth, and has no gradient of its own: a second
    derivative raises a RuntimeError.

    Args:
        vertices: world points, floating point, ``(..., V, 3)``.
        faces: numbers of vertices, int64, ``(F, 3)``, for the whole batch; none is legal. A face is skipped, and its
            gradient zero, where a corner is nearer than ``near`` or it has less than 1e-10 square pixels.
        camera: one, or leading dimensions that broadcast with those of ``vertices``.
        sigma: σ, positive: the width of an edge, squared.
        near: least depth that is drawn, positive.
        max_pairs: how many pairs of face and pixel may be in memory at a time, at least 1. On a CPU fewer are, so that
            they stay in its cache.

    Returns:
        ``(..., H, W)`` in [0, 1], in the dtype of ``vertices``.

    Raises:
        TypeError: ``vertices`` is not floating point, ``faces`` not int64, or ``camera`` no camera.
        ValueError: a shape, number or range that does not fit, or vertices that are not finite.

    >>> camera = Camera(torch.eye(3), torch.eye(3), torch.zeros(3), (1, 4))
    >>> corners = torch.tensor([[-9.0, -9.0, 1.0], [1.0, -9.0, 1.0], [1.0, 99.0, 1.0]])  # ends at the second pixel
    >>> soft_silhouette(corners, torch.tensor([[0, 1, 2]]), camera, sigma=4.0)
    tensor([[0.7311, 0.5000, 0.2689, 0.0180]])
    """
    given = scene(vertices, faces, camera, near)
    check_positive(sigma=sigma)
    options = Options(given.size, float(sigma), float(near), check_pairs(max_pairs))
    total = _cover(screen_of(given.points), faces, options)
    return -torch.expm1(-total).to(vertices.dtype).view(*given.batch, *given.size)


@eager
def _cover(screen: Tensor, faces: Tensor, options: Options) -> Tensor:
    total: Tensor = Cover.apply(screen, faces, options)  # type: ignore[no-untyped-call]
    return total


class Cover(torch.autograd.Function):
    """-log Π (1 - D) = Σ softplus(δ d²/σ) of every pixel, ``(B, H, W)``, of u, v and z ``(B, 3, V)``."""

    @staticmethod
    def forward(screen: Tensor, faces: Tensor, options: Options) -> Tensor:
        height, width = options.size
        total = screen.new_zeros(len(screen) * height * width)
        for drawn in triangles(screen, faces, options):
            for group in drawn.rows(options):
                signed = distances(group, drawn.table).signed
                cover = F.softplus(signed, threshold=STEEP)
                total.scatter_add_(0, group.pixels(drawn.first, width), cover.flatten())
        return total.view(-1, height, width)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        screen, faces, ctx.options = inputs
        ctx.save_for_backward(screen, faces)

    @staticmethod
    def backward(ctx: Any, by_total: Tensor) -> tuple[Tensor, None, None]:
        return CoverGradient.apply(by_total, *ctx.saved_tensors, ctx.options), None, None  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return folded(Cover, info, in_dims, args)


class CoverGradient(torch.autograd.Function):
    """The gradient of `Cover` in u and v."""

    @staticmethod
    def forward(by_total: Tensor, screen: Tensor, faces: Tensor, options: Options) -> Tensor:
        images, _, count = screen.shape
        slope, width = by_total.flatten(), options.size[1]
        grad = screen.new_zeros(3, images * count)
        for drawn in triangles(screen, faces, options):
            for group in drawn.rows(options):
                slopes = slope.index_select(0, group.pixels(drawn.first, width)).view(group.width, -1)
                felt = (slopes.abs().amax(0) != 0).nonzero().squeeze(1)
                if len(felt) < slopes.shape[1]:
                    group, slopes = group.select(felt), slopes.index_select(1, felt)
                if len(felt):
                    found = distances(group, drawn.table)
                    numbers = drawn.numbers.index_select(1, group.box)
                    add_to_vertices(grad[:2], numbers, pull(found, slopes * found.signed.sigmoid()))
        return grad.view(3, images, count).movedim(0, 1).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(ONCE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        return folded(CoverGradient, info, in_dims, args)
