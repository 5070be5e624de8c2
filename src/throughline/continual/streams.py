"""Streams for continual learning: how a labelled data set is dealt out over tasks.

Si-Blurry is the setting of "G-ACIL: Analytic Learning for Exemplar-Free Generalized Class Incremental Learning"
(arXiv 2403.15706), introduced by "Online Class Incremental Learning on Stochastic Blurry Task Boundary via Mask and
Visual Prompt Tuning" (arXiv 2308.09303). Class-incremental streams are older than all of these papers; "Discrete
Key-Value Bottleneck" (arXiv 2207.11240) learns them.
"""

import math

import torch
from torch import Tensor

from throughline.continual.labels import Labels, class_ids

__all__ = ["class_incremental", "si_blurry"]


def class_incremental(labels: Labels, tasks: int = 5, *, generator: torch.Generator | None = None) -> list[Tensor]:
    """Deal classes out over tasks at random, equally many to each, and every sample to the task of its class.

    Where the number of classes is no multiple of ``tasks``, the first tasks have one class more. Samples are shuffled
    within a task.

    Args:
        labels: ``(n,)`` integer class ids of any value, n >= 1: a tensor, or the list or array that a data set has.
        tasks: T, at least 1 and at most the number of classes.

    Returns:
        T index tensors, none empty, together a permutation of ``range(n)``.

    Raises:
        TypeError: ``labels`` are not numbers.
        ValueError: labels that are not integers, or an argument out of range.

    >>> stream = class_incremental(torch.arange(10).repeat(20))
    >>> [len(torch.arange(10).repeat(20)[task].unique()) for task in stream]
    [2, 2, 2, 2, 2]
    """
    labels = _checked(labels, tasks)
    device = generator.device if generator is not None else torch.device("cpu")
    ids, which = torch.unique(labels.to(device), return_inverse=True)
    if tasks > len(ids):
        raise ValueError(f"tasks must be at most the number of classes ({len(ids)}), got {tasks}")
    task_of_class = torch.empty_like(ids, dtype=torch.int64)
    order = torch.randperm(len(ids), generator=generator, device=device)
    for task, group in enumerate(order.tensor_split(tasks)):
        task_of_class[group] = task
    return _dealt(task_of_class[which], tasks, labels.device, generator)


def si_blurry(
    labels: Labels,
    tasks: int = 5,
    *,
    disjoint: float = 0.5,
    blurry: float = 0.1,
    generator: torch.Generator | None = None,
) -> list[Tensor]:
    """Deal samples out over tasks of random sizes, some classes kept to one task and the others partly spread.

    Classes are put in random order; the first ⌊C · disjoint⌋ are disjoint, the others blurry. Uniform cut points give
    each class of either group a task. Then a fraction ``blurry`` of all samples of blurry classes swap their tasks at
    random, which keeps the size of every task. Samples are shuffled within a task.

    Args:
        labels: ``(n,)`` integer class ids of any value, n >= 1: a tensor, or the list or array that a data set has.
        tasks: T >= 1.
        disjoint: ratio of disjoint classes, in [0, 1].
        blurry: ratio of spread samples, in [0, 1].

    Returns:
        T index tensors, together a permutation of ``range(n)``; a task may be empty. Give them to
        ``torch.utils.data.Subset`` or index with them.

    Raises:
        TypeError: ``labels`` are not numbers.
        ValueError: labels that are not integers, or an argument out of range.

    >>> stream = si_blurry(torch.arange(10).repeat(20), tasks=3)
    >>> torch.cat(stream).sort().values.equal(torch.arange(200))
    True
    """
    labels = _checked(labels, tasks)
    for name, ratio in (("disjoint", disjoint), ("blurry", blurry)):
        if not 0 <= ratio <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {ratio}")
    device = generator.device if generator is not None else torch.device("cpu")
    ids, which = torch.unique(labels.to(device), return_inverse=True)
    count = len(ids)

    def permutation(size: int) -> Tensor:
        return torch.randperm(size, generator=generator, device=device)

    order = permutation(count)
    kept = math.floor(count * disjoint + 1e-9)  # 10 · 0.3 is 3 classes, whatever its binary fraction
    task_of_class = torch.empty_like(order)
    for group in (order[:kept], order[kept:]):
        cuts = torch.randint(len(group) + 1, (tasks - 1,), generator=generator, device=device).sort().values
        task_of_class[group] = torch.searchsorted(cuts, torch.arange(len(group), device=device), right=True)
    task = task_of_class[which]
    spread = torch.isin(which, order[kept:]).nonzero().squeeze(1)
    spread = spread[permutation(len(spread))[: math.floor(len(spread) * blurry + 1e-9)]]
    task[spread] = task[spread[permutation(len(spread))]]
    return _dealt(task, tasks, labels.device, generator)


def _dealt(task: Tensor, tasks: int, device: torch.device, generator: torch.Generator | None) -> list[Tensor]:
    """The samples of each task in random order, from the task ``(n,)`` of each sample."""
    shuffled = torch.randperm(len(task), generator=generator, device=task.device)
    shuffled = shuffled[task[shuffled].argsort(stable=True)]
    return list(torch.split(shuffled.to(device), torch.bincount(task, minlength=tasks).tolist()))


def _checked(labels: Labels, tasks: int) -> Tensor:
    ids = class_ids(labels)
    if ids.dim() != 1 or len(ids) == 0:
        raise ValueError(f"labels must be (n,) with n >= 1, got shape {tuple(ids.shape)}")
    if tasks < 1:
        raise ValueError(f"tasks must be at least 1, got {tasks}")
    return ids
