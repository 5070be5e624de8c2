"""What a claim is: arms, checks, scales and one method that runs a single arm on a single seed."""

import importlib
import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from throughline.data.source import Kind
from throughline.errors import ThroughlineError
from throughline.lab.checks import Check
from throughline.lab.extras import how_to_install, installed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from throughline.lab.results import Results

__all__ = ["TIMES", "Arm", "Claim", "Log", "Quote", "require"]

TIMES = ("seconds", "_ms", "_latency", "_cost")  # how the names of metrics end that are never twice the same


class Log(Protocol):
    """How a running unit speaks: curve points, progress, and arrays for the figures."""

    def __call__(self, step: int, *, of: int | None = None, **values: Any) -> None:
        """Record ``values`` (floats or one-element tensors) at ``step``, the step's position among ``of`` steps."""

    def keep(self, **arrays: Any) -> None:
        """Store arrays (tensors too) with the unit's result, for `Claim.figures`."""


class Arm(str):
    """The name of an arm, with one sentence that says what it does to a reader who has not read the paper.

    >>> arm = Arm("bce", "Trains on binary cross-entropy.")
    >>> arm, arm.about
    ('bce', 'Trains on binary cross-entropy.')
    """

    __slots__ = ("about",)
    about: str

    def __new__(cls, name: str, about: str) -> "Arm":
        arm = super().__new__(cls, name)
        arm.about = about
        return arm

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]
        return str(self), self.about


class Quote(NamedTuple):
    """A number of the paper's own, printed beside ours."""

    what: str
    value: str
    where: str


class Claim:
    """A paper's headline claim as an experiment; the first line of the docstring is the claim in one sentence.

    A subclass names its ``paper``, ``arms`` (the baseline first), ``checks`` and ``scales``, and implements `run`. The
    lab owns everything else: seeds, pairing, processes, checkpoints, timing and statistics.
    """

    paper: ClassVar[str]  # of the catalogue; of a claim of one's own, the name that its runs are filed under
    arms: ClassVar[tuple[str, ...]]  # an `Arm` each, so that a reader is told what it does
    context: ClassVar[tuple[str, ...]] = ()  # arms that are run and printed beside the others, without a check
    checks: ClassVar[tuple[Check, ...]]
    scales: ClassVar[Mapping[str, Any]]  # a frozen dataclass for each of smoke, laptop and paper
    seeds: ClassVar[Mapping[str, int]] = {"smoke": 2, "laptop": 10, "paper": 5}  # how many by default
    accepts: ClassVar[tuple[Kind, ...]] = ()  # the kinds of --data that it can run on
    quotes: ClassVar[tuple[Quote, ...]] = ()
    notes: ClassVar[str] = ""
    origin: str = ""  # where `find_claim` found it, if it is not ours

    @classmethod
    def sentence(cls) -> str:
        """The claim in one sentence."""
        return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())

    @classmethod
    def about(cls) -> dict[str, str]:
        """What each arm does, by its name, as far as the claim says."""
        return {str(arm): getattr(arm, "about", "") for arm in (*cls.arms, *cls.context)}

    def prepare(self, config: Any) -> None:
        """Fetch and validate what the units need; called once, before any of them starts."""

    def run(self, arm: str, config: Any, seed: int, log: Log) -> dict[str, float]:
        """One arm on one seed: every metric by name. The process is seeded with ``seed`` and deterministic.

        A metric whose name ends in ``seconds``, ``_ms``, ``_latency`` or ``_cost`` is a time or a ratio of times, and
        is not expected to be the same again.
        """
        raise TypeError(f"{type(self).__name__} must implement run")

    def figures(self, results: "Results") -> "dict[str, Figure]":
        """Pictures a reader would want, by caption, from stored results alone."""
        return {}


def require(module: str, *, extra: str) -> ModuleType:
    """Import an optional package, or say how to install it beside the torch that is there.

    >>> require("json", extra="all").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:  # the last two from native code built for another torch
        name = error.name if isinstance(error, ModuleNotFoundError) and error.name else module
        package = name.partition(".")[0]
        why = f"cannot be imported ({' '.join(str(error).split())})" if installed(package) else "is not installed"
        raise ThroughlineError(f"{package} {why}; {how_to_install([package], extra)}") from None
