"""torchvision's data sets: where they lie, what they hold, and what is said where they are not."""

import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from throughline.claims.shared.datasets import halves, pictures, superclasses, torchvision_set
from throughline.data import DataError


def test_a_set_lies_below_the_root_or_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(root: str, **options: Any) -> Any:
        raise RuntimeError("Dataset not found or corrupted")

    module = ModuleType("torchvision.datasets")
    vars(module).update(MNIST=lambda root, **options: (root, options), Broken=broken)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    assert torchvision_set("MNIST", "here", train=True) == ("here", {"train": True})
    assert torchvision_set("MNIST")[0] == str(tmp_path / "throughline" / "torchvision")
    with pytest.raises(DataError, match=r"^Broken could not be read below here: Dataset not found or corrupted$"):
        torchvision_set("Broken", "here")


def test_pictures_are_batches_of_channels_in_the_unit_interval() -> None:
    grey = SimpleNamespace(data=torch.tensor([[[0, 255]]]).byte(), targets=torch.tensor([3]))
    x, y = pictures(grey)
    assert x.tolist() == [[[[0, 1]]]]
    assert y.tolist() == [3]
    colour = SimpleNamespace(data=np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3), targets=[7])
    x, y = pictures(colour)
    assert x.shape == (1, 3, 2, 4)
    torch.testing.assert_close(x[0, :, 1, 2], torch.tensor([18, 19, 20]) / 255)
    assert y.tolist() == [7]


def test_halves_are_training_and_test_part(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torchvision.datasets")
    vars(module).update(MNIST=lambda root, **options: (root, options))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    train, test = halves("MNIST", "here", transform=abs)
    assert train == ("here", {"train": True, "download": True, "transform": abs})
    assert test == ("here", {"train": False, "download": True, "transform": abs})


def test_superclasses_are_read_from_the_file_of_the_half(tmp_path: Path) -> None:
    (tmp_path / "cifar").mkdir()
    for half, labels in (("train", [4, 19, 0]), ("test", [7])):
        (tmp_path / "cifar" / half).write_bytes(pickle.dumps({"coarse_labels": labels}))
    stored = SimpleNamespace(root=str(tmp_path), base_folder="cifar")
    assert superclasses(stored, "train").tolist() == [4, 19, 0]
    assert superclasses(stored, "test").tolist() == [7]
