"""Image files behind a backbone: their folders are the classes, and features keep the order and labels."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tests.claims.stand_ins import colour_folder
from torch import Tensor, nn

from throughline.claims.shared.backbones import ImageFiles, features, labelled_files
from throughline.data import Source


def mean_of(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).float().mean((0, 1)) / 255


def test_labels_are_the_folders_and_loose_images_have_none(tmp_path: Path) -> None:
    source = colour_folder(tmp_path, count=3)
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    files, labels, names = labelled_files(Source(source.path))
    assert names == ("green", "red")
    assert [file.parent.name for file in files] == [names[label] for label in labels]
    assert len(files) == 6


def test_features_are_those_of_every_file_in_order(tmp_path: Path) -> None:
    files, labels, _ = labelled_files(colour_folder(tmp_path, count=3))
    found, of = features(nn.Identity(), ImageFiles(files, mean_of, labels.tolist()), "cpu")
    torch.testing.assert_close(found, torch.stack([mean_of(Image.open(file)) for file in files]))
    assert of.tolist() == labels.tolist()
    assert features(nn.Identity(), ImageFiles(files, mean_of), "cpu")[1].tolist() == [-1] * 6
