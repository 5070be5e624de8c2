"""Sizes and rates of the dsr claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import Fraction, NonNegativeReal, PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config", "Weights"]


@dataclass(frozen=True)
class Weights:
    """Of the terms that every arm has; a batch without 3D truth has the first, and a pull of the shape to the mean."""

    keypoints: NonNegativeReal = 5.0  # mean squares in half images
    joints: NonNegativeReal = 50.0  # in metres, from the root
    pose: NonNegativeReal = 1.0  # of the entries of rotations
    shape: NonNegativeReal = 0.01
    place: NonNegativeReal = 0.1  # of the root, in metres
    prior: NonNegativeReal = 0.001  # of the shape where it is not known
    near: NonNegativeReal = 0.0  # mean exp(-10 s)² of the camera's scale s, which keeps it positive


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment."""

    dataset: Literal["synthetic", "photographs"] = "synthetic"  # the second is the paper's, in folders below `root`
    lab: PositiveInt = 2_000  # images with 3D truth
    street: PositiveInt = 700  # images without
    test: PositiveInt = 400
    outfits: PositiveInt = 300  # that the prior counts
    size: Annotated[int, Field(ge=16)] = 64  # pixels on a side
    focal: PositiveReal = 95.0  # pixels
    voxel: Annotated[float, Field(gt=0, le=0.07)] = 0.07  # metres, of the body's mesh
    gap: NonNegativeReal = 0.8  # how much more girth, belly, hips, thighs and arms people in the street have
    street_spread: NonNegativeReal = 1.2  # of all numbers of shape
    lab_spread: NonNegativeReal = 0.4
    network: Literal["small", "resnet50"] = "small"
    features: PositiveInt = 128  # of an image, in the small network
    hidden: PositiveInt = 256
    iterations: PositiveInt = 1
    dropout: Fraction = 0.0
    first_steps: NonNegativeInt = 450
    first_batch: PositiveInt = 64
    first_lr: PositiveReal = 2e-3
    steps: PositiveInt = 300  # of the second stage
    batch: PositiveInt = 16  # images from the street, and as many from the lab
    lr: PositiveReal = 1e-3
    clip: NonNegativeReal = 5.0  # norm of the gradient; 0 for none
    weights: Weights = Weights()
    minimal: Literal["distance", "iou"] = "iou"
    silhouette_weight: NonNegativeReal = 0.3
    minimal_weight: NonNegativeReal = 3.0
    clothing_weight: NonNegativeReal = 0.0  # in dsr
    context_weight: NonNegativeReal = 0.3  # the same in dsr_c
    sigma: PositiveReal = 1e-4
    gamma: PositiveReal = 1e-2
    min_pixels: NonNegativeInt = 5
    every: PositiveInt = 50  # steps from one look at the test images to the next; for the pictures alone
    root: str = ""  # of the photographs
    smpl: str = ""  # SMPL's file or folder, for photographs and for data whose vertices are SMPL's
    prior: str = ""  # a .npy of SMPL's labels, by vertex or face
    checkpoint: str = ""  # of a SPIN-like network that was trained on keypoints
    device: Device = "cpu"
    data: Source | None = None
