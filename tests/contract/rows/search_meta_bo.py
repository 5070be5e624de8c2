"""Rows of `throughline.search.meta_bo`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, normal, seeded
from torch import Generator, Tensor

from throughline.search.meta_bo import BarDistribution, NeuralAcquisitionProcess, generalized_advantages

NOT_PARTS = {
    "throughline.search.meta_bo.AcquisitionOutput": "a named tuple: what NeuralAcquisitionProcess returns",
    "throughline.search.meta_bo.AcquisitionTrainer": "trains; tests/search holds it against PPO's terms",
    "throughline.search.meta_bo.GPOptimizer": "ask and tell over BoTorch; tests/search holds it against BoTorch",
    "throughline.search.meta_bo.NAPOptimizer": "ask and tell; tests/search holds it against the network",
    "throughline.search.meta_bo.NAPSampler": "a sampler of Optuna; tests/search runs studies with it",
    "throughline.search.meta_bo.encode_parameters": "takes parameters of Optuna, not tensors",
    "throughline.search.meta_bo.gp_prior_tasks": "returns a function that draws tasks",
    "throughline.search.meta_bo.load_policy": "reads a file",
    "throughline.search.meta_bo.save_policy": "writes a file",
}
BORDERS = torch.tensor([-1.0, -0.5, 0.0, 0.25, 2.0], dtype=torch.float64)
SIZES = {"in_features": 3, "d_model": 4, "num_layers": 2, "nhead": 2, "dim_feedforward": 3, "num_bars": 5}
MASK = torch.tensor([[True, False, True, True], [False, False, True, False]])
GLOBAL = {"untouched": "a module's parameters start from torch's global generator, as those of nn.Linear do"}


def weights(net: Any) -> None:
    draw = seeded(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(normal(draw, *parameter.shape) / 3)
    net.acquisition_head.requires_grad_(False)  # 80,000 weights of plain layers: too many for finite differences


def uniform(generator: Generator, *size: int) -> Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64)


def problem(g: Generator) -> tuple[Tensor, ...]:
    return uniform(g, 2, 4, 3), uniform(g, 2, 4), uniform(g, 2, 6, 3), uniform(g, 2, 2)


def slow_bars(logits: Tensor, y: Tensor) -> Tensor:
    found = torch.empty_like(y)
    for i, value in enumerate(y):
        bar = max(k for k in range(4) if k == 0 or value >= BORDERS[k])
        odds = logits[i].exp()
        found[i] = (odds[bar] / odds.sum() / (BORDERS[bar + 1] - BORDERS[bar])).log()
    return found


def slow_acquisition(x: Tensor, y: Tensor, candidates: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Torch's own encoder over history and candidates together, behind a dense mask."""
    net = NeuralAcquisitionProcess(**SIZES)
    weights(net)
    net.double()
    n, m = x.shape[1], candidates.shape[1]
    hidden = net.embed_x(torch.cat([x, candidates], 1))
    hidden = hidden + torch.cat([net.embed_y(y.unsqueeze(-1)), torch.zeros(len(x), m, 4, dtype=torch.float64)], 1)
    sees = torch.eye(n + m, dtype=torch.bool)
    sees[:, :n] = True
    bars = net.bars_head(net.encoder(hidden, mask=~sees)[:, n:])
    features = torch.cat([bars.softmax(-1), net.embed_x(candidates), state.unsqueeze(1).expand(-1, m, -1)], -1)
    return net.acquisition_head(features).squeeze(-1) / 0.1, bars, net.value_head(state).squeeze(-1)


def slow_advantages(rewards: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    last = len(rewards)
    v = [*values.tolist(), 0.0]
    delta = [rewards[t].item() + 0.98 * v[t + 1] - v[t] for t in range(last)]
    found = torch.tensor(
        [sum((0.98 * 0.98) ** (k - t) * delta[k] for k in range(t, last)) for t in range(last)], dtype=torch.float64
    )
    return found, found + values


def call(option: dict[str, int]) -> Bad:
    ((name, size),) = option.items()
    return Bad(ValueError, rf"{name} must be at least 1, got {size}", **option)


X, Y, CANDIDATES, STATE = problem(seeded())
PARTS = [
    Part(
        BarDistribution,
        lambda g: (normal(g, 6, 4), normal(g, 6)),
        {"borders": BORDERS},
        variant="log_prob",
        call=lambda bars, logits, y: bars.log_prob(logits, y),
        constant=(1,),
        stretched=(0,),
        batched=(0, 1),
        edges={"single": lambda: (normal(seeded(), 1, 4), torch.zeros(1, dtype=torch.float64))},
        reference=slow_bars,
        tolerance=(1e-4, 5e-2),
        bad=(
            Bad(
                ValueError, r"borders must be \(K \+ 1,\), increasing and finite, got shape \(1,\)", borders=BORDERS[:1]
            ),
            Bad(ValueError, r"borders must be .* got shape \(2, 2\)", borders=BORDERS[:4].view(2, 2)),
            Bad(ValueError, r"borders must be .* increasing", borders=BORDERS.flip(0)),
            Bad(ValueError, r"borders must be .* finite", borders=BORDERS / 0),
            Bad(ValueError, r"logits must be \(\.\.\., 4\), got \(2, 3\)", torch.ones(2, 3), torch.ones(2)),
            Bad(ValueError, r"y must be \(2,\) like logits, got \(3,\)", torch.ones(2, 4), torch.ones(3)),
            Bad(ValueError, r"logits must be", do=lambda bars: bars.mean(torch.ones(3))),
            Bad(ValueError, r"logits must be", do=lambda bars: bars.variance(torch.ones(3))),
            Bad(
                ValueError,
                r"logits must be \(B, m, K\) and best \(B,\), got \(2, 4\) and \(2,\)",
                do=lambda bars: bars.expected_improvement(torch.ones(2, 4), torch.ones(2)),
            ),
        ),
    ),
    *(
        Part(
            BarDistribution,
            lambda g: (normal(g, 2, 3, 4),),
            {"borders": BORDERS},
            variant=name,
            call=lambda bars, logits, name=name: getattr(bars, name)(logits),
            batched=(0,),
            backend="eager",
            edges={"single": lambda: (torch.ones(1, 1, 4, dtype=torch.float64),)},
            tolerance=(1e-4, 5e-2),
            bad=(Bad(ValueError, r"logits must be", torch.ones(2, 3, 5)),),
        )
        for name in ("mean", "variance")
    ),
    Part(
        BarDistribution,
        lambda g: (normal(g, 2, 3, 4), normal(g, 2)),
        {"borders": BORDERS},
        variant="expected_improvement",
        call=lambda bars, logits, best: bars.expected_improvement(logits, best),
        stretched=(0,),
        backend="eager",
        edges={"single": lambda: (torch.ones(1, 1, 4, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))},
        tolerance=(1e-4, 5e-2),
        skips={"batch": "one batch dimension"},
        bad=(Bad(ValueError, r"logits must be", torch.ones(2, 3, 5), torch.ones(2)),),
    ),
    Part(
        NeuralAcquisitionProcess,
        problem,
        SIZES,
        prepare=weights,
        mixed=True,
        edges={"single": lambda: (X[:1, :1], Y[:1, :1], CANDIDATES[:1, :1], STATE[:1])},
        reference=slow_acquisition,
        tolerance=(1e-3, 2e-1),
        skips={**GLOBAL, "batch": "one batch dimension, as nn.TransformerEncoder has"},
        bad=(
            *map(call, ({name: 0} for name in SIZES)),
            Bad(ValueError, r"d_model must be a multiple of nhead, got 4 and 3", nhead=3),
            Bad(ValueError, r"y_range must be increasing and finite, got \(1\.0, 1\.0\)", y_range=(1.0, 1.0)),
            Bad(ValueError, r"y_range must be", y_range=(0.0, float("inf"))),
            Bad(ValueError, r"temperature must be positive and finite, got 0\.0", temperature=0.0),
            Bad(ValueError, r"dropout must be in \[0, 1\), got 1\.0", dropout=1.0),
            Bad(ValueError, r"context_x must be \(B, n, 3\), got \(2, 4, 2\)", X[..., :2], Y, CANDIDATES, STATE),
            Bad(ValueError, r"candidates must be \(B, m, 3\), got \(2, 6, 1\)", X, Y, CANDIDATES[..., :1], STATE),
            Bad(ValueError, r"one batch size, got 1 and 2", X[:1], Y[:1], CANDIDATES, STATE),
            Bad(ValueError, r"context_y must be \(2, 4\) like context_x, got \(2, 3\)", X, Y[:, 1:], CANDIDATES, STATE),
            Bad(ValueError, r"state must be \(2, 2\), got \(2, 1\)", X, Y, CANDIDATES, STATE[:, :1]),
        ),
    ),
    Part(
        NeuralAcquisitionProcess,
        lambda g: (*problem(g), MASK),
        SIZES,
        variant="padded",
        backend="eager",
        call=lambda net, context_x, context_y, candidates, state, context_mask: net(
            context_x, context_y, candidates, state, context_mask=context_mask
        ),
        prepare=weights,
        mixed=True,
        edges={"single": lambda: (X[:1, :1], Y[:1, :1], CANDIDATES[:1, :1], STATE[:1], MASK[1:, :1])},
        tolerance=(1e-3, 2e-1),
        skips={**GLOBAL, "batch": "one batch dimension, as nn.TransformerEncoder has"},
        bad=(
            Bad(TypeError, r"context_mask must be bool, got torch.float64", X, Y, CANDIDATES, STATE, Y),
            Bad(
                ValueError,
                r"context_mask must be \(2, 4\) like context_y, got \(2, 3\)",
                *(X, Y, CANDIDATES, STATE, MASK[:, 1:]),
            ),
        ),
    ),
    Part(
        generalized_advantages,
        lambda g: (normal(g, 7), normal(g, 7)),
        batched=(0, 1),
        reference=slow_advantages,
        tolerance=(1e-4, 1e-1),
        bad=(
            Bad(ValueError, r"\(\.\.\., T\) with T >= 1, got \(3,\) and \(4,\)", torch.ones(3), torch.ones(4)),
            Bad(ValueError, r"T >= 1, got \(2, 0\)", torch.ones(2, 0), torch.ones(2, 0)),
            Bad(ValueError, r"gamma must be in \[0, 1\], got 1\.1", gamma=1.1),
            Bad(ValueError, r"gae_lambda must be in \[0, 1\], got -0\.1", gae_lambda=-0.1),
        ),
    ),
]
