"""Sizes and rates of the darts-pt claim."""

from dataclasses import dataclass

from pydantic import PositiveInt

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.fields import PositiveReal

__all__ = ["Config"]


@dataclass(frozen=True)
class Config(CellConfig):
    """The shared settings, and the tuning between two decisions."""

    tuning_epochs: PositiveInt = 5
    tuning_lr: PositiveReal = 0.08
