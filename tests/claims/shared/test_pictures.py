"""Small pictures: the weights of the luma, sides, and whose pictures are read at which size."""

from pathlib import Path

import pytest
import torch
from tests.claims.stand_ins import colour_folder

from throughline.claims.shared.pictures import grey, labelled_images, resized
from throughline.data import Source, digits


def test_grey_is_the_luma() -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = grey(x)
    assert found.shape == (2, 1, 8, 8)
    assert found.mean().item() == pytest.approx((x.mean((0, 2, 3)) @ torch.tensor([0.299, 0.587, 0.114])).item())
    assert torch.equal(grey(x[0]), found[0])


def test_smaller_pictures_are_means() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert resized(x, 4).mean().item() == pytest.approx(x.mean().item())
    assert resized(x, 4).shape == (1, 1, 4, 4)


def test_own_pictures_come_before_the_built_in_ones(tmp_path: Path) -> None:
    assert torch.equal(labelled_images(None, "digits").images, digits().images)
    source = colour_folder(tmp_path, count=3, side=12)
    plain = Source(source.path)
    assert labelled_images(plain, "digits").images.shape == (6, 3, 12, 12)
    assert labelled_images(plain, "digits", size=20).images.shape == (6, 3, 20, 20)
    assert labelled_images(Source(source.path, size=8), "digits", size=20).images.shape == (6, 3, 8, 8)
