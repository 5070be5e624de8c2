"""Studies of Optuna with the policy: history from storage, a killed study that goes on, workers."""

import math
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna  # noqa: TID253 - the development tools have it
import pytest
import torch
from optuna.distributions import (  # noqa: TID253
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState, create_trial  # noqa: TID253

from throughline.search.meta_bo import NAPOptimizer, NAPSampler, NeuralAcquisitionProcess, encode_parameters
from throughline.search.meta_bo.search_space import num_columns

optuna.logging.set_verbosity(optuna.logging.WARNING)
SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(-2.0, 2.0),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "grid": FloatDistribution(0.0, 1.0, step=0.25),
    "depth": IntDistribution(1, 9, step=2),
    "width": IntDistribution(1, 64, log=True),
    "kernel": CategoricalDistribution(["rbf", None, 3]),
}
PLANE: dict[str, BaseDistribution] = {"x": FloatDistribution(-1.0, 1.0), "n": IntDistribution(0, 40)}


def policy(space: dict[str, BaseDistribution] = PLANE, seed: int = 0) -> NeuralAcquisitionProcess:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuralAcquisitionProcess(
            num_columns(space), d_model=16, num_layers=1, nhead=2, dim_feedforward=16, num_bars=12
        )


def sampler(**changes: Any) -> NAPSampler:
    options: dict[str, Any] = {"horizon": 10, "num_candidates": 64, "seed": 0, **changes}
    return NAPSampler(policy(), PLANE, **options)


def objective(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", -1.0, 1.0) ** 2 + trial.suggest_int("n", 0, 40) / 40


def settings(study: optuna.Study) -> list[tuple[Any, ...]]:
    return [tuple(trial.params.values()) for trial in study.trials]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("y_bounds", [(-1.0, 3.0), None])
def test_a_study_chooses_as_ask_and_tell_do(direction: str, y_bounds: tuple[float, float] | None) -> None:
    made = sampler(y_bounds=y_bounds)
    study = optuna.create_study(direction=direction, sampler=made)
    study.optimize(objective, n_trials=8)
    opt = NAPOptimizer(made.policy, made.candidates, horizon=10, maximize=direction == "maximize", y_bounds=y_bounds)
    for trial in study.trials:
        asked = opt.ask()
        assert torch.equal(asked, encode_parameters(trial.params, PLANE))
        opt.tell(asked, trial.value)  # type: ignore[arg-type]


def test_every_kind_of_parameter_in_a_study() -> None:
    def of_all(trial: optuna.Trial) -> float:
        x = trial.suggest_float("x", -2.0, 2.0) + trial.suggest_float("rate", 1e-4, 1.0, log=True)
        x += trial.suggest_float("grid", 0.0, 1.0, step=0.25) + trial.suggest_int("depth", 1, 9, step=2)
        x += trial.suggest_int("width", 1, 64, log=True)
        return x + (trial.suggest_categorical("kernel", ["rbf", None, 3]) is None)

    study = optuna.create_study(sampler=NAPSampler(policy(SPACE), SPACE, horizon=6, num_candidates=50, seed=1))
    study.optimize(of_all, n_trials=6)
    assert len(set(settings(study))) == 6
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)


def test_seeds() -> None:
    found = []
    for seed in (0, 0, 1, None):
        study = optuna.create_study(sampler=sampler(seed=seed))
        study.optimize(objective, n_trials=4)
        found.append(settings(study))
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert len(set(found[3])) == 4


def test_dynamic_and_foreign_parameters_are_sampled_at_random() -> None:
    def dynamic(trial: optuna.Trial) -> float:
        value = objective(trial) + trial.suggest_float("extra", 0.0, 1.0)
        return value + (trial.suggest_int("only_later", 0, 3) if trial.number > 2 else 0)

    runs = []
    for _ in range(2):
        study = optuna.create_study(sampler=sampler())
        study.optimize(dynamic, n_trials=6)
        runs.append([trial.params for trial in study.trials])
    assert runs[0] == runs[1]
    assert len({params["extra"] for params in runs[0]}) == 6
    other = optuna.create_study(sampler=sampler())  # none of the policy's parameters at all
    other.optimize(lambda trial: trial.suggest_float("z", 0.0, 1.0), n_trials=3)
    assert len(set(settings(other))) == 3


def test_a_range_other_than_the_policy_s_is_kept_to() -> None:
    study = optuna.create_study(sampler=sampler())
    study.optimize(lambda trial: trial.suggest_float("x", 0.9, 1.0) + trial.suggest_int("n", 0, 40), n_trials=8)
    assert all(0.9 <= trial.params["x"] <= 1.0 for trial in study.trials)


def test_failed_pruned_and_enqueued_trials() -> None:
    def fickle(trial: optuna.Trial) -> float:
        value = objective(trial)
        if trial.number == 1:
            raise RuntimeError("of the objective")
        if trial.number == 2:
            trial.report(value, 0)
            raise optuna.TrialPruned
        return math.nan if trial.number == 3 else math.inf if trial.number == 4 else value

    study = optuna.create_study(sampler=sampler())
    study.enqueue_trial({"x": 0.25, "n": 7})
    study.enqueue_trial({"x": 0.3}, skip_if_exists=True)
    study.optimize(fickle, n_trials=9, catch=RuntimeError)
    assert study.trials[0].params == {"x": 0.25, "n": 7}
    assert study.trials[1].params["x"] == 0.3
    states = [trial.state for trial in study.trials]
    assert states[1:4] == [TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL]
    assert states[4:] == [TrialState.COMPLETE] * 5
    assert len(set(settings(study))) == 9  # whatever became of a setting, it is not tried again
    assert math.isfinite(study.best_value)


def test_only_completed_trials_are_history(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = sampler(y_bounds=(0.0, 2.0)), []
    scores = made._scores
    monkeypatch.setattr(made, "_scores", lambda x, y: seen.append((x, y)) or scores(x, y))
    study = optuna.create_study(direction="minimize", sampler=made)
    values = {TrialState.COMPLETE: 0.5, TrialState.PRUNED: 0.1, TrialState.FAIL: None}
    for place, (state, value) in enumerate(values.items()):
        study.add_trial(
            create_trial(state=state, value=value, params={"x": 0.1 * place, "n": place}, distributions=PLANE)
        )
    foreign = {"x": FloatDistribution(-9.0, 9.0), "n": IntDistribution(0, 40)}
    study.add_trial(create_trial(value=0.7, params={"x": 5.0, "n": 1}, distributions=foreign))
    study.ask(PLANE)
    (x, y), *rest = seen
    assert not rest
    assert x.tolist() == [[0.5, 0.0]]
    assert y.tolist() == [0.75]  # (2 - 0.5) / 2: small ones are wanted


def test_beyond_the_horizon_and_beyond_the_candidates() -> None:
    space: dict[str, BaseDistribution] = {"a": CategoricalDistribution(["u", "v"]), "b": IntDistribution(0, 2)}
    study = optuna.create_study(sampler=NAPSampler(policy(space), space, horizon=3, seed=0))
    study.optimize(
        lambda trial: trial.suggest_int("b", 0, 2) + len(trial.suggest_categorical("a", ["u", "v"])), n_trials=9
    )
    assert len(set(settings(study)[:6])) == 6  # each once, then at random
    assert len(study.trials) == 9


def test_trials_that_are_asked_together_differ() -> None:
    study = optuna.create_study(sampler=sampler())
    asked = [study.ask(PLANE) for _ in range(5)]
    assert len({tuple(trial.params.items()) for trial in asked}) == 5
    for trial in asked:
        study.tell(trial, 0.1)
    unnamed = [study.ask() for _ in range(3)]  # no parameter is stored yet: only the sampler knows of the proposals
    assert len({trial.suggest_float("x", -1.0, 1.0) for trial in unnamed}) == 3


def test_workers_do_not_disturb_each_other() -> None:
    study = optuna.create_study(sampler=sampler(num_candidates=200))
    study.optimize(objective, n_trials=24, n_jobs=4)
    assert len(study.trials) == 24
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    assert len(set(settings(study))) == 24


def test_a_sampler_can_be_pickled() -> None:
    made = sampler()
    study = optuna.create_study(sampler=made)
    study.optimize(objective, n_trials=2)
    again = optuna.create_study(sampler=pickle.loads(pickle.dumps(made)))
    again.optimize(objective, n_trials=2)
    assert settings(again) == settings(study)


KILLED = """
import os, signal, sys
import optuna, torch
from tests.search.meta_bo.test_optuna_sampler import objective, sampler

def fatal(trial):
    value = objective(trial)
    if trial.number == 4:
        os.kill(os.getpid(), signal.SIGKILL)  # in the middle of an objective
    return value

study = optuna.create_study(study_name="s", storage=sys.argv[1], sampler=sampler())
study.optimize(fatal, n_trials=10)
"""


def test_a_killed_study_goes_on(tmp_path: Path) -> None:
    whole = optuna.create_study(sampler=sampler())
    whole.optimize(objective, n_trials=5)
    file, copy = tmp_path / "study.db", tmp_path / "copy.db"
    command = [sys.executable, "-c", KILLED, f"sqlite:///{file}"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    shutil.copy(file, copy)
    resumed = []
    for storage in (file, copy):
        study = optuna.load_study(study_name="s", storage=f"sqlite:///{storage}", sampler=sampler())
        assert settings(study) == settings(whole)  # to the trial that was running when it was killed
        assert study.trials[4].state == TrialState.RUNNING
        study.optimize(objective, n_trials=4)
        states = [trial.state for trial in study.trials]
        assert states == [TrialState.COMPLETE] * 4 + [TrialState.RUNNING] + [TrialState.COMPLETE] * 4
        assert len(set(settings(study))) == 9  # nothing twice, not even what was cut off
        resumed.append(settings(study))
    assert resumed[0] == resumed[1]


# trials that do not ask for everything

BRANCHES: dict[str, BaseDistribution] = {
    "momentum": FloatDistribution(0.0, 1.0),
    "opt": CategoricalDistribution(["sgd", "adam"]),
    "rate": FloatDistribution(1e-4, 1.0, log=True),
}


def branching(seed: int, **changes: Any) -> NAPSampler:
    return NAPSampler(policy(BRANCHES, seed), BRANCHES, horizon=20, num_candidates=64, seed=seed, **changes)


def proposals(study: optuna.Study) -> list[tuple[float, ...]]:
    return [tuple(trial.system_attrs.get("throughline:proposal", ())) for trial in study.trials]


@pytest.mark.parametrize("seed", range(4))
def test_a_trial_that_ends_early_uses_its_proposal_up(seed: int) -> None:
    def short(trial: optuna.Trial) -> float:
        trial.suggest_categorical("opt", ["sgd", "adam"])
        raise MemoryError if trial.number % 2 else optuna.TrialPruned

    study = optuna.create_study(sampler=branching(seed))
    study.optimize(short, n_trials=8, catch=MemoryError)
    assert {trial.params["opt"] for trial in study.trials[:2]} == {"sgd", "adam"}  # the one that it has not asked for
    assert len(set(proposals(study))) == 8
    assert {len(trial.params) for trial in study.trials} == {1}


@pytest.mark.parametrize("seed", range(4))
def test_a_conditional_space_is_searched(seed: int) -> None:
    def conditional(trial: optuna.Trial) -> float:
        if trial.suggest_categorical("opt", ["sgd", "adam"]) == "sgd":
            return trial.suggest_float("momentum", 0.0, 1.0)
        return 0.5

    study = optuna.create_study(sampler=branching(seed))
    study.optimize(conditional, n_trials=12)
    assert len(set(settings(study))) == 12  # adam once: another proposal of it would be the same trial
    assert [trial.params["opt"] for trial in study.trials].count("adam") <= 1


def test_what_was_never_asked_for_is_history_as_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = branching(0), []
    scores = made._scores
    monkeypatch.setattr(made, "_scores", lambda x, y: seen.append((x, y)) or scores(x, y))
    study = optuna.create_study(direction="maximize", sampler=made)
    study.optimize(lambda trial: 1.0 * (trial.suggest_categorical("opt", ["sgd", "adam"]) == "adam"), n_trials=3)
    study.optimize(lambda trial: 1.0, n_trials=1)  # asks for nothing: no history
    study.ask(BRANCHES)
    x, y = seen[-1]
    expected = []
    for trial, (momentum, _, rate) in zip(study.trials[:3], proposals(study), strict=False):
        expected.append(encode_parameters({"momentum": momentum, "rate": rate, **trial.params}, BRANCHES))
    assert torch.equal(x, torch.stack(expected))
    assert y.tolist() == [trial.value for trial in study.trials[:3]]


def test_when_all_would_repeat_a_trial_candidates_go_on() -> None:
    study = optuna.create_study(sampler=branching(1))
    study.optimize(lambda trial: len(trial.suggest_categorical("opt", ["sgd", "adam"])), n_trials=70)
    assert len(set(proposals(study)[:64])) == 64  # every candidate once
    assert proposals(study)[64:] == [()] * 6  # then at random


def test_a_narrower_range_uses_the_rest_of_a_proposal_up() -> None:
    def narrow(trial: optuna.Trial) -> float:
        trial.suggest_float("x", 0.9, 1.0)
        trial.suggest_int("n", 0, 40)
        raise MemoryError

    study = optuna.create_study(sampler=sampler())
    study.optimize(narrow, n_trials=8, catch=MemoryError)
    assert len({trial.params["n"] for trial in study.trials}) == 8


def test_an_enqueued_setting_leaves_the_proposal_for_later() -> None:
    plain, queued = (optuna.create_study(sampler=sampler()) for _ in range(2))
    queued.enqueue_trial({"x": 0.123, "n": 7})
    for study in (plain, queued):
        study.optimize(lambda trial: objective(trial) + math.nan, n_trials=4)  # no history
    assert settings(queued)[1:] == settings(plain)[:3]


def test_proposals_keep_to_the_search_space_that_is_given() -> None:
    made = sampler()
    study = optuna.create_study(sampler=made)
    found = []
    for space in ({"n": PLANE["n"]}, {"n": IntDistribution(30, 50)}, {"x": FloatDistribution(-0.5, 0.0)}, {}):
        trial = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
        found.append(made.sample_relative(study, trial, {**space, "other": FloatDistribution(0.0, 1.0)}))
    assert [set(each) for each in found] == [{"n"}, {"n"}, {"x"}, set()]
    assert 30 <= found[1]["n"] <= 40
    assert -0.5 <= found[2]["x"] <= 0.0
    foreign = {"n": CategoricalDistribution(["many", "few"])}
    assert made.sample_relative(study, trial, foreign) == {}  # type: ignore[arg-type]


def test_parameters_that_are_fixed_by_another_sampler_are_left_to_it() -> None:
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        fixed = optuna.samplers.PartialFixedSampler({"x": 0.25}, sampler())
    study = optuna.create_study(sampler=fixed)
    study.optimize(objective, n_trials=10)
    assert {trial.params["x"] for trial in study.trials} == {0.25}
    assert len({trial.params["n"] for trial in study.trials}) == 10
    asked = [study.ask() for _ in range(4)]
    assert len({trial.suggest_int("n", 0, 40) for trial in asked}) == 4


def test_a_policy_that_ran_away_proposes_nothing() -> None:
    made = sampler()
    with torch.no_grad():
        made.policy.embed_x.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="acquisition values must be numbers, got NaN"):
        optuna.create_study(sampler=made).ask(PLANE)


# what is refused


def test_names_the_bad_argument() -> None:
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        sampler(horizon=0)
    with pytest.raises(ValueError, match="num_candidates must be at least 1, got 0"):
        sampler(num_candidates=0)
    with pytest.raises(ValueError, match="y_bounds must be increasing and finite"):
        sampler(y_bounds=(1.0, 0.0))
    with pytest.raises(ValueError, match="search_space must hold at least one parameter, got none"):
        NAPSampler(policy(), {}, horizon=3)
    with pytest.raises(ValueError, match=r"search_space has 8 columns .*, and the policy's in_features is 2"):
        NAPSampler(policy(), SPACE, horizon=3)
    with pytest.raises(TypeError, match="policy must be a NeuralAcquisitionProcess, got Linear"):
        NAPSampler(torch.nn.Linear(2, 2), PLANE, horizon=3)  # type: ignore[arg-type]
    study = optuna.create_study(directions=["minimize", "maximize"], sampler=sampler())
    with pytest.raises(ValueError, match="a study must have one objective, got 2 directions"):
        study.optimize(objective, n_trials=1)
