"""Speed bars of the rasteriser: DEODR (C++) and a ray caster for the z-buffer, the dense sum for soft silhouettes.

PyTorch3D, whose rasteriser on a CPU visits every face for every pixel, has no build to install, and SoftRas and
nvdiffrast need a GPU. The ray caster is Embree, by way of trimesh and embreex; the tree that it needs is built
beforehand and not timed.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.core.camera import Camera, look_at
from throughline.core.raster import distance_transform, rasterize, soft_rasterize, soft_silhouette
from throughline.data.download import fetch

Calls = dict[str, Callable[[], Any]]
CUT = math.log(1 / 1e-4 - 1)


@cache
def mesh(name: str) -> tuple[Tensor, Tensor]:
    """A mesh of the registry, moved into the unit ball."""
    vertices, faces = [], []
    for line in fetch(f"meshes/{name}.obj").read_text(encoding="utf-8").splitlines():
        kind, *words = line.split() or [""]
        if kind == "v":
            vertices.append([float(word) for word in words[:3]])
        elif kind == "f":
            faces.append([int(word.partition("/")[0]) - 1 for word in words])
    points = torch.tensor(vertices)
    points = points - (points.amin(0) + points.amax(0)) / 2
    return points / points.norm(dim=1).max(), torch.tensor(faces)


def seen(side: int) -> Camera:
    return look_at((0.9, 0.7, 2.6), focal_length=1.25 * side, image_size=(side, side))


def by_deodr(name: str, side: int) -> Calls:
    """The same image by scan conversion; DEODR clips nothing and takes projected vertices."""
    from deodr.differentiable_renderer import Scene2D

    (vertices, faces), camera = mesh(name), seen(side)
    uv, depth = (x.double().numpy() for x in camera.project(vertices))
    count = len(vertices)
    scene = Scene2D(
        faces=faces.numpy().astype(np.uint32),
        faces_uv=faces.numpy().astype(np.uint32),
        ij=uv.copy(),
        depths=depth.copy(),
        textured=np.zeros(len(faces), dtype=bool),
        uv=np.zeros((count, 2)),
        shade=np.zeros(count),
        colors=np.ones((count, 1)),
        shaded=np.zeros(len(faces), dtype=bool),
        edgeflags=np.zeros((len(faces), 3), dtype=bool),
        height=side,
        width=side,
        nb_colors=1,
        texture=np.zeros((0, 0)),
        background_image=np.zeros((side, side, 1)),
        background_color=None,
        clockwise=False,
        backface_culling=False,
        strict_edge=True,
        perspective_correct=True,
        integer_pixel_centers=True,
    )

    def peer() -> tuple[np.ndarray, np.ndarray]:
        image, depths = scene.render(sigma=0.0)
        return image, depths

    def ours() -> Any:
        with torch.no_grad():
            return rasterize(vertices, faces, camera)

    def agree() -> None:
        found, (image, depths) = ours(), peer()
        covered = torch.from_numpy(image[..., 0] > 0.5)
        same(found, covered, torch.from_numpy(depths))

    return {"ours": ours, "peer": peer, "agree": agree}


def by_embree(name: str, side: int) -> Calls:
    """The first face that every pixel's ray meets."""
    import trimesh
    from trimesh.ray.ray_pyembree import RayMeshIntersector

    (vertices, faces), camera = mesh(name), seen(side)
    tree = RayMeshIntersector(trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False))
    v, u = (x.flatten().float() for x in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    start = camera.center.double().numpy()
    ray = camera.unproject(torch.stack([u, v], -1), torch.ones(side * side)).double().numpy() - start
    origin = np.broadcast_to(start, ray.shape).copy()

    def peer() -> np.ndarray:
        found: np.ndarray = tree.intersects_first(origin, ray)
        return found

    def ours() -> Any:
        with torch.no_grad():
            return rasterize(vertices, faces, camera)

    def agree() -> None:
        found, face = ours(), torch.from_numpy(peer()).view(side, side)
        same(found, face >= 0)
        assert (found.face != face).double().mean() < 1e-3

    return {"ours": ours, "peer": peer, "agree": agree}


def same(found: Any, covered: Tensor, depth: Tensor | None = None) -> None:
    """Coverage but for two pixels, and depths where both see something."""
    ours = found.face >= 0
    assert (ours != covered).sum() <= 2, (ours != covered).sum()
    if depth is not None:
        both = ours & covered
        assert ((found.depth - depth)[both].abs() > 1e-3).double().mean() < 1e-3


def dense(name: str, side: int, sigma: float) -> Calls:
    """Forward and backward, beside every face at every pixel in blocks of faces that autograd goes through again."""
    (vertices, faces), camera = mesh(name), seen(side)
    vertices = vertices.clone().requires_grad_()
    v, u = (x.flatten().float() for x in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
    pixel = torch.stack([u, v], -1).unsqueeze(1)

    def sum_over(corners: Tensor) -> Tensor:
        edges, points = corners.roll(-1, 1) - corners, pixel.unsqueeze(2) - corners
        t = ((points * edges).sum(-1) / edges.square().sum(-1)).clamp(0, 1)
        square = (points - t.unsqueeze(-1) * edges).square().sum(-1).amin(-1)
        cross = edges[..., 0] * points[..., 1] - edges[..., 1] * points[..., 0]
        inside = (cross >= 0).all(-1) | (cross <= 0).all(-1)
        x = torch.where(inside, square, -square) * (4 / (side * side * sigma))
        return torch.where(x > -CUT, F.softplus(x), 0).sum(1)

    def peer() -> tuple[Tensor, Tensor]:
        corners = camera.project(vertices)[0][faces]
        total = sum(checkpoint(sum_over, part, use_reentrant=False) for part in corners.split(64))
        image = -torch.expm1(-total)
        return image.view(side, side), *torch.autograd.grad(image.sum(), vertices)

    def ours() -> tuple[Tensor, Tensor]:
        image = soft_silhouette(vertices, faces, camera, sigma=sigma)
        return image, *torch.autograd.grad(image.sum(), vertices)

    def agree() -> None:
        (one, by_one), (other, by_other) = ours(), peer()
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
        assert (by_one - by_other).norm() < 1e-2 * by_other.norm()

    return {"ours": ours, "peer": peer, "agree": agree}


def channels(name: str, side: int, count: int) -> Calls:
    (vertices, faces), camera = mesh(name), seen(side)
    vertices = vertices.clone().requires_grad_()
    values = torch.rand(len(vertices), count, generator=torch.Generator().manual_seed(0))

    def ours() -> tuple[Tensor, Tensor]:
        image = soft_rasterize(vertices, faces, camera, values).attributes
        assert image is not None
        return image, *torch.autograd.grad(image.sum(), vertices)

    def peer() -> tuple[Tensor, Tensor]:
        image = soft_silhouette(vertices, faces, camera)
        return image, *torch.autograd.grad(image.sum(), vertices)

    def agree() -> None:
        full = soft_rasterize(vertices, faces, camera, values)
        assert torch.equal(full.silhouette, soft_silhouette(vertices, faces, camera))

    return {"ours": ours, "peer": peer, "agree": agree}


def transform(side: int) -> Calls:
    from scipy.ndimage import distance_transform_edt

    mask = torch.rand(side, side, generator=torch.Generator().manual_seed(0)) < 1e-3
    outside = (~mask).numpy()
    return {
        "ours": lambda: distance_transform(mask),
        "peer": lambda: distance_transform_edt(outside),
        "agree": lambda: torch.testing.assert_close(
            distance_transform(mask), torch.from_numpy(distance_transform_edt(outside)).float()
        ),
    }


MESHES = (("homer", "12,000"), ("stanford-bunny", "69,451"))
CASES = [
    *(
        Case(f"rasterize, {name}, {count} faces, 256 × 256", partial(by_deodr, name, 256), 4.0, "DEODR 0.2.3")
        for name, count in MESHES
    ),
    *(
        Case(
            f"rasterize against rays, {name}, {count} faces, 256 × 256",
            partial(by_embree, name, 256),
            4.0,
            "a query of Embree by trimesh 5.2.0",
            work="less",
        )
        for name, count in MESHES
    ),
    Case(
        "soft_silhouette, cow, 5,804 faces, 64 × 64, σ = 1e-4, forward and backward",
        partial(dense, "cow", 64, 1e-4),
        1 / 30,
        "every face at every pixel",
    ),
    Case(
        "soft_rasterize, cow, 128 × 128, nine channels, forward and backward",
        partial(channels, "cow", 128, 9),
        4.0,
        "soft_silhouette",
        work="less",
    ),
    Case("distance_transform, 224 × 224", partial(transform, 224), 8.0, "scipy.ndimage.distance_transform_edt"),
]


def by_faces(count: int) -> Callable[[], Any]:
    """Triangles of which there are as many pixels of each, however many there are."""
    draw = torch.Generator().manual_seed(0)
    place = torch.rand(count, 1, 3, generator=draw) * torch.tensor([128.0, 128.0, 0.0]) + torch.tensor([0.0, 0.0, 1.0])
    corners = place + torch.rand(count, 3, 3, generator=draw) * torch.tensor([3.0, 3.0, 0.5])
    vertices = torch.cat([corners[..., :2] * corners[..., 2:], corners[..., 2:]], -1).flatten(0, 1)
    camera = Camera(torch.eye(3), torch.eye(3), torch.zeros(3), (128, 128))
    faces = torch.arange(3 * count).view(count, 3)
    return lambda: rasterize(vertices, faces, camera)


def by_side(side: int) -> Callable[[], Any]:
    vertices, faces = mesh("woody")
    camera = seen(side)
    return lambda: soft_silhouette(vertices, faces, camera)


GROWTH = [
    Growth("rasterize, 128 × 128, three pixels across a face", "faces", 4096, by_faces, time=1, memory=1),
    Growth("soft_silhouette, woody", "side of the image", 128, by_side, time=2, memory=2, step=2),
]
