"""Speed bars of the neural acquisition process: scoring many candidates beside torch's encoder with a dense mask, one
proposal, and a Gaussian process fitted to the same trials.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.search.meta_bo import GPOptimizer, NAPOptimizer, NeuralAcquisitionProcess

TRIALS, CANDIDATES, HORIZON = 30, 2_000, 15
WIDTH, LAYERS, FORWARD = 128, 4, 256
LAPTOP = {"d_model": 64, "num_layers": 2, "dim_feedforward": 128, "num_bars": 50}


def scoring() -> dict[str, Callable[[], Any]]:
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    policy = NeuralAcquisitionProcess(3, d_model=WIDTH, num_layers=LAYERS, dim_feedforward=FORWARD).eval()
    x, y = torch.rand(1, TRIALS, 3, generator=draw), torch.rand(1, TRIALS, generator=draw)
    candidates, state = torch.rand(1, CANDIDATES, 3, generator=draw), torch.tensor([[0.9, 0.5]])

    @torch.no_grad()
    def ours() -> Tensor:
        return policy(x, y, candidates, state).acquisition

    @torch.no_grad()
    def peer() -> Tensor:
        """The official formulation: one sequence of trials and candidates under a mask, repeated for each head."""
        tokens = torch.cat([policy.embed_x(x) + policy.embed_y(y.unsqueeze(-1)), policy.embed_x(candidates)], 1)
        hidden_from = ~torch.eye(TRIALS + CANDIDATES, dtype=torch.bool)
        hidden_from[:, :TRIALS] = False
        hidden = policy.encoder(tokens, mask=hidden_from.repeat(4, 1, 1))[:, TRIALS:]
        bars = policy.bars_head(hidden)
        known = state.unsqueeze(1).expand(-1, CANDIDATES, -1)
        features = torch.cat([bars.softmax(-1), policy.embed_x(candidates), known], -1)
        scores: Tensor = policy.acquisition_head(features).squeeze(-1) / policy.temperature
        return scores

    def agree() -> None:
        torch.testing.assert_close(ours(), peer(), rtol=1e-3, atol=1e-3)

    return {"ours": ours, "peer": peer, "agree": agree}


def told(opt: Any) -> Any:
    """A search in its middle."""
    draw = torch.Generator().manual_seed(1)
    for x in opt.trials.candidates[torch.randperm(len(opt.trials.candidates), generator=draw)[:8]]:
        opt.tell(x, float(1 - (x - 0.4).square().sum()))
    return opt


def proposing() -> dict[str, Callable[[], Any]]:
    torch.manual_seed(0)
    candidates = torch.rand(256, 3)
    opt = told(NAPOptimizer(NeuralAcquisitionProcess(3, **LAPTOP), candidates, horizon=HORIZON, y_bounds=(0.0, 1.0)))
    gp = told(GPOptimizer(candidates))

    def agree() -> None:  # two rules, and the same question: an untried candidate
        for asked in (opt.ask(), gp.ask()):
            assert not (torch.stack(opt.trials.x) == asked).all(-1).any()
            assert (candidates == asked).all(-1).any()

    return {"ours": opt.ask, "peer": gp.ask, "agree": agree}


TOKENS = TRIALS + CANDIDATES
CASES = [
    Case(
        "scoring 2,000 candidates after 30 trials, d_model 128, 4 layers",
        scoring,
        0.25,
        f"nn.TransformerEncoder of torch {torch.__version__}, dense mask",
        bar_memory=0.2,
        flops=LAYERS * 2.0 * (TOKENS * (4 * WIDTH**2 + 2 * WIDTH * FORWARD) + 2 * TOKENS * TRIALS * WIDTH)
        + 2.0 * CANDIDATES * (WIDTH * FORWARD + FORWARD * 1_000 + (1_000 + WIDTH) * 200 + 2 * 200**2),
    ),
    Case(
        "one ask among 256 candidates after 8 trials, d_model 64, 2 layers",
        proposing,
        0.1,
        f"fit and log expected improvement of BoTorch {version('botorch')}",
        bar_seconds=5e-3,
        work="other",
    ),
]


def offering(candidates: int) -> Callable[[], Any]:
    return scored(TRIALS, candidates)


def remembering(trials: int) -> Callable[[], Any]:
    return scored(trials, 16)


def scored(trials: int, candidates: int) -> Callable[[], Any]:
    policy = NeuralAcquisitionProcess(3, d_model=64, num_layers=2, dim_feedforward=128).eval()
    x, y = torch.rand(1, trials, 3), torch.rand(1, trials)
    offered, state = torch.rand(1, candidates, 3), torch.tensor([[0.9, 0.5]])

    @torch.no_grad()
    def call() -> Tensor:
        return policy(x, y, offered, state).acquisition

    return call


GROWTH = [
    Growth("scoring after 30 trials", "candidates", 4_096, offering, time=1, memory=1),
    Growth("scoring 16 candidates", "trials", 512, remembering, time=2, memory=2, step=2),
]
