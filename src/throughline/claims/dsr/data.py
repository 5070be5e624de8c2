"""The people of the dsr claim by default or for its user: generated ones, or pictures with parsing and keypoints."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from throughline.claims.dsr.config import Config
from throughline.core.camera import Camera
from throughline.data import DataError, Person, Source
from throughline.geometry.body import BodyModel, load_smpl, open_body, semantic_prior
from throughline.geometry.people import random_outfits, synthetic_people

__all__ = ["Crops", "People", "Setting", "Truth", "load", "own"]

WIDER = (1, 5, 6, 7, 8)  # numbers of shape: girth, belly, hips, thighs, arms
TIGHT = (0.001, 0.005)  # metres of cloth in the lab
TEST = 0.2  # of the user's people
PRIOR = 999  # seed of the outfits that the prior counts, and of nobody's clothes


class Truth(NamedTuple):
    """Bodies in the camera's world; fields that nobody knows are empty, ``(n, 0)``."""

    pose: Tensor  # (n, J, 3, 3)
    betas: Tensor  # (n, S)
    joints: Tensor  # (n, J, 3)
    vertices: Tensor  # (n, V, 3)


class Crops(NamedTuple):
    """n people in square pictures."""

    images: Tensor  # (n, 3, S, S) bytes
    parsing: Tensor  # (n, S, S) bytes
    keypoints: Tensor  # (n, J, 3): pixels, and a confidence
    K: Tensor  # (n, 3, 3)
    cloth: Tensor  # (n,), mean thickness over the torso in metres, 0 where it is not known
    truth: Truth | None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> "Crops":
        """Some of them."""
        truth = None if self.truth is None else Truth(*(field[rows] for field in self.truth))
        return Crops(*(field[rows] for field in self[:5]), truth)


class People(Protocol):
    """Crops, or what reads them when they are asked for."""

    def __len__(self) -> int: ...
    def take(self, rows: Tensor) -> Crops: ...


class Setting(NamedTuple):
    """What all arms of a seed share."""

    body: BodyModel
    prior: Tensor  # (V, 20)
    lab: People
    street: People
    test: People


def load(config: Config, seed: int) -> Setting:
    """Generated people, in the street and on test replaced by the user's own."""
    body = open_body(config.voxel)
    prior = semantic_prior(random_outfits(config.outfits, body, generator=_seeded(PRIOR, seed)).labels, 20)
    lab = _generated(body, config, config.lab, _seeded(0, seed), tight=True)
    if config.data is not None:
        return Setting(body, prior, lab, *own(config.data, config, body))
    street = _generated(body, config, config.street, _seeded(1, seed))
    return Setting(body, prior, lab, street, _generated(body, config, config.test, _seeded(2, seed)))


def own(source: Source, config: Config, body: BodyModel) -> tuple[Crops, Crops]:
    """The user's people, to train and to test on; who is which follows from the names."""
    people = source.people()
    test = [person for person in people if int(hashlib.sha256(person.name.encode()).hexdigest(), 16) % 100 < 100 * TEST]
    train = [person for person in people if person not in test]
    if not train or not test:
        raise DataError(
            f"{source.path}: {len(people)} people fall into {len(train)} to train and {len(test)} to test on by their "
            "names; give more"
        )
    return _read(train, config, body), _read(test, config, body)


def _seeded(part: int, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000 * seed + part)


def _generated(body: BodyModel, config: Config, n: int, draw: torch.Generator, *, tight: bool = False) -> Crops:
    size = config.size
    K = torch.tensor([[config.focal, 0, (size - 1) / 2], [0, config.focal, (size - 1) / 2], [0, 0, 1]])
    mean = torch.zeros(10)
    mean[list(WIDER)] = 0.0 if tight else config.gap
    betas = mean + (config.lab_spread if tight else config.street_spread) * torch.randn(n, 10, generator=draw)
    outfits = random_outfits(n, body, **({"upper": TIGHT, "lower": TIGHT} if tight else {}), generator=draw)
    camera = Camera(K, torch.eye(3), torch.zeros(3), (size, size))
    made = synthetic_people(body, betas, outfits, camera, generator=draw)
    return Crops(
        (made.images * 255).round().byte(),
        made.parsing.byte(),
        torch.cat([made.keypoints, torch.ones_like(made.keypoints[..., :1])], -1),
        K.expand(n, 3, 3),
        outfits.thickness[:, torso(body)].mean(1),
        Truth(made.pose, made.betas, made.joints, made.vertices),
    )


def torso(body: BodyModel) -> Tensor:
    """Numbers of the vertices by which girth is told: those of pelvis, spine and collars."""
    return torch.isin(body.weights.argmax(1), torch.tensor([0, 3, 6, 9, 13, 14], device=body.weights.device)).nonzero()[:, 0]


def _read(people: Sequence[Person], config: Config, body: BodyModel) -> Crops:
    """Their pictures, averaged to the claim's size."""
    read = [_resized(person, config.size) for person in people]
    images, parsing, keypoints, K = (torch.stack(part) for part in zip(*read, strict=True))
    default = torch.tensor([[config.focal, 0, (config.size - 1) / 2], [0, config.focal, (config.size - 1) / 2], [0, 0, 1]])
    K = torch.where((K == 0).all((1, 2), keepdim=True), default, K)
    n, truth = len(people), None
    known = [person.joints is not None for person in people]
    if all(known):
        vertices = [person.vertices for person in people]
        for person in people:
            if person.vertices is not None and len(person.vertices) != len(body.template):
                raise DataError(
                    f"{person.image}: its body has {len(person.vertices):,} vertices, and that of the claim "
                    f"{len(body.template):,}; --set voxel=… for another open body, or leave vertices out"
                )
        whole = np.stack(vertices) if all(v is not None for v in vertices) else np.zeros((n, 0, 3))  # type: ignore[arg-type]
        joints = np.stack([person.joints for person in people])  # type: ignore[arg-type]
        truth = Truth(torch.zeros(n, 0), torch.zeros(n, 0), torch.from_numpy(joints).float(), torch.from_numpy(whole).float())
    return Crops(images, parsing, keypoints, K, torch.zeros(n), truth)


def _resized(person: Person, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with Image.open(person.image) as file:
        side = file.width
        image = np.array(file.convert("RGB").resize((size, size), Image.Resampling.BOX))
    with Image.open(person.parsing) as file:
        labels = np.array(file.resize((size, size), Image.Resampling.NEAREST))
    scale = size / side
    keypoints = torch.from_numpy(person.keypoints).float()
    keypoints[:, :2] = scale * (keypoints[:, :2] + 0.5) - 0.5  # pixel centres are whole numbers
    K = torch.zeros(3, 3)
    if person.K is not None:
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        K = torch.from_numpy(np.linalg.inv(shift) @ np.diag([scale, scale, 1]) @ shift @ person.K).float()
    return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels), keypoints, K
