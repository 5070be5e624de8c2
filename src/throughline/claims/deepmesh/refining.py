"""The arms of the deepmesh claim: a prediction as it is, refined as a mesh, or refined through its field."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from throughline.claims.deepmesh.config import Config
from throughline.claims.deepmesh.data import Shape, View, rendered
from throughline.claims.shared.clocks import clock_of

if TYPE_CHECKING:
    from throughline.geometry.isosurface import DeepSDF

__all__ = ["Refined", "euler_number", "refined", "scores"]

PLACES = 6  # of the strip
LOOK = 17  # keeps the draws of one seed apart


class Refined(NamedTuple):
    """The mesh that an arm ends with."""

    vertices: Tensor
    faces: Tensor
    seconds: float  # of a step
    losses: list[float]
    strip: list[tuple[int, Tensor, Tensor]]  # steps and meshes on the way
    inflow: Tensor | None  # ∂L/∂f at the vertices of the first mesh: the surface is to move outward where positive


def refined(arm: str, decoder: "DeepSDF", code: Tensor, view: View, config: Config) -> Refined:
    """What an arm makes of the code that the encoder guesses from a view."""
    from throughline.geometry.isosurface import extract_surface

    vertices, faces = extract_surface(lambda x: decoder(x, code), resolution=config.resolution)
    if arm == "raw" or not len(faces):
        return Refined(vertices, faces, 0.0, [], [], None)
    if arm == "mesh":
        return as_mesh(vertices, faces, view, config)
    return as_field(decoder, code, view, config)


def as_field(decoder: "DeepSDF", code: Tensor, view: View, config: Config) -> Refined:
    """Adam on the code; the surface is extracted anew in each step, in a band around the last."""
    from throughline.geometry.isosurface import SurfaceTracker, extract_surface

    z = code.clone().requires_grad_()
    tracker = SurfaceTracker(resolution=config.resolution)
    strip: list[tuple[int, Tensor, Tensor]] = []
    pushes: list[Tensor] = []
    losses: list[float] = []
    shown = {round(k * config.steps / (PLACES - 1)) for k in range(PLACES - 1)}

    def mesh() -> tuple[Tensor, Tensor]:
        vertices, faces = tracker(lambda x: decoder(x, z))
        if len(losses) in shown:
            strip.append((len(losses), vertices.detach(), faces))
        if not losses:
            vertices.register_hook(pushes.append)  # type: ignore[no-untyped-call]
        return vertices, faces

    seconds = descend(
        [z], config.deepmesh_lr, mesh, lambda vertices: config.code_weight * z.square().mean(), view, config, losses
    )
    vertices, faces = extract_surface(lambda x: decoder(x, z.detach()), resolution=config.resolution)
    strip.append((config.steps, vertices, faces))
    inflow = along_normals(decoder, code, strip[0][1], pushes[0])
    return Refined(vertices, faces, seconds, losses, strip, inflow)


def as_mesh(start: Tensor, faces: Tensor, view: View, config: Config) -> Refined:
    """Adam on an offset of each vertex; the uniform Laplacian of the offsets is kept small."""
    offsets = torch.zeros_like(start, requires_grad=True)
    edges = torch.stack([faces.flatten(), faces.roll(-1, 1).flatten()])
    edges = torch.unique(torch.cat([edges, edges.flip(0)], 1), dim=1)
    degree = torch.zeros_like(start[:, :1]).index_add(0, edges[0], torch.ones_like(start[edges[0], :1])).clamp(min=1)

    def roughness(vertices: Tensor) -> Tensor:
        mean = torch.zeros_like(offsets).index_add(0, edges[0], offsets[edges[1]]) / degree
        return config.smoothness * (offsets - mean).square().sum(1).mean()

    losses: list[float] = []
    seconds = descend([offsets], config.mesh_lr, lambda: (start + offsets, faces), roughness, view, config, losses)
    return Refined((start + offsets).detach(), faces, seconds, losses, [], None)


def descend(
    leaves: list[Tensor],
    lr: float,
    mesh: Callable[[], tuple[Tensor, Tensor]],
    penalty: Callable[[Tensor], Tensor],
    view: View,
    config: Config,
    losses: list[float],
) -> float:
    """Steps on mean |S − S*| and a penalty, the same in both arms; returns the seconds of one."""
    from throughline.core.raster import soft_silhouette

    optimizer = torch.optim.Adam(leaves, lr)
    clock = clock_of(config.device)
    began = clock()
    for _ in range(config.steps):
        vertices, faces = mesh()
        error = (soft_silhouette(vertices, faces, view.camera, sigma=config.sigma) - view.mask).abs().mean()
        optimizer.zero_grad()
        (error + penalty(vertices)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(error.item())
    return (clock() - began) / config.steps


def along_normals(decoder: "DeepSDF", code: Tensor, vertices: Tensor, push: Tensor) -> Tensor:
    """The paper's inflow: how the loss wants the field to change at each vertex, as a flow of the surface outwards."""
    x = vertices.clone().requires_grad_()
    (slope,) = torch.autograd.grad(decoder(x, code).sum(), x)
    return -(push * slope).sum(1) / slope.square().sum(1).clamp(min=1e-4)


def scores(found: Refined, shape: Shape, view: View, config: Config, seed: int) -> dict[str, float]:
    """How far a mesh is from the truth, in space and in the image, and whether it has its holes."""
    from throughline.geometry.isosurface import chamfer_distance, sample_surface

    draw = torch.Generator().manual_seed(seed * 100 + LOOK)
    device = found.vertices.device
    points = torch.zeros(1, 3, device=device)  # for a mesh that has vanished: the middle
    if len(found.faces):
        points = sample_surface(found.vertices.cpu(), found.faces.cpu(), config.scored, generator=draw).to(device)
    truth = sample_surface(shape.vertices, shape.faces, config.scored, generator=draw).to(device)
    mask, wanted = rendered(found.vertices, found.faces, view.camera)[0] > 0, view.mask > 0.5
    either = (mask | wanted).sum()
    return {
        "chamfer": 1e3 * float(chamfer_distance(points, truth)),
        "iou": float((mask & wanted).sum() / either) if either else 1.0,
        "euler": float(euler_number(found.faces)),
        "euler_error": float(abs(euler_number(found.faces) - euler_number(shape.faces))),
        "step_seconds": found.seconds,
    }


def euler_number(faces: Tensor) -> int:
    """Vertices less edges plus faces: 2 for each ball, less 2 for each hole through it."""
    edges = torch.cat([faces, faces.roll(1, 1), faces.roll(-1, 1)])[:, :2].sort(1).values
    return len(torch.unique(faces)) - len(torch.unique(edges, dim=0)) + len(faces)
