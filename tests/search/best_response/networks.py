"""What the tests of this folder convert."""

from typing import Any

import torch
from torch import nn

from throughline.search.best_response import (
    BestResponseConv2d,
    BestResponseLinear,
    Hyperparameter,
    HyperparameterSpace,
    SelfTuningNetwork,
    convert,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def space(n: int = 2) -> HyperparameterSpace:
    return HyperparameterSpace([Hyperparameter(f"h{i}", 0.2, low=0.0, high=0.9) for i in range(n)])


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 3))


def network(**options: Any) -> SelfTuningNetwork:
    made = convert(mlp(), space(), **{"dropout": {"2": "h0"}, **options})
    return loud(made)


def loud(made: SelfTuningNetwork) -> SelfTuningNetwork:
    """Gates that matter."""
    torch.manual_seed(1)
    with torch.no_grad():
        for m in made.modules():
            if isinstance(m, BestResponseLinear | BestResponseConv2d):
                m.weight_gate.normal_()
                if m.bias_gate is not None:
                    m.bias_gate.normal_()
    return made


X = torch.randn(5, 6, generator=seeded())


HYPER = torch.randn(5, 2, generator=seeded(1))
