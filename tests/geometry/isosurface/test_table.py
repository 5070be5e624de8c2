"""The case table by what it must be: closed with its neighbours, oriented, and cutting inside corners apart."""

from collections import Counter

import pytest

from throughline.geometry.isosurface.table import AXES, COUNTS, LOWER, OWNED, TRIANGLES

ENDS = []  # of the twelve edges, as numbers of corners
for low, axis in zip(LOWER.tolist(), AXES.tolist(), strict=True):
    corner = low[0] + 2 * low[1] + 4 * low[2]
    ENDS.append((corner, corner + 2**axis))


def triangles(pattern: int) -> list[list[int]]:
    return TRIANGLES[pattern, : COUNTS[pattern]].tolist()


def inside(pattern: int, corner: int) -> bool:
    return bool(pattern >> corner & 1)


def crossed(pattern: int) -> set[int]:
    return {number for number, (a, b) in enumerate(ENDS) if inside(pattern, a) != inside(pattern, b)}


def sides(edge: int) -> set[tuple[int, int]]:
    """The faces of the cube, (axis, 0 or 1), that an edge lies in."""
    a, b = ENDS[edge]
    return {(axis, a >> axis & 1) for axis in range(3) if a >> axis & 1 == b >> axis & 1}


def rim(pattern: int) -> list[tuple[int, int]]:
    """Directed edges of the triangles that no other triangle of the cube passes the other way."""
    edges = [(t[i], t[(i + 1) % 3]) for t in triangles(pattern) for i in range(3)]
    assert len(set(edges)) == len(edges)
    return [edge for edge in edges if edge[::-1] not in edges]


def test_has_820_triangles_and_at_most_five() -> None:
    assert int(COUNTS.sum()) == 820
    assert int(COUNTS.max()) == TRIANGLES.shape[1] == 5
    assert COUNTS[0] == COUNTS[255] == 0
    assert sorted(set(ENDS)) == sorted((c, c + 2**a) for c in range(8) for a in range(3) if not c >> a & 1)


def test_uses_each_crossed_edge_and_no_other() -> None:
    for pattern in range(256):
        assert {edge for t in triangles(pattern) for edge in t} == crossed(pattern)
        for axis in range(3):
            number = ENDS.index((0, 2**axis))
            assert bool(OWNED[pattern, axis]) == (number in crossed(pattern))


def test_its_rim_lies_in_the_faces_and_no_diagonal_does() -> None:
    for pattern in range(256):
        edges = rim(pattern)
        for edge in edges:
            assert sides(edge[0]) & sides(edge[1])
        inner = {(t[i], t[(i + 1) % 3]) for t in triangles(pattern) for i in range(3)} - set(edges)
        for edge in inner:  # in a face it would be a diagonal of the neighbour's too
            assert not sides(edge[0]) & sides(edge[1]), (pattern, edge)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neighbours_agree_on_their_face(axis: int) -> None:
    """Segments on a face are those that the other cube has there, the other way, whatever lies behind."""
    seen: dict[tuple[bool, ...], Counter[frozenset[tuple[int, int]]]] = {}
    for pattern in range(256):
        for side in (0, 1):
            flat = [corner for corner in range(8) if corner >> axis & 1 == side]
            signs = tuple(inside(pattern, corner) for corner in flat)
            segments = {
                tuple(ENDS[end][0] & ~(1 << axis) if side else ENDS[end][0] for end in edge)
                + tuple(int(AXES[end]) for end in edge)
                for edge in rim(pattern)
                if (axis, side) in sides(edge[0]) & sides(edge[1])
            }
            turned = {(b, a, j, i) for a, b, i, j in segments} if side else segments
            seen.setdefault(signs, Counter())[frozenset(turned)] += 1  # type: ignore[arg-type]
    assert len(seen) == 16
    assert all(len(found) == 1 for found in seen.values())


def test_inside_corners_across_a_face_are_cut_off_one_by_one() -> None:
    pattern = 0b1001  # corners 0 and 3, across the face z = 0
    pairs = [{0, 1, 2}, {3, 1, 2}]
    for edge in rim(pattern):
        if (2, 0) in sides(edge[0]) & sides(edge[1]):
            touched = {corner for end in edge for corner in ENDS[end]}
            assert touched in pairs, touched


def test_normals_point_out_of_the_inside() -> None:
    """One inside corner: the triangle's normal points away from it."""
    for corner in range(8):
        (face,) = triangles(1 << corner)
        points = [[((ENDS[e][0] >> k & 1) + (ENDS[e][1] >> k & 1)) / 2 for k in range(3)] for e in face]
        u, v = ([q - p for p, q in zip(points[0], points[i], strict=True)] for i in (1, 2))
        cross = [u[(k + 1) % 3] * v[(k + 2) % 3] - u[(k + 2) % 3] * v[(k + 1) % 3] for k in range(3)]
        away = [p - (corner >> k & 1) for k, p in enumerate(points[0])]
        assert sum(c * w for c, w in zip(cross, away, strict=True)) > 0
