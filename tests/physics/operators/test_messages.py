"""Sums of messages against the equation written plainly."""

import pytest
import torch
from tests.physics.operators.samples import SPACES, normal
from torch.nn import functional as F

from throughline.physics.operators.messages import message_sums
from throughline.physics.operators.processors import _Graph


@pytest.mark.parametrize("block", [1, 10_000_000])
def test_messages_are_summed_over_neighbours(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("throughline.physics.operators.messages.BLOCK", block)
    graph = _Graph(SPACES[0])
    source, target = SPACES[0].edges
    s, t = (normal(2, 3, SPACES[0].dim, 2, seed=i).requires_grad_() for i in range(2))
    e = normal(len(source), 2, seed=2).requires_grad_()
    maps = (graph.from_source, graph.from_target)
    messages = F.gelu(s[..., source, :] + t[..., target, :] + e)
    wanted = torch.zeros_like(s).index_add(-2, target, messages)
    found = message_sums(s, t, e, maps)
    torch.testing.assert_close(found, wanted)
    for one, other in zip(
        torch.autograd.grad(found.square().sum(), (s, t, e)),
        torch.autograd.grad(wanted.square().sum(), (s, t, e)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    some = (s[:1, :1].detach().requires_grad_(), t[:1, :1].detach().requires_grad_(), e)
    assert torch.autograd.gradgradcheck(lambda *x: message_sums(*x, maps), some, fast_mode=True)
    mixed = (some[0], some[1].detach(), e)  # not all of them need a derivative
    assert torch.autograd.gradgradcheck(lambda *x: message_sums(*x, maps), mixed, fast_mode=True)


def test_sums_inside_of_transforms_are_those_outside() -> None:
    graph = _Graph(SPACES[0])
    s, t = (normal(4, SPACES[0].dim, 2, seed=i) for i in range(2))
    e, maps = normal(SPACES[0].edges.shape[1], 2, seed=2), (graph.from_source, graph.from_target)
    whole = message_sums(s, t, e, maps)
    torch.testing.assert_close(torch.func.vmap(lambda s, t: message_sums(s, t, e, maps))(s, t), whole)
