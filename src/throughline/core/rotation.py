"""Rotations of space for networks: six numbers, rotation vectors, and the angle between two.

"GDRNPP: A Geometry-guided and Fully Learning-based Object Pose Estimator" (arXiv 2102.12145); the six numbers are those
of "On the Continuity of Rotation Representations in Neural Networks" (arXiv 1812.07035). Every gradient is finite.
"""

import torch
from torch import Tensor

from throughline.core.checks import check_floating

__all__ = ["geodesic_distance", "rotation_from_6d", "rotation_to_6d", "so3_exp", "so3_log"]

# Taylor series in t: sin √t / √t and (1 - cos √t) / t up to t = 1/4, atan √t / √t up to t = 1/100
SERIES = 0.25
SINE = (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880, -1 / 39916800, 1 / 6227020800)
COSINE = (1 / 2, -1 / 24, 1 / 720, -1 / 40320, 1 / 3628800, -1 / 479001600, 1 / 87178291200)
ARCTANGENT_SERIES = 0.01
ARCTANGENT = (1.0, -1 / 3, 1 / 5, -1 / 7, 1 / 9, -1 / 11, 1 / 13, -1 / 15)


def rotation_from_6d(x: Tensor) -> Tensor:
    """The rotation that two vectors a and b span: columns a/|a|, z × x and z = (a × b)/|a × b| (arXiv 2102.12145).

    HMR and SPIN interleave the two vectors:
    permute their numbers with ``x.unflatten(-1, (3, 2)).mT.flatten(-2)`` first. Where a is zero or b along it, some
    rotation that fits is returned, whose gradient by what does not matter is zero.

    Args:
        x: floating point, ``(..., 6)``: a, then b.

    Returns:
        ``(..., 3, 3)`` in the dtype of ``x``, orthonormal with determinant 1.

    Raises:
        TypeError: ``x`` is not floating point.
        ValueError: ``x`` is not ``(..., 6)``.

    >>> rotation_from_6d(torch.tensor([2.0, 0.0, 0.0, 5.0, 3.0, 0.0]))
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    check_floating("x", x)
    if x.ndim == 0 or x.shape[-1] != 6:
        raise ValueError(f"x must be (..., 6), got shape {tuple(x.shape)}")
    axes = torch.eye(3, dtype=_work(x), device=x.device)
    a, b = x.to(axes.dtype).reshape(*x.shape[:-1], 2, 3).unbind(-2)
    a = _unit(torch.where((a == 0).all(-1, keepdim=True), axes[0], a))
    b = b / _size(b)
    parallel = torch.linalg.cross(a, b).square().sum(-1, keepdim=True) <= (8 * torch.finfo(b.dtype).eps) ** 2
    aside = axes.index_select(0, a.detach().abs().argmin(-1).flatten()).view(a.shape)  # the axis farthest from a
    z = torch.linalg.cross(a, torch.where(parallel, aside, b))
    z = z / _norm(z)
    z = _unit(z - (a * z).sum(-1, keepdim=True) * a)  # what rounding left of a when b is almost along it
    return torch.stack([a, torch.linalg.cross(z, a), z], -1).to(x.dtype)


def rotation_to_6d(R: Tensor) -> Tensor:
    """The first two columns of rotations, one after the other: `rotation_from_6d` leads back.

    Args:
        R: floating point, ``(..., 3, 3)``.

    Returns:
        ``(..., 6)``.

    Raises:
        TypeError: ``R`` is not floating point.
        ValueError: ``R`` is not ``(..., 3, 3)``.

    >>> rotation_to_6d(torch.eye(3))
    tensor([1., 0., 0., 0., 1., 0.])
    """
    _check_matrix("R", R)
    return R[..., :2].mT.flatten(-2)


def so3_exp(w: Tensor) -> Tensor:
    """Rotations by |w| radians about w (Rodrigues): I + A [w]ₓ + B [w]ₓ², A = sin|w|/|w|, B = (1 - cos|w|)/|w|².

    Args:
        w: rotation vectors in radians, floating point, ``(..., 3)``; at zero the series gives value and gradient.

    Returns:
        ``(..., 3, 3)`` in the dtype of ``w``.

    Raises:
        TypeError: ``w`` is not floating point.
        ValueError: ``w`` is not ``(..., 3)``.

    >>> so3_exp(torch.tensor([0.0, 0.0, 0.3]))
    tensor([[ 0.9553, -0.2955,  0.0000],
            [ 0.2955,  0.9553,  0.0000],
            [ 0.0000,  0.0000,  1.0000]])
    """
    check_floating("w", w)
    if w.ndim == 0 or w.shape[-1] != 3:
        raise ValueError(f"w must be (..., 3), got shape {tuple(w.shape)}")
    v = w.to(_work(w))
    square = v.square().sum(-1)
    small = square < SERIES
    near, far = torch.where(small, square, 0), torch.where(small, 1, square)
    angle = far.sqrt()
    sine = torch.where(small, _polynomial(near, SINE), angle.sin() / angle)
    half = (angle / 2).sin() / angle
    cosine = torch.where(small, _polynomial(near, COSINE), 2 * half.square())  # without the cancellation of 1 - cos
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*w.shape[:-1], 3, 3)
    # [w]ₓ² = w wᵀ - |w|² I
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    twice = v.unsqueeze(-1) * v.unsqueeze(-2) - square[..., None, None] * eye
    return (eye + sine[..., None, None] * cross + cosine[..., None, None] * twice).to(w.dtype)


def so3_log(R: Tensor) -> Tensor:
    """The rotation vector of at most π radians of a rotation: `so3_exp` leads back.

    Goes through the unit quaternion, by the largest of its four entries, so that it is as accurate next to π as
    elsewhere; of the two vectors of length π one is returned.

    Args:
        R: rotations, floating point, ``(..., 3, 3)``.

    Returns:
        ``(..., 3)`` in radians, in the dtype of ``R``.

    Raises:
        TypeError: ``R`` is not floating point.
        ValueError: ``R`` is not ``(..., 3, 3)``.

    >>> so3_log(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    tensor([0.0000, 0.0000, 1.5708])
    """
    _check_matrix("R", R)
    m = R.to(_work(R))
    a, b, c, d, e, f, g, h, i = m.flatten(-2).unbind(-1)
    # 4 q qᵀ of the quaternion q = (w, x, y, z); its trace is 4, so that a largest entry of the diagonal is at least 1
    table = torch.stack(
        [
            *(1 + a + e + i, h - f, c - g, d - b),
            *(h - f, 1 + a - e - i, b + d, c + g),
            *(c - g, b + d, 1 - a + e - i, f + h),
            *(d - b, c + g, f + h, 1 - a - e + i),
        ],
        -1,
    ).reshape(*R.shape[:-2], 4, 4)
    row = table.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = table.take_along_dim(row[..., None, None], -2).squeeze(-2)
    q = q / _norm(q)
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    square = v.square().sum(-1, keepdim=True)
    small = square < ARCTANGENT_SERIES * w.square()
    ratio = torch.where(small, square, 0) / torch.where(small, w, 1).square()
    series = _polynomial(ratio, ARCTANGENT) / torch.where(small, w, 1)
    length = torch.where(small, 1, square).sqrt()
    return (2 * torch.where(small, series, torch.atan2(length, w) / length) * v).to(R.dtype)


def geodesic_distance(R1: Tensor, R2: Tensor) -> Tensor:
    """The angle of the rotation between two rotations, in radians.

    atan2 of sine and cosine is accurate to rounding at every angle, where arccos loses half of the digits at 0 and π.
    At exactly 0 and π, where the distance has a kink, the gradient is zero.

    Args:
        R1: rotations, floating point, ``(..., 3, 3)``.
        R2: likewise, of a shape that broadcasts with it.

    Returns:
        ``(...)``, from 0 to π.

    Raises:
        TypeError: an argument is not floating point.
        ValueError: an argument is not ``(..., 3, 3)``, or they do not broadcast.

    >>> geodesic_distance(torch.eye(3), so3_exp(torch.tensor([0.0, 0.25, 0.0])))
    tensor(0.2500)
    """
    _check_matrix("R1", R1)
    _check_matrix("R2", R2)
    dtype = torch.promote_types(R1.dtype, R2.dtype)
    work = torch.promote_types(dtype, torch.float32)
    try:
        first, second = torch.broadcast_tensors(R1.to(work), R2.to(work))  # type: ignore[no-untyped-call]
    except RuntimeError:
        shapes = f"{tuple(R1.shape)} and {tuple(R2.shape)}"
        raise ValueError(f"R1 and R2 must broadcast with each other, got shapes {shapes}") from None
    m = (first.unsqueeze(-1) * second.unsqueeze(-2)).sum(-3)  # R1ᵀ R2
    cosine = (m.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    twice = torch.stack([m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1)
    square = (twice / 2).square().sum(-1)
    sine = torch.where(square == 0, 0, torch.where(square == 0, 1, square).sqrt())
    return torch.atan2(sine, cosine).to(dtype)


def _check_matrix(name: str, value: Tensor) -> None:
    check_floating(name, value)
    if value.shape[-2:] != (3, 3):
        raise ValueError(f"{name} must be (..., 3, 3), got shape {tuple(value.shape)}")


def _work(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _size(v: Tensor) -> Tensor:
    """The largest entry, as a constant that keeps squares from overflowing and vanishing; 1 for zeros."""
    size = v.detach().abs().amax(-1, keepdim=True)
    return torch.where(size == 0, 1, size)


def _norm(v: Tensor) -> Tensor:
    return v.square().sum(-1, keepdim=True).sqrt()


def _unit(v: Tensor) -> Tensor:
    v = v / _size(v)
    return v / _norm(v)


def _polynomial(t: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    value = torch.full_like(t, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = value * t + coefficient
    return value
