"""What the contract suite knows of a part: how to call it, what it must refuse, and which checks it is left out of."""

import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from sklearn.base import BaseEstimator
from torch import Generator, Tensor, nn

Arguments = tuple[Any, ...]
# torch's default backend, where there is what it needs
COMPILER = "inductor" if any(shutil.which(name) for name in ("g++", "clang++", "c++")) else "aot_eager"


def seeded(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: Generator, *size: int) -> Tensor:
    return torch.randn(size, generator=generator, dtype=torch.float64)


class Bad:
    """An input that must be refused: the promised error, a pattern of its message, and what differs from the sample.

    ``Bad(ValueError, r"steepness .* got 0", steepness=0)`` changes an option, ``Bad(TypeError, r"input", x)`` the
    arguments of the call, and ``Bad(ValueError, r"penalty", do=lambda head: head.merge(other))`` does something else
    with the part.
    """

    def __init__(
        self, error: type[Exception], match: str, *args: Any, do: Callable[[Any], object] | None = None, **options: Any
    ) -> None:
        self.error, self.match, self.args, self.do, self.options = error, match, args, do, options


@dataclass(frozen=True, repr=False)
class Part:
    """One public part under one choice of options.

    Attributes:
        subject: the public object: a function, an ``nn.Module`` class, a scikit-learn estimator class or a value class.
        sample: draws the arguments of one call, without batch dimensions; floating point ones in float64.
        options: keywords of the function, or of the constructor of a class.
        call: what is computed when it is not ``subject(*arguments)``; a module's instance comes first.
        prepare: brings a new module into the state that is examined, such as fitting it.
        variant: tells the rows of one subject apart when the options do not.
        batched: the positions of the arguments that take leading batch dimensions.
        constant: the positions of floating point arguments that no gradient is promised for.
        stretched: the positions of the arguments that `extremes` may scale and tie; all floating point ones by default.
        edges: further arguments that must give finite values and gradients; "single" replaces the derived one.
        bad: what must be refused.
        reference: slow arithmetic from elsewhere, of the same arguments.
        tolerance: relative and absolute, of results in float32 and bfloat16.
        own_precision: whether a module computes in the dtype of its state, whatever that of the input.
        shortest: the least dtype of results; inputs in a shorter one give this.
        mixed: whether learned layers follow autocast: bfloat16's precision, and results may be bfloat16.
        arguments: what errors call the arguments; by default the names in the signature of `call`, of a module's
            ``forward`` or of the function.
        foreign: the positions of the arguments that take lists and arrays as well as tensors.
        empty: the arguments of a batch of none, where that is neither in front nor the first dimension.
        holder: of a part that is called as a function and yet holds state, such as an optimiser: makes the object from
            the arguments and options, for deepcopy to copy.
        backend: of ``torch.compile``: `COMPILER` for a few rows, since it takes seconds; "eager" only traces, for rows
            whose long graphs are compiled in another.
        skips: the checks that do not hold, each with its reason; one that would hold fails.
    """

    subject: Any
    sample: Callable[[Generator], Arguments]
    options: Mapping[str, Any] = field(default_factory=dict)
    call: Callable[..., Any] | None = None
    prepare: Callable[[Any], object] | None = None
    variant: str = ""
    batched: tuple[int, ...] = ()
    constant: tuple[int, ...] = ()
    stretched: tuple[int, ...] | None = None
    edges: Mapping[str, Callable[[], Arguments]] = field(default_factory=dict)
    bad: tuple[Bad, ...] = ()
    reference: Callable[..., Any] | None = None
    tolerance: tuple[float, float] = (1e-4, 3e-2)
    own_precision: bool = False
    shortest: torch.dtype = torch.bfloat16
    mixed: bool = False
    arguments: tuple[str, ...] = ()
    foreign: tuple[int, ...] = ()
    empty: Callable[[], Arguments] | None = None
    holder: Callable[..., Any] | None = None
    backend: str = "aot_eager"
    skips: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        label = self.variant or ", ".join(f"{k}={_short(v)}" for k, v in self.options.items())
        return f"{self.subject.__name__}({label})" if label else str(self.subject.__name__)

    @property
    def is_module(self) -> bool:
        return inspect.isclass(self.subject) and issubclass(self.subject, nn.Module)

    @property
    def is_estimator(self) -> bool:
        return inspect.isclass(self.subject) and issubclass(self.subject, BaseEstimator)

    @property
    def is_random(self) -> bool:
        return "generator" in inspect.signature(self.subject).parameters

    def create(self, seed: int = 0, **changes: Any) -> Any:
        """The function with its options bound, or a new instance as its constructor leaves it."""
        options = {**self.options, **changes}
        if self.is_random:
            options.setdefault("generator", seeded(seed))
        if self.is_estimator and "random_state" in inspect.signature(self.subject).parameters:
            options.setdefault("random_state", seed)
        if self.is_module or self.is_estimator:
            return self.subject(**options)
        return partial(self.call or self.subject, **options)

    def build(self, seed: int = 0, **changes: Any) -> Any:
        """`create`, then `prepare`; modules in float64."""
        made = self.create(seed, **changes)
        if self.prepare is not None:
            self.prepare(made)
        return made.double() if self.is_module else made

    def run(self, made: Any, *args: Any) -> Any:
        """The result of one call of what `build` made."""
        if self.is_estimator:
            features, *target = (a.numpy() if isinstance(a, Tensor) else a for a in args)
            fitted = made.fit(features, *target)
            scores = fitted.decision_function if hasattr(fitted, "decision_function") else fitted.transform
            return torch.from_numpy(scores(features))
        if self.is_module and self.call is not None:
            return self.call(made, *args)
        return made(*args)

    def names(self, args: Arguments) -> tuple[str, ...]:
        """What errors call each of the arguments of a call."""
        if self.arguments:
            return self.arguments
        function = self.call or (self.subject.forward if self.is_module else self.subject)
        names = list(inspect.signature(function).parameters)[int(self.is_module) :]
        assert len(names) >= len(args), f"the row must name its {len(args)} arguments"
        return tuple(names[: len(args)])

    def draw(self, seed: int = 0) -> Arguments:
        return self.sample(seeded(seed))


def _short(value: Any) -> str:
    return getattr(value, "__name__", str(value)).strip("<>").replace(" ", "")
