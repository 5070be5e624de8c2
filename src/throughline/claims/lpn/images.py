"""The lpn claim on images: the task, the user's folder, and what R says of corrupted ones."""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from throughline.claims.lpn.config import Config
from throughline.claims.lpn.deblurring import blur, restored
from throughline.claims.lpn.tasks import Phase, Pictures, Task, rises
from throughline.claims.shared.pictures import grey
from throughline.data import DataError, Source, image_files, read_image
from throughline.lab import Log
from throughline.physics.proximal import (
    InputConvexCNN,
    LearnedProximalNetwork,
    proximal_matching_loss,
    proximal_matching_schedule,
)

__all__ = ["folder", "on_images"]

NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
BLUR = (0.0, 0.5, 1.0, 2.0, 4.0)
MIXTURES = (0.0, 0.25, 0.5, 0.75, 1.0)
NEWTON = 50  # steps of an inversion
FEWEST = 40  # images of a folder

SIDE = 28  # pixels of own images, unless --size says


def on_images(config: Config, pictures: Pictures, seed: int) -> Task:
    """The task of a seed, alike in every arm."""
    channels, side = pictures.test.shape[1:3]
    large = config.data is None and config.dataset == "celeba"
    shape: dict[str, Any] = {"strides": (2, 1, 2, 1, 2), "beta": 100.0, "strong_convexity": 2e-6} if large else {}
    gamma_min = config.image_gamma_min * math.sqrt(pictures.test[0].numel())
    held = pictures.test[: config.scored]

    def matching(f: LearnedProximalNetwork) -> float:
        noise = torch.randn(held.shape, generator=torch.Generator().manual_seed(seed + 1))
        with torch.no_grad():
            denoised = f((held + config.image_sigma * noise).to(config.device)).cpu()
        return float(proximal_matching_loss(denoised, held, gamma=gamma_min))

    def measure(f: LearnedProximalNetwork, arm: str, log: Log) -> dict[str, float]:
        found = {"matching_loss": matching(f), **_of_corrupted(f, held, config, seed, log)}
        train = pictures.draw(torch.arange(min(config.restored, pictures.rows)))
        return found | restored(f, train, pictures.test[: config.restored], arm, config, seed, log)

    total = config.image_pretrain + config.image_stages * config.image_matching
    gammas = (
        proximal_matching_schedule(
            step, total=total, pretrain=config.image_pretrain, stages=config.image_stages, gamma_min=gamma_min
        )
        for step in range(config.image_pretrain, total, config.image_matching)
    )
    return Task(
        network=lambda: InputConvexCNN(channels, side, hidden=config.channels, **shape),
        draw=lambda generator, size: pictures.draw(torch.randint(pictures.rows, (size,), generator=generator)),
        sigma=config.image_sigma,
        batch=config.image_batch,
        phases=(
            Phase(config.image_pretrain, config.image_rate, None),
            *(Phase(config.image_matching, config.image_rate / 10, gamma) for gamma in gammas),
        ),
        watch=lambda f: {"matching_loss": matching(f)},
        measure=measure,
    )


def folder(source: Source, seed: int) -> Pictures:
    """All images below a folder, with or without classes, as grey squares; a fifth of them for tests."""
    path, side = source.path, source.size or SIDE
    files = image_files(path)
    if len(files) < FEWEST:
        raise DataError(f"{path}: {len(files)} images; at least {FEWEST} are wanted")
    if side % 4:
        raise DataError(f"{path}: the side must be a multiple of 4, got --size {side}; give --size 28 or 64")
    images = torch.stack([grey(read_image(file, side)) for file in files])
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))]
    test, train = images[: len(images) // 5], images[len(images) // 5 :]
    return Pictures(lambda rows: train[rows], len(train), test)


def _of_corrupted(f: LearnedProximalNetwork, clean: Tensor, config: Config, seed: int, log: Log) -> dict[str, float]:
    """R of noisy and blurred images, and of mixtures of two."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 2))
    other = clean.roll(1, 0)
    series = {
        "noise": [clean + level * noise for level in NOISE],
        "blur": [blur(clean, level).A(clean) if level else clean for level in BLUR],
        "mixture": [(1 - share) * clean + share * other for share in MIXTURES],
    }
    found = {name: torch.stack([_prior(f, x, config) for x in some], 1) for name, some in series.items()}
    log.keep(noise=torch.tensor(NOISE), blur=torch.tensor(BLUR), mixture=torch.tensor(MIXTURES))
    log.keep(**{f"prior_{name}": values for name, values in found.items()})
    known = torch.cat(list(found.values())).isfinite().double().mean()
    ends = found["mixture"][:, [0, -1]].amax(1)
    above = (found["mixture"][:, 1:-1].amin(1) > ends).double().mean()
    return {
        **rises(found["noise"]),
        **rises(found["blur"], "blur"),
        "mixtures_above": float(above),
        "prior_defined": float(known),
    }


def _prior(f: LearnedProximalNetwork, x: Tensor, config: Config) -> Tensor:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "inverse did not converge", RuntimeWarning)  # NaN, which the metrics count
        return f.prior(x.to(config.device), tol=1e-4, max_iter=NEWTON).cpu()
