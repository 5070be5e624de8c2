"""The lpn claim on images: the user's folder, MNIST and CelebA; what R says of corrupted ones, and deblurring."""

import math
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from throughline.claims.lpn.data import Config, Phase, Task, rises
from throughline.data import DataError, image_files, read_image
from throughline.lab import Log, require
from throughline.physics.proximal import (
    InputConvexCNN,
    LearnedProximalNetwork,
    pnp_admm,
    proximal_matching_loss,
    proximal_matching_schedule,
)

__all__ = ["load"]

NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
BLUR = (0.0, 0.5, 1.0, 2.0, 4.0)
MIXTURES = (0.0, 0.25, 0.5, 0.75, 1.0)
NEWTON = 50  # steps of an inversion
RHO, ITERATIONS = 0.1, 20  # of ADMM, as for CelebA in the paper
WEIGHTS = (0.5, 2.0, 8.0, 25.0)  # of the data term; each method takes the best on training images
TOTAL_VARIATION = (0.002, 0.01, 0.05)
DENOISED = (0.02, 0.05, 0.1)  # noise levels that the other denoisers are given
GREY = (0.299, 0.587, 0.114)
FEWEST = 40  # images of a folder

Prox = Callable[[Tensor], Tensor]


class Pictures(NamedTuple):
    """Images of one size, those to train on as they are asked for."""

    draw: Callable[[Tensor], Tensor]  # of row numbers
    rows: int
    test: Tensor


def load(config: Config, seed: int) -> Task:
    """The task of a seed, alike in every arm."""
    pictures = _pictures(config, seed)
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
        return found | _restored(f, train, pictures.test[: config.restored], arm, config, seed, log)

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


# ---- data ----


def _pictures(config: Config, seed: int) -> Pictures:
    if config.data is not None:
        return _folder(config.data.path, config.data.size or 28, seed)
    datasets = require("torchvision.datasets", extra="paper")
    import pooch

    root = config.root or str(Path(pooch.os_cache("throughline")) / "torchvision")
    order = torch.Generator().manual_seed(seed)
    if config.dataset == "mnist":
        halves = [datasets.MNIST(root, train=train, download=True).data for train in (True, False)]
        train, test = (torch.as_tensor(half)[:, None] for half in halves)
        train = train[torch.randperm(len(train), generator=order)[:50_000]]
        test = test[torch.randperm(len(test), generator=order)[:5_000]].float() / 255
        return Pictures(lambda rows: train[rows].float() / 255, len(train), test)
    faces = [datasets.CelebA(root, split=split, download=True) for split in ("train", "test")]
    few = torch.randperm(len(faces[1]), generator=order)[: max(config.scored, config.restored)]
    return Pictures(partial(_faces, faces[0]), len(faces[0]), _faces(faces[1], few))


def _faces(data: Any, rows: Tensor) -> Tensor:
    """The largest centred square of photographs, at 128 pixels."""
    from PIL import ImageOps

    fitted = (ImageOps.fit(data[int(row)][0].convert("RGB"), (128, 128)) for row in rows)
    return torch.from_numpy(np.stack([np.asarray(image) for image in fitted])).movedim(-1, 1).float() / 255


def _folder(path: str, side: int, seed: int) -> Pictures:
    """All images below a folder, with or without classes, as grey squares; a fifth of them for tests."""
    files = image_files(path)
    if len(files) < FEWEST:
        raise DataError(f"{path}: {len(files)} images; at least {FEWEST} are wanted")
    if side % 4:
        raise DataError(f"{path}: the side must be a multiple of 4, got --size {side}; give --size 28 or 64")
    weights = torch.tensor(GREY).view(3, 1, 1)
    images = torch.stack([(read_image(file, side) * weights).sum(0, keepdim=True) for file in files])
    images = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))]
    test, train = images[: len(images) // 5], images[len(images) // 5 :]
    return Pictures(lambda rows: train[rows], len(train), test)


# ---- what R says ----


def _of_corrupted(f: LearnedProximalNetwork, clean: Tensor, config: Config, seed: int, log: Log) -> dict[str, float]:
    """R of noisy and blurred images, and of mixtures of two."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed + 2))
    other = clean.roll(1, 0)
    series = {
        "noise": [clean + level * noise for level in NOISE],
        "blur": [_blur(clean, level).A(clean) if level else clean for level in BLUR],
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


# ---- deblurring ----


def _blur(x: Tensor, sigma: float) -> Any:
    deepinv = require("deepinv", extra="imaging")
    reach = min(int(sigma / 0.3 + 1), (x.shape[-1] - 1) // 2)
    kernel = deepinv.physics.functional.gaussian_blur(psf_size=(2 * reach + 1,) * 2, sigma=(sigma, sigma))
    return deepinv.physics.Blur(kernel.to(x), padding="circular", device=x.device)


def _restored(
    f: LearnedProximalNetwork, train: Tensor, test: Tensor, arm: str, config: Config, seed: int, log: Log
) -> dict[str, float]:
    """PSNR and SSIM of PnP-ADMM; in the arm of l2 also of what does without our network."""
    draw = torch.Generator().manual_seed(seed + 3)
    pairs = []
    for clean in (train, test):
        blurred = _blur(clean, config.blur).A(clean)
        noisy = blurred + config.blur_noise * torch.randn(blurred.shape, generator=draw)
        pairs.append((clean.to(config.device), noisy.to(config.device)))
    methods: dict[str, Iterable[Prox]] = {"": [f]}
    if arm == "l2":
        methods |= _others(config, test.shape[1])
    kept, found = {"truth": test, "blurred": pairs[1][1].cpu()}, {}
    for name, proxes in methods.items():
        choices = [(prox, weight) for prox in proxes for weight in WEIGHTS]
        scores = [_quality(pairs[0][0], _deblurred(pairs[0][1], prox, weight, config))[0] for prox, weight in choices]
        prox, weight = choices[int(np.argmax(scores))]
        made = _deblurred(pairs[1][1], prox, weight, config)
        kept[f"restored{name}"] = made.cpu()
        found[f"deblur_psnr{name}"], found[f"deblur_ssim{name}"] = _quality(pairs[1][0], made)
    log.keep(**kept)
    return found


def _deblurred(blurred: Tensor, prox: Prox, weight: float, config: Config) -> Tensor:
    """ADMM with ``weight`` times the data term."""
    physics, root = _blur(blurred, config.blur), math.sqrt(weight)
    return pnp_admm(
        root * blurred,
        lambda x: root * physics.A(x),
        lambda y: root * physics.A_adjoint(y),
        prox,
        rho=RHO,
        max_iter=ITERATIONS,
        init=blurred,
    ).solution.clamp(0, 1)


def _others(config: Config, channels: int) -> dict[str, Iterable[Prox]]:
    """Total variation, and on demand deepinv's trained denoisers, each at several strengths."""
    models = require("deepinv", extra="imaging").models

    def at(denoiser: nn.Module, level: float, wide: bool = False) -> Prox:
        def denoised(x: Tensor) -> Tensor:
            with torch.no_grad():
                made: Tensor = denoiser(x.expand(-1, 3, -1, -1) if wide else x, level)
            return made.mean(1, keepdim=True) if wide else made

        return denoised

    variation = models.TVDenoiser(n_it_max=50)
    found: dict[str, Iterable[Prox]] = {"_tv": [at(variation, level) for level in TOTAL_VARIATION]}
    if config.denoisers:
        plain = models.DnCNN(in_channels=channels, out_channels=channels, pretrained="download", device=config.device)
        steps = models.GSDRUNet(pretrained="download", device=config.device)  # for colours
        found["_dncnn"] = [at(plain, 0.0)]  # blind
        found["_gs_drunet"] = [at(steps, level, wide=channels == 1) for level in DENOISED]
    return found


def _quality(truth: Tensor, made: Tensor) -> tuple[float, float]:
    """Mean PSNR and SSIM over images in [0, 1]."""
    metrics = require("skimage.metrics", extra="imaging")
    pairs = list(zip(truth.cpu().numpy(), made.cpu().numpy(), strict=True))
    psnr = [metrics.peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs]
    ssim = [metrics.structural_similarity(a, b, data_range=1, channel_axis=0) for a, b in pairs]
    return float(np.mean(psnr)), float(np.mean(ssim))
