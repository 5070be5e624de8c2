"""A coarse body, a camera that turns its up into down, and clips of it whose truth is known."""

from functools import cache

import torch
from torch import Tensor

from throughline.core.camera import Camera, look_at
from throughline.core.raster import rasterize
from throughline.core.rotation import so3_exp
from throughline.geometry.body import BodyModel, BodyPrediction, open_body
from throughline.geometry.motion import Clip

SIDE, FOCAL, DISTANCE = 48, 60.0, 3.8


@cache
def body() -> BodyModel:
    return open_body(0.07)


def camera(distance: float = DISTANCE) -> Camera:
    return look_at((0.0, 0.9, distance), (0.0, 0.9, 0.0), focal_length=FOCAL, image_size=(SIDE, SIDE))


def motion(frames: int = 3, *, seed: int = 0, amplitude: float = 0.2, yaw: float = 0.0) -> BodyPrediction:
    """Arms down, and small turns of all joints that grow from frame to frame."""
    draw = torch.Generator().manual_seed(seed)
    angles = amplitude * torch.randn(24, 3, generator=draw) * torch.linspace(0.5, 1, frames)[:, None, None]
    angles[:, 16, 2] -= 0.9
    angles[:, 17, 2] += 0.9
    angles[:, 0] = torch.tensor([0.0, yaw, 0.0])
    betas = 0.5 * torch.randn(10, generator=draw)
    place = torch.stack([torch.linspace(0, 0.1, frames), torch.zeros(frames), torch.linspace(0, 0.2, frames)], -1)
    return BodyPrediction(so3_exp(angles), betas.expand(frames, -1).clone(), place)


def joints(prediction: BodyPrediction) -> Tensor:
    pose, betas, transl = prediction
    return body()(betas, pose[:, 1:], pose[:, :1], transl, pose2rot=False).joints


def vertices(prediction: BodyPrediction) -> Tensor:
    pose, betas, transl = prediction
    return body()(betas, pose[:, 1:], pose[:, :1], transl, pose2rot=False).vertices


def observed(true: BodyPrediction, seen: Camera | None = None) -> Clip:
    """What perfect detectors see: joints, masks by the z-buffer, and the flow of the surface under each pixel."""
    seen = camera() if seen is None else seen
    points, faces = vertices(true), body().faces
    found = rasterize(points, faces, seen)
    keypoints, _ = seen.project(joints(true))
    mask = found.face >= 0
    at = faces[found.face[:-1].clamp(min=0)]  # (T - 1, H, W, 3)
    frame = torch.arange(len(points) - 1).view(-1, 1, 1, 1)
    moved = (points[1:][frame, at] * found.barycentric[:-1].unsqueeze(-1)).sum(-2)
    later = Camera(seen.K, seen.R, seen.t[1:] if seen.t.ndim == 2 else seen.t, seen.image_size)
    there, _ = later.project(moved.flatten(1, 2))
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    flow = there.view(*moved.shape[:3], 2) - torch.stack((column, row), -1)
    return Clip(seen, keypoints, None, torch.where(mask[:-1].unsqueeze(-1), flow, 0.0), mask)
