"""What building a space takes: choices, open or decided, edges of candidates, and where random numbers come from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from throughline.core.checks import check_tensor, integer
from throughline.search.spaces.operations import known
from throughline.search.supernet import Choice, MixedOp, Node

__all__ = ["check_counts", "check_decisions", "check_input", "check_options", "drawn_from", "edge_choices", "node"]

Decisions = Mapping[str, str | None]


def edge_choices(group: str, options: Mapping[str, Sequence[str]], decisions: Decisions | None) -> nn.ModuleDict:
    """A choice for each edge: open, or with the decided option alone; a cut edge's is dropped."""
    if decisions is None:
        return nn.ModuleDict({key: Choice(names) for key, names in options.items()})
    made = nn.ModuleDict()
    for key in options:
        decided = decisions[f"{group}.{key}"]
        made[key] = choice = Choice([decided or "none"])
        if decided is None:
            choice.drop()
        else:
            choice.select(decided)
    return made


def node(choices: Sequence[Choice], candidate: Callable[[int, str], nn.Module], keep: int | None = None) -> Node:
    """A node whose edge j has the candidates ``candidate(j, name)``."""
    return Node(
        (MixedOp({name: candidate(j, name) for name in made.names}, made) for j, made in enumerate(choices)), keep=keep
    )


@contextmanager
def drawn_from(generator: torch.Generator | None) -> Iterator[None]:
    """Inside, what modules draw from torch's global generator comes from this one; the global one stays as it is."""
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def check_counts(**counts: int) -> None:
    """Raise unless these are integers of at least 1."""
    for name, value in counts.items():
        if integer(name, value) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def check_options(name: str, options: Sequence[str], dims: int) -> tuple[str, ...]:
    """The options, which must be operations that there are."""
    if isinstance(options, str):
        raise TypeError(f"{name} must be a sequence of names, got {options!r}")
    for option in options:
        if option not in known(dims):
            raise ValueError(f"{name} must be among {', '.join(known(dims))}, got {option!r}")
    if not options:
        raise ValueError(f"{name} must be at least one, got none")
    return tuple(options)


def check_decisions(decisions: Decisions | None, options: Mapping[str, Sequence[str]]) -> None:
    """Raise unless there is one of its options, or None, for each choice."""
    if decisions is None:
        return
    missing, unknown = [n for n in options if n not in decisions], [n for n in decisions if n not in options]
    if missing or unknown:
        found = f"none for {missing}" if missing else f"the unknown {unknown}"
        raise ValueError(f"decisions must be one for each of {', '.join(options)}, got {found}")
    for name, option in decisions.items():
        if option is not None and option not in options[name]:
            raise ValueError(f"decisions must be among {', '.join(options[name])} for {name}, got {option!r}")


def check_input(x: Tensor, channels: int, dims: int, least: int) -> None:
    """Raise unless ``x`` is a batch of signals (1) or images (2) with ``channels`` and sides of ``least``."""
    check_tensor("x", x)
    sides = ", ".join(("length",) if dims == 1 else ("height", "width"))
    if x.ndim != dims + 2 or x.shape[1] != channels:
        raise ValueError(f"x must be (N, {channels}, {sides}), got shape {tuple(x.shape)}")
    if min(x.shape[2:]) < least:
        raise ValueError(
            f"x must have a {sides.replace(', ', ' and ')} of at least {least}, got shape {tuple(x.shape)}"
        )
