"""Recomputed descent: the numbers of the one that keeps everything, in fewer states, by two losses a step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from throughline.core._descent import stretches
from throughline.core.bilevel import hypergradient

STEPS = 45


class Wide:
    """A loss on rows of data: with many of them its graph is far larger than y, with few it is about as large."""

    def __init__(self, rows: int, width: int = 400) -> None:
        draw = torch.Generator().manual_seed(0)
        self.data, self.target = (torch.randn(rows, width, generator=draw, dtype=torch.float64) / 20 for _ in range(2))
        self.x, self.y = torch.tensor(-1.0, dtype=torch.float64), torch.ones(width, dtype=torch.float64)
        self.calls = 0
        self.states: dict[int, StorageWeakRef] = {}
        self.most = 0  # states alive at a time

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        storage = y.untyped_storage()
        self.states[storage._cdata] = StorageWeakRef(storage)
        self.most = max(self.most, sum(not state.expired() for state in self.states.values()))
        return (self.data * y).tanh().sub(self.target).square().sum() + x.exp() * y.square().sum()

    def outer(self, x: Tensor, y: Tensor) -> Tensor:
        return (y - 0.5).square().sum()

    def estimate(self, again: bool, steps: int = STEPS) -> Tensor:
        found: Tensor = hypergradient(
            self.outer, self.inner, self.x, self.y, method="unrolled", steps=steps, lr=0.05, checkpoint=again
        )
        return found


@pytest.mark.parametrize("rows", [1, 60])
@pytest.mark.parametrize("steps", [1, 2, 3, STEPS])
def test_numbers_are_those_of_all_graphs_kept(rows: int, steps: int) -> None:
    wide = Wide(rows)
    found = wide.estimate(True, steps)
    assert wide.calls <= 2 * steps
    assert found.equal(wide.estimate(False, steps))


def test_few_states_are_kept_where_graphs_are_small() -> None:
    few, many = Wide(1), Wide(60)
    few.estimate(True)
    many.estimate(True)
    assert few.most <= STEPS // 2
    assert many.most <= STEPS + 1  # each of its graphs takes more than all states


def test_a_loss_may_have_checkpoints_of_its_own() -> None:
    wide = Wide(3)
    inner = lambda x, y: checkpoint(wide.inner, x, y, use_reentrant=False)  # noqa: E731
    options = {"method": "unrolled", "steps": 6, "lr": 0.05, "checkpoint": True}
    found = hypergradient(wide.outer, inner, wide.x, wide.y, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(found, wide.estimate(False, 6))


@given(st.integers(1, 400), st.integers(0, 1000), st.integers(0, 100_000))
def test_no_stretch_holds_more_than_all_states_and_a_graph(steps: int, state: int, graph: int) -> None:
    lengths = stretches(steps, state, graph)
    assert sum(lengths) == steps
    assert min(lengths) >= 1
    held = max(kept * state + length * (state + graph) for kept, length in enumerate(lengths))
    assert held <= steps * state + graph
    bound = (2 * steps * state * (state + graph)) ** 0.5 + 2 * (state + graph)
    assert held <= bound
