"""What both quantisers do to a model ("Model compression via distillation and quantization", arXiv 1802.05668): put
quantised values in and take them out again, write them for good, and count bytes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from throughline.core._modules import plain_name
from throughline.core.checks import integer
from throughline.discrete.quantization.buckets import Codes, encode
from throughline.discrete.quantization.huffman import huffman_lengths
from throughline.discrete.quantization.rounding import check_buckets, check_weight

__all__ = ["MOST_BITS", "CompressedSize", "ModelQuantizer", "Select"]

MOST_BITS = 16
Select = Callable[[str, nn.Parameter], bool]


class CompressedSize(NamedTuple):
    """What a quantised model takes, beside its parameters in float32."""

    bytes: float  # Huffman-coded weights, two numbers for every bucket, learned points, and all other parameters
    bits_per_weight: float  # of the code alone
    full_bytes: int  # all parameters in float32
    ratio: float  # full_bytes / bytes


class ModelQuantizer(ABC):
    """The part of a quantiser that does not depend on where its levels come from."""

    _owner: tuple[nn.Module]  # in a tuple, where an nn.Module does not take it for a part of itself
    _weights: dict[str, nn.Parameter]
    _bucket_size: int | None
    _originals: list[Tensor]  # full precision, while quantised values are in place
    _versions: list[int]
    _final: dict[str, Codes] | None

    def _adopt(self, model: nn.Module, bits: int, bucket_size: int | None, select: Select | None) -> int:
        """Take the model, and give ``bits`` as Python's own integer."""
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
        if not 1 <= integer("bits", bits) <= MOST_BITS:
            raise ValueError(f"bits must be from 1 to {MOST_BITS}, got {bits}")
        bucket_size = check_buckets(bucket_size)
        keep = select or (lambda _, parameter: parameter.ndim >= 2)
        named = _plain_parameters(model)
        weights = {name: p for name, p in named.items() if keep(name, p)}
        if not weights:
            raise ValueError(f"select must choose at least one parameter, got none of: {', '.join(named)}")
        for name, parameter in weights.items():
            check_weight(parameter, name)
        self._owner, self._weights, self._bucket_size = (model,), weights, bucket_size
        self._originals, self._versions, self._final = [], [], None
        return int(bits)

    @property
    def model(self) -> nn.Module:
        """The model, as it was given."""
        return self._owner[0]

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The selected parameters by name."""
        return dict(self._weights)

    @property
    def finalized(self) -> bool:
        """Whether `finalize` has been called."""
        return self._final is not None

    def _check_held(self) -> None:
        """Whoever quantises a parameter that the model has no more changes nothing, and says nothing."""
        now = _plain_parameters(self.model)
        for name, weight in self._weights.items():
            if now.get(name) is not weight:
                raise RuntimeError(
                    f"{name} is another parameter than when the quantiser was made, as load_state_dict(assign=True) "
                    "leaves it: make the quantiser after that, or load with assign=False"
                )

    @abstractmethod
    def _grid(self, place: int) -> int | Tensor:
        """Number of levels, or the points, of the selected parameter number ``place``."""

    @abstractmethod
    def _quantized(self, place: int, weight: Tensor) -> Tensor:
        """``weight``, the selected parameter number ``place``, at its levels."""

    def __enter__(self) -> Self:
        if self.finalized:
            raise RuntimeError("finalize() was called: the weights are quantised for good")
        if self._originals:
            raise RuntimeError("this quantiser has been entered already; leave the first block before the next")
        self._check_held()
        try:
            with torch.no_grad():
                for place, weight in enumerate(self._weights.values()):
                    self._originals.append(weight.detach().clone())
                    weight.copy_(self._quantized(place, self._originals[-1]))
        except BaseException:
            self._restore()
            raise
        self._versions = [weight._version for weight in self._weights.values()]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        changed = [n for (n, w), v in zip(self._weights.items(), self._versions, strict=True) if w._version != v]
        self._restore()
        if kind is None:
            self._check_held()
        if changed and kind is None:
            raise RuntimeError(
                f"{changed[0]} was changed inside the block, and is as it was before it; update weights after the block"
            )

    @torch.no_grad()
    def _restore(self) -> None:
        for weight, original in reversed(list(zip(self._weights.values(), self._originals, strict=False))):
            weight.copy_(original)
        self._originals, self._versions = [], []

    def codes(self) -> dict[str, Codes]:
        """Symbols and scales of every selected parameter, as `save_quantized` writes them."""
        self._check_held()
        if self._final is not None:
            return self._final
        weights = self._originals or list(self._weights.values())
        return {
            name: encode(weight, self._grid(place), self._bucket_size, name)
            for place, (name, weight) in enumerate(zip(self._weights, weights, strict=True))
        }

    @torch.no_grad()
    def finalize(self) -> nn.Module:
        """Write the quantised values (to the nearest level) for good, and return the model.

        Raises:
            RuntimeError: inside a block, or the model has other parameters than when the quantiser was made.
            ValueError: a selected weight is not finite.
        """
        if self._originals:
            raise RuntimeError("finalize() must be called after the block, not inside it")
        codes = self.codes()
        if self._final is None:
            self._final = codes
            for weight, own in zip(self._weights.values(), codes.values(), strict=True):
                weight.copy_(own.values().view(weight.shape))
        return self.model

    def size(self) -> CompressedSize:
        """What the model would take on disk, before or after `finalize`; buffers are not counted."""
        codes = list(self.codes().values())
        most = max(c.levels for c in codes)
        counts = torch.stack([torch.bincount(c.symbols, minlength=most).cpu() for c in codes]).sum(0)
        bits = int((huffman_lengths(counts) * counts).sum())
        total = int(counts.sum())
        own = {id(weight) for weight in self._weights.values()}
        parameters = list(self.model.parameters())
        size = bits / 8 + sum(p.numel() * p.element_size() for p in parameters if id(p) not in own)
        for c in codes:
            size += sum(t.numel() * t.element_size() for t in (c.offset, c.scale, c.points) if t is not None)
        full = 4 * sum(p.numel() for p in parameters)
        return CompressedSize(size, bits / total, full, full / size)


def _plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by the names that they have without wrappers; a shared one comes once."""
    return {plain_name(model, name) or name: parameter for name, parameter in model.named_parameters()}
