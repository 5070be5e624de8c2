"""One harness for every speed bar: ours and the peer in one process, on the same inputs, in alternating blocks.

A paper's file, ``benchmarks/<slug with underscores>.py``, lists its `Case`s in ``CASES``. `measure` checks that the two
sides agree before it times anything, and compares with the floor: the time that the operations and bytes that cannot be
avoided would take at the rates that this machine reaches in a matrix product and in a copy.
"""

import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.benchmark import Timer

__all__ = ["Case", "Result", "Spread", "cases", "machine", "measure", "one_thread", "papers", "peak_bytes"]

FOLDER = Path(__file__).parent
ROUNDS = 15
BLOCK_SECONDS = 0.1  # a block repeats the call until it lasts about this long

Call = Callable[[], Any]
Clock = Callable[[Call, int], float]  # seconds per call over a number of calls


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

    def __post_init__(self) -> None:
        compared = self.bar is not None or self.bar_memory is not None
        if not compared and self.bar_seconds is None:
            raise ValueError(f"{self.name}: a case needs a bar, bar_seconds or bar_memory")
        if compared != (self.peer is not None):
            raise ValueError(f"{self.name}: bar and peer go together, got bar={self.bar} and peer={self.peer!r}")


class Spread(NamedTuple):
    """The median of the rounds, and the range of the middle eight tenths of them."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """One case as measured; times in seconds, memory in bytes above what the inputs already take."""

    paper: str
    case: Case
    ours: Spread
    peer: Spread | None
    ratio: Spread | None
    ours_peak: int | None
    peer_peak: int | None
    floor: float | None  # seconds

    @property
    def share(self) -> float | None:
        """The floor over our time: 1 is as fast as this machine can be."""
        return self.floor / self.ours.median if self.floor else None

    @property
    def held(self) -> bool:
        """Whether the medians keep within the bars."""
        case, peaks = self.case, (self.ours_peak, self.peer_peak)
        quick = case.bar_seconds is None or self.ours.median <= case.bar_seconds
        if case.bar_memory is not None and None not in peaks:  # not every system tells the peak
            quick = quick and self.ours_peak <= case.bar_memory * self.peer_peak
        return quick and (self.ratio is None or case.bar is None or self.ratio.median <= case.bar)


def papers() -> list[str]:
    """The slugs that have a benchmark file."""
    own = {"__init__", "__main__", "engines", "harness", "report", "short", "spread"}
    return sorted(path.stem.replace("_", "-") for path in FOLDER.glob("*.py") if path.stem not in own)


def cases(slug: str) -> list[Case]:
    """The cases of a paper's benchmark file."""
    return list(importlib.import_module(f"benchmarks.{slug.replace('-', '_')}").CASES)


def measure(slug: str, index: int, *, rounds: int = ROUNDS, clock: Clock | None = None, memory: bool = True) -> Result:
    """Measure case number ``index`` of a paper; raises what its "agree" raises when the two sides differ."""
    case = cases(slug)[index]
    peaks = {side: _peak_in_child(slug, index, side) if memory else None for side in ("ours", "peer")}
    with one_thread():
        return compare(
            case,
            paper=slug,
            rounds=rounds,
            clock=clock or _clock,
            peaks=(peaks["ours"], peaks["peer"]),
            floor=_floor(case),
        )


def compare(
    case: Case,
    *,
    paper: str,
    rounds: int,
    clock: Clock,
    peaks: tuple[int | None, int | None] = (None, None),
    floor: float | None = None,
) -> Result:
    """Check that the sides agree, then time them in alternating blocks; ratios are taken round by round."""
    calls = case.setup()
    calls["agree"]()
    sides = ["ours"] if case.peer is None else ["ours", "peer"]
    repeats = {side: _repeats(calls[side], clock) for side in sides}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(rounds):
        for side in sides[:: 1 if turn % 2 else -1]:  # whoever comes first finds colder caches: take turns
            seconds[side].append(clock(calls[side], repeats[side]))
    ratios = [a / b for a, b in zip(seconds["ours"], seconds.get("peer", []), strict=False)]
    return Result(
        paper,
        case,
        ours=_spread(seconds["ours"]),
        peer=_spread(seconds["peer"]) if case.peer is not None else None,
        ratio=_spread(ratios) if ratios else None,
        ours_peak=peaks[0],
        peer_peak=peaks[1] if case.peer is not None else None,
        floor=floor,
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """torch, BLAS and OpenMP on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


def machine() -> dict[str, str]:
    """What the numbers depend on: processor, rates on one thread, and versions."""
    with one_thread():
        rates = {f"{str(d).removeprefix('torch.')}": _gemm_rate(d) for d in (torch.float32, torch.float64)}
        copy = _copy_rate()
    return {
        "processor": _processor(),
        "system": platform.platform(),
        "matrix product, one thread": ", ".join(f"{r / 1e9:.0f} GFLOP/s {name}" for name, r in rates.items()),
        "copy, one thread": f"{copy / 1e9:.1f} GB/s",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, NumPy {np.__version__}",
    }


def peak_bytes(call: Call) -> int | None:
    """Peak resident memory of one call above what was resident before it; None where Linux does not tell.

    What an earlier call has left in place, a gradient for example, counts as resident.
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        before = _status_bytes(status, "VmRSS")
        reset.write_text("5")  # sets the high-water mark back to the present size
        call()
        return max(0, _status_bytes(status, "VmHWM") - before)
    except OSError:
        return None


def _clock(call: Call, number: int) -> float:
    return float(Timer("call()", globals={"call": call}, num_threads=1).timeit(number).median)


def _repeats(call: Call, clock: Clock) -> int:
    clock(call, 1)  # warms caches up
    return max(1, min(10_000, round(BLOCK_SECONDS / max(clock(call, 1), 1e-9))))


def _spread(values: list[float]) -> Spread:
    low, high = np.quantile(values, [0.1, 0.9])
    return Spread(statistics.median(values), float(low), float(high))


def _floor(case: Case) -> float | None:
    if not case.flops and not case.bytes:
        return None
    return max(case.flops / _gemm_rate(case.dtype), case.bytes / _copy_rate())


@cache
def _gemm_rate(dtype: torch.dtype) -> float:
    """The best rate of many short products: short enough that a busy machine leaves some of them alone."""

    def rate(n: int) -> float:
        a, b, out = (torch.ones(n, n, dtype=dtype) for _ in range(3))
        return 2 * n**3 / min(_clock(lambda: torch.mm(a, b, out=out), 1) for _ in range(25))

    return max(rate(512), rate(1024))


@cache
def _copy_rate(size: int = 2**26) -> float:
    source, target = (torch.ones(size, dtype=torch.uint8) for _ in range(2))  # larger than the caches
    return 2 * size / min(_clock(lambda: target.copy_(source), 1) for _ in range(25))


def _peak_in_child(slug: str, index: int, side: str) -> int | None:
    """`peak_bytes` of one side in a process of its own, where memory that is freed goes back to the system."""
    code = f"from benchmarks.harness import _print_peak; _print_peak({slug!r}, {index}, {side!r})"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=FOLDER.parent, capture_output=True, text=True, check=True
    )
    peak: int | None = json.loads(child.stdout.splitlines()[-1])
    return peak


def _print_peak(slug: str, index: int, side: str) -> None:
    with one_thread():
        calls = cases(slug)[index].setup()
        if side in calls:
            calls[side]()  # what is loaded and cached once is not counted
        print(json.dumps(peak_bytes(calls[side]) if side in calls else None))


def _status_bytes(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores"
