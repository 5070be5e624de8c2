"""Pictures of architectures: where they land in the table, and the cells themselves."""

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch

from throughline.claims.shared.cells import figures, loading, truth
from throughline.claims.shared.cells.config import CellConfig
from throughline.lab.plots import BASELINE
from throughline.search.tabular import ArchitectureTable

NAMES = loading.option_names(CellConfig())
ARMS = ("one", "other_one")


def results(values: dict[str, list[float]], kept: dict[str, Any] | None = None) -> Any:
    """What the pictures ask stored results for."""
    return SimpleNamespace(
        arms=ARMS,
        seeds=(3, 4),
        config=CellConfig(),
        claim=SimpleNamespace(arms=ARMS, context=()),
        values=lambda metric, arm: dict(enumerate(values.get(arm, []))),
        kept=lambda arm, seed: (kept or {}).get((arm, seed), {}),
    )


def test_arms_land_among_all_architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [dict.fromkeys(NAMES, option) for option in ("skip_connect", "avg_pool_3", "nor_conv_3")]
    scores = {tuple(d.values()): {0: s - 0.1, 1: s + 0.1} for d, s in zip(every, (0.5, 0.8, 0.7), strict=True)}
    monkeypatch.setattr(truth, "table_for", lambda config: ArchitectureTable(NAMES, scores))
    figure = figures.landscape(results({"one": [0.5, 0.7], "other_one": [0.6]}))
    assert figure is not None
    above, below = figure.axes
    assert sum(bar.get_height() for bar in above.patches) == 3
    lines = [line.get_xdata()[0] for line in above.lines if len(line.get_xdata())]
    assert lines == pytest.approx([0.7, 0.7])  # the median, and a convolution on every edge
    points = [line.get_xdata().tolist() for line in below.lines if line.get_marker() == "o"]
    assert points == [[0.5, 0.7], [0.6]]
    assert [text.get_text() for text in below.get_yticklabels()] == ["one", "other one"]
    assert figures.landscape(results({})) is None
    monkeypatch.setattr(truth, "table_for", lambda config: None)
    assert figures.landscape(results({"one": [0.5]})) is None


def test_agreement_is_the_share_of_pairs() -> None:
    decided = np.array([[0, 1, 2], [0, 1, 1], [0, 2, 0], [0, 2, 2]])
    pairs = list(combinations(decided, 2))
    wanted = [sum(a[k] == b[k] for a, b in pairs) / len(pairs) for k in range(3)]
    assert figures.agreeing(decided) == pytest.approx(wanted)
    kept = {("one", seed): {"decisions": row} for seed, row in zip((3, 4), decided[1:3], strict=True)}
    figure = figures.agreement(results({}, kept | {("other_one", 3): {"decisions": decided[0]}}))
    assert figure is not None
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["one"]  # of one seed there is nothing to say
    assert axis.lines[0].get_xdata().tolist() == [1, 0, 0]
    assert axis.lines[1].get_xdata() == pytest.approx([1 / 3])
    assert figures.agreement(results({})) is None


def test_cells_are_drawn_with_an_arrow_for_each_edge() -> None:
    kept = {("one", 4): {"decisions": np.array([0, 1, 2, 2, 2, -1])}, ("other_one", 4): {"decisions": np.zeros(6, int)}}
    stored = results({}, kept)
    decided = figures.decisions_of(stored, "one", 4)
    assert list(decided.values()) == [*("skip_connect", "avg_pool_3"), *["nor_conv_3"] * 3, None]
    assert figures.decisions_of(stored, "one", 3) == {}
    figure = figures.cells(stored)
    assert figure is not None
    arrows = [[p for p in axis.patches if isinstance(p, FancyArrowPatch)] for axis in figure.axes]
    assert [len(found) for found in arrows] == [5, 6]
    assert {axis.get_title() for axis in figure.axes} == {"one", "other one"}
    assert figures.cells(results({})) is None


def test_kinds_of_operations_have_colours_of_their_own() -> None:
    names = ("nor_conv_3", "avg_pool_3", "max_pool_3x3", "skip_connect", "noise")
    assert len({figures.option_color(name) for name in names}) == 5
    assert figures.option_color("sep_conv_5x5") == figures.option_color("nor_conv_3")
    assert figures.option_color("none") == BASELINE
