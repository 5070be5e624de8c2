"""Speed bars of the key-value bottleneck: look-up and key update against the official mathematics and packages."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.growth import Growth
from benchmarks.harness import Case
from throughline.discrete.key_value import CodebookVote, KeyValueBottleneck

BATCH, BOOKS, PAIRS, WIDTH, CLASSES = 256, 32, 512, 14, 10
FEATURES = 512  # of the encoder, where there is a projection
OFFICIAL = "the official module's arithmetic"
SIZES = f"B {BATCH}, C {BOOKS}, K {PAIRS}, d {WIDTH}"


def _bottleneck(projection: bool = False) -> tuple[KeyValueBottleneck, Tensor]:
    """A bottleneck in use, and a batch of embeddings; without projection these are the heads."""
    draw = torch.Generator().manual_seed(0)
    width = FEATURES if projection else BOOKS * WIDTH
    bottleneck = KeyValueBottleneck(
        width,
        CLASSES,
        num_codebooks=BOOKS,
        num_pairs=PAIRS,
        dim_key=WIDTH,
        projection="random" if projection else "none",
        generator=draw,
    )
    for state in (bottleneck.keys, bottleneck.values.data):
        state.normal_(generator=draw)
    bottleneck.key_sum.copy_(bottleneck.keys)
    bottleneck.key_count.fill_(1)
    bottleneck.initialized.fill_(True)
    return bottleneck.eval(), torch.randn(BATCH, width, generator=draw)


def _fetch(values: Tensor, index: Tensor) -> Tensor:
    """Values ``(B, C, d_v)`` at ``index (C, B)``, as the official module gathers them."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1])).transpose(0, 1)


def _heads(x: Tensor) -> Tensor:
    return x.view(BATCH, BOOKS, WIDTH).transpose(0, 1)


def _lookup(distances: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Callable[[], Any]]:
    """Look-up and gather; the peer makes all distances ``(C, B, K)`` of heads ``(C, B, d)`` in its own way."""
    bottleneck, x = _bottleneck()
    values = bottleneck.values.detach()

    @torch.no_grad()
    def ours() -> Tensor:
        return bottleneck(x)

    @torch.no_grad()
    def theirs() -> Tensor:
        return _fetch(values, distances(_heads(x), bottleneck.keys).argmin(-1))

    return {"ours": ours, "peer": theirs, "agree": lambda: torch.testing.assert_close(ours(), theirs())}


def _differences(h: Tensor, keys: Tensor) -> Tensor:
    return (h[:, :, None] - keys[:, None]).square().sum(-1)


def _vector_quantize() -> dict[str, Callable[[], Any]]:
    from vector_quantize_pytorch import VectorQuantize

    bottleneck, x = _bottleneck()
    values = bottleneck.values.detach()
    peer = VectorQuantize(
        dim=BOOKS * WIDTH, codebook_dim=WIDTH, codebook_size=PAIRS, heads=BOOKS, separate_codebook_per_head=True
    ).eval()
    peer.project_in = peer.project_out = nn.Identity()
    peer._codebook.embed.data.copy_(bottleneck.keys)

    @torch.no_grad()
    def ours() -> Tensor:
        return bottleneck(x)

    @torch.no_grad()
    def theirs() -> Tensor:
        return _fetch(values, peer(x[:, None])[1][:, 0].T)

    return {"ours": ours, "peer": theirs, "agree": lambda: torch.testing.assert_close(ours(), theirs())}


def _vote() -> dict[str, Callable[[], Any]]:
    from discrete_key_value_bottleneck_pytorch import DiscreteKeyValueBottleneck

    bottleneck, x = _bottleneck(projection=True)
    head = nn.Sequential(bottleneck, CodebookVote())
    peer = DiscreteKeyValueBottleneck(
        WIDTH,
        num_memories=PAIRS,
        dim_embed=FEATURES,
        num_memory_codebooks=BOOKS,
        dim_memory=CLASSES,
        codebook_dim=WIDTH,
    ).eval()
    peer.values.data.copy_(bottleneck.values.data)
    peer.rand_proj.copy_(bottleneck.projection)
    peer.vq._codebook.embed.data.copy_(bottleneck.keys)

    def ours() -> Tensor:
        return head(x)

    def theirs() -> Tensor:
        return peer(x[:, None])[:, 0]

    def step(logits: Callable[[], Tensor], values: nn.Parameter) -> Tensor:
        return torch.autograd.grad(logits().square().sum(), values)[0]

    def agree() -> None:
        torch.testing.assert_close(ours(), theirs())
        torch.testing.assert_close(step(ours, bottleneck.values), step(theirs, peer.values))

    return {
        "ours": partial(step, ours, bottleneck.values),
        "peer": partial(step, theirs, peer.values),
        "agree": agree,
    }


class _OfficialKeys:
    """The official moving averages, from the state of a bottleneck; one-hot assignments as a matrix product."""

    def __init__(self, bottleneck: KeyValueBottleneck) -> None:
        self.keys, self.sums, self.count = (
            state.clone() for state in (bottleneck.keys, bottleneck.key_sum, bottleneck.key_count)
        )
        self.decay, self.eps = bottleneck.decay, bottleneck.eps

    def step(self, x: Tensor) -> Tensor:
        h = _heads(x)
        chosen = F.one_hot(torch.cdist(h, self.keys).argmin(-1), PAIRS).to(h.dtype)
        self.count.mul_(self.decay).add_(chosen.sum(1), alpha=1 - self.decay)
        self.sums.mul_(self.decay).add_(chosen.mT @ h, alpha=1 - self.decay)
        total = self.count.sum(-1, keepdim=True)
        smooth = (self.count + self.eps) / (total + PAIRS * self.eps) * total
        self.keys.copy_(self.sums / smooth[..., None])
        return self.keys


def _update() -> dict[str, Callable[[], Any]]:
    bottleneck, x = _bottleneck()
    bottleneck.dead_threshold = 0.0  # the peer does not look for dead pairs
    peer = _OfficialKeys(bottleneck)

    def ours() -> Tensor:
        return bottleneck.update_keys(x).keys

    def agree() -> None:
        torch.testing.assert_close(ours(), peer.step(x))

    return {"ours": ours, "peer": partial(peer.step, x), "agree": agree}


SCORES = 2.0 * BATCH * BOOKS * PAIRS * WIDTH  # operations
MOVED = 4.0 * (BATCH * BOOKS * (WIDTH + 2 * CLASSES) + BOOKS * PAIRS * WIDTH)

CASES = [
    Case(f"look-up and gather, {SIZES}", partial(_lookup, torch.cdist), 0.5, OFFICIAL, flops=SCORES, bytes=MOVED),
    Case(
        f"look-up and gather, {SIZES}, against differences",
        partial(_lookup, _differences),
        0.2,
        "a table of differences",
        flops=SCORES,
        bytes=MOVED,
    ),
    Case(
        f"look-up and gather, {SIZES}, against a package",
        _vector_quantize,
        1.0,
        "vector-quantize-pytorch 1.32.0",
        flops=SCORES,
        bytes=MOVED,
    ),
    Case(
        f"vote and its gradient, {FEATURES} features, {SIZES}",
        _vote,
        1.0,
        "discrete-key-value-bottleneck-pytorch 0.1.1",
        flops=SCORES + 2.0 * BATCH * FEATURES * BOOKS * WIDTH,
        bytes=MOVED + 4.0 * BOOKS * PAIRS * CLASSES,
    ),
    Case(f"update_keys, {SIZES}", _update, 0.5, OFFICIAL, flops=SCORES, bytes=MOVED + 4.0 * 4 * BOOKS * PAIRS * WIDTH),
]


def looking_up(pairs: int) -> Callable[[], Any]:
    """A batch of 16 in 4 codebooks; look-up never lays out all distances of all heads."""
    bottleneck = KeyValueBottleneck(4 * WIDTH, CLASSES, num_codebooks=4, num_pairs=pairs, projection="none").eval()
    bottleneck.initialized.fill_(True)
    x = torch.randn(16, 4 * WIDTH)

    @torch.no_grad()
    def call() -> Tensor:
        return bottleneck(x)

    return call


GROWTH = [Growth("look-up and gather, 16 × 4 heads", "pairs K", 2**14, looking_up, time=1, memory=1)]
