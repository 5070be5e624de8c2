"""Kinds of settings that the configs of several claims have, to be refused before any unit where they do not fit."""

from typing import Annotated

from pydantic import Field

__all__ = ["Fraction", "NonNegativeReal", "PositiveReal", "PositiveReals", "Share", "Unit"]

PositiveReal = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # rates, scales
PositiveReals = Annotated[tuple[PositiveReal, ...], Field(min_length=1)]
NonNegativeReal = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # weights, and bounds of which 0 is none
Unit = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, lt=1)]  # of a whole, neither nothing nor all of it
Fraction = Annotated[float, Field(ge=0, lt=1)]  # momentum, or a share that may be nothing
