"""Pinhole cameras, one convention for all: OpenCV's axes (x right, y down, z forward), pixel centres on integers.

X_c = R X + t and (u, v, 1) ∝ K X_c. Pixel (row i, column j) is the point (u, v) = (j, i): the image spans
[-½, W - ½] × [-½, H - ½] and has its centre at ((W - 1)/2, (H - 1)/2), as for calibrateCamera, BOP, scipy.ndimage and
``grid_sample(align_corners=True)``. A principal point from COLMAP, nerfstudio, PyTorch3D or any code whose centre is
W/2 is ½ larger in both coordinates: subtract it once, where the file is read.

"Learning to Regress Bodies from Images using Differentiable Semantic Rendering" (arXiv 2110.03480).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughline.core.checks import check_floating, check_tensor, integer, readable

__all__ = ["Camera", "look_at", "weak_perspective"]

NEAREST = 1e-6  # depths that are nearer to zero than this are projected as if they were this


@dataclass(frozen=True, eq=False)
class Camera:
    """One camera or a batch of them; leading dimensions broadcast with each other and with those of the points.

    Every method is differentiable in the camera and in the points, and its results have the dtype of the points.

    Raises:
        TypeError: ``K``, ``R`` or ``t`` is not floating point, or ``image_size`` not of integers.
        ValueError: a shape is wrong, leading dimensions do not broadcast, or a side of the image is less than 1.

    >>> K = torch.tensor([[100.0, 0.0, 31.5], [0.0, 100.0, 23.5], [0.0, 0.0, 1.0]])
    >>> camera = Camera(K, torch.eye(3), torch.zeros(3), (48, 64))
    >>> camera.project(torch.tensor([[0.1, 0.0, 2.0]]))
    (tensor([[36.5000, 23.5000]]), tensor([2.]))
    """

    K: Tensor  # (..., 3, 3): focal lengths, skew and principal point in pixels; the last row is (0, 0, 1)
    R: Tensor  # (..., 3, 3): rotation from the world to the camera
    t: Tensor  # (..., 3): position of the world's origin in the camera
    image_size: tuple[int, int]  # height and width in pixels

    def __post_init__(self) -> None:
        for name, value, shape in (("K", self.K, (3, 3)), ("R", self.R, (3, 3)), ("t", self.t, (3,))):
            check_floating(name, value)
            if value.shape[-len(shape) :] != shape:
                wanted = ", ".join(map(str, shape))
                raise ValueError(f"{name} must be (..., {wanted}), got shape {tuple(value.shape)}")
        object.__setattr__(self, "image_size", _size("image_size", self.image_size))
        try:
            self.batch_shape  # noqa: B018
        except RuntimeError:
            shapes = ", ".join(str(tuple(x.shape)) for x in (self.K, self.R, self.t))
            raise ValueError(f"leading dimensions of K, R and t must broadcast, got shapes {shapes}") from None

    @property
    def batch_shape(self) -> torch.Size:
        """The leading dimensions of K, R and t together; empty for one camera."""
        shape: torch.Size = torch.broadcast_shapes(self.K.shape[:-2], self.R.shape[:-2], self.t.shape[:-1])  # type: ignore[no-untyped-call]
        return shape

    @property
    def center(self) -> Tensor:
        """Where the camera stands in the world, ``(..., 3)``: -Rᵀ t."""
        return -(self.R * self.t.unsqueeze(-1)).sum(-2)

    def to_camera(self, points: Tensor) -> Tensor:
        """World points ``(..., N, 3)`` in the camera's axes: R X + t."""
        return self._moved(points).to(points.dtype)

    def to_world(self, points: Tensor) -> Tensor:
        """Points ``(..., N, 3)`` in the camera's axes as world points: Rᵀ (X - t)."""
        self._check(points, "points", 3)
        x = _widened(points)
        with torch.autocast(x.device.type, enabled=False):
            return ((x - self.t.to(x).unsqueeze(-2)) @ self.R.to(x)).to(points.dtype)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points ``(..., N, 3)`` as pixels ``(..., N, 2)``, and their depths z ``(..., N)``.

        A depth below 1e-6 in size is projected as 1e-6 and returned as it is, so that pixels are finite.
        """
        x, y, z = self._moved(points).unbind(-1)
        fx, skew, cx, fy, cy = self._intrinsics(z)
        away = torch.where(z.abs() < NEAREST, NEAREST, z)
        uv = torch.stack([(fx * x + skew * y) / away + cx, fy * y / away + cy], -1)
        return uv.to(points.dtype), z.to(points.dtype)

    def unproject(self, uv: Tensor, depth: Tensor) -> Tensor:
        """Pixels ``(..., N, 2)`` at depths z ``(..., N)`` as world points ``(..., N, 3)``."""
        self._check(uv, "uv", 2)
        check_floating("depth", depth)
        if depth.ndim == 0 or depth.shape[-1] not in (1, uv.shape[-2]):
            raise ValueError(f"depth must be (..., {uv.shape[-2]}) for {uv.shape[-2]} pixels, got {tuple(depth.shape)}")
        u, v = _widened(uv).unbind(-1)
        fx, skew, cx, fy, cy = self._intrinsics(u)
        y = (v - cy) / fy
        x = (u - cx - skew * y) / fx
        ray = torch.stack([x, y, torch.ones_like(x)], -1)
        return self.to_world(ray * depth.to(u).unsqueeze(-1)).to(uv.dtype)

    def crop(self, top: float, left: float, height: int, width: int) -> "Camera":
        """The camera of the image ``[top : top + height, left : left + width]``, which may reach beyond this one."""
        K = self.K - _corner(self.K, 0, left) - _corner(self.K, 1, top)
        return replace(self, K=K, image_size=_size("height and width", (height, width)))

    def resize(self, image_size: tuple[int, int]) -> "Camera":
        """The camera of the image resampled to ``(height, width)``: f ← s f, c ← s (c + ½) - ½ along each axis."""
        height, width = _size("image_size", image_size)
        down, across = height / self.image_size[0], width / self.image_size[1]
        scale = torch.tensor([[across], [down], [1.0]], dtype=self.K.dtype, device=self.K.device)
        shift = _corner(self.K, 0, (across - 1) / 2) + _corner(self.K, 1, (down - 1) / 2)
        return replace(self, K=self.K * scale + shift, image_size=(height, width))

    def to(self, *args: Any, **kwargs: Any) -> "Camera":
        """The camera with its tensors moved or cast, as by `torch.Tensor.to`."""
        K, R, t = (x.to(*args, **kwargs) for x in (self.K, self.R, self.t))
        return replace(self, K=K, R=R, t=t)

    def _moved(self, points: Tensor) -> Tensor:
        """R X + t in single precision at least."""
        self._check(points, "points", 3)
        x = _widened(points)
        with torch.autocast(x.device.type, enabled=False):
            return (self.R.to(x) @ x.mT + self.t.to(x).unsqueeze(-1)).mT  # several times as fast as the other way

    def _intrinsics(self, like: Tensor) -> tuple[Tensor, ...]:
        K = self.K.to(like)
        return tuple(K[..., i, j].unsqueeze(-1) for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2)))

    def _check(self, value: Tensor, name: str, size: int) -> None:
        check_floating(name, value)
        if value.ndim < 2 or value.shape[-1] != size:
            raise ValueError(f"{name} must be (..., N, {size}), got shape {tuple(value.shape)}")
        try:
            torch.broadcast_shapes(value.shape[:-2], self.batch_shape)  # type: ignore[no-untyped-call]
        except RuntimeError:
            raise ValueError(
                f"leading dimensions of {name} must broadcast with those of the camera, {tuple(self.batch_shape)}, "
                f"got shape {tuple(value.shape)}"
            ) from None


def look_at(
    eye: Tensor | Sequence[float],
    target: Tensor | Sequence[float] = (0.0, 0.0, 0.0),
    *,
    up: Tensor | Sequence[float] = (0.0, 1.0, 0.0),
    focal_length: float | Tensor,
    image_size: tuple[int, int],
) -> Camera:
    """A camera that stands at ``eye`` and sees ``target`` in the centre of its image, with ``up`` upwards.

    Args:
        eye: world point, ``(..., 3)``.
        target: another, ``(..., 3)``.
        up: a direction of any length, ``(..., 3)``.
        focal_length: in pixels, positive; a number, or ``(...)``.
        image_size: height and width in pixels.

    Returns:
        A camera with the principal point in the centre, in the dtype and on the device of the first argument that is a
        tensor.

    Raises:
        TypeError: an argument is neither a floating point tensor nor numbers.
        ValueError: a shape or number is out of range, ``eye`` is ``target``, or ``up`` is along the view.

    >>> camera = look_at((0.0, 0.0, -3.0), focal_length=50.0, image_size=(64, 64))
    >>> camera.project(torch.tensor([[0.0, 0.3, 0.0]]))[0]  # y points up in the world, down in the image
    tensor([[31.5000, 26.5000]])
    """
    place, goal, above = _vectors(eye=eye, target=target, up=up)
    size = _size("image_size", image_size)
    forward = goal - place
    right = torch.linalg.cross(*torch.broadcast_tensors(forward, above))  # type: ignore[no-untyped-call]
    distance, length = (torch.linalg.vector_norm(v, dim=-1, keepdim=True) for v in (forward, right))
    if readable(length):
        if (distance == 0).any():
            raise ValueError("eye and target must be two points, got one")
        if (length <= 1e-6 * distance * torch.linalg.vector_norm(above, dim=-1, keepdim=True)).any():
            raise ValueError("up must not be zero or along the view from eye to target")
    forward, right = forward / distance, right / length
    R = torch.stack(torch.broadcast_tensors(right, torch.linalg.cross(forward, right), forward), -2)  # type: ignore[no-untyped-call]
    return Camera(_centred(focal_length, size, R), R, -(R * place.unsqueeze(-2)).sum(-1), size)


def weak_perspective(camera: Tensor, image_size: tuple[int, int], *, focal_length: float = 5000.0) -> Camera:
    """The perspective camera of a weak one (s, t_x, t_y), which sees s (X_xy + t_xy) in units of half the image.

    R = I and t = (t_x, t_y, 2 f/(min(H, W) s + 1e-9)): so far away that depth hardly matters (HMR, arXiv 1712.06584).

    Args:
        camera: floating point, ``(..., 3)``.
        image_size: height and width in pixels.
        focal_length: in pixels, positive.

    Returns:
        A camera batched like ``camera``, in its dtype, with the principal point in the centre.

    Raises:
        TypeError: ``camera`` is not floating point.
        ValueError: a shape or number is out of range.

    >>> weak_perspective(torch.tensor([0.9, 0.0, 0.1]), (224, 224)).t
    tensor([ 0.0000,  0.1000, 49.6032])
    """
    check_floating("camera", camera)
    if camera.ndim == 0 or camera.shape[-1] != 3:
        raise ValueError(f"camera must be (..., 3), got shape {tuple(camera.shape)}")
    size = _size("image_size", image_size)
    scale, x, y = camera.unbind(-1)
    R = torch.eye(3, dtype=camera.dtype, device=camera.device)
    t = torch.stack([x, y, 2 * focal_length / (min(size) * scale + 1e-9)], -1)
    return Camera(_centred(focal_length, size, R), R, t, size)


def _centred(focal_length: float | Tensor, size: tuple[int, int], like: Tensor) -> Tensor:
    """K of a centred principal point, ``(..., 3, 3)``."""
    if not isinstance(focal_length, Tensor):
        if not 0 < focal_length < float("inf"):
            raise ValueError(f"focal_length must be positive and finite, got {focal_length}")
        focal_length = torch.tensor(focal_length, dtype=like.dtype, device=like.device)
    elif readable(focal_length) and not (focal_length > 0).all():
        raise ValueError(f"focal_length must be positive, got {focal_length.min().item()}")
    f = focal_length.to(like)
    zero, one = torch.zeros_like(f), torch.ones_like(f)
    x, y = (one * ((n - 1) / 2) for n in reversed(size))
    return torch.stack([f, zero, x, zero, f, y, zero, zero, one], -1).reshape(*f.shape, 3, 3)


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _corner(K: Tensor, row: int, value: float) -> Tensor:
    """A matrix that adds ``value`` to the principal point."""
    matrix = torch.zeros(3, 3, dtype=K.dtype, device=K.device)
    matrix[row, 2] = value
    return matrix


def _size(name: str, value: object) -> tuple[int, int]:
    if not isinstance(value, Sequence | torch.Size) or len(value) != 2:
        raise ValueError(f"{name} must be height and width, got {value!r}")
    height, width = (integer(name, side, "two integers") for side in value)
    if min(height, width) < 1:
        raise ValueError(f"{name} must be at least 1, got {(height, width)}")
    return height, width


def _vectors(**given: object) -> list[Tensor]:
    tensors = [value for value in given.values() if isinstance(value, Tensor)]
    for name, value in given.items():
        if isinstance(value, Tensor):
            check_floating(name, value)
        elif not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
            check_tensor(name, value)
    dtype, device = (tensors[0].dtype, tensors[0].device) if tensors else (torch.get_default_dtype(), None)
    made = [torch.as_tensor(value, dtype=dtype, device=device) for value in given.values()]
    for name, value in zip(given, made, strict=True):
        if value.shape[-1:] != (3,):
            raise ValueError(f"{name} must be (..., 3), got shape {tuple(value.shape)}")
    return made
