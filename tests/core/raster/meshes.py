"""Small meshes and cameras for the tests of the rasteriser."""

import math

import torch
from torch import Tensor

from throughline.core.camera import Camera, look_at


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(size, dtype=torch.float64, generator=seeded(seed))


def plain(height: int, width: int, focal: float = 1.0, *, dtype: torch.dtype = torch.float64) -> Camera:
    """At the origin, with the principal point in the first pixel: (x, y, 1) is seen at (focal x, focal y)."""
    K = torch.diag(torch.tensor([focal, focal, 1.0], dtype=dtype))
    return Camera(K, torch.eye(3, dtype=dtype), torch.zeros(3, dtype=dtype), (height, width))


def soup(faces: int, *, seed: int = 0, size: float = 1.0) -> tuple[Tensor, Tensor]:
    """Triangles that have nothing to do with each other, around (0, 0, 4)."""
    centre = random(faces, 1, 3, seed=seed) * torch.tensor([1.0, 1.0, 0.7]) + torch.tensor([0.0, 0.0, 4.0])
    corners = centre + size * random(faces, 3, 3, seed=seed + 1)
    return corners.flatten(0, 1), torch.arange(3 * faces).view(faces, 3)


def centred(height: int, width: int, focal: float, *batch: int) -> Camera:
    """At the origin, with its view along z in the middle of the image."""
    K = torch.tensor([[focal, 0.0, (width - 1) / 2], [0.0, focal, (height - 1) / 2], [0.0, 0.0, 1.0]]).double()
    return Camera(K, torch.eye(3).double(), torch.zeros(*batch, 3).double(), (height, width))


def sphere(lines: int = 24, *, radius: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """A closed sphere of 2 · lines meridians: all of its corners are on it."""
    around = 2 * lines
    theta = torch.arange(1, lines, dtype=torch.float64) * math.pi / lines
    phi = torch.arange(around, dtype=torch.float64) * 2 * math.pi / around
    ring = torch.stack(
        [
            theta.sin()[:, None] * phi.cos(),
            theta.cos()[:, None].expand(-1, around),
            theta.sin()[:, None] * phi.sin(),
        ],
        -1,
    )
    poles = torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
    vertices = radius * torch.cat([ring.flatten(0, 1), poles])
    number = torch.arange((lines - 1) * around).view(lines - 1, around)
    right = number.roll(-1, 1)
    north, south = torch.full_like(number[0], len(vertices) - 2), torch.full_like(number[0], len(vertices) - 1)
    faces = [
        torch.stack([number[:-1], number[1:], right[:-1]], -1).flatten(0, 1),
        torch.stack([right[:-1], number[1:], right[1:]], -1).flatten(0, 1),
        torch.stack([north, number[0], right[0]], -1),
        torch.stack([number[-1], south, right[-1]], -1),
    ]
    return vertices.to(dtype), torch.cat(faces)


def outside(size: int = 48, *, distance: float = 3.0, focal: float | None = None) -> Camera:
    """Sees the unit sphere from outside."""
    return look_at(
        torch.tensor([0.3, 0.5, -1.0], dtype=torch.float64) / math.sqrt(1.34) * distance,
        focal_length=focal or size,
        image_size=(size, size),
    )
