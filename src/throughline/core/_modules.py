"""Modules as people hand them over: inside wrappers, and with other parameters than a moment ago."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

__all__ = ["call_with", "check_held", "places", "plain_name", "shells", "unwrapped"]


def shells(module: nn.Module) -> Iterator[nn.Module]:
    """The module and what it is wrapped around, one inside the other: torch.compile, both kinds of data parallelism,
    averaged models."""
    inner: nn.Module | None = module
    while inner is not None:
        yield inner
        holds = isinstance(inner, DataParallel | DistributedDataParallel | AveragedModel)
        inner = inner._modules.get("module" if holds else "_orig_mod")


def unwrapped(module: nn.Module) -> nn.Module:
    """The innermost of `shells`, whose parameters and sub-modules have their own names.

    >>> linear = nn.Linear(2, 2)
    >>> unwrapped(AveragedModel(nn.DataParallel(linear)))
    Linear(in_features=2, out_features=2, bias=True)
    """
    *_, inner = shells(module)
    return inner


def call_with(module: nn.Module, tensors: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """``module(*args, **kwargs)`` with other parameters and buffers, named as in ``named_parameters()``.

    What `torch.func.functional_call` does, also where modules share a tensor, or a module has several names: torch's
    own leaves a module of several names with the tensors that it was lent.

    >>> layer = nn.Linear(2, 1)
    >>> call_with(nn.Sequential(layer), {"0.weight": Tensor([[1.0, 2.0]]), "0.bias": Tensor([3.0])}, Tensor([1.0, 1.0]))
    tensor([6.])
    """
    everywhere = places(module)
    lent = {place: tensor for name, tensor in tensors.items() for place in everywhere[name]}
    return functional_call(module, lent, args, kwargs, tie_weights=False)


def places(module: nn.Module) -> dict[str, list[str]]:
    """Under the first name of each parameter and buffer, all of its names: of every module that holds it.

    >>> layer = nn.Linear(2, 1, bias=False)
    >>> places(nn.Sequential(layer, layer))
    {'0.weight': ['0.weight']}
    """
    found: dict[int, list[str]] = {}
    for path, part in module.named_modules():
        for name, tensor in (*part._parameters.items(), *part._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), []).append(f"{path}.{name}" if path else name)
    return {names[0]: names for names in found.values()}


def check_held(held: Sequence[Tensor], now: Iterable[Tensor], name: str) -> None:
    """Raise a ValueError unless the parameters of ``name`` are the very tensors that were ``held``."""
    if [id(p) for p in held] != [id(p) for p in now]:
        raise ValueError(
            f"{name} has other parameters than those that are being trained, as load_state_dict(assign=True) gives it; "
            "load before the optimizer is made, or with assign=False"
        )


def plain_name(module: nn.Module, name: str) -> str | None:
    """The name of a parameter or buffer as if nothing in ``module``, nor it itself, were wrapped; None for what belongs
    to a wrapper alone, such as the number of models that an average is of.

    >>> plain_name(nn.Sequential(nn.Linear(2, 2), AveragedModel(nn.Linear(2, 2))), "1.module.weight")
    '1.weight'
    """
    kept, owner = [], module
    for part in name.split("."):
        _, *wrapped = shells(owner)
        child = owner._modules.get(part)
        if not wrapped:
            kept.append(part)
        elif child is not wrapped[0]:
            return None
        if child is not None:  # the last part is a tensor
            owner = child
    return ".".join(kept)
