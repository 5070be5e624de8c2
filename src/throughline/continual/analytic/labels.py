"""Class ids of a stream and their columns, shared by the heads of `throughline.continual.analytic`."""

import torch
from torch import Tensor

from throughline.continual.labels import Labels, class_ids
from throughline.core.checks import check_tensor

__all__ = ["check_batch", "check_features", "columns", "enrol"]


def enrol(classes: Tensor, labels: Tensor) -> Tensor:
    """``classes`` (C,) followed by the ids of ``labels`` (n,) that it lacks, in order of first appearance.

    >>> enrol(torch.tensor([7]), torch.tensor([9, 2, 7, 9, -1]))
    tensor([ 7,  9,  2, -1])
    """
    ids, place = torch.unique(labels, return_inverse=True)
    rows = torch.arange(len(labels), device=labels.device)
    first = rows.new_full(ids.shape, len(labels)).scatter_reduce(0, place, rows, "amin")
    ids = ids[first.argsort()]
    return torch.cat((classes, ids[~torch.isin(ids, classes)]))


def columns(classes: Tensor, labels: Tensor) -> Tensor:
    """Position in ``classes`` of each of ``labels``, all of which are there."""
    ordered, place = classes.sort()
    return place[torch.searchsorted(ordered, labels)]


def check_features(features: Tensor, width: int) -> None:
    """TypeError unless ``features`` is a tensor, ValueError unless it is (..., width)."""
    check_tensor("features", features)
    if features.dim() == 0 or features.shape[-1] != width:
        raise ValueError(f"features must be (..., {width}), got shape {tuple(features.shape)}")


def check_batch(features: Tensor, labels: Labels, width: int) -> Tensor:
    """The labels as a tensor; an error unless ``features`` is (n, width) and ``labels`` (n,) integers."""
    check_tensor("features", features)
    if features.dim() != 2 or features.shape[1] != width:
        raise ValueError(f"features must be (n, {width}), got shape {tuple(features.shape)}")
    ids = class_ids(labels)
    if ids.shape != features.shape[:1]:
        raise ValueError(f"labels must be ({len(features)},) to fit features, got shape {tuple(ids.shape)}")
    return ids
