"""SURREAL from the user's copy, with the user's SMPL files: what only the paper scale needs.

A sequence has ``NAME_info.mat`` (joints2D, joints3D, pose, shape, gender, camLoc), ``NAME.mp4``, ``NAME_segm.mat`` and
``NAME_gtflow.mat``; images are 320 × 240 with a focal length of 600 pixels. The public notes give the camera's axes. The
root and place of each body are those that bring its posed joints to the joints in space: they must agree.
"""

import random
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.claims.mocap.config import Config
from throughline.claims.mocap.data import Case
from throughline.claims.mocap.models import HeatmapNet
from throughline.core.camera import Camera
from throughline.core.rotation import so3_exp
from throughline.data import DataError
from throughline.geometry.body import BodyModel, BodyPrediction, load_smpl
from throughline.geometry.motion import Clip, heatmaps, supervised_loss
from throughline.lab import Log, require

__all__ = ["cases", "pretrained"]

SIZE, FOCAL, CENTER = (240, 320), 600.0, (159.5, 119.5)  # their centre, 160 and 120, counts from pixels' corners
TO_CAMERA = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (-1.0, 0.0, 0.0))  # rows: the camera's axes in their world
GENDERS = ("female", "male")
MARGIN = 1.3  # of the box around the keypoints
AGREEMENT = 0.05  # metres between posed joints and those in space
POOL = 64  # sequences that training draws its frames from at a time
POINTS = 100  # of the training curve


class Sequence(NamedTuple):
    """Frames of one person in a square around them."""

    body: BodyModel
    camera: Camera
    truth: BodyPrediction
    joints: Tensor  # (T, 24, 3), in the camera's axes
    vertices: Tensor  # (T, V, 3)
    keypoints: Tensor  # (T, 24, 2)
    images: Tensor  # (T, 3, side, side), bytes
    gender: int
    scale: Tensor  # (3,), what the network is told of the camera
    flow: Tensor | None
    mask: Tensor | None


def cases(config: Config, seed: int) -> list[Case]:
    """Clips of the test split, others for every seed."""
    files = found(config.root, "test")
    random.Random(seed).shuffle(files)
    made = []
    for file in files:
        if len(made) == config.clips:
            break
        one = read(file, config, observed=True)
        if len(one.keypoints) == config.frames:
            clip = Clip(one.camera, one.keypoints, None, one.flow, one.mask)
            made.append(Case(one.body, clip, inputs(one), one.joints, one.vertices))
    if not made:
        raise DataError(f"{config.root}: no test sequence has {config.frames} frames")
    return made


def pretrained(config: Config, seed: int, log: Log, of: int) -> nn.Module:
    """`HeatmapNet` trained on frames of a pool of sequences, one of which is replaced at every step."""
    draw, files = random.Random(seed), found(config.root, "train")
    torch.manual_seed(seed)
    network = HeatmapNet(config.side).to(config.device).train()
    optimizer = torch.optim.Adam(network.parameters(), config.lr)
    pool: list[Sequence] = []
    for step in range(config.steps):
        if len(pool) == POOL:
            pool.pop(draw.randrange(POOL))
        pool.append(read(draw.choice(files), config))
        rows = [(one, draw.randrange(len(one.keypoints))) for one in draw.choices(pool, k=config.batch)]
        shown = [inputs(one, slice(frame, frame + 1)) for one, frame in rows]
        given = (torch.cat(parts).to(config.device) for parts in zip(*shown, strict=True))
        true = [BodyPrediction(*(part[frame] for part in one.truth)) for one, frame in rows]
        target = BodyPrediction(*(torch.stack(parts).to(config.device) for parts in zip(*true, strict=True)))
        loss = supervised_loss(network(*given), target).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % max(1, config.steps // POINTS) == 0:
            log(step, of=of, train_loss=loss)
    return network.eval()


def inputs(one: Sequence, rows: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
    """Heatmaps times 20 beside colours, less a half; gender; and the camera."""
    pictures = 20 * heatmaps(one.keypoints[rows], one.camera.image_size)
    whole = torch.cat((pictures, one.images[rows].float() / 255), 1) - 0.5
    return whole, torch.full((len(whole), 1), float(one.gender)), one.scale.expand(len(whole), -1)


def found(root: str, split: str) -> list[Path]:
    """The sequences of a split, by their info files."""
    files = sorted(Path(root).expanduser().glob(f"**/{split}/**/*_info.mat"))
    if not files:
        raise DataError(f"{root}: no {split}/…/*_info.mat below it; root is the folder of SURREAL, with data/cmu in it")
    return files


def read(file: Path, config: Config, *, observed: bool = False) -> Sequence:
    """The first frames of a sequence, cut out around the person; with flow and mask if it is ``observed``."""
    info = _matlab(file, ("joints2D", "joints3D", "pose", "shape", "gender", "camLoc"))
    arrays = {name: torch.from_numpy(np.asarray(info[name], np.float32)) for name in info}
    many = min(config.frames, arrays["pose"].shape[-1] if arrays["pose"].ndim == 2 else 1)
    if arrays["joints2D"].ndim != 3:  # of a single frame
        arrays = {name: value.unsqueeze(-1) if name.startswith("joints") else value for name, value in arrays.items()}
    keypoints, space = (arrays[name][..., :many].permute(2, 1, 0) for name in ("joints2D", "joints3D"))
    keypoints = keypoints - 0.5
    gender = int(arrays["gender"].flatten()[0])
    body = smpl(config.smpl, GENDERS[gender])
    turns = so3_exp(arrays["pose"].reshape(72, -1)[:, :many].mT.unflatten(-1, (24, 3)))
    betas = arrays["shape"].reshape(10, -1)[:, :many].mT
    place = arrays["camLoc"].flatten()
    joints = (space - place) @ torch.tensor(TO_CAMERA).mT
    truth = placed(body, turns, betas, joints, file)
    out = body(truth.betas, truth.pose[:, 1:], truth.pose[:, :1], truth.transl, pose2rot=False)
    K = torch.tensor([[FOCAL, 0.0, CENTER[0]], [0.0, FOCAL, CENTER[1]], [0.0, 0.0, 1.0]])
    whole = Camera(K, torch.eye(3), torch.zeros(3), SIZE)
    off = float((whole.project(out.joints)[0] - keypoints).norm(dim=-1).mean())
    if not off < 10:
        raise DataError(f"{file}: joints3D are projected {off:.0f} pixels from joints2D; the files are not those of SURREAL")
    low, high = keypoints.flatten(0, 1).amin(0), keypoints.flatten(0, 1).amax(0)
    side = max(16, round(MARGIN * float((high - low).max())))
    left, top = ((low + high - side) / 2).round().int().tolist()
    size = (config.side, config.side)
    camera = whole.crop(top, left, side, side).resize(size)
    small = config.side / side

    def cut(images: Tensor, channels_last: bool = False) -> Tensor:
        first = images.permute(0, 3, 1, 2) if channels_last else images
        border = (-left, left + side - SIZE[1], -top, top + side - SIZE[0])  # negative where it lies inside
        return F.interpolate(F.pad(first.float(), border), size, mode="bilinear", antialias=True)

    flow = mask = None
    if observed:
        segments = _frames(file, "segm", many)
        mask = cut((segments > 0).unsqueeze(1))[:, 0] > 0.5
        flow = small * cut(_frames(file, "gtflow", many - 1), channels_last=True).permute(0, 2, 3, 1)
    return Sequence(
        body,
        camera,
        truth,
        out.joints,
        out.vertices,
        (keypoints - torch.tensor([left, top]) + 0.5) * small - 0.5,
        cut(_video(file, many), channels_last=True).round().clamp(0, 255).byte(),
        gender,
        torch.tensor([FOCAL * small / 400, *(camera.K[:2, 2] / 100).tolist()]),
        flow,
        mask,
    )


def placed(body: BodyModel, turns: Tensor, betas: Tensor, joints: Tensor, file: Path) -> BodyPrediction:
    """Root rotation and place by which the posed body has these joints: those of least squares (Kabsch)."""
    still = torch.eye(3).expand(len(turns), 1, 3, 3)
    own = body(betas, turns[:, 1:], still, pose2rot=False).joints
    middle, wanted = own.mean(1, keepdim=True), joints.mean(1, keepdim=True)
    u, _, vh = torch.linalg.svd((own - middle).mT @ (joints - wanted))
    sign = torch.linalg.det(u @ vh)
    flip = torch.diag_embed(torch.stack((torch.ones_like(sign), torch.ones_like(sign), sign), -1))
    root = vh.mT @ flip @ u.mT
    first = own[:, :1]
    transl = (wanted - first - (middle - first) @ root.mT)[:, 0]
    moved = (own - first) @ root.mT + first + transl.unsqueeze(1)
    off = float((moved - joints).norm(dim=-1).mean())
    if not off < AGREEMENT:
        raise DataError(f"{file}: pose and joints3D are {off:.2f} m apart; are the files of smpl those of SURREAL's bodies?")
    return BodyPrediction(torch.cat((root.unsqueeze(1), turns[:, 1:]), 1), betas, transl)


@lru_cache(2)
def smpl(path: str, gender: str) -> BodyModel:
    return load_smpl(path, gender=gender)


def _matlab(file: Path, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(file, variable_names=names)
    except (NotImplementedError, ValueError, TypeError, OSError) as error:
        raise DataError(f"{file}: cannot be read as a MATLAB file ({error})") from error
    if missing := [name for name in names if name not in content]:
        raise DataError(f"{file}: no variable {missing[0]} in it")
    return {name: content[name] for name in names}


def _frames(file: Path, kind: str, many: int) -> Tensor:
    """``KIND_1`` … of the file beside the info file."""
    names = tuple(f"{kind}_{t + 1}" for t in range(many))
    beside = file.with_name(file.name.replace("_info.mat", f"_{kind}.mat"))
    content = _matlab(beside, names)
    return torch.stack([torch.from_numpy(np.asarray(content[name], np.float32)) for name in names])


def _video(file: Path, many: int) -> Tensor:
    """The first frames of the video, ``(many, 240, 320, 3)``, bytes."""
    av = require("av", extra="video")
    video = file.with_name(file.name.replace("_info.mat", ".mp4"))
    images: list[np.ndarray] = []
    try:
        with av.open(str(video)) as container:
            for frame in container.decode(video=0):
                images.append(frame.to_ndarray(format="rgb24"))
                if len(images) == many:
                    break
    except (OSError, av.error.FFmpegError) as error:
        raise DataError(f"{video}: cannot be read ({error})") from error
    if len(images) < many or images[0].shape != (*SIZE, 3):
        raise DataError(f"{video}: {many} frames of {SIZE[1]} x {SIZE[0]} are wanted")
    return torch.from_numpy(np.stack(images))
