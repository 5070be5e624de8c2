"""Sizes and rates of the deepmesh claim."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from throughline.claims.shared.fields import Fraction, NonNegativeReal, PositiveReal
from throughline.data import Source
from throughline.lab import Device

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes and rates; what is above ``steps`` makes the prediction that every arm starts from."""

    dataset: Literal["meshes", "solids", "shapenet"] = "meshes"  # unless data is given
    members: PositiveInt = 16  # deformed relatives of each mesh to learn from
    tests: PositiveInt = 1  # unseen ones of each; of ShapeNet, objects
    samples: PositiveInt = 3_000  # distances known of each shape
    latent: PositiveInt = 16
    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (128,) * 4  # of the decoder
    skip: NonNegativeInt = 2  # the layer that sees its inputs again; 0 for none
    fit_steps: PositiveInt = 1_200  # of decoder and codes
    shapes: PositiveInt = 24  # of a step
    points: PositiveInt = 256  # of each of them
    decoder_lr: PositiveReal = 2e-3
    code_lr: PositiveReal = 4e-3
    dropout: Fraction = 0.0
    encoder_steps: PositiveInt = 300
    encoder_lr: PositiveReal = 2e-3
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 32, 64, 96)
    views: PositiveInt = 8  # of each training shape
    image: Annotated[int, Field(ge=8)] = 64  # pixels on a side
    resolution: Annotated[int, Field(ge=4)] = 40  # of the grid
    steps: PositiveInt = 40  # of refinement, in either arm
    sigma: PositiveReal = 1e-4  # of the soft silhouette
    deepmesh_lr: PositiveReal = 1e-2
    code_weight: NonNegativeReal = 1e-4  # of mean z²
    mesh_lr: PositiveReal = 3e-3
    smoothness: NonNegativeReal = 100.0  # of the squared Laplacian of the offsets
    scored: PositiveInt = 5_000  # points of each surface that are compared
    category: Literal["02958343", "03001627"] = "02958343"  # of ShapeNet: cars, chairs
    root: str = ""  # of ShapeNet: the folder with meshes/, image/ and filelists/
    device: Device = "cpu"
    data: Source | None = None
