"""Sizes and rates of the BO-REP claim, and what they make of its problems."""

from dataclasses import dataclass
from typing import Literal

from pydantic import PositiveInt

from throughline.claims.shared.fields import Fraction, NonNegativeReal, PositiveReal, PositiveReals
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config", "kind", "levels"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment; the step sizes of x are tuned, see `throughline.claims.bo_rep.training`."""

    dataset: Literal["descriptions", "shakespeare", "amazon", "sentiment140"] = "shakespeare"  # `data` takes its place
    # gains of the recurrent matrix: exploding first, benign last
    gains: PositiveReals = (2.0, 1.6, 1.3, 1.0)
    flipped: Fraction = 0.4  # share of training labels, where samples are weighted; the benign problem flips none
    embedding: PositiveInt = 32
    hidden: PositiveInt = 96
    layers: PositiveInt = 1
    length: PositiveInt = 48  # characters of a sequence, words of a review
    batch: PositiveInt = 16  # sequences
    rows: PositiveInt = 512  # of a batch, where samples are weighted
    steps: PositiveInt = 400  # of bo_rep; the other arms take as many as its oracle calls pay for
    warmup: PositiveInt = 60  # lower steps before the first, in every arm
    lower_lr: PositiveReal = 0.1
    adjoint_lr: PositiveReal = 0.1
    momentum: Fraction = 0.9
    period: PositiveInt = 2  # of bo_rep
    lower_steps: PositiveInt = 2  # of bo_rep; ma_soba takes one in every step
    neumann: PositiveInt = 10  # terms, of stocbio
    lr: NonNegativeReal = 0.0  # of x, in place of the tuned step sizes; 0 for those
    clip: NonNegativeReal = 0.0  # of ma_soba_clipped, in place of the tuned norms; 0 for those
    tasks: PositiveInt = 20  # in a batch of reviews
    shots: PositiveInt = 20  # reviews of a task on either level
    samples: PositiveInt = 20_000  # tweets, or reviews of a domain at most
    vectors: str = ""  # file of word vectors, a word and its numbers in a line
    device: Device = "cpu"
    data: Source | None = None


def kind(config: Config) -> str:
    """What is learned: "text", "table", "amazon" or "sentiment140". A .txt file with a target is a table."""
    if config.data is None:
        return "text" if config.dataset in ("descriptions", "shakespeare") else config.dataset
    return "text" if "text" in config.data.kinds and config.data.target is None else "table"


def levels(config: Config) -> tuple[float, ...]:
    """The problems of a unit, hardest first: gains of the recurrent matrix, or shares of flipped labels."""
    return (config.flipped, 0.0) if kind(config) in ("table", "sentiment140") else config.gains
