"""Sizes and rates of the mocap claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from throughline.claims.shared.fields import Fraction, NonNegativeReal, PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config", "Population"]

Real = Annotated[float, Field(ge=0, le=10)]


@dataclass(frozen=True)
class Population:
    """Who is drawn: standard deviations."""

    amplitude: Real  # radians, of hips and shoulders; knees and elbows bend by up to twice as much
    yaw: Real  # radians
    shape: Real  # of each β
    noise: Real  # of keypoints, pixels


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    dataset: Literal["generated", "surreal"] = "generated"  # unless data is given
    voxel: Annotated[float, Field(gt=0, le=0.07)] = 0.06  # metres, of the body's grid
    side: Annotated[int, Field(ge=16)] = 64  # pixels of an image
    focal: PositiveReal = 80.0  # pixels
    distance: Annotated[float, Field(ge=2, le=100)] = 3.8  # metres from the camera to where people stand
    spread: Annotated[float, Field(ge=0, le=1)] = 0.6  # metres, nearer and further
    people: PositiveInt = 20_000  # to train on
    source: Population = Population(0.3, 0.4, 0.7, 0.3)
    target: Population = Population(0.45, 0.7, 1.5, 0.5)
    flow_noise: NonNegativeReal = 0.25  # pixels
    clips: PositiveInt = 5
    frames: Annotated[int, Field(ge=2)] = 8  # of a clip
    width: PositiveInt = 512  # of the network
    steps: PositiveInt = 2_500  # of training before
    batch: PositiveInt = 64
    lr: PositiveReal = 1e-3
    hidden: Fraction = 0.0  # share of joints that the network is not shown in training; 0.25 at least with own data
    keypoint: NonNegativeReal = 1.0  # weights of the three losses, for pixels of such images
    motion: NonNegativeReal = 1.0
    segmentation: NonNegativeReal = 0.1
    adapt_steps: PositiveInt = 100
    adapt_lr: PositiveReal = 1e-4
    fit_steps: PositiveInt = 200
    fit_lr: PositiveReal = 0.02
    restarts: PositiveInt = 4
    prior: NonNegativeReal = 0.01  # the best of those that were run; the claim's notes have them all
    root: str = ""  # of SURREAL: data/cmu/{train,val,test}/run0/…
    smpl: str = ""  # folder with the user's SMPL files
    device: Device = "cpu"
    data: Source | None = None
