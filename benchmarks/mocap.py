"""Speed bars of motion from video: adaptation in seconds, and its losses against a loop over frames.

No library has this combination; the peers are written as one writes them by hand, frame by frame with all distances of
pixels from vertices, after SMPLify and the released code (htung0101/3d_smpl).
"""

from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.core.camera import Camera, look_at
from throughline.core.raster import distance_transform, rasterize, visible_vertices
from throughline.core.rotation import rotation_from_6d, so3_exp
from throughline.geometry.body import BodyModel, BodyPrediction, open_body
from throughline.geometry.motion import Clip, SelfSupervision, adapt, fit_body, heatmaps, segmentation_loss

SIDE = 64
TORCH = f"torch {torch.__version__}"
Calls = dict[str, Callable[[], Any]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@cache
def body() -> BodyModel:
    return open_body(0.06)


def camera(side: int = SIDE) -> Camera:
    return look_at((0.0, 0.95, 3.8), (0.0, 0.95, 0.0), focal_length=1.25 * side, image_size=(side, side))


def motion(frames: int, seed: int) -> BodyPrediction:
    angles = 0.25 * torch.randn(2, 24, 3, generator=seeded(seed))
    angles[:, 16, 2] -= 0.9
    angles[:, 17, 2] += 0.9
    share = torch.linspace(0, 1, frames)[:, None, None]
    pose = so3_exp((1 - share) * angles[0] + share * angles[1])
    return BodyPrediction(pose, torch.zeros(frames, 10), torch.zeros(frames, 3))


@cache
def clip(frames: int) -> Clip:
    """A moving person as detectors would see it."""
    pose, betas, transl = motion(frames, 0)
    out = body()(betas, pose[:, 1:], pose[:, :1], transl, pose2rot=False)
    keypoints, _ = camera().project(out.joints)
    mask = rasterize(out.vertices, body().faces, camera()).face >= 0
    flow = 0.5 * torch.randn(frames - 1, SIDE, SIDE, 2, generator=seeded(1))
    return Clip(camera(), keypoints, None, flow, mask)


class Regressor(nn.Module):
    """The network of the laptop's claim."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (48, 512, 512, 512)
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(512, 24 * 6 + 13))

    def forward(self, keypoints: Tensor) -> BodyPrediction:
        out = 0.1 * self.layers(keypoints.flatten(1) / SIDE)
        six = out[:, :144].unflatten(1, (24, 6)) + torch.tensor([1.0, 0, 0, 0, 1, 0])
        return BodyPrediction(rotation_from_6d(six), out[:, 144:154], out[:, 154:])


def adapting(frames: int, steps: int) -> Calls:
    torch.manual_seed(0)
    model, seen, losses = Regressor(), clip(frames), SelfSupervision(body())

    def total(out: BodyPrediction) -> Tensor:
        return losses(out, seen)["total"]

    def agree() -> None:
        tuned = adapt(model, (seen.keypoints,), total, steps=3, lr=1e-3)
        assert total(tuned(seen.keypoints)) < total(model(seen.keypoints))

    return {"ours": lambda: adapt(model, (seen.keypoints,), total, steps=steps), "agree": agree}


def nearest(grid: Tensor, uv: Tensor) -> Tensor:
    """The distance of every pixel from the nearest of its image's vertices: which one it is costs no gradient."""
    with torch.no_grad():
        index = torch.cdist(grid, uv, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
    square = (uv.gather(1, index.unsqueeze(-1).expand(-1, -1, 2)) - grid).square().sum(-1)
    return torch.where(square > 0, square.clamp(min=1e-30).sqrt(), 0.0)


def frame_by_frame(leaves: BodyPrediction, seen: Clip, away: Tensor) -> Tensor:
    """The three losses as they are written down, one frame after the other."""
    assert seen.flow is not None
    assert seen.mask is not None
    row, column = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    grid = torch.stack((column, row), -1).flatten(0, 1).float()
    frames = len(seen.keypoints)
    total, before = torch.zeros(()), None
    for t in range(frames):
        pose, betas, transl = (part[t : t + 1] for part in leaves)
        out = body()(betas, pose[:, 1:], pose[:, :1], transl, pose2rot=False)
        joints, _ = seen.camera.project(out.joints[0])
        total = total + (joints - seen.keypoints[t]).square().sum(-1).mean() / frames
        uv, _ = seen.camera.project(out.vertices[0])
        gap = nearest(grid, uv[None])[0]
        inside = seen.mask[t].flatten()
        paid = 0.5 * (1 - gap).clamp(0, 1) * away[t].flatten() + 0.5 * torch.where(inside & (gap >= 0.5), gap, 0.0)
        total = total + 0.1 * paid.square().mean() / frames
        if before is not None:
            was, visible = before
            place = (2 * was.detach() / (SIDE - 1) - 1)[None, None]
            image = seen.flow[t - 1].permute(2, 0, 1)[None]
            flow = F.grid_sample(image, place, align_corners=True, padding_mode="border")[0, :, 0].mT
            off = (uv - was - flow).abs().sum(-1)
            total = total + (off * visible).sum() / visible.sum() / (frames - 1)
        before = uv, visible_vertices(out.vertices[0].detach(), body().faces, seen.camera)
    return total


def losing(frames: int) -> Calls:
    seen, losses = clip(frames), SelfSupervision(body())
    assert seen.mask is not None
    away = distance_transform(seen.mask)
    leaves = BodyPrediction(*(part.clone().requires_grad_() for part in motion(frames, 2)))

    def ours() -> tuple[Tensor, ...]:
        value = losses(leaves, seen)["total"]
        return value, *torch.autograd.grad(value, leaves)

    def peer() -> tuple[Tensor, ...]:
        value = frame_by_frame(leaves, seen, away)
        return value, *torch.autograd.grad(value, leaves)

    def agree() -> None:
        for one, other in zip(ours(), peer(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(other.detach().abs().max()))

    return {"ours": ours, "peer": peer, "agree": agree}


def fitting(frames: int, steps: int) -> Calls:
    """Four restarts in one batch against one after the other, which find the same bodies."""
    seen, losses = clip(frames), SelfSupervision(body())
    few = Clip(seen.camera, seen.keypoints)

    def agree() -> None:
        assert losses(fit_body(body(), few, losses, steps=40), few)["total"] < 20

    return {
        "ours": lambda: fit_body(body(), seen, losses, steps=steps),
        "peer": lambda: [fit_body(body(), seen, losses, steps=steps, restarts=1) for _ in range(4)],
        "agree": agree,
    }


def pictures(batch: int, side: int) -> Calls:
    keypoints = side * torch.rand(batch, 24, 2, generator=seeded())
    grid = torch.arange(side, dtype=torch.float32)

    def peer() -> Tensor:
        x, y = (keypoints[..., k, None, None] for k in (0, 1))
        found = torch.exp(-((grid - x).square() + (grid[:, None] - y).square()) / (2 * 1.75**2))
        return found / found.sum((-1, -2), keepdim=True)

    def ours() -> Tensor:
        return heatmaps(keypoints, (side, side))

    def agree() -> None:
        torch.testing.assert_close(ours(), peer(), rtol=0, atol=1e-6)

    return {"ours": ours, "peer": peer, "agree": agree}


def outline(frames: int, side: int, vertices: int) -> Calls:
    """All distances of pixels from vertices, for a body that has slipped from its mask."""
    uv = (
        side * torch.tensor([0.55, 0.5]) + 0.12 * side * torch.randn(frames, vertices, 2, generator=seeded())
    ).requires_grad_()
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    grid = torch.stack((column, row), -1).flatten(0, 1).float()
    mask = ((grid - 0.42 * side).square().sum(-1) < (0.2 * side) ** 2).view(1, side, side).expand(frames, -1, -1)
    away = distance_transform(mask)

    def ours() -> tuple[Tensor, ...]:
        value = segmentation_loss(uv, mask, distance=away)
        return value, *torch.autograd.grad(value.sum(), uv)

    def peer() -> tuple[Tensor, ...]:
        gap = nearest(grid, uv)
        lacking = torch.where(mask.flatten(1) & (gap >= 0.5), gap, 0.0)
        value = (0.5 * (1 - gap).clamp(0, 1) * away.flatten(1) + 0.5 * lacking).square().mean(-1)
        return value, *torch.autograd.grad(value.sum(), uv)

    def agree() -> None:
        for one, other in zip(ours(), peer(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)

    return {"ours": ours, "peer": peer, "agree": agree}


CASES = [
    Case(
        "ten steps of adapt with all three losses, 8 frames of 64 × 64, open_body(0.06)",
        partial(adapting, 8, 10),
        bar_seconds=0.6,
    ),
    Case(
        "SelfSupervision, 16 frames of 64 × 64, open_body(0.06), forward and backward",
        partial(losing, 16),
        0.25,
        f"the same frame by frame, {TORCH}",
    ),
    Case(
        "five steps of fit_body, four restarts of 8 frames",
        partial(fitting, 8, 5),
        1.0,
        "four fits with one start each",
    ),
    Case("heatmaps, 8 × 24 keypoints at 128 × 128", partial(pictures, 8, 128), 0.2, f"Gaussians on the grid, {TORCH}"),
    Case(
        "segmentation_loss, 8 frames of 64 × 64, 1592 vertices, forward and backward",
        partial(outline, 8, 64, 1592),
        0.25,
        f"torch.cdist of all pixels, {TORCH}",
        bar_memory=0.1,
    ),
]


def covering(vertices: int) -> Callable[[], Any]:
    return outline(1, 64, vertices)["ours"]


def filling(side: int) -> Callable[[], Any]:
    return outline(1, side, 512)["ours"]


def drawing(side: int) -> Callable[[], Any]:
    return pictures(1, side)["ours"]


def stepping(steps: int) -> Callable[[], Any]:
    torch.manual_seed(0)
    model, x = nn.Linear(256, 256), torch.randn(8, 256)
    return lambda: adapt(model, (x,), lambda y: y.square().mean(), steps=steps)


GROWTH = [
    Growth("segmentation_loss, a frame of 64 × 64, forward and backward", "vertices", 1024, covering, time=1, memory=1),
    Growth("segmentation_loss, 512 vertices, forward and backward", "side", 128, filling, time=2, memory=2, step=2),
    Growth("heatmaps of 24 keypoints", "side", 64, drawing, time=2, memory=2, step=2),
    Growth("adapt of a linear layer", "steps", 4, stepping, time=1, memory=0),
]
