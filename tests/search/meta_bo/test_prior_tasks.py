"""Tasks from Gaussian processes: like their table, with the moments of the posterior."""

from typing import Any

import pytest
import torch
from tests.search.meta_bo.problems import quadratics, seeded

from throughline.search.meta_bo import gp_prior_tasks

X, Y = quadratics(1)[0]


def test_related_tasks_look_like_their_table() -> None:
    x = torch.rand(40, 2, generator=seeded())
    y = 3 + 2 * torch.sin(4 * x[:, 0])  # nothing depends on the second column
    draw = gp_prior_tasks([(x, y)], num_candidates=60)
    generator = seeded(1)
    for _ in range(5):
        inputs, outcomes = draw(generator)
        assert inputs.dtype == x.dtype
        assert inputs.amin(0).tolist() == outcomes.amin().expand(2).tolist() == [0, 0]
        assert inputs.amax(0).tolist() == [1, 1]
        assert outcomes.max() == 1
        assert torch.corrcoef(torch.stack([outcomes, torch.sin(4 * inputs[:, 0])]))[0, 1] > 0.95
    first, again, other = (draw(seeded(s))[1] for s in (2, 2, 3))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_samples_have_the_posterior_s_moments() -> None:
    """Without jitter, at the table's own rows, before scaling: mean and spread of many samples."""
    from throughline.search.meta_bo import prior_tasks as _prior_tasks

    x = torch.rand(12, 1, generator=seeded()).double()
    y = x[:, 0].sin() + 0.3 * torch.randn(12, generator=seeded(1)).double()
    model = _prior_tasks._fitted(x, y, 300)
    samples = torch.stack([_prior_tasks._sample(model, x, generator) for generator in [seeded(2)] for _ in range(1000)])
    with torch.no_grad():
        posterior = model.posterior(x, observation_noise=True)
    sigma = posterior.variance.squeeze(-1).sqrt()
    assert ((samples.mean(0) - posterior.mean.squeeze(-1)).abs() < 5 * sigma / 1000**0.5).all()
    assert ((samples.std(0) / sigma - 1).abs() < 0.12).all()


def test_categories_get_no_noise_and_few_points_will_do() -> None:
    x = torch.rand(30, 3, generator=seeded())
    x[:, 1:] = torch.nn.functional.one_hot(torch.arange(30) % 2, 2)
    inputs, _ = gp_prior_tasks([(x, x.sum(-1) + x[:, 1])], num_candidates=50, max_points=10)(seeded())
    assert set(inputs[:, 1:].flatten().tolist()) == {0, 1}
    assert (inputs[:, 1:].sum(-1) == 1).all()
    assert len(set(inputs[:, 0].tolist())) == 50


@pytest.mark.parametrize(
    ("tasks", "options", "match"),
    [
        ([], {}, "tasks must hold at least one task, got none"),
        ([(X, Y)], {"num_candidates": 1}, "num_candidates and max_points must be at least 2, got 1 and 300"),
        ([(X, Y)], {"max_points": 1}, "must be at least 2, got 300 and 1"),
        ([(X, Y)], {"jitter": 1.0}, r"jitter must be in \[0, 1\), got 1.0"),
        (
            [(X, Y[1:])],
            {},
            r"tasks\[0\] must be inputs \(N, d\) and outcomes \(N,\) with N >= 2, got \(20, 2\) and \(19,\)",
        ),
        ([(X[:1], Y[:1])], {}, r"tasks\[0\] must be inputs"),
        ([(X, Y), (X, torch.ones(20))], {}, r"tasks\[1\] has constant outcomes"),
    ],
)
def test_prior_tasks_name_the_bad_argument(tasks: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        gp_prior_tasks(tasks, **options)
