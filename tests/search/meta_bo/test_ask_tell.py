"""Ask and tell: the policy's own scores, minimising as maximising, BoTorch's own loop, and what is refused."""

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from throughline.search.meta_bo import GPOptimizer, NAPOptimizer, NeuralAcquisitionProcess

CANDIDATES = torch.rand(30, 2, generator=torch.Generator().manual_seed(0))


def policy(seed: int = 0) -> NeuralAcquisitionProcess:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuralAcquisitionProcess(2, d_model=16, num_layers=1, nhead=2, dim_feedforward=16, num_bars=12)


def hill(x: Tensor) -> float:
    return float(1 - (x - torch.tensor([0.3, 0.6])).square().sum())


def bumps(x: Tensor) -> float:
    return float(torch.sin(7 * x[0]) * torch.cos(4 * x[1]) - x.sum())


def run(opt: Any, trials: int, f: Any = hill) -> list[tuple[float, ...]]:
    found = []
    for _ in range(trials):
        x = opt.ask()
        opt.tell(x, f(x))
        found.append(tuple(x.tolist()))
    return found


@pytest.mark.parametrize("y_bounds", [(0.0, 1.0), None])
def test_asks_for_the_untried_candidate_of_largest_acquisition(y_bounds: tuple[float, float] | None) -> None:
    net = policy()
    opt, x, y = NAPOptimizer(net, CANDIDATES, horizon=8, y_bounds=y_bounds), [], []
    for t in range(8):
        told = torch.tensor(y)
        if y_bounds is None and len(y):
            spread = told.max() - told.min()
            told = (told - told.min()) / spread if spread > 0 else torch.full_like(told, 0.5)
        best = told.max().item() if y else 0.0
        history = torch.stack(x) if x else torch.zeros(0, 2)
        with torch.no_grad():
            scores = net(history[None], told[None], CANDIDATES[None], torch.tensor([[best, t / 8]])).acquisition[0]
        for tried in x:
            scores[(tried == CANDIDATES).all(-1)] = -torch.inf
        asked = opt.ask()
        assert torch.equal(asked, CANDIDATES[scores.argmax()])
        assert torch.equal(opt.ask(), asked)  # the same, until something is told
        opt.tell(asked, hill(asked))
        x.append(asked)
        y.append(hill(asked))
    best_x, best_y = opt.best()
    assert best_y == max(y)
    assert torch.equal(best_x, x[y.index(max(y))])


@settings(max_examples=15)
@given(st.floats(-5, 5), st.floats(0.1, 9), st.integers(0, 20))
def test_minimising_is_maximising_the_negative(low: float, width: float, seed: int) -> None:
    def score(x: Tensor) -> float:
        return low + width * hill(x)

    net, bounds = policy(seed), (low, low + width)
    down = run(NAPOptimizer(net, CANDIDATES, horizon=6, maximize=False, y_bounds=bounds), 6, score)
    up = run(NAPOptimizer(net, CANDIDATES, horizon=6, y_bounds=(-bounds[1], -bounds[0])), 6, lambda x: -score(x))
    assert down == up
    plain = run(NAPOptimizer(net, CANDIDATES, horizon=6, maximize=False), 6, score)
    assert plain == run(NAPOptimizer(net, CANDIDATES, horizon=6), 6, lambda x: -score(x))


def test_trials_from_elsewhere_count() -> None:
    net = policy()
    opt = NAPOptimizer(net, CANDIDATES, horizon=5, y_bounds=(0, 1))
    first = opt.ask()
    opt.tell(CANDIDATES[4], 0.9)  # one that was not asked for: it is not asked for again
    opt.tell(torch.tensor([0.123, 0.456]), 0.2)  # and one that is no candidate
    with torch.no_grad():
        x, y = torch.stack([CANDIDATES[4], torch.tensor([0.123, 0.456])]), torch.tensor([0.9, 0.2])
        scores = net(x[None], y[None], CANDIDATES[None], torch.tensor([[0.9, 0.4]])).acquisition[0]
    scores[4] = -torch.inf
    assert torch.equal(opt.ask(), CANDIDATES[scores.argmax()])
    assert opt.best()[1] == 0.9
    assert len({tuple(first.tolist())} & {tuple(row) for row in CANDIDATES.tolist()}) == 1


def test_outcomes_beyond_their_bounds_are_no_error() -> None:
    opt = NAPOptimizer(policy(), CANDIDATES, horizon=5, y_bounds=(0.0, 1.0))
    opt.tell(CANDIDATES[0], 1e6)
    opt.tell(CANDIDATES[1], -1e6)
    assert opt.ask().isfinite().all()


@pytest.mark.parametrize(("f", "maximize", "matern"), [(hill, True, False), (bumps, False, False), (bumps, True, True)])
def test_the_gaussian_process_chooses_as_botorch_does(f: Any, maximize: bool, matern: bool) -> None:
    """BoTorch's own tutorial loop beside ours, from the same first point; with a kernel, it starts anew at each fit."""
    from botorch.acquisition import LogExpectedImprovement
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.kernels import MaternKernel, ScaleKernel
    from gpytorch.mlls import ExactMarginalLogLikelihood

    def kernel() -> Any:
        return ScaleKernel(MaternKernel(0.5, ard_num_dims=2)) if matern else None

    draw, given = torch.Generator().manual_seed(1), kernel()
    opt = GPOptimizer(CANDIDATES, num_initial=2, maximize=maximize, covar_module=given, generator=draw)
    ours = run(opt, 7, f)
    if matern:
        assert all(map(torch.equal, given.parameters(), kernel().parameters()))
    sign = 1.0 if maximize else -1.0
    x = torch.tensor(ours[:2], dtype=torch.double)
    y = torch.tensor([[sign * f(torch.tensor(row))] for row in ours[:2]], dtype=torch.double)
    for step in range(2, 7):
        model = SingleTaskGP(x, y, covar_module=kernel())
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        left = [c for c in CANDIDATES.double() if not (x == c).all(-1).any()]
        values = LogExpectedImprovement(model, best_f=y.max())(torch.stack(left)[:, None])
        chosen = left[values.argmax()]
        assert tuple(chosen.float().tolist()) == ours[step]
        x, y = torch.cat([x, chosen[None]]), torch.cat([y, torch.tensor([[sign * f(chosen.float())]]).double()])
    assert opt.best()[1] == (max if maximize else min)(f(torch.tensor(row)) for row in ours)


def test_another_kernel_makes_other_choices() -> None:
    from gpytorch.kernels import MaternKernel

    plain, rough = (
        run(GPOptimizer(CANDIDATES, covar_module=kernel, generator=torch.Generator().manual_seed(0)), 7, bumps)
        for kernel in (None, MaternKernel(0.5))
    )
    assert plain[0] == rough[0]
    assert plain != rough


def test_the_gaussian_process_finds_the_hill_from_one_trial_and_by_its_seed() -> None:
    first, again, other = (
        run(GPOptimizer(CANDIDATES, generator=torch.Generator().manual_seed(seed)), 9) for seed in (0, 0, 3)
    )
    assert first == again
    assert first[0] != other[0]
    assert max(hill(torch.tensor(x)) for x in first) == max(map(hill, CANDIDATES))


def test_equal_outcomes_are_no_error() -> None:
    opt = GPOptimizer(CANDIDATES, generator=torch.Generator().manual_seed(0))
    assert len(set(run(opt, 4, lambda x: 0.5))) == 4


MAKERS: dict[str, Any] = {
    "nap": lambda candidates: NAPOptimizer(policy(), candidates, horizon=40),
    "gp": lambda candidates: GPOptimizer(candidates),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_both_refuse_the_same(make: Any) -> None:
    for candidates, match in (
        (CANDIDATES[:0], r"candidates must be \(m, d\), none of them 0, got \(0, 2\)"),
        (CANDIDATES[0], r"candidates must be \(m, d\)"),
        (CANDIDATES / 0, "candidates must be finite"),
        (CANDIDATES[[0, 1, 0]], "candidates must all be different, got 3 rows, 2 of them different"),
    ):
        with pytest.raises(ValueError, match=match):
            make(candidates)
    opt = make(CANDIDATES[:2])
    with pytest.raises(ValueError, match="there is no best trial: none was told"):
        opt.best()
    for y in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"y must be finite, got {y}; a trial that failed is best not told"):
            opt.tell(CANDIDATES[0], y)
    for x in (CANDIDATES[:1], CANDIDATES[0, :1], CANDIDATES[0] * math.nan):
        with pytest.raises(ValueError, match=r"x must be \(2,\) and finite, got"):
            opt.tell(x, 0.5)
    run(opt, 2)
    with pytest.raises(ValueError, match=r"every one of 2 candidates was tried; take best\(\)"):
        opt.ask()


def test_names_the_bad_argument() -> None:
    net = policy()
    with pytest.raises(ValueError, match=r"candidates must be \(m, 2\), as the policy's in_features, got \(5, 3\)"):
        NAPOptimizer(net, torch.rand(5, 3), horizon=3)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        NAPOptimizer(net, CANDIDATES, horizon=0)
    for bounds in ((1.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(ValueError, match="y_bounds must be increasing and finite, got"):
            NAPOptimizer(net, CANDIDATES, horizon=3, y_bounds=bounds)
    opt = NAPOptimizer(net, CANDIDATES, horizon=2)
    run(opt, 2)
    with pytest.raises(ValueError, match=r"horizon is used up: 2 of 2 trials were told"):
        opt.ask()
    with pytest.raises(ValueError, match="num_initial must be at least 1, got 0"):
        GPOptimizer(CANDIDATES, num_initial=0)
    with pytest.raises(TypeError, match=r"covar_module must be a gpytorch\.kernels\.Kernel, got Linear"):
        GPOptimizer(CANDIDATES, covar_module=torch.nn.Linear(2, 1))
    from gpytorch.kernels import RBFKernel

    for kernel in (RBFKernel(ard_num_dims=3), RBFKernel(active_dims=(0, 4))):
        with pytest.raises(ValueError, match="covar_module must take inputs of 2 columns, as candidates have, got"):
            GPOptimizer(CANDIDATES, covar_module=kernel)


def test_botorch_s_remark_on_a_single_outcome_is_not_passed_on() -> None:
    opt = GPOptimizer(CANDIDATES, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(opt, 3)
    assert not [w for w in caught if "not standardized" in str(w.message)]


def test_wrapped_policies_ask_for_the_same() -> None:
    candidates, net = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)), policy()
    wanted = run(NAPOptimizer(net, candidates, horizon=4), 3)
    for wrapped in (torch.nn.DataParallel(net), torch.optim.swa_utils.AveragedModel(net)):
        assert run(NAPOptimizer(wrapped, candidates, horizon=4), 3) == wanted  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="policy must be a NeuralAcquisitionProcess, got Linear"):
        NAPOptimizer(torch.nn.Linear(2, 2), candidates, horizon=4)  # type: ignore[arg-type]


def test_a_policy_that_ran_away_proposes_nothing() -> None:
    net = policy()
    with torch.no_grad():
        net.embed_x.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="acquisition values must be numbers, got NaN"):
        NAPOptimizer(net, torch.rand(5, 2), horizon=4).ask()


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_names_what_is_no_tensor(make: Any) -> None:
    with pytest.raises(TypeError, match="candidates must be a tensor, got list"):
        make([[0.0, 0.0], [1.0, 1.0]])
    with pytest.raises(TypeError, match=r"candidates must be floating point, got torch\.int64"):
        make(torch.eye(2).long())
    with pytest.raises(TypeError, match="x must be a tensor, got list"):
        make(torch.eye(2)).tell([0.0, 1.0], 0.5)
