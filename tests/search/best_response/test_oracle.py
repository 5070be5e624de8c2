"""The self-tuner against closed forms: exact response of a linear network, best penalty of ridge regression."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from throughline.search.best_response import Hyperparameter, HyperparameterSpace, SelfTuner, convert

D, ROWS = 4, 40


def data(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, D, generator=draw, dtype=torch.float64) * torch.tensor([0.3, 0.6, 1.0, 2.0])
    y = x @ torch.tensor([1.0, -1.0, 0.5, 0.3], dtype=torch.float64)
    return x, y + 1.5 * torch.randn(rows, generator=draw, dtype=torch.float64)


X, Y = data(ROWS, 0)
VALID_X, VALID_Y = data(200, 1)
EYE = torch.eye(D, dtype=torch.float64)


def ridge(hyper: float) -> Tensor:
    """argmin_w mean (y − wᵀx)² + e^λ ‖w‖², by the normal equations."""
    second = X.mT @ X / ROWS
    return torch.linalg.solve(second + np.exp(hyper) * EYE, X.mT @ Y / ROWS)


def with_axes(x: Tensor) -> Tensor:
    """Every sample with the unit vectors behind it: what the network makes of those is ∂y/∂x."""
    return torch.cat([x[:, None], EYE.expand(len(x), D, D)], 1)


def tuner(start: float, scale: float, lr: float, **options: object) -> SelfTuner:
    torch.manual_seed(0)
    space = HyperparameterSpace([Hyperparameter("log penalty", start, scale=scale)]).double()
    plain = nn.Sequential(nn.Linear(D, D, bias=False), nn.Linear(D, 1, bias=False)).double()
    network = convert(plain, space, exclude=["1"])
    return SelfTuner(
        network,
        optimizer=torch.optim.Adam(network.parameters(), lr),
        loss=lambda out, target: F.mse_loss(out[:, 0, 0], target),
        penalty=lambda out, values: (values["log penalty"].exp() * out[:, 1:, 0].square().sum(1)).mean(),
        generator=torch.Generator().manual_seed(0),
        **options,  # type: ignore[arg-type]
    )


def response(made: SelfTuner, hyper: float) -> Tensor:
    """The weights of the whole network at λ."""
    at = torch.tensor([hyper], dtype=torch.float64)
    with torch.no_grad():
        return made.network(EYE, hyper=at)[:, 0]  # type: ignore[no-any-return]


def test_training_recovers_the_exact_response_of_a_linear_network() -> None:
    """Two linear layers, gates on the first alone: ŵ(λ) becomes ridge regression as a function of its penalty."""
    start = -0.5
    made = tuner(start, 0.3, 0.01, warmup_steps=10_000)
    many = with_axes(X).repeat(4, 1, 1), Y.repeat(4)  # four perturbations for each row
    for step in range(1500):
        if step == 1000:
            made._optimizer.param_groups[0]["lr"] = 1e-3
        made.train_step(*many)
    spread = (ridge(start + 0.3) - ridge(start - 0.3)).norm()
    assert spread > 0.05  # there is something to respond to
    for step in (-0.3, 0.0, 0.3):
        error = (response(made, start + step) - ridge(start + step)).norm()
        assert error < 0.15 * spread, step
    slope = (response(made, start + 0.1) - response(made, start - 0.1)) / 0.2
    exact = (ridge(start + 0.1) - ridge(start - 0.1)) / 0.2
    torch.testing.assert_close(slope, exact, rtol=0.15, atol=0.02)


def validation_loss(hyper: float) -> float:
    return F.mse_loss(VALID_X @ ridge(hyper), VALID_Y).item()


@pytest.mark.parametrize("start", [-3.0, 1.5])
def test_tuning_finds_the_penalty_that_is_best_on_validation_data(start: float) -> None:
    best = minimize_scalar(validation_loss, bounds=(-6, 4), method="bounded").x
    assert abs(best - start) > 1
    made = tuner(start, 0.3, 0.01, hyper_lr=0.02, tune_scale=False, warmup_steps=200)
    train, valid = (with_axes(X).repeat(4, 1, 1), Y.repeat(4)), (with_axes(VALID_X), VALID_Y)
    for _ in range(200 + 3 * 500):
        made.train_step(*train) if made.phase() == "train" else made.tune_step(*valid)
    found = [row["log penalty"] for row in made.history]
    assert len(found) == 500
    assert np.mean(found[-100:]) == pytest.approx(best, abs=0.25)
    assert validation_loss(found[-1]) < validation_loss(best) + 0.02 * (validation_loss(start) - validation_loss(best))
