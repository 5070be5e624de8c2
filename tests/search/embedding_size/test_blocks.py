"""Blocks against plain sorting, and sizes by popularity against their formula and their limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, composite

from throughline.search.embedding_size import frequency_blocks, mixed_dimensions


@composite
def counted(draw: DrawFn) -> tuple[list[int], int]:
    counts = draw(st.lists(st.integers(0, 5), min_size=1, max_size=40))
    return counts, draw(st.integers(1, len(counts)))


@given(counted())
def test_blocks_are_those_of_python_sort(given: tuple[list[int], int]) -> None:
    counts, blocks = given
    order = sorted(range(len(counts)), key=lambda i: (-counts[i], i))
    width = len(counts) // blocks
    expected = {i: min(rank // width, blocks - 1) for rank, i in enumerate(order)}
    found = frequency_blocks(torch.tensor(counts), blocks)
    assert found.tolist() == [expected[i] for i in range(len(counts))]
    assert found.dtype == torch.int64


def test_the_remainder_is_in_the_last_block() -> None:
    sizes = frequency_blocks(torch.arange(2625)).bincount()
    assert sizes.tolist() == [262] * 9 + [267]


def test_frequent_features_come_first() -> None:
    assert frequency_blocks(torch.tensor([1.5, 30.0, 2.0, 7.0]), 4).tolist() == [3, 0, 2, 1]


@given(counted(), st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.3, 0.9]))
def test_sizes_are_those_of_the_formula(given: tuple[list[int], int], base: int, theta: float) -> None:
    counts, blocks = given
    if not any(counts):
        return
    block = frequency_blocks(torch.tensor(counts), blocks).tolist()
    shares = [sum(c for c, b in zip(counts, block, strict=True) if b == m) / sum(counts) for m in range(blocks)]
    powers = [share**theta for share in shares]
    exact = [base * len(counts) * p / (sum(powers) * block.count(m)) for m, p in enumerate(powers)]
    found = mixed_dimensions(torch.tensor(counts), blocks, base_dim=base, temperature=theta).tolist()
    for size, want in zip(found, exact, strict=True):
        assert size == max(1, math.floor(want + 1e-9)) or abs(want - round(want)) < 1e-6


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.3, 0.5])
def test_a_budget_is_kept_and_the_frequent_get_more(theta: float) -> None:
    counts = torch.tensor([1000 // (i + 1) for i in range(500)])
    sizes = mixed_dimensions(counts, base_dim=32, temperature=theta)
    assert (sizes.diff() <= 0).all()
    assert 32 * 500 - 10 * 50 < int(sizes.sum()) * 50 <= 32 * 500
    assert (sizes[0] > sizes[-1]) == (theta > 0)


@pytest.mark.parametrize("theta", [0.0, 0.1, 0.3, 0.7])
def test_equal_counts_get_equal_sizes_exactly(theta: float) -> None:
    assert mixed_dimensions(torch.ones(1000), base_dim=31, temperature=theta).tolist() == [31] * 10


def test_every_feature_keeps_a_dimension() -> None:
    assert mixed_dimensions(torch.tensor([1000, 0]), 2, base_dim=1, temperature=0.9).tolist() == [2, 1]
