"""Sizes and rates of the rarts claim."""

from dataclasses import dataclass

from pydantic import NonNegativeInt, PositiveInt

from throughline.claims.shared.cells.config import CellConfig
from throughline.claims.shared.fields import NonNegativeReal, PositiveReal

__all__ = ["Config"]


@dataclass(frozen=True)
class Config(CellConfig):
    """The shared settings, those of the relaxed loss, and what is measured beside the search."""

    lam: PositiveReal = 1.0  # of the relaxed loss on networks
    beta: NonNegativeReal = 1.0
    timed: PositiveInt = 30  # steps whose processor time is taken
    warmup: NonNegativeInt = 5  # steps before them
    solvable_steps: PositiveInt = 5_000  # on the solvable model
