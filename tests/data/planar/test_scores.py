"""Scores of predicted hulls and triangulations against plain loops, and every bad input."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.data.planar.geometry import Point, flat, turn

from throughline.data.planar import convex_hull, hull_scores, triangulation_scores
from throughline.discrete import pointer


def segments_meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    def on(p: Point, q: Point, r: Point) -> bool:
        return (
            turn(p, q, r) == 0
            and min(p[0], q[0]) <= r[0] <= max(p[0], q[0])
            and min(p[1], q[1]) <= r[1] <= max(p[1], q[1])
        )

    signs = [np.sign(turn(*t)) for t in ((a, b, c), (a, b, d), (c, d, a), (c, d, b))]
    proper = signs[0] * signs[1] < 0 and signs[2] * signs[3] < 0
    return proper or on(a, b, c) or on(a, b, d) or on(c, d, a) or on(c, d, b)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=5, max_size=5, unique=True),
    st.lists(st.integers(0, 4), max_size=7),
)
def test_hull_scores_are_those_of_a_plain_loop(points: list[Point], predicted: list[int]) -> None:
    assume(not flat(points))
    p = torch.tensor(points).double()
    target = convex_hull(p)
    row = torch.tensor([[*predicted, pointer.PAD, 3]])  # behind the end nothing counts
    scores = hull_scores(p[None], row, target[None])
    around = [i for k, i in enumerate(predicted) if len(predicted) < 2 or i != predicted[k - 1]]
    edges = [(points[i], points[around[(k + 1) % len(around)]]) for k, i in enumerate(around)]
    apart = [(i, j) for i, j in itertools.combinations(range(len(edges)), 2) if 1 < j - i < len(edges) - 1]
    valid = len(set(around)) >= 3 and not any(segments_meet(*edges[i], *edges[j]) for i, j in apart)
    assert scores["invalid"] == float(not valid)
    truth = target.tolist()
    turns = [truth[k:] + truth[:k] for k in range(len(truth))]
    assert scores["accuracy"] == float(around in turns or around[::-1] in turns)

    def area(corners: list[Point]) -> float:
        return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(corners, corners[1:] + corners[:1], strict=True))) / 2

    covered = area([points[i] for i in around]) / area([points[i] for i in truth]) if valid else 0
    assert scores["area"] == pytest.approx(covered)


def test_hull_scores_are_means_over_instances() -> None:
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).expand(4, -1, -1)
    target = torch.tensor([[0, 1, 2, 3, -1]]).expand(4, -1)
    predicted = torch.tensor([[2, 1, 0, 3, 2], [0, 1, 2, -1, -1], [0, 2, 1, 3, -100], [-1, -1, -1, -1, -1]])
    assert hull_scores(square, predicted, target) == {"accuracy": 0.25, "area": 0.75, "invalid": 0.5}
    assert hull_scores(square, target[:, :0], target) == {"accuracy": 0.0, "area": 0.0, "invalid": 1.0}


@given(st.lists(st.integers(0, 4), max_size=10), st.lists(st.integers(0, 4), min_size=3, max_size=9))
def test_triangulation_scores_are_those_of_sets(predicted: list[int], truth: list[int]) -> None:
    truth = truth[: len(truth) // 3 * 3]
    sets = [[tuple(sorted(x[i : i + 3])) for i in range(0, len(x), 3)] for x in (predicted, truth)]
    theirs = set(sets[1])
    scores = triangulation_scores(torch.tensor([[*predicted, -1, 2]]), torch.tensor([[*truth, -100]]))
    assert scores["accuracy"] == float(set(sets[0]) == theirs)
    assert scores["coverage"] == pytest.approx(np.mean([t in sets[0] for t in sets[1]]))


LINE = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.3, 0.3], [0.7, 0.7]])
PAIR = torch.zeros(1, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hull_scores(LINE[None], PAIR + 4, PAIR), ValueError, "predicted must hold indices below 4, got 4"),
        (lambda: hull_scores(LINE[None], PAIR, PAIR.float()), TypeError, "target must be integer"),
        (lambda: hull_scores(LINE, PAIR, PAIR), ValueError, r"points and predicted must be \(B, n, 2\) and \(B, m\)"),
        (lambda: triangulation_scores(PAIR, PAIR[0]), ValueError, r"must be \(B, m\) and \(B, t\)"),
        (lambda: triangulation_scores(PAIR > 0, PAIR), TypeError, "predicted must be integer, got torch.bool"),
    ],
)
def test_names_the_bad_argument(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_scores_take_lists_and_are_nan_of_none() -> None:
    square = [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]]
    assert hull_scores(square, [[0, 1, 2]], np.array([[0, 1, 2, 3]])) == {"accuracy": 0.0, "area": 0.5, "invalid": 0.0}
    assert triangulation_scores([[2, 1, 3]], [[0, 1, 2, 1, 2, 3]]) == {"accuracy": 0.0, "coverage": 0.5}
    for scores in (hull_scores(torch.zeros(0, 4, 2), PAIR[:0], PAIR[:0]), triangulation_scores(PAIR[:0], PAIR[:0])):
        assert all(map(math.isnan, scores.values()))


def test_a_point_that_is_not_finite_is_no_score() -> None:
    with pytest.raises(ValueError, match="points must be finite, got nan"):
        hull_scores(torch.full((1, 4, 2), torch.nan), PAIR, PAIR)
