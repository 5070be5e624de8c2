"""What takes the place of a network's layers and dropouts, and how it gets λ ("Self-Tuning Networks: Bilevel
Optimization of Hyperparameters using Structured Best-Response Functions", arXiv 1903.03088).
"""

import threading
import warnings
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from throughline.search.best_response.dropout import TunableDropout
from throughline.search.best_response.hyperparameters import HyperparameterSpace
from throughline.search.best_response.layers import BestResponseConv2d, BestResponseLinear

__all__ = ["Link", "replaced", "response_layers", "tunable_dropouts"]

DROPOUTS: dict[type[nn.Module], bool] = {  # the dropout modules that can be tuned, and whether they drop channels
    nn.Dropout: False,
    nn.Dropout1d: True,
    nn.Dropout2d: True,
    nn.Dropout3d: True,
}


class Link(threading.local):
    """How a running network hands λ to the layers inside; every thread has its own, and copies start empty."""

    def __init__(self) -> None:  # once in every thread
        self.hyper: Tensor | None = None
        self.rates: Mapping[str, Tensor] = {}
        self.generator: torch.Generator | None = None

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()


class Hand:
    """A hook in front of an inner module that adds what it wants to the call."""

    def __init__(self, link: Link, rate: str | None = None) -> None:
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


def response_layers(model: nn.Module, n: int, exclude: tuple[str, ...], link: Link) -> dict[int, nn.Module]:
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


def _response(module: nn.Module, n: int, link: Link) -> nn.Module:
    made: BestResponseLinear | BestResponseConv2d
    if isinstance(module, nn.Conv2d):
        made = BestResponseConv2d.from_conv2d(module, n)
    else:
        assert isinstance(module, nn.Linear)
        made = BestResponseLinear.from_linear(module, n)
    for name, parameter in module._parameters.items():
        made._parameters[name] = parameter  # the very parameters: ties and flags stay
    made.register_forward_pre_hook(Hand(link), with_kwargs=True)
    return made.train(module.training)


def tunable_dropouts(
    model: nn.Module, space: HyperparameterSpace, dropout: dict[str, str], link: Link
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
        made.register_forward_pre_hook(Hand(link, name), with_kwargs=True)
        new[id(plain)] = made
    return new


def replaced(model: nn.Module, new: dict[int, nn.Module]) -> nn.Module:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if id(child) in new:
                parent._modules[name] = new[id(child)]
    return new.get(id(model), model)
