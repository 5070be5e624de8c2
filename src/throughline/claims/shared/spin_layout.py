"""People in the files of SPIN (arXiv 1909.12828), which much of the field prepares its data with, and its weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from throughline.data import DataError
from throughline.geometry.body import PARSING_LABELS, BodyModel

__all__ = ["LSP", "SpinPeople", "spin_weights", "vertex_labels"]

LSP = (8, 5, 2, 1, 4, 7, 21, 19, 17, 16, 18, 20)  # the joints of SMPL that the first twelve of `part` are
BOX = 200.0  # pixels of a scale of 1
GENDERS = {"m": "male", "f": "female"}
OURS = (0, 2, 4, 1, 3, 5)  # places in SPIN's six numbers of a rotation, whose columns are interleaved
HEAD = {"fc1", "fc2", "decpose", "decshape", "deccam", "init_pose", "init_shape", "init_cam"}


class SpinPeople:
    """People of ``.npz`` files with imgname, center, scale and part, and pose and shape where they are known.

    Pictures lie in ``images`` and parsings, of the same names as PNG, in ``parsing`` below the root.

    Args:
        root: the folder.
        part: of it, the folder with the ``.npz`` files.
        size: pixels of a crop on a side.
        known: whether pose and shape are wanted; then a parsing need not be there.

    Raises:
        DataError: no file, or an array that is missing.
    """

    def __init__(self, root: Path, part: str, size: int, *, known: bool) -> None:
        files = sorted((root / part).glob("*.npz"))
        if not files:
            raise DataError(f"{root / part}: no .npz in it; people in SPIN's layout are wanted")
        self.root, self.size, self.known = root, size, known
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

    def crop(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """Bytes ``(3, S, S)``, labels ``(S, S)`` and keypoints ``(24, 3)`` in SMPL's order, of confidence 0 if unknown.

        Raises:
            DataError: a parsing is missing, or none.
        """
        name, size = str(self.columns["imgname"][row]), self.size
        half = BOX * float(self.columns["scale"][row]) / 2
        left, top, right, bottom = (round(float(c) + s * half) for s in (-1, 1) for c in self.columns["center"][row])
        box = (left, top, right, bottom)
        with Image.open(self.root / "images" / name) as file:
            image = np.array(file.convert("RGB").crop(box).resize((size, size), Image.Resampling.BILINEAR))
        labels = np.zeros((size, size), np.uint8)
        place = (self.root / "parsing" / name).with_suffix(".png")
        if place.is_file():
            with Image.open(place) as file:
                labels = np.array(file.crop(box).resize((size, size), Image.Resampling.NEAREST))
        elif not self.known:
            raise DataError(f"{place}: there is no parsing of {name}")
        if labels.ndim != 2 or labels.max() >= len(PARSING_LABELS):
            raise DataError(f"{place}: one byte a pixel is wanted, a label from 0 to {len(PARSING_LABELS) - 1}")
        part, keypoints = self.columns["part"][row][: len(LSP)], np.zeros((24, 3), np.float32)
        keypoints[list(LSP), :2] = (part[:, :2] + 0.5 - (left, top)) * size / (right - left) - 0.5
        keypoints[list(LSP), 2] = part[:, 2]
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels), torch.from_numpy(keypoints)

    def bodies(self, rows: list[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        """Rotation vectors ``(n, 72)``, numbers of shape ``(n, 10)``, and "male", "female" or "neutral"."""
        pose, betas = (torch.from_numpy(self.columns[name][rows]).float() for name in ("pose", "shape"))
        return pose, betas, np.array([GENDERS.get(str(g)[:1], "neutral") for g in self.columns["gender"][rows]])


def spin_weights(state: Mapping[str, Tensor], features: int) -> dict[str, Tensor]:
    """Weights of SPIN's network by the names and in the order of `throughline.geometry.body.BodyRegressor`.

    Its ResNet becomes ``encoder.resnet``; ``features`` come out of it.
    """
    numbers = state["init_pose"].shape[1] if "init_pose" in state else 0
    order = (torch.tensor(OURS) + 6 * torch.arange(numbers // 6).unsqueeze(1)).flatten()
    own = {}
    for name, value in state.items():
        if name.partition(".")[0] not in HEAD:
            own[f"encoder.resnet.{name}"] = value
        elif name == "fc1.weight":
            rest = torch.arange(features + numbers, value.shape[1])
            own[name] = value[:, torch.cat([torch.arange(features), features + order, rest])]
        elif name == "init_pose":
            own[name] = value[:, order]
        else:
            own[name] = value[order] if name.startswith("decpose") else value
    return own


def vertex_labels(path: str, body: BodyModel) -> Tensor:
    """P(label | vertex) from a .npy by vertex, or by face as in the release of DSR: the mean over a vertex' faces.

    Raises:
        DataError: it is of another mesh, or of other labels.
    """
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
