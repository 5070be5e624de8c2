"""What the sensor-layout claim trains on: images in memory, or CelebA and Cityscapes read as they come."""

from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.data import DataError, Images, digits, image_folder, mnist, stratified_split
from throughline.errors import ThroughlineError
from throughline.lab import require
from throughline.sensing.layout import SensorLayout

if TYPE_CHECKING:
    from throughline.claims.sensor_layout.claim import Config

__all__ = ["Task", "check", "load", "sensor_size"]

SENSORS = {"digits": (3, 3), "mnist": (4, 4), "mnist-full": (4, 4), "celeba": (8, 8), "cityscapes": (256, 512)}
FOLDER_SENSOR = (8, 8)
PHOTOS = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])  # mean and deviation that backbones expect
CHUNK = 500  # images at once, where no gradient is kept
SHOWN = 10

Network = nn.Module
Measure = Callable[[SensorLayout, Network], dict[str, float]]


class Task(NamedTuple):
    """A data set split for one seed, and what is trained and measured on it."""

    network: Callable[[], Network]
    steps: int  # of an epoch
    batches: Callable[[SensorLayout], Iterator[tuple[Tensor, Tensor]]]  # all epochs: what the sensor reads, and targets
    loss: Callable[[SensorLayout, Tensor, Tensor], Tensor]
    measure: Measure
    scenes: Tensor  # ten test scenes, in [0, 1]
    mean_scene: Tensor


def sensor_size(config: "Config") -> tuple[int, int]:
    """Height and width of the sensor: `--size`, else the config's, else that of the data set."""
    if config.data is not None and config.data.size is not None:
        return config.data.size, config.data.size
    return config.sensor or (SENSORS[config.dataset] if config.data is None else FOLDER_SENSOR)


def check(config: "Config") -> None:
    """Refuse what cannot be run, and fetch what is missing, in one clear line."""
    if config.data is None and config.dataset not in SENSORS:
        raise ThroughlineError(f"dataset must be one of {', '.join(SENSORS)}, got {config.dataset!r}")
    size = sensor_size(config)
    if min(size) < 2:
        raise ThroughlineError(f"the sensor needs at least 2 pixels in either direction, got {size}")
    if config.data is None and config.dataset in ("celeba", "cityscapes"):
        scene = tuple(_stored(config, "train")[0][0].shape)
        _stored(config, "test")
    else:
        train = _in_memory(config, 0)[0]
        scene = tuple(train.images.shape[1:])
    if scene[1] < size[0] or scene[2] < size[1]:
        raise ThroughlineError(f"a {size[0]} × {size[1]} sensor is finer than the {scene[1]} × {scene[2]} scenes")


def load(config: "Config", seed: int) -> Task:
    """The task of one seed, alike in every arm."""
    streamed = config.data is None and config.dataset in ("celeba", "cityscapes")
    return _streamed(config, seed) if streamed else _classification(config, seed)


def _in_memory(config: "Config", seed: int) -> tuple[Images, Images]:
    if config.data is not None:
        images = image_folder(config.data.path, size=_common_side(Path(config.data.path), config.scene))
    elif config.dataset == "mnist-full":
        return tuple(_full_mnist(config, part) for part in (True, False))  # type: ignore[return-value]
    else:
        images = {"digits": digits, "mnist": mnist}[config.dataset]()
    train, test = stratified_split(images.labels, seed, test=config.held_out)
    return tuple(Images(images.images[r], images.labels[r], images.classes) for r in (train, test))  # type: ignore[return-value]


def _common_side(root: Path, largest: int) -> int:
    """The side of the square that every image is cut and resized to: nothing is enlarged unless images differ."""
    from PIL import Image

    sides = []
    for file in root.glob("*/*"):
        try:
            with Image.open(file) as image:
                sides.append(min(image.size))
        except OSError:  # not an image, or a broken one: `image_folder` skips the former and names the latter
            continue
    return min([largest, *sides])


def _full_mnist(config: "Config", train: bool) -> Images:
    stored = _open("MNIST", config, train=train, download=True)
    return Images(stored.data[:, None].float() / 255, stored.targets.long(), tuple("0123456789"))


def _classification(config: "Config", seed: int) -> Task:
    train, test = _in_memory(config, seed)
    if config.data is None and config.dataset.startswith("mnist"):
        mean, deviation = 0.1307, 0.3081  # the authors'
    else:
        mean, deviation = train.images.mean().item(), train.images.std().item()
    scenes, mean_scene = test.images[:SHOWN], train.images.mean(0)
    x, x_test = (((part.images - mean) / deviation).to(config.device) for part in (train, test))
    y, y_test = (part.labels.to(config.device) for part in (train, test))
    size, channels, classes = sensor_size(config), x.shape[1], len(train.classes)

    def network() -> Network:
        pixels = size[0] * size[1] * channels
        linear = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
        return (linear if config.linear else _convolutional(channels, size, classes)).to(config.device)

    def batches(layout: SensorLayout) -> Iterator[tuple[Tensor, Tensor]]:
        learned = layout.raw.requires_grad
        readings = x if learned else _read(layout, x)  # a fixed sensor reads every scene once: the same numbers, faster
        draw = torch.Generator().manual_seed(seed)
        for _ in range(config.epochs):
            for rows in torch.split(torch.randperm(len(x), generator=draw), config.batch):
                yield layout(readings[rows]) if learned else readings[rows], y[rows]

    def measure(layout: SensorLayout, net: Network) -> dict[str, float]:
        with torch.no_grad():
            found = torch.cat([net(part).argmax(-1) for part in torch.split(_read(layout, x_test), CHUNK)])
        return {"accuracy": (found == y_test).double().mean().item()}

    def loss(_: SensorLayout, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)

    steps = -(-len(x) // config.batch)
    return Task(network, steps, batches, loss, measure, scenes, mean_scene)


@torch.no_grad()
def _read(layout: SensorLayout, images: Tensor) -> Tensor:
    return torch.cat([layout(part) for part in torch.split(images, CHUNK)])


def _convolutional(channels: int, size: tuple[int, int], classes: int) -> Network:
    """The network of the authors' MNIST script, padded so that it fits sensors of 4 × 4 pixels."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Dropout2d(0.25), nn.Flatten()),
        *(nn.Linear(64 * (size[0] // 2) * (size[1] // 2), 128), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(128, classes),
    )


def _open(name: str, config: "Config", **options: Any) -> Any:
    """One of torchvision's data sets below ``config.root``."""
    datasets = require("torchvision.datasets", extra="paper")
    if not config.root:
        raise ThroughlineError(f"{name} needs --set root=FOLDER, the folder that holds it or may receive it")
    try:
        return getattr(datasets, name)(config.root, **options)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{name} could not be read below {config.root}: {error}") from error


def _stored(config: "Config", part: str) -> Any:
    pixels = require("torchvision.transforms.functional", extra="paper").pil_to_tensor
    if config.dataset == "celeba":
        return _open("CelebA", config, split=part, target_type="attr", transform=pixels, download=True)
    split = {"train": "train", "test": "val"}[part]  # the test labels of Cityscapes are not public
    options = {"mode": "fine", "target_type": "semantic", "transform": pixels, "target_transform": pixels}
    return _open("Cityscapes", config, split=split, **options)


def _streamed(config: "Config", seed: int) -> Task:
    from torch.utils.data import DataLoader

    train, test = _stored(config, "train"), _stored(config, "test")
    size = sensor_size(config)
    segment = config.dataset == "cityscapes"
    shift, scale = PHOTOS.to(config.device)[:, :, None, None]
    codes = _train_ids(train.classes).to(config.device) if segment else None

    def prepared(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        x, y = (part.to(config.device) for part in batch)
        return (x / 255 - shift) / scale, (y.float() if codes is None else codes[y.long().squeeze(1)])

    def batches(layout: SensorLayout) -> Iterator[tuple[Tensor, Tensor]]:
        draw = torch.Generator().manual_seed(seed)
        loader = DataLoader(
            train,
            config.batch,
            shuffle=True,
            generator=draw,
            num_workers=config.workers,
            drop_last=len(train) >= config.batch,
        )
        for x, y in map(prepared, chain.from_iterable(loader for _ in range(config.epochs))):
            yield layout(x), y

    def network() -> Network:
        if not segment:
            return _convolutional(3, size, len(train.attr_names)).to(config.device)
        models = require("torchvision.models.segmentation", extra="paper")
        return _Dense(models.deeplabv3_resnet50(num_classes=19)).to(config.device)

    def loss(layout: SensorLayout, output: Tensor, target: Tensor) -> Tensor:
        if not segment:
            return F.binary_cross_entropy_with_logits(output, target)
        # on the regular grid, at the sensor's own resolution
        regular = F.interpolate(target[:, None].float(), size, mode="nearest-exact")[:, 0].long()
        return F.cross_entropy(layout.rectify(output, size), regular, ignore_index=255)

    @torch.no_grad()
    def measure(layout: SensorLayout, net: Network) -> dict[str, float]:
        right = count = 0.0
        confusion = torch.zeros(19 * 19, dtype=torch.long, device=config.device)
        for x, y in map(prepared, DataLoader(test, config.batch, num_workers=config.workers)):
            output = net(layout(x))
            if segment:
                found = layout.rectify(output, (y.shape[-2], y.shape[-1])).argmax(1)
                confusion += (y * 19 + found)[y != 255].bincount(minlength=19 * 19)
            else:
                right += ((output > 0) == y.bool()).sum().item()
                count += y.numel()
        if not segment:
            return {"accuracy": right / count}
        table = confusion.view(19, 19).double()
        union = table.sum(0) + table.sum(1) - table.diag()
        accuracy = table.diag().sum() / table.sum()
        return {"accuracy": accuracy.item(), "miou": (table.diag() / union)[union > 0].mean().item()}

    steps = len(train) // config.batch or 1
    shown = torch.stack([test[i][0] for i in range(min(SHOWN, len(test)))]).float() / 255
    return Task(network, steps, batches, loss, measure, shown, shown.mean(0))


class _Dense(nn.Module):
    """torchvision's segmentation models return a dictionary; this is its entry "out"."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.model(image)["out"]
        return output


def _train_ids(classes: Any) -> Tensor:
    """From the label ids of Cityscapes to the 19 classes that are evaluated, 255 for the rest."""
    codes = torch.full((256,), 255)
    for kind in classes:
        if kind.id >= 0 and 0 <= kind.train_id < 19:
            codes[kind.id] = kind.train_id
    return codes
