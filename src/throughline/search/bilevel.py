"""Bilevel optimisation by normalised momentum: BO-REP and MA-SOBA ("Bilevel Optimization under Unbounded Smoothness: A
New Algorithm and Convergence Analysis", arXiv 2401.09587).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import get_total_norm
from torch.utils._pytree import tree_leaves, tree_map

from throughline.core._derivatives import gradients, second_derivatives, slope
from throughline.core._trees import Tree, add_scaled, check_like, leaves_of

__all__ = ["BOREP", "BilevelStep"]

Batch = Any  # whatever the iterators yield and the losses take
Loss = Callable[[Tree, Tree, Batch], Tensor]

EPSILON = 1e-10  # beside the norm of the momentum, as in the paper
TREES = ("upper", "lower", "adjoint", "momentum_buffer")  # of a state_dict


class BilevelStep(NamedTuple):
    """What one step of `BOREP` saw: 0-d tensors without a graph, on the device of the parameters."""

    upper_loss: Tensor  # F(x, y; ξ) before x moves
    lower_loss: Tensor  # G(x, y; ζ) at the same place
    hypergradient_norm: Tensor
    momentum_norm: Tensor  # of the new momentum


class BOREP:
    """Minimise F(x, y*(x)) over x, where y*(x) minimises G(x, ·), by steps of one length along a momentum.

    x is ``upper_params`` and y ``lower_params``, tensors or nested dicts, lists and tuples of them, such as
    ``dict(module.named_parameters())``. They are updated in place, so a module whose parameters were given is trained,
    whether or not they require gradients. A step (algorithm 1 of the paper) draws batches ζ and ξ and does

    1. every ``period`` steps, the first one included: ``lower_steps`` times ``y ← y − lower_lr ∇_y G(x, y)``;
    2. ``z ← z − adjoint_lr (∇²_yy G z − ∇_y F)``, which tracks the solution of the lower level's linear system;
    3. ``m ← momentum · m + (1 − momentum) (∇_x F − ∇²_xy G z)``, with the new z and without bias correction;
    4. ``x ← x − lr · m / ‖m‖``, one norm over all of x.

    The two products with second derivatives of G share one graph, and no Hessian is formed. `refine` solves the lower
    level once before the first step. ``BOREP(..., normalize=False, period=1, lower_steps=1)`` without `refine` is
    MA-SOBA, whose step 4 is ``x ← x − lr · m``.

    A step waits for the device once, to see whether the hypergradient is finite. G is differentiated twice, and
    evaluated for that under the math kernel of attention and, on CUDA, without cuDNN: the fused kernels of attention
    and cuDNN's recurrent layers have no second derivative.

    Args:
        upper_loss: F, ``(upper_params, lower_params, batch)`` to a 0-d tensor; it must use the parameters it is given,
            for example through `torch.func.functional_call`.
        lower_loss: G, likewise; strongly convex in y for the theory to hold.
        upper_params: x, floating point.
        lower_params: y, floating point.
        lr: length of a step of x, or the rate of x without ``normalize``; positive.
        lower_lr: rate of y, positive.
        adjoint_lr: rate of z, positive; below 2 over the largest curvature of G in y.
        momentum: share of the old momentum in the new one, in [0, 1).
        period: steps from one update of y to the next, at least 1.
        lower_steps: gradient steps of an update of y, at least 1.
        normalize: divide the momentum by its norm.

    Attributes:
        upper, lower: x and y, the tensors that were given.
        adjoint: z, and ``momentum_buffer``: m, zero at the start.
        iteration: steps taken.

    Raises:
        TypeError: a parameter is no floating point tensor, a loss no tensor, or what yields batches no iterator.
        ValueError: a number is out of range, a tree is empty, x and y share a tensor, a loss is not 0-d or does not
            depend on y, or the batches have run out.
        FloatingPointError: the hypergradient is not finite. Parameters and state are then as they were before the step.

    >>> import itertools
    >>> target = torch.tensor([3.0, -1.0])
    >>> x, y = torch.zeros(2), torch.zeros(2)
    >>> follow = lambda x, y, batch: (y - x).square().sum()  # y*(x) = x
    >>> aim = lambda x, y, batch: (y - target).square().sum()
    >>> optimizer = BOREP(aim, follow, x, y, lr=0.05, lower_lr=0.3, adjoint_lr=0.3)
    >>> batches = itertools.repeat(None)
    >>> for _ in range(100):
    ...     info = optimizer.step(batches, batches)
    >>> bool((x - target).norm() < 0.1)
    True
    """

    def __init__(
        self,
        upper_loss: Loss,
        lower_loss: Loss,
        upper_params: Tree,
        lower_params: Tree,
        *,
        lr: float = 1e-2,
        lower_lr: float = 1e-3,
        adjoint_lr: float = 1e-2,
        momentum: float = 0.9,
        period: int = 2,
        lower_steps: int = 3,
        normalize: bool = True,
    ) -> None:
        for name, rate in {"lr": lr, "lower_lr": lower_lr, "adjoint_lr": adjoint_lr}.items():
            if not 0 < rate < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {rate}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        for name, count in {"period": period, "lower_steps": lower_steps}.items():
            _check_count(name, count)
        self.upper_loss, self.lower_loss = upper_loss, lower_loss
        self.upper, self.lower = upper_params, lower_params
        self.lr, self.lower_lr, self.adjoint_lr, self.momentum = lr, lower_lr, adjoint_lr, momentum
        self.period, self.lower_steps, self.normalize = period, lower_steps, normalize
        leaves = [*leaves_of(upper_params, "upper_params"), *leaves_of(lower_params, "lower_params")]
        if len(set(map(id, leaves))) < len(leaves):
            raise ValueError("upper_params and lower_params must hold every tensor once, got one twice")
        self.adjoint = tree_map(_zeros, lower_params)  # z
        self.momentum_buffer = tree_map(_zeros, upper_params)  # m
        self.iteration = 0  # steps taken

    @torch.no_grad()
    def refine(self, lower_batches: Iterator[Batch], *, steps: int = 100, epochs: int = 1) -> None:
        """Solve the lower level at the present x by epochs of SGD, the initialisation of the paper.

        Epoch e = 0, 1, … takes ``steps`` · 2^e steps of rate ``lower_lr`` / 2^e from the average of the iterates of the
        epoch before, and y becomes the average of the last one: for a strongly convex G its error falls as fast as
        that of any stochastic method can.

        Args:
            lower_batches: as for `step`.
            steps: of the first epoch, at least 1.
            epochs: at least 1.

        Raises:
            FloatingPointError: y is no longer finite; the parameters are as they were.
        """
        _check_count("steps", steps)
        _check_count("epochs", epochs)
        y = self.lower
        for epoch in range(epochs):
            mean = tree_map(lambda p: torch.zeros_like(p, dtype=_wide(p), requires_grad=False), y)
            for count in range(1, steps * 2**epoch + 1):
                y = self._descend(y, lower_batches, self.lower_lr / 2**epoch)
                tree_map(lambda a, p, share=1 / count: a.lerp_(p.to(a.dtype), share), mean, y)
            y = tree_map(lambda a, p: a.to(p.dtype), mean, y)
        if not _norm(y).isfinite():
            raise FloatingPointError(
                f"lower_params are not finite after refinement: lower_lr={self.lower_lr} is too large"
            )
        _assign(self.lower, y)

    @torch.no_grad()
    def step(self, upper_batches: Iterator[Batch], lower_batches: Iterator[Batch]) -> BilevelStep:
        """Take one step, and return what was seen on the way.

        Args:
            upper_batches: an iterator that does not end, of batches for ``upper_loss``; one is drawn.
            lower_batches: the same for ``lower_loss``; ``lower_steps`` are drawn where an update of y is due, and one.
                Drawn before the upper batch, so that one iterator can serve both.
        """
        y = self.lower
        if self.iteration % self.period == 0:
            for _ in range(self.lower_steps):
                y = self._descend(y, lower_batches, self.lower_lr)
        lower = _On(self.lower_loss, _draw("lower_batches", lower_batches))
        upper = _On(self.upper_loss, _draw("upper_batches", upper_batches))

        upper_x, upper_y = gradients(upper, self.upper, y, "upper_loss")
        with _twice_differentiable(y):
            curvature, mixed = second_derivatives(lower, self.upper, y, "lower_loss")
            residual = tree_map(torch.sub, curvature(self.adjoint), upper_y)
            z = add_scaled(self.adjoint, -self.adjoint_lr, residual)
            hypergradient = tree_map(torch.sub, upper_x, mixed(z))
        size = _norm(hypergradient)
        if not size.isfinite():  # the one wait for the device
            raise FloatingPointError(
                f"the hypergradient is not finite at step {self.iteration}; parameters and state are as before it"
            )
        old, new = self.momentum, 1 - self.momentum
        m = tree_map(lambda a, h: old * a + new * h, self.momentum_buffer, hypergradient)
        length = _norm(m)
        scale = self.lr / (length + EPSILON) if self.normalize else self.lr
        tree_map(lambda p, a: p.sub_(scale * a), self.upper, m)
        _assign(self.lower, y)
        self.adjoint, self.momentum_buffer = z, m
        self.iteration += 1
        return BilevelStep(upper.value, lower.value, size, length)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on, as copies: both parameter trees, the adjoint, the momentum, the step."""
        trees = {name: tree_map(lambda p: p.detach().clone(), getattr(self, name)) for name in TREES}
        return {**trees, "iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken: the tensors given at construction take the stored values.

        Raises:
            ValueError: ``state`` lacks an entry, or one has another structure or other shapes than here.
        """
        if missing := [name for name in (*TREES, "iteration") if name not in state]:
            raise ValueError(f"state must be what state_dict returns, got one without {', '.join(missing)}")
        for name in TREES:
            check_like(state[name], getattr(self, name), f"state[{name!r}]", "the parameters")
        for name in TREES:
            _assign(getattr(self, name), state[name])
        self.iteration = int(state["iteration"])

    def _descend(self, y: Tree, batches: Iterator[Batch], rate: float) -> Tree:
        """One gradient step of G from y, with a fresh batch; no graph for what depends on x alone."""
        lower = _On(self.lower_loss, _draw("lower_batches", batches))
        return add_scaled(y, -rate, slope(lower, tree_map(Tensor.detach, self.upper), y, "lower_loss"))


class _On:
    """A loss of x and y on one batch, which keeps the value that it had last."""

    def __init__(self, loss: Loss, batch: Batch) -> None:
        self.loss, self.batch = loss, batch
        self.value: Tensor

    def __call__(self, x: Tree, y: Tree) -> Tensor:
        value = self.loss(x, y, self.batch)
        if isinstance(value, Tensor):
            self.value = value.detach()
        return value


def _norm(tree: Tree) -> Tensor:
    """One Euclidean norm over all leaves, in float32 at least, whose squares neither overflow nor vanish."""
    wide = [p.to(_wide(p)) for p in tree_leaves(tree) if p.numel()]
    largest = get_total_norm(wide, math.inf)
    scale = largest.clamp_min(torch.finfo(largest.dtype).tiny)
    return scale * get_total_norm([p / scale for p in wide])


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor, requires_grad=False)


@torch.no_grad()
def _assign(target: Tree, source: Tree) -> None:
    tree_map(lambda old, new: old.copy_(new), target, source)


def _twice_differentiable(tree: Tree) -> ExitStack:
    """Attention in plain operations, and no cuDNN on CUDA: fused kernels have a first derivative only."""
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(p.is_cuda for p in tree_leaves(tree)):
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        return stack.pop_all()


def _draw(name: str, batches: Iterator[Batch]) -> Batch:
    if not hasattr(batches, "__next__"):
        raise TypeError(f"{name} must be an iterator, such as itertools.cycle(loader), got {type(batches).__name__}")
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(f"{name} must not end, such as itertools.cycle(loader), and has run out") from None


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
