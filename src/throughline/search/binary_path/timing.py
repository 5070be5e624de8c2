"""How long a module takes on the machine at hand (arXiv 1812.00332, section 3.3)."""

import statistics
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from throughline.core.checks import integer

__all__ = ["check_counts", "evaluating", "fingerprint", "measure_latency", "median_ms"]


def measure_latency(
    module: nn.Module, inputs: Tensor | tuple[Any, ...], *, warmup: int = 10, repeats: int = 50
) -> float:
    """The median time of a call in milliseconds: evaluation mode, no gradients, a GPU waited for.

    Times vary with what else the machine does: to compare modules, measure them in turns.

    Args:
        module: any; the modes of all its modules are as before afterwards.
        inputs: the argument of the call, or a tuple of several, on the device of the module.
        warmup: calls that are not counted, at least 0.
        repeats: calls that are, at least 1.

    Raises:
        TypeError: ``module`` is no module, or a count is no integer.
        ValueError: a count is out of range.

    >>> measure_latency(nn.Linear(8, 8), torch.randn(1, 8), warmup=1, repeats=5) > 0
    True
    """
    check_counts(warmup, repeats)
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    args = inputs if isinstance(inputs, tuple) else (inputs,)
    with evaluating(module):
        return median_ms(lambda: module(*args), tree_leaves(args), warmup, repeats)


def median_ms(call: Callable[[], object], inputs: list[Any], warmup: int, repeats: int) -> float:
    """The median over ``repeats`` calls, after ``warmup`` more."""
    devices = {leaf.device for leaf in inputs if isinstance(leaf, Tensor) and leaf.device.type != "cpu"}

    def wait() -> None:
        for device in devices:
            torch.accelerator.synchronize(device)

    seconds = []
    for turn in range(warmup + repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        if turn >= warmup:
            seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every module gets back the mode that it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


def fingerprint(module: nn.Module) -> Hashable:
    """What the time of a call depends on beside its inputs: equal for modules of one structure, whatever their weights.

    Attributes of an unknown kind make a module unlike every other.
    """
    parts: list[Hashable] = []
    for name, part in module.named_modules(remove_duplicate=False):
        tensors = {**part._parameters, **part._buffers}
        shapes = tuple((n, None if t is None else (tuple(t.shape), t.dtype, t.device)) for n, t in tensors.items())
        own = {k: v for k, v in vars(part).items() if not (k.startswith("_") or k == "training")}
        parts.append((name, type(part), shapes, tuple(sorted((k, _hashable(v)) for k, v in own.items()))))
    return tuple(parts)


def _hashable(value: object) -> str:
    plain = (bool, int, float, str, type(None), torch.dtype)
    if isinstance(value, plain):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"({', '.join(map(_hashable, value))})"
    return f"{type(value).__name__} at {id(value)}"


def check_counts(warmup: int, repeats: int) -> None:
    for name, count, least in (("warmup", warmup, 0), ("repeats", repeats, 1)):
        if integer(name, count) < least:
            raise ValueError(f"{name} must be at least {least}, got {count}")
