"""How time and memory of a mechanism grow with what its user scales, beside the growth that its docstring promises.

Sizes rise until a call needs more than 8 GiB or 5 seconds; the exponents are fitted to the last three that ran.
"""

import importlib
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.harness import FREED_AT_ONCE, in_child
from benchmarks.machine import one_thread, peak_bytes

__all__ = ["Grown", "Growth", "grow", "growths"]

BYTES = 8 * 2**30
SECONDS = 5.0  # no size after one that takes longer
PATIENCE = 120.0  # seconds for one size, set-up included
SLACK = 0.25  # of an exponent over its promise
FITTED = 3  # sizes

Call = Callable[[], Any]


@dataclass(frozen=True)
class Growth:
    """A mechanism, what grows, and the promise.

    Attributes:
        name: what is computed, with the sizes that stay.
        axis: what grows, with its letter.
        start: the least size, at which the mechanism's own memory outweighs what every call needs.
        setup: makes the inputs of a size and returns the call, whose result holds what a user would hold.
        time: the exponent that the docstring promises, factors of a logarithm left out.
        memory: likewise, of the memory that the call adds.
        step: from a size to the next.
    """

    name: str
    axis: str
    start: int
    setup: Callable[[int], Call]
    time: float
    memory: float
    step: int = 4


@dataclass(frozen=True)
class Grown:
    """A mechanism's growth as measured."""

    paper: str
    name: str
    axis: str
    promised_time: float
    promised_memory: float
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    bytes: tuple[int, ...]
    stopped_by: Literal["memory", "time"]

    @property
    def time(self) -> float:
        """Fitted exponent of the time."""
        return _slope(self.sizes, self.seconds, 1e-6)

    @property
    def memory(self) -> float:
        """Fitted exponent of the memory."""
        return _slope(self.sizes, self.bytes, 2**20)

    @property
    def held(self) -> bool:
        """Whether no exponent is 0.25 above its promise."""
        return self.time < self.promised_time + SLACK and self.memory < self.promised_memory + SLACK

    @classmethod
    def stored(cls, values: dict[str, Any]) -> "Grown":
        """What `asdict` made, through JSON."""
        return cls(**{**values, **{name: tuple(values[name]) for name in ("sizes", "seconds", "bytes")}})


def growths(slug: str) -> list[Growth]:
    """The growing mechanisms of a paper's benchmark file."""
    return list(getattr(importlib.import_module(f"benchmarks.{slug.replace('-', '_')}"), "GROWTH", []))


def grow(slug: str, index: int) -> Grown:
    """Measure growth number ``index`` of a paper, each size in a process of its own."""
    growth = growths(slug)[index]
    sizes, seconds, peaks = [], [], []
    size, stopped_by = growth.start, "time"
    while not seconds or seconds[-1] < SECONDS:
        try:
            code = f"from benchmarks.growth import _print; _print({slug!r}, {index}, {size})"
            found = in_child(code, env=FREED_AT_ONCE, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            break
        if found is None or found[1] > BYTES:
            stopped_by = "memory"
            break
        sizes.append(size)
        seconds.append(found[0])
        peaks.append(found[1])
        size *= growth.step
    if not sizes:
        raise RuntimeError(f"{slug}: {growth.name} does not run at its least size, {growth.start:,}")
    return Grown(
        slug,
        growth.name,
        growth.axis,
        growth.time,
        growth.memory,
        tuple(sizes),
        tuple(seconds),
        tuple(peaks),
        stopped_by,  # type: ignore[arg-type]
    )


def _slope(sizes: tuple[int, ...], values: tuple[float, ...], floor: float) -> float:
    """Of the logarithms; below the floor nothing is told apart."""
    if len(sizes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes[-FITTED:]), np.log(np.maximum(values[-FITTED:], floor)), 1)[0])


def _print(slug: str, index: int, size: int) -> None:
    """Seconds and peak bytes of one call, or null where memory does not suffice."""
    growth = growths(slug)[index]
    with one_thread():
        growth.setup(growth.start)()  # what is loaded and cached once is not counted
        _limit_memory()
        try:
            call = growth.setup(size)
            seconds: list[float] = []

            def timed() -> None:
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)

            peak = peak_bytes(timed)
            seconds.clear()  # the first call waits for the system to find the memory
            while sum(seconds) < 0.3 and len(seconds) < 9:
                timed()
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            print(json.dumps(None))
        else:
            print(json.dumps([min(seconds), peak or 0]))


def _limit_memory() -> None:
    """Let an allocation fail before the machine suffers: half as much again as what is allowed to a call."""
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 3 * BYTES // 2
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
