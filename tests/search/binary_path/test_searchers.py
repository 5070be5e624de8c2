"""Both searchers: what a step moves and what it leaves, where searches end, and resuming."""

import copy
import io
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.search.binary_path.nets import DOUBLE, Scale, choice, mixed, random, seeded
from torch import Tensor, nn

from throughline.search.binary_path import (
    BinaryPathSearcher,
    LatencyTable,
    ReinforceSearcher,
    binary_paths,
    hardware_loss,
    reinforce_loss,
)
from throughline.search.darts import search
from throughline.search.supernet import MixedOp, arch_parameters, choices, weight_parameters

Batch = tuple[Tensor, Tensor]
TABLE = {"linear": 1.0, "tanh": 2.0, "norm": 5.0}


def network() -> nn.Sequential:
    return nn.Sequential(mixed(0), nn.BatchNorm1d(4, dtype=DOUBLE), mixed(1))


def table() -> LatencyTable:
    return LatencyTable({"0.choice": TABLE, "2.choice": TABLE}, constant=2.0)


def loss(net: nn.Module, batch: Batch) -> Tensor:
    return (net(batch[0]) - batch[1]).square().mean()


def batch(seed: int) -> Batch:
    return random(8, 4, seed=seed), random(8, 4, seed=seed + 100)


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(weight_parameters(net), 0.05, momentum=0.9, nesterov=True, weight_decay=0.1)


def adam(net: nn.Module, lr: float = 0.1, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(arch_parameters(net), lr, **{"betas": (0.0, 0.999), **options})


def by_gradient(net: nn.Module, **options: Any) -> BinaryPathSearcher:
    return BinaryPathSearcher(net, loss, sgd(net), adam(net), **{"generator": seeded(), **options})


def reward(net: nn.Module, batch: Batch, drawn: Mapping[str, tuple[str, ...]]) -> float:
    return -loss(net, batch).item()


def by_reward(net: nn.Module, **options: Any) -> ReinforceSearcher:
    return ReinforceSearcher(net, loss, reward, sgd(net), adam(net), **{"generator": seeded(), **options})


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items() if isinstance(value, Tensor)}


def moved(net: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in state(net).items() if not torch.equal(value, before[name])}


# ---- steps ----


@pytest.mark.parametrize("make", [by_gradient, by_reward])
def test_a_weight_step_moves_the_path_and_nothing_else(make: Any) -> None:
    net = network()
    searcher = make(net)
    for turn in range(8):
        twin = seeded()
        twin.set_state(searcher.generator.get_state())
        with binary_paths(net, gates=False, generator=twin) as drawn:
            pass
        before = state(net)
        values = searcher.weight_step(batch(turn))
        assert list(values) == ["train_loss"]
        allowed = {f"{layer}.ops.{drawn[f'{layer}.choice'][0]}" for layer in (0, 2)} | {"1"}
        found = moved(net, before)
        assert {name for name in found if not name.startswith(tuple(f"{a}." for a in allowed))} == set()
        wanted = {name for name, _ in net.named_parameters() if name.startswith(tuple(f"{a}." for a in allowed))}
        assert wanted <= found


@pytest.mark.parametrize("pairs", [False, True])
def test_an_architecture_step_moves_alpha_alone(pairs: bool) -> None:
    net = network()
    searcher = by_gradient(net, pairs=pairs, latency=table())
    before = state(net)
    values = searcher.architecture_step(batch(1))
    assert list(values) == ["valid_loss", "latency"]
    assert not any(value.requires_grad for value in values.values())
    assert moved(net, before) == {"0.choice.alpha", "2.choice.alpha"}
    assert all(parameter.grad is None for parameter in weight_parameters(net))


@pytest.mark.parametrize("form", ["linear", "log"])
@pytest.mark.parametrize("pairs", [False, True])
def test_an_architecture_step_is_one_of_the_optimizer_on_the_loss_of_the_paper(pairs: bool, form: Any) -> None:
    net, twin = network(), network()
    options = {"pairs": pairs, "latency": table(), "form": form, "strength": 0.7}
    searcher = BinaryPathSearcher(
        net, loss, sgd(net), torch.optim.SGD(arch_parameters(net), 0.2), generator=seeded(4), **options
    )
    values = searcher.architecture_step(batch(1))
    with binary_paths(twin, pairs=pairs, generator=seeded(4)) as drawn:
        task = loss(twin, batch(1))
        expected = table().expected(twin)
        mean = 2 + 8 / 3 + 8 / 3  # where all options are as probable
        assert searcher.reference == pytest.approx(mean)
        hardware_loss(task, expected, reference=mean, form=form, strength=0.7).backward()
    assert values["valid_loss"].item() == pytest.approx(task.item())
    assert values["latency"].item() == pytest.approx(expected.item())
    for name, c in choices(twin).items():
        wanted = c.alpha.detach() - 0.2 * c.alpha.grad
        if pairs:  # the total of both exponentials stays
            places = [c.names.index(option) for option in drawn[name]]
            factor = c.alpha.detach()[places].exp().sum() / wanted[places].exp().sum()
            wanted[places] += factor.log()
        torch.testing.assert_close(choices(net)[name].alpha.detach(), wanted)


def test_a_pair_leaves_its_total_and_all_others_as_they_were() -> None:
    net = network()
    searcher = by_gradient(net, latency=table())
    for turn in range(12):
        before = {name: c.probabilities().detach() for name, c in choices(net).items()}
        alphas = {name: c.alpha.detach().clone() for name, c in choices(net).items()}
        searcher.step(batch(turn), batch(turn + 50))
        for name, c in choices(net).items():
            change = c.probabilities().detach() - before[name]
            still = c.alpha.detach() == alphas[name]
            assert still.sum() == 1  # bit for bit, Adam's memory of earlier gradients notwithstanding
            assert change[still].abs().max() < 1e-12
            assert change.sum().abs() < 1e-12
            assert change[~still].prod() < 0  # one grows and the other shrinks


def test_with_two_options_pairs_and_all_are_the_same() -> None:
    found = []
    for pairs in (False, True):
        net = MixedOp({"a": Scale(2.0), "b": Scale(3.0)}, choice("a", "b"))
        times = LatencyTable({"choice": {"a": 1.0, "b": 4.0}})
        plain = torch.optim.SGD(arch_parameters(net), 0.3)
        linear = lambda net, batch: (net(batch[0]) * batch[1]).mean()  # noqa: E731 - whichever of the two runs
        searcher = BinaryPathSearcher(net, linear, sgd(net), plain, pairs=pairs, latency=times)
        for turn in range(4):
            searcher.architecture_step(batch(turn))
        found.append(net.choice.probabilities().detach())
    torch.testing.assert_close(*found)


def test_a_latency_term_alone_goes_to_the_fastest() -> None:
    net = network()
    searcher = by_gradient(net, latency=table(), strength=1000.0)
    for turn in range(60):
        searcher.architecture_step(batch(turn))
    assert [c.names[int(c.alpha.argmax())] for c in choices(net).values()] == ["linear", "linear"]
    fixed = searcher.discretise()
    assert isinstance(fixed[0], nn.Linear)
    assert not any(isinstance(module, MixedOp) for module in fixed.modules())


@pytest.mark.parametrize("kind", ["pairs", "all", "reward"])
def test_the_right_option_is_found(kind: str) -> None:
    """The target is twice the input, and the candidates are factors that do not learn."""
    ops = {f"o{i}": Scale(factor) for i, factor in enumerate((0.5, 2.0, -1.0, 1.0))}
    net = nn.Sequential(MixedOp(ops, choice(*ops)), nn.Linear(4, 4, dtype=DOUBLE))
    nn.init.eye_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    frozen = torch.optim.SGD(weight_parameters(net), 0.0)
    if kind == "reward":
        searcher: Any = ReinforceSearcher(net, loss, reward, frozen, adam(net), generator=seeded())
    else:
        searcher = BinaryPathSearcher(net, loss, frozen, adam(net), pairs=kind == "pairs", generator=seeded())
    data = [(x, 2 * x) for x in (random(8, 4, seed=s) for s in range(20))]
    seen = []
    search(searcher, data, data, epochs=6, on_epoch=lambda epoch, means: seen.append(means))
    assert net[0].choice.names[int(net[0].choice.alpha.argmax())] == "o1"
    assert net[0].choice.probabilities().max() > 0.6
    assert len(seen) == 6


def test_warm_up_draws_paths_at_random_and_leaves_alpha() -> None:
    net = network()
    searcher = by_gradient(net)
    before = state(net)
    search(searcher, [batch(i) for i in range(12)], None, epochs=1)
    found = moved(net, before)
    assert not any(name.endswith("alpha") for name in found)
    assert all(any(name.startswith(f"{layer}.ops.{option}") for name in found) for layer in (0, 2) for option in TABLE)


def test_gradients_of_weights_are_clipped() -> None:
    net = network()
    searcher = by_gradient(net, grad_clip=1e-3)
    searcher.weight_step(batch(0))
    norm = math.sqrt(sum(p.grad.square().sum() for p in weight_parameters(net) if p.grad is not None))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_when_all_is_decided_there_is_nothing_to_do() -> None:
    for searcher in (by_gradient(network(), latency=table()), by_reward(network())):
        for c in choices(searcher.model).values():
            c.select("tanh")
        before = state(searcher.model)
        assert searcher.architecture_step(batch(0)) == {}
        assert list(searcher.step(batch(0), batch(1))) == ["train_loss"]
        assert {name for name in moved(searcher.model, before) if "alpha" in name} == set()


# ---- rewards ----


def test_rewards_are_asked_for_each_path_without_a_trace() -> None:
    net, asked = network().train(), []

    def note(model: nn.Module, given: Batch, drawn: Mapping[str, tuple[str, ...]]) -> float:
        assert model is net
        assert not torch.is_grad_enabled()
        asked.append((given[0], dict(drawn), reward(model, given, drawn)))
        return asked[-1][2]

    searcher = ReinforceSearcher(
        net, loss, note, sgd(net), torch.optim.SGD(arch_parameters(net), 0.1), samples=7, generator=seeded()
    )
    before = state(net)
    searcher.architecture_step(batch(1))
    assert len(asked) == 7
    assert len({str(drawn) for _, drawn, _ in asked}) > 2
    assert moved(net, before) == {"0.choice.alpha", "2.choice.alpha"}
    twin = network()
    drawn, rewards = [entry[1] for entry in asked], [entry[2] for entry in asked]
    reinforce_loss(twin, drawn, rewards, sum(rewards) / 7).backward()  # the first baseline is the mean itself
    for name, c in choices(net).items():
        wanted = choices(twin)[name].alpha
        torch.testing.assert_close(c.alpha.detach(), wanted.detach() - 0.1 * wanted.grad)
    for path, value in zip(drawn, rewards, strict=True):  # the model ran the path it was told of
        with torch.no_grad(), binary_paths(twin, paths=path, gates=False):
            assert value == pytest.approx(-loss(twin, batch(1)).item())


def test_the_baseline_is_almost_the_present_mean() -> None:
    values = iter([1.0, 3.0, 10.0, 20.0, 0.0, 0.0])
    net = network()
    searcher = ReinforceSearcher(net, loss, lambda *_: next(values), sgd(net), adam(net), samples=2)
    wanted = [2.0, 0.01 * 2 + 0.99 * 15, 0.01 * (0.01 * 2 + 0.99 * 15)]
    for baseline, mean in zip(wanted, (2.0, 15.0, 0.0), strict=True):
        found = searcher.architecture_step(batch(0))
        assert found["reward"].item() == mean
        assert found["baseline"].item() == pytest.approx(baseline) == pytest.approx(searcher.baseline)


# ---- resuming and errors ----


@pytest.mark.parametrize("make", [by_gradient, by_reward])
def test_a_search_goes_on_with_the_same_numbers(make: Any) -> None:
    def run(searcher: Any, turns: range) -> list[float]:
        return [v.item() for turn in turns for v in searcher.step(batch(turn), batch(turn + 50)).values()]

    whole = make(network())
    wanted = run(whole, range(6))
    first = make(network())
    run(first, range(3))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make(network(), generator=seeded(99))
    second.load_state_dict(torch.load(file, weights_only=True))
    assert run(second, range(3, 6)) == wanted[len(wanted) // 2 :]
    for part in ("generator", "model") + ("baseline",) * (make is by_reward):
        missing = {name: value for name, value in first.state_dict().items() if name != part}
        with pytest.raises(ValueError, match=rf"got one without {part}"):
            second.load_state_dict(missing)
    unseeded = make(network(), generator=None)
    assert "generator" not in unseeded.state_dict()
    unseeded.load_state_dict(copy.deepcopy(unseeded.state_dict()))


def test_optimizers_that_would_move_what_was_not_drawn_are_refused() -> None:
    net = network()
    for optimizer, match in (
        (adam(net, betas=(0.5, 0.999)), r"the first beta of 0 with pairs=True, got 0\.5: it would move options"),
        (adam(net, weight_decay=1e-3), r"weight_decay of 0 with pairs=True, got 0\.001"),
        (torch.optim.SGD(arch_parameters(net), 0.1, momentum=0.9), r"momentum of 0 with pairs=True, got 0\.9"),
    ):
        with pytest.raises(ValueError, match=match):
            BinaryPathSearcher(net, loss, sgd(net), optimizer)
        BinaryPathSearcher(net, loss, sgd(net), optimizer, pairs=False)


def test_names_what_does_not_fit() -> None:
    net = network()
    for options, match in (
        ({"reference": 3.0}, r"reference must come with a latency table, got 3\.0 without one"),
        ({"latency": LatencyTable({"0.choice": TABLE})}, r"the table must have every choice .* lacks 2\.choice"),
        ({"latency": table(), "reference": -1.0}, r"reference must be positive and finite, got -1\.0"),
        ({"latency": table(), "reference": 0.5, "form": "log"}, r"reference must be above 1"),
        ({"latency": table(), "form": "cubic"}, r"form must be 'linear' or 'log'"),
    ):
        with pytest.raises(ValueError, match=match):
            by_gradient(net, **options)
    for options, match in (
        ({"samples": 0}, r"samples must be at least 1, got 0"),
        ({"baseline_momentum": 1.0}, r"baseline_momentum must be in \[0, 1\), got 1\.0"),
        ({"baseline_momentum": -0.1}, r"baseline_momentum must be in \[0, 1\), got -0\.1"),
    ):
        with pytest.raises(ValueError, match=match):
            by_reward(net, **options)
    with pytest.raises(TypeError, match=r"reward must be callable, .* got float"):
        ReinforceSearcher(net, loss, 1.0, sgd(net), adam(net))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"reward must be a finite number, got nan"):
        ReinforceSearcher(net, loss, lambda *_: math.nan, sgd(net), adam(net)).architecture_step(batch(0))
    with pytest.raises(ValueError, match=r"weight_optimizer must not hold"):
        BinaryPathSearcher(net, loss, torch.optim.SGD(net.parameters(), 0.1), adam(net))
