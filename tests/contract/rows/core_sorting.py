"""Rows of `throughline.core.sorting`."""

import functools
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import cauchy, norm
from tests.contract.part import COMPILER, Bad, Part, normal
from torch import Tensor

from throughline.core.sorting import (
    Distribution,
    Network,
    RelaxedSort,
    order_probability,
    relaxed_sort,
    sorting_network,
)

NOT_PARTS = {
    "throughline.core.sorting.Distribution": "type alias: the names of the relaxations",
    "throughline.core.sorting.check_relaxation": "argument checks: the bad inputs of all that sorts go through it",
    "throughline.core.sorting.Network": "type alias: the names of the networks",
}

# f of v = β (b - a), each from elsewhere or from the table of the paper
ORDER: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "cauchy": cauchy.cdf,
    "reciprocal": lambda v: (1 + v / (2 + np.abs(v))) / 2,
    "optimal": lambda v: np.where(
        np.abs(v) <= 0.25, v + 0.5, np.where(v > 0, 1, 0) - 1 / (16 * np.where(np.abs(v) > 0.25, v, 1))
    ),
    "logistic": expit,
    "gaussian": norm.cdf,
    "logistic_phi": lambda v: expit(v / (np.abs(v / STEEPNESS) + 1e-10) ** 0.25),
}
STEEPNESS = 3.0


def probability(distribution: str, difference: Tensor) -> Tensor:
    return torch.as_tensor(ORDER[distribution](STEEPNESS * difference.numpy()))


def slow_sort(x: Tensor, distribution: str, network: Network) -> tuple[Tensor, Tensor]:
    """Sorted values and P of one problem, comparator by comparator with dense mixing matrices."""
    matrix = torch.eye(len(x), dtype=x.dtype)
    for layer in sorting_network(len(x), network):
        for low, high in layer:
            wires = matrix @ x
            alpha = probability(distribution, wires[high] - wires[low])
            mix = torch.eye(len(x), dtype=x.dtype)
            mix[low, low] = mix[high, high] = alpha
            mix[low, high] = mix[high, low] = 1 - alpha
            matrix = mix @ matrix
    return matrix @ x, matrix


SORT_BAD = (
    Bad(ValueError, r"steepness must be positive and finite, got 0", steepness=0),
    Bad(ValueError, r"distribution must be one of cauchy, .* got 'normal'", distribution="normal"),
    Bad(ValueError, r"art_lambda must lie in \[0, 1\), got 1\.5", art_lambda=1.5),
)
NETWORK_BAD = (
    Bad(TypeError, r"input must be floating point, got torch.int64", torch.arange(4)),
    Bad(ValueError, r"input must have shape \(\.\.\., n\) with n >= 1, got \(3, 0\)", torch.zeros(3, 0)),
    Bad(ValueError, r"network must be one of odd_even, bitonic, got 'bubble'", network="bubble"),
    *SORT_BAD,
)
SIZE = {"odd_even": 4, "bitonic": 3}  # small, for the compiler's sake; 3 leaves comparators out
INFINITE = {"infinite": lambda: (torch.tensor([torch.inf, 0.0, -torch.inf, 1.0], dtype=torch.float64),)}
SORTING = [
    *(
        Part(
            order_probability,
            lambda g: (normal(g, 5),),
            {"steepness": STEEPNESS, "distribution": distribution},
            variant=distribution,
            batched=(0,),
            edges=INFINITE,
            reference=functools.partial(probability, distribution),
            backend=COMPILER if distribution == "cauchy" else "aot_eager",
            bad=(*SORT_BAD, Bad(TypeError, r"difference must be floating point, got torch.int64", torch.arange(4))),
        )
        for distribution in get_args(Distribution)
    ),
    *(
        Part(
            relaxed_sort,
            lambda g, n=SIZE[network]: (normal(g, n),),
            {"steepness": STEEPNESS, "distribution": distribution, "network": network},
            variant=f"{distribution}, {network}",
            call=lambda input, **options: relaxed_sort(input, **options).values,
            batched=(0,),
            edges=INFINITE,
            reference=lambda x, d=distribution, n=network: slow_sort(x, d, n)[0],
            backend="aot_eager" if distribution == "cauchy" else "eager",
            bad=NETWORK_BAD,
        )
        for distribution, network in (*((d, "odd_even") for d in get_args(Distribution)), ("cauchy", "bitonic"))
    ),
    *(
        Part(
            RelaxedSort,
            lambda g, n=SIZE[network]: (normal(g, n), normal(g, n)),
            {"steepness": STEEPNESS, "network": network},
            variant=f"{method}, {network}",
            call=lambda input, x, method=method, **options: getattr(relaxed_sort(input, **options), method)(x),
            batched=(0, 1),
            reference=lambda x, u, n=network, t=transpose: (
                slow_sort(x, "cauchy", n)[1].T @ u if t else slow_sort(x, "cauchy", n)[1] @ u
            ),
            backend="aot_eager" if method == "adjoint" else "eager",
            bad=(
                Bad(ValueError, r"x must have shape \(4,\) or .* got \(3,\)", torch.rand(4), torch.zeros(3)),
                Bad(ValueError, r"leading dimensions of x must broadcast", torch.rand(2, 4), torch.zeros(3, 4)),
                Bad(TypeError, r"x must be floating point, got torch.int64", torch.rand(4), torch.arange(4)),
            ),
        )
        for method, transpose in (("apply", False), ("adjoint", True))
        for network in get_args(Network)
    ),
    Part(
        RelaxedSort,
        lambda g: (normal(g, 4),),
        {"steepness": STEEPNESS},
        variant="matrix",
        call=lambda input, **options: relaxed_sort(input, **options).matrix(),
        batched=(0,),
        reference=lambda x: slow_sort(x, "cauchy", "odd_even")[1],
        backend="eager",
        skips={"errors": "the method takes no argument"},
    ),
    Part(
        sorting_network,
        lambda g: (6,),
        edges={"single": lambda: (1,)},
        bad=(
            Bad(ValueError, r"n must be at least 1, got 0", 0),
            Bad(ValueError, r"kind must be one of odd_even, bitonic, got 'bubble'", kind="bubble"),
        ),
        skips=dict.fromkeys(
            ("gradcheck", "batch", "dtype", "autocast", "transforms", "nan", "empty", "foreign"),
            "a table of index pairs: no tensor goes in or out",
        ),
    ),
]

PARTS = SORTING
