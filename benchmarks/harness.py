"""One harness for every speed bar: ours and the peer in one process, on the same inputs, in alternating blocks.

A paper's file, ``benchmarks/<slug with underscores>.py``, lists its `Case`s in ``CASES`` and how its mechanisms grow in
``GROWTH``. `measure` checks that the two sides agree before it times anything, and compares with the floor: the time
that the operations and bytes that cannot be avoided would take at the rates that this machine reaches in a matrix
product and in a copy.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from benchmarks.machine import Meter, clock, copy_rate, gemm_rate, one_thread, peak_bytes
from throughline import catalog

__all__ = ["FREED_AT_ONCE", "Case", "Result", "Spread", "cases", "in_child", "measure", "papers", "spread"]

FOLDER = Path(__file__).parent
ROUNDS = 15
BLOCK_SECONDS = 0.1  # a block repeats the call until it lasts about this long
ENOUGH = 20.0  # seconds of blocks: then rounds end, LEAST being the fewest
LEAST = 5
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # memory, to the system
LOADED = 0.1  # cores that others keep busy: so much is felt

Call = Callable[[], Any]
Clock = Callable[[Call, int], float]  # seconds per call over a number of calls
Kind = Literal["same work", "less work", "other work", "floor", "time"]


@dataclass(frozen=True)
class Case:
    """One comparison under a bar.

    Attributes:
        name: what is computed, with its sizes.
        setup: makes the inputs and returns the zero-argument callables "ours" and "peer" (none without a peer), and
            "agree", which raises when the two do not give the same answer. "agree" must be quick.
        bar: the largest time that is allowed to ours, in multiples of the peer's.
        peer: what we compare with, with its version; None for a bar in seconds alone.
        bar_seconds: the largest time of one call that is allowed to ours.
        bar_memory: the largest peak memory that is allowed to ours, in multiples of the peer's.
        flops: operations of the least work (a multiply-add is two); 0 when nobody counted.
        bytes: bytes of the least traffic, everything read and written once.
        dtype: of the floor's matrix product.
        work: what the peer does: the "same", with the same result; "less", which shows the price of what ours adds; or
            "other", which serves the same end by a computation of its own.
    """

    name: str
    setup: Callable[[], dict[str, Call]]
    bar: float | None = None
    peer: str | None = None
    bar_seconds: float | None = None
    bar_memory: float | None = None
    flops: float = 0.0
    bytes: float = 0.0
    dtype: torch.dtype = torch.float32
    work: Literal["same", "less", "other"] = "same"

    def __post_init__(self) -> None:
        compared = self.bar is not None or self.bar_memory is not None
        if not compared and self.bar_seconds is None:
            raise ValueError(f"{self.name}: a case needs a bar, bar_seconds or bar_memory")
        if compared != (self.peer is not None):
            raise ValueError(f"{self.name}: bar and peer go together, got bar={self.bar} and peer={self.peer!r}")

    @property
    def kind(self) -> Kind:
        """What the reference is: a peer, the least that the machine would need, or a time that was set."""
        if self.peer is not None:
            return f"{self.work} work"  # type: ignore[return-value]
        return "floor" if self.flops or self.bytes else "time"


class Spread(NamedTuple):
    """The median of the rounds, and the range of the middle eight tenths of them."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """One case as measured; times in seconds by round, memory in bytes above what the inputs already take."""

    paper: str
    name: str
    kind: Kind
    peer: str | None
    bar: float | None
    bar_seconds: float | None
    bar_memory: float | None
    ours_seconds: tuple[float, ...]
    peer_seconds: tuple[float, ...]
    ours_peak: int | None
    peer_peak: int | None
    floor: float | None  # seconds
    others: float | None  # cores that others kept busy meanwhile

    @property
    def ours(self) -> Spread:
        return spread(self.ours_seconds)

    @property
    def peer_time(self) -> Spread | None:
        return spread(self.peer_seconds) if self.peer_seconds else None

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over the peer's, round by round; empty without a peer."""
        return tuple(a / b for a, b in zip(self.ours_seconds, self.peer_seconds, strict=False))

    @property
    def ratio(self) -> Spread | None:
        return spread(self.ratios) if self.ratios else None

    @property
    def memory_ratio(self) -> float | None:
        """Our peak over the peer's; None where the system does not tell, or the peer takes nothing."""
        return self.ours_peak / self.peer_peak if self.peer_peak and self.ours_peak is not None else None

    @property
    def share(self) -> float | None:
        """The floor over our time: 1 is as fast as this machine can be."""
        return self.floor / self.ours.median if self.floor else None

    @property
    def held(self) -> bool:
        """Whether the medians keep within the bars."""
        quick = self.bar_seconds is None or self.ours.median <= self.bar_seconds
        small = self.bar_memory is None or self.memory_ratio is None or self.memory_ratio <= self.bar_memory
        return quick and small and (self.ratio is None or self.bar is None or self.ratio.median <= self.bar)

    @property
    def loaded(self) -> bool:
        """Whether others took so much of the machine meanwhile that it is felt."""
        return self.others is not None and self.others > LOADED

    @classmethod
    def stored(cls, values: dict[str, Any]) -> "Result":
        """What `asdict` made, through JSON."""
        rounds = {name: tuple(values[name]) for name in ("ours_seconds", "peer_seconds")}
        return cls(**{**values, **rounds})


def papers() -> list[str]:
    """The slugs that have a benchmark file."""
    return [slug for slug in sorted(catalog.slugs()) if (FOLDER / f"{slug.replace('-', '_')}.py").exists()]


def cases(slug: str) -> list[Case]:
    """The cases of a paper's benchmark file."""
    return list(importlib.import_module(f"benchmarks.{slug.replace('-', '_')}").CASES)


def measure(slug: str, index: int, *, rounds: int = ROUNDS) -> Result:
    """Measure case number ``index`` of a paper, in a process that no other case has left its memory in.

    Raises a CalledProcessError, with what the process said, when the two sides do not agree.
    """
    peaks = in_child(f"from benchmarks.harness import _print_peaks; _print_peaks({slug!r}, {index})", env=FREED_AT_ONCE)
    call = f"_print_case({slug!r}, {index}, {rounds}, {peaks})"
    return Result.stored(in_child(f"from benchmarks.harness import _print_case; {call}"))


def compare(
    case: Case,
    *,
    paper: str,
    rounds: int,
    clock: Clock,
    peaks: tuple[int | None, int | None] = (None, None),
    floor: float | None = None,
) -> Result:
    """Check that the sides agree, then time them in alternating blocks, so that ratios are taken round by round."""
    calls = case.setup()
    calls["agree"]()
    sides = ["ours"] if case.peer is None else ["ours", "peer"]
    repeats = {side: _repeats(calls[side], clock) for side in sides}
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    spent = 0.0
    with Meter() as meter:
        for turn in range(rounds):
            if turn >= LEAST and spent > ENOUGH:
                break
            for side in sides[:: 1 if turn % 2 else -1]:  # whoever comes first finds colder caches: take turns
                seconds[side].append(clock(calls[side], repeats[side]))
                spent += seconds[side][-1] * repeats[side]
    return Result(
        paper,
        **{name: getattr(case, name) for name in ("name", "kind", "peer", "bar", "bar_seconds", "bar_memory")},
        ours_seconds=tuple(seconds["ours"]),
        peer_seconds=tuple(seconds["peer"]),
        ours_peak=peaks[0],
        peer_peak=peaks[1] if case.peer is not None else None,
        floor=floor,
        others=meter.others,
    )


def spread(values: tuple[float, ...]) -> Spread:
    """Median, and the range of the middle eight tenths."""
    low, high = np.quantile(values, [0.1, 0.9])
    return Spread(statistics.median(values), float(low), float(high))


def _repeats(call: Call, clock: Clock) -> int:
    clock(call, 1)  # warms caches up
    return max(1, min(10_000, round(BLOCK_SECONDS / max(clock(call, 1), 1e-9))))


def _floor(case: Case) -> float | None:
    if not case.flops and not case.bytes:
        return None
    return max(case.flops / gemm_rate(case.dtype), case.bytes / copy_rate())


def in_child(code: str, *, env: Mapping[str, str] | None = None, **more: Any) -> Any:
    """What a process of its own prints last, as JSON."""
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **(env or {})},
        cwd=FOLDER.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        **more,
    )
    return json.loads(child.stdout.splitlines()[-1])


def _print_case(slug: str, index: int, rounds: int, peaks: tuple[int | None, int | None]) -> None:
    case = cases(slug)[index]
    with one_thread():
        found = compare(case, paper=slug, rounds=rounds, clock=clock, peaks=peaks, floor=_floor(case))
    print(json.dumps(asdict(found)))


def _print_peaks(slug: str, index: int) -> None:
    with one_thread():
        calls = cases(slug)[index].setup()
        peaks: list[int | None] = []
        for side in ("ours", "peer"):
            if side in calls:
                calls[side]()  # what is loaded and cached once is not counted
            peaks.append(peak_bytes(calls[side]) if side in calls else None)
    print(json.dumps(peaks))
