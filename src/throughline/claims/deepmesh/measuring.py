"""One arm on one seed: learn, guess, refine, and compare with the truth; what is kept for the pictures."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from throughline.claims.deepmesh.config import Config
from throughline.claims.deepmesh.data import Shape, Task, View, families, rendered
from throughline.claims.deepmesh.refining import Refined, euler_number, refined, scores
from throughline.claims.deepmesh.training import fit_decoder, fit_encoder
from throughline.lab import Log

if TYPE_CHECKING:
    from throughline.core.camera import Camera

__all__ = ["measured"]

SHOWN, FINE = 6, 96  # shapes in the pictures, and pixels on a side of theirs
LIGHT = (0.3, 0.4, -0.87)  # in the camera's frame, from where it shines: from the left above the camera
LETTERS = 24  # of a name that is kept


def measured(arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
    """The mean of each metric over the test shapes."""
    task = task_of(config, seed)
    count = len(task.test)
    of = config.fit_steps + config.encoder_steps + count * config.steps
    decoder, codes = fit_decoder(task, config, seed, log, of)
    encoder = fit_encoder(task, codes, config, seed, log, of)
    with torch.no_grad():
        guesses = encoder(torch.stack([view.image for view in task.views]).to(config.device))
    found, rows = [], []
    for place, (shape, view, code) in enumerate(zip(task.test, task.views, guesses, strict=True)):
        view = at(view, config.device)
        made = refined(arm, decoder, code, view, config)
        found.append(made)
        rows.append(scores(made, shape, view, config, seed))
        log(
            config.fit_steps + config.encoder_steps + (place + 1) * config.steps,
            of=of,
            chamfer_so_far=rows[-1]["chamfer"],
        )
    for step in range(config.steps if arm != "raw" else 0):
        log(step, silhouette_error=float(np.mean([made.losses[step] for made in found if made.losses] or [0.0])))
    keep(found, task, log)
    log.keep(chamfers=torch.tensor([row["chamfer"] for row in rows]))
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def task_of(config: Config, seed: int) -> Task:
    if config.dataset == "shapenet" and config.data is None:
        from throughline.claims.deepmesh.paper import objects

        return objects(config, seed)
    return families(config, seed)


def at(view: View, device: str) -> View:
    return View(view.image, view.mask.to(device), view.camera.to(device))


def keep(found: list[Refined], task: Task, log: Log) -> None:
    """Small pictures of the first shapes, from the input's side and from a quarter further."""
    shown = range(min(SHOWN, len(found)))
    cameras = [sides(task.views[i]) for i in shown]
    log.keep(
        names=torch.stack([letters(task.test[i].name) for i in shown]),
        silhouettes=torch.stack([task.views[i].mask for i in shown]),
        truth=torch.stack([pictures(task.test[i], cameras[i]) for i in shown]),
        pictures=torch.stack(
            [
                pictures(Shape("", made.vertices, made.faces), cameras[i])
                for i, made in zip(shown, found[: len(shown)], strict=True)
            ]
        ),
    )
    if found[0].strip and all(made.inflow is not None for made in found[: len(shown)]):
        changes = [
            (len({euler_number(faces) for _, _, faces in made.strip}), made.losses[0] - made.losses[-1])
            for made in found[: len(shown)]
        ]
        most = changes.index(max(changes))
        way = found[most].strip
        log.keep(
            strip=torch.stack([pictures(Shape("", v, f), cameras[most][:1])[0] for _, v, f in way]),
            steps=torch.tensor([step for step, _, _ in way]),
            eulers=torch.tensor([euler_number(faces) for _, _, faces in way]),
            inflow=torch.stack([coloured(found[i], cameras[i][0]) for i in shown]),
        )


def sides(view: View) -> list["Camera"]:
    """The camera of a view in more pixels, and another a quarter of the way round."""
    camera = view.camera.to("cpu").resize((FINE, FINE))
    quarter = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
    return [camera, dataclasses.replace(camera, R=camera.R @ quarter)]


def pictures(shape: Shape, cameras: list["Camera"]) -> Tensor:
    """``(cameras, H, W)`` of a lit surface in shades of grey on black."""
    found = []
    for camera in cameras:
        image = rendered(shape.vertices.cpu(), shape.faces.cpu(), camera)
        light = torch.tensor(LIGHT)
        lit = 0.25 + 0.75 * (image[1:] * (light / light.norm())[:, None, None]).sum(0).clamp(min=0)
        found.append(lit * image[0])
    return torch.stack(found)


def coloured(made: Refined, camera: "Camera") -> Tensor:
    """``(H, W, 3)``: blue where the first mesh is to move out, red where in."""
    from throughline.core.raster import interpolate, rasterize

    _, vertices, faces = made.strip[0]
    assert made.inflow is not None
    strength = (made.inflow / made.inflow.abs().quantile(0.95).clamp(min=1e-12)).clamp(-1, 1)
    white, blue, red = torch.tensor([0.95] * 3), torch.tensor([0.1, 0.3, 0.8]), torch.tensor([0.8, 0.15, 0.1])
    end = torch.where(strength[:, None].cpu() > 0, blue, red)
    colours = white + strength.abs()[:, None].cpu() * (end - white)
    fragments = rasterize(vertices.cpu(), faces.cpu(), camera)
    flat = interpolate(fragments, faces.cpu(), colours, background=0.0)
    lit = pictures(Shape("", vertices, faces), [camera])[0]
    return flat * (0.5 + 0.5 * lit)[..., None]


def letters(name: str) -> Tensor:
    return torch.tensor(list(name.encode()[:LETTERS].ljust(LETTERS, b"\0")))
