"""One architecture decision: a vector alpha over named options, until one of them is chosen.

"DARTS: Differentiable Architecture Search" (arXiv 1806.09055); removal without renormalising is that of "Rethinking
Architecture Selection in Differentiable NAS" (arXiv 2108.04392), Algorithm 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Choice"]


class Choice(nn.Module):
    """One decision among named options, with p = softmax(alpha) while it is open (arXiv 1806.09055, eq. 2).

    Modules that hold the same object share the decision, as the cells of a network do. What has been decided is part
    of ``state_dict``, pickle and deepcopy.

    Args:
        names: the options, at least one, each with a name of its own.
        scale: alpha starts at ``scale`` times standard normal numbers.
        generator: of these numbers; torch's global one by default.
        device, dtype: of alpha.

    Attributes:
        names: the options.
        alpha: ``(K,)``, the architecture parameters.
        decision: the option that has been selected, or None.
        dropped: whether all options are out: the edge is cut.

    Raises:
        TypeError: ``names`` holds something that is no string, or is a single string.
        ValueError: no names, an empty one, or one twice; in `select` and `without`, an option that there is not.

    >>> choice = Choice(["skip", "conv"], scale=0.0)
    >>> with choice.without("skip"):
    ...     choice.weights().tolist()
    [0.0, 0.5]
    >>> choice.select("conv")
    >>> choice.weights().tolist()
    [0.0, 1.0]
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        scale: float = 1e-3,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise TypeError(f"names must be a sequence of strings, got {names!r}")
        self.names = tuple(names)
        if not self.names or not all(self.names):
            raise ValueError(f"names must be at least one, and none of them empty, got {self.names}")
        if len(set(self.names)) < len(self.names):
            raise ValueError(f"names must differ from each other, got {self.names}")
        source = device if generator is None else generator.device
        drawn = torch.randn(len(self.names), generator=generator, device=source, dtype=dtype)
        self.alpha = nn.Parameter(scale * drawn.to(device or drawn.device))
        self.decision: str | None = None
        self.dropped = False
        self._removed: frozenset[str] = frozenset()

    @property
    def alive(self) -> tuple[str, ...]:
        """The options whose weight is not 0 by decision or removal, in order."""
        if self.dropped:
            return ()
        names = self.names if self.decision is None else (self.decision,)
        return tuple(name for name in names if name not in self._removed) if self._removed else names

    def probabilities(self) -> Tensor:
        """softmax(alpha), ``(K,)``, whatever has been decided."""
        return self.alpha.softmax(0)

    def weights(self) -> Tensor:
        """The weights in force, ``(K,)``: the softmax while the choice is open, the one-hot of the decision, or zeros
        once it is dropped; options that `without` removes are 0, and the others as they were."""
        alive = self.alive
        if alive == self.names and self.decision is None:
            return self.probabilities()
        mask = torch.tensor([name in alive for name in self.names], dtype=self.alpha.dtype, device=self.alpha.device)
        return mask * self.probabilities() if self.decision is None and alive else mask

    def select(self, name: str) -> None:
        """Decide for one option, for good or until `reset`."""
        self._check(name)
        self.decision, self.dropped = name, False

    def drop(self) -> None:
        """Cut the edge: all weights are 0, and there is no decision."""
        self.decision, self.dropped = None, True

    def reset(self) -> None:
        """Open the choice again; alpha stays as it is."""
        self.decision, self.dropped = None, False

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """Inside, the weights of these options are 0 and the others as they were: nothing is renormalised
        (arXiv 2108.04392, Algorithm 1). All are removed when none is named; uses may be nested."""
        for name in names:
            self._check(name)
        before = self._removed
        self._removed = before | frozenset(names or self.names)
        try:
            yield
        finally:
            self._removed = before

    def get_extra_state(self) -> dict[str, Any]:
        return {"decision": self.decision, "dropped": self.dropped}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state["decision"] is not None:
            self._check(state["decision"])
        self.decision, self.dropped = state["decision"], state["dropped"]

    def extra_repr(self) -> str:
        state = ", dropped" if self.dropped else f", decision={self.decision!r}" if self.decision else ""
        return ", ".join(self.names) + state

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise ValueError(f"name must be one of the options {', '.join(self.names)}, got {name!r}")
