"""The objects of the paper: ShapeNetCore v1 with the renderings of DISN, from a folder of the user's own."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from throughline.claims.deepmesh.config import Config
from throughline.claims.deepmesh.data import Shape, Task, View
from throughline.data.cache import kept
from throughline.errors import ThroughlineError

if TYPE_CHECKING:
    from throughline.core.camera import Camera

__all__ = ["check", "objects"]

FARTHEST, FOCAL = 1.75, 35 / 32  # camera distance of which the metadata are shares; focal length in image sides
SCALE = 1.8  # of an object, whose box has a diagonal of 1
METADATA = "rendering_metadata.txt"


def check(config: Config) -> None:
    """Refuse a folder without the lists.

    Raises:
        ThroughlineError: naming what is missing.
    """
    for part in ("train", "test"):
        names(config, part)


def names(config: Config, part: str) -> list[str]:
    """The objects of a category, as DISN splits them."""
    file = Path(config.root) / "filelists" / f"{config.category}_{part}.lst"
    if not config.root or not file.is_file():
        raise ThroughlineError(
            f"root={config.root!r}: no {file.name} in its folder filelists; --set root=FOLDER with meshes/, image/ and "
            "filelists/ of ShapeNetCore v1 and DISN, whose licence has to be asked for"
        )
    found = file.read_text().split()
    if not found:
        raise ThroughlineError(f"{file}: no object is listed")
    return found


def objects(config: Config, seed: int) -> Task:
    """All training objects of a category, and some test objects with a random view each."""
    train, test = names(config, "train"), names(config, "test")
    draw = torch.Generator().manual_seed(seed)
    chosen = [test[i] for i in torch.randperm(len(test), generator=draw)[: config.tests].tolist()]
    known = [distances(config, name) for name in train]
    points, values = (torch.stack([one[part] for one in known]) for part in ("points", "distances"))

    def images(rows: Tensor, draw: torch.Generator) -> Tensor:
        places = torch.randint(config.views, (len(rows),), generator=draw).tolist()
        return torch.stack([image(config, train[i], place) for i, place in zip(rows.tolist(), places, strict=True)])

    places = torch.randint(config.views, (len(chosen),), generator=draw).tolist()
    views = []
    for name, place in zip(chosen, places, strict=True):
        seen = image(config, name, place)
        views.append(View(seen, seen[3], camera(config, name, place)))
    return Task(train, points, values, images, [mesh(config, name) for name in chosen], views)


def mesh(config: Config, name: str) -> Shape:
    """An object as ShapeNet has it: y is up, and its box has a diagonal of 1; scaled, it fills the grid."""
    import trimesh

    loaded = trimesh.load_mesh(Path(config.root) / "meshes" / config.category / name / "model.obj", force="mesh")
    vertices = torch.from_numpy(np.asarray(loaded.vertices, dtype=np.float32))
    return Shape(name, SCALE * vertices, torch.from_numpy(np.asarray(loaded.faces, dtype=np.int64)))


def distances(config: Config, name: str) -> dict[str, Tensor]:
    from throughline.geometry.isosurface import sample_sdf

    def make() -> dict[str, Tensor]:
        shape, draw = mesh(config, name), torch.Generator(config.device).manual_seed(0)
        vertices, faces = shape.vertices.to(config.device), shape.faces.to(config.device)
        points, sdf = sample_sdf(vertices, faces, config.samples, generator=draw)
        return {"points": points, "distances": sdf}

    return kept("deepmesh", {"category": config.category, "object": name, "samples": config.samples}, make)


def image(config: Config, name: str, place: int) -> Tensor:
    """``(4, H, W)``: colours, and the silhouette."""
    from PIL import Image

    file = Path(config.root) / "image" / config.category / name / "easy" / f"{place:02d}.png"
    with Image.open(file) as opened:
        pixels = np.asarray(opened.convert("RGBA").resize((config.image, config.image)), dtype=np.float32) / 255
    return torch.from_numpy(pixels).movedim(-1, 0)


def camera(config: Config, name: str, place: int) -> "Camera":
    """The camera of a rendering: azimuth and elevation in degrees, and a share of the farthest distance."""
    from throughline.core.camera import look_at

    file = Path(config.root) / "image" / config.category / name / "easy" / METADATA
    azimuth, elevation, _, share, *_ = map(float, file.read_text().splitlines()[place].split())
    turn, rise = math.radians(azimuth), math.radians(elevation)
    eye = torch.tensor([math.cos(rise) * math.cos(turn), math.sin(rise), math.cos(rise) * math.sin(turn)])
    return look_at(
        SCALE * FARTHEST * share * eye, focal_length=FOCAL * config.image, image_size=(config.image, config.image)
    )
