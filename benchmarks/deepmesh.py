"""Speed bars of surfaces out of fields: scikit-image's and PyMCubes' marching cubes, the field's own evaluations for
the layer, and what one writes by hand for the distances.

The authors' code calls scikit-image on the CPU, so that is the peer of theirs too.
"""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.geometry.isosurface import (
    DeepSDF,
    SurfaceTracker,
    attach,
    chamfer_distance,
    extract_surface,
    marching_cubes,
    sample_surface,
    signed_distance,
)

Calls = dict[str, Callable[[], Any]]
Mesh = tuple[Tensor, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wavy_torus(x: Tensor) -> Tensor:
    ring = torch.linalg.vector_norm(x[..., :2], dim=-1) - 0.55
    return torch.sqrt(ring.square() + x[..., 2].square()) - 0.25 + 0.04 * torch.sin(9 * x).prod(-1)


def points_of(side: int) -> Tensor:
    axis = torch.linspace(-1, 1, side)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def sampled(side: int) -> Tensor:
    return wavy_torus(points_of(side))


def area(vertices: Tensor, faces: Tensor) -> float:
    a, b, c = vertices.double()[faces].unbind(1)
    return float(torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=1).sum()) / 2


def cubes(side: int, peer: str) -> Calls:
    """The same array, in the memory of torch and of NumPy; vertices in units of cells."""
    import mcubes
    from skimage.measure import marching_cubes as skimage

    values = sampled(side)
    array = values.numpy()

    def theirs() -> Any:
        if peer == "scikit-image":
            return skimage(array, 0.0)[:2]
        return mcubes.marching_cubes(array, 0.0)

    def agree() -> None:
        ours, (v, f) = marching_cubes(values), theirs()
        assert len(ours[0]) == len(v)
        for one, other in ((ours[0].numpy(), v), (v, ours[0].numpy())):
            assert cKDTree(one).query(other)[0].max() < 1e-3
        wanted = area(torch.from_numpy(np.asarray(v, dtype=float)), torch.from_numpy(np.asarray(f, dtype=np.int64)))
        assert abs(area(*ours) / wanted - 1) < 1e-4

    return {"ours": lambda: marching_cubes(values), "peer": theirs, "agree": agree}


class Shape:
    """A decoder of 8 × 128 on top of a torus, as a field whose surface is known to be there."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.decoder = DeepSDF(2, (128,) * 8, skip=(4,))
        self.z = torch.zeros(2, requires_grad=True)

    def __call__(self, x: Tensor) -> Tensor:
        return wavy_torus(x) + 0.1 * self.decoder(x, self.z)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.z, *self.decoder.parameters()]


def layer(side: int) -> Calls:
    """All of a step but the loss, beside the evaluation of the grid that it contains."""
    field, grid = Shape(), points_of(side).view(-1, 3)

    def ours() -> tuple[Tensor, ...]:
        v, _ = extract_surface(field, resolution=side)
        return torch.autograd.grad(v.sum(), field.leaves)

    def peer() -> Tensor:
        with torch.no_grad():
            return torch.cat([field(part) for part in grid.split(2**17)])

    def agree() -> None:
        with torch.no_grad():
            values = field(points_of(20).view(-1, 3)).view(20, 20, 20)
        wanted = marching_cubes(values, spacing=2 / 19, origin=-1.0)
        v, faces = extract_surface(field, resolution=20)
        assert len(v) > 500
        assert torch.equal(faces, wanted[1])
        torch.testing.assert_close(v, wanted[0], atol=1e-5, rtol=0)

    return {"ours": ours, "peer": peer, "agree": agree}


def backward(points: int) -> Calls:
    """The backward pass of the layer, by the code and all weights, beside passes forward."""
    field = Shape()
    v = extract_surface(field, resolution=24)[0].detach()
    v = v[torch.randint(len(v), (points,), generator=seeded())]
    attached = attach(field, v)

    def ours() -> tuple[Tensor, ...]:
        return torch.autograd.grad(attached.sum(), field.leaves, retain_graph=True)

    def peer() -> Tensor:
        with torch.no_grad():
            return field(v)

    def agree() -> None:
        """−Σ (g · ∇f / |∇f|²) ∂f/∂θ, term by term as it stands."""
        x = v.clone().requires_grad_()
        f = field(x)
        (gradient,) = torch.autograd.grad(f.sum(), x, retain_graph=True)
        by = -gradient.sum(1) / gradient.square().sum(1).clamp(min=1e-4)
        wanted = torch.autograd.grad(f, field.leaves, by)
        for one, other in zip(ours(), wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)

    return {"ours": ours, "peer": peer, "agree": agree}


def tracked(side: int) -> Calls:
    """A call between two whole passes, beside `extract_surface`; both with the gradient."""
    field = Shape()
    tracker = SurfaceTracker(resolution=side, refresh=10**9)
    tracker(field)

    def step(mesh: Mesh) -> Tensor:
        (by_code,) = torch.autograd.grad(mesh[0].sum(), field.z)
        return by_code

    def agree() -> None:
        small = SurfaceTracker(resolution=20)
        small(wavy_torus)  # not quite the same: the second call is in a band
        for one, other in zip(small(field), extract_surface(field, resolution=20), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)

    return {
        "ours": lambda: step(tracker(field)),
        "peer": lambda: step(extract_surface(field, resolution=side)),
        "agree": agree,
    }


def distances(points: int) -> Calls:
    """Exact and signed, of points around a closed mesh of 10,000 faces."""
    import trimesh

    v, faces = marching_cubes(sampled(48), spacing=2 / 47, origin=-1.0)
    x = 2 * torch.rand(points, 3, generator=seeded()) - 1
    mesh = trimesh.Trimesh(v.numpy(), faces.numpy(), process=False)

    def ours() -> Tensor:
        return signed_distance(x, v, faces)

    def peer() -> Any:
        return -trimesh.proximity.signed_distance(mesh, x.numpy())

    return {
        "ours": ours,
        "peer": peer,
        "agree": lambda: np.testing.assert_allclose(ours().numpy(), peer(), atol=1e-5),
    }


def chamfer(points: int) -> Calls:
    a, b = (torch.randn(points, 3, generator=seeded(s)).requires_grad_() for s in (0, 1))

    def peer() -> tuple[Tensor, ...]:
        squared = (a[:, None] - b).square().sum(-1)
        value = squared.amin(1).mean() + squared.amin(0).mean()
        return value, *torch.autograd.grad(value, (a, b))

    def ours() -> tuple[Tensor, ...]:
        value = chamfer_distance(a, b)
        return value, *torch.autograd.grad(value, (a, b))

    def agree() -> None:
        for one, other in zip(ours(), peer(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)

    return {"ours": ours, "peer": peer, "agree": agree}


SKIMAGE, PYMCUBES = (f"{name} {version(name)}" for name in ("scikit-image", "PyMCubes"))
CASES = [
    *(
        Case(
            f"marching_cubes of a wavy torus on {side}³",
            partial(cubes, side, peer.split()[0]),
            bar,
            peer,
            bytes=5.0 * side**3,  # the values read, a byte for each cube written
        )
        for side, bar in ((64, 1.0), (128, 1 / 1.2), (256, 1 / 1.2))
        for peer in (SKIMAGE, PYMCUBES)
    ),
    Case(
        "extract_surface and its gradient, 64³, decoder 8 × 128",
        partial(layer, 64),
        1.3,
        "the grid's evaluation alone",
        work="less",
    ),
    Case(
        "backward of attach, 10,000 vertices, decoder 8 × 128",
        partial(backward, 10_000),
        3.0,
        "a forward pass",
        work="less",
    ),
    Case("SurfaceTracker between whole passes, 64³, decoder 8 × 128", partial(tracked, 64), 0.25, "extract_surface"),
    Case(
        "signed_distance, 2,000 points, 10,000 faces",
        partial(distances, 2_000),
        1.0,
        f"trimesh {version('trimesh')}",
    ),
    Case(
        "chamfer_distance, 3,000 points each, forward and backward",
        partial(chamfer, 3_000),
        1.0,
        "all squared distances",
        bar_memory=0.2,
    ),
]


def extracting(side: int) -> Callable[[], Any]:
    values = sampled(side)
    return lambda: marching_cubes(values)


def measuring(points: int) -> Callable[[], Any]:
    v, faces = marching_cubes(sampled(24), spacing=2 / 23, origin=-1.0)
    x = 2 * torch.rand(points, 3) - 1
    return lambda: signed_distance(x, v, faces)


def comparing(points: int) -> Callable[[], Any]:
    a, b = torch.randn(points, 3), torch.randn(2_000, 3)
    return lambda: chamfer_distance(a, b)


def drawing(points: int) -> Callable[[], Any]:
    v, faces = marching_cubes(sampled(24), spacing=2 / 23, origin=-1.0)
    return lambda: sample_surface(v, faces, points)


GROWTH = [
    Growth("marching_cubes of a wavy torus", "side", 96, extracting, time=3, memory=3, step=2),
    Growth("signed_distance to a mesh of 2,000 faces", "points", 4096, measuring, time=1, memory=1),
    Growth("chamfer_distance to 2,000 points", "points", 4096, comparing, time=1, memory=1),
    Growth("sample_surface of a mesh of 2,000 faces", "points", 2**16, drawing, time=1, memory=1),
]
