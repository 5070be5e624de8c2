"""The clips of a seed that the arms of the mocap claim are tested on: generated ones, or the user's own."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.claims.mocap.config import Config
from throughline.claims.mocap.people import posed, recorded, stage, walk
from throughline.core.camera import Camera
from throughline.data import DataError
from throughline.data.clips import DetectedClip
from throughline.errors import ThroughlineError
from throughline.geometry.body import BodyModel
from throughline.geometry.motion import Clip

__all__ = ["Case", "cases", "check", "moved"]

JOINTS = 24
TALL = 1.45  # metres from the lowest joint to the highest of someone who stands
LEAST = 0.3  # of the height, or a frame does not tell how large a person is
EVERY = 5  # of the user's joints one is left out of the loss


class Case(NamedTuple):
    """One test clip, and what is known of it."""

    body: BodyModel
    clip: Clip
    inputs: tuple[Any, ...]  # of the network
    joints: Tensor | None = None  # (T, 24, 3), the truth in the camera's axes
    vertices: Tensor | None = None  # (T, V, 3)
    held: Tensor | None = None  # (T, 24), confidence of what the loss is not shown
    scale: float = 1.0  # pixels of the user's images in one of the clip's


def moved(case: Case, device: str) -> Case:
    """The same on another device."""

    def there(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    clip = Clip(case.clip.camera.to(device), *map(there, case.clip[1:]))
    inputs = tuple(map(there, case.inputs))
    return case._replace(
        body=case.body.to(device),
        clip=clip,
        inputs=inputs,
        **{name: there(getattr(case, name)) for name in ("joints", "vertices", "held")},
    )


def check(config: Config) -> None:
    """Refuse what does not go together.

    Raises:
        ThroughlineError: naming the field.
    """
    if not config.keypoint:
        raise ThroughlineError("keypoint must be positive: nothing else says which joint is where; --set keypoint=1")
    if config.data is None and config.dataset == "surreal" and not (config.root and config.smpl):
        raise ThroughlineError(
            "SURREAL and SMPL are licensed: get them from their authors, and name their folders, "
            "--set root=SURREAL --set smpl=MODELS"
        )


def cases(body: BodyModel, config: Config, seed: int) -> list[Case]:
    """The user's clips, or generated ones."""
    if config.data is not None:
        return [own(body, clip, config) for clip in config.data.clips()]
    draw = torch.Generator().manual_seed(10 * seed + 1)
    return [generated(body, config, draw) for _ in range(config.clips)]


def generated(body: BodyModel, config: Config, draw: torch.Generator) -> Case:
    camera = stage(config)
    true = walk(config.target, config, draw)
    vertices, joints = (camera.to_camera(points) for points in posed(body, true))
    clip = recorded(body, true, camera, config.target, config, draw)
    return Case(body, clip, (clip.keypoints - (config.side - 1) / 2,), joints, vertices)


def own(body: BodyModel, found: DetectedClip, config: Config) -> Case:
    """A user's clip in images so small that the person is as tall in them as generated people are.

    The losses then have the weights of generated clips, and the network sees what it has learned from. Every fifth
    joint is shown to neither.
    """
    if found.keypoints.shape[1] != JOINTS:
        raise DataError(
            f"{found.name}: {JOINTS} joints are wanted, in SMPL's order, got {found.keypoints.shape[1]}; those that "
            "your detector does not know have a confidence of 0"
        )
    keypoints, confidence = torch.from_numpy(found.keypoints), torch.from_numpy(found.confidence)
    focal = float(found.intrinsics[[0, 1], [0, 1]].mean())
    high = _height(keypoints, confidence)
    if high is None:
        raise DataError(f"{found.name}: no frame shows a person from head to foot, or nearly so")
    factor = config.focal * TALL / config.distance / high
    size = (max(1, round(found.size[0] * factor)), max(1, round(found.size[1] * factor)))
    across, down = size[1] / found.size[1], size[0] / found.size[0]
    K = torch.from_numpy(found.intrinsics).float()
    away = focal * TALL / high  # metres
    view = stage(replace(config, distance=away))
    camera = Camera(K, view.R, view.t, found.size).resize(size)
    shrunk = (keypoints + 0.5) * torch.tensor([across, down]) - 0.5
    held = torch.arange(JOINTS) % EVERY == EVERY - 1
    shown = torch.where(held, 0.0, confidence)
    clip = Clip(camera, shrunk, shown, _flow(found.flow, size), _mask(found.mask, size))
    inputs = (shrunk - camera.K[:2, 2], shown)
    truth = None if found.joints3d is None else torch.from_numpy(found.joints3d)
    return Case(body, clip, inputs, truth, None, torch.where(held, confidence, 0.0), 2 / (across + down))


def _height(keypoints: Tensor, confidence: Tensor) -> float | None:
    """Pixels from head to foot, the median over the frames that show both or nearly so."""
    seen = confidence > 0
    y = keypoints[..., 1]
    high = torch.where(seen, y, -math.inf).amax(1) - torch.where(seen, y, math.inf).amin(1)
    full = high[seen.any(1)]
    if not len(full) or not full.max() > 0:
        return None
    return float(full[full > LEAST * full.max()].median())


def _mask(mask: np.ndarray | None, size: tuple[int, int]) -> Tensor | None:
    if mask is None:
        return None
    return F.interpolate(torch.from_numpy(mask)[:, None].float(), size, mode="area")[:, 0] > 0.5


def _flow(flow: np.ndarray | None, size: tuple[int, int]) -> Tensor | None:
    """Averaged over the larger pixels, and in units of these."""
    if flow is None:
        return None
    height, width = flow.shape[1:3]
    small = F.interpolate(torch.from_numpy(flow).permute(0, 3, 1, 2), size, mode="area").permute(0, 2, 3, 1)
    return small * torch.tensor([size[1] / width, size[0] / height])
