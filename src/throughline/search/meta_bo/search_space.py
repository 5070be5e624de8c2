"""Optuna's search spaces as columns in [0, 1]: one for a number, one for each choice of a category."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["decode_parameters", "encode_parameters", "num_columns", "spread"]

Distribution = Any  # one of optuna.distributions; Optuna itself is not needed here


def encode_parameters(params: Mapping[str, Any], search_space: Mapping[str, Distribution]) -> Tensor:
    """Parameters of an Optuna trial as the input of a policy, ``(d,)`` in [0, 1], double.

    The columns that `NAPSampler` uses, for making training tasks out of finished studies: a float or an integer is its
    position between low and high, in logarithms where its distribution is logarithmic; a category is a one among zeros.

    Args:
        params: values by name, such as ``trial.params``; names outside ``search_space`` are left out.
        search_space: distributions of Optuna by name; their order is that of the columns.

    Raises:
        ValueError: a parameter is missing, or is no value of its distribution.

    >>> import optuna
    >>> space = {"lr": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
    ...          "kernel": optuna.distributions.CategoricalDistribution(["rbf", "linear"])}
    >>> encode_parameters({"lr": 1e-2, "kernel": "linear"}, space)
    tensor([0.5000, 0.0000, 1.0000], dtype=torch.float64)
    """
    columns: list[float] = []
    for name, distribution in search_space.items():
        if name not in params:
            raise ValueError(f"params must hold {name!r}, got {', '.join(params) or 'none'}")
        value = distribution.to_internal_repr(params[name])
        if not distribution._contains(value):
            raise ValueError(f"params[{name!r}] must be a value of {distribution}, got {params[name]!r}")
        if hasattr(distribution, "choices"):
            columns += [float(place == value) for place in range(len(distribution.choices))]
        else:
            low, high = _ends(distribution)
            position = math.log(value) if distribution.log else value
            columns.append((position - low) / (high - low) if low < high else 0.0)
    return torch.tensor(columns, dtype=torch.double)


def decode_parameters(u: Tensor, search_space: Mapping[str, Distribution]) -> dict[str, Any]:
    """The values at a point of the unit cube with one coordinate for each parameter, ``(len(search_space),)``."""
    return {
        name: _value(float(at), distribution) for at, (name, distribution) in zip(u, search_space.items(), strict=True)
    }


def spread(search_space: Mapping[str, Distribution], count: int, seed: int) -> tuple[Tensor, list[dict[str, Any]]]:
    """At most ``count`` different settings, spread evenly: as columns ``(m, d)``, and as parameters."""
    engine = torch.quasirandom.SobolEngine(len(search_space), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    points = engine.draw(count, dtype=torch.double)
    params = [decode_parameters(point, search_space) for point in points]
    columns = torch.stack([encode_parameters(each, search_space) for each in params])
    _, which = torch.unique(columns, dim=0, return_inverse=True)
    first = {int(kind): place for place, kind in reversed([*enumerate(which)])}
    kept = sorted(first.values())
    return columns[kept], [params[place] for place in kept]


def num_columns(search_space: Mapping[str, Distribution]) -> int:
    return sum(len(getattr(distribution, "choices", (0,))) for distribution in search_space.values())


def _ends(distribution: Distribution) -> tuple[float, float]:
    low, high = distribution.low, distribution.high
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _value(at: float, distribution: Distribution) -> Any:
    if hasattr(distribution, "choices"):
        return distribution.choices[min(int(at * len(distribution.choices)), len(distribution.choices) - 1)]
    low, high = distribution.low, distribution.high
    step = distribution.step
    if distribution.log:  # integers in logarithms: each has the share of the axis that rounds to it
        half = 0.5 if isinstance(low, int) else 0.0
        ends = math.log(low - half), math.log(high + half)
        value = math.exp(ends[0] + at * (ends[1] - ends[0]))
        value = round(value) if half else value
    elif step is not None:
        count = round((high - low) / step) + 1
        value = low + step * min(int(at * count), count - 1)
    else:
        value = low + at * (high - low)
    return min(max(value, low), high)
