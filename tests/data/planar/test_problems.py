"""Planar instances against rational arithmetic, SciPy and enumeration; then files, sources and every bad input."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull, Delaunay
from torch import Tensor

from throughline.data import DataError, Source
from throughline.data.planar import (
    PlanarBatch,
    convex_hull,
    delaunay,
    hull_scores,
    label_planar,
    make_planar,
    read_planar,
    solve_tsp,
    tour_length,
    triangulation_scores,
)
from throughline.data.planar.triangles import triangulate_small
from throughline.discrete import pointer

Point = tuple[int, int]
GRID = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=9)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed), dtype=torch.float64)


def turn(a: Sequence[Fraction | int], b: Sequence[Fraction | int], c: Sequence[Fraction | int]) -> Fraction | int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def chain(points: list[Point]) -> list[int]:
    """Andrew's monotone chain in integers, from the lowest index on."""
    first = {p: points.index(p) for p in points}
    ordered = sorted(first)

    def half(way: list[Point]) -> list[Point]:
        stack: list[Point] = []
        for p in way:
            while len(stack) > 1 and turn(stack[-2], stack[-1], p) <= 0:
                stack.pop()
            stack.append(p)
        return stack[:-1]

    around = [first[p] for p in half(ordered) + half(ordered[::-1])]
    k = around.index(min(around))
    return around[k:] + around[:k]


def flat(points: list[Point]) -> bool:
    return all(turn(a, b, c) == 0 for a, b, c in itertools.combinations(points, 3))


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


def test_held_karp_fits_its_bounds() -> None:
    table = 8 * 2**15 * 15
    from benchmarks.harness import one_thread, peak_bytes

    points = uniform(16, 2)
    solve_tsp(points)
    with one_thread():
        peak = peak_bytes(lambda: solve_tsp(points))
    assert peak is None or peak < 5 * table  # 2^n n numbers are twice the table, the rest is temporary


TEXT = "0 0 1 0 1 1 0 1 0.5 0.5 output 1 2 3 4 1\n\n0 0 2 0 0 2 output 2 3 1\n0.25 0 2 0 0 2\n"


def test_reads_the_published_format(tmp_path: Path) -> None:
    (tmp_path / "hulls.txt").write_text(TEXT)
    batch = read_planar(tmp_path / "hulls.txt")
    assert batch.lengths.tolist() == [5, 3, 3]
    assert batch.points[0, 4].tolist() == [0.5, 0.5]
    assert batch.points[2].tolist() == [[0.25, 0], [2, 0], [0, 2], [0, 0], [0, 0]]
    assert batch.targets.tolist() == [[0, 1, 2, 3, -1], [1, 2, 0, -1, -100], [-100] * 5]
    (tmp_path / "triangles.txt").write_text("0 0 1 0 0 1 1 1.1 output 2 3 4 1 2 3\n")
    assert read_planar(tmp_path / "triangles.txt").targets.tolist() == [[1, 2, 3, 0, 1, 2, -1]]
    (tmp_path / "plain.txt").write_text("0 0 1 0 0 1\n")
    assert (read_planar(tmp_path / "plain.txt").targets == -100).all()


def test_reads_a_table_of_points(tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    file.write_text("id,instance,x,y\n1,b,0,0\n2,a,5,6\n3,b,1,0.5\n4,b,2,2\n5,a,7,8\n")
    batch = read_planar(file)
    assert batch.lengths.tolist() == [3, 2]  # in the order of their first rows
    assert batch.points[1].tolist() == [[5, 6], [7, 8], [0, 0]]
    assert (batch.targets < 0).all()
    source = Source.of(file)
    assert torch.equal(source.planar().points, batch.points)
    with pytest.raises(DataError, match=r"points\.csv: a target column \('x'\) is for tables of features"):
        Source.of(file, "x").planar()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "the file is empty; give one with a line x1 y1"),
        ("a.txt", "0 0 1 0 1\n", "line 1: 5 coordinates before output; wanted two for each point"),
        ("a.txt", "0 0 1 0\n0 zero output 1\n", "line 2: 'zero' is no coordinate; wanted x1 y1"),
        ("a.txt", "output 1 2\n", "line 1: 0 coordinates before output"),
        ("a.txt", "0 0 1 nan output 1\n", "line 1: a coordinate is not finite"),
        ("a.txt", "0 0 1 0 output\n", "line 1: nothing follows output; give indices"),
        ("a.txt", "0 0 1 0 output 1 3\n", "line 1: '3' is no index of its 2 points; indices count from 1"),
        ("a.txt", "0 0 1 0 output 0 1\n", "line 1: '0' is no index of its 2 points"),
        ("a.txt", "0 0 1 0 output 1.0\n", r"line 1: '1\.0' is no index of its 2 points"),
        ("a.csv", "instance,x,z\n1,2,3\n", "no column 'y'; wanted instance, x and y, its columns are instance, x, z"),
        ("a.csv", "instance,x,y\n1,2,3\n1,,3\n", "row 2 has no finite x and y or no instance"),
        ("a.csv", "instance,x,y\n1,2,up\n", "row 1 has no finite x and y"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_planar(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_other_files_are_no_instances(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"0 0 1 \xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt: not UTF-8 text"):
        read_planar(tmp_path / "latin.txt")
    with pytest.raises(DataError, match="a folder, where a file of planar instances is wanted"):
        read_planar(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_planar(tmp_path / "none.txt")


LINE = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.3, 0.3], [0.7, 0.7]])
PAIR = torch.zeros(1, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: convex_hull(LINE), ValueError, "points must not all lie on one line, got 4 that do"),
        (lambda: convex_hull(LINE * 0 + 3), ValueError, "points must not all lie on one line"),
        (lambda: delaunay(LINE), ValueError, "points must not all lie on one line"),
        (
            lambda: label_planar("hull", LINE[None], torch.tensor([4])),
            ValueError,
            "not on one line, not so in inst",
        ),
        (lambda: label_planar("delaunay", LINE[None], torch.tensor([4])), ValueError, "not all on one line"),
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


def test_the_end_and_the_padding_are_those_of_the_network() -> None:
    batch = make_planar("hull", 50, (3, 9), generator=seeded())
    assert isinstance(batch, PlanarBatch)
    assert set(batch.targets[batch.targets < 0].tolist()) == {pointer.STOP, pointer.PAD}
