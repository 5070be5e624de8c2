"""Rows of `throughline.search.relaxed`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, normal
from torch import Tensor

from throughline.search.relaxed import relaxed_loss

NOT_PARTS = {
    "throughline.search.relaxed.RelaxedSearcher": "takes steps on a supernet; search/test_relaxed.py is about them",
}


def one_tensor(train_loss: Any, valid_loss: Any, weights: Any, auxiliary: Any, **options: Any) -> Tensor:
    """The relaxed loss of networks that have one tensor of weights each."""
    return relaxed_loss(train_loss, valid_loss, [weights], [auxiliary], **options)


ONE, W = torch.ones(()), torch.ones(3, 2)

PARTS = [
    Part(
        relaxed_loss,
        lambda g: (normal(g), normal(g), normal(g, 3, 2), normal(g, 3, 2)),
        {"lam": 0.5, "beta": 2.0},
        call=one_tensor,
        reference=lambda train, valid, w, y: valid + 0.5 * train + (y - w).pow(2).sum(),
        edges={"single": lambda: (ONE, ONE, W[:1, :1], W[:1, :1])},
        bad=(
            Bad(ValueError, r"lam must be positive and finite, got 0\.0", lam=0.0),
            Bad(ValueError, r"beta must be non-negative and finite, got -1\.0", beta=-1.0),
            Bad(TypeError, r"train_loss must be a tensor, got float", 1.0, ONE, W, W),
            Bad(ValueError, r"valid_loss must be a scalar, got shape \(3, 2\)", ONE, W, W, W),
            Bad(TypeError, r"each of weights must be a tensor, got int", ONE, ONE, 3, W),
            Bad(ValueError, r"auxiliary must be of the shapes of weights, \[\(3, 2\)\], got", ONE, ONE, W, W[0]),
        ),
        skips={
            "batch": "two scalars, and one norm over all weights",
            "empty": "no weights are no distance: what is left are the two losses",
        },
    ),
]
