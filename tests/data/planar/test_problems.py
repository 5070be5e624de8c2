"""Made instances, and every bad input."""

import numpy as np
import pytest
import torch
from tests.data.planar.geometry import seeded

from throughline.data.planar import (
    PlanarBatch,
    convex_hull,
    delaunay,
    label_planar,
    make_planar,
    solve_tsp,
    tour_length,
)
from throughline.discrete import pointer


def test_made_instances_are_uniform_seeded_and_padded() -> None:
    batch = make_planar("hull", 4_000, (3, 6), generator=seeded(1))
    again, other = (make_planar("hull", 4_000, (3, 6), generator=seeded(s)) for s in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(batch, again, strict=True))
    assert not torch.equal(batch.points, other.points)
    assert batch.points.shape == (4_000, 6, 2)
    counts = batch.lengths.bincount()[3:]
    assert (counts - 1_000).abs().max() < 5 * (1_000 * 0.75) ** 0.5
    there = torch.arange(6) < batch.lengths[:, None]
    assert (batch.points[~there] == 0).all()
    assert abs(float(batch.points[there].mean()) - 0.5) < 0.01
    for target, n in zip(batch.targets.tolist(), batch.lengths.tolist(), strict=True):
        end = target.index(pointer.STOP)
        assert all(0 <= i < n for i in target[:end])
        assert set(target[end + 1 :]) <= {pointer.PAD}


def test_large_instances_have_labels_too() -> None:
    hulls = make_planar("hull", 2, 70, generator=seeded())
    assert hulls.targets[0][hulls.targets[0] >= 0].tolist() == convex_hull(hulls.points[0]).tolist()
    tours = make_planar("tsp", 2, (21, 22), generator=seeded())
    assert (tours.targets >= 0).sum(-1).tolist() == tours.lengths.tolist()
    many = make_planar("delaunay", 2, (8, 9), generator=seeded())
    assert ((many.targets >= 0).sum(-1) % 3 == 0).all()


def test_the_end_and_the_padding_are_those_of_the_network() -> None:
    batch = make_planar("hull", 50, (3, 9), generator=seeded())
    assert isinstance(batch, PlanarBatch)
    assert set(batch.targets[batch.targets < 0].tolist()) == {pointer.STOP, pointer.PAD}


LINE = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.3, 0.3], [0.7, 0.7]])
PAIR = torch.zeros(1, 2, dtype=torch.int64)
NINE = torch.stack([torch.rand(9, 2, generator=seeded()) + 0.1, torch.arange(18.0).view(9, 2)])  # the second on a line


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: convex_hull(LINE), ValueError, "points must not all lie on one line, got 4 that do"),
        (lambda: convex_hull(LINE * 0 + 3), ValueError, "points must not all lie on one line"),
        (lambda: delaunay(LINE), ValueError, "points must not all lie on one line"),
        (
            lambda: label_planar("hull", LINE[None], torch.tensor([4])),
            ValueError,
            "not on one line, not so in instance 0",
        ),
        (lambda: label_planar("delaunay", LINE[None], torch.tensor([4])), ValueError, "not on one line"),
        (
            lambda: label_planar("delaunay", NINE, [9, 9]),
            ValueError,
            "three or more and not on one line, not so in instance 1",
        ),
        (lambda: label_planar("hull", NINE * 0 + 2, [9, 9]), ValueError, "not on one line, not so in instance 0"),
        (lambda: label_planar("tsp", NINE, [9, 1]), ValueError, "lengths must be from 2 to 9, got 1 in instance 1"),
        (lambda: label_planar("hull", NINE, [9, 10]), ValueError, "lengths must be from 3 to 9, got 10 in instance 1"),
        (lambda: label_planar("hull", NINE, [9.0, 9.0]), TypeError, "lengths must be integer, got torch.float32"),
        (
            lambda: label_planar("hull", NINE, [9]),
            ValueError,
            r"must be \(B, n, 2\) and \(B,\), got \(2, 9, 2\) and \(1,\)",
        ),
        (lambda: label_planar("tsp", NINE / 0, [9, 9]), ValueError, "points must be finite, not so in instance 0"),
        (lambda: convex_hull(LINE[:2]), ValueError, "points must be 3 or more, got 2"),
        (lambda: delaunay(LINE[:2]), ValueError, "points must be 3 or more, got 2"),
        (lambda: solve_tsp(LINE[:1]), ValueError, "points must be 2 or more, got 1"),
        (lambda: convex_hull(LINE[0]), ValueError, r"points must be \(n, 2\), got \(2,\)"),
        (lambda: convex_hull(LINE / 0), ValueError, r"points must be finite, got \[nan, nan\]"),
        (lambda: delaunay(LINE * torch.inf), ValueError, "points must be finite"),
        (lambda: solve_tsp(LINE * torch.nan), ValueError, "points must be finite"),
        (lambda: solve_tsp(torch.rand(21, 2)), ValueError, 'takes at most 20 points, got 21; method="local" takes any'),
        (lambda: solve_tsp(LINE, method="greedy"), ValueError, "one of exact, christofides, local, got 'greedy'"),
        (lambda: make_planar("path", 1, 5), ValueError, "task must be one of hull, delaunay, tsp, got 'path'"),
        (lambda: label_planar("path", LINE[None], torch.tensor([4])), ValueError, "task must be one of hull"),
        (lambda: make_planar("hull", 1, 2), ValueError, "n_points must be 3 or more, or such a range, got 2"),
        (lambda: make_planar("delaunay", 1, (2, 5)), ValueError, r"n_points must be 3 .* got \(2, 5\)"),
        (lambda: make_planar("hull", 1, (6, 5)), ValueError, r"n_points must be 3 .* got \(6, 5\)"),
        (lambda: make_planar("tsp", 1, 1), ValueError, "n_points must be 2 or more"),
        (lambda: make_planar("tsp", 0, 3), ValueError, "n_samples must be at least 1, got 0"),
        (lambda: tour_length(LINE, torch.tensor([0, 4])), ValueError, "tour must hold indices below 4, got 4"),
        (lambda: tour_length(LINE, torch.tensor([0.0, 1.0])), TypeError, "tour must be integer, got torch.float32"),
        (lambda: tour_length(LINE, PAIR), ValueError, r"must be \(\.\.\., n, 2\) and \(\.\.\., m\), got"),
    ],
)
def test_names_the_bad_argument(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("task", ["hull", "delaunay", "tsp"])
def test_lists_and_arrays_are_labelled_like_tensors_and_none_gives_none(task) -> None:
    points, lengths = torch.rand(3, 9, 2, generator=seeded(1)), torch.tensor([9, 4, 7])
    points[1, 4:] = torch.nan  # where no points are said to be
    expected = label_planar(task, points, lengths).targets
    assert torch.equal(label_planar(task, points.tolist(), lengths.tolist()).targets, expected)
    assert torch.equal(label_planar(task, points.numpy(), lengths.numpy()).targets, expected)
    none = label_planar(task, points[:0], lengths[:0])
    assert none.points.shape == (0, 9, 2)
    assert none.targets.shape == (0, 1)


def test_sizes_may_be_numbers_of_numpy() -> None:
    ours, theirs = (make_planar("hull", 3, n, generator=seeded()) for n in (np.int64(5), 5))
    assert torch.equal(ours.points, theirs.points)
    assert torch.equal(make_planar("hull", 3, [5, 5], generator=seeded()).points, ours.points)
