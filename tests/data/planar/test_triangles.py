"""Delaunay triangulations against their definition in rational numbers, and SciPy."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import Delaunay
from tests.data.planar.geometry import Point, flat, turn, uniform

from throughline.data.planar import convex_hull, delaunay, label_planar
from throughline.data.planar.triangles import triangulate_small


def empty_circles(points: np.ndarray) -> list[tuple[int, ...]]:
    """Delaunay by its definition, in rational numbers."""
    exact = [tuple(map(Fraction, p)) for p in points.tolist()]
    found = []
    for i, j, k in itertools.combinations(range(len(exact)), 3):
        sign = 1 if turn(exact[i], exact[j], exact[k]) > 0 else -1
        inside = False
        for x, y in exact:
            (ax, ay), (bx, by), (cx, cy) = ((exact[v][0] - x, exact[v][1] - y) for v in (i, j, k))
            a, b, c = ax * ax + ay * ay, bx * bx + by * by, cx * cx + cy * cy
            inside |= sign * (ax * (by * c - b * cy) - ay * (bx * c - b * cx) + a * (bx * cy - by * cx)) > 0
        if not inside:
            found.append((i, j, k))
    return found


@pytest.mark.parametrize("n", [3, 4, 5, 7, 10])
def test_delaunay_circles_are_empty_and_sorted_by_incentre(n: int) -> None:
    points = uniform(n, 2, seed=n)
    found = delaunay(points)
    assert set(map(tuple, found.tolist())) == set(empty_circles(points.numpy()))

    def incentre(triangle: list[int]) -> tuple[float, float]:
        a, b, c = points[triangle].tolist()
        sides = math.dist(b, c), math.dist(a, c), math.dist(a, b)
        x, y = (sum(s * p[i] for s, p in zip(sides, (a, b, c), strict=True)) / sum(sides) for i in (0, 1))
        return x, y

    assert found.tolist() == sorted(found.tolist(), key=incentre)
    if n <= 8:
        alone = triangulate_small(points[None])[0]
        assert alone[alone >= 0].tolist() == found.flatten().tolist()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=3, max_size=8, unique=True))
def test_triangulations_of_grids_cover_the_hull(points: list[Point]) -> None:
    assume(not flat(points))
    p = torch.tensor(points).double()
    found = delaunay(p)
    doubled = [abs(turn(*(points[i] for i in t))) for t in found.tolist()]
    x, y = p[convex_hull(p)].T
    assert sum(doubled) == pytest.approx(float((x * y.roll(-1) - y * x.roll(-1)).sum()))
    assert len(found) == len(Delaunay(p.numpy()).simplices)
    batch = label_planar("delaunay", p[None], torch.tensor([len(p)]))
    assert batch.targets[0].tolist() == [*found.flatten().tolist(), -1]
