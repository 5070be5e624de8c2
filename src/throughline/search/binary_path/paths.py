"""Supernets that run one candidate for each choice, drawn anew for each pass ("ProxylessNAS: Direct Neural Architecture
Search on Target Task and Hardware", arXiv 1812.00332, sections 3.1 and 3.2).
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from throughline.search.binary_path.gate import run_gated
from throughline.search.supernet import Choice, MixedOp, choices

__all__ = ["Path", "binary_paths", "undecided"]


@dataclass(frozen=True)
class Path:
    """The mixture of a `MixedOp` that runs the first of its candidates; the gradient of alpha runs over all of them."""

    candidates: tuple[str, ...]
    gates: bool
    pair: bool

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a path drawn anew must not compile anew
    def __call__(self, op: MixedOp, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if self.gates:
            return run_gated(op, self.candidates, args, kwargs)
        return op.run(self.candidates[0], args, kwargs)


@contextmanager
def binary_paths(
    model: nn.Module,
    *,
    pairs: bool = False,
    paths: Mapping[str, str | tuple[str, ...]] | None = None,
    gates: bool = True,
    generator: torch.Generator | None = None,
) -> Iterator[dict[str, tuple[str, ...]]]:
    """Inside, every undecided choice runs one option, drawn from softmax(alpha) once for all its layers.

    Parameters of other candidates get no gradient at all (None, not zeros). With b the inner products of the gradient
    of a layer's output and the candidates' outputs, alpha gets p ⊙ (b - ⟨p, b⟩), summed over the layers of a choice
    (eq. 4): what the candidates that did not run would have given is computed in the backward pass, one after another,
    without a graph. So memory is that of a single path. The estimate is exact, whatever is drawn, where the loss is
    linear in the layer's output.

    With ``pairs``, two different options are drawn from p without replacement and compete alone (section 3.2.1): one of
    them runs, drawn from the softmax of the two; the gradient is taken with that softmax, and is 0 for all others.

    Args:
        model: any module with `MixedOp` inside, which may be compiled, as a whole or each candidate.
        pairs: as above; a choice of one option is simply taken.
        paths: an option to run, or such a pair (active, other), for some choices by name or for all; the results of an
            earlier use can be given.
        gates: False for a step on the weights, which leaves out the gradient by alpha and its cost.
        generator: of the draw; torch's global one for the CPU by default.

    Yields:
        For each undecided choice by its name in `choices`, ``(active,)``, or ``(active, other)`` of a pair. Options
        that `Choice.without` has removed are not drawn.

    Raises:
        ValueError: ``paths`` names a choice or option that there is not, or no pair where it should; alpha holds
            NaN, or its maximum is not finite.
        RuntimeError: used inside of itself.

    >>> op = MixedOp({"zero": nn.Threshold(9.0, 0.0), "keep": nn.Identity()}, Choice(["zero", "keep"], scale=0.0))
    >>> with binary_paths(op, paths={"choice": "keep"}) as drawn:
    ...     op(torch.tensor([1.0, 2.0])).sum().backward()
    >>> drawn, op.choice.alpha.grad
    ({'choice': ('keep',)}, tensor([-0.7500,  0.7500]))
    """
    open_ = undecided(model)
    ops = [module for module in model.modules() if isinstance(module, MixedOp)]
    if any(isinstance(op.mixture, Path) for op in ops):
        raise RuntimeError("binary_paths must not be used inside of itself: the model runs a single path already")
    drawn = _draw(open_, pairs, _forced(paths or {}, open_, pairs), generator)
    by_choice = {
        id(choice): Path(
            drawn[name] if pairs else drawn[name] + tuple(n for n in choice.alive if n not in drawn[name]), gates, pairs
        )
        for name, choice in open_.items()
    }
    before = [(op, op.mixture) for op in ops if id(op.choice) in by_choice]
    try:
        for op, _ in before:
            op.mixture = by_choice[id(op.choice)]
        yield drawn
    finally:
        for op, mixture in before:
            op.mixture = mixture


def undecided(model: nn.Module) -> dict[str, Choice]:
    """The choices that a path is drawn for, by name."""
    return {name: choice for name, choice in choices(model).items() if choice.decision is None and choice.alive}


def _forced(
    paths: Mapping[str, str | tuple[str, ...]], open_: Mapping[str, Choice], pairs: bool
) -> dict[str, tuple[str, ...]]:
    forced = {}
    for name, path in paths.items():
        if name not in open_:
            raise ValueError(
                f"paths must name undecided choices ({', '.join(open_) or 'there are none'}), got {name!r}"
            )
        options, wanted = (path,) if isinstance(path, str) else tuple(path), open_[name].alive
        if not options or any(option not in wanted for option in options):
            raise ValueError(f"paths must be options, {', '.join(wanted)} for {name}, got {path!r}")
        if len(options) > (2 if pairs else 1):
            raise ValueError(f"paths must be {'pairs' if pairs else 'single options'}, got {path!r} for {name}")
        if len(set(options)) < len(options):
            raise ValueError(
                f"paths must be pairs of different options of {', '.join(wanted)}, got {path!r} for {name}"
            )
        forced[name] = options
    return forced


def _draw(
    open_: Mapping[str, Choice], pairs: bool, forced: Mapping[str, tuple[str, ...]], generator: torch.Generator | None
) -> dict[str, tuple[str, ...]]:
    """One option or two of each choice: the largest of alpha plus Gumbel noise, that is, draws without replacement."""
    if not open_:
        return {}
    device = "cpu" if generator is None else generator.device
    alphas = torch.cat([choice.alpha.detach() for choice in open_.values()]).to(device, torch.float64)
    noise = torch.empty_like(alphas).exponential_(generator=generator).log()
    coins = torch.rand(len(open_), generator=generator, dtype=torch.float64, device=device).tolist()
    keys, values = iter((alphas - noise).tolist()), iter(alphas.tolist())  # the one time that a GPU is waited for
    drawn = {}
    for (name, choice), coin in zip(open_.items(), coins, strict=True):
        key, alpha = ({option: next(numbers) for option in choice.names} for numbers in (keys, values))
        if not math.isfinite(max(alpha[n] for n in choice.alive)) or any(map(math.isnan, alpha.values())):
            raise ValueError(f"alpha of {name} must have a finite maximum and no NaN, got {list(alpha.values())}")
        given = forced.get(name, ())
        others = sorted((n for n in choice.alive if n not in given), key=key.__getitem__, reverse=True)
        found = (*given, *others)[: 2 if pairs else 1]
        if len(found) == 2 and not given and coin >= _sigmoid(alpha[found[0]] - alpha[found[1]]):
            found = found[::-1]
        drawn[name] = found
    return drawn


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - _sigmoid(-x)
