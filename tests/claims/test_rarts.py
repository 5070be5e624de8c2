"""The rarts claim: one supernet for all arms, the limits on the solvable model, what a step costs, and its pictures."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.claims.shared.cells.test_settings import CIFAR, signals, stand_in
from tests.claims.stand_ins import Notes, colour_folder
from torch import Tensor

from throughline.claims.rarts import searching, solvable
from throughline.claims.rarts.claim import RelaxesTheSearch
from throughline.claims.rarts.config import Config
from throughline.claims.shared.cells import loading
from throughline.lab.results import Results
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Unit
from throughline.search.darts import DartsSearcher
from throughline.search.relaxed import RelaxedSearcher

pytest.importorskip("mnist1d.data")
CLAIM = RelaxesTheSearch()
SMOKE: Config = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)
SEARCHES = ARMS[:-1]


@cache
def run(arm: str, seed: int = 0, **changes: Any) -> tuple[dict[str, float], Notes]:
    torch.manual_seed(seed)
    notes = Notes()
    return CLAIM.run(arm, replace(SMOKE, **changes), seed, notes), notes


# ---- arms ----


@pytest.mark.parametrize("arm", ARMS)
def test_units_repeat_and_count_their_epochs(arm: str) -> None:
    metrics, notes = run(arm)
    assert all(math.isfinite(value) for value in metrics.values())
    assert notes.arrays["decisions"].shape == (6,)
    if arm == "random":
        assert run.__wrapped__(arm)[0] == metrics
        assert metrics["candidates"] == 18
        return
    repeated = run.__wrapped__(arm, timed=1, warmup=0, solvable_steps=1)[0]
    kept = ("test_accuracy", "supernet_accuracy", "convolutions")
    assert [repeated[name] for name in kept] == [metrics[name] for name in kept]
    assert notes.places == [(epoch, 3) for epoch in range(3)]
    course = notes.arrays["shares"]
    assert course.shape == (4, 6, 3)
    np.testing.assert_allclose(course.sum(2), 1, rtol=1e-5)
    assert notes.arrays["decisions"].tolist() == course[-1].argmax(1).tolist()
    assert metrics["step_cost"] > 0
    end = notes.arrays["plane"][-1].tolist()
    assert len(notes.arrays["plane"]) == 301
    assert metrics["solvable_error"] == math.dist(end, solvable.limit(arm))
    assert metrics["solvable_distance"] == math.dist(end[:2], (1, 1))
    assert ("gap" in notes.points[0][1]) == arm.startswith("rarts")


def test_all_arms_of_a_seed_start_alike_and_see_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[dict[str, Any], list[Tensor], tuple[float, ...]]] = []

    def looked(searcher: Any, batches: Any, config: Config, log: Any, **options: Any) -> None:
        rows = [part for _ in range(2) for batch in batches for x, y in batch for part in (x, y)]
        groups = [o.param_groups[0] for o in (searcher.weight_optimizer, searcher.arch_optimizer)]
        rates = tuple(group[name] for group in groups for name in ("lr", "weight_decay"))
        seen.append((copy.deepcopy(searcher.model.state_dict()), rows, (*rates, searcher.grad_clip)))

    monkeypatch.setattr(searching, "run_search", looked)
    for arm in SEARCHES:
        torch.manual_seed(hash(arm) % 1000)
        searching.searched(arm, loading.load(SMOKE, 3), SMOKE, Notes())
    start, rows, rates = seen[0]
    assert rates == (0.025, 3e-4, 3e-3, 1e-3, 5.0)
    assert len(rows) == 2 * 2 * 2
    for state, others, other_rates in seen[1:]:
        assert all(torch.equal(state[n], v) for n, v in start.items() if isinstance(v, Tensor))
        assert all(map(torch.equal, rows, others))
        assert other_rates == rates


def test_what_each_arm_searches_by() -> None:
    setting = loading.load(SMOKE, 0)
    config = replace(SMOKE, lam=2.0, beta=3.0)
    found = {arm: searching.searcher_of(arm, setting.supernet(), config) for arm in SEARCHES}
    first, second, fused, sweep = found.values()
    assert isinstance(first, DartsSearcher)
    assert isinstance(second, DartsSearcher)
    assert (first.unrolled, second.unrolled) == (False, True)
    for made, name in ((fused, "fused"), (sweep, "gauss-seidel")):
        assert isinstance(made, RelaxedSearcher)
        assert (made.sweep, made.lam, made.beta) == (name, 2.0, 3.0)
    ends = {arm: run(arm)[1].arrays["shares"][-1] for arm in SEARCHES}
    for i, one in enumerate(SEARCHES):
        for other in SEARCHES[i + 1 :]:
            assert not np.array_equal(ends[one], ends[other])


# ---- the solvable model ----


@pytest.mark.parametrize("arm", SEARCHES)
def test_every_arm_goes_to_its_limit(arm: str) -> None:
    course = solvable.courses(arm, 700 if arm == "rarts" else 500)
    assert course[0, :2].tolist() == [2, -2]
    assert math.dist(course[-1].tolist(), solvable.limit(arm)) < 1e-3
    assert math.dist(course[300].tolist(), solvable.limit(arm)) > 1e-6  # not there from the start


def test_the_limits_are_stationary() -> None:
    """Of the relaxed loss by its Hessian, of DARTS by what its steps are."""
    lam = beta = 10.0
    hessian = np.array([[2 * lam, -2 * lam, 1], [-2 * lam, 2 * lam + beta, -beta], [1, -beta, beta]])  # in α, w and y
    assert (np.linalg.eigvalsh(hessian) > 0).all()
    np.testing.assert_allclose(solvable.limit("rarts"), np.linalg.solve(hessian, [2.0, 0, 0]))
    assert solvable.limit("rarts_gauss_seidel") == solvable.limit("rarts")
    alpha, w = solvable.limit("darts_first")
    assert (w - 2, w - alpha) == (0, 0)
    alpha, w = solvable.limit("darts_second")
    ahead = w - 0.02 * 2 * (w - alpha)
    assert w == alpha
    assert ahead - 2 + 2 * 0.02 * alpha == pytest.approx(0)  # d/dα of α w'(α) − 2α + 1
    distances = [math.dist(solvable.limit(arm)[:2], solvable.SOLUTION) for arm in CLAIM.arms]
    assert distances == pytest.approx([math.sqrt(2), 1.30543, 0.08547], abs=1e-5)


# ---- what a step costs ----


class Slow:
    """A searcher whose steps take as long as it is told, and ten times as long at first."""

    def __init__(self, seconds: float, clock: list[float], order: list[str], name: str) -> None:
        self.seconds, self.clock, self.order, self.name = seconds, clock, order, name

    def step(self, train: Any, valid: Any) -> None:
        assert len(train) == len(valid) == 2
        self.clock[0] += self.seconds * (10 if self.order.count(self.name) < SMOKE.warmup else 1)
        self.order.append(self.name)


def test_a_step_is_timed_in_turn_with_the_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order, made = [0.0], [], iter([("own", 2.5), ("base", 1.0)])  # type: ignore[var-annotated]

    def searcher(*_: Any) -> Slow:
        name, seconds = next(made)
        return Slow(seconds, clock, order, name)

    def clock_of(device: str) -> Callable[[], float]:
        return lambda: clock[0]

    monkeypatch.setattr(searching, "searcher_of", searcher)
    monkeypatch.setattr(searching, "clock_of", clock_of)
    assert searching.step_cost("rarts", loading.load(SMOKE, 0), SMOKE) == pytest.approx(2.5)
    assert order == ["base", "own", "own", "base"] * 2


# ---- data of the user's own, and the paper's scale ----


@pytest.mark.parametrize("kind", ["signals", "images"])
def test_takes_data_of_the_users_own(kind: str, tmp_path: Path) -> None:
    source = signals(tmp_path) if kind == "signals" else colour_folder(tmp_path / "pictures")
    config = replace(
        SMOKE, data=source, channels=4, final_channels=4, final_epochs=15, final_batch=16, timed=1, solvable_steps=1
    )
    CLAIM.prepare(config)
    for arm in ("rarts", "random"):
        metrics = CLAIM.run(arm, config, 0, Notes())
        assert "rank" not in metrics
        assert metrics["test_accuracy"] > 0.5 or metrics["convolutions"] == 0


@pytest.mark.parametrize("arm", ["rarts", "random"])
def test_the_space_of_darts_on_a_stand_in(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    kept = {name: getattr(CIFAR, name) for name in CIFAR.__dataclass_fields__}
    config = Config(
        **{**kept, "space": "s3", "channels": 2, "epochs": 1, "retrainings": 1}, timed=1, warmup=0, solvable_steps=1
    )
    CLAIM.prepare(config)
    monkeypatch.setattr("throughline.claims.shared.cells.paper.trained", lambda setting, decisions: 0.5)
    monkeypatch.setattr(searching, "accuracy", lambda net, part: 0.5)
    notes = Notes()
    assert CLAIM.run(arm, config, 0, notes)["test_accuracy"] == 0.5
    assert (notes.arrays["decisions"] > 0).sum() == 16  # two edges for each of four nodes, twice, and "none" nowhere


# ---- pictures ----


def test_pictures_are_drawn_from_what_was_kept(tmp_path: Path) -> None:
    from throughline.claims.rarts import figures as draw

    manifest = plan(CLAIM, "smoke", SMOKE, ARMS, (0,), threads=1, command="throughline run rarts")
    store, _ = open_run(tmp_path, manifest)
    assert [picture(Results(CLAIM, store, SMOKE)) for picture in (draw.plane, draw.weights, draw.costs)] == [None] * 3
    for arm in ARMS:
        metrics, notes = run(arm)
        store.write(Unit(arm, 0), {"metrics": metrics, "measured": {}, "curves": {}}, notes.arrays)
    results = Results(CLAIM, store, SMOKE)
    plane, weights, costs = (picture(results) for picture in (draw.plane, draw.weights, draw.costs))
    assert plane is not None
    labels = [text.get_text() for text in plane.axes[0].get_legend().get_texts()]
    assert labels[2:] == ["darts first", "darts second", "rarts", "rarts gauss seidel"]
    assert weights is not None
    assert len(weights.axes) == 2 * 6
    assert costs is not None
    assert len(costs.axes[0].get_xticks()) == 4
    assert len(CLAIM.figures(results)) >= 5
