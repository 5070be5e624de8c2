"""Config of the AnyLoss claim."""

from dataclasses import dataclass

from throughline.data import Source

__all__ = ["MODELS", "Config"]

MODELS = ("slp", "mlp", "resnet")


@dataclass(frozen=True)
class Config:
    """Sizes and rates of the experiment."""

    collection: str = "uci"  # or imblearn: its 27 sets
    sets: tuple[str, ...] = ()  # of the collection, all by default; `data` takes their place
    models: tuple[str, ...] = ("slp",)  # of slp, mlp, resnet (on MNIST, one digit against the rest)
    folds: int = 0  # of cross-validation; 0 is one 70/30 split
    steps: int = 1000  # of gradient descent on the full batch (slp)
    lr: float = 1.0  # slp: cross-entropy, squared error, and the metric without amplification
    metric_lr: float = 0.03  # slp: the amplified metrics
    epochs: int = 100  # mlp
    resnet_epochs: int = 3
    digits: tuple[int, ...] = tuple(range(10))  # resnet
    data: Source | None = None
    root: str = ""  # folder of torchvision's data sets
    device: str = "cpu"
