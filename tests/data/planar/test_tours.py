"""Tours against enumeration."""

import itertools
import math

import pytest
import torch
from tests.data.planar.geometry import seeded, uniform

from throughline.data.planar import make_planar, solve_tsp, tour_length
from throughline.discrete import pointer


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_exact_tours_are_the_shortest_of_all(n: int) -> None:
    batch = make_planar("tsp", 5, n, generator=seeded(n))
    for points, target in zip(batch.points.double(), batch.targets, strict=True):
        tour = solve_tsp(points)
        assert target.tolist() == [*tour.tolist(), -1]
        every = torch.tensor([(0, *rest) for rest in itertools.permutations(range(1, n))])
        best = tour_length(points.expand(len(every), -1, -1), every).min()
        torch.testing.assert_close(tour_length(points, tour), best)
        assert tour[0] == 0
        assert n < 3 or tour[1] < tour[-1]


@pytest.mark.parametrize("method", ["christofides", "local"])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 12, 15])
def test_approximate_tours_are_tours_and_nearly_the_shortest(method, n: int) -> None:
    points = uniform(n, 2, seed=n)
    tour = solve_tsp(points, method=method)
    assert sorted(tour.tolist()) == list(range(n))
    assert tour[0] == 0
    assert n < 3 or tour[1] < tour[-1]
    ratio = tour_length(points, tour) / tour_length(points, solve_tsp(points))
    assert 1 - 1e-12 < ratio < {"christofides": 1.5, "local": 1.02}[method]


def test_local_search_ends_where_no_exchange_or_move_helps() -> None:
    points = uniform(14, 2, seed=3)
    tour = solve_tsp(points, method="local").tolist()
    length = float(tour_length(points, torch.tensor(tour)))
    near = [tour[:i] + tour[i:j][::-1] + tour[j:] for i, j in itertools.combinations(range(15), 2)]
    for size in (1, 2, 3):
        for i in range(14):
            turned = tour[i:] + tour[:i]
            segment, rest = turned[:size], turned[size:]
            near += [rest[:k] + s + rest[k:] for k in range(len(rest)) for s in (segment, segment[::-1])]
    assert min(float(tour_length(points, torch.tensor(other))) for other in near) > length - 1e-9


def test_local_search_survives_equal_points_and_christofides_too() -> None:
    points = torch.tensor([[0.0, 0.0]] * 5 + [[1.0, 0.0]] * 2)
    for method in ("exact", "local", "christofides"):
        assert float(tour_length(points, solve_tsp(points, method=method))) == pytest.approx(2)


def test_tour_length_is_differentiable_batched_and_skips_padding() -> None:
    points = uniform(2, 3, 5, 2).requires_grad_()
    tours = torch.stack([torch.randperm(5, generator=seeded(i)) for i in range(6)]).view(2, 3, 5)
    lengths = tour_length(points, tours)
    for b, c in itertools.product(range(2), range(3)):
        stops = points[b, c, tours[b, c]].tolist()
        expected = sum(math.dist(stops[i], stops[(i + 1) % 5]) for i in range(5))
        assert lengths[b, c].item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda p: tour_length(p, tours), points)
    padded = torch.cat([tours, torch.full((2, 3, 2), pointer.PAD)], -1)
    torch.testing.assert_close(tour_length(points, padded), lengths)


def test_held_karp_fits_its_bounds() -> None:
    table = 8 * 2**15 * 15
    from benchmarks.machine import one_thread, peak_bytes

    points = uniform(16, 2)
    solve_tsp(points)
    with one_thread():
        peak = peak_bytes(lambda: solve_tsp(points))
    assert peak is None or peak < 5 * table  # 2^n n numbers are twice the table, the rest is temporary


def test_whole_numbers_have_a_length() -> None:
    assert tour_length([[0, 0], [3, 0], [0, 4]], [0, 1, 2]).item() == 12
