"""Sizes and rates of the claim about learned search."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import NonNegativeReal, PositiveReal, Unit
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    dataset: Literal["quadratics", "svc", "hpob", "xgboost"]  # unless data is given
    horizon: PositiveInt = 15
    initial: NonNegativeInt = 1  # random trials that every search starts from
    kernel: Literal["rbf", "matern", "matern-gamma"] = "matern-gamma"  # of gp_ei
    test_sets: PositiveInt = 8  # of the data sets of support vector machines, or of the quadratics
    repetitions: PositiveInt = 3  # of arms that draw at random
    d_model: PositiveInt = 64
    num_layers: PositiveInt = 2
    nhead: PositiveInt = 4
    dim_feedforward: PositiveInt = 128
    num_bars: PositiveInt = 50
    candidates: Annotated[int, Field(ge=2)] = 128  # of a training episode
    related: NonNegativeInt = 40  # tasks from the process that is fitted to each table; 0 trains on the tables
    max_points: Annotated[int, Field(ge=2)] = 256  # of a table that its process is fitted to
    pretrain: NonNegativeInt = 400  # gradient steps on the likelihood alone
    pretrain_lr: PositiveReal = 1e-3
    iterations: PositiveInt = 120
    episodes: PositiveInt = 8
    epochs: PositiveInt = 4
    minibatch: PositiveInt = 32
    lr: PositiveReal = 1e-3
    warmup: NonNegativeInt = 10
    top_k: PositiveInt = 10
    gamma: Unit = 0.95
    gae_lambda: Unit = 0.8
    value_coef: NonNegativeReal = 0.1
    regret_floor: PositiveReal = 1e-3
    tables: str = ""  # folder of downloaded tables, of hpob and xgboost
    # of hpob
    spaces: Annotated[tuple[str, ...], Field(min_length=1)] = ("5860", "4796", "5906", "5859", "5889", "5527")
    device: Device = "cpu"
    data: Source | None = None
