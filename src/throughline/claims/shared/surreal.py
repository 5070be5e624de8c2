"""SURREAL from the user's copy, with the user's SMPL files: synthetic people in pictures, whose bodies are known.

A sequence has ``NAME_info.mat`` (joints2D, joints3D, pose, shape, gender, camLoc), ``NAME.mp4``, ``NAME_segm.mat`` and
``NAME_gtflow.mat``; images are 320 × 240 with a focal length of 600 pixels. The camera of the public notes mirrors:
left is right in its images, and all that is seen is turned back here. Root and place of a body are those that bring its
posed joints to the joints in space: they must agree, and be seen where joints2D are.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from throughline.core.camera import Camera
from throughline.core.rotation import so3_exp
from throughline.data import DataError
from throughline.geometry.body import BodyModel, BodyPrediction, load_smpl
from throughline.lab import require

__all__ = ["Sequence", "found", "read"]

SIZE, FOCAL, CENTER = (240, 320), 600.0, (159.5, 119.5)  # their centre, 160 and 120, counts from pixels' corners
TO_CAMERA = (
    (0.0, 0.0, 1.0),
    (0.0, 1.0, 0.0),
    (-1.0, 0.0, 0.0),
)  # rows: the camera's axes in their world, x turned back
GENDERS = ("female", "male")
MARGIN = 1.3  # of the square around the keypoints
LEAST = 16  # pixels of its side
AGREEMENT = 0.05  # metres between posed joints and those in space
SEEN = 10.0  # pixels between these and joints2D


class Sequence(NamedTuple):
    """Frames of one person in a square around them."""

    body: BodyModel
    camera: Camera
    truth: BodyPrediction
    joints: Tensor  # (T, 24, 3), in the camera's axes
    vertices: Tensor  # (T, V, 3)
    keypoints: Tensor  # (T, 24, 2)
    images: Tensor  # (T, 3, side, side), bytes
    gender: int  # 0 female, 1 male
    flow: Tensor | None  # (T - 1, side, side, 2)
    mask: Tensor | None  # (T, side, side)


def found(root: str, split: str) -> list[Path]:
    """The sequences of a split, by their info files."""
    files = sorted(Path(root).expanduser().glob(f"**/{split}/**/*_info.mat"))
    if not files:
        raise DataError(f"{root}: no {split}/…/*_info.mat below it; root is the folder of SURREAL, with data/cmu in it")
    return files


def read(file: Path, models: str, *, frames: int, side: int, observed: bool = False) -> Sequence:
    """The first ``frames`` of a sequence, in squares of ``side`` pixels; with flow and mask if it is ``observed``.

    Raises:
        DataError: a file is missing, unreadable or of another set; names it.
    """
    info = _matlab(file, ("joints2D", "joints3D", "pose", "shape", "gender", "camLoc"))
    arrays = {name: torch.from_numpy(np.asarray(info[name], np.float32)) for name in info}
    many = min(frames, arrays["pose"].shape[-1] if arrays["pose"].ndim == 2 else 1)
    if arrays["joints2D"].ndim != 3:  # of a single frame
        arrays = {name: value.unsqueeze(-1) if name.startswith("joints") else value for name, value in arrays.items()}
    keypoints, space = (arrays[name][..., :many].permute(2, 1, 0) for name in ("joints2D", "joints3D"))
    keypoints = keypoints - 0.5
    keypoints = torch.stack((SIZE[1] - 1 - keypoints[..., 0], keypoints[..., 1]), -1)
    gender = int(arrays["gender"].flatten()[0])
    body = smpl(models, GENDERS[gender])
    turns = so3_exp(arrays["pose"].reshape(72, -1)[:, :many].mT.reshape(-1, 24, 3))
    betas = arrays["shape"].reshape(10, -1)[:, :many].mT
    place = arrays["camLoc"].flatten()
    joints = (space - place) @ torch.tensor(TO_CAMERA).mT
    truth = placed(body, turns, betas, joints, file)
    out = body(truth.betas, truth.pose[:, 1:], truth.pose[:, :1], truth.transl, pose2rot=False)
    K = torch.tensor([[FOCAL, 0.0, CENTER[0]], [0.0, FOCAL, CENTER[1]], [0.0, 0.0, 1.0]])
    whole = Camera(K, torch.eye(3), torch.zeros(3), SIZE)
    off = float((whole.project(out.joints)[0] - keypoints).norm(dim=-1).mean())
    if not off < SEEN:
        raise DataError(
            f"{file}: joints3D are projected {off:.0f} pixels from joints2D; the files are not those of SURREAL"
        )
    low, high = keypoints.flatten(0, 1).amin(0), keypoints.flatten(0, 1).amax(0)
    square = max(LEAST, round(MARGIN * float((high - low).max())))
    left, top = ((low + high - square) / 2).round().int().tolist()
    camera = whole.crop(top, left, square, square).resize((side, side))
    small = side / square

    def cut(images: Tensor, channels_last: bool = False) -> Tensor:
        first = images.permute(0, 3, 1, 2) if channels_last else images
        border = (-left, left + square - SIZE[1], -top, top + square - SIZE[0])  # negative where it lies inside
        return F.interpolate(F.pad(first.float().flip(-1), border), (side, side), mode="bilinear", antialias=True)

    flow = mask = None
    if observed:
        segments = _frames(file, "segm", many)
        mask = cut((segments > 0).unsqueeze(1))[:, 0] > 0.5
        flow = cut(_frames(file, "gtflow", many - 1), channels_last=True).permute(0, 2, 3, 1)
        flow = flow * torch.tensor([-small, small])
    return Sequence(
        body,
        camera,
        truth,
        out.joints,
        out.vertices,
        (keypoints - torch.tensor([left, top]) + 0.5) * small - 0.5,
        cut(_video(file, many), channels_last=True).round().clamp(0, 255).byte(),
        gender,
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
        raise DataError(
            f"{file}: pose and joints3D are {off:.2f} m apart; are the files of smpl those of SURREAL's bodies?"
        )
    return BodyPrediction(torch.cat((root.unsqueeze(1), turns[:, 1:]), 1), betas, transl)


@lru_cache(2)
def smpl(path: str, gender: str) -> BodyModel:
    return load_smpl(path, gender=gender)


def _matlab(file: Path, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content: dict[str, Any] = loadmat(file, variable_names=names)
    except (MatReadError, NotImplementedError, ValueError, TypeError, OSError) as error:
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
