"""Codebooks of pairs whose keys find and whose values learn ("Discrete Key-Value Bottleneck", arXiv 2207.11240)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from throughline.core.checks import check_floating, integer, readable
from throughline.discrete.key_value.averages import Averages, drawn_from, moved
from throughline.discrete.key_value.nearest import nearest
from throughline.discrete.key_value.processes import END, SpreadBatch, all_or_none, in_step, sum_within_ddp

__all__ = ["CodebookVote", "KeyValueBottleneck"]


class KeyValueBottleneck(nn.Module):
    """Fetch the values of the keys nearest to an embedding: ``(..., m)`` to ``(..., C, d_v)``, one for each codebook.

    A codebook sees its own fixed random projection of the embedding, its head. Keys are found first, from unlabelled
    embeddings, by the moving averages of a vector-quantised autoencoder, and move only in `update_keys` and `fit_keys`.
    Training changes the values that were fetched and no others, with plain SGD: momentum, weight decay and Adam change
    others too. Nothing flows back into keys, projection or ``x``. An embedding's look-up takes O(CK)
    time and memory.

    Where torch.distributed runs, keys are found from the batches of all processes as from one, and are the same in
    each: all of them call `fit_keys` and `update_keys`. DistributedDataParallel counts the `usage` of all.

    Two departures from the authors' code: the averages start at the keys (theirs start at count 0 with a sum that is
    not, which throws the keys off the data), and a dead pair has its averages replaced together with its key.

    Args:
        in_features: m, the width of the embedding.
        dim_value: d_v, the number of classes when `CodebookVote` follows.
        num_codebooks: C.
        num_pairs: K, pairs in a codebook.
        dim_key: d_k.
        projection: "random", or "none" to cut the embedding into C pieces, which needs m = C · d_k.
        decay: γ of the moving averages, in (0, 1).
        eps: positive; smooths the counts.
        dead_threshold: not negative; pairs that are hit less often than this share of an even spread are drawn anew.
        topk: how many of the nearest keys are fetched and averaged, 1 … K.
        generator: draws the projection.

    Attributes:
        values: ``(C, K, d_v)``, zero at first: no opinion. The only parameter.
        keys, key_sum, key_count: ``(C, K, d_k)`` twice and ``(C, K)``, the state of the moving averages.
        usage, initialized: ``(C, K)``, how often a pair was fetched in training mode; and whether there are keys, which
            is to be set where they are set by hand.

    Raises:
        TypeError: a size or ``topk`` is no integer.
        ValueError: an argument is out of range.

    >>> draw = torch.Generator().manual_seed(0)
    >>> bottleneck = KeyValueBottleneck(6, 3, num_codebooks=4, num_pairs=8, dim_key=2, generator=draw)
    >>> bottleneck = bottleneck.fit_keys(torch.randn(100, 6, generator=draw).split(25), generator=draw)
    >>> bottleneck(torch.randn(5, 6)).shape
    torch.Size([5, 4, 3])
    """

    projection: Tensor | None
    keys: Tensor
    key_sum: Tensor
    key_count: Tensor
    usage: Tensor
    initialized: Tensor

    def __init__(
        self,
        in_features: int,
        dim_value: int,
        *,
        num_codebooks: int = 256,
        num_pairs: int = 4096,
        dim_key: int = 14,
        projection: Literal["random", "none"] = "random",
        decay: float = 0.95,
        eps: float = 1e-5,
        dead_threshold: float = 0.1,
        topk: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        sizes = {
            "in_features": in_features,
            "dim_value": dim_value,
            "num_codebooks": num_codebooks,
            "num_pairs": num_pairs,
            "dim_key": dim_key,
        }
        for name, size in sizes.items():
            if integer(name, size) < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if projection not in ("random", "none"):
            raise ValueError(f'projection must be "random" or "none", got {projection!r}')
        if projection == "none" and in_features != num_codebooks * dim_key:
            raise ValueError(
                f"in_features must be num_codebooks * dim_key = {num_codebooks * dim_key} without a projection, "
                f"got {in_features}"
            )
        if not 0 < decay < 1:
            raise ValueError(f"decay must be in (0, 1), got {decay}")
        if not 0 < eps < torch.inf:
            raise ValueError(f"eps must be positive and finite, got {eps}")
        if not 0 <= dead_threshold < torch.inf:
            raise ValueError(f"dead_threshold must be finite and not negative, got {dead_threshold}")
        if not 1 <= integer("topk", topk) <= num_pairs:
            raise ValueError(f"topk must be between 1 and num_pairs = {num_pairs}, got {topk}")
        self.in_features, self.dim_value = in_features, dim_value
        self.num_codebooks, self.num_pairs, self.dim_key = num_codebooks, num_pairs, dim_key
        self.decay, self.eps, self.dead_threshold, self.topk = decay, eps, dead_threshold, topk
        self.register_buffer("projection", None)
        if projection == "random":
            drawn = torch.randn(
                (in_features, num_codebooks, dim_key),
                generator=generator,
                device=None if generator is None else generator.device,
            )
            drawn = drawn / torch.linalg.vector_norm(drawn, dim=0)  # every column of every codebook has norm 1
            self.projection = drawn.to(torch.get_default_device()).transpose(
                0, 1
            )  # this layout makes heads one product
        pairs = (num_codebooks, num_pairs)
        self.values = nn.Parameter(torch.zeros(*pairs, dim_value))
        self.register_buffer("keys", torch.zeros(*pairs, dim_key))
        self.register_buffer("key_sum", torch.zeros(*pairs, dim_key))
        self.register_buffer("key_count", torch.zeros(pairs))
        self.register_buffer("usage", torch.zeros(pairs))
        self.register_buffer("initialized", torch.tensor(False))
        self._has_keys = False  # what `initialized` has said: asking it each time would wait for the device

    def heads(self, x: Tensor) -> Tensor:
        """What each codebook sees: ``(..., m)`` to ``(..., C, d_k)``.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: its last dimension is not m.
        """
        return self._heads(x).to(torch.promote_types(x.dtype, self.keys.dtype))

    def lookup(self, x: Tensor) -> Tensor:
        """Places of the nearest keys, nearest first: ``(..., m)`` to ``(..., C, topk)`` in int64, without gradient.

        Raises:
            TypeError, ValueError: those of `heads`; and ValueError when there are no keys yet, or ``x`` is not finite.
                Where values cannot be looked at (torch.compile, torch.func), its places are then -1.
        """
        found = self._places(x)
        if readable(found) and bool((found < 0).any()):
            raise ValueError("x must be finite, got NaN, an infinity or what overflows")
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Fetched values, the mean of the ``topk`` nearest: ``(..., m)`` to ``(..., C, d_v)`` in the dtype of `values`.

        What is not finite fetches NaN. In training mode the fetches are counted in `usage`. Errors are those of
        `lookup`.
        """
        found = self._places(x)
        lost = found[..., :1] < 0
        row = found.clamp_min(0) + self._first_rows()[:, None]
        if self.training:
            _Count.apply(self.usage.view(-1), row, (~lost).to(self.usage.dtype).expand_as(row))  # type: ignore[no-untyped-call]
        fetched = self.values.flatten(0, 1)[row]
        fetched = fetched.squeeze(-2) if self.topk == 1 else fetched.mean(-2)
        return fetched.masked_fill(lost, torch.nan)

    @torch.no_grad()
    def update_keys(self, x: Tensor, *, generator: torch.Generator | None = None) -> Self:
        """Move the keys by one step of the moving averages on a batch ``(..., m)``; values stay as they are.

        The first batch of all also gives the keys that it starts from.

        Args:
            x: embeddings; leading dimensions are flattened, and there may be fewer than K (in some process none).
            generator: draws the first keys, and those that take the place of dead ones; that of the first process does.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: its last dimension is not m, or it is empty, or not finite, in any process. The keys are then as
                they were.
        """
        with all_or_none(self.keys.device):
            h = self._heads(x).reshape(-1, self.num_codebooks, self.dim_key).transpose(0, 1)  # (C, B, d_k)
            if not h.square().sum(-1).isfinite().all():
                raise ValueError("x must be finite, got NaN or infinity, or what overflows")
        batch = SpreadBatch(h)
        if not batch.total:
            raise ValueError(f"x must hold at least one embedding, got shape {tuple(x.shape)}")
        state = Averages(*(one.to(h.dtype) for one in (self.keys, self.key_sum, self.key_count)))
        if not self.initialized:
            state = drawn_from(batch, state, generator)
        state = moved(state, batch, self.decay, self.eps, self.dead_threshold, generator)
        for own, new in zip((self.keys, self.key_sum, self.key_count), state, strict=True):
            own.copy_(new)
        self.initialized.fill_(True)
        self._has_keys = True
        return self

    def fit_keys(
        self,
        batches: Iterable[Tensor | Sequence[Any]],
        *,
        epochs: int = 10,
        generator: torch.Generator | None = None,
    ) -> Self:
        """Find the keys: `update_keys` on every batch, ``epochs`` times over.

        Args:
            batches: embeddings ``(..., m)``, or tuples that begin with them: ``x.split(256)``, a ``DataLoader``. A
                process that has fewer of them than another goes on with none.
            epochs: at least 1.
            generator: as in `update_keys`.

        Raises:
            TypeError: ``batches`` is one tensor or yields something else, or those of `update_keys`.
            ValueError: no batch, a one-shot iterator for more than one epoch, or those of `update_keys`.
        """
        if isinstance(batches, Tensor):
            raise TypeError("batches must be an iterable of tensors, such as x.split(256), got one tensor")
        if integer("epochs", epochs) < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        if epochs > 1 and isinstance(batches, Iterator):
            raise ValueError(
                f"batches must be re-iterable for {epochs} epochs (a list or a DataLoader), got a one-shot iterator"
            )
        for _ in range(epochs):
            steps = 0
            x = self.keys.new_empty(0, self.in_features)
            for batch in in_step(batches, self.keys.device):
                ended = batch is END
                x = x.reshape(-1, self.in_features)[:0] if ended else _embeddings(batch).to(self.keys.device)
                self.update_keys(x, generator=generator)
                steps += 1
            if not steps:
                raise ValueError("batches must yield at least one batch, got none")
        return self

    def _heads(self, x: Tensor) -> Tensor:
        """Heads in float32 at least: half precision takes many a neighbour for the nearest."""
        check_floating("x", x)
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must be (..., {self.in_features}), got shape {tuple(x.shape)}")
        wide = torch.promote_types(torch.promote_types(x.dtype, self.keys.dtype), torch.float32)
        h = x.to(wide)
        if self.projection is not None:
            with torch.autocast(x.device.type, enabled=False):
                h = h @ self.projection.to(wide).transpose(0, 1).flatten(1)
        return h.view(*h.shape[:-1], self.num_codebooks, self.dim_key)

    @torch.no_grad()
    def _places(self, x: Tensor) -> Tensor:
        """`lookup`, with -1 for what is not finite."""
        h = self._heads(x)
        if not self._has_keys:
            self._has_keys = bool(self.initialized)
            if not self._has_keys:
                raise ValueError("keys must be found first: call fit_keys or update_keys, or load a state; got none")
        found = nearest(h.reshape(-1, *h.shape[-2:]).transpose(0, 1), self.keys.to(h.dtype), self.topk)
        return found.transpose(0, 1).contiguous().view(*x.shape[:-1], self.num_codebooks, self.topk)

    def _first_rows(self) -> Tensor:
        """Where each codebook begins among all C · K pairs, ``(C,)``."""
        return torch.arange(self.num_codebooks, device=self.keys.device) * self.num_pairs

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._has_keys = bool(self.initialized)

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, {self.dim_value}, num_codebooks={self.num_codebooks}, num_pairs={self.num_pairs}, "
            f"dim_key={self.dim_key}, projection={'none' if self.projection is None else 'random'!r}, topk={self.topk}"
        )


class CodebookVote(nn.Module):
    """The paper's decoder, without weights: the mean over codebooks, whose softmax are the class probabilities.

    >>> CodebookVote()(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    tensor([[0.5000, 0.0000]])
    """

    def forward(self, values: Tensor) -> Tensor:
        """``(..., C, classes)`` to ``(..., classes)``.

        Raises:
            TypeError: ``values`` are not floating point.
            ValueError: they have fewer than two dimensions, or no codebook.
        """
        check_floating("values", values)
        if values.dim() < 2 or not values.shape[-2]:
            raise ValueError(f"values must be (..., C, classes) with C >= 1, got shape {tuple(values.shape)}")
        return values.mean(-2)


class _Count(torch.autograd.Function):
    """Add ``ones`` to ``usage (C K,)`` at ``row``, in place: also for all samples of a vmap, which alone could not."""

    @staticmethod
    def forward(usage: Tensor, row: Tensor, ones: Tensor) -> Tensor:
        usage.add_(sum_within_ddp(torch.zeros_like(usage).index_add_(0, row.flatten(), ones.flatten())))
        return row.new_zeros(())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, ...]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, None]:
        return _Count.apply(*args), None  # type: ignore[no-untyped-call]


def _embeddings(batch: Tensor | Sequence[Any]) -> Tensor:
    if isinstance(batch, Sequence) and len(batch):
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise TypeError(f"batches must yield tensors, or tuples that begin with one, got {type(batch).__name__}")
    return batch
