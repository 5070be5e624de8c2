"""Buffers that grow with a stream: a `state_dict` saved after more classes than the module holds still loads."""

from collections.abc import Mapping

from torch import Tensor, nn

__all__ = ["resize_to_saved"]


def resize_to_saved(module: nn.Module, state: Mapping[str, Tensor], prefix: str, **dims: int) -> None:
    """Resize buffers of ``module`` to their saved length; call it first in ``_load_from_state_dict``.

    Args:
        module: owner of the buffers.
        state: the state dict being loaded.
        prefix: prefix of the module's keys in it.
        dims: for each buffer its one dimension that may differ; any other difference is left for torch to report.

    >>> module = nn.Module()
    >>> module.register_buffer("count", Tensor(0))
    >>> resize_to_saved(module, {"a.count": Tensor(3)}, "a.", count=0)
    >>> module.count.shape
    torch.Size([3])
    """
    for name, dim in dims.items():
        own, saved = module.get_buffer(name), state.get(prefix + name)
        if saved is not None and saved.dim() == own.dim():
            shape = list(own.shape)
            shape[dim] = saved.shape[dim]
            setattr(module, name, own.new_zeros(shape))
