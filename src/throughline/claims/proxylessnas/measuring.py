"""What a supernet keeps for its backward pass, and how long a network takes beside another."""

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from throughline.search.binary_path import LatencyTable, binary_paths, measure_latency
from throughline.search.supernet import choices

__all__ = ["bytes_by_candidates", "interleaved", "one_thread", "saved_bytes", "table_of"]

WARMUP = 10  # calls that are not timed


def bytes_by_candidates(net: nn.Module, x: Tensor, paths: int, draw: torch.Generator) -> list[float]:
    """The bytes that a forward pass in training keeps for the backward pass, with the first option of each choice, with
    the first two, and so on up to all.

    Args:
        net: a supernet; its statistics move, as in training.
        x: the input.
        paths: how many pairs of paths are drawn and averaged; 0 for the mixture of all candidates.
        draw: of the paths.
    """
    found, most = [], max(len(choice.names) for choice in choices(net).values())
    for count in range(1, most + 1):
        with ExitStack() as removed:
            for choice in choices(net).values():
                if choice.names[count:]:
                    removed.enter_context(choice.without(*choice.names[count:]))
            found.append(statistics.fmean(_paths_bytes(net, x, paths, draw)) if paths else float(saved_bytes(net, x)))
    return found


def interleaved(net: nn.Module, other: nn.Module, x: Tensor, rounds: int, repeats: int) -> tuple[float, float]:
    """Milliseconds of ``net``, and their ratio to those of ``other``, measured in turns: medians over the rounds."""
    options = {"warmup": min(WARMUP, repeats), "repeats": repeats}
    times = [[measure_latency(each, x, **options) for each in (net, other)] for _ in range(rounds)]
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return ours, ours / theirs


def table_of(net: nn.Module, x: Tensor, repeats: int) -> LatencyTable:
    """Every candidate of a supernet, timed on one thread."""
    with one_thread():
        return LatencyTable.measure(net, x, warmup=min(WARMUP, repeats), repeats=repeats)


@contextmanager
def one_thread() -> Iterator[None]:
    """Inside, torch computes on a single thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def saved_bytes(net: nn.Module, x: Tensor) -> int:
    """What a forward pass keeps for the backward pass beside the parameters, every storage once."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(x)  # held until all is counted: what is freed could be given out again
    kept = sum(seen.values())
    del output
    return kept


def _paths_bytes(net: nn.Module, x: Tensor, paths: int, draw: torch.Generator) -> Iterator[int]:
    for _ in range(paths):
        with binary_paths(net, pairs=True, generator=draw):
            yield saved_bytes(net, x)
