"""The networks of the deepmesh claim: a decoder from a code to a field, an encoder from an image to a code."""

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from throughline.claims.deepmesh.config import Config

if TYPE_CHECKING:
    from throughline.geometry.isosurface import DeepSDF

__all__ = ["Encoder", "decoder_of"]


def decoder_of(config: Config) -> "DeepSDF":
    from throughline.geometry.isosurface import DeepSDF

    skip = (config.skip,) if config.skip else ()
    return DeepSDF(config.latent, config.hidden, skip=skip, dropout=config.dropout)


class Encoder(nn.Module):
    """Strided convolutions, and a code from the means over the quarters of what is left of the image."""

    def __init__(self, config: Config, channels: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((channels, *config.channels)):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(min(4, after), after), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(4 * config.channels[-1], config.latent)

    def forward(self, images: Tensor) -> Tensor:
        codes: Tensor = self.head(self.body(images))
        return codes
