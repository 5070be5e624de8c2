"""Runs against a loop over them, advantages against sums, and what is known before a trial."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.search.meta_bo.problems import drawn, policy, quadratics, seeded

from throughline.search.meta_bo import generalized_advantages
from throughline.search.meta_bo.runs import Episodes, TaskPool, collect, iid_context, run_context


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


def test_a_task_is_drawn_whole_or_in_part() -> None:
    episodes = drawn(200)
    assert sorted(set(episodes.real.sum(-1).tolist())) == [8, 10]
    for e in range(20):
        rows = episodes.x[e][episodes.real[e]]
        assert len(torch.unique(rows, dim=0)) == len(rows)


def test_an_incumbent_may_lie_below_zero() -> None:
    episodes = drawn()
    below = episodes._replace(y=episodes.y - 3)
    runs = collect(policy(), below, horizon=4, top_k=3, regret_floor=1e-3, generator=seeded())
    incumbents = below.y.gather(1, runs.tried).cummax(1).values
    assert (incumbents < 0).all()
    assert torch.equal(runs.state[:, 1:, 0], incumbents[:, :-1])
    assert runs.state[:, 0, 0].tolist() == [0.0] * 5  # before the first trial
    best = below.y.masked_fill(~below.real, -torch.inf).amax(1, keepdim=True)
    torch.testing.assert_close(runs.regret, best - incumbents)
