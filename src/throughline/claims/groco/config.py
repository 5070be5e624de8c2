"""Config of GroCo's claim."""

from dataclasses import dataclass

from throughline.data import Source

__all__ = ["Config"]


@dataclass(frozen=True)
class Config:
    """Sizes of the experiment; the learning rates and the temperature were searched for each arm."""

    images: str = "omniglot"  # digits, omniglot or imagenet; `data` takes their place
    epochs: int = 12
    batch: int = 256
    k: int = 5  # neighbours that vote
    infonce_lr: float = 8e-3
    groco_lr: float = 8e-3
    temperature: float = 0.1
    size: int = 28
    data: Source | None = None
    root: str = ""  # imagenet: the folder that holds train/ and val/
    device: str = "cpu"
    gpus: int = 1  # imagenet: processes, with a GPU each
    workers: int = 8  # imagenet: loader processes of each
