"""Rows of `throughline.search.best_response`."""

from typing import Any

import torch
from tests.contract.part import COMPILER, Bad, Part, normal, seeded
from torch import Tensor, nn

from throughline.search.best_response import (
    BestResponseConv2d,
    BestResponseLinear,
    Hyperparameter,
    HyperparameterSpace,
    SelfTuningNetwork,
    TunableDropout,
)

NOT_PARTS = {
    "throughline.search.best_response.Hyperparameter": "a dataclass that says what there is to tune",
    "throughline.search.best_response.convert": "makes a SelfTuningNetwork, which has a row",
    "throughline.search.best_response.SelfTuner": "takes steps on a network; test_best_response_tuner.py is about them",
}

GLOBAL = {"untouched": "parameters start from torch's global generator, as those of nn.Linear do"}
SPACE = HyperparameterSpace([Hyperparameter("p", 0.2, low=0.0, high=0.9), Hyperparameter("log decay", -2.0)])


def weights(module: nn.Module) -> None:
    """Parameters that do not depend on the global generator."""
    draw = seeded(5)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(normal(draw, *parameter.shape) / 2)


def formed(x: Tensor, hyper: Tensor) -> Tensor:
    """W + (Vλ) ⊙ W_h sample by sample."""
    layer = BestResponseLinear(3, 4, 2)
    weights(layer)
    layer.double()
    rows = []
    for one, at in zip(x, hyper, strict=True):
        weight = layer.weight + (layer.weight_gate @ at)[:, None] * layer.response_weight
        rows.append(one @ weight.T + layer.bias + (layer.bias_gate @ at) * layer.response_bias)
    return torch.stack(rows).detach()


def ones(*shape: int) -> Tensor:
    return torch.ones(shape, dtype=torch.float64)


X, IMAGE, HYPER, COUNTS = ones(5, 3), ones(2, 2, 5, 4), ones(5, 2), torch.ones(5, 3, dtype=torch.int64)
LAYER_BAD = (
    Bad(ValueError, r"num_hyperparameters must be at least 1, got 0", num_hyperparameters=0),
    Bad(TypeError, r"input must be floating point, got torch.int64", COUNTS, HYPER),
    Bad(TypeError, r"hyper must be floating point, got torch.int64", X, COUNTS[:, :2]),
    Bad(ValueError, r"hyper must be \(2,\) or \(B, 2\), got shape \(5, 3\)", X, ones(5, 3)),
    Bad(ValueError, r"hyper must be \(2,\) or \(B, 2\), got shape \(1, 5, 2\)", X, HYPER[None]),
)
LINEAR_BAD = (
    *LAYER_BAD,
    Bad(ValueError, r"with the batch of the input, got \(4, 2\) for an input of shape \(5, 3\)", X, HYPER[:4]),
    Bad(ValueError, r"with the batch of the input, got \(3, 2\) for an input of shape \(3,\)", X[0], HYPER[:3]),
    Bad(ValueError, r"hyper must be \(2,\) or \(B, 2\)", do=lambda m: m.squared_norm(ones(3))),
)
CONV_BAD = (
    *LAYER_BAD,
    Bad(ValueError, r"with the batch of the input, got \(5, 2\) for an input of shape \(2, 2, 5, 4\)", IMAGE, HYPER),
    Bad(ValueError, r"got \(2, 2\) for an input of shape \(2, 5, 4\)", IMAGE[0], HYPER[:2]),
)


def constrained(space: Any, value: Tensor) -> tuple[Tensor, ...]:
    return tuple(space.constrain(value).values())


PARTS = [
    Part(
        BestResponseLinear,
        lambda g: (normal(g, 5, 3), normal(g, 5, 2)),
        {"in_features": 3, "out_features": 4, "num_hyperparameters": 2},
        variant="λ by sample",
        prepare=weights,
        reference=formed,
        mixed=True,
        edges={"single": lambda: (ones(1, 3), ones(1, 2)), "sequences": lambda: (ones(2, 4, 3), ones(2, 2))},
        bad=LINEAR_BAD,
        backend=COMPILER,
        tolerance=(1e-4, 1e-1),
        skips={**GLOBAL, "batch": "the first dimension alone is the batch: a λ goes with each of its entries"},
    ),
    Part(
        BestResponseLinear,
        lambda g: (normal(g, 3), normal(g, 2)),
        {"in_features": 3, "out_features": 4, "num_hyperparameters": 2, "bias": False},
        variant="one λ, without bias",
        prepare=weights,
        batched=(0,),
        mixed=True,
        edges={"single": lambda: (ones(3), ones(2))},
        bad=LINEAR_BAD,
        tolerance=(1e-4, 1e-1),
        skips=GLOBAL,
    ),
    *(
        Part(
            BestResponseConv2d,
            lambda g, shape=shape: (normal(g, 2, 2, 5, 4), normal(g, *shape)),
            {"in_channels": 2, "out_channels": 3, "kernel_size": 3, "num_hyperparameters": 2, "padding": 1},
            variant=variant,
            prepare=weights,
            mixed=True,
            edges={"single": lambda shape=shape: (ones(1, 2, 1, 1), ones(*[1] * (len(shape) - 1), 2))},
            bad=CONV_BAD,
            tolerance=(1e-4, 1e-1),
            skips={**GLOBAL, "batch": "the first dimension alone is the batch, as of nn.Conv2d"},
        )
        for variant, shape in (("λ by sample", (2, 2)), ("one λ", (2,)))
    ),
    *(
        Part(
            TunableDropout,
            lambda g, shape=shape: (normal(g, 4, 3, 2), torch.rand(shape, generator=g, dtype=torch.float64)),
            {"channels": channels},
            variant=variant,
            call=lambda module, x, rate: module(x, rate, generator=seeded()),
            constant=(1,),
            stretched=(0,),
            edges={"single": lambda shape=shape: (ones(1, 1), ones(*shape)[:1] / 2 if shape else ones() / 2)},
            bad=(
                Bad(TypeError, r"x must be floating point, got torch.int64", COUNTS, 0.5),
                Bad(ValueError, r"rate must be in \[0, 1\), got 1\.0", X, 1.0),
                Bad(ValueError, r"rate must be in \[0, 1\), got -0\.1", X, -0.1),
                Bad(ValueError, r"rate must be in \[0, 1\), got nan", X, float("nan")),
                Bad(ValueError, r"rate must be a number or \(5,\), got shape \(4,\)", X, ones(4)),
                Bad(ValueError, r"rate must be a number or \(5,\), got shape \(5, 1\)", X, ones(5, 1)),
                *([Bad(ValueError, r"x must be \(B, C, \.\.\.\) to drop channels, got", X[:, 0], 0.5)] * channels),
            ),
            skips={"batch": "the first dimension is the batch", "fullgraph": "torch.compile knows no generators"},
        )
        for variant, channels, shape in (
            ("rates by sample", False, (4,)),
            ("one rate", False, ()),
            ("channels", True, (4,)),
        )
    ),
    Part(
        HyperparameterSpace,
        lambda g: (normal(g, 5),),
        {
            "hyperparameters": [
                Hyperparameter("bounded", 0.2, low=0.0, high=0.9),
                Hyperparameter("positive", 0.2, low=0.0),
                Hyperparameter("negative", -0.2, high=0.0),
                Hyperparameter("free", 0.2),
                Hyperparameter("holes", 1, 0, 4, discrete=True),
            ]
        },
        variant="constrain",
        call=constrained,
        batched=(0,),
        skips={"ddp": "λ and s are no weights of a network: SelfTuner averages their gradients itself"},
        edges={"single": lambda: (ones(5),)},
        bad=(
            Bad(ValueError, r"hyperparameters must be at least one, got none", hyperparameters=[]),
            Bad(
                ValueError,
                r"hyperparameters must have names of their own, got 'a' twice",
                hyperparameters=[Hyperparameter("a", 0.1), Hyperparameter("a", 0.2)],
            ),
            Bad(TypeError, r"value must be floating point, got torch.int64", COUNTS),
            Bad(ValueError, r"value must be \(\.\.\., 5\), got shape \(5, 3\)", X),
            Bad(ValueError, r"value must be \(\.\.\., 5\), got shape \(\)", ones()),
            Bad(ValueError, r"batch_size must be at least 1, got 0", do=lambda space: space.sample(0)),
        ),
    ),
    Part(
        HyperparameterSpace,
        lambda g: (4,),
        {"hyperparameters": [Hyperparameter("a", 0.2, low=0.0), Hyperparameter("b", 0.2, shared=True)]},
        variant="sample",
        call=lambda space, size: (space.sample(size, generator=seeded()), space.entropy()),
        bad=(Bad(ValueError, r"batch_size must be at least 1, got -1", -1),),
        skips={
            "batch": "draws as many as it is asked for",
            "fullgraph": "torch.compile knows no generators",
            **dict.fromkeys(("transforms", "nan", "empty", "foreign"), "takes no tensor: it draws a number of samples"),
        },
    ),
    Part(
        SelfTuningNetwork,
        lambda g: (normal(g, 5, 3), normal(g, 5, 2)),
        {
            "module": nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(), nn.Linear(4, 2)).eval(),
            "space": SPACE,
            "dropout": {"2": "p"},
        },
        variant="in evaluation mode",
        call=lambda net, input, hyper: net.eval()(input, hyper=hyper),
        prepare=weights,
        mixed=True,
        edges={"single": lambda: (ones(1, 3), ones(1, 2))},
        tolerance=(1e-4, 1e-1),
        bad=(
            Bad(TypeError, r"module must be an nn.Module, got int", module=3),
            Bad(TypeError, r"hyper must be floating point, got torch.int64", X, COUNTS[:, :2]),
            Bad(ValueError, r"hyper must be \(2,\) or \(B, 2\), got shape \(5, 3\)", X, X),
            Bad(ValueError, r"with the batch of the input, got \(4, 2\) for an input of shape \(5, 3\)", X, HYPER[:4]),
            Bad(TypeError, r"input must be floating point, got torch.int64", COUNTS, HYPER),
        ),
        skips={**GLOBAL, "batch": "the first dimension alone is the batch: a λ goes with each of its entries"},
    ),
]
