"""Generated people: poses about an A-pose, shapes and places, and clips of them as noisy detectors see them."""

import math

import torch
from torch import Tensor

from throughline.claims.mocap.config import Config, Population
from throughline.core.camera import Camera, look_at
from throughline.core.raster import rasterize
from throughline.core.rotation import so3_exp
from throughline.geometry.body import BodyModel, BodyPrediction
from throughline.geometry.motion import Clip

__all__ = ["HEIGHT", "crowd", "keypoints_of", "posed", "recorded", "rendered", "stage", "walk"]

HEIGHT = 0.95  # metres above the floor, of the camera and of what it looks at: the pelvis
LOWERED = 0.9  # radians, of the arms
SWAY = 0.1  # metres, of the place to the side and up
DRIFT = 0.3  # radians, of yaw within a clip
CHUNK = 1000  # people that are posed at a time
LOOSE = {(1, 2, 16, 17): (1.0, 0.4, 0.4), (3, 12): (0.4, 0.16, 0.16), (9,): (0.3, 0.12, 0.12)}  # about x, y and z


def stage(config: Config) -> Camera:
    """The camera, at the height of the pelvis: y is up in the world, and people at its origin face it."""
    place = (0.0, HEIGHT, config.distance)
    size = (config.side, config.side)
    return look_at(place, (0.0, HEIGHT, 0.0), focal_length=config.focal, image_size=size)


def crowd(n: int, who: Population, config: Config, draw: torch.Generator) -> BodyPrediction:
    """So many people, each alone, with a pose ``(n, 24, 3, 3)``, a shape and a place of their own."""
    turns = angles(n, who, draw)
    turns[:, 0, 1] = who.yaw * torch.randn(n, generator=draw)
    betas = who.shape * torch.randn(n, 10, generator=draw)
    return BodyPrediction(so3_exp(turns), betas, places(n, config, draw))


def walk(who: Population, config: Config, draw: torch.Generator) -> BodyPrediction:
    """One person who goes from one pose into another, by a raised cosine, and turns slowly."""
    share = (1 - torch.cos(math.pi * torch.linspace(0, 1, config.frames))) / 2
    first, last = angles(2, who, draw)
    turns = first + share[:, None, None] * (last - first)
    yaw, drift = who.yaw * torch.randn(1, generator=draw), DRIFT * torch.randn(1, generator=draw)
    turns[:, 0, 1] = yaw + drift * torch.linspace(0, 1, config.frames)
    betas = (who.shape * torch.randn(1, 10, generator=draw)).expand(config.frames, -1)
    return BodyPrediction(so3_exp(turns), betas, places(1, config, draw).expand(config.frames, -1))


def angles(n: int, who: Population, draw: torch.Generator) -> Tensor:
    """Axis-angles ``(n, 24, 3)`` about an A-pose; knees and elbows bend one way."""
    loose = torch.zeros(24, 3)
    for joints, axes in LOOSE.items():
        loose[list(joints)] = torch.tensor(axes)
    turns = who.amplitude * loose * torch.randn(n, 24, 3, generator=draw)
    bent = 2 * who.amplitude * torch.randn(n, 4, generator=draw).abs()
    turns[:, 4:6, 0] = bent[:, :2]
    turns[:, 18, 1], turns[:, 19, 1] = -bent[:, 2], bent[:, 3]
    turns[:, 16, 2] -= LOWERED
    turns[:, 17, 2] += LOWERED
    return turns


def places(n: int, config: Config, draw: torch.Generator) -> Tensor:
    aside = SWAY * torch.randn(n, 2, generator=draw)
    nearer = config.spread * (2 * torch.rand(n, 1, generator=draw) - 1)
    return torch.cat((aside, nearer), 1)


@torch.no_grad()
def posed(body: BodyModel, people: BodyPrediction) -> tuple[Tensor, Tensor]:
    """Vertices and joints of people, ``(n, V, 3)`` and ``(n, 24, 3)``."""
    pose, betas, transl = people
    out = body(betas, pose[:, 1:], pose[:, :1], transl, pose2rot=False)
    return out.vertices, out.joints


def bones(body: BodyModel) -> BodyModel:
    """A body whose vertices are its joints: the same joints at a small part of the cost."""
    joints = body.joint_regressor
    still = torch.eye(len(joints)).to(joints)
    none = body.faces.new_zeros(0, 3)
    shapes = torch.einsum("jv,vks->jks", joints, body.shape_dirs)
    return BodyModel(joints @ body.template, none, shapes, still, still, body.parents)


def keypoints_of(body: BodyModel, people: BodyPrediction, camera: Camera) -> Tensor:
    """Projected joints ``(n, 24, 2)``, some people at a time."""
    body = bones(body)
    parts = [BodyPrediction(*chunk) for chunk in zip(*(torch.split(part, CHUNK) for part in people), strict=True)]
    return torch.cat([camera.project(posed(body, part)[1])[0] for part in parts])


def recorded(
    body: BodyModel, true: BodyPrediction, camera: Camera, who: Population, config: Config, draw: torch.Generator
) -> Clip:
    """A motion as noisy detectors see it: nothing of it comes from a soft renderer."""
    vertices, joints = posed(body, true)
    uv, _ = camera.project(joints)
    mask, flow = rendered(body, vertices, camera)
    uv = uv + who.noise * torch.randn(uv.shape, generator=draw)
    flow = flow + config.flow_noise * torch.randn(flow.shape, generator=draw)
    return Clip(camera, uv, None, flow, mask)


@torch.no_grad()
def rendered(body: BodyModel, vertices: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """By the z-buffer: masks ``(T, H, W)``, and how far the surface under each pixel moves to the next frame."""
    found = rasterize(vertices, body.faces, camera)
    mask = found.face >= 0
    frame = torch.arange(len(vertices) - 1, device=vertices.device).view(-1, 1, 1, 1)
    corners = body.faces[found.face[:-1].clamp(min=0)]  # (T - 1, H, W, 3)
    there = (vertices[1:][frame, corners] * found.barycentric[:-1].unsqueeze(-1)).sum(-2)
    uv = camera.project(there.flatten(1, 2))[0].view(*there.shape[:-1], 2)
    height, width = camera.image_size
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    here = torch.stack((column, row), -1).to(uv)
    return mask, torch.where(mask[:-1].unsqueeze(-1), uv - here, 0.0)
