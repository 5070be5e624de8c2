"""Huffman lengths against an exhaustive search and the entropy; streams there and back."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from throughline.discrete.quantization import huffman_lengths
from throughline.discrete.quantization.huffman import RUN, decode, encode


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
@settings(max_examples=40)
def test_no_prefix_code_is_shorter(counts: list[int]) -> None:
    lengths = huffman_lengths(torch.tensor(counts)).tolist()
    assert sum(2.0**-n for n in lengths) == 1  # Kraft: a prefix code, and a full one
    cost = sum(n * c for n, c in zip(lengths, counts, strict=True))
    every = product(range(1, len(counts)), repeat=len(counts))
    least = min(
        sum(n * c for n, c in zip(code, counts, strict=True)) for code in every if sum(2.0**-n for n in code) <= 1
    )
    assert cost == least


@given(
    st.lists(st.just(0.0) | st.floats(1e-6, 1), min_size=2, max_size=60).filter(
        lambda shares: sum(s > 0 for s in shares) > 1
    )
)
def test_within_one_bit_of_the_entropy(shares: list[float]) -> None:
    p = np.array(shares) / sum(shares)
    lengths = huffman_lengths(torch.tensor(shares, dtype=torch.float64)).numpy()
    entropy = -(p[p > 0] * np.log2(p[p > 0])).sum()
    assert entropy - 1e-6 <= (p * lengths).sum() < entropy + 1 + 1e-6
    assert ((lengths == 0) == (np.array(shares) == 0)).all()


def test_limits() -> None:
    assert huffman_lengths(torch.tensor([0, 7, 0])).tolist() == [0, 0, 0]
    assert huffman_lengths(torch.tensor([0, 0])).tolist() == [0, 0]
    assert huffman_lengths(torch.ones(8)).tolist() == [3] * 8
    assert huffman_lengths(2.0 ** -torch.arange(1, 9)).tolist() == [1, 2, 3, 4, 5, 6, 7, 7]


@given(
    st.integers(0, 2**31),
    st.sampled_from([1, 2, 63, RUN - 1, RUN, RUN + 1, 3 * RUN + 17]),
    st.sampled_from([2, 3, 16, 300]),
    st.floats(0.05, 3),
)
@settings(max_examples=40)
def test_streams_come_back(seed: int, number: int, levels: int, skew: float) -> None:
    draw = np.random.default_rng(seed)
    symbols = np.minimum(draw.geometric(min(skew / levels, 1), number) - 1, levels - 1)
    coded = encode(symbols, levels)
    assert np.array_equal(decode(coded, number), symbols)
    counts = torch.from_numpy(np.bincount(symbols, minlength=levels))
    bits = int((counts * huffman_lengths(counts)).sum())
    assert len(coded.stream) == -(-bits // 8)
    assert coded.runs.sum() == bits
    assert len(coded.runs) == -(-number // RUN)


def test_the_code_is_the_canonical_one() -> None:
    symbols = np.repeat([2, 0, 1, 3], [8, 4, 2, 2])
    words = {2: "0", 0: "10", 1: "110", 3: "111"}  # shorter first, then in the order of the symbols
    bits = "".join(words[s] for s in symbols.tolist())
    assert "".join(f"{byte:08b}" for byte in encode(symbols, 4).stream)[: len(bits)] == bits


def fibonacci(number: int) -> np.ndarray:
    counts = [1, 1]
    while len(counts) < number:
        counts.append(sum(counts[-2:]))
    return np.array(counts)


def test_the_longest_words_possible() -> None:
    """Fibonacci counts make the deepest tree: 27 bits for 28 symbols."""
    symbols = np.repeat(np.arange(28), fibonacci(28))
    np.random.default_rng(0).shuffle(symbols)
    coded = encode(symbols, 28)
    assert coded.lengths.max() == 27
    assert np.array_equal(decode(coded, len(symbols)), symbols)


def test_too_long_a_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throughline.discrete.quantization.huffman.WORD", 8)
    with pytest.raises(ValueError, match=r"longest code word must have at most 8 bits, got 9"):
        encode(np.repeat(np.arange(10), fibonacci(10)), 10)
