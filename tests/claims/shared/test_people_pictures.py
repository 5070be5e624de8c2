"""Pictures, keypoints and cameras of people change size together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from throughline.claims.shared.people_pictures import resized_person
from throughline.core.camera import Camera
from throughline.data import Person


@pytest.mark.parametrize("size", [12, 24, 48])
def test_sizes_change_together(tmp_path: Path, size: int) -> None:
    side, at = 24, (7, 16)  # row and column of a block of four pixels
    picture, labels = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
    picture[at[0] : at[0] + 4, at[1] : at[1] + 4] = (200, 100, 40)
    labels[at[0] : at[0] + 4, at[1] : at[1] + 4] = 13
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(labels).save(tmp_path / "a_parsing.png")
    keypoints = np.tile([at[1] + 1.5, at[0] + 1.5, 0.25], (24, 1))  # the block's middle
    K = np.array([[30.0, 0, 11.5], [0, 30, 11.5], [0, 0, 1]])
    person = Person("a", tmp_path / "a.png", tmp_path / "a_parsing.png", keypoints, K, None, None)
    image, parsing, found, camera = resized_person(person, size)
    assert image.shape == (3, size, size)
    assert image.dtype == parsing.dtype == torch.uint8
    weight = image[0].double()
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    middle = torch.stack([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    torch.testing.assert_close(found[0, :2].double(), middle, rtol=0, atol=1e-2)
    assert (found[:, 2] == 0.25).all()
    weight = (parsing == 13).double()
    middle = torch.stack([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()
    torch.testing.assert_close(found[0, :2].double(), middle, rtol=0, atol=0.51)
    assert camera is not None
    whole = Camera(torch.from_numpy(K), torch.eye(3), torch.zeros(3), (side, side)).resize((size, size))
    torch.testing.assert_close(camera, whole.K.float())
    assert resized_person(person._replace(K=None), size)[3] is None
