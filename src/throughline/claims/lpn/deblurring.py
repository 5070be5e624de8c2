"""Deblurring with a learned proximal network in ADMM, and with what does without one."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from throughline.claims.lpn.config import Config
from throughline.lab import Log, require
from throughline.physics.proximal import LearnedProximalNetwork, pnp_admm

__all__ = ["blur", "deblurred", "others", "quality", "restored"]

RHO, ITERATIONS = 0.1, 20  # of ADMM, as for CelebA in the paper
WEIGHTS = (0.5, 2.0, 8.0, 25.0)  # of the data term; each method takes the best on training images
TOTAL_VARIATION = (0.002, 0.01, 0.05)
DENOISED = (0.02, 0.05, 0.1)  # noise levels that the other denoisers are given

Prox = Callable[[Tensor], Tensor]


def blur(x: Tensor, sigma: float) -> Any:
    """The physics of a Gaussian blur on images like ``x``, whose deviation is in pixels."""
    deepinv = require("deepinv", extra="imaging")
    reach = min(int(sigma / 0.3 + 1), (x.shape[-1] - 1) // 2)
    kernel = deepinv.physics.functional.gaussian_blur(psf_size=(2 * reach + 1,) * 2, sigma=(sigma, sigma))
    return deepinv.physics.Blur(kernel.to(x), padding="circular", device=x.device)


def restored(
    f: LearnedProximalNetwork, train: Tensor, test: Tensor, arm: str, config: Config, seed: int, log: Log
) -> dict[str, float]:
    """PSNR and SSIM of PnP-ADMM; in the arm of l2 also of what does without our network."""
    draw = torch.Generator().manual_seed(seed + 3)
    pairs = []
    for clean in (train, test):
        blurred = blur(clean, config.blur).A(clean)
        noisy = blurred + config.blur_noise * torch.randn(blurred.shape, generator=draw)
        pairs.append((clean.to(config.device), noisy.to(config.device)))
    methods: dict[str, Iterable[Prox]] = {"": [f]}
    if arm == "l2":
        methods |= others(config, test.shape[1])
    kept, found = {"truth": test, "blurred": pairs[1][1].cpu()}, {}
    for name, proxes in methods.items():
        choices = [(prox, weight) for prox in proxes for weight in WEIGHTS]
        scores = [quality(pairs[0][0], deblurred(pairs[0][1], prox, weight, config))[0] for prox, weight in choices]
        prox, weight = choices[int(np.argmax(scores))]
        made = deblurred(pairs[1][1], prox, weight, config)
        kept[f"restored{name}"] = made.cpu()
        found[f"deblur_psnr{name}"], found[f"deblur_ssim{name}"] = quality(pairs[1][0], made)
    log.keep(**kept)
    return found


def deblurred(blurred: Tensor, prox: Prox, weight: float, config: Config) -> Tensor:
    """ADMM with ``weight`` times the data term."""
    physics, root = blur(blurred, config.blur), math.sqrt(weight)
    return pnp_admm(
        root * blurred,
        lambda x: root * physics.A(x),
        lambda y: root * physics.A_adjoint(y),
        prox,
        rho=RHO,
        max_iter=ITERATIONS,
        init=blurred,
    ).solution.clamp(0, 1)


def others(config: Config, channels: int) -> dict[str, Iterable[Prox]]:
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


def quality(truth: Tensor, made: Tensor) -> tuple[float, float]:
    """Mean PSNR and SSIM over images in [0, 1]."""
    metrics = require("skimage.metrics", extra="imaging")
    pairs = list(zip(truth.cpu().numpy(), made.cpu().numpy(), strict=True))
    psnr = [metrics.peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs]
    ssim = [metrics.structural_similarity(a, b, data_range=1, channel_axis=0) for a, b in pairs]
    return float(np.mean(psnr)), float(np.mean(ssim))
