"""Convex hulls against the monotone chain in integers and SciPy."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull
from tests.data.planar.geometry import GRID, Point, chain, flat, seeded, uniform

from throughline.data.planar import convex_hull, label_planar, make_planar


@settings(max_examples=150)
@given(GRID, st.sampled_from([1.0, 0.1, 1e6]))
def test_hulls_with_duplicates_and_lines_are_those_of_the_monotone_chain(points: list[Point], scale: float) -> None:
    assume(not flat(points))
    scaled = torch.tensor(points).double() * scale  # 0.1: the lines are straight up to rounding only
    expected = chain(points)
    assert convex_hull(scaled).tolist() == expected
    far = torch.cat([scaled, scaled[:1].expand(70, -1)])  # beyond 64 points: through qhull
    assert convex_hull(far).tolist() == expected
    padded = torch.cat([scaled, torch.full((2, 2), 1e9)])[None]
    batch = label_planar("hull", padded, torch.tensor([len(points)]))
    assert batch.targets[0].tolist()[: len(expected) + 1] == [*expected, -1]


@pytest.mark.parametrize("n", [3, 10, 64, 65, 200])
def test_random_hulls_are_scipys_from_the_lowest_index_on(n: int) -> None:
    points = uniform(n, 2, seed=n)
    ours = convex_hull(points.numpy()).tolist()
    theirs = ConvexHull(points.numpy()).vertices.tolist()
    k = theirs.index(min(theirs))
    assert ours == theirs[k:] + theirs[:k]
    x, y = points[ours].T
    assert (x * y.roll(-1) - y * x.roll(-1)).sum() > 0  # counter-clockwise


def test_a_batch_of_hulls_is_each_alone() -> None:
    batch = make_planar("hull", 300, (3, 12), generator=seeded())
    for points, target, n in zip(*batch, strict=True):
        assert target[target >= 0].tolist() == convex_hull(points[:n]).tolist()
