"""Sizes and rates of the sd-darts claim."""

from dataclasses import dataclass

from pydantic import NonNegativeInt, PositiveInt

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.fields import NonNegativeReal, PositiveReal

__all__ = ["Config"]


@dataclass(frozen=True)
class Config(CellConfig):
    """The shared settings, those of the teachers, and how the supernet is measured."""

    teachers: PositiveInt = 3  # of self_distillation
    interval: PositiveInt = 1  # epochs from one teacher to the next
    warmup: NonNegativeInt = 10  # epochs before the first distillation
    strength: NonNegativeReal = 1.0
    temperature: PositiveReal = 4.0
    darts_decay: NonNegativeReal = 3e-4  # of the weights, in the arm darts alone
    darts_arch_lr: PositiveReal = 3e-3  # likewise, of alpha
    rho: PositiveReal = 0.05  # how far uphill sharpness looks
    measured: PositiveInt = 500  # samples of the validation half on which sharpness and eigenvalue are taken
    every: PositiveInt = 10  # epochs from one eigenvalue to the next
    products: PositiveInt = 20  # with the Hessian for one eigenvalue, and three times as many for the last
    tuning: bool = False  # also train on the training half what was found, and score it on the validation half
