"""Any network as a best response to its hyperparameters ("Self-Tuning Networks: Bilevel Optimization of Hyperparameters
using Structured Best-Response Functions", arXiv 1903.03088).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from throughline.core._modules import unwrapped
from throughline.search.best_response.conversion import Link, replaced, response_layers, tunable_dropouts
from throughline.search.best_response.hyperparameters import HyperparameterSpace
from throughline.search.best_response.layers import BestResponseConv2d, BestResponseLinear, check_hyper

__all__ = ["SelfTuningNetwork", "convert"]


class SelfTuningNetwork(nn.Module):
    """A network that is a best response ŵ(λ): what `convert` makes of a plain one.

    Call it as the model itself, with ``hyper=`` in addition; the model's own `forward` runs unchanged. Its parameters
    are φ alone. λ and σ are reached as ``space``. They move to another device with the network, and follow it to
    another dtype, though never below float32: there the small steps of λ would be lost.

    Args:
        module, space, dropout, exclude: see `convert`.

    ``model`` is the converted copy of ``module``, and ``space`` the hyperparameters, which are not registered:
    `SelfTuner` optimises and saves them.
    """

    def __init__(
        self,
        module: nn.Module,
        space: HyperparameterSpace,
        *,
        dropout: Mapping[str, str] | None = None,
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
        if not isinstance(space, HyperparameterSpace):
            raise TypeError(f"space must be a HyperparameterSpace, got {type(space).__name__}")
        self._space = (space,)  # in a tuple, where an nn.Module does not take it for a part of itself
        self._link = Link()
        self._rated = bool(dropout)
        model = _copied(module)
        new: dict[int, nn.Module] = {
            **tunable_dropouts(model, space, dict(dropout or {}), self._link),
            **response_layers(model, len(space.names), tuple(exclude), self._link),
        }
        self.model = replaced(model, new)

    @property
    def space(self) -> HyperparameterSpace:
        """The hyperparameters that the network responds to."""
        return self._space[0]

    def forward(self, *args: Any, hyper: Tensor | None = None, **kwargs: Any) -> Any:
        """Run the model at λ, which its layers and its tunable dropouts both get.

        Args:
            args, kwargs: the model's own.
            hyper: unconstrained λ, ``(n,)`` for all samples or ``(B, n)`` for each its own; by default
                ``space.location``.

        Raises:
            TypeError: ``hyper`` is not floating point.
            ValueError: ``hyper`` has another last dimension than n, or another batch than a layer's input.
        """
        space, link = self.space, self._link
        if hyper is None:
            hyper = space.location
        check_hyper(hyper, len(space.hyperparameters))
        rates = space.constrain(hyper.detach()) if self._rated else {}
        for h in space.hyperparameters:
            if h.shared and hyper.ndim == 2 and self._rated:
                rates[h.name] = rates[h.name][0]  # the same in all rows
        before = link.hyper, link.rates
        link.hyper, link.rates = hyper, rates
        try:
            return self.model(*args, **kwargs)
        finally:
            link.hyper, link.rates = before

    def squared_norm(self, hyper: Tensor) -> Tensor:
        """Σ ‖Ŵ(λ)‖² over the layers (weights, no biases): λ ``(B, n)`` to ``(B,)``, or ``(n,)`` to a scalar."""
        layers = [m for m in self.modules() if isinstance(m, BestResponseLinear | BestResponseConv2d)]
        return torch.stack([layer.squared_norm(hyper) for layer in layers]).sum(0)

    @contextmanager
    def _drawing(self, generator: torch.Generator | None) -> Iterator[None]:
        """Let tunable dropouts draw from ``generator`` inside the block."""
        before, self._link.generator = self._link.generator, generator
        try:
            yield
        finally:
            self._link.generator = before

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SelfTuningNetwork":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

        def wide(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            short = made.is_floating_point() and made.element_size() < 4
            return tensor.to(made.device, torch.float32) if short else made

        self.space._apply(wide)  # type: ignore[no-untyped-call]
        return self


def convert(
    module: nn.Module,
    space: HyperparameterSpace,
    *,
    dropout: Mapping[str, str] | None = None,
    exclude: Sequence[str] = (),
) -> SelfTuningNetwork:
    """Make a best response of any network: a copy of it that changes with the hyperparameters of ``space``.

    Every ``nn.Linear`` and ``nn.Conv2d`` becomes a best-response layer that starts from its weights. What is left as it
    is: subclasses of the two, layers with hooks of their own (weight norm), and a layer whose weight belongs to another
    module too, as a decoder tied to an embedding does: it uses the elementary weight alone. A layer that is applied to
    something other than a batch of samples, first dimension first, wants excluding.

    Args:
        module: the network; it is copied and stays as it is. The copy is without wrappers (``torch.compile``, data
            parallelism, averaged models), of the whole and of its parts: paths are those of the plain modules, and
            the result is what is to be wrapped.
        space: the hyperparameters.
        dropout: paths of dropout modules, such as ``"layers.2"``, and the hyperparameter that is the rate of each.
        exclude: paths that stay plain, with everything below them; shell patterns (``"encoder.*.norm"``) are allowed.

    Returns:
        The network; its ``parameters()`` are φ, without λ and σ.

    Raises:
        TypeError: ``module`` is no ``nn.Module``, or ``space`` no `HyperparameterSpace`.
        ValueError: no layer to convert; a path of ``dropout`` that does not exist or is no dropout, or whose rate is an
            unknown hyperparameter or one that may leave [0, 1); a pattern of ``exclude`` that matches nothing.

    >>> from throughline.search.best_response import Hyperparameter, HyperparameterSpace
    >>> space = HyperparameterSpace([Hyperparameter("p", 0.05, low=0.0, high=0.9)])
    >>> plain = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))
    >>> network = convert(plain, space, dropout={"2": "p"})
    >>> network(torch.randn(5, 8), hyper=space.sample(5)).shape
    torch.Size([5, 3])
    """
    return SelfTuningNetwork(module, space, dropout=dropout, exclude=exclude)


def _copied(module: nn.Module) -> nn.Module:
    """A deep copy in which each wrapper, as of torch.compile, has given way to what is inside."""
    memo: dict[int, Any] = {}
    for part in reversed([*module.modules()]):  # what lies deeper comes first
        if (inner := unwrapped(part)) is not part:
            memo[id(part)] = copy.deepcopy(inner, memo)
    return copy.deepcopy(module, memo)
