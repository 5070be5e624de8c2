"""Rows of `throughline.search.relaxed`."""

from typing import Any

import torch
from tests.contract.part import Bad, Part, normal
from torch import Tensor, nn

from throughline.search.relaxed import RelaxedSearcher, relaxed_loss


def one_tensor(train_loss: Any, valid_loss: Any, weights: Any, auxiliary: Any, **options: Any) -> Tensor:
    """The relaxed loss of networks that have one tensor of weights each."""
    return relaxed_loss(train_loss, valid_loss, [weights], [auxiliary], **options)


class Pair(nn.Module):
    """An architecture and weights."""

    def __init__(self, alpha: Any, weights: Any) -> None:
        super().__init__()
        self.alpha, self.w = (nn.Parameter(t.detach().clone()) for t in (alpha, weights))


def far(net: Any, target: Tensor) -> Tensor:
    return (net.alpha.softmax(0) * (net.w - target)).square().sum()


def steps(alpha: Tensor, weights: Tensor, *, loss: Any = far, **options: Any) -> tuple[Tensor, ...]:
    """Three steps from copies: what α, w and y have become, and what the last step saw."""
    net = Pair(alpha, weights)
    optimizers = (torch.optim.SGD([p], 0.1) for p in (net.w, net.alpha))
    searcher = RelaxedSearcher(net, loss, *optimizers, arch_params=[net.alpha], **options)
    target = torch.ones_like(net.w)
    seen: dict[str, Tensor] = {}
    for _ in range(3):
        seen = searcher.step(target, -target)
    y: Any = searcher.auxiliary.w
    return net.alpha.detach(), net.w.detach(), y.detach(), *seen.values()


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
    Part(
        RelaxedSearcher,
        lambda g: (normal(g, 2), normal(g, 2)),
        {"lam": 2.0},
        call=steps,
        bad=(
            Bad(ValueError, r"lam must be positive and finite, got -1\.0", lam=-1.0),
            Bad(ValueError, r"sweep must be one of gauss-seidel, fused, got 'both'", sweep="both"),
            Bad(ValueError, r"grad_clip must be positive and finite, or None .* got 0\.0", grad_clip=0.0),
            Bad(ValueError, r"loss must return a scalar, got shape \(2,\)", loss=lambda net, _: net.w),
            Bad(FloatingPointError, r"the training loss is not finite at step 0", ONE.expand(2), W[0] * torch.inf),
        ),
        backend="eager",
        skips={
            "gradcheck": "an optimiser: it moves parameters and has no gradient of its own",
            "batch": "one architecture, and one norm over all weights",
            "transforms": "an optimiser: it moves its tensors in place and looks at their losses",
            "fullgraph": "the loss is differentiated inside",
            "foreign": "takes modules: the tensors are their parameters",
        },
    ),
]
