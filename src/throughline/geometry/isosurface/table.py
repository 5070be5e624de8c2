"""The case table of marching cubes, derived: which triangles separate the inside corners of a cube from the others.

Corner dx + 2 dy + 4 dz of a cube stands at (dx, dy, dz), and is bit number dx + 2 dy + 4 dz of the cube's pattern. Each
face is walked counter-clockwise as seen from outside. Where the walk enters the inside, a segment starts that ends at
the next place where it leaves: on a face with two inside corners across, each is cut off on its own. This depends on
the signs on that face alone, so neighbours agree. The segments of six faces chain into loops, and a loop is a fan of
triangles, with an apex from which no diagonal lies in a face: there it could be a diagonal of the neighbour too.
"""

import torch

__all__ = ["AXES", "COUNTS", "LOWER", "OWNED", "TRIANGLES"]

EDGES = [(corner, axis) for axis in range(3) for corner in range(8) if not corner >> axis & 1]  # from the lower corner
NUMBER = {frozenset((corner, corner | 1 << axis)): number for number, (corner, axis) in enumerate(EDGES)}


def _faces() -> list[list[int]]:
    found = []
    for axis in range(3):
        b, c = 1 << (axis + 1) % 3, 1 << (axis + 2) % 3
        round_ = [0, b, b | c, c]  # counter-clockwise around the axis
        found += [round_[::-1], [corner | 1 << axis for corner in round_]]
    return found


FACES = _faces()
IN_A_FACE = {
    (one, other)
    for face in FACES
    for one, (a, i) in enumerate(EDGES)
    for other, (b, j) in enumerate(EDGES)
    if {a, a | 1 << i, b, b | 1 << j} <= set(face)
}


def _loops(pattern: int) -> list[list[int]]:
    """Closed chains of crossed edges around the inside corners, seen counter-clockwise from outside of the surface."""
    after = {}
    for face in FACES:
        ring = zip(face, face[1:] + face[:1], strict=True)
        crossed = [(NUMBER[frozenset(pair)], pattern >> pair[1] & 1) for pair in ring if _differ(pattern, *pair)]
        for place, (edge, enters) in enumerate(crossed):
            if enters:
                after[edge] = crossed[(place + 1) % len(crossed)][0]
    loops = []
    while after:
        loop = [min(after)]
        while (edge := after.pop(loop[-1])) != loop[0]:
            loop.append(edge)
        loops.append(loop)
    return loops


def _differ(pattern: int, a: int, b: int) -> bool:
    return (pattern >> a ^ pattern >> b) & 1 == 1


def _fan(loop: list[int]) -> list[tuple[int, int, int]]:
    turned = [loop[start:] + loop[:start] for start in range(len(loop))]
    best = min(turned, key=lambda ring: sum((ring[0], other) in IN_A_FACE for other in ring[2:-1]))
    return [(best[0], best[i], best[i + 1]) for i in range(1, len(best) - 1)]


CASES = [[triangle for loop in _loops(pattern) for triangle in _fan(loop)] for pattern in range(256)]
MOST = max(map(len, CASES))
COUNTS = torch.tensor([len(case) for case in CASES], device="cpu")  # triangles of each pattern
TRIANGLES = torch.tensor([case + [(0, 0, 0)] * (MOST - len(case)) for case in CASES], device="cpu")  # numbers of edges
LOWER = torch.tensor([[corner >> axis & 1 for axis in range(3)] for corner, _ in EDGES], device="cpu")  # of an edge
AXES = torch.tensor([axis for _, axis in EDGES], device="cpu")  # along which an edge runs
OWNED = torch.tensor(  # whether the edges along x, y and z from corner 0 are crossed
    [[_differ(pattern, 0, 1 << axis) for axis in range(3)] for pattern in range(256)], device="cpu"
)
