"""Codes of quantised tensors: symbols and values."""

import pytest
import torch
from tests.discrete.quantization.draws import random, seeded
from torch import Tensor

from throughline.discrete.quantization import (
    nonuniform_quantize,
    uniform_quantize,
)
from throughline.discrete.quantization.buckets import encode


@pytest.mark.parametrize("number", [*range(2, 18), 31, 32, 33, 1000])
def test_points_are_found_as_torch_finds_them(number: int) -> None:
    """Ties and points that coincide too."""
    points = (torch.rand(number, generator=seeded(number)) * 40).round() / 40
    weight = torch.cat([torch.linspace(0, 1, 81), torch.rand(500, generator=seeded(1))])  # scaled already
    middle = points.sort().values.unfold(0, 2, 1).mean(1)
    expected = torch.bucketize(weight, middle, right=True)
    assert torch.equal(encode(weight, points, None).symbols.long(), expected)


@pytest.mark.parametrize("grid", [4, 1000, torch.tensor([0.7, 0.1, 0.2])])
@pytest.mark.parametrize("size", [7, 256, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_codes_give_the_same_values_bit_for_bit(grid: int | Tensor, size: int | None, dtype: torch.dtype) -> None:
    weight = random(1000).to(dtype)
    quantized = (
        uniform_quantize(weight, grid, bucket_size=size)
        if isinstance(grid, int)
        else nonuniform_quantize(weight, grid, bucket_size=size)
    )
    assert torch.equal(encode(weight, grid, size).values().to(dtype), quantized)
