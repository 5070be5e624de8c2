"""Families of shapes: meshes, their deformed relatives, distances to them, and what they look like."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from throughline.claims.deepmesh.config import Config
from throughline.data import DataError, Mesh, read_mesh
from throughline.data.cache import kept

if TYPE_CHECKING:
    from throughline.core.camera import Camera

__all__ = ["Shape", "Task", "View", "bases", "deformed", "families", "rendered", "view_of"]

NAMES = ("cheburashka", "cow", "fandisk", "homer", "rocker-arm", "spot")  # the watertight ones
SIDE, REACH = 1.3, 0.95  # longest side of a mesh; how far any relative goes from the origin along an axis
TWIST, STRETCH, LIMITS = 0.5, 0.15, (0.7, 1.35)
ELEVATION, DISTANCE, FOCAL = 0.35, 3.0, 1.5  # of the camera: radians, from the origin, in image sides
TRAIN, TEST, LOOK = 3, 5, 7  # keep the draws of one seed apart


class Shape(NamedTuple):
    """A mesh, and what it is a relative of."""

    name: str
    vertices: Tensor
    faces: Tensor


class View(NamedTuple):
    """What is known of a shape to be found."""

    image: Tensor  # (channels, H, W), what the encoder sees
    mask: Tensor  # (H, W) float, its silhouette
    camera: "Camera"


class Task(NamedTuple):
    """Shapes to learn from, with distances around them and images, and shapes to be found from one view each."""

    names: list[str]  # of the training shapes
    points: Tensor  # (shapes, samples, 3)
    distances: Tensor  # (shapes, samples)
    images: Callable[[Tensor, torch.Generator], Tensor]  # of some training shapes, one random view each
    test: list[Shape]
    views: list[View]


def families(config: Config, seed: int) -> Task:
    """Relatives of a few meshes to learn from, and others to be found."""
    meshes = bases(config)
    train = relatives(meshes, config.members, seed * 10 + TRAIN)
    test = relatives(meshes, config.tests, seed * 10 + TEST)
    digest = config.data.digest if config.data is not None else ""
    key = {"of": config.dataset, "data": digest, "members": config.members, "samples": config.samples, "seed": seed}
    known = kept("deepmesh", key, lambda: sampled(train, config.samples, seed))
    empty = [shape.name for shape, row in zip(train, known["distances"], strict=True) if not (row < 0).any()]
    if empty:
        raise DataError(
            f"{empty[0]}: no point of {config.samples} is inside of this mesh; --set samples=3000, or mend it"
        )
    draw = torch.Generator().manual_seed(seed * 10 + LOOK)
    seen = torch.stack([torch.stack([view_of(s, config, draw).image for _ in range(config.views)]) for s in train])

    def images(rows: Tensor, draw: torch.Generator) -> Tensor:
        return seen[rows, torch.randint(config.views, (len(rows),), generator=draw)]

    views = [view_of(shape, config, draw) for shape in test]
    return Task([shape.name for shape in train], known["points"], known["distances"], images, test, views)


def bases(config: Config) -> list[Mesh]:
    """The meshes whose relatives are learned: the user's, the downloaded ones, or a ball and a ring."""
    if config.data is not None:
        return config.data.meshes()
    if config.dataset == "meshes":
        return [read_mesh(f"meshes/{name}.obj") for name in NAMES]
    from throughline.geometry.isosurface import extract_surface

    def ring(x: Tensor) -> Tensor:
        return torch.hypot(x[:, ::2].norm(dim=1) - 0.45, x[:, 1]) - 0.2

    fields = {"ball": lambda x: x.norm(dim=1) - 0.6, "ring": ring}
    return [Mesh(name, *extract_surface(field, resolution=24, newton_steps=2)) for name, field in fields.items()]


def relatives(meshes: list[Mesh], count: int, seed: int) -> list[Shape]:
    """``count`` random deformations of each mesh."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for mesh in meshes:
        for _ in range(count):
            twist = TWIST * torch.randn((), generator=draw)
            scale = torch.exp(STRETCH * torch.randn(3, generator=draw)).clamp(*LIMITS)
            found.append(Shape(mesh.name, deformed(mesh.vertices, twist, scale), mesh.faces))
    return found


def deformed(vertices: Tensor, twist: Tensor, scale: Tensor) -> Tensor:
    """Centred, scaled to a longest side of 1.3, twisted about y by twist · y, and stretched along the axes."""
    low, high = vertices.aminmax(dim=0)
    x, y, z = (SIDE * (vertices - (low + high) / 2) / (high - low).amax()).unbind(1)
    angle = twist * y
    turned = torch.stack([angle.cos() * x + angle.sin() * z, y, angle.cos() * z - angle.sin() * x], 1) * scale
    return turned * (REACH / turned.abs().amax()).clamp(max=1)


def sampled(shapes: list[Shape], count: int, seed: int) -> dict[str, Tensor]:
    """Points around shapes, and their signed distances."""
    from throughline.geometry.isosurface import sample_sdf

    draw = torch.Generator().manual_seed(seed)
    known = [sample_sdf(shape.vertices, shape.faces, count, generator=draw) for shape in shapes]
    return {"points": torch.stack([p for p, _ in known]), "distances": torch.stack([d for _, d in known])}


def view_of(shape: Shape, config: Config, draw: torch.Generator) -> View:
    """From a random azimuth, a little from above: silhouette, and normals in the camera's frame."""
    azimuth = float(2 * torch.pi * torch.rand((), generator=draw))
    camera = camera_at(azimuth, config.image)
    image = rendered(shape.vertices, shape.faces, camera)
    return View(image, image[0], camera)


def camera_at(azimuth: float, side: int) -> "Camera":
    from throughline.core.camera import look_at

    turn, rise = torch.tensor(azimuth), torch.tensor(ELEVATION)
    eye = DISTANCE * torch.stack([rise.cos() * turn.sin(), rise.sin(), rise.cos() * turn.cos()])
    return look_at(eye, focal_length=FOCAL * side, image_size=(side, side))


@torch.no_grad()
def rendered(vertices: Tensor, faces: Tensor, camera: "Camera") -> Tensor:
    """``(4, H, W)``: the silhouette, and each pixel's face normal in the camera's frame, which points to the camera
    where its last coordinate is negative.
    """
    from throughline.core.raster import rasterize

    height, width = camera.image_size
    if not len(faces):
        return vertices.new_zeros(4, height, width)
    face = rasterize(vertices, faces, camera).face
    a, b, c = camera.to_camera(vertices)[faces].unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    hit = (face >= 0).to(vertices.dtype)
    return torch.cat([hit[None], (normals[face.clamp(min=0)] * hit[..., None]).movedim(-1, 0)])
