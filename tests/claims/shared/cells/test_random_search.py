"""Random search: even draws, as many as a search costs, and the best on the validation half."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.claims.stand_ins import Notes

from throughline.claims.shared.cells import loading, random_search
from throughline.claims.shared.cells.config import PAPER, CellConfig
from throughline.claims.shared.cells.searching import codes

pytest.importorskip("mnist1d.data")
SMALL = CellConfig(samples=60, epochs=6, final_epochs=2)
NAMES = loading.option_names(SMALL)


@pytest.mark.parametrize(
    ("config", "options", "count"),
    [
        (CellConfig(), [3] * 6, 13),  # 2 halves · 3 options · 90 epochs over 40
        (CellConfig(epochs=100), [2, 4], 15),
        (CellConfig(epochs=1), [3], 1),
        (CellConfig(space="s3"), [3], 1),
        (CellConfig(benchmark="file"), [5], 1),
        (CellConfig(**PAPER), [8], 1),
    ],
)
def test_as_many_as_a_search_costs(config: CellConfig, options: list[int], count: int) -> None:
    assert random_search.affordable(config, options) == count


def test_keeps_the_best_of_even_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = loading.load(SMALL, 0)
    seen: list[dict[str, str]] = []
    scores = iter(torch.rand(10_000, generator=torch.Generator().manual_seed(0)).tolist())
    given: list[float] = []

    def noted(build: Any, train: Any, valid: Any, config: CellConfig, seeds: list[int]) -> list[float]:
        assert train is setting.train
        assert valid is setting.valid
        seen.append(build.keywords["decisions"])
        given.append(next(scores))
        return given[-1:]

    monkeypatch.setattr(random_search, "accuracies", noted)
    net = setting.supernet()
    alone = setting._replace(space=lambda generator: net)
    for seed in range(9):
        seen.clear(), given.clear()
        best, found = random_search.random_search(alone._replace(seed=seed), notes := Notes())
        assert found == {"candidates": 18.0}
        assert len(seen) == 18
        assert best == seen[given.index(max(given))]
        assert notes.arrays["decisions"].tolist() == codes(net, best).tolist()
        assert notes.places == [(place, 18) for place in range(18)]
    drawn = [
        random_search.random_search(
            alone._replace(config=replace(SMALL, epochs=1, final_epochs=6), seed=seed), Notes()
        )[0]
        for seed in range(150)
    ]
    assert len(given) == 18  # a single one is not trained
    for name, options in NAMES.items():
        counts = Counter(decisions[name] for decisions in drawn)
        assert set(counts) == set(options)
        assert all(abs(count - 50) < 4 * math.sqrt(150 * 2 / 9) for count in counts.values())  # standard deviations
    assert len({tuple(decisions.values()) for decisions in drawn}) > 120  # of 729


def test_trains_and_repeats() -> None:
    setting = loading.load(replace(SMALL, epochs=1, final_epochs=2), 3)
    (first, _), (again, found) = (random_search.random_search(setting, Notes()) for _ in range(2))
    assert first == again
    assert found == {"candidates": 3.0}
