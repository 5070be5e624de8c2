"""Points in integers and rational numbers, for the tests of planar instances."""

import itertools
from collections.abc import Sequence
from fractions import Fraction

import torch
from hypothesis import strategies as st
from torch import Tensor

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
