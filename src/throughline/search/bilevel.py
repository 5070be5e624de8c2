"""Bilevel optimisation by normalised momentum: BO-REP and MA-SOBA ("Bilevel Optimization under Unbounded Smoothness: A
New Algorithm and Convergence Analysis", arXiv 2401.09587).
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

__all__ = ["BOREP", "BilevelStep"]

PyTree = Any  # a tensor, or nested dicts, lists and tuples of tensors
Batch = Any  # whatever the iterators yield and the losses take
Loss = Callable[[PyTree, PyTree, Batch], Tensor]

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

    A step waits for the device once, to see whether the hypergradient is finite. On CUDA, G is differentiated twice
    without cuDNN, whose recurrent layers have no second derivative.

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

    Raises:
        TypeError: a parameter or a loss is no floating point tensor, or what yields batches is no iterator.
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
        upper_params: PyTree,
        lower_params: PyTree,
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
        self._x, self._x_spec = _leaves("upper_params", upper_params)
        self._y, self._y_spec = _leaves("lower_params", lower_params)
        if len({id(p) for p in (*self._x, *self._y)}) < len(self._x) + len(self._y):
            raise ValueError("upper_params and lower_params must hold every tensor once, got one twice")
        self._z = [torch.zeros_like(p, requires_grad=False) for p in self._y]
        self._m = [torch.zeros_like(p, requires_grad=False) for p in self._x]
        self.iteration = 0  # steps taken

    @torch.enable_grad()
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
        y = [p.detach() for p in self._y]
        for epoch in range(epochs):
            mean = [torch.zeros_like(p, dtype=_wide(p)) for p in y]
            for count in range(1, steps * 2**epoch + 1):
                y = self._descend(y, lower_batches, self.lower_lr / 2**epoch)
                for average, p in zip(mean, y, strict=True):
                    average.lerp_(p.to(average.dtype), 1 / count)
            y = [average.to(p.dtype) for average, p in zip(mean, y, strict=True)]
        if not _norm(y).isfinite():
            raise FloatingPointError(
                f"lower_params are not finite after refinement: lower_lr={self.lower_lr} is too large"
            )
        _assign(self._y, y)

    @torch.enable_grad()
    def step(self, upper_batches: Iterator[Batch], lower_batches: Iterator[Batch]) -> BilevelStep:
        """Take one step, and return what was seen on the way.

        Args:
            upper_batches: an iterator that does not end, of batches for ``upper_loss``; one is drawn.
            lower_batches: the same for ``lower_loss``; ``lower_steps`` are drawn where an update of y is due, and one.
                Drawn before the upper batch, so that one iterator can serve both.
        """
        y = [p.detach() for p in self._y]
        if self.iteration % self.period == 0:
            for _ in range(self.lower_steps):
                y = self._descend(y, lower_batches, self.lower_lr)
        lower_batch, upper_batch = _draw("lower_batches", lower_batches), _draw("upper_batches", upper_batches)

        x, y = ([p.detach().requires_grad_() for p in side] for side in (self._x, y))
        upper = self._loss("upper_loss", x, y, upper_batch)
        found = _gradients(upper, [*x, *y])
        upper_x, upper_y = _filled(found[: len(x)], x), _inner("upper_loss", found[len(x) :], y)
        with _twice_differentiable(y):
            lower = self._loss("lower_loss", x, y, lower_batch)
            lower_y = _inner("lower_loss", _gradients(lower, y, create_graph=True), y)
            curved = _product(lower_y, y, self._z, retain_graph=True)
            z = [a - self.adjoint_lr * (h - v) for a, h, v in zip(self._z, curved, upper_y, strict=True)]
            mixed = _product(lower_y, x, z)
        hypergradient = [g - h for g, h in zip(upper_x, mixed, strict=True)]
        size = _norm(hypergradient)
        if not size.isfinite():  # the one wait for the device
            raise FloatingPointError(
                f"the hypergradient is not finite at step {self.iteration}; parameters and state are as before it"
            )
        m = [self.momentum * a + (1 - self.momentum) * h for a, h in zip(self._m, hypergradient, strict=True)]
        length = _norm(m)
        scale = self.lr / (length + EPSILON) if self.normalize else self.lr
        _assign(self._x, [p.detach() - scale * a for p, a in zip(x, m, strict=True)])
        _assign(self._y, y)
        self._z, self._m = z, m
        self.iteration += 1
        return BilevelStep(upper.detach(), lower.detach(), size, length)

    @property
    def adjoint(self) -> PyTree:
        """z, in the structure of ``lower_params``; zero at first."""
        return tree_unflatten(self._z, self._y_spec)

    @property
    def momentum_buffer(self) -> PyTree:
        """m, in the structure of ``upper_params``; zero at first."""
        return tree_unflatten(self._m, self._x_spec)

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
        own = dict(zip(TREES, (self._x, self._y, self._z, self._m), strict=True))
        specs = dict(zip(TREES, (self._x_spec, self._y_spec) * 2, strict=True))
        stored = {}
        for name, leaves in own.items():
            stored[name], spec = _leaves(f"state[{name!r}]", state[name])
            shapes = [[tuple(p.shape) for p in side] for side in (leaves, stored[name])]
            if spec != specs[name] or shapes[0] != shapes[1]:
                raise ValueError(f"state[{name!r}] must be a tree as here, of shapes {shapes[0]}, got {shapes[1]}")
        for name, leaves in own.items():
            _assign(leaves, stored[name])
        self.iteration = int(state["iteration"])

    def _descend(self, y: list[Tensor], batches: Iterator[Batch], rate: float) -> list[Tensor]:
        """One gradient step of G from y, with a fresh batch; no graph for what depends on x alone."""
        y = [p.detach().requires_grad_() for p in y]
        loss = self._loss("lower_loss", [p.detach() for p in self._x], y, _draw("lower_batches", batches))
        gradient = _inner("lower_loss", _gradients(loss, y), y)
        return [p.detach() - rate * g for p, g in zip(y, gradient, strict=True)]

    def _loss(self, name: str, x: list[Tensor], y: list[Tensor], batch: Batch) -> Tensor:
        loss = getattr(self, name)(tree_unflatten(x, self._x_spec), tree_unflatten(y, self._y_spec), batch)
        if not isinstance(loss, Tensor) or not loss.is_floating_point():
            kind = loss.dtype if isinstance(loss, Tensor) else type(loss).__name__
            raise TypeError(f"{name} must return a floating point tensor, got {kind}")
        if loss.ndim:
            raise ValueError(f"{name} must return a scalar (0-d) tensor, got shape {tuple(loss.shape)}")
        return loss


def _gradients(loss: Tensor, inputs: list[Tensor], *, create_graph: bool = False) -> list[Tensor | None]:
    if not loss.requires_grad:
        return [None] * len(inputs)
    return list(torch.autograd.grad(loss, inputs, create_graph=create_graph, allow_unused=True))


def _inner(name: str, gradient: list[Tensor | None], y: list[Tensor]) -> list[Tensor]:
    if all(g is None for g in gradient):
        raise ValueError(f"{name} must depend on the lower_params that it is given, and does not")
    return _filled(gradient, y)


def _filled(gradient: list[Tensor | None], like: list[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(p, requires_grad=False) if g is None else g for g, p in zip(gradient, like, strict=True)]


def _product(gradient: list[Tensor], inputs: list[Tensor], vector: list[Tensor], **options: bool) -> list[Tensor]:
    """The derivative of ⟨gradient, vector⟩ by the inputs, over the graph that the gradient has; the vector is fixed."""
    curved = [(g, v) for g, v in zip(gradient, vector, strict=True) if g.requires_grad]
    if not curved:
        return _filled([None] * len(inputs), inputs)
    outputs, weights = zip(*curved, strict=True)
    return _filled(list(torch.autograd.grad(outputs, inputs, weights, allow_unused=True, **options)), inputs)


def _norm(tensors: list[Tensor]) -> Tensor:
    """One Euclidean norm over all tensors, in float32 at least, whose squares neither overflow nor vanish."""
    wide = [p.to(_wide(p)) for p in tensors if p.numel()]
    largest = get_total_norm(wide, math.inf)
    scale = largest.clamp_min(torch.finfo(largest.dtype).tiny)
    return scale * get_total_norm([p / scale for p in wide])


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)


@torch.no_grad()
def _assign(targets: list[Tensor], values: list[Tensor]) -> None:
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def _twice_differentiable(tensors: list[Tensor]) -> AbstractContextManager[None]:
    """Without cuDNN on CUDA: its recurrent layers have a first derivative only."""
    on_cuda = any(p.is_cuda for p in tensors)
    return torch.backends.cudnn.flags(enabled=False) if on_cuda else nullcontext()


def _draw(name: str, batches: Iterator[Batch]) -> Batch:
    if not hasattr(batches, "__next__"):
        raise TypeError(f"{name} must be an iterator, such as itertools.cycle(loader), got {type(batches).__name__}")
    try:
        return next(batches)
    except StopIteration:
        raise ValueError(f"{name} must not end, such as itertools.cycle(loader), and has run out") from None


def _leaves(name: str, tree: PyTree) -> tuple[list[Tensor], TreeSpec]:
    leaves, spec = tree_flatten(tree)
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            kind = leaf.dtype if isinstance(leaf, Tensor) else type(leaf).__name__
            raise TypeError(f"{name} must hold floating point tensors, got {kind}")
    if not sum(leaf.numel() for leaf in leaves):
        raise ValueError(f"{name} must hold at least one number, got an empty tree")
    return leaves, spec


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}")
