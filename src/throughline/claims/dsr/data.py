"""The people of the dsr claim by default or for its user: generated ones, or pictures with parsing and keypoints."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from throughline.claims.dsr.config import Config
from throughline.claims.shared.people_pictures import resized_person
from throughline.core.camera import Camera
from throughline.data import DataError, Person, Source
from throughline.geometry.body import BodyModel, open_body, semantic_prior
from throughline.geometry.people import random_outfits, synthetic_people

__all__ = ["Crops", "People", "Setting", "Truth", "intrinsics", "load", "own", "torso"]

WIDER = (1, 5, 6, 7, 8)  # numbers of shape: girth, belly, hips, thighs, arms
TIGHT = (0.001, 0.005)  # metres of cloth in the lab
TORSO = (0, 3, 6, 9, 13, 14)  # joints
TEST = 0.2  # of the user's people
PRIOR = 999  # seed of the outfits that the prior counts, and of nobody's clothes


class Truth(NamedTuple):
    """Bodies in the camera's world; fields that nobody knows are empty, ``(n, 0)``."""

    pose: Tensor  # (n, J, 3, 3)
    betas: Tensor  # (n, S)
    joints: Tensor  # (n, J, 3)
    vertices: Tensor  # (n, V, 3)


@dataclass(frozen=True, eq=False)
class Crops:
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
        return Crops(self.images[rows], self.parsing[rows], self.keypoints[rows], self.K[rows], self.cloth[rows], truth)


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
        street, test = own(config.data, config, body)
    else:
        street, test = (
            _generated(body, config, count, _seeded(part, seed))
            for part, count in ((1, config.street), (2, config.test))
        )
    return Setting(body.to(config.device), prior, lab, street, test)


def own(source: Source, config: Config, body: BodyModel) -> tuple[Crops, Crops]:
    """The user's people, to train and to test on; who is which follows from the names."""
    people = source.people()
    train, test = ([person for person in people if _held_out(person.name) == held] for held in (False, True))
    if not train or not test:
        raise DataError(
            f"{source.path}: {len(people)} people fall into {len(train)} to train and {len(test)} to test on by their "
            "names; give more"
        )
    return _read(train, config, body), _read(test, config, body)


def _held_out(name: str) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) < TEST * 2**32


def _seeded(part: int, seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000 * seed + part)


def _generated(body: BodyModel, config: Config, n: int, draw: torch.Generator, *, tight: bool = False) -> Crops:
    size = config.size
    K = intrinsics(config)
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


def intrinsics(config: Config) -> Tensor:
    """The camera of a picture whose own is not known."""
    center = (config.size - 1) / 2
    return torch.tensor([[config.focal, 0, center], [0, config.focal, center], [0, 0, 1]])


def torso(body: BodyModel) -> Tensor:
    """Numbers of the vertices by which girth is told: those that go with pelvis, spine and collars."""
    owner = body.weights.argmax(1)
    return torch.isin(owner, torch.tensor(TORSO, device=owner.device)).nonzero()[:, 0]


def _read(people: Sequence[Person], config: Config, body: BodyModel) -> Crops:
    """Their pictures, averaged to the claim's size, and their bodies where all are known."""
    images, parsing, keypoints, cameras = zip(*(resized_person(p, config.size) for p in people), strict=True)
    K = torch.stack([intrinsics(config) if k is None else k for k in cameras])
    n, nobody = len(people), torch.zeros(len(people), 0)
    joints = [person.joints for person in people if person.joints is not None]
    vertices = [_vertices(person, body) for person in people if person.vertices is not None]
    truth = None
    if len(joints) == n:
        bodies = np.stack(vertices) if len(vertices) == n else np.zeros((n, 0, 3))
        truth = Truth(nobody, nobody, *(torch.from_numpy(np.asarray(a)).float() for a in (np.stack(joints), bodies)))
    return Crops(torch.stack(images), torch.stack(parsing), torch.stack(keypoints), K, torch.zeros(n), truth)


def _vertices(person: Person, body: BodyModel) -> np.ndarray:
    assert person.vertices is not None
    if len(person.vertices) != len(body.template):
        raise DataError(
            f"{person.image}: its body has {len(person.vertices):,} vertices, and that of the claim "
            f"{len(body.template):,}; --set voxel=… for another one, or leave vertices out"
        )
    return person.vertices
