"""The dsr claim at the paper's scale: photographs in SPIN's layout, SMPL, a network that knows keypoints already."""

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughline.claims.dsr.config import Config
from throughline.claims.dsr.data import Crops, Setting, Truth, intrinsics
from throughline.claims.shared.spin_layout import SpinPeople, spin_weights, vertex_labels
from throughline.core.rotation import so3_exp
from throughline.data import DataError
from throughline.errors import ThroughlineError
from throughline.geometry.body import BodyModel, BodyRegressor, load_smpl
from throughline.lab import require

__all__ = ["check", "load", "restore"]

THREADS = 8


class Photographs:
    """People that are read when they are asked for."""

    def __init__(self, part: str, config: Config, *, known: bool) -> None:
        self.people = SpinPeople(Path(config.root), part, config.size, known=known)
        self.config, self.known = config, known

    def __len__(self) -> int:
        return len(self.people)

    def take(self, rows: Tensor) -> Crops:
        """Read some of them, several at a time."""
        places = rows.tolist()
        with ThreadPoolExecutor(THREADS) as threads:
            read = list(threads.map(self.people.crop, places))
        images, parsing, keypoints = (torch.stack(field) for field in zip(*read, strict=True))
        K = intrinsics(self.config).expand(len(places), 3, 3)
        truth = self._truth(places) if self.known else None
        return Crops(images, parsing, keypoints, K, torch.zeros(len(places)), truth)

    @torch.no_grad()
    def _truth(self, rows: list[int]) -> Truth:
        pose, betas, genders = self.people.bodies(rows)
        joints: list[Tensor] = [pose] * len(rows)
        vertices: list[Tensor] = [pose] * len(rows)
        for gender in np.unique(genders):
            places = np.flatnonzero(genders == gender).tolist()
            made = smpl(self.config.smpl, str(gender))(betas[places], pose[places, 3:], pose[places, :3])
            for place, of_joints, of_vertices in zip(places, made.joints, made.vertices, strict=True):
                joints[place], vertices[place] = of_joints, of_vertices
        return Truth(so3_exp(pose.view(len(pose), -1, 3)), betas, torch.stack(joints), torch.stack(vertices))


@cache
def smpl(path: str, gender: str) -> BodyModel:
    try:
        return load_smpl(path, gender=gender)
    except (FileNotFoundError, ValueError, ImportError) as error:
        raise ThroughlineError(f"{error}; --set smpl=FILE") from error


def check(config: Config) -> None:
    """Refuse what is not there.

    Raises:
        ThroughlineError: naming the setting.
    """
    require("smplx", extra="body")
    require("torchvision", extra="paper")
    for name in ("root", "smpl", "prior", "checkpoint"):
        value = getattr(config, name)
        if not value or not Path(value).exists():
            raise ThroughlineError(f"{name} must be there at this scale, got {value!r}; --set {name}=…")
    load(config)


def load(config: Config) -> Setting:
    """The same people for every seed: folders lab, street and test below the root."""
    body = smpl(config.smpl, "neutral")
    people = [Photographs(part, config, known=part != "street") for part in ("lab", "street", "test")]
    return Setting(copy.deepcopy(body).to(config.device), vertex_labels(config.prior, body), *people)


def restore(net: BodyRegressor, path: str) -> None:
    """Read the weights of a SPIN-like network: a ResNet-50 and the regressor behind it.

    Raises:
        DataError: naming the file.
    """
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path}: not a file of weights alone ({type(error).__name__}: {error})") from error
    try:
        lacking, unknown = net.load_state_dict(spin_weights(stored.get("model", stored), net.features), strict=False)
    except RuntimeError as error:
        raise DataError(f"{path}: not of a SPIN-like network ({' '.join(str(error).split())})") from error
    lacking = [name for name in lacking if name not in ("encoder.mean", "encoder.std")]
    if lacking or unknown:
        raise DataError(f"{path}: not of a SPIN-like network, {(lacking + unknown)[0]} is missing or unknown")
