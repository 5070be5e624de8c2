"""Canonical Huffman code: the lengths of an optimal prefix code, and streams that are decoded many places at a time.

Code words of one length are consecutive numbers in the order of their symbols, so that the lengths are all that has to
be kept. Each run of `RUN` symbols notes how many bits it takes: all runs are then decoded in step, one array operation
for a symbol of each.
"""

import heapq
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughline.core.checks import check_tensor

__all__ = ["huffman_lengths"]

RUN = 4096  # symbols; for each run four bytes tell where the next one begins
WORD = 32  # bits of a word of the stream, and the longest code word: no fewer than nine million symbols need more


def huffman_lengths(counts: Tensor) -> Tensor:
    """Length in bits of every symbol's word in a Huffman code; Σ counts · lengths is the least of any prefix code.

    Of "Model compression via distillation and quantization" (arXiv 1802.05668): quantised weights take far fewer bits
    than their levels suggest, since the levels in the middle of a bucket are used the most.

    Args:
        counts: ``(s,)``, how often each symbol occurs; numbers or shares, finite and not negative.

    Returns:
        ``(s,)`` int64; 0 where the count is 0, and 0 for a symbol that is the only one.

    Raises:
        TypeError: ``counts`` is no tensor.
        ValueError: ``counts`` is not one-dimensional, empty, negative or not finite.

    >>> huffman_lengths(torch.tensor([45, 13, 12, 16, 9, 5, 0]))
    tensor([1, 3, 3, 3, 4, 4, 0])
    """
    check_tensor("counts", counts)
    if counts.ndim != 1 or not len(counts):
        raise ValueError(f"counts must be one-dimensional and not empty, got shape {tuple(counts.shape)}")
    if not (counts.isfinite() & (counts >= 0)).all():
        raise ValueError(f"counts must be finite and not negative, got {counts.tolist()}")
    used = [symbol for symbol, n in enumerate(counts.tolist()) if n]
    heap = [(n, node) for node, n in enumerate(n for n in counts.tolist() if n)]
    heapq.heapify(heap)
    # nodes are the symbols in use, then the subtrees as they are joined: the root comes last
    parents = [0] * max(2 * len(used) - 1, 0)
    for node in range(len(used), len(parents)):
        (one, left), (other, right) = heapq.heappop(heap), heapq.heappop(heap)
        parents[left] = parents[right] = node
        heapq.heappush(heap, (one + other, node))
    depth = [0] * len(parents)
    for node in range(len(parents) - 2, -1, -1):
        depth[node] = depth[parents[node]] + 1
    lengths = [0] * len(counts)
    for node, symbol in enumerate(used):
        lengths[symbol] = depth[node]
    return torch.tensor(lengths, device=counts.device)


class Coded(NamedTuple):
    """Symbols as a bit stream."""

    lengths: NDArray[np.uint8]  # (s,) of the code words; 1 for a symbol that is the only one, whose stream is empty
    stream: NDArray[np.uint8]
    runs: NDArray[np.uint32]  # bits of each run


def encode(symbols: NDArray[np.integer], levels: int) -> Coded:
    """Code ``symbols`` (n,) from 0 … ``levels`` - 1, n >= 1."""
    counts = np.bincount(symbols, minlength=levels)
    lengths = huffman_lengths(torch.from_numpy(counts)).numpy()
    if lengths.max() > WORD:
        raise ValueError(f"the longest code word must have at most {WORD} bits, got {lengths.max()}")
    runs = -(-len(symbols) // RUN)
    if not lengths.any():  # one symbol
        return Coded((counts > 0).astype(np.uint8), np.zeros(0, np.uint8), np.zeros(runs, np.uint32))
    order, words, longest = _canonical(lengths.astype(np.uint8))
    word_of = np.zeros(levels, np.uint64)
    word_of[order] = words >> (longest - lengths[order]).astype(np.uint64)

    size = lengths[symbols]
    end = np.cumsum(size)
    begin = end - size
    place, bit = begin // WORD, begin % WORD
    pair = word_of[symbols] << (2 * WORD - bit - size).astype(np.uint64)  # in the two words from `place` on
    first = np.flatnonzero(np.diff(place, prepend=-1))  # symbols that are the first to begin in their word
    pair = np.bitwise_or.reduceat(pair, first)
    stream = np.zeros(end[-1] // WORD + 2, np.uint64)
    stream[place[first]] = pair >> np.uint64(WORD)
    stream[place[first] + 1] |= pair & np.uint64(2**WORD - 1)
    used = -(-end[-1] // 8)
    marks = end[np.append(np.arange(RUN, len(symbols), RUN), len(symbols)) - 1]
    return Coded(
        lengths.astype(np.uint8),
        stream.astype(">u4").view(np.uint8)[:used].copy(),
        np.diff(marks, prepend=0).astype(np.uint32),
    )


def decode(coded: Coded, number: int) -> NDArray[np.uint16]:
    """The ``number`` symbols that `encode` was given, n >= 1."""
    order, words, longest = _canonical(coded.lengths)
    if len(order) == 1:
        return np.full(number, order[0], np.uint16)
    sizes = coded.lengths[order].astype(np.int64)
    padded = np.zeros(-(-len(coded.stream) // 4) + RUN + 2, ">u4")  # the last run reads on behind the end
    padded.view(np.uint8)[: len(coded.stream)] = coded.stream
    high = padded.astype(np.uint64)
    pairs = (high[:-1] << np.uint64(WORD)) | high[1:]
    bit = np.cumsum(coded.runs, dtype=np.int64) - coded.runs
    found = np.empty((min(RUN, number), len(coded.runs)), np.uint16)
    for row in found:
        ahead = (pairs[bit // WORD] << (bit % WORD).astype(np.uint64)) >> np.uint64(2 * WORD - longest)
        rank = np.searchsorted(words, ahead, side="right") - 1
        row[:] = order[rank]
        bit += sizes[rank]
    return found.T.ravel()[:number]


def _canonical(lengths: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.uint64], int]:
    """Symbols in the order of their words, those words filled up with zeros to the longest, and its length."""
    used = np.flatnonzero(lengths)
    order = used[np.argsort(lengths[used], kind="stable")]
    longest = int(lengths.max())
    room = np.uint64(1) << (longest - lengths[order].astype(np.int64)).astype(np.uint64)
    return order, np.cumsum(room) - room, longest
