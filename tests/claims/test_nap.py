"""The claim about learned search: tables, splits, regret, what a search may see, the user's tables and the paper's."""

import json
import pickle
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import SVC
from tests.claims.stand_ins import Notes
from torch import Tensor

from throughline.claims.nap import data
from throughline.claims.nap.claim import SearchesFromExperience
from throughline.claims.nap.config import Config
from throughline.claims.nap.problems import Task
from throughline.claims.nap.searches import initial, kernel, optimizer_of, regret, search
from throughline.claims.nap.training import GRID, surfaces, trained
from throughline.claims.shared import svm_tables
from throughline.data import DataError, Source
from throughline.errors import ThroughlineError
from throughline.lab.engines.local import Local
from throughline.lab.results import Results, judge
from throughline.lab.runner import execute, open_run, plan
from throughline.lab.store import Run, Unit
from throughline.search.meta_bo import NeuralAcquisitionProcess

CLAIM = SearchesFromExperience()
SMOKE = CLAIM.scales["smoke"]
ARMS = (*CLAIM.arms, *CLAIM.context)


@cache
def run(arm: str, seed: int = 0, config: Config = SMOKE) -> tuple[dict[str, float], Notes]:
    notes = Notes()
    torch.manual_seed(seed)
    return CLAIM.run(arm, config, seed, notes), notes


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "throughline"


# tables


def test_a_score_is_that_of_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = svm_tables.classification_set("wine")
    settings = np.array([[0.5, 0.5, 0.0], [0.9, 0.3, 1.0]])
    scores = svm_tables.svc_scores(rows, settings, 0)
    from throughline.data import standardize, stratified_split

    order = np.random.default_rng(0).permutation(len(rows.y))
    x, y = rows.x[order], rows.y[order]
    train, test = stratified_split(y, 0, test=0.4)
    x_train, x_test = (np.clip(part, -5, 5) for part in standardize(x[train], x[test]))
    for score, options in zip(
        scores,
        ({"C": 10**0.5, "gamma": 10**-1.5}, {"C": 10**2.5, "gamma": 10**-2.5, "class_weight": "balanced"}),
        strict=True,
    ):
        model = SVC(max_iter=20_000, **options).fit(x_train, y[train])
        assert score == pytest.approx(balanced_accuracy_score(y[test], model.predict(x_test)))


def test_sets_are_of_the_promised_kind() -> None:
    assert len(svm_tables.SETS) == 25
    for name, classes, count in (
        ("digits", 10, 1797),
        ("digits_179", 3, None),
        ("ecoli", 5, 327),
        ("abalone", 2, None),
    ):
        rows = svm_tables.classification_set(name)
        values, counts = np.unique(rows.y, return_counts=True)
        assert len(values) == classes
        assert counts.min() >= 8
        assert count in (None, len(rows.y))
    halves = np.bincount(svm_tables.classification_set("digits_halves").y)
    assert halves.tolist() == np.bincount(svm_tables.classification_set("digits").y // 5).tolist()
    assert svm_tables.classification_set("oil_spill").x.shape[1] == 48  # without the number of the row
    red = svm_tables.classification_set("wine_red").y
    assert red.mean() == pytest.approx(0.5347, abs=1e-3)  # quality above 5.5


def test_tables_are_made_once(no_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm_tables, "SETS", ("iris", "wine"))
    monkeypatch.setattr(svm_tables, "SETTINGS", 4)
    first = svm_tables.svc_tables()
    assert {name: table.shape for name, table in first.items()} == {"iris": (2, 4), "wine": (2, 4)}
    assert not torch.equal(*first["wine"])  # two subsamples
    monkeypatch.setattr(svm_tables, "svc_scores", lambda *_: pytest.fail("it was there already"))
    again = svm_tables.svc_tables()
    assert all(torch.equal(first[name], again[name]) for name in first)


def stand_in_tables(monkeypatch: pytest.MonkeyPatch, size: int = 20) -> None:
    """Scores out of a formula, in the place of minutes of fits."""
    settings = torch.rand(size, 3, generator=torch.Generator().manual_seed(0))

    def table(number: int) -> Tensor:
        centre = torch.rand(2, 1, 3, generator=torch.Generator().manual_seed(number))
        return (1 - (settings - centre).square().sum(-1)).clamp_min(0).double()

    monkeypatch.setattr(data, "svc_settings", lambda: settings)
    monkeypatch.setattr(data, "svc_tables", lambda: {name: table(i) for i, name in enumerate(svm_tables.SETS)})


def test_whole_data_sets_are_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in_tables(monkeypatch)
    sides = []
    for seed in range(20):
        (problem,) = CLAIM.problems(CLAIM.scales["laptop"], seed)
        train, test = ({task.name.partition(",")[0] for task in side} for side in problem)
        assert len(test) == 8
        assert not train & test
        assert train | test == set(svm_tables.SETS)
        assert len(problem.test) == 16
        held = test & set(svm_tables.DIGITS)
        assert held in (set(), set(svm_tables.DIGITS))
        sides.append((frozenset(test), bool(held)))
    assert len({test for test, _ in sides}) == 20
    assert {held for _, held in sides} == {True, False}


# searches


def test_regret_by_hand() -> None:
    task = Task("t", torch.zeros(4, 1), torch.tensor([0.2, 0.6, 1.0, 0.4]))
    assert regret(task, [0, 3, 1, 0, 2]).tolist() == pytest.approx([1.0, 0.75, 0.5, 0.5, 0.0])


@pytest.mark.parametrize("arm", ARMS)
def test_nothing_but_told_outcomes_is_seen(arm: str) -> None:
    """Outcomes of settings that were not tried may be anything."""
    (problem,) = CLAIM.problems(SMOKE, 0)
    task = problem.test[0]
    policy = trained(arm, problem, SMOKE, 0, Notes()) if arm.startswith("nap") else None
    tried = search(optimizer_of(arm, policy, task, SMOKE, torch.Generator().manual_seed(0)), task, 5, [])
    assert len(set(tried)) == 5
    other = task._replace(y=torch.full_like(task.y, -7.0).index_put((torch.tensor(tried),), task.y[tried]))
    again = search(optimizer_of(arm, policy, other, SMOKE, torch.Generator().manual_seed(0)), other, 5, [])
    assert again == tried


def test_searches_start_where_they_are_told() -> None:
    (problem,) = CLAIM.problems(SMOKE, 0)
    task, draw = problem.test[0], torch.Generator().manual_seed(0)
    config = replace(SMOKE, initial=3)
    start = initial(task, config, draw)
    assert len(set(start)) == 3
    assert initial(task._replace(start=(5, 4, 3, 2)), config, draw) == [5, 4, 3]
    tried = search(optimizer_of("random", None, task, config, draw), task, 6, start)
    assert tried[:3] == start
    assert len(set(tried)) == 6


@pytest.mark.parametrize("trials", [1, 3])
def test_every_arm_starts_from_the_same_settings(trials: int) -> None:
    """So that their regret is one curve until the start is over, however often a task is searched."""
    config = replace(SMOKE, initial=trials, repetitions=2, horizon=4, iterations=1, pretrain=1)
    curves = [list(run(arm, 0, config)[1].curve("regret").values()) for arm in ARMS]
    assert len({tuple(curve[:trials]) for curve in curves}) == 1
    assert len({tuple(curve) for curve in curves}) > 1


def test_the_laptop_gives_every_search_one_random_trial() -> None:
    assert CLAIM.scales["laptop"].initial == SMOKE.initial == 1


def test_the_kernels_are_botorch_s() -> None:
    from botorch.models import SingleTaskGP

    plain = SingleTaskGP(torch.rand(4, 3).double(), torch.rand(4, 1).double()).covar_module
    ours = kernel("rbf", 3).double()
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)).double()
    assert type(ours) is type(plain)
    torch.testing.assert_close(ours(x).to_dense(), plain(x).to_dense())
    matern, gamma = kernel("matern", 3), kernel("matern-gamma", 3)
    assert (matern.nu, gamma.base_kernel.nu) == (2.5, 2.5)
    assert matern.lengthscale.shape == gamma.base_kernel.lengthscale.shape == (1, 3)


def test_the_kernel_of_the_config_is_that_of_the_process() -> None:
    (problem,) = CLAIM.problems(SMOKE, 0)
    made = [
        optimizer_of("gp_ei", None, problem.test[0], replace(SMOKE, kernel=name), torch.Generator()).covar_module
        for name in ("rbf", "matern", "matern-gamma")
    ]
    assert [type(each).__name__ for each in made] == ["RBFKernel", "MaternKernel", "ScaleKernel"]


@pytest.mark.parametrize("arm", ARMS)
def test_metrics_are_means_of_the_logged_regret(arm: str) -> None:
    metrics, notes = run(arm)
    curve = notes.curve("regret")
    assert list(curve) == [*range(1, 7)]
    values = [*curve.values()]
    assert values == sorted(values, reverse=True)
    assert metrics["mean_regret"] == pytest.approx(np.mean(values))
    assert metrics["regret_15"] == pytest.approx(values[-1])
    assert run.__wrapped__(arm)[0] == metrics
    assert {of for _, of in notes.places}


def test_arms_of_the_policy_take_the_same_steps_on_the_likelihood() -> None:
    ours, surrogate = (run(arm)[1] for arm in ("nap", "nap_no_rl"))
    assert list(ours.curve("likelihood_loss")) == list(surrogate.curve("likelihood_loss"))
    assert list(ours.curve("run_return")) == [1, 2, 3]
    assert not surrogate.curve("run_return")


def test_random_is_as_bad_as_the_expectation() -> None:
    config = replace(SMOKE, repetitions=400)
    (problem,) = CLAIM.problems(config, 0)
    _, notes = run("random", 0, config)
    first = np.mean([((t.y.max() - t.y) / (t.y.max() - t.y.min())).mean().item() for t in problem.test])
    assert notes.curve("regret")[1] == pytest.approx(first, abs=0.05)


# training tasks


def test_related_tasks_keep_their_table_s_scale(no_cache: Path) -> None:
    x = torch.rand(20, 2, generator=torch.Generator().manual_seed(0))
    task = Task("t", x, 0.5 + 0.2 * x[:, 0])
    config = replace(SMOKE, related=3, candidates=16, max_points=12)
    drawn = data.related([task, task._replace(name="u", y=task.y - 0.1)], config)
    assert len(drawn) == 6
    for number, (inputs, outcomes) in enumerate(drawn):
        low, high = float(task.y.min()) - 0.1 * (number > 2), float(task.y.max()) - 0.1 * (number > 2)
        assert inputs.shape == (16, 2)
        assert (float(outcomes.min()), float(outcomes.max())) == pytest.approx((low, high))
    assert len(list((no_cache / "tasks").glob("*.safetensors"))) == 2
    again = data.related([task], config)
    assert all(torch.equal(a, b) for one, two in zip(drawn, again, strict=False) for a, b in zip(one, two, strict=True))


# the user's tables


def folder_of_tables(folder: Path, count: int = 3, scale: float = 1.0, **changes: Any) -> Source:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(count):
        x = draw.integers(0, 50, (30, 2)) * (1.0, 100.0)
        frame = pd.DataFrame(x, columns=["depth", "rate"])
        frame["y"] = scale * (1 - ((x / (50, 5000) - draw.random(2)) ** 2).sum(1) / 2)
        frame.assign(**changes).to_csv(folder / f"run{number}.csv", index=False)
    return Source.of(folder)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_takes_a_folder_of_tables(tmp_path: Path, scale: float) -> None:
    config = replace(SMOKE, data=folder_of_tables(tmp_path / "runs", scale=scale))
    CLAIM.prepare(config)
    for seed in range(4):
        (problem,) = CLAIM.problems(config, seed)
        assert [task.name for task in problem.test] == [f"run{seed % 3}"]
        assert len(problem.train) == 2
        outcomes = torch.cat([task.y for task in problem.train])
        if scale == 1:
            assert outcomes.max() < 1  # as they are
        else:
            assert (float(outcomes.min()), float(outcomes.max())) == pytest.approx((0, 1), abs=1e-6)
        for task in (*problem.train, *problem.test):
            assert 0 <= task.x.min() <= task.x.max() <= 1
            assert len(torch.unique(task.x, dim=0)) == len(task.x)
    metrics, _ = run("nap", 0, config)
    assert 0 <= metrics["regret_15"] <= metrics["mean_regret"] <= 1


def test_equal_settings_are_averaged(tmp_path: Path) -> None:
    source = folder_of_tables(tmp_path / "runs")
    frame = pd.read_csv(tmp_path / "runs" / "run0.csv")
    frame.loc[1, ["depth", "rate"]] = frame.loc[0, ["depth", "rate"]]
    frame.to_csv(tmp_path / "runs" / "run0.csv", index=False)
    (problem,) = CLAIM.problems(replace(SMOKE, data=source), 0)
    assert len(problem.test[0].y) == len(frame[["depth", "rate"]].drop_duplicates())
    assert problem.test[0].y.mean() != frame["y"].mean()
    assert any(abs(float(y) - frame["y"][:2].mean()) < 1e-6 for y in problem.test[0].y)


@pytest.mark.parametrize(
    ("changes", "count", "match"),
    [
        ({}, 2, "three tables or more are needed, one is held out; got 2"),
        ({"depth": "deep"}, 3, r"column 'depth' of run0 must hold finite numbers; mend or remove it"),
        ({"depth": 1.0, "rate": 2.0}, 3, r"run1: 1 different settings, the horizon is 6; --set horizon=1 or less"),
        ({"y": 0.5}, 3, "every outcome is the same, and nothing can be searched; leave it out"),
    ],
)
def test_names_the_bad_table(tmp_path: Path, changes: dict[str, Any], count: int, match: str) -> None:
    source = folder_of_tables(tmp_path / "runs", count, **changes)
    with pytest.raises(DataError, match=match):
        CLAIM.prepare(replace(SMOKE, data=source))


def test_tables_must_have_one_set_of_columns(tmp_path: Path) -> None:
    source = folder_of_tables(tmp_path / "runs")
    pd.DataFrame({"depth": [1, 2], "rate": [0.1, 0.2]}).to_csv(tmp_path / "runs" / "run1.csv", index=False)
    with pytest.raises(DataError, match=r"every table needs a column y, .* and others, .*; run1 has depth, rate$"):
        CLAIM.prepare(replace(SMOKE, data=source))
    pd.DataFrame({"depth": [1, 2], "y": [0.1, 0.2]}).to_csv(tmp_path / "runs" / "run1.csv", index=False)
    with pytest.raises(DataError, match="every table needs the same columns; run1 has depth, y, run0"):
        CLAIM.prepare(replace(SMOKE, data=source))


# the paper's tables


def hpob_folder(folder: Path) -> Path:
    folder.mkdir()
    draw = np.random.default_rng(0)

    def table() -> dict[str, Any]:
        x = draw.random((40, 2)).round(2)
        x[7] = x[3]  # a setting that was evaluated twice
        return {"X": x.tolist(), "y": (1 - ((x - draw.random(2)) ** 2).sum(1) / 2)[:, None].tolist()}

    for part in ("train", "test"):
        content = {space: {f"{part}{i}": table() for i in range(2)} for space in ("5860", "4796")}
        (folder / f"meta-{part}-dataset.json").write_text(json.dumps(content))
    starts = {f"test{i}": draw.integers(0, 40, 5).tolist() for i in range(4)} | {"test4": [7, 9, 11, 20, 30]}
    content = {space: {f"test{i}": starts for i in range(2)} for space in ("5860", "4796")}
    (folder / "bo-initializations.json").write_text(json.dumps(content))
    return folder


def small_paper(**changes: Any) -> Config:
    sizes = {"d_model": 8, "num_layers": 1, "nhead": 2, "dim_feedforward": 8, "num_bars": 20, "candidates": 20}
    steps = {"pretrain": 2, "iterations": 1, "episodes": 2, "related": 2, "max_points": 10, "repetitions": 1}
    rest = {"horizon": 7, "spaces": ("5860", "4796"), "device": "cpu"}
    return replace(CLAIM.scales["paper"], **sizes, **steps, **rest, **changes)


def test_paper_scale_on_hpob(tmp_path: Path, no_cache: Path) -> None:
    config = small_paper(tables=str(hpob_folder(tmp_path / "hpob-data")))
    CLAIM.prepare(config)
    problems = CLAIM.problems(config, 4)
    assert [[task.name for task in problem.test] for problem in problems] == [
        [f"{space}/test{i}" for i in range(2)] for space in ("5860", "4796")
    ]
    for task in (task for problem in problems for task in problem.test):
        assert len(task.y) == 39
        assert task.start == (3, 8, 10, 19, 29)  # the second evaluation is left out, and what follows moves up
    for arm in ARMS:
        metrics, notes = run(arm, 4, config)
        assert len(notes.curve("regret")) == 7
        assert np.isfinite([*metrics.values()]).all()
    firsts = {run(arm, 4, config)[1].curve("regret")[5] for arm in ARMS}
    assert len(firsts) == 1  # five initial points in common


def test_paper_scale_on_xgboost(tmp_path: Path, no_cache: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(4):
        x = draw.random((30, 3)) * 9
        content = {"domain": x, "accs": ((x / 9 - 0.5) ** 2).sum(1), "name": "xgb"}
        with (tmp_path / f"hpobenchXGB_{number}_eq.pkl").open("wb") as stream:
            pickle.dump(content, stream)
    config = small_paper(dataset="xgboost", tables=str(tmp_path))
    CLAIM.prepare(config)
    (problem,) = CLAIM.problems(config, 0)
    assert (len(problem.train), len(problem.test)) == (3, 1)
    task = problem.test[0]
    best = task.x[task.y.argmax()]
    assert (best - 0.5).abs().max() < 0.4  # an error rate is made small
    assert np.isfinite([*run("nap", 0, config)[0].values()]).all()


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not run",)


def test_pickles_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "hpobenchXGB_0_eq.pkl"
    file.write_bytes(pickle.dumps({"domain": Harmful(), "accs": np.ones(3)}))
    with pytest.raises(DataError, match=r"hpobenchXGB_0_eq\.pkl: holds builtins\.print, and only arrays are read"):
        CLAIM.problems(small_paper(dataset="xgboost", tables=str(tmp_path)), 0)
    assert not capsys.readouterr().out
    file.write_bytes(pickle.dumps({"inputs": np.ones(3), "accs": np.ones(3)}))
    with pytest.raises(DataError, match="no array named domain; it holds inputs, accs"):
        CLAIM.problems(small_paper(dataset="xgboost", tables=str(tmp_path)), 0)


@pytest.mark.parametrize("dataset", ["hpob", "xgboost"])
def test_says_where_the_paper_s_tables_are(tmp_path: Path, dataset: str) -> None:
    with pytest.raises(
        DataError, match=rf"dataset={dataset} needs its files: get the folder .*, and --set tables=FOLDER"
    ):
        CLAIM.prepare(small_paper(dataset=dataset))
    with pytest.raises(DataError, match=r"no such file; tables must be the folder"):
        CLAIM.prepare(small_paper(dataset=dataset, tables=str(tmp_path)))


def test_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no space '1'; spaces must be among 5860, 4796"):
        CLAIM.prepare(replace(small_paper(tables=str(hpob_folder(tmp_path / "data"))), spaces=("1",)))
    with pytest.raises(ThroughlineError, match=r"test_sets=6 leave 0 tables to learn from, 6 to be judged by"):
        CLAIM.prepare(replace(SMOKE, test_sets=6))
    with pytest.raises(ThroughlineError, match=r"candidates must be at least horizon=6, got 5"):
        CLAIM.prepare(replace(SMOKE, related=1, candidates=5))
    with pytest.raises(ThroughlineError, match=r"d_model must be a multiple of nhead=3, got 16"):
        CLAIM.prepare(replace(SMOKE, nhead=3))
    monkeypatch.setitem(sys.modules, "botorch", None)
    with pytest.raises(ThroughlineError, match=r'botorch is not installed; pip install "throughline\[search\]"'):
        CLAIM.prepare(SMOKE)


# through the lab


def stored(folder: Path, arms: tuple[str, ...], seeds: tuple[int, ...]) -> Run:
    manifest = plan(CLAIM, "smoke", SMOKE, arms, seeds, threads=1, command="throughline run nap")
    return open_run(folder, manifest)[0]


def test_runs_through_the_lab_with_the_numbers_of_a_plain_call(tmp_path: Path) -> None:
    execute(CLAIM, store := stored(tmp_path, ("nap",), (0,)), Local(1))
    results = Results(CLAIM, store, SMOKE)
    assert not results.missing
    metrics, notes = run("nap")
    assert {name: results.values(name, "nap")[0] for name in results.metrics} == pytest.approx(metrics, abs=1e-6)
    assert dict(zip(*results.curve("regret", "nap")[0], strict=True)) == pytest.approx(notes.curve("regret"), abs=1e-6)


def test_draws_what_has_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = stored(tmp_path, ARMS, (0, 1))
    assert len(CLAIM.figures(Results(CLAIM, store, SMOKE))) == 2  # nothing yet
    stand_in_tables(monkeypatch)
    config = replace(SMOKE, dataset="svc", horizon=9, test_sets=1, candidates=20)
    for seed, arms in enumerate((ARMS, ARMS[:1])):
        for arm in arms:
            metrics, notes = run(arm, seed, config)
            names = ("regret", "likelihood_loss", "run_return")
            curves = {
                name: {"step": list(notes.curve(name)), "value": list(notes.curve(name).values())}
                for name in names
                if notes.curve(name)
            }
            store.write(Unit(arm, seed), {"metrics": metrics, "measured": {}, "curves": curves}, notes.arrays)
    results = Results(CLAIM, store, SMOKE)
    regrets, surfaces, training, paired = CLAIM.figures(results).values()
    assert [line.get_label() for line in regrets.axes[0].lines] == [arm.replace("_", " ") for arm in results.arms]
    assert len([axis for axis in surfaces.axes if axis.images]) == 6  # three surfaces an arm
    assert len(training.axes[1].lines) == 1
    assert len(paired.axes) == 1
    judgement = judge(results)
    assert [outcome.quantity for outcome in judgement.outcomes] == ["mean_regret: gp_ei \u2212 nap"]


def test_each_policy_is_pictured_by_what_it_goes_by() -> None:
    torch.manual_seed(0)
    policy = NeuralAcquisitionProcess(3, d_model=8, num_layers=1, num_bars=10)
    task, config = Task("t", torch.rand(9, 3), torch.rand(9)), CLAIM.scales["laptop"]
    whole, bars = (surfaces(arm, policy, task, list(range(9)), config) for arm in ("nap", "nap_no_rl"))
    assert whole.shape == bars.shape == (3, GRID, GRID)
    assert (bars >= 0).all()  # expected improvements
    assert not torch.allclose(whole, bars)
