"""The proxylessnas claim: what its arms share and where they differ, what is measured, own data, the paper's scale."""

import math
import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.stand_ins import Notes, colour_folder
from torch import Tensor, nn

from throughline.claims.proxylessnas import data, measuring, paper, training
from throughline.claims.proxylessnas.claim import SearchesInOnePath
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.search.binary_path import BinaryPathSearcher, LatencyTable
from throughline.search.darts import DartsSearcher
from throughline.search.spaces import mobile_space, mobile_space_1d
from throughline.search.supernet import choices

CLAIM = SearchesInOnePath()
SMOKE = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)
TIMES = {"latency_ms", "predicted_ms", "relative_latency", "step_seconds"}


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


def by_parameters(cls: Any, net: nn.Module, x: Tensor, **options: Any) -> LatencyTable:
    """A table that is the same each time: a candidate's parameters."""
    assert torch.get_num_threads() == 1
    assert x.shape[0] == SMOKE.batch
    ops = {name.removesuffix(".choice"): m for name, m in net.named_modules() if type(m).__name__ == "MixedOp"}
    names = {id(choice): name for name, choice in choices(net).items()}
    counts = {
        names[id(op.choice)]: {o: sum(p.numel() for p in m.parameters()) / 1e3 for o, m in op.ops.items()}
        for op in ops.values()
    }
    return LatencyTable(counts, constant=1.0)


@pytest.fixture
def fixed_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LatencyTable, "measure", classmethod(by_parameters))
    size = lambda net, x, **options: float(sum(p.numel() for p in net.parameters()))  # noqa: E731
    monkeypatch.setattr(measuring, "measure_latency", size)


@pytest.fixture
def searching_alone(monkeypatch: pytest.MonkeyPatch, fixed_times: None) -> None:
    """Nothing is trained from scratch, and no memory measured."""
    untrained = lambda task, found, *_, **__: (task.space(decisions=found), 0.5)  # noqa: E731
    monkeypatch.setattr(training, "train_from_scratch", untrained)
    monkeypatch.setattr(training, "bytes_by_candidates", lambda *_: [1.0])


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_repeat_and_say_where_they_are(arm: str) -> None:
    metrics, notes = run(arm)
    again = metrics if arm == "softmax" else run.__wrapped__(arm)[0]
    assert metrics.keys() == again.keys()
    assert {n: v for n, v in again.items() if n not in TIMES} == {n: v for n, v in metrics.items() if n not in TIMES}
    assert all(math.isfinite(value) and value >= 0 for value in metrics.values())
    assert {of for _, of in notes.places} == {2 if arm == "random" else 3}
    assert notes.arrays["point"].shape == (1, 4)
    if arm == "paths":
        assert run(arm, seed=1)[0]["saved_bytes"] != metrics["saved_bytes"]
    if arm != "random":
        shares = notes.arrays["shares"]
        assert shares.shape == (2, 6, 7)
        np.testing.assert_allclose(np.nansum(shares, 2), 1, atol=1e-5)
        assert (np.isnan(shares[0, :, 6]) == [True, False, False, True, False, False]).all()
        assert np.nanmax(np.abs(shares[0] - np.nanmean(shares[0], 1, keepdims=True))) < 1e-2  # weights alone at first
        assert np.nanmax(np.abs(shares[1] - shares[0])) > 1e-2
        assert metrics["blocks"] == sum(shares[1, i, 6] < np.nanmax(shares[1, i]) or i in (0, 3) for i in range(6))


def test_a_path_keeps_less_than_a_quarter_of_the_mixture() -> None:
    (mixture, whole), (path, single) = run("softmax"), run("paths")
    assert path["saved_bytes"] < 0.25 * mixture["saved_bytes"]
    assert whole.arrays["bytes"][-1] == mixture["saved_bytes"]
    assert (np.diff(whole.arrays["bytes"]) > 0).all()
    assert single.arrays["bytes"][0] == pytest.approx(whole.arrays["bytes"][0], rel=0.05)
    assert single.arrays["bytes"].max() < 2 * single.arrays["bytes"].min()


def test_a_fair_fight(monkeypatch: pytest.MonkeyPatch, searching_alone: None) -> None:
    """Every arm has one supernet, one order of batches, and one start and order of the training from scratch."""
    seen: dict[str, list[Any]] = {"nets": [], "searchers": [], "batches": [], "final": []}
    searcher_of = training.searcher_of

    def watched(arm: str, net: nn.Module, table: LatencyTable, task: data.Task, config: Any) -> Any:
        made = searcher_of(arm, net, table, task, config)
        seen["nets"].append(torch.cat([p.detach().flatten() for p in net.parameters()]))
        seen["searchers"].append(made)
        rows: list[Tensor] = []
        step, weight_step = made.step, made.weight_step
        made.step = lambda train, valid: (rows.extend([train[1], valid[1]]), step(train, valid))[1]
        if arm == "softmax":  # a step of the other searcher makes one of the weights, which is counted once
            made.weight_step = lambda train: (rows.append(train[1]) if len(rows) < 2 else None, weight_step(train))[1]
        seen["batches"].append(rows)
        return made

    monkeypatch.setattr(training, "searcher_of", watched)
    for arm in CLAIM.arms:
        torch.manual_seed(hash(arm) % 1000)
        CLAIM.run(arm, replace(SMOKE, warmup=0), 3, Notes())
    assert all(torch.equal(net, seen["nets"][0]) for net in seen["nets"])
    for rows in seen["batches"][1:]:
        assert len(rows) == len(seen["batches"][0]) == 4
        assert all(map(torch.equal, rows, seen["batches"][0]))
    mixed, paths, fast = seen["searchers"]
    assert isinstance(mixed, DartsSearcher)
    assert mixed.grad_clip is None
    assert isinstance(paths, BinaryPathSearcher)
    assert (paths.latency, paths.pairs, fast.pairs) == (None, True, True)
    assert fast.latency.constant == 1
    assert (fast.form, fast.strength) == ("linear", 0.1)
    rates = [[(g["lr"], g["betas"]) for g in s.arch_optimizer.param_groups] for s in seen["searchers"]]
    assert rates == [[(0.06, (0.5, 0.999))], [(0.06, (0.0, 0.999))], [(0.06, (0.0, 0.999))]]


def test_latency_in_the_loss_ends_with_the_smallest_network(searching_alone: None) -> None:
    slow, fast = (
        CLAIM.run(arm, replace(SMOKE, strength=300.0, arch_lr=0.5, warmup=0, epochs=5, every=1), 0, Notes())
        for arm in ("paths", "paths_latency")
    )
    assert fast["blocks"] == 2
    assert fast["predicted_ms"] < slow["predicted_ms"]
    assert fast["relative_latency"] < 0.8 < slow["relative_latency"]
    assert fast["relative_latency"] == pytest.approx(fast["latency_ms"] / 16_362)


def test_only_every_kth_step_is_one_on_the_architecture() -> None:
    calls: list[str] = []
    one = SimpleNamespace(
        model=nn.Linear(1, 1),
        step=lambda train, valid: calls.append(f"both {train}{valid}"),
        weight_step=lambda train: calls.append(f"weights {train}"),
    )
    searcher: Any = training.Occasional(one, 3)
    for train in "abcdef":
        searcher.step(train, "v")
    assert calls == ["weights a", "weights b", "both cv", "weights d", "weights e", "both fv"]
    assert searcher.steps == 6
    assert searcher.weight_step is one.weight_step


def test_the_best_of_random_networks_on_the_validation_half(monkeypatch: pytest.MonkeyPatch, fixed_times: None) -> None:
    drawn: list[dict[str, str]] = []

    def noted(task: data.Task, decisions: dict[str, str], *_: Any, **places: Any) -> tuple[nn.Module, float]:
        if task.final is task.train:
            assert task.test is task.valid
            drawn.append(decisions)
            return task.space(decisions=decisions), float(len(drawn) == 5)
        assert decisions == drawn[-1]
        return task.space(decisions=decisions), len(drawn) / 100

    monkeypatch.setattr(training, "train_from_scratch", noted)
    metrics = CLAIM.run("random", replace(SMOKE, networks=12), 0, notes := Notes())
    assert metrics["test_accuracy"] == 0.05
    assert metrics["candidates"] == 12
    names = [*(f"k{k}e{e}" for k in (3, 5, 7) for e in (3, 6)), "zero"]
    assert [names[code] for code in notes.arrays["decisions"]] == list(drawn[4].values())
    assert notes.arrays["point"].shape == (12, 4)
    options = [set(decisions.values()) for decisions in drawn]
    assert set.union(*options) == {*(f"k{k}e{e}" for k in (3, 5, 7) for e in (3, 6)), "zero"}
    assert len({str(decisions) for decisions in drawn}) == 12
    assert "zero" not in {decisions[f"block.{i}"] for decisions in drawn for i in (0, 3)}


def test_training_from_scratch_learns() -> None:
    config = replace(CLAIM.scales["laptop"], samples=600, final_epochs=5)
    task = CLAIM.task(config, 0)
    decisions = {f"block.{i}": "zero" if i in (1, 2, 4, 5) else "k7e3" for i in range(6)}
    _, accuracy = training.train_from_scratch(task, decisions, config, Notes(), before=0)
    assert accuracy > 0.3  # by chance 0.1


def test_rates_may_be_chosen_on_held_out_training_rows() -> None:
    config = replace(SMOKE, held_out="validation")
    task, usual = CLAIM.task(config, 0), CLAIM.task(SMOKE, 0)
    assert [len(loader) for loader in (task.train, task.valid, task.final)] == [2, 2, 2]
    assert [len(loader) for loader in (usual.train, usual.valid, usual.final)] == [2, 2, 4]
    assert torch.equal(torch.cat([x for x, _ in task.test]), task.valid.x)
    assert torch.equal(task.final.x, task.train.x)
    assert sum(len(y) for _, y in usual.test) == 1_000
    both = torch.cat([usual.train.x, usual.valid.x]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 64


# ---- measuring ----


def test_bytes_are_those_of_the_tensors_that_derivatives_need() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    x = torch.randn(7, 3)
    assert measuring.saved_bytes(net, x) == 4 * (7 * 3 + 7 * 5)  # the input, and tanh's output, which two layers need
    assert measuring.saved_bytes(nn.Sequential(nn.Identity(), nn.Linear(3, 1, bias=False)), x) == 4 * 21


def test_networks_are_timed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, order = nn.Linear(1, 1), nn.Linear(1, 1), []
    times = iter([6.0, 2.0, 9.0, 3.0, 1.0, 1.0])

    def measured(net: nn.Module, x: Tensor, warmup: int, repeats: int) -> float:
        order.append((net, warmup, repeats))
        return next(times)

    monkeypatch.setattr(measuring, "measure_latency", measured)
    assert measuring.interleaved(one, two, torch.ones(1), 3, 40) == (6.0, 3.0)
    assert order == [(one, 10, 40), (two, 10, 40)] * 3


def test_one_thread_is_for_a_while() -> None:
    before = torch.get_num_threads()
    with pytest.raises(AssertionError), measuring.one_thread():
        assert torch.get_num_threads() != 1
    assert torch.get_num_threads() == before


def test_the_reference_has_the_least_of_everything() -> None:
    net = data.reference(mobile_space_1d)
    assert sum(p.numel() for p in net.parameters()) == 16_362
    assert all(p.device.type == "cpu" for p in net.parameters())


# ---- data of the user's own ----


def test_takes_signals(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    y = np.arange(120) % 3
    x = np.sin(np.arange(24) * (1 + y[:, None]) / 3)[:, None] + 0.1 * draw.standard_normal((120, 2, 24))
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    config = replace(SMOKE, data=Source.of(tmp_path / "mine.npz"), final_epochs=12)
    CLAIM.prepare(config)
    assert CLAIM.run("paths_latency", config, 0, Notes())["test_accuracy"] > 0.5
    assert CLAIM.task(config, 0).inputs.shape == (16, 2, 24)


def test_takes_an_image_folder(tmp_path: Path) -> None:
    config = replace(SMOKE, data=colour_folder(tmp_path / "pictures", side=12), final_epochs=2)
    CLAIM.prepare(config)
    assert 0 <= CLAIM.run("random", config, 0, Notes())["test_accuracy"] <= 1
    net = CLAIM.task(config, 0).supernet("cpu")
    assert len(choices(net)) == 21
    assert net.front[0].out_channels == 8  # a quarter of the paper's width


def test_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ThroughlineError, match=r"samples=9999: MNIST-1D has 4000"):
        CLAIM.prepare(replace(SMOKE, samples=9_999))
    np.savez(tmp_path / "short.npz", x=np.zeros((20, 1, 3)), y=np.arange(20) % 2)
    with pytest.raises(DataError, match=r"short\.npz: 4 values or pixels along each side are wanted, got 3"):
        CLAIM.prepare(replace(SMOKE, data=Source.of(tmp_path / "short.npz")))
    for root in ("", str(tmp_path)):
        with pytest.raises(ThroughlineError, match=r"train: no such folder; .* --set root=FOLDER"):
            CLAIM.prepare(replace(SMOKE, dataset="imagenet", root=root))
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    for module, dataset, cure in (
        ("mnist1d", "mnist1d", r"throughline\[signals\]"),
        ("torchvision", "imagenet", "torch"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ThroughlineError, match=cure):
            CLAIM.prepare(replace(SMOKE, dataset=dataset, root=str(tmp_path)))


# ---- the paper's scale ----


class Folder(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """In the place of torchvision's ImageFolder: 12 images of three classes."""

    classes = ("a", "b", "c")

    def __init__(self, root: str, transform: Any) -> None:
        self.root, self.transform = Path(root), transform

    def __len__(self) -> int:
        return 12 if self.root.name == "train" else 5

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(i), i % 3


def test_imagenet_on_a_stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
    datasets: Any = ModuleType("torchvision.datasets")
    datasets.ImageFolder = Folder
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", datasets)
    asked = []

    def transform(name: str, *sizes: int) -> Any:
        asked.append((name, sizes))
        return lambda i: torch.full((3, 32, 32), float(i)) + (0.5 if name == "view" else 0.0)

    monkeypatch.setattr(paper, "views", lambda size: transform("view", size))
    monkeypatch.setattr(paper, "centre_crop", lambda resize, size: transform("middle", resize, size))
    monkeypatch.setattr(paper, "mobile_space", partial(mobile_space, width=0.1, kernels=(3,), expansions=(3,)))
    config = replace(
        CLAIM.scales["paper"], root=str(tmp_path), size=32, batch=2, workers=0, device="cpu", warmup=1, epochs=1
    )
    config = replace(config, final_epochs=1, paths=1, rounds=1, repeats=1)
    CLAIM.prepare(config)
    assert asked == [("middle", (36, 32)), ("view", (32,))]
    task = CLAIM.task(config, 0)
    assert [len(loader) for loader in (task.train, task.valid, task.final, task.test)] == [3, 3, 6, 3]
    rows = [{int(x[0, 0, 0]) for xs, _ in loader for x in xs} for loader in (task.train, task.valid, task.final)]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == rows[2] == set(range(12))
    assert {float(x[0, 0, 0]) % 1 for xs, _ in task.test for x in xs} == {0.0}
    metrics = CLAIM.run("paths_latency", config, 0, Notes())
    assert all(map(math.isfinite, metrics.values()))
    chosen = CLAIM.task(replace(config, held_out="validation"), 0)
    assert [len(loader) for loader in (chosen.final, chosen.test)] == [3, 3]
    assert {int(x[0, 0, 0]) for xs, _ in chosen.test for x in xs} == rows[1]
    assert {float(x[0, 0, 0]) % 1 for xs, _ in chosen.test for x in xs} == {0.0}
