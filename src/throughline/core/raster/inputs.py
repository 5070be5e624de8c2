"""What every function of this package does with its arguments first: checks, and one batch out of all of them."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from throughline.core.camera import NEAREST, Camera
from throughline.core.checks import check_floating, check_tensor, integer, readable

__all__ = ["ONCE", "Scene", "check_faces", "check_pairs", "check_positive", "folded", "scene", "screen_of"]

ONCE = "rasterisation is differentiable once: the gradient of its gradient is not implemented"


class Scene(NamedTuple):
    """A batch of one mesh in different places, seen by as many cameras."""

    points: Tensor  # (B, 3, V): u z, v z and z, at least single precision
    batch: torch.Size  # the leading dimensions, whose product is B
    size: tuple[int, int]  # of the images


def scene(vertices: Tensor, faces: Tensor, camera: Camera, near: float) -> Scene:
    """Check what all renderers take, and bring it into homogeneous pixels."""
    check_floating("vertices", vertices)
    if vertices.ndim < 2 or vertices.shape[-1] != 3:
        raise ValueError(f"vertices must be (..., V, 3), got shape {tuple(vertices.shape)}")
    check_faces(faces, vertices.shape[-2], "vertices")
    if not isinstance(camera, Camera):
        raise TypeError(f"camera must be a Camera, got {type(camera).__name__}")
    check_positive(near=near)
    try:
        batch: torch.Size = torch.broadcast_shapes(vertices.shape[:-2], camera.batch_shape)  # type: ignore[no-untyped-call]
    except RuntimeError:
        raise ValueError(
            f"leading dimensions of camera, {tuple(camera.batch_shape)}, must broadcast with those of vertices, got "
            f"shape {tuple(vertices.shape)}"
        ) from None
    x, y, z = camera.to_camera(vertices.to(torch.promote_types(vertices.dtype, torch.float32))).unbind(-1)
    K = camera.K.to(z).unsqueeze(-3)
    u = K[..., 0, 0] * x + K[..., 0, 1] * y + K[..., 0, 2] * z
    v = K[..., 1, 1] * y + K[..., 1, 2] * z
    points = torch.stack([u, v, z.expand_as(u)], -2)
    if readable(points) and (points.detach() * 0).sum() != 0:  # isfinite would be four passes
        if not vertices.isfinite().all():
            raise ValueError("vertices must be finite, got NaN or infinity")
        raise ValueError("camera must be finite, and vertices not so large that their pixels overflow")
    points = points.expand(*batch, *points.shape[-2:]).reshape(math.prod(batch), *points.shape[-2:])
    return Scene(points, batch, camera.image_size)


def check_faces(faces: Tensor, vertices: int, name: str) -> None:
    """Raise unless ``faces`` is ``(F, 3)`` of numbers of vertices; ``name`` is what holds these."""
    check_tensor("faces", faces)
    if faces.dtype != torch.int64:
        raise TypeError(f"faces must be torch.int64, got {faces.dtype}")
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"faces must be (F, 3), got shape {tuple(faces.shape)}")
    if readable(faces) and faces.numel():
        low, high = (int(x) for x in faces.aminmax())
        if low < 0 or high >= vertices:
            raise ValueError(f"faces must number {name} from 0 to {vertices - 1}, got {low} to {high}")


def check_positive(**values: float) -> None:
    """Raise a ValueError unless every number is positive and finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def check_pairs(max_pairs: int) -> int:
    """``max_pairs`` as a number of at least 1."""
    number = integer("max_pairs", max_pairs)
    if number < 1:
        raise ValueError(f"max_pairs must be at least 1, got {number}")
    return number


def folded(function: Any, info: Any, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, Any]:
    """The rule of vmap for a function of tensors of one batch: what is mapped over becomes a part of it."""
    inputs = []
    for x, dim in zip(args, in_dims, strict=True):
        if not isinstance(x, Tensor) or (x.dtype == torch.int64 and x.ndim == 2):  # faces have no batch
            inputs.append(x)
        else:
            x = x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            inputs.append(x.flatten(0, 1))
    results = function.apply(*inputs)
    several = isinstance(results, tuple)
    parts = [r.unflatten(0, (info.batch_size, -1)) for r in (results if several else (results,))]
    return (tuple(parts), (0,) * len(parts)) if several else (parts[0], 0)


def screen_of(points: Tensor) -> Tensor:
    """u, v and z, ``(B, 3, V)``; of what is nearer than 1e-6 the pixel is one that nobody draws."""
    z = points[:, 2:]
    return torch.cat([points[:, :2] / torch.where(z < NEAREST, 1, z), z], 1)
