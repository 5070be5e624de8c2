"""Rows of `throughline.search.binary_path`."""

import math
from typing import Any

import torch
from tests.contract.part import COMPILER, Bad, Part
from torch import Generator, Tensor

from throughline.search.binary_path import hardware_loss, hardware_reward

STEPS = "takes steps on a model; tests/search/binary_path/test_searchers.py is about them"
NOT_PARTS = {
    "throughline.search.binary_path.BinaryPathSearcher": STEPS,
    "throughline.search.binary_path.LatencyTable": "a table of times, of a model's choices; test_latency.py",
    "throughline.search.binary_path.ReinforceSearcher": STEPS,
    "throughline.search.binary_path.binary_paths": "a context manager; its gradients are those of test_gate.py",
    "throughline.search.binary_path.measure_latency": "a clock",
    "throughline.search.binary_path.reinforce_loss": "takes a model and names of options; test_objective.py",
}


def numbers(g: Generator) -> tuple[Tensor, Tensor]:
    """A loss, or an accuracy, and a latency above 1."""
    first, second = torch.rand(2, generator=g, dtype=torch.float64)
    return first, 2 + 20 * second


def by_hand(loss: Tensor, e: Tensor) -> Tensor:
    return 0.2 * loss * tensor((math.log(e) / math.log(7.0)) ** 0.3)


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def bad(name: str, values: tuple[Any, ...], what: str, **options: Any) -> tuple[Bad, ...]:
    return tuple(Bad(ValueError, f"{name} must be {what}, got {v}", **{name: v}, **options) for v in values)


WHOLE, ONE = torch.tensor(3), tensor(1.0)
REFERENCE = bad("reference", (0.0, -1.0, math.inf, math.nan), "positive and finite")
LOSS = (
    *REFERENCE,
    Bad(ValueError, r"form must be 'linear' or 'log', got 'cube'", form="cube"),
    Bad(TypeError, r"task_loss must be floating point, got torch.int64", WHOLE, ONE),
    Bad(TypeError, r"expected must be floating point, got torch.int64", ONE, WHOLE),
)
SAME = {"single": lambda: (tensor(0.5), tensor(3.0))}

PARTS = [
    Part(
        hardware_loss,
        numbers,
        {"reference": 7.0},
        variant="linear",
        batched=(0, 1),
        reference=lambda loss, e: loss + 0.1 * (e - 7) / 7,
        edges=SAME,
        backend=COMPILER,
        bad=(*LOSS, *bad("strength", (-0.1, math.inf, math.nan), "finite and not negative")),
    ),
    Part(
        hardware_loss,
        numbers,
        {"reference": 7.0, "form": "log"},
        variant="log",
        batched=(0, 1),
        stretched=(0,),
        reference=by_hand,
        edges=SAME,
        bad=(
            *LOSS,
            *bad("scale", (0.0, math.inf, math.nan), "positive and finite"),
            *bad("exponent", (0.0, math.inf), "positive and finite"),
            *bad("reference", (1.0, 0.5), "above 1 for its logarithm"),
            Bad(ValueError, r"expected must be above 1 for its logarithm, got 1\.0", ONE, ONE),
        ),
    ),
    Part(
        hardware_reward,
        numbers,
        {"reference": 7.0},
        batched=(0, 1),
        stretched=(0,),
        reference=lambda accuracy, latency: accuracy * (7 / latency) ** 0.07,
        edges=SAME,
        bad=(
            *REFERENCE,
            *bad("exponent", (0.1, -math.inf, math.nan), "finite and not positive"),
            Bad(ValueError, r"latency must be positive, got 0\.0", ONE, tensor(0.0)),
            Bad(TypeError, r"latency must be floating point, got torch.int64", ONE, WHOLE),
            Bad(TypeError, r"accuracy must be a tensor, got str", "0.9", ONE),
        ),
    ),
]
