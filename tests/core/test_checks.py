"""Argument checks: silent on what is wanted, one line on all else."""

import numpy as np
import pytest
import torch

from throughline.core.checks import check_floating, check_tensor, integer, readable


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


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_python_and_numpy(value: object) -> None:
    assert type(integer("bits", value)) is int
    assert integer("bits", value) == 3


@pytest.mark.parametrize("value", [1.5, 2.0, np.float64(2.0), "2", None])
def test_what_is_no_integer_is_named(value: object) -> None:
    with pytest.raises(TypeError, match=r"^bits must be an integer, got (1\.5|2\.0|np\.float64\(2\.0\)|'2'|None)$"):
        integer("bits", value)
    with pytest.raises(TypeError, match=r"^size must be an integer, or None, got "):
        integer("size", value, "an integer, or None")


def test_values_are_read_where_there_are_any() -> None:
    seen = []

    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append(readable(x))
        return x.sum()

    look(torch.ones(2))
    torch.func.vmap(look)(torch.ones(2))
    torch.func.grad(look)(torch.ones(2))
    torch.compile(look, backend="eager")(torch.ones(2))
    look(torch.ones(2, device="meta"))
    assert seen == [True, False, False, False, False]
