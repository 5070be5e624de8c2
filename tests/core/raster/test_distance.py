"""The distance transform against SciPy's."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from throughline.core.raster import distance_transform


def scipys(mask: Tensor) -> Tensor:
    return torch.from_numpy(distance_transform_edt(~mask.numpy())).float()


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.02, 1.0), st.integers(0, 2**16))
def test_is_scipys(height: int, width: int, share: float, seed: int) -> None:
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    expected = scipys(mask) if mask.any() else torch.full((height, width), float(max(height, width)))
    torch.testing.assert_close(distance_transform(mask), expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("size", [(70, 300), (300, 70), (129, 129)])
def test_large_images_go_in_blocks(size: tuple[int, int]) -> None:
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) < 3e-4
    assert mask.any()
    torch.testing.assert_close(distance_transform(mask), scipys(mask), rtol=3e-7, atol=0)


def test_is_right_where_squares_pass_what_single_precision_counts() -> None:
    mask = torch.zeros(2, 6000, dtype=torch.bool)
    mask[1, 0] = True
    found = distance_transform(mask)
    assert found[0, 5999].item() == torch.tensor((5999**2 + 1) ** 0.5).item()
    torch.testing.assert_close(found, scipys(mask), rtol=3e-7, atol=0)


def test_each_mask_of_a_batch_alone_also_an_empty_one() -> None:
    mask = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)) < 0.1
    mask[1, 2] = False
    mask[0, 0] = True
    found = distance_transform(mask)
    assert torch.equal(found[1, 2], torch.full((5, 7), 7.0))
    assert not found[0, 0].any()
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], distance_transform(mask[i, j]), rtol=0, atol=0)
    assert distance_transform(mask[:0]).shape == (0, 3, 5, 7)
    assert distance_transform(mask[..., :0]).shape == (2, 3, 5, 0)


def test_a_mask_is_boolean() -> None:
    with pytest.raises(TypeError, match=r"mask must be boolean, got torch\.uint8: mask != 0 makes it so"):
        distance_transform(torch.ones(3, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"mask must be \(\.\.\., H, W\), got shape \(3,\)"):
        distance_transform(torch.ones(3, dtype=torch.bool))
