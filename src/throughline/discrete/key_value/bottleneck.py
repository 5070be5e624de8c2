"""A head that learns on without forgetting: an embedding picks one (key, value) pair in each of many small codebooks.

"Discrete Key-Value Bottleneck" (arXiv 2207.11240).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CodebookVote", "KeyValueBottleneck"]

SCORES = 2**24  # held at once by a look-up: 64 MB in float32
CACHED = 2**18  # the same on a CPU, where they had better stay in its cache
FOLDS = 16  # of a row of scores: a maximum is found many times as fast as its place


class KeyValueBottleneck(nn.Module):
    """Fetch the values of the keys nearest to an embedding: ``(..., m)`` to ``(..., C, d_v)``, one for each codebook.

    A codebook sees its own fixed random projection of the embedding, its head. Keys are found first, from unlabelled
    embeddings, by the moving averages of a vector-quantised autoencoder, and move only in `update_keys` and `fit_keys`.
    Training changes the values that were fetched and no others, with plain SGD: momentum, weight decay and Adam change
    others too. Nothing flows back into keys, projection or ``x``.

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
            if size < 1:
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
        if not 1 <= topk <= num_pairs:
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

    @torch.no_grad()
    def lookup(self, x: Tensor) -> Tensor:
        """Places of the nearest keys, nearest first: ``(..., m)`` to ``(..., C, topk)`` in int64, without gradient.

        Raises:
            TypeError, ValueError: those of `heads`, or there are no keys yet (ValueError).
        """
        h = self._heads(x)
        if not self._has_keys:
            self._has_keys = bool(self.initialized)
            if not self._has_keys:
                raise ValueError("keys must be found first: call fit_keys or update_keys, or load a state; got none")
        found = _nearest(h.reshape(-1, *h.shape[-2:]).transpose(0, 1), self.keys.to(h.dtype), self.topk)
        return found.transpose(0, 1).contiguous().view(*x.shape[:-1], self.num_codebooks, self.topk)

    def forward(self, x: Tensor) -> Tensor:
        """Fetched values, the mean of the ``topk`` nearest: ``(..., m)`` to ``(..., C, d_v)`` in the dtype of `values`.

        In training mode the fetches are counted in `usage`. Errors are those of `lookup`.
        """
        row = self.lookup(x) + self._first_rows()[:, None]
        if self.training:
            ones = self.usage.new_ones(()).expand(row.numel())
            self.usage.view(-1).index_add_(0, row.flatten(), ones)
        fetched = self.values.flatten(0, 1)[row]
        return fetched.squeeze(-2) if self.topk == 1 else fetched.mean(-2)

    @torch.no_grad()
    def update_keys(self, x: Tensor, *, generator: torch.Generator | None = None) -> Self:
        """Move the keys by one step of the moving averages on a batch ``(..., m)``; values stay as they are.

        The first batch of all also gives the keys that it starts from.

        Args:
            x: embeddings; leading dimensions are flattened, and there may be fewer than K.
            generator: draws the first keys, and those that take the place of dead ones.

        Raises:
            TypeError: ``x`` is not floating point.
            ValueError: its last dimension is not m, or it is empty, or not finite. The keys are then as they were.
        """
        h = self._heads(x).reshape(-1, self.num_codebooks, self.dim_key).transpose(0, 1)  # (C, B, d_k)
        if not h.numel():
            raise ValueError(f"x must hold at least one embedding, got shape {tuple(x.shape)}")
        if not x.isfinite().all():
            raise ValueError("x must be finite, got NaN or infinity")
        keys, key_sum, count = (state.to(h.dtype) for state in (self.keys, self.key_sum, self.key_count))
        books = torch.arange(self.num_codebooks, device=h.device)
        if not self.initialized:
            keys = key_sum = h[books[:, None], _draw(h.shape[1], count.shape, generator, h.device)]
            count = torch.ones_like(count)
        row = (_nearest(h, keys, 1).squeeze(-1) + self._first_rows()[:, None]).flatten()
        hits = torch.zeros_like(count).view(-1).index_add_(0, row, h.new_ones(()).expand(len(row)))
        sums = torch.zeros_like(key_sum).flatten(0, 1).index_add_(0, row, h.flatten(0, 1))
        count = torch.lerp(hits.view_as(count), count, self.decay)
        key_sum = torch.lerp(sums.view_as(key_sum), key_sum, self.decay)
        total = count.sum(1, keepdim=True)
        smooth = (count + self.eps) / (total + self.num_pairs * self.eps) * total
        keys = key_sum / smooth[..., None]
        least = self.dead_threshold * h.shape[1] / self.num_pairs
        book, pair = (count < least).nonzero(as_tuple=True)
        keys[book, pair] = h[book, _draw(h.shape[1], book.shape, generator, h.device)]
        count[book, pair] = least
        key_sum[book, pair] = least * keys[book, pair]
        self.keys.copy_(keys)
        self.key_sum.copy_(key_sum)
        self.key_count.copy_(count)
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
            batches: embeddings ``(..., m)``, or tuples that begin with them: ``x.split(256)``, a ``DataLoader``.
            epochs: at least 1.
            generator: as in `update_keys`.

        Raises:
            TypeError: ``batches`` is one tensor, or those of `update_keys`.
            ValueError: no batch, a one-shot iterator for more than one epoch, or those of `update_keys`.
        """
        if isinstance(batches, Tensor):
            raise TypeError("batches must be an iterable of tensors, such as x.split(256), got one tensor")
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        if epochs > 1 and isinstance(batches, Iterator):
            raise ValueError(
                f"batches must be re-iterable for {epochs} epochs (a list or a DataLoader), got a one-shot iterator"
            )
        for _ in range(epochs):
            batch = None
            for batch in batches:
                x = batch if isinstance(batch, Tensor) else batch[0]
                self.update_keys(x.to(self.keys.device), generator=generator)
            if batch is None:
                raise ValueError("batches must yield at least one batch, got none")
        return self

    def _heads(self, x: Tensor) -> Tensor:
        """Heads in float32 at least: half precision takes many a neighbour for the nearest."""
        if not x.is_floating_point():
            raise TypeError(f"x must be floating point, got {x.dtype}")
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x must be (..., {self.in_features}), got shape {tuple(x.shape)}")
        wide = torch.promote_types(torch.promote_types(x.dtype, self.keys.dtype), torch.float32)
        h = x.to(wide)
        if self.projection is not None:
            with torch.autocast(x.device.type, enabled=False):
                h = h @ self.projection.to(wide).transpose(0, 1).flatten(1)
        return h.view(*h.shape[:-1], self.num_codebooks, self.dim_key)

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
        if not values.is_floating_point():
            raise TypeError(f"values must be floating point, got {values.dtype}")
        if values.dim() < 2 or not values.shape[-2]:
            raise ValueError(f"values must be (..., C, classes) with C >= 1, got shape {tuple(values.shape)}")
        return values.mean(-2)


def _nearest(h: Tensor, keys: Tensor, topk: int) -> Tensor:
    """Places of the keys ``(C, K, d)`` nearest to ``h (C, n, d)`` in each codebook, nearest first: ``(C, n, topk)``."""
    centre = keys.mean(1, keepdim=True)  # distances stay; a common offset no longer cancels digits
    keys = keys - centre
    keys = torch.cat([keys, keys.square().sum(-1, keepdim=True) / -2], -1)
    h = F.pad(h - centre, (0, 1), value=1.0)  # the product is then ½‖h‖² - ½‖h - k‖²
    count, n, k = len(h), h.shape[1], keys.shape[1]
    most = CACHED if h.device.type == "cpu" else SCORES
    rows = min(max(1, most // k), max(1, n))
    books = max(1, most // (rows * k))
    found = torch.empty((count, n, topk), dtype=torch.int64, device=h.device)
    with torch.autocast(h.device.type, enabled=False):
        for c in range(0, count, books):
            for i in range(0, n, rows):
                block = slice(c, c + books), slice(i, i + rows)
                scores = torch.bmm(h[block], keys[block[0]].mT)
                found[block] = _place_of_largest(scores) if topk == 1 else scores.topk(topk).indices
    return found


def _place_of_largest(scores: Tensor) -> Tensor:
    """``scores.argmax(-1, keepdim=True)``, the first in a tie, in half the time."""
    if scores.shape[-1] % FOLDS:
        return scores.max(-1, keepdim=True).indices
    folded = scores.view(*scores.shape[:-1], FOLDS, -1)
    fold = folded.amax(-1).max(-1, keepdim=True).indices
    row = folded.gather(-2, fold[..., None].expand(*fold.shape, folded.shape[-1])).squeeze(-2)
    place: Tensor = row.max(-1, keepdim=True).indices + fold * folded.shape[-1]
    return place


def _draw(
    n: int, shape: torch.Size | tuple[int, ...], generator: torch.Generator | None, device: torch.device
) -> Tensor:
    drawn = torch.randint(n, shape, generator=generator, device=device if generator is None else generator.device)
    return drawn.to(device)
