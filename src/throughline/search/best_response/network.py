"""Any network as a best response to its hyperparameters ("Self-Tuning Networks: Bilevel Optimization of Hyperparameters
using Structured Best-Response Functions", arXiv 1903.03088).
"""

import copy
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from throughline.search.best_response.hyperparameters import HyperparameterSpace
from throughline.search.best_response.layers import (
    BestResponseConv2d,
    BestResponseLinear,
    TunableDropout,
    _check_hyper,
)

__all__ = ["SelfTuningNetwork", "convert"]

DROPOUTS: dict[type[nn.Module], bool] = {  # the dropout modules that can be tuned, and whether they drop channels
    nn.Dropout: False,
    nn.Dropout1d: True,
    nn.Dropout2d: True,
    nn.Dropout3d: True,
}


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
        self._link = _Link()
        self._rated = bool(dropout)
        model = copy.deepcopy(module)
        new: dict[int, nn.Module] = {
            **_dropouts(model, space, dict(dropout or {}), self._link),
            **_layers(model, len(space.names), tuple(exclude), self._link),
        }
        self.model = _replaced(model, new)

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
        _check_hyper(hyper, len(space.hyperparameters))
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
        module: the network; it is copied and stays as it is.
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


class _Link(threading.local):
    """How a running network hands λ to the layers inside; every thread has its own, and copies start empty."""

    def __init__(self) -> None:  # once in every thread
        self.hyper: Tensor | None = None
        self.rates: Mapping[str, Tensor] = {}
        self.generator: torch.Generator | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class _Hand:
    """A hook in front of an inner module that adds what it wants to the call."""

    def __init__(self, link: _Link, rate: str | None = None) -> None:
        self.link, self.rate = link, rate

    def __call__(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        link = self.link
        if link.hyper is None:
            raise RuntimeError(
                f"this {type(module).__name__} is a part of a SelfTuningNetwork and runs only inside of its call; "
                "call the network itself (checkpointing of activations, which runs parts again later, is not supported)"
            )
        if self.rate is None:
            return args, {**kwargs, "hyper": link.hyper}
        return args, {**kwargs, "rate": link.rates[self.rate], "generator": link.generator}


def _layers(model: nn.Module, n: int, exclude: tuple[str, ...], link: _Link) -> dict[int, nn.Module]:
    """A best-response layer for each plain one that is to become one, by the identity of the plain one."""
    paths = [path for path, _ in model.named_modules(remove_duplicate=False)]
    for pattern in exclude:
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise ValueError(f"exclude must match modules of the model, got {pattern!r}, which matches none")
    owners: dict[int, list[nn.Module]] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), []).append(module)
    new: dict[int, nn.Module] = {}
    unknown: list[str] = []
    for path, module in model.named_modules():
        if any(fnmatchcase(part, pattern) for pattern in exclude for part in _parents(path)):
            continue
        if type(module).__name__ == "Conv1D":  # of transformers, which need not be installed
            unknown.append(path)
        elif _is_plain(module) and _owns(module, owners):
            new[id(module)] = _response(module, n, link)
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False  # its fast path reads weights past the layers that hold them
    left = f"{', '.join(unknown[:3])}{' …' if len(unknown) > 3 else ''} (Conv1D, as in GPT-2)"
    if not new:
        also = f"; {left} cannot be converted" if unknown else ""
        raise ValueError(f"module must have an nn.Linear or nn.Conv2d of its own to convert, got none{also}")
    if unknown:
        warnings.warn(
            f"{left} stays as it is and does not respond to hyperparameters: only nn.Linear and nn.Conv2d do; "
            "name it in exclude to say that this is meant",
            stacklevel=4,
        )
    return new


def _parents(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _is_plain(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks)
    return type(module) in (nn.Linear, nn.Conv2d) and "weight" in module._parameters and not any(hooks)


def _owns(module: nn.Module, owners: dict[int, list[nn.Module]]) -> bool:
    """Whether its weight is its own, or tied to later layers of its kind alone."""
    holders = owners[id(module.weight)]
    return holders[0] is module and all(map(_is_plain, holders))


def _response(module: nn.Module, n: int, link: _Link) -> nn.Module:
    made: BestResponseLinear | BestResponseConv2d
    if isinstance(module, nn.Conv2d):
        made = BestResponseConv2d.from_conv2d(module, n)
    else:
        assert isinstance(module, nn.Linear)
        made = BestResponseLinear.from_linear(module, n)
    for name, parameter in module._parameters.items():
        made._parameters[name] = parameter  # the very parameters: ties and flags stay
    made.register_forward_pre_hook(_Hand(link), with_kwargs=True)
    return made.train(module.training)


def _dropouts(
    model: nn.Module, space: HyperparameterSpace, dropout: dict[str, str], link: _Link
) -> dict[int, nn.Module]:
    """A tunable dropout for each that is named, by the identity of the plain one."""
    modules = dict(model.named_modules(remove_duplicate=False))
    ranges = {h.name: h for h in space.hyperparameters}
    new: dict[int, nn.Module] = {}
    for path, name in dropout.items():
        if path not in modules or type(modules[path]) not in DROPOUTS:
            known = ", ".join(repr(p) for p, m in modules.items() if type(m) in DROPOUTS) or "none"
            what = f", a {type(modules[path]).__name__}" if path in modules else ""
            raise ValueError(f"dropout must name dropout modules of the model ({known}), got {path!r}{what}")
        if name not in ranges:
            raise ValueError(f"dropout must name hyperparameters of the space ({', '.join(ranges)}), got {name!r}")
        low, high = ranges[name].low, ranges[name].high
        if not (low >= 0 and high < 1):
            raise ValueError(f"dropout must have rates that stay in [0, 1), got {name!r} with range ({low}, {high})")
        plain = modules[path]
        made = TunableDropout(channels=DROPOUTS[type(plain)]).train(plain.training)
        made.register_forward_pre_hook(_Hand(link, name), with_kwargs=True)
        new[id(plain)] = made
    return new


def _replaced(model: nn.Module, new: dict[int, nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in new:
                parent._modules[name] = new[id(child)]
    return new.get(id(model), model)
