"""The sd-darts claim: what its arms share and where they differ, the measures of a supernet, own data, the grid."""

import copy
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.shared.cells.test_settings import CIFAR, signals, stand_in
from tests.claims.stand_ins import Notes, colour_folder
from torch import Tensor, nn

from throughline.claims.sd_darts import training
from throughline.claims.sd_darts.claim import FlattensTheSupernet
from throughline.claims.sd_darts.config import Config
from throughline.claims.shared.cells import loading, searching
from throughline.errors import ThroughlineError
from throughline.search.darts import DartsSearcher
from throughline.search.self_distillation import SelfDistillationSearcher, sharpness
from throughline.search.supernet import choices, discretise, weight_parameters

pytest.importorskip("mnist1d.data")
CLAIM = FlattensTheSupernet()
SMOKE: Config = CLAIM.scales["smoke"]
ARMS = tuple(arm for arm in (*CLAIM.arms, *CLAIM.context) if arm != "random")


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    torch.manual_seed(seed)
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes behind a search costs nothing."""
    for name in ("accuracy", "eigenvalue", "sharpness"):
        monkeypatch.setattr(training, name, lambda *args, **options: 0.5)
    monkeypatch.setattr(training, "slices", lambda *args: (torch.zeros(1), torch.zeros(1)))
    monkeypatch.setattr("throughline.claims.shared.cells.truth.worth", lambda *args: {"test_accuracy": 0.5})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, light: None) -> dict[str, list[Any]]:
    """The searchers of the arms, the supernets they began and ended with, and the labels of their batches."""
    found: dict[str, list[Any]] = {"searchers": [], "starts": [], "ends": [], "labels": []}
    real = training.run_search

    def spied(searcher: DartsSearcher, batches: Any, *args: Any, **options: Any) -> None:
        found["searchers"].append(searcher)
        found["starts"].append(copy.deepcopy(searcher.model.state_dict()))
        kept: list[Tensor] = []
        found["labels"].append(kept)
        step = searcher.step

        def watched(train: Any, valid: Any) -> Any:
            kept.extend((train[1], valid[1]))
            return step(train, valid)

        searcher.step = watched  # type: ignore[method-assign]
        real(searcher, batches, *args, **options)
        found["ends"].append(copy.deepcopy(searcher.model.state_dict()))

    monkeypatch.setattr(training, "run_search", spied)
    return found


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[n], b[n]) for n in a if isinstance(a[n], Tensor))


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_count_their_epochs(arm: str) -> None:
    metrics, notes = run(arm)
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["gap"] == pytest.approx(metrics["supernet_accuracy"] - metrics["discrete_accuracy"])
    assert notes.places == [(epoch, 4) for epoch in range(4)]
    for name, epochs in {"supernet_accuracy": 4, "discrete_accuracy": 4, "eigenvalue": 3, "train_loss": 4}.items():
        assert len(notes.curve(name)) == epochs, name
    assert list(notes.curve("eigenvalue")) == [0, 2, 3]
    assert list(notes.curve("distillation_loss")) == ([] if arm == "darts" else [1, 2, 3])
    for name in ("supernet_accuracy", "discrete_accuracy"):
        assert notes.curve(name)[3] == pytest.approx(metrics[name])
    assert notes.arrays["decisions"].shape == (6,)


def test_random_search_is_an_arm() -> None:
    metrics, notes = run("random")
    assert metrics["candidates"] == 2 * 3 * 4  # halves, options of an edge, and epochs over one of training
    assert notes.arrays["decisions"].shape == (6,)


def test_a_fair_fight(seen: dict[str, list[Any]]) -> None:
    for arm in ARMS:
        torch.manual_seed(hash(arm) % 1000)
        CLAIM.run(arm, SMOKE, 3, Notes())
    for starts, labels in zip(seen["starts"], seen["labels"], strict=True):
        assert same(starts, seen["starts"][0])
        assert len(labels) == 2 * 4 * 3
        assert all(map(torch.equal, labels, seen["labels"][0]))
    darts, three, one = seen["ends"]
    assert not same(darts, three)
    assert not same(three, one)


def test_without_strength_the_arms_are_one(seen: dict[str, list[Any]]) -> None:
    for arm in ARMS:
        CLAIM.run(arm, replace(SMOKE, strength=0.0, epochs=2), 3, Notes())
    assert all(same(end, seen["ends"][0]) for end in seen["ends"])


def test_what_the_searches_are_set_to(seen: dict[str, list[Any]]) -> None:
    config = replace(SMOKE, darts_decay=0.01, darts_arch_lr=0.02, weight_decay=0.001, arch_lr=0.002, interval=2)
    for arm in ARMS:
        CLAIM.run(arm, config, 0, Notes())
    for arm, searcher in zip(ARMS, seen["searchers"], strict=True):
        decay, rate = (0.01, 0.02) if arm == "darts" else (0.001, 0.002)
        group = searcher.weight_optimizer.param_groups[0]
        assert (group["weight_decay"], group["momentum"], group["initial_lr"]) == (decay, 0.9, 0.025)
        assert searcher.arch_optimizer.param_groups[0]["lr"] == rate
        assert searcher.grad_clip == 5.0
        if arm == "darts":
            assert type(searcher) is DartsSearcher
            continue
        assert isinstance(searcher, SelfDistillationSearcher)
        assert (searcher.strength, searcher.temperature, searcher.warmup) == (1.0, 4.0, 3)  # an epoch of three steps
        assert searcher.teachers.interval == 6
        assert searcher.teachers._snapshots.maxlen == (1 if arm == "one_teacher" else 3)
        assert len(searcher.teachers) == (1 if arm == "one_teacher" else 2)
    laptop = CLAIM.scales["laptop"]
    steps = len(loading.load(laptop, 0).batches()[0])
    assert (steps, laptop.interval * steps, laptop.warmup * steps) == (7, 7, 70)


# ---- measures ----


def supernet() -> tuple[nn.Module, Any]:
    setting = loading.load(SMOKE, 1)
    return setting.supernet().train(), setting


def test_a_discrete_network_is_what_decisions_leave() -> None:
    net, setting = supernet()
    decisions = dict(training.decide(net, SMOKE))
    before = copy.deepcopy(net.state_dict())
    found = training.discrete_accuracy(net, decisions, setting.valid)
    plain = discretise(net, decisions)
    assert found == searching.accuracy(plain, setting.valid)
    cut = dict.fromkeys(decisions)
    with training.decided(net, cut):
        assert all(choice.dropped for choice in choices(net).values())
    with pytest.raises(KeyError), training.decided(net, decisions):
        raise KeyError
    assert same(net.state_dict(), before)
    assert all(c.decision is None and not c.dropped for c in choices(net).values())


def test_slices_go_through_the_supernet() -> None:
    net, setting = supernet()
    before = copy.deepcopy(net.state_dict())
    uphill, across = training.slices(net, setting.valid, torch.Generator().manual_seed(0))
    assert same(net.state_dict(), before)
    loss = searching.loss_of(net, setting.valid).item()
    middle = training.POINTS // 2
    for line in (uphill, across):
        assert line[middle, 0].item() == pytest.approx(0, abs=1e-6)
        assert line[middle, 1].item() == pytest.approx(loss, abs=1e-6)
    at = int((uphill[:, 0] - 0.05).abs().argmin())
    assert uphill[at, 0].item() == pytest.approx(0.05)
    rise = float(sharpness(net, searching.loss_of, setting.valid, rho=0.05))
    assert (uphill[at, 1] - uphill[middle, 1]).item() == pytest.approx(rise, abs=1e-5)
    assert uphill[0, 1] < uphill[-1, 1]


def test_a_random_direction_has_the_norms_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    net, setting = supernet()
    taken: list[list[Tensor]] = []
    monkeypatch.setattr(training, "along", lambda n, s, weights, direction, reach: taken.append(direction))
    for seed in (0, 0, 1):
        training.slices(net, setting.valid, torch.Generator().manual_seed(seed))
    uphill, across, _, again, _, other = taken
    torch.testing.assert_close(torch.cat([d.flatten() for d in uphill]).norm(), torch.tensor(1.0))
    for w, d, e in zip(weight_parameters(net), across, again, strict=True):
        torch.testing.assert_close(d.norm(), w.detach().norm())
        assert torch.equal(d, e)
    assert not torch.equal(across[0], other[0])


def test_measures_are_of_the_validation_half(monkeypatch: pytest.MonkeyPatch, light: None) -> None:
    given = []
    monkeypatch.setattr(training, "run_search", lambda *args, **options: None)
    monkeypatch.setattr(
        training, "sharpness", lambda net, loss, batch, rho: given.append((batch, rho)) or torch.tensor(0.25)
    )
    metrics, _ = run.__wrapped__("darts", 2, rho=0.125, measured=40)
    ((x, y), rho), valid = given[0], loading.load(SMOKE, 2).valid
    assert metrics["sharpness"] == 0.25
    assert rho == 0.125
    assert torch.equal(x, valid[0][:40])
    assert torch.equal(y, valid[1][:40])


# ---- the grid ----


def test_settings_are_chosen_on_the_validation_half(monkeypatch: pytest.MonkeyPatch, light: None) -> None:
    given: list[Any] = []

    def trained(build: Any, train: Any, test: Any, config: Any, seeds: Any) -> list[float]:
        given.append((build, train, test, list(seeds)))
        return [0.5, 0.75]

    monkeypatch.setattr(training, "accuracies", trained)
    setting = loading.load(SMOKE, 100)
    metrics, notes = run.__wrapped__("self_distillation", 100, tuning=True, retrainings=2, epochs=1)
    assert metrics["held_out_accuracy"] == 0.625
    build, train, test, seeds = given[0]
    assert torch.equal(train[1], setting.train[1])
    assert torch.equal(test[1], setting.valid[1])
    assert seeds == [0, 1]
    options = loading.option_names(SMOKE)
    codes = notes.arrays["decisions"]
    assert build.keywords["decisions"] == {n: o[k] for (n, o), k in zip(options.items(), codes, strict=True)}
    assert "held_out_accuracy" not in run("self_distillation")[0]


def test_only_the_small_space_is_tuned() -> None:
    with pytest.raises(ThroughlineError, match=r"tuning is for space=cells, got space=s2; --set tuning=false"):
        CLAIM.prepare(replace(CLAIM.scales["paper"], space="s2", tuning=True))


# ---- data of the user's own, and the paper's scale ----


@pytest.mark.parametrize("kind", ["signals", "images"])
def test_takes_data_of_the_users_own(kind: str, tmp_path: Path) -> None:
    source = signals(tmp_path) if kind == "signals" else colour_folder(tmp_path / "pictures")
    config = replace(SMOKE, data=source, epochs=2, channels=4, final_channels=4, final_epochs=15, final_batch=16)
    CLAIM.prepare(config)
    notes = Notes()
    metrics = CLAIM.run("self_distillation", config, 0, notes)
    assert "rank" not in metrics
    assert metrics["test_accuracy"] > 0.5 or metrics["convolutions"] == 0
    assert notes.curve("distillation_loss")


def test_the_space_of_darts_on_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    kept = {name: getattr(CIFAR, name) for name in CIFAR.__dataclass_fields__}
    config = Config(
        **{**kept, "channels": 2, "epochs": 2, "batch": 5, "retrainings": 1}, warmup=1, measured=2, every=9, products=1
    )
    CLAIM.prepare(config)
    monkeypatch.setattr("throughline.claims.shared.cells.paper.trained", lambda setting, decisions: 0.5)
    monkeypatch.setattr(training, "POINTS", 3)
    monkeypatch.setattr(training, "accuracy", lambda net, part: searching.accuracy(net, (part[0][:2], part[1][:2])))
    notes = Notes()
    assert CLAIM.run("self_distillation", config, 0, notes)["test_accuracy"] == 0.5
    assert (notes.arrays["decisions"] >= 0).sum() == 16  # two edges for each of four nodes, in two kinds of cells
    assert np.isfinite(notes.arrays["uphill"]).all()
