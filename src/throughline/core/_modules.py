"""Modules as people hand them over: inside wrappers, and with other parameters than a moment ago."""

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

__all__ = ["check_held", "shells", "unwrapped"]


def shells(module: nn.Module) -> Iterator[nn.Module]:
    """The module and what it is wrapped around, one inside the other: torch.compile, both kinds of data parallelism,
    averaged models."""
    while True:
        yield module
        wrapped = isinstance(module, DataParallel | DistributedDataParallel | AveragedModel)
        inner = module.module if wrapped else module._modules.get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return
        module = inner


def unwrapped(module: nn.Module) -> nn.Module:
    """The innermost of `shells`, whose parameters and sub-modules have their own names.

    >>> linear = nn.Linear(2, 2)
    >>> unwrapped(AveragedModel(nn.DataParallel(linear)))
    Linear(in_features=2, out_features=2, bias=True)
    """
    *_, inner = shells(module)
    return inner


def check_held(held: Sequence[Tensor], now: Iterable[Tensor], name: str) -> None:
    """Raise a ValueError unless the parameters of ``name`` are the very tensors that were ``held``."""
    if [id(p) for p in held] != [id(p) for p in now]:
        raise ValueError(
            f"{name} has other parameters than those that are being trained, as load_state_dict(assign=True) gives it; "
            "load before the optimizer is made, or with assign=False"
        )
