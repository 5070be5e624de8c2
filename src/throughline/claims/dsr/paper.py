"""The dsr claim at the paper's scale: photographs in SPIN's layout, SMPL, and a network that knows keypoints already."""

import copy
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from throughline.claims.dsr.config import Config
from throughline.claims.dsr.data import Crops, Setting, Truth, intrinsics
from throughline.core.rotation import so3_exp
from throughline.data import DataError
from throughline.errors import ThroughlineError
from throughline.geometry.body import PARSING_LABELS, BodyModel, BodyRegressor, load_smpl
from throughline.lab import require

__all__ = ["check", "load", "restore"]

LSP = (8, 5, 2, 1, 4, 7, 21, 19, 17, 16, 18, 20)  # the joints of SMPL that the first twelve of `part` are
BOX = 200.0  # pixels of a scale of 1
THREADS = 8
GENDERS = {"m": "male", "f": "female"}
OURS = (0, 2, 4, 1, 3, 5)  # places in SPIN's six numbers of a rotation, whose columns are interleaved


class Photographs:
    """People of ``.npz`` files with imgname, center, scale and part, and pose and shape where they are known.

    Pictures lie in ``images`` and parsings, of the same names as PNG, in ``parsing`` below the root.
    """

    def __init__(self, root: Path, part: str, config: Config, *, known: bool) -> None:
        files = sorted((root / part).glob("*.npz"))
        if not files:
            raise DataError(f"{root / part}: no .npz in it; people in SPIN's layout are wanted")
        self.root, self.config, self.known = root, config, known
        wanted = ("imgname", "center", "scale", "part", *(("pose", "shape") if known else ()))
        columns: list[dict[str, np.ndarray]] = []
        for file in files:
            with np.load(file) as content:
                missing = [name for name in wanted if name not in content.files]
                if missing:
                    raise DataError(f"{file}: no array {missing[0]} in it")
                columns.append({name: content[name] for name in wanted})
                count = len(columns[-1]["imgname"])
                columns[-1]["gender"] = content["gender"] if "gender" in content.files else np.full(count, "n")
        self.columns = {name: np.concatenate([c[name] for c in columns]) for name in (*wanted, "gender")}

    def __len__(self) -> int:
        return len(self.columns["imgname"])

    def take(self, rows: Tensor) -> Crops:
        """Read some of them, several at a time."""
        places = rows.tolist()
        with ThreadPoolExecutor(THREADS) as threads:
            read = list(threads.map(self._read, places))
        images, parsing, keypoints = (torch.stack(field) for field in zip(*read, strict=True))
        K = intrinsics(self.config).expand(len(places), 3, 3)
        return Crops(images, parsing, keypoints, K, torch.zeros(len(places)), self._truth(places))

    def _read(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        name, size = str(self.columns["imgname"][row]), self.config.size
        half = BOX * float(self.columns["scale"][row]) / 2
        box = [round(float(c) + s * half) for s in (-1, 1) for c in self.columns["center"][row]]
        with Image.open(self.root / "images" / name) as file:
            image = np.array(file.convert("RGB").crop(box).resize((size, size), Image.Resampling.BILINEAR))  # type: ignore[arg-type]
        labels = np.zeros((size, size), np.uint8)
        place = (self.root / "parsing" / name).with_suffix(".png")
        if place.is_file():
            with Image.open(place) as file:
                labels = np.array(file.crop(box).resize((size, size), Image.Resampling.NEAREST))  # type: ignore[arg-type]
        elif not self.known:
            raise DataError(f"{place}: there is no parsing of {name}")
        if labels.ndim != 2 or labels.max() >= len(PARSING_LABELS):
            raise DataError(f"{place}: one byte a pixel is wanted, a label from 0 to {len(PARSING_LABELS) - 1}")
        part = self.columns["part"][row][: len(LSP)]
        keypoints = np.zeros((24, 3), np.float32)
        keypoints[list(LSP), :2] = (part[:, :2] + 0.5 - box[:2]) * size / (box[2] - box[0]) - 0.5
        keypoints[list(LSP), 2] = part[:, 2]
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels), torch.from_numpy(keypoints)

    @torch.no_grad()
    def _truth(self, rows: list[int]) -> Truth | None:
        if not self.known:
            return None
        pose, betas = (torch.from_numpy(self.columns[name][rows]).float() for name in ("pose", "shape"))
        genders = np.array([GENDERS.get(str(g)[:1], "neutral") for g in self.columns["gender"][rows]])
        joints: list[Tensor] = [pose] * len(rows)
        vertices: list[Tensor] = [pose] * len(rows)
        for gender in np.unique(genders):
            places = np.flatnonzero(genders == gender).tolist()
            made = smpl(self.config.smpl, str(gender))(betas[places], pose[places, 3:], pose[places, :3])
            for place, of_joints, of_vertices in zip(places, made.joints, made.vertices, strict=True):
                joints[place], vertices[place] = of_joints, of_vertices
        return Truth(so3_exp(pose.unflatten(1, (-1, 3))), betas, torch.stack(joints), torch.stack(vertices))


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
    root, body = Path(config.root), smpl(config.smpl, "neutral")
    read = partial(Photographs, root, config=config)
    people = (read("lab", known=True), read("street", known=False), read("test", known=True))
    return Setting(copy.deepcopy(body).to(config.device), labels_of(config.prior, body), *people)


def labels_of(path: str, body: BodyModel) -> Tensor:
    """P(label | vertex) from a file by vertex, or by face: the mean over a vertex' faces."""
    array = np.load(path, allow_pickle=False)
    count, classes = len(body.template), len(PARSING_LABELS)
    if array.ndim != 2 or array.shape[1] != classes or len(array) not in (count, len(body.faces)):
        raise DataError(
            f"{path}: ({count:,}, {classes}) or ({len(body.faces):,}, {classes}) numbers are wanted, got {array.shape}"
        )
    prior = torch.from_numpy(array).float()
    if len(prior) != count:
        corners = body.faces.flatten().cpu()
        total = torch.zeros(count, classes).index_add(0, corners, prior.repeat_interleave(3, 0))
        prior = total / torch.bincount(corners, minlength=count).clamp_min(1).unsqueeze(1)
    return prior / prior.sum(1, keepdim=True)


def restore(net: BodyRegressor, path: str) -> None:
    """Read the weights of a SPIN-like network: a ResNet-50 and the regressor behind it."""
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"{path}: not a file of weights alone ({type(error).__name__}: {error})") from error
    state = stored.get("model", stored)
    trunk = len(net.init_pose[0])
    order = torch.tensor(OURS) + 6 * torch.arange(trunk // 6).unsqueeze(1)
    columns = torch.cat([torch.arange(net.features), net.features + order.flatten()])
    head = {"fc1", "fc2", "decpose", "decshape", "deccam", "init_pose", "init_shape", "init_cam"}
    own: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.partition(".")[0] not in head:
            own[f"encoder.resnet.{name}"] = value
        elif name == "fc1.weight":
            rest = torch.arange(len(columns), value.shape[1])
            own[name] = value[:, torch.cat([columns, rest])]
        elif name == "init_pose":
            own[name] = value[:, order.flatten()]
        else:
            own[name] = value[order.flatten()] if name.startswith("decpose") else value
    try:
        lacking, unknown = net.load_state_dict(own, strict=False)
    except RuntimeError as error:
        raise DataError(f"{path}: not of a SPIN-like network ({' '.join(str(error).split())})") from error
    lacking = [name for name in lacking if name not in ("encoder.mean", "encoder.std")]
    if lacking or unknown:
        raise DataError(f"{path}: not of a SPIN-like network, {(lacking + unknown)[0]} is missing or unknown")
