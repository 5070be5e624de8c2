"""Numbers: they agree with arithmetic from elsewhere and with finite differences, whatever the input and precision."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tests.contract.part import Arguments, Part
from tests.contract.tensors import (
    cast,
    floating,
    gradients,
    is_floating,
    needs_gradient,
    parameters,
    same,
    tensors,
    to_dtype,
    with_gradient,
)
from torch import Tensor
from torch.utils._pytree import tree_leaves

LARGE, TINY = 1e8, 1e-30
EXACT = 1e-5  # of float32 that no bfloat16 has touched


def check_reference(part: Part) -> None:
    """Agrees with arithmetic from elsewhere."""
    assert part.reference is not None
    for seed in range(3):
        args = part.draw(seed)
        same(part.run(part.build(), *args), part.reference(*args), rtol=1e-9, atol=1e-9)


def check_gradcheck(part: Part) -> None:
    """Derivatives are those of finite differences in float64, by every floating point argument and parameter."""
    made = part.build()
    args = with_gradient(part.draw(), part)
    leaves = (*(a for a in args if needs_gradient(a)), *parameters(made))
    # the leaves are the very tensors that the call reads, so gradcheck's perturbations of them in place reach it
    torch.autograd.gradcheck(lambda *_: tuple(floating(part.run(made, *args))), leaves)


def check_extremes(part: Part) -> None:
    """Large, tiny, tied, zero and single inputs give finite values and gradients, in float64 and float32."""
    for dtype in (torch.float64, torch.float32):
        for label, args in extremes(part):
            made = to_dtype(part, part.build(), dtype)
            args = with_gradient(cast(args, dtype), part)
            results = floating(part.run(made, *args))
            where = f"{label} input in {dtype}"
            assert all(r.isfinite().all() for r in results), f"{where}: {results}"
            for gradient in gradients(results, (*args, *parameters(made))):
                assert gradient.isfinite().all(), f"{where}: gradient {gradient}"


def check_dtype(part: Part) -> None:
    """Results have the dtype of the input, whatever the default dtype is, and are close to those of float64."""
    for dtype, other in (
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
        (torch.bfloat16, torch.float32),
    ):
        args = cast(part.draw(), dtype)
        made = to_dtype(part, part.build(), dtype)
        with default_dtype(other):
            result = part.run(made, *args)
        assert floating(result), "no result is floating point"
        expected = part.run(to_dtype(part, made, torch.float64), *cast(args, torch.float64))
        tolerance = {torch.float64: 1e-9, torch.float32: part.tolerance[0], torch.bfloat16: part.tolerance[1]}[dtype]
        for got, want in zip(floating(result), floating(expected), strict=True):
            assert got.dtype == torch.promote_types(dtype, part.shortest), f"{dtype} in, {got.dtype} out"
            same(got.double(), want, rtol=tolerance, atol=tolerance)


def check_autocast(part: Part) -> None:
    """Inside autocast the values and dtype are those without it; what is `mixed` may follow in bfloat16."""
    args = cast(part.draw(), torch.float32)
    expected = floating(part.run(to_dtype(part, part.build(), torch.float32), *args))
    made = to_dtype(part, part.build(), torch.float32)
    if not part.is_estimator:
        args = with_gradient(args, part)
    with torch.autocast("cpu", torch.bfloat16):
        results = floating(part.run(made, *args))
    assert results, "no result is floating point"
    tolerance = part.tolerance[1] if part.mixed else EXACT
    for got, want in zip(results, expected, strict=True):
        allowed = {want.dtype, torch.bfloat16} if part.mixed else {want.dtype}
        assert got.dtype in allowed, f"{want.dtype} became {got.dtype} under autocast"
        same(got.double(), want.double(), rtol=tolerance, atol=tolerance)
    for gradient in gradients(results, (*args, *parameters(made))):
        assert gradient.isfinite().all(), f"gradient {gradient}"


def check_nan(part: Part) -> None:
    """A NaN makes NaN of all that depends on it, or an error that names it; never a number that looks right."""
    args = part.draw()
    expected = tensors(part.run(part.build(), *args))
    reached = False
    for i, name in enumerate(part.names(args)):
        if not is_floating(args[i]) or not args[i].numel():
            continue
        for entry in dict.fromkeys(n % args[i].numel() for n in (args[i].numel() // 2, 0, 1, -1)):
            changed = dependent(part, args, i, entry, expected)
            if any(c.any() for c in changed):
                reached = True
                break
        try:
            results = tensors(part.run(part.build(), *spoilt(args, i, entry, torch.nan)))
        except Exception as error:
            if not promised(part, error, name):
                raise
            reached = True
            continue
        for leaf, hit in zip(results, changed, strict=True):
            if hit.any():
                got = leaf[hit] if leaf.shape == hit.shape else leaf
                assert is_floating(got), f"{name} is NaN in one entry and gives {got}"
                assert got.isnan().all(), f"{name} is NaN in one entry and gives {got}"
    assert reached, "no result depends on an entry of a floating point argument"


def check_device(part: Part) -> None:
    """Nothing is created on another device than the input's: here the default device is one that cannot compute."""
    args = part.draw()
    expected = part.run(part.build(), *args)
    made = part.build()
    with torch.device("meta"):
        result = part.run(made, *args)
    same(result, expected)
    if torch.cuda.is_available():
        made = part.build().to("cuda") if part.is_module else part.build()
        result = part.run(made, *(a.to("cuda") if isinstance(a, Tensor) else a for a in args))
        assert all(leaf.is_cuda for leaf in tree_leaves(result))
        same([leaf.cpu() for leaf in tree_leaves(result)], tree_leaves(expected), rtol=1e-9, atol=1e-9)


def dependent(part: Part, args: Arguments, i: int, entry: int, expected: list[Tensor]) -> list[Tensor]:
    """Which entries of the results move with one entry of argument ``i``."""
    flat = args[i].flatten()
    others = (part.draw(1)[i].flatten()[entry], (flat[entry] + 1.1 * flat[entry - 1]) / 2.1, 10 * flat.abs().max() + 1)
    changed = [torch.zeros_like(leaf, dtype=torch.bool) for leaf in expected]
    for other in others:
        try:
            results = tensors(part.run(part.build(), *spoilt(args, i, entry, float(other))))
        except (ValueError, Warning):  # of a value that this argument cannot take
            continue
        for hit, leaf, before in zip(changed, results, expected, strict=True):
            hit |= leaf != before if leaf.shape == before.shape else True
    return changed


def spoilt(args: Arguments, i: int, entry: int, value: float) -> Arguments:
    """The arguments, with another value in one entry of the one at ``i``."""
    other = args[i].clone(memory_format=torch.contiguous_format)
    other.view(-1)[entry] = value
    return (*args[:i], other, *args[i + 1 :])


def promised(part: Part, error: Exception, name: str) -> bool:
    """Whether an error names the argument, or is one that the row promises."""
    named = isinstance(error, ValueError) and re.search(rf"\b{name}\b", str(error))
    return bool(named) or any(type(error) is bad.error and re.search(bad.match, str(error)) for bad in part.bad)


def extremes(part: Part) -> Iterator[tuple[str, Arguments]]:
    sample = part.draw()
    at = part.stretched if part.stretched is not None else [i for i, a in enumerate(sample) if is_floating(a)]
    derived = {
        "large": lambda x: x * LARGE,
        "tiny": lambda x: x * TINY,
        "zero": torch.zeros_like,
        "tied": lambda x: torch.full_like(x, x.flatten()[0].item()),
    }
    if at:
        for label, change in derived.items():
            yield label, tuple(change(a) if i in at else a for i, a in enumerate(sample))
    if "single" not in part.edges:
        yield "single", tuple(a[(slice(1),) * a.ndim] if isinstance(a, Tensor) else a for a in sample)
    for label, args in part.edges.items():
        yield label, args()


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
