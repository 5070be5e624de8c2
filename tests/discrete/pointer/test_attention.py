"""The attention alone: masks, and the states of another encoder."""

import torch
from tests.discrete.pointer.models import uniform
from torch import nn

from throughline.discrete.pointer import PointerAttention


def test_masks_of_both_shapes_and_whole_rows() -> None:
    attention = PointerAttention(3).double()
    queries, keys = uniform(2, 4, 3), uniform(2, 5, 3, seed=1)
    plain = attention(queries, keys)
    by_key = torch.tensor([[True, False, True, True, False], [False] * 5])
    by_pair = uniform(2, 4, 5, seed=2) > 0.5
    assert torch.equal(attention(queries, keys, mask=by_key), plain.masked_fill(~by_key[:, None], -torch.inf))
    assert torch.equal(attention(queries, keys, mask=by_pair), plain.masked_fill(~by_pair, -torch.inf))
    assert (attention(queries, keys, mask=by_key)[1] == -torch.inf).all()


def test_points_into_the_states_of_another_encoder() -> None:
    """Two queries, a span's start and end, over a transformer's states with padding."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    span, queries = PointerAttention(16, 8), nn.Parameter(torch.randn(2, 8))
    states = layer(torch.randn(3, 7, 16))
    there = torch.arange(7) < torch.tensor([[7], [4], [5]])
    log_p = span(queries.expand(3, -1, -1), states, mask=there).log_softmax(-1)
    log_p[:, 0, 1].sum().backward()
    assert log_p.shape == (3, 2, 7)
    assert queries.grad is not None
    assert queries.grad.isfinite().all()
