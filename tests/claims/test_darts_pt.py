"""The darts-pt claim: one supernet for all arms, what each of them goes by, when it tunes, and its pictures."""

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

from throughline.claims.darts_pt import selecting
from throughline.claims.darts_pt.claim import ChoosesByRemoval
from throughline.claims.darts_pt.config import Config
from throughline.claims.shared.cells import loading, searching
from throughline.search.darts import DartsSearcher
from throughline.search.spaces import darts
from throughline.search.supernet import Choice, MixedOp, choices

pytest.importorskip("mnist1d.data")
CLAIM = ChoosesByRemoval()
SMOKE: Config = CLAIM.scales["smoke"]
ARMS = tuple(arm for arm in (*CLAIM.arms, *CLAIM.context) if arm != "random")
NAMES = list(loading.option_names(SMOKE))


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    torch.manual_seed(seed)
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


class Seen:
    """What an arm did: the supernet at the end of its search, and every tuning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.searched: dict[str, Any] = {}
        self.steps: list[tuple[Any, ...]] = []
        real, search = selecting.run_search, selecting.search

        def run_search(searcher: DartsSearcher, *args: Any, **options: Any) -> None:
            real(searcher, *args, **options)
            self.searched = copy.deepcopy(searcher.model.state_dict())
            self.optimizer = searcher.weight_optimizer
            self.arch_optimizer = searcher.arch_optimizer

        def tuned(searcher: DartsSearcher, train: Any, valid: Any, **options: Any) -> None:
            left = [n for n, c in choices(searcher.model).items() if c.decision is None]
            alphas = {n: c.alpha.detach().clone() for n, c in choices(searcher.model).items()}
            search(searcher, train, valid, **options)
            moved = [n for n, c in choices(searcher.model).items() if not torch.equal(c.alpha, alphas[n])]
            self.steps.append((searcher, left, moved, valid is None, options["epochs"]))

        monkeypatch.setattr(selecting, "run_search", run_search)
        monkeypatch.setattr(selecting, "search", tuned)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[n], b[n]) for n in a if isinstance(a[n], Tensor))


# ---- arms ----


def test_the_arms_of_a_seed_have_one_supernet(seen: Seen) -> None:
    ends = {}
    for arm in ARMS:
        torch.manual_seed(hash(arm) % 1000)
        CLAIM.run(arm, SMOKE, 3, Notes())
        ends[arm] = seen.searched
    for arm in ("perturbation", "magnitude_tuned"):
        assert same(ends[arm], ends["magnitude"])
    start = loading.load(SMOKE, 3).supernet().state_dict()
    for name, value in start.items():
        if name.endswith("alpha"):
            assert torch.equal(value, ends["fixed_alpha"][name])
            assert not torch.equal(value, ends["magnitude"][name])
    assert not same(ends["fixed_alpha"], start)


@pytest.mark.parametrize("arm", ARMS)
def test_units_repeat_and_count_their_epochs(arm: str) -> None:
    metrics, notes = run(arm)
    assert run.__wrapped__(arm)[0] == metrics
    assert all(math.isfinite(value) for value in metrics.values())
    total = 3 if arm == "magnitude" else 3 + 5  # five tunings of an epoch between six decisions
    assert notes.places == [(epoch, total) for epoch in range(total)]
    course = notes.arrays["course"]
    assert len(course) == (2 if arm == "magnitude" else 12)
    assert course[0] == pytest.approx(metrics["searched_accuracy"])
    assert course[-1] == pytest.approx(metrics["supernet_accuracy"])
    assert notes.arrays["decisions"].shape == (6,)


def test_random_search_is_an_arm() -> None:
    assert run("random")[0]["candidates"] == 2 * 3 * 3  # halves, options of an edge, and epochs over one of training


def test_each_arm_keeps_what_it_goes_by(seen: Seen) -> None:
    for arm in ("perturbation", "fixed_alpha"):
        _, notes = run.__wrapped__(arm, 1)
        removed = notes.arrays["removed"]
        assert notes.arrays["decisions"].tolist() == removed.argmin(1).tolist()
        assert ((removed >= 0) & (removed <= 1)).all()
        np.testing.assert_allclose(notes.arrays["share"].sum(1), 1, rtol=1e-5)
    _, notes = run.__wrapped__("magnitude", 1)
    alphas = [seen.searched[f"{name}.alpha"] for name in NAMES]
    assert notes.arrays["decisions"].tolist() == [int(alpha.argmax()) for alpha in alphas]


def test_largest_weights_are_kept_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    largest: dict[str, str] = {}
    real = selecting.perturbation_selection

    def spied(net: nn.Module, *args: Any, on_step: Any, **options: Any) -> Any:
        def told(name: str, scores: dict[str, float]) -> None:
            choice = choices(net)[name]
            largest[name] = choice.names[int(choice.alpha.argmax())]
            on_step(name, scores)

        return real(net, *args, on_step=told, **options)

    monkeypatch.setattr(selecting, "perturbation_selection", spied)
    _, notes = run.__wrapped__("magnitude_tuned", 2)
    assert [largest[n] for n in NAMES] == [
        loading.option_names(SMOKE)[n][k] for n, k in zip(NAMES, notes.arrays["decisions"], strict=True)
    ]


def test_mass_falls_by_the_weight_that_is_removed() -> None:
    net = nn.Sequential(*(MixedOp({k: nn.Identity() for k in "abc"}, Choice(["a", "b", "c"], scale=1.0)) for _ in "12"))
    first, second = choices(net).values()
    whole = selecting.mass(net)
    assert whole == pytest.approx(2, abs=1e-6)
    for k, name in enumerate("abc"):
        with first.without(name):
            assert whole - selecting.mass(net) == pytest.approx(first.probabilities()[k].item(), abs=1e-6)
    second.select("b")
    whole = selecting.mass(net)
    with second.without():
        assert whole - selecting.mass(net) == pytest.approx(second.probabilities()[1].item(), abs=1e-6)


def test_tuning_is_between_two_decisions(seen: Seen) -> None:
    for arm in ARMS[1:]:
        seen.steps.clear()
        run.__wrapped__(arm, 4)
        assert [len(left) for _, left, *_ in seen.steps] == [5, 4, 3, 2, 1]  # and none after the last
        for searcher, left, moved, weights_alone, epochs in seen.steps:
            assert set(moved) == (set() if arm == "fixed_alpha" else set(left))
            assert weights_alone == (arm == "fixed_alpha")
            assert epochs == SMOKE.tuning_epochs
            assert searcher.weight_optimizer is not seen.optimizer  # whose momentum stays behind
            assert searcher.arch_optimizer is seen.arch_optimizer
            group = searcher.weight_optimizer.param_groups[0]
            assert (group["lr"], group["momentum"], group["weight_decay"]) == (SMOKE.tuning_lr, 0.9, 3e-4)


def test_both_that_go_edge_by_edge_take_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []

    class Stop(Exception):
        pass

    def ordered(*args: Any, order: Any, **options: Any) -> Any:
        orders.append(order)
        raise Stop

    monkeypatch.setattr(selecting, "perturbation_selection", ordered)
    for arm, seed in (("perturbation", 5), ("magnitude_tuned", 5), ("perturbation", 6)):
        with pytest.raises(Stop):
            run.__wrapped__(arm, seed)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(name for (name,) in orders[0]) == sorted(NAMES)


def test_rounds_of_the_space_of_darts_are_pairs() -> None:
    net = darts(2, 3)
    rounds = selecting.rounds_of(net, torch.Generator().manual_seed(0))
    assert [len(names) for names in rounds] == [2] * 17
    edges, joints = rounds[:14], rounds[14:]
    assert sorted(a for a, _ in edges) == sorted(n for n in choices(net) if n.startswith("normal."))
    assert sorted(b for _, b in edges) == sorted(n for n in choices(net) if n.startswith("reduce."))
    assert [a for a, _ in edges] != sorted(a for a, _ in edges)
    kinds = [{("reduce" if net.get_submodule(n).edges[0].choice in net.reduce.values() else "normal") for n in pair}
             for pair in joints]  # fmt: skip
    assert kinds == [{"normal", "reduce"}] * 3
    assert sorted(len(net.get_submodule(n).edges) for n, _ in joints) == [3, 4, 5]


# ---- data of the user's own, and the paper's scale ----


@pytest.mark.parametrize("kind", ["signals", "images"])
def test_takes_data_of_the_users_own(kind: str, tmp_path: Path) -> None:
    source = signals(tmp_path) if kind == "signals" else colour_folder(tmp_path / "pictures")
    config = replace(SMOKE, data=source, channels=4, final_channels=4, final_epochs=15, final_batch=16)
    CLAIM.prepare(config)
    for arm in CLAIM.arms:
        notes = Notes()
        metrics = CLAIM.run(arm, config, 0, notes)
        assert "rank" not in metrics
        assert metrics["test_accuracy"] > 0.5 or metrics["convolutions"] == 0


@pytest.mark.parametrize("arm", CLAIM.arms)
def test_the_space_of_darts_on_a_stand_in(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, side=8)
    kept = {name: getattr(CIFAR, name) for name in CIFAR.__dataclass_fields__}
    config = Config(**{**kept, "channels": 2, "epochs": 1, "retrainings": 1}, tuning_epochs=1, tuning_lr=0.0025)
    CLAIM.prepare(config)
    monkeypatch.setattr("throughline.claims.shared.cells.paper.trained", lambda setting, decisions: 0.5)
    rates: list[float] = []

    def tuned(searcher: DartsSearcher, *args: Any, **options: Any) -> None:
        rates.append(searcher.weight_optimizer.param_groups[0]["lr"])
        for schedule in options["schedulers"]:
            schedule.optimizer.step()
            schedule.step()

    monkeypatch.setattr(selecting, "search", tuned)
    monkeypatch.setattr(selecting, "accuracy", lambda net, part: searching.accuracy(net, (part[0][:2], part[1][:2])))
    notes = Notes()
    assert CLAIM.run(arm, config, 0, notes)["test_accuracy"] == 0.5
    decided = notes.arrays["decisions"]
    assert (decided >= 0).sum() == 16  # two edges for each of four nodes, in two kinds of cells
    if arm == "perturbation":
        cosine = [0.001 + 0.0015 * (1 + math.cos(math.pi * t / 16)) / 2 for t in range(16)]
        assert rates == pytest.approx(cosine)
