"""The trained policy as a sampler of Optuna."""

import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from optuna.samplers import BaseSampler, RandomSampler  # noqa: TID253 - loaded when NAPSampler is first touched
from optuna.study import Study, StudyDirection  # noqa: TID253
from optuna.trial import FrozenTrial, TrialState  # noqa: TID253
from torch import Tensor

from throughline.search.meta_bo.ask_tell import best_place, check_bounds, scaled_outcomes
from throughline.search.meta_bo.process import NeuralAcquisitionProcess, plain_policy
from throughline.search.meta_bo.search_space import encode_parameters, num_columns, spread

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["NAPSampler"]

LOCK = threading.Lock()  # of proposals: two trials of one process never get the same
PROPOSAL = "throughline:proposal"  # the attribute of a trial that keeps what was proposed to it


class NAPSampler(BaseSampler):
    """Optuna's studies by a trained policy, which knows such searches from earlier ones.

    "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (NAP, arXiv 2305.15930). The parameters of
    ``search_space`` are proposed together, out of a fixed set of candidates, in the columns of `encode_parameters`. All
    others are sampled at random. History and proposals are read from the study's storage at every trial, so that a
    study can be stopped, killed and loaded again: with the same seed the candidates are the same.

    Completed trials are the policy's history; a parameter that one never asked for, as in a conditional space, counts
    as it was proposed. No proposal comes again once a trial has used any of it, whatever became of the trial; and as
    long as there are others, none comes that agrees with all that an ended trial asked for, because it would repeat it.
    After ``horizon`` trials, the policy goes on as in its last; when no candidate is left, settings are random.

    Args:
        policy: a trained `NeuralAcquisitionProcess`, also compiled or averaged.
        search_space: distributions of Optuna by name, in the order of the columns.
        horizon: T, the number of completed trials that the search will have, as in training.
        num_candidates: settings to choose from, spread over the space; equal ones count once.
        seed: of the candidates and of random parameters; from the system if None.
        y_bounds: of `NAPOptimizer`.

    Raises:
        ImportError: Optuna is not installed.
        TypeError: ``policy`` is none.
        ValueError: ``search_space`` is empty or has other columns than the policy, an argument is out of range, a study
            has several objectives, or the policy's scores are NaN.

    >>> import optuna
    >>> space = {"x": optuna.distributions.FloatDistribution(-5.0, 5.0)}
    >>> policy = NeuralAcquisitionProcess(1, d_model=16, num_layers=1, num_bars=20)
    >>> study = optuna.create_study(sampler=NAPSampler(policy, space, horizon=10, seed=0))
    >>> study.optimize(lambda trial: trial.suggest_float("x", -5.0, 5.0) ** 2, n_trials=3)
    >>> len(study.trials)
    3
    """

    def __init__(
        self,
        policy: NeuralAcquisitionProcess,
        search_space: "Mapping[str, BaseDistribution]",
        *,
        horizon: int,
        num_candidates: int = 1000,
        seed: int | None = None,
        y_bounds: tuple[float, float] | None = None,
    ) -> None:
        for name, count in (("horizon", horizon), ("num_candidates", num_candidates)):
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}")
        if not search_space:
            raise ValueError("search_space must hold at least one parameter, got none")
        if (width := num_columns(search_space)) != plain_policy(policy).embed_x.in_features:
            raise ValueError(
                f"search_space has {width} columns (one a number, one for each choice of a category), and the policy's "
                f"in_features is {plain_policy(policy).embed_x.in_features}"
            )
        check_bounds(y_bounds)
        self.policy, self.search_space = policy.eval(), dict(search_space)
        self.horizon, self.y_bounds = horizon, y_bounds
        seed = torch.seed() % 2**31 if seed is None else seed
        self.candidates, self.settings = spread(self.search_space, num_candidates, seed)
        self.places = torch.stack([self._place(setting) for setting in self.settings])  # (m, parameters)
        self.independent = RandomSampler(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> "dict[str, BaseDistribution]":
        """The space that the policy proposes in."""
        return dict(self.search_space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: "dict[str, BaseDistribution]"
    ) -> dict[str, Any]:
        """The most promising candidate that is still to be tried, as far as ``search_space`` wants it; {} without one.

        Candidates that ``search_space`` does not allow are left out, as are parameters that it does not name.
        """
        if len(study.directions) > 1:
            raise ValueError(f"a study must have one objective, got {len(study.directions)} directions")
        wanted = [name for name in self.search_space if name in search_space]
        if not wanted:
            return {}
        with LOCK:
            trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
            allowed = self._allowed({name: search_space[name] for name in wanted})
            free, fresh = self._untried(trials, wanted)
            free &= allowed
            fresh &= free
            if not free.any():
                return {}
            scores = self._scores(*self._history(trials, study.direction))
            choice = best_place(scores.masked_fill(~(fresh if fresh.any() else free), -torch.inf))
            study._storage.set_trial_system_attr(trial._trial_id, PROPOSAL, self.places[choice].tolist())
        return {name: self.settings[choice][name] for name in wanted}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: "BaseDistribution"
    ) -> Any:
        """A parameter outside the space, at random."""
        return self.independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """New random numbers for parameters outside the space; the candidates stay."""
        self.independent.reseed_rng()

    def _place(self, params: Mapping[str, Any]) -> Tensor:
        """Parameters as Optuna stores them, one number each: NaN where one is missing, infinite where it is foreign."""
        numbers = []
        for name, distribution in self.search_space.items():
            number = math.nan
            if name in params:
                try:
                    number = distribution.to_internal_repr(params[name])
                    number = number if distribution._contains(number) else math.inf
                except ValueError:
                    number = math.inf
            numbers.append(number)
        return torch.tensor(numbers, dtype=torch.double)

    def _proposal(self, trial: FrozenTrial) -> Tensor:
        """What was proposed to a trial; NaN where this is not known."""
        numbers = trial.system_attrs.get(PROPOSAL, ())
        known = len(numbers) == len(self.search_space)
        return torch.tensor(numbers if known else [math.nan] * len(self.search_space), dtype=torch.double)

    def _allowed(self, search_space: "dict[str, BaseDistribution]") -> Tensor:
        """Which candidates lie in another search space."""
        allowed = torch.ones(len(self.settings), dtype=torch.bool)
        for name, distribution in search_space.items():
            if distribution != self.search_space[name]:
                inside = [_contains(distribution, setting[name]) for setting in self.settings]
                allowed &= torch.tensor(inside)
        return allowed

    def _untried(self, trials: list[FrozenTrial], wanted: list[str]) -> tuple[Tensor, Tensor]:
        """The candidates that no trial has, and those that would not repeat one in what is wanted: ``(m,)`` each."""
        free, fresh = torch.ones(2, len(self.settings), dtype=torch.bool)
        columns = [place for place, name in enumerate(self.search_space) if name in wanted]
        for trial in trials:
            proposal, asked = self._proposal(trial), self._place(trial.params)
            ended = trial.state.is_finished()
            if not ended or (proposal == asked).any():
                free &= (self.places != proposal).any(-1)
            free &= (self.places != asked).any(-1)
            given = (asked if ended else proposal)[columns]
            if not given.isnan().all():
                fresh &= ((self.places[:, columns] != given) & ~given.isnan()).any(-1)
        return free, fresh

    def _history(self, trials: list[FrozenTrial], direction: StudyDirection) -> tuple[Tensor, Tensor]:
        """Inputs and outcomes (large ones wanted) of completed trials."""
        inputs, outcomes = [], []
        for trial in trials:
            if trial.state != TrialState.COMPLETE or trial.value is None or not math.isfinite(trial.value):
                continue
            asked = self._place(trial.params)
            place = torch.where(asked.isnan(), self._proposal(trial), asked)
            if asked.isnan().all() or not place.isfinite().all():
                continue
            stored = zip(place.tolist(), self.search_space.items(), strict=True)
            params = {name: distribution.to_external_repr(number) for number, (name, distribution) in stored}
            inputs.append(encode_parameters(params, self.search_space))
            outcomes.append(trial.value)
        y = torch.tensor(outcomes, dtype=torch.double)
        x = torch.stack(inputs) if inputs else self.candidates[:0]
        return x, scaled_outcomes(y, self.y_bounds, direction == StudyDirection.MAXIMIZE)

    @torch.no_grad()
    def _scores(self, x: Tensor, y: Tensor) -> Tensor:
        like = plain_policy(self.policy).embed_x.weight
        best = y.max() if len(y) else y.new_zeros(())
        state = torch.stack([best, y.new_tensor(min(len(y), self.horizon - 1) / self.horizon)])
        batch = (part[None].to(like) for part in (x, y, self.candidates, state))
        scores: Tensor = self.policy(*batch).acquisition[0].cpu()
        return scores


def _contains(distribution: "BaseDistribution", value: Any) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:
        return False
