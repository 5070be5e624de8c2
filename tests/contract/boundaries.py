"""Boundaries: what is refused, and what a batch of none and inputs of other libraries give."""

import re
from typing import Any

import numpy as np
from tests.contract.part import Arguments, Part
from tests.contract.tensors import same, tensors
from torch import Tensor


def check_errors(part: Part) -> None:
    """What is promised to be refused is refused, naming the argument."""
    assert part.bad, "nothing is promised to be refused"
    for number, bad in enumerate(part.bad):
        try:
            made = part.build(**bad.options)
            result = bad.do(made) if bad.do else part.run(made, *(bad.args or part.draw()))
        except Exception as error:
            if type(error) is bad.error and re.search(bad.match, str(error)):
                continue
            raise AssertionError(f"bad[{number}]: wanted {bad.error.__name__} {bad.match!r}") from error
        raise AssertionError(f"bad[{number}]: wanted {bad.error.__name__} {bad.match!r}, got the result {result}")


def check_empty(part: Part) -> None:
    """A batch of none gives none in the right shape, or an error that names an argument; a number of it is 0."""
    args = part.draw()
    expected = tensors(part.run(part.build(), *args))
    try:
        results = tensors(part.run(part.build(), *none(part, args)))
    except (TypeError, ValueError) as error:
        if any(re.search(rf"\b{name}\b", str(error)) for name in part.names(args)):
            return
        raise AssertionError("the error names no argument") from error
    for got, want in zip(results, expected, strict=True):
        if part.empty is not None:
            assert got.numel() == 0, f"a batch of none gives {got}"
        elif part.batched or want.ndim:
            shape = (0, *(want.shape if part.batched else want.shape[1:]))
            assert got.shape == shape, f"a batch of none gives shape {tuple(got.shape)}, not {shape}"
        else:
            assert got == 0, f"a batch of none gives {got}"


def check_foreign(part: Part) -> None:
    """A list or an array in place of a tensor is refused by name, or gives the same where the row says so."""
    args = part.draw()
    assert tensors(args), "no argument is a tensor"
    for i, name in enumerate(part.names(args)):
        if not isinstance(args[i], Tensor):
            continue
        for stranger in (args[i].tolist(), args[i].numpy()):
            if isinstance(stranger, list | np.ndarray):  # a number stands for a tensor of one
                # a list may be meant as a tree of tensors, and then its numbers are refused
                kind = "(list|float|int|bool)" if isinstance(stranger, list) else "ndarray"
                given = (*args[:i], stranger, *args[i + 1 :])
                if i in part.foreign:
                    agrees(part.run(part.build(), *given), part.run(part.build(), *args), part)
                else:
                    refuses(part, given, rf"\b{name}\b.*\b{kind}\b")


def none(part: Part, args: Arguments) -> Arguments:
    """The arguments of a call, for a batch of none: in front, else in the first dimension."""
    if part.empty is not None:
        return part.empty()
    if part.batched:
        return tuple(a.new_zeros(0, *a.shape) if i in part.batched else a for i, a in enumerate(args))
    sizes = [len(a) for a in args if isinstance(a, Tensor) and a.ndim]
    assert sizes, "no argument has a batch"
    return tuple(a[:0] if isinstance(a, Tensor) and a.ndim and len(a) == sizes[0] else a for a in args)


def agrees(result: Any, expected: Any, part: Part) -> None:
    got, want = ([leaf.double() for leaf in tensors(tree)] for tree in (result, expected))
    same(got, want, rtol=part.tolerance[0], atol=part.tolerance[0])


def refuses(part: Part, args: Arguments, pattern: str) -> None:
    try:
        result = part.run(part.build(), *args)
    except TypeError as error:
        if re.search(pattern, str(error)):
            return
        raise AssertionError(f"wanted TypeError {pattern!r}") from error
    except Exception as error:
        raise AssertionError(f"wanted TypeError {pattern!r}") from error
    raise AssertionError(f"wanted TypeError {pattern!r}, got the result {result}")
