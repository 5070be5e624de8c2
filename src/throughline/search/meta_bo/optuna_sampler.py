"""The trained policy as a sampler of Optuna."""

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from optuna.samplers import BaseSampler, RandomSampler  # noqa: TID253 - loaded when NAPSampler is first touched
from optuna.study import Study, StudyDirection  # noqa: TID253
from optuna.trial import FrozenTrial, TrialState  # noqa: TID253
from torch import Tensor

from throughline.search.meta_bo.ask_tell import check_bounds, scaled_outcomes
from throughline.search.meta_bo.process import NeuralAcquisitionProcess
from throughline.search.meta_bo.search_space import encode_parameters, num_columns, spread

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = ["NAPSampler"]

LOCK = threading.Lock()  # of proposals: two trials of one process never get the same


class NAPSampler(BaseSampler):
    """Optuna's studies by a trained policy, which knows such searches from earlier ones.

    "End-to-End Meta-Bayesian Optimisation with Transformer Neural Processes" (NAP, arXiv 2305.15930). The parameters of
    ``search_space`` are proposed together, out of a fixed set of candidates, in the columns of `encode_parameters`. All
    others are sampled at random. The history is read from the study's storage at every trial, so that a study can be
    stopped, killed and loaded again: with the same seed the candidates are the same. Completed trials are its history;
    those that failed, were pruned or are running only take their setting out of the candidates. After ``horizon``
    trials, the policy goes on as in its last; when no candidate is left, settings are random.

    Args:
        policy: a trained `NeuralAcquisitionProcess`.
        search_space: distributions of Optuna by name, in the order of the columns.
        horizon: T, the number of completed trials that the search will have, as in training.
        num_candidates: settings to choose from, spread over the space; equal ones count once.
        seed: of the candidates and of random parameters; from the system if None.
        y_bounds: of `NAPOptimizer`.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: ``search_space`` is empty or has other columns than the policy, an argument is out of range, or a
            study has several objectives.

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
        if (width := num_columns(search_space)) != policy.embed_x.in_features:
            raise ValueError(
                f"search_space has {width} columns (one a number, one for each choice of a category), and the policy's "
                f"in_features is {policy.embed_x.in_features}"
            )
        check_bounds(y_bounds)
        self.policy, self.search_space = policy.eval(), dict(search_space)
        self.horizon, self.y_bounds = horizon, y_bounds
        seed = torch.seed() % 2**31 if seed is None else seed
        self.candidates, self.settings = spread(self.search_space, num_candidates, seed)
        self.proposed: dict[tuple[str, int], int] = {}  # study and trial: a candidate whose trial runs
        self.independent = RandomSampler(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> "dict[str, BaseDistribution]":
        """The space that the policy proposes in."""
        return self.search_space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: "dict[str, BaseDistribution]"
    ) -> dict[str, Any]:
        """The candidate with the largest acquisition value among those that no trial has; {} when none is left."""
        if len(study.directions) > 1:
            raise ValueError(f"a study must have one objective, got {len(study.directions)} directions")
        with LOCK:
            others = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
            running = {(study.study_name, t.number) for t in others if not t.state.is_finished()}
            taken = [at for key, at in self.proposed.items() if key in running]
            x, y, free = self._history(others, study.direction)
            free[taken] = False
            if not free.any():
                return {}
            choice = int(self._scores(x, y).masked_fill(~free, -torch.inf).argmax())
            self.proposed = {
                key: at for key, at in self.proposed.items() if key in running or key[0] != study.study_name
            }
            self.proposed[study.study_name, trial.number] = choice
        return dict(self.settings[choice])

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: "BaseDistribution"
    ) -> Any:
        """A parameter outside the space, at random."""
        return self.independent.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """New random numbers for parameters outside the space; the candidates stay."""
        self.independent.reseed_rng()

    def _history(self, trials: list[FrozenTrial], direction: StudyDirection) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and outcomes (large ones wanted) of completed trials, and which candidates no trial has."""
        free = torch.ones(len(self.candidates), dtype=torch.bool)
        inputs, outcomes = [], []
        for trial in trials:
            try:
                x = encode_parameters(trial.params, self.search_space)
            except ValueError:  # a trial that has not got its parameters yet, or others
                continue
            free &= (self.candidates != x).any(-1)
            if trial.state == TrialState.COMPLETE and trial.value is not None and abs(trial.value) < float("inf"):
                inputs.append(x)
                outcomes.append(trial.value)
        y = torch.tensor(outcomes, dtype=torch.double)
        x = torch.stack(inputs) if inputs else self.candidates[:0]
        return x, scaled_outcomes(y, self.y_bounds, direction == StudyDirection.MAXIMIZE), free

    @torch.no_grad()
    def _scores(self, x: Tensor, y: Tensor) -> Tensor:
        like = self.policy.embed_x.weight
        best = y.max() if len(y) else y.new_zeros(())
        state = torch.stack([best, y.new_tensor(min(len(y), self.horizon - 1) / self.horizon)])
        batch = (part[None].to(like) for part in (x, y, self.candidates, state))
        scores: Tensor = self.policy(*batch).acquisition[0].cpu()
        return scores
