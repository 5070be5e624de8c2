"""Encoders and decoders of TELL's claim, dense or convolutional."""

from itertools import pairwise

import numpy as np
from torch import nn

from throughline.claims.tell.config import Config

__all__ = ["networks"]


def networks(config: Config, shape: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder for samples of a shape, drawn from the global generator."""
    if config.network == "dense":
        widths = (int(np.prod(shape)), *config.hidden, config.latent)
        return _dense(widths), nn.Sequential(_dense(widths[::-1]), nn.Sigmoid())
    encoder, decoder = _convolutional(shape, config.latent)
    return encoder.to(config.device), decoder.to(config.device)


def _dense(widths: tuple[int, ...]) -> nn.Sequential:
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _convolutional(shape: tuple[int, ...], latent: int) -> tuple[nn.Module, nn.Module]:
    """The authors' network: four convolutions and two linear layers, and their mirror image."""
    channels, strides = (shape[0], 16, 32, 32, 16), (1, 2, 1, 2)
    sizes = [shape[1:]]
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    for (a, b), stride in zip(pairwise(channels), strides, strict=True):
        height, width = sizes[-1]
        down += [nn.Conv2d(a, b, 3, stride, 1), nn.BatchNorm2d(b), nn.ReLU()]
        extra = (1 - height % 2, 1 - width % 2) if stride == 2 else (0, 0)  # what the stride has rounded away
        back = nn.ConvTranspose2d(b, a, 3, stride, 1, output_padding=extra)
        up = [back, *((nn.BatchNorm2d(a), nn.ReLU()) if up else (nn.Sigmoid(),)), *up]
        sizes.append((-(-height // stride), -(-width // stride)))
    last = (channels[-1], *sizes[-1])
    wide = int(np.prod(last))
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(wide, 256), nn.ReLU(), nn.Linear(256, latent))
    decoder = nn.Sequential(
        *(nn.Linear(latent, 256), nn.ReLU(), nn.Linear(256, wide), nn.ReLU(), nn.Unflatten(1, last)), *up
    )
    return encoder, decoder
