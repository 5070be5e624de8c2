"""What the steps of every method of architecture search have in common: whose parameters they move, and gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from throughline.core._modules import shells
from throughline.core.checks import check_tensor

__all__ = ["check_parts", "few", "give", "parallel_shell", "scalar"]


def check_parts(
    named: dict[str, nn.Parameter],
    arch: Sequence[Tensor],
    weight_optimizer: Optimizer,
    arch_optimizer: Optimizer,
) -> None:
    """Refuse architecture parameters that are not the model's, and optimizers that do not hold just their own."""
    names = {id(p): name for name, p in named.items()}
    if not arch:
        raise ValueError("arch_params must hold at least one parameter, got none: the model has no choice")
    for place, parameter in enumerate(arch):
        if id(parameter) not in names:
            raise ValueError(f"arch_params must be parameters of the model, and number {place} is not")
    ours = set(map(id, arch))
    for name, optimizer, own in (
        ("weight_optimizer", weight_optimizer, {key for key in names if key not in ours}),
        ("arch_optimizer", arch_optimizer, ours),
    ):
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if foreign := sorted(names[key] for key in held & names.keys() - own):
            raise ValueError(f"{name} must not hold {few(foreign)}: each parameter has one optimizer")
        lacking = sorted(names[key] for key in own - held if named[names[key]].requires_grad)
        if lacking:
            raise ValueError(
                f"{name} must hold every parameter of its kind that requires a gradient, and lacks {few(lacking)}"
            )


def scalar(value: Tensor) -> Tensor:
    """What a loss returned, once it is a 0-d tensor."""
    check_tensor("the result of loss", value)
    if value.ndim:
        raise ValueError(f"loss must return a scalar, got shape {tuple(value.shape)}")
    return value


def parallel_shell(model: nn.Module) -> DistributedDataParallel | None:
    """The DistributedDataParallel around a model, if there is one; its own hooks follow `Tensor.backward` alone."""
    return next((shell for shell in shells(model) if isinstance(shell, DistributedDataParallel)), None)


def give(
    parameters: Sequence[Tensor], slopes: Sequence[Tensor | None], parallel: DistributedDataParallel | None = None
) -> None:
    """Put gradients where optimizers look for them, and of several processes their mean."""
    for parameter, slope in zip(parameters, slopes, strict=True):
        if slope is not None and parallel is not None:
            slope = slope.clone(memory_format=torch.contiguous_format)  # autograd may give one to several parameters
            distributed.all_reduce(slope, group=parallel.process_group)
            slope /= distributed.get_world_size(parallel.process_group)
        parameter.grad = slope


def few(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
