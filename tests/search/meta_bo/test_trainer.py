"""Training: runs against a loop, advantages against sums, PPO's terms against their formulas, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from throughline.search.meta_bo import (
    AcquisitionTrainer,
    NeuralAcquisitionProcess,
    generalized_advantages,
    gp_prior_tasks,
)
from throughline.search.meta_bo.runs import Episodes, TaskPool, collect, iid_context, run_context
from throughline.search.meta_bo.trainer import standardized


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def policy(seed: int = 0, **changes: Any) -> NeuralAcquisitionProcess:
    sizes = {"d_model": 16, "num_layers": 1, "nhead": 2, "dim_feedforward": 16, "num_bars": 12, **changes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuralAcquisitionProcess(2, **sizes).double().eval()


def quadratics(
    count: int = 6, size: int = 20, seed: int = 0, within: tuple[float, float] = (0.0, 1.0)
) -> list[tuple[Tensor, Tensor]]:
    draw = seeded(seed)
    x = torch.rand(count, size, 2, generator=draw)
    centres = within[0] + (within[1] - within[0]) * torch.rand(count, 1, 2, generator=draw)
    return [*zip(x, 1 - (x - centres).square().sum(-1), strict=True)]


def trainer(net: NeuralAcquisitionProcess | None = None, **changes: Any) -> AcquisitionTrainer:
    options = {"horizon": 4, "num_candidates": 10, "episodes": 6, "total": 5, "warmup": 2, "generator": seeded()}
    return AcquisitionTrainer(policy() if net is None else net, **{"tasks": quadratics(), **options, **changes})


# advantages


@given(st.integers(1, 6), st.floats(0, 1), st.floats(0, 1), st.integers(0, 1000))
def test_advantages_are_sums_over_all_later_surprises(steps: int, gamma: float, lam: float, seed: int) -> None:
    rewards, values = torch.randn(2, 3, steps, dtype=torch.float64, generator=seeded(seed))
    advantages, returns = generalized_advantages(rewards, values, gamma=gamma, gae_lambda=lam)
    for run in range(3):
        worth = [*values[run].tolist(), 0.0]
        for t in range(steps):
            expected = sum(
                (gamma * lam) ** k * (rewards[run, t + k].item() + gamma * worth[t + k + 1] - worth[t + k])
                for k in range(steps - t)
            )
            assert advantages[run, t].item() == pytest.approx(expected, abs=1e-9)
    torch.testing.assert_close(returns, advantages + values)


def test_lambda_one_is_the_discounted_return_and_zero_the_next_state() -> None:
    rewards, values = torch.randn(2, 5, 7, dtype=torch.float64, generator=seeded())
    _, returns = generalized_advantages(rewards, values, gamma=0.9, gae_lambda=1.0)
    weights = 0.9 ** torch.arange(7.0, dtype=torch.float64)
    torch.testing.assert_close(returns[:, 0], (rewards * weights).sum(-1))
    _, returns = generalized_advantages(rewards, values, gamma=0.9, gae_lambda=0.0)
    torch.testing.assert_close(returns[:, :-1], rewards[:, :-1] + 0.9 * values[:, 1:])
    torch.testing.assert_close(returns[:, -1], rewards[:, -1])


def test_standardized_leaves_equal_numbers_alone() -> None:
    x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    np.testing.assert_allclose(standardized(x).numpy(), (x.numpy() - 3) / x.numpy().std(), rtol=1e-12)
    assert standardized(torch.full((4,), 2.5)).tolist() == [2.5] * 4
    assert standardized(torch.ones(1)).tolist() == [1]


# runs


def drawn(count: int = 5, sizes: tuple[int, ...] = (8, 12), seed: int = 1) -> Episodes:
    tasks = [task for size in sizes for task in quadratics(2, size, seed=size)]
    like = torch.zeros(1, dtype=torch.float64)
    return TaskPool(tasks, in_features=2, horizon=4, num_candidates=10, like=like).draw(count, seeded(seed))


def test_a_batch_of_runs_is_a_loop_over_runs() -> None:
    net, episodes = policy(), drawn()
    runs = collect(net, episodes, horizon=4, top_k=3, regret_floor=1e-3, generator=seeded(2))
    for e in range(5):
        x, y, real = (part[e] for part in episodes)
        best_of_all = y[real].max()
        for t in range(4):
            before = runs.tried[e, :t].tolist()
            incumbent = max((y[j].item() for j in before), default=0.0)
            state = torch.tensor([[incumbent, t / 4]], dtype=torch.float64)
            with torch.no_grad():
                out = net(x[None, before], y[None, before], x[None], state)
            scores = out.acquisition[0].clone()
            scores[before] = -torch.inf
            scores[~real] = -torch.inf
            among = scores.topk(3)
            assert runs.offered[e, t].tolist() == among.indices.tolist()
            assert runs.open[e, t].all()
            choice = runs.tried[e, t].item()
            assert choice == among.indices[runs.action[e, t]].item()
            log_prob = among.values.log_softmax(0)[runs.action[e, t]]
            assert runs.log_prob[e, t].item() == pytest.approx(log_prob.item(), abs=1e-9)
            assert runs.value[e, t].item() == pytest.approx(out.value.item(), abs=1e-9)
            assert runs.state[e, t].tolist() == pytest.approx(state[0].tolist())
            after = max([incumbent, y[choice].item()]) if t else y[choice].item()
            assert runs.regret[e, t].item() == pytest.approx((best_of_all - after).item(), abs=1e-12)
            assert runs.reward[e, t].item() == pytest.approx(-math.log10(max(1e-3, (best_of_all - after).item())))
        assert len(set(runs.tried[e].tolist())) == 4


def test_choices_follow_the_policy_s_probabilities() -> None:
    net, one = policy(), drawn(1)
    many = Episodes(*(part.expand(4000, *part.shape[1:]) for part in one))
    runs = collect(net, many, horizon=1, top_k=3, regret_floor=1e-3, generator=seeded(3))
    with torch.no_grad():
        out = net(one.x[:, :0], one.y[:, :0], one.x, torch.zeros(1, 2, dtype=torch.float64))
    p = out.acquisition[0].masked_fill(~one.real[0], -torch.inf).topk(3).values.softmax(0)
    counts = torch.bincount(runs.action[:, 0], minlength=3) / 4000
    assert ((counts - p).abs() < 5 * (p * (1 - p) / 4000).sqrt() + 1e-9).all()


def test_when_few_are_left_only_they_are_offered() -> None:
    x, y = quadratics(1, 4)[0]
    pool = TaskPool([(x, y)], in_features=2, horizon=4, num_candidates=10, like=torch.zeros(1).double())
    runs = collect(policy(), pool.draw(3, seeded()), horizon=4, top_k=5, regret_floor=1e-3, generator=seeded())
    assert runs.open.sum(-1).tolist() == [[4, 3, 2, 1]] * 3
    assert runs.log_prob[:, -1].tolist() == [0.0] * 3
    assert runs.tried.sort(-1).values.tolist() == [[0, 1, 2, 3]] * 3
    assert runs.regret[:, -1].tolist() == [0.0] * 3


def test_contexts_are_what_was_known() -> None:
    episodes = drawn()
    runs = collect(policy(), episodes, horizon=4, top_k=3, regret_floor=1e-3, generator=seeded())
    rows, steps = torch.tensor([0, 3, 3]), torch.tensor([0, 3, 1])
    x, y, mask = run_context(episodes, runs, rows, steps)
    assert mask.sum(-1).tolist() == [0, 3, 1]
    for i, (e, t) in enumerate(zip(rows, steps, strict=True)):
        before = runs.tried[e, :t]
        assert torch.equal(x[i][mask[i]], episodes.x[e, before])
        assert torch.equal(y[i][mask[i]], episodes.y[e, before])


def test_random_histories_are_of_every_size_and_of_real_candidates() -> None:
    episodes = drawn(2000)
    x, y, mask = iid_context(episodes, 3, seeded())
    counts = torch.bincount(mask.sum(-1), minlength=4)
    assert counts[0] == 0
    assert (counts[1:] > 580).all()
    for e in range(40):
        known = {tuple(row): value for row, value in zip(*(p[e].tolist() for p in episodes[:2]), strict=True)}
        seen = x[e][mask[e]].tolist()
        assert [known[tuple(row)] for row in seen] == y[e][mask[e]].tolist()
        assert len({tuple(row) for row in seen}) == len(seen)
    assert not (x[mask] == 0).all(-1).any()  # nothing of the filling


# learning


def test_a_step_on_the_policy_that_collected_has_ratio_one() -> None:
    """Before anything is updated PPO's loss is minus the mean of the standardised advantages, which is zero."""
    net = policy()
    made = trainer(net, minibatch_size=1000)
    report = made.step()
    assert report["policy_loss"] == pytest.approx(0, abs=1e-9)


def test_losses_are_their_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    made = trainer(top_k=3, clip=0.002)
    episodes = made.pool.draw(6, seeded(4))
    runs = collect(made.policy, episodes, horizon=4, top_k=3, regret_floor=1e-3, generator=seeded())
    made.policy = policy(seed=5)  # as if it had learned: the ratios are no longer one
    advantages, returns = torch.randn(2, 6, 4, dtype=torch.float64, generator=seeded(6))
    rows, steps = torch.tensor([0, 2, 5, 5]), torch.tensor([0, 3, 1, 2])
    totals: list[Tensor] = []
    monkeypatch.setattr(made, "_descend", totals.append)
    asked: list[Episodes] = []
    monkeypatch.setattr(made, "_likelihood", lambda e: asked.append(e) or torch.tensor(7.0, dtype=torch.float64))
    made.rl_coef, made.value_coef, made.likelihood_coef, made.entropy_coef = 2.0, 3.0, 5.0, 0.5
    policy_loss, value_loss, likelihood_loss = made._update(episodes, runs, rows, steps, advantages, returns).tolist()
    a = advantages[rows, steps].numpy()
    a = (a - a.mean()) / a.std()
    terms, errors, entropies = [], [], []
    for i, (e, t) in enumerate(zip(rows.tolist(), steps.tolist(), strict=True)):
        before = runs.tried[e, :t]
        with torch.no_grad():
            out = made.policy(
                episodes.x[e, before][None], episodes.y[e, before][None], episodes.x[e][None], runs.state[e, t][None]
            )
        log_p = out.acquisition[0, runs.offered[e, t]].log_softmax(0)
        ratio = (log_p[runs.action[e, t]] - runs.log_prob[e, t]).exp().item()
        terms.append(min(ratio * a[i], min(max(ratio, 0.998), 1.002) * a[i]))
        errors.append((out.value.item() - returns[e, t].item()) ** 2)
        entropies.append(-(log_p.exp() * log_p).sum().item())
    assert policy_loss == pytest.approx(-np.mean(terms))
    assert value_loss == pytest.approx(np.mean(errors))
    assert likelihood_loss == 7
    assert torch.equal(asked[0].y, episodes.y[[0, 2, 5]])  # each task once
    total = -2 * np.mean(terms) + 3 * np.mean(errors) + 5 * 7 - 0.5 * np.mean(entropies)
    assert totals[0].item() == pytest.approx(total)


def test_the_likelihood_is_over_all_real_candidates() -> None:
    made = trainer(generator=seeded(3))
    episodes = drawn(4)
    x, y, mask = iid_context(episodes, 3, seeded(3))
    total = []
    for e in range(4):
        bars = made.policy.predict(x[e, mask[e]][None], y[e, mask[e]][None], episodes.x[e][None])[0]
        total += made.policy.bars.log_prob(bars, episodes.y[e])[episodes.real[e]].tolist()
    assert made._likelihood(episodes).item() == pytest.approx(-np.mean(total))


def test_pretraining_learns_a_likelihood_and_steps_a_policy() -> None:
    net = policy(d_model=32, dim_feedforward=32).float()
    corner = quadratics(40, 30, within=(0.8, 1.0))  # whoever has seen a few looks there first
    options = {"tasks": corner, "num_candidates": 30, "episodes": 16, "value_coef": 0.1}
    made = trainer(net, lr=3e-3, **options)
    before = made._likelihood(made.pool.draw(64, seeded(9))).item()
    made.pretrain(100)
    assert made._likelihood(made.pool.draw(64, seeded(9))).item() < before - 0.5
    sizes = {"epochs": 4, "minibatch_size": 32, "top_k": 30, "total": 30}
    rl = trainer(net, lr=1e-3, regret_floor=1e-3, gamma=0.8, gae_lambda=0.8, **sizes, **options)
    reports = [rl.step() for _ in range(30)]
    early, late = (
        [np.mean([r[key] for r in part]) for key in ("regret", "return")] for part in (reports[:3], reports[-8:])
    )
    assert late[0] < 0.4 * early[0]
    assert late[1] > early[1] + 0.5


def test_the_learning_rate_rises_falls_and_ends_at_zero() -> None:
    made, rates = trainer(warmup=2, total=5, lr=1.0, episodes=1, horizon=1), []
    made._descend = lambda loss: None  # type: ignore[method-assign]
    for _ in range(7):
        made.step()
        rates.append(made.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5, 1, 1, 2 / 3, 1 / 3, 0, 0])
    made.pretrain(1)
    assert made.optimizer.param_groups[0]["lr"] == 0.5
    made.pretrain(2)
    assert made.optimizer.param_groups[0]["lr"] == 1


def test_same_seed_same_policy() -> None:
    states = []
    for seed in (0, 0, 1):
        net = policy()
        made = trainer(net, generator=seeded(seed))
        made.pretrain(2)
        made.step()
        states.append(torch.cat([p.flatten() for p in net.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_all_runs_advance_in_one_pass_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sizes = trainer(episodes=6, minibatch_size=100), []
    forward = made.policy.forward
    monkeypatch.setattr(made.policy, "forward", lambda *a, **k: sizes.append(len(a[2])) or forward(*a, **k))
    made.step()
    assert sizes == [6, 6, 6, 6, 24]  # four trials, and one minibatch of all transitions


# tasks


def test_a_task_is_drawn_whole_or_in_part() -> None:
    episodes = drawn(200)
    assert sorted(set(episodes.real.sum(-1).tolist())) == [8, 10]
    for e in range(20):
        rows = episodes.x[e][episodes.real[e]]
        assert len(torch.unique(rows, dim=0)) == len(rows)


def test_takes_a_function_of_a_generator() -> None:
    def draw(generator: Generator) -> tuple[Tensor, Tensor]:
        x = torch.rand(15, 2, generator=generator)
        return x, x.sum(-1)

    report = trainer(tasks=draw).step()
    assert math.isfinite(report["likelihood_loss"])
    with pytest.raises(ValueError, match=r"tasks\(\) gave a task with constant outcomes"):
        trainer(tasks=lambda g: (torch.rand(15, 2), torch.ones(15))).step()
    with pytest.raises(ValueError, match=r"tasks\(\) in draw 0 must be inputs \(N, 2\) and outcomes"):
        trainer(tasks=lambda g: (torch.rand(15, 3), torch.ones(15))).step()


def test_useless_tasks_are_left_out_with_a_warning() -> None:
    x, y = quadratics(1)[0]
    with pytest.warns(UserWarning, match=r"tasks\[1\] is left out: constant outcomes"):
        made = trainer(tasks=[(x, y), (x, torch.ones(20))])
    assert made.pool.tables is not None
    assert len(made.pool.tables.x) == 1
    with pytest.warns(UserWarning, match=r"tasks\[0\] is left out: 1 candidates, where two or more are needed"):
        trainer(tasks=[(x[:1], y[:1]), (x, y)])
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match="tasks holds no task with two different outcomes"),
    ):
        trainer(tasks=[(x, torch.ones(20))])


X, Y = quadratics(1)[0]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        *(
            ({name: 0}, f"{name} must be at least 1, got 0")
            for name in ("horizon", "num_candidates", "top_k", "episodes")
        ),
        *(({name: 0}, f"{name} must be at least 1, got 0") for name in ("minibatch_size", "epochs", "total")),
        *(({name: 0.0}, f"{name} must be positive, got 0.0") for name in ("lr", "clip", "grad_clip", "regret_floor")),
        ({"lr": math.nan}, "lr must be positive, got nan"),
        ({"tasks": []}, "tasks must hold at least one task, got none"),
        (
            {"tasks": [(X[:, :1], Y)]},
            r"tasks\[0\] must be inputs \(N, 2\) and outcomes \(N,\), got \(20, 1\) and \(20,\)",
        ),
        ({"tasks": [(X, Y[1:])]}, r"tasks\[0\] must be .* got \(20, 2\) and \(19,\)"),
        ({"tasks": [(X, Y / 0)]}, r"tasks\[0\] must be finite"),
        ({"tasks": [(X[:3], Y[:3])]}, r"horizon must be at most the candidates of tasks\[0\], got 4 and 3"),
        ({"num_candidates": 3}, r"horizon must be at most the candidates of tasks\[0\], got 4 and 3"),
        ({"tasks": [(X[[0, 1, 2, 3, 4, 0]], Y[:6])]}, r"tasks\[0\] has duplicate candidates"),
    ],
)
def test_names_the_bad_argument(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        trainer(**changes)


def test_pretrain_wants_a_step() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        trainer().pretrain(0)


# tasks from Gaussian processes


def test_related_tasks_look_like_their_table() -> None:
    x = torch.rand(40, 2, generator=seeded())
    y = 3 + 2 * torch.sin(4 * x[:, 0])  # nothing depends on the second column
    draw = gp_prior_tasks([(x, y)], num_candidates=60)
    generator = seeded(1)
    for _ in range(5):
        inputs, outcomes = draw(generator)
        assert inputs.dtype == x.dtype
        assert inputs.amin(0).tolist() == outcomes.amin().expand(2).tolist() == [0, 0]
        assert inputs.amax(0).tolist() == [1, 1]
        assert outcomes.max() == 1
        assert torch.corrcoef(torch.stack([outcomes, torch.sin(4 * inputs[:, 0])]))[0, 1] > 0.95
    first, again, other = (draw(seeded(s))[1] for s in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_samples_have_the_posterior_s_moments() -> None:
    """Without jitter, at the table's own rows, before scaling: mean and spread of many samples."""
    from throughline.search.meta_bo import prior_tasks as _prior_tasks

    x = torch.rand(12, 1, generator=seeded()).double()
    y = x[:, 0].sin() + 0.3 * torch.randn(12, generator=seeded(1)).double()
    model = _prior_tasks._fitted(x, y, 300)
    samples = torch.stack([_prior_tasks._sample(model, x, generator) for generator in [seeded(2)] for _ in range(1000)])
    with torch.no_grad():
        posterior = model.posterior(x, observation_noise=True)
    sigma = posterior.variance.squeeze(-1).sqrt()
    assert ((samples.mean(0) - posterior.mean.squeeze(-1)).abs() < 5 * sigma / 1000**0.5).all()
    assert ((samples.std(0) / sigma - 1).abs() < 0.12).all()


def test_categories_get_no_noise_and_few_points_will_do() -> None:
    x = torch.rand(30, 3, generator=seeded())
    x[:, 1:] = torch.nn.functional.one_hot(torch.arange(30) % 2, 2)
    inputs, _ = gp_prior_tasks([(x, x.sum(-1) + x[:, 1])], num_candidates=50, max_points=10)(seeded())
    assert set(inputs[:, 1:].flatten().tolist()) == {0, 1}
    assert (inputs[:, 1:].sum(-1) == 1).all()
    assert len(set(inputs[:, 0].tolist())) == 50


@pytest.mark.parametrize(
    ("tasks", "options", "match"),
    [
        ([], {}, "tasks must hold at least one task, got none"),
        ([(X, Y)], {"num_candidates": 1}, "num_candidates and max_points must be at least 2, got 1 and 300"),
        ([(X, Y)], {"max_points": 1}, "must be at least 2, got 300 and 1"),
        ([(X, Y)], {"jitter": 1.0}, r"jitter must be in \[0, 1\), got 1.0"),
        (
            [(X, Y[1:])],
            {},
            r"tasks\[0\] must be inputs \(N, d\) and outcomes \(N,\) with N >= 2, got \(20, 2\) and \(19,\)",
        ),
        ([(X[:1], Y[:1])], {}, r"tasks\[0\] must be inputs"),
        ([(X, Y), (X, torch.ones(20))], {}, r"tasks\[1\] has constant outcomes"),
    ],
)
def test_prior_tasks_name_the_bad_argument(tasks: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        gp_prior_tasks(tasks, **options)
