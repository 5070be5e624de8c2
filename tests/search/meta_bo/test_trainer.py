"""Training: PPO's terms against their formulas, what is learned, and what is refused."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from tests.search.meta_bo.problems import drawn, policy, quadratics, seeded
from torch import Generator, Tensor

from throughline.search.meta_bo import (
    AcquisitionTrainer,
    NeuralAcquisitionProcess,
)
from throughline.search.meta_bo.runs import Episodes, collect, iid_context
from throughline.search.meta_bo.trainer import standardized


def trainer(net: NeuralAcquisitionProcess | None = None, **changes: Any) -> AcquisitionTrainer:
    options = {"horizon": 4, "num_candidates": 10, "episodes": 6, "total": 5, "warmup": 2, "generator": seeded()}
    return AcquisitionTrainer(policy() if net is None else net, **{"tasks": quadratics(), **options, **changes})


def test_standardized_leaves_equal_numbers_alone() -> None:
    x = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    np.testing.assert_allclose(standardized(x).numpy(), (x.numpy() - 3) / x.numpy().std(), rtol=1e-12)
    assert standardized(torch.full((4,), 2.5)).tolist() == [2.5] * 4
    assert standardized(torch.ones(1)).tolist() == [1]


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


def test_replaced_parameters_are_noticed() -> None:
    made = trainer()
    made.policy.load_state_dict(made.policy.state_dict(), assign=True)
    for learn in (made.step, lambda: made.pretrain(1)):
        with pytest.raises(ValueError, match="policy has other parameters than those that are being trained"):
            learn()


def test_takes_the_policy_itself() -> None:
    torch.compiler.reset()
    assert math.isfinite(trainer(torch.compile(policy(), backend="eager")).pretrain(1))  # type: ignore[arg-type]
    for wrapped in (torch.nn.DataParallel(policy()), torch.nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=r"policy must be a NeuralAcquisitionProcess, got (Data|Lin)"):
            trainer(wrapped)  # type: ignore[arg-type]
