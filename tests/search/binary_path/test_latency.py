"""Latency tables against enumeration and known times, and what measuring leaves as it was."""

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.search.binary_path.nets import DOUBLE, choice, mixed, random
from torch import Tensor, nn

from throughline.search.binary_path import LatencyTable, binary_paths, latency, measure_latency
from throughline.search.spaces import mobile_space
from throughline.search.supernet import Choice, MixedOp, choices

OPTIONS = {"0.choice": {"linear": 1.0, "tanh": 2.0, "norm": 5.0}, "1.choice": {"linear": 3.0, "tanh": 0.5, "norm": 1.0}}


def two() -> nn.Sequential:
    return nn.Sequential(mixed(0), mixed(1))


class Sleep(nn.Module):
    """Takes a known time, and notes the modes it runs in."""

    def __init__(self, ms: float = 0.0, channels: int = 1) -> None:
        super().__init__()
        self.ms, self.scale = ms, nn.Parameter(torch.ones(channels))
        self.calls: list[tuple[bool, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append((self.training, torch.is_grad_enabled()))
        time.sleep(self.ms / 1e3)
        return x * self.scale


# ---- the expectation ----


def test_the_expectation_is_the_mean_over_all_architectures() -> None:
    net, table = two(), LatencyTable(OPTIONS, constant=0.25)
    mean = torch.tensor(0.0, dtype=DOUBLE)
    for names in itertools.product(*(c.names for c in choices(net).values())):
        p = math.prod(c.probabilities()[c.names.index(n)] for c, n in zip(choices(net).values(), names, strict=True))
        mean = mean + p * table.latency(dict(zip(choices(net), names, strict=True)))
    found = table.expected(net)
    torch.testing.assert_close(found, mean)
    alphas = [c.alpha for c in choices(net).values()]
    for ours, theirs in zip(torch.autograd.grad(found, alphas), torch.autograd.grad(mean, alphas), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_inside_of_pairs_it_runs_over_the_pairs() -> None:
    net, table = two(), LatencyTable(OPTIONS)
    paths = {"0.choice": ("norm", "linear"), "1.choice": ("tanh", "norm")}
    with binary_paths(net, pairs=True, paths=paths):
        found = table.expected(net)
    alpha, other = net[0].choice.alpha, net[1].choice.alpha
    q, r = torch.sigmoid(alpha[2] - alpha[0]), torch.sigmoid(other[1] - other[2])
    torch.testing.assert_close(found, 5 * q + (1 - q) + 0.5 * r + (1 - r))
    found.backward()
    assert alpha.grad[1] == other.grad[0] == 0
    assert alpha.grad[2] > 0
    with binary_paths(net, paths={"0.choice": "norm", "1.choice": "tanh"}):
        torch.testing.assert_close(table.expected(net), LatencyTable(OPTIONS).expected(net))


def test_decisions_count_alone() -> None:
    net, table = two(), LatencyTable(OPTIONS, constant=10)
    net[0].choice.select("norm")
    net[1].choice.drop()
    assert table.expected(net).item() == table.latency({"0.choice": "norm", "1.choice": None}) == 15
    net[1].choice.select("linear")
    assert table.expected(net).item() == table.latency({"0.choice": "norm", "1.choice": "linear"}) == 18
    assert LatencyTable({}, constant=2).expected(nn.Linear(1, 1)).item() == 2


def test_follows_the_dtype_of_alpha() -> None:
    net = two().to(torch.bfloat16)
    assert LatencyTable(OPTIONS).expected(net).dtype == torch.bfloat16


# ---- measuring ----


def test_a_known_time_in_milliseconds() -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), Sleep(3.0)).train()
    module[0].eval()
    assert 3.0 <= measure_latency(module, torch.randn(4, 3), warmup=2, repeats=3) < 30
    assert module[1].calls == [(False, False)] * 5
    assert (module.training, module[0].training, module[1].training) == (True, False, True)
    assert module[0].num_batches_tracked == 0
    twice = MixedTwo()
    assert measure_latency(twice, (torch.ones(2), torch.ones(2)), warmup=0, repeats=1) > 0


class MixedTwo(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_measures_candidates_and_what_is_left() -> None:
    """Two layers of one choice add up; the rest is the whole without the first options."""
    shared = Choice(["slow", "fast", "zero", "new"])
    ops = [{"slow": Sleep(4.0), "fast": Sleep(1.0), "zero": nn.Threshold(torch.inf, 0.0)} for _ in range(2)]
    for each in ops:
        each["new"] = Sleep(1.0)
        nn.init.zeros_(each["new"].scale)  # gives zeros only until it has learned
    net = nn.Sequential(MixedOp(ops[0], shared), Sleep(6.0), MixedOp(ops[1], shared)).train()
    table = LatencyTable.measure(net, torch.randn(2, 4), warmup=0, repeats=3)
    times = table.options["0.choice"]
    assert 8 <= times["slow"] < 20
    assert 2 <= times["fast"] < 8
    assert times["zero"] == 0
    assert times["new"] >= 2
    assert 5 <= table.constant < 20
    assert net.training
    assert table.conditions == {
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "dtype": ["float32"],
        "shapes": [[2, 4]],
    }


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes of what is timed; every time is 1, or 100 for a whole network."""
    found: list[Any] = []

    def median(call: Any, leaves: list[Any], warmup: int, repeats: int) -> float:
        found.append([leaf.shape for leaf in leaves if isinstance(leaf, Tensor)])
        call()
        return 1.0

    monkeypatch.setattr(latency, "median_ms", median)
    monkeypatch.setattr(latency, "measure_latency", lambda *args, **options: 100.0)
    return found


def test_each_distinct_candidate_is_timed_once(timed: list[Any]) -> None:
    net = mobile_space(10, width=0.5)
    state = {name: value.clone() for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    table = LatencyTable.measure(net, torch.randn(2, 3, 32, 32))
    assert len(timed) == 66  # six in each of six first blocks, and once more for the others of five stages
    assert [len(times) for times in table.options.values()] == ([6, 7, 7, 7] * 5) + [6]
    assert all(times.get("zero", 0.0) == 0 for times in table.options.values())
    assert table.latency({name: c.names[-1] for name, c in choices(net).items()}) == 100 - 21 + 6
    assert table.constant == 100 - 21
    after = net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in state.items())


def test_candidates_of_one_name_and_other_sizes_are_told_apart(timed: list[Any]) -> None:
    def ops(*modules: nn.Module) -> MixedOp:
        return MixedOp({f"o{i}": module for i, module in enumerate(modules)})

    net = nn.Sequential(
        ops(Power(1, 4), Power(1, 1), Power(1, 4)),  # by shapes: two
        ops(Power(1, 4), Power(2, 4)),  # by an attribute: one more
        nn.Unflatten(1, (4, 1)),
        ops(nn.MaxPool1d(1), nn.AvgPool1d(1)),  # by type: two
        ops(nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=2, dilation=2)),
    )
    LatencyTable.measure(net, torch.randn(2, 4))
    assert len(timed) == 3 + 2 + 2
    assert len({str(shapes) for shapes in timed}) == 2


class Power(nn.Module):
    """Says nothing of its power in its ``repr``."""

    def __init__(self, power: int, channels: int) -> None:
        super().__init__()
        self.power, self.scale = power, nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x**self.power


def test_decided_choices_and_keywords(timed: list[Any]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = MixedOp({"a": Keyed(), "b": Keyed(), "c": Keyed()})

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, scale=2.0) + self.layer(x[:1], scale=2.0) + self.layer(x, scale=3.0)

    net = Net()
    net.layer.choice.select("b")
    table = LatencyTable.measure(net, (torch.randn(2, 4),))
    assert table.options == {"layer.choice": dict.fromkeys("abc", 3.0)}
    assert len(timed) == 3  # one of each kind of call: by shape, and by what is no tensor
    assert table.constant == 97


class Keyed(nn.Module):
    def forward(self, x: Tensor, *, scale: float) -> Tensor:
        return x * scale


def test_the_constant_is_never_negative(timed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "measure_latency", lambda *args, **options: 1.5)
    assert LatencyTable.measure(two(), random(3, 4)).constant == 0


# ---- files and errors ----


def test_a_file_brings_it_back(tmp_path: Path) -> None:
    table = LatencyTable(OPTIONS, constant=0.1)
    table.conditions = {"device": "cpu", "threads": 1, "dtype": ["float32"], "shapes": [[1, 3]]}
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert vars(again) == vars(table)
    assert repr(again) == "LatencyTable(2 choices, constant=0.1)"
    assert json.loads((tmp_path / "table.json").read_text())["conditions"]["threads"] == 1
    for content in ("{", "[]", '{"options": {}}', '{"options": 3, "constant": 1, "conditions": {}}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(ValueError, match=r"bad\.json must be a table as LatencyTable\.save writes it"):
            LatencyTable.load(tmp_path / "bad.json")
    with pytest.raises(OSError, match="none"):
        LatencyTable.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("options", "constant", "match"),
    [
        ({"a": {}}, 0.0, r"options must have a time for each option, got none for a"),
        ({"a": {"x": -1.0}}, 0.0, r"finite and not negative, got -1\.0 for 'x' of a"),
        ({"a": {"x": math.nan}}, 0.0, r"got nan for 'x' of a"),
        ({"a": {"x": math.inf}}, 0.0, r"got inf for 'x' of a"),
        ({}, -0.5, r"constant must be finite and not negative, got -0\.5"),
    ],
)
def test_refuses_times_that_cannot_be(options: Any, constant: float, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        LatencyTable(options, constant)


def test_names_what_a_table_or_decisions_lack() -> None:
    net, table = two(), LatencyTable({"0.choice": OPTIONS["0.choice"]})
    with pytest.raises(ValueError, match=r"must have every choice of the model, and lacks 1\.choice"):
        table.expected(net)
    short = LatencyTable({**OPTIONS, "1.choice": {"linear": 1.0}})
    with pytest.raises(ValueError, match=r"must have every option of 1\.choice, and lacks tanh, norm"):
        short.expected(net)
    with pytest.raises(ValueError, match=r"one for each of 0\.choice, got none for \['0\.choice'\]"):
        table.latency({})
    with pytest.raises(ValueError, match=r"got the unknown \['x'\]"):
        table.latency({"0.choice": "norm", "x": "norm"})
    with pytest.raises(ValueError, match=r"must be options, linear, tanh, norm for 0\.choice, got 'conv'"):
        table.latency({"0.choice": "conv"})


def test_names_what_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match=r"model must have at least one choice, got none"):
        LatencyTable.measure(nn.Linear(1, 1), torch.ones(1))
    nested = MixedOp({"a": nn.Identity(), "b": mixed()}, choice("a", "b"))
    with pytest.raises(ValueError, match=r"does not reach ops\.b\.choice"):
        LatencyTable.measure(nested, random(2, 4), warmup=0, repeats=1)
    with pytest.raises(ValueError, match=r"repeats must be at least 1, got 0"):
        measure_latency(nn.Linear(1, 1), torch.ones(1), repeats=0)
    with pytest.raises(ValueError, match=r"warmup must be at least 0, got -1"):
        LatencyTable.measure(two(), random(2, 4), warmup=-1)
    with pytest.raises(TypeError, match=r"module must be an nn\.Module, got function"):
        measure_latency(lambda x: x, torch.ones(1))  # type: ignore[arg-type]
