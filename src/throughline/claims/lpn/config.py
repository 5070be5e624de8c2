"""Sizes and rates of the lpn claim."""

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt

from throughline.claims.shared.fields import NonNegativeReal, PositiveReal, PositiveReals
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates, the same in every arm."""

    dataset: Literal["laplace", "mnist", "celeba"] = "laplace"  # unless data is given
    # samples of the generator, or rows of a table
    hidden: PositiveInt = 50
    depth: PositiveInt = 4
    beta: PositiveReal = 10.0
    batch: PositiveInt = 1000
    pretrain: PositiveInt = 4_000  # steps with l1
    pretrain_rates: PositiveReals = (1e-3, 1e-4)  # in equal parts
    matching: PositiveInt = 2_000  # steps of a stage of proximal matching
    gammas: PositiveReals = (0.5, 0.5, 0.4, 0.3, 0.2, 0.1)  # of the stages, for the generator's samples
    table_gammas: PositiveReals = (4.0, 2.0, 2.0, 1.0, 1.0, 0.5)  # in multiples of σ√d
    rates: PositiveReals = (1e-3, 1e-3, 3e-4, 3e-4, 1e-4, 1e-4)
    table_sigma: PositiveReal = 0.3  # noise on columns, whose deviation is 1; on the generator's samples it is 1
    # images
    channels: PositiveInt = 32
    image_batch: PositiveInt = 32
    image_pretrain: PositiveInt = 1_000
    image_matching: PositiveInt = 250
    image_stages: PositiveInt = 4  # γ is halved from one to the next
    image_gamma_min: PositiveReal = 0.08  # in multiples of √n, n values an image
    image_rate: PositiveReal = 1e-3  # a tenth of it in proximal matching
    image_sigma: PositiveReal = 0.1
    scored: PositiveInt = 16  # images that R is evaluated of
    restored: PositiveInt = 8  # images that are deblurred
    blur: PositiveReal = 1.0  # deviation in pixels
    blur_noise: NonNegativeReal = 0.02
    denoisers: bool = False  # also deblur with deepinv's DnCNN and GS-DRUNet, whose weights are downloaded
    root: str = ""  # paper scale: torchvision's folder
    device: Device = "cpu"
    data: Source | None = None
