"""Argument checks: silent on what is wanted, one line on all else."""

import numpy as np
import pytest
import torch

from throughline.core.checks import check_floating, check_tensor


@pytest.mark.parametrize("check", [check_tensor, check_floating])
def test_tensors_pass(check: object) -> None:
    check("x", torch.zeros(0, dtype=torch.bfloat16))  # type: ignore[operator]
    check("x", torch.nn.Parameter(torch.ones(2)))  # type: ignore[operator]
    torch.func.vmap(lambda x: check("x", x) or x)(torch.ones(2))  # type: ignore[operator]
    check_tensor("x", torch.arange(2))


@pytest.mark.parametrize("check", [check_tensor, check_floating])
@pytest.mark.parametrize(
    ("value", "kind"), [([1.0], "list"), (np.ones(2), "ndarray"), (1.0, "float"), (None, "NoneType")]
)
def test_others_are_named(check: object, value: object, kind: str) -> None:
    with pytest.raises(TypeError, match=f"^x must be a tensor, got {kind}$"):
        check("x", value)  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_floating_point_is_wanted(dtype: torch.dtype) -> None:
    with pytest.raises(TypeError, match=f"^x must be floating point, got {dtype}$"):
        check_floating("x", torch.ones(1, dtype=dtype))
