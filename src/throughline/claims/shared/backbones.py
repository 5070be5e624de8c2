"""Pretrained image encoders by name, for claims about what happens behind one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from throughline.data import Source, image_files
from throughline.lab import require

__all__ = ["ImageFiles", "centre_crop", "features", "headless", "labelled_files", "pretrained"]

CHANNEL_MEAN, CHANNEL_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the backbones were trained
HEADS = ("fc", "classifier", "heads", "head")  # where torchvision's models keep their last layer


def headless(name: str) -> nn.Module:
    """A pretrained backbone without its last layer, frozen, in evaluation mode: timm's, or "torchvision:<model>"."""
    source, colon, model_name = name.partition(":")
    model: nn.Module
    if colon and source == "torchvision":
        model = require("torchvision.models", extra="paper").get_model(model_name, weights="DEFAULT")
        head = next(head for head in HEADS if hasattr(model, head))
        setattr(model, head, nn.Identity())
    else:
        model = require("timm", extra="paper").create_model(name, pretrained=True, num_classes=0)
    return model.eval().requires_grad_(False)


def pretrained(name: str) -> tuple[nn.Module, Callable[[Any], Tensor]]:
    """A frozen encoder to features ``(n, m)``, and what makes its input of a PIL image.

    Args:
        name: "torchvision:<model>", "transformers:<repository>", or a timm model.
    """
    source, colon, model_name = name.partition(":")
    if colon and source == "transformers":
        transformers = require("transformers", extra="paper")
        processor = transformers.AutoImageProcessor.from_pretrained(model_name)
        pooled = _Pooled(transformers.AutoModel.from_pretrained(model_name))
        return pooled.eval().requires_grad_(False), lambda image: processor(image, return_tensors="pt").pixel_values[0]
    model = headless(name)
    if colon:
        weights = require("torchvision.models", extra="paper").get_model_weights(model_name)
        return model, weights.DEFAULT.transforms()
    data = require("timm.data", extra="paper")
    return model, data.create_transform(**data.resolve_model_data_config(model))


def centre_crop(resize: int, size: int) -> Any:
    """torchvision's transform of a PIL image for evaluation: resized, the middle cut out, ImageNet's moments."""
    transforms = require("torchvision.transforms", extra="paper")
    return transforms.Compose(
        [
            transforms.Resize(resize),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(CHANNEL_MEAN, CHANNEL_STD),
        ]
    )


@torch.no_grad()
def features(encoder: nn.Module, pictures: Any, device: str) -> tuple[Tensor, Tensor]:
    """Features ``(n, m)`` and labels of a data set of (image, label), through an encoder on ``device``."""
    batches = torch.utils.data.DataLoader(pictures, batch_size=256)
    found = [(encoder(images.to(device)).flatten(1).float().cpu(), labels) for images, labels in batches]
    encoded, labels = (torch.cat(column) for column in zip(*found, strict=True))
    return encoded, labels


class ImageFiles(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Image files through a transform, with a label each; without ``labels`` all are -1."""

    def __init__(self, files: list[Path], transform: Callable[[Any], Tensor], labels: Sequence[int] = ()) -> None:
        self.files, self.transform, self.labels = files, transform, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        from PIL import Image

        with Image.open(self.files[i]) as image:
            return self.transform(image.convert("RGB")), int(self.labels[i]) if len(self.labels) else -1


def labelled_files(source: Source) -> tuple[list[Path], NDArray[np.int64], tuple[str, ...]]:
    """The images in the class folders of an image folder, their class numbers, and the names of those folders."""
    root = Path(source.path)
    files = [file for file in image_files(root) if file.parent != root]
    names, labels = np.unique([file.relative_to(root).parts[0] for file in files], return_inverse=True)
    return files, labels, tuple(map(str, names))


class _Pooled(nn.Module):
    """One vector for an image from a model of transformers: the image side of CLIP and its like, else a mean."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        if hasattr(self.model, "get_image_features"):
            found = self.model.get_image_features(pixel_values=pixels)
            features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
            return features
        hidden: Tensor = self.model(pixel_values=pixels).last_hidden_state
        return hidden.mean(1) if hidden.dim() == 3 else hidden.flatten(2).mean(2)  # tokens, or a map of channels
