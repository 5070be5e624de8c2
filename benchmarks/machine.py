"""What the numbers depend on: this machine's rates and versions, and who else was using it."""

import gc
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import scipy.linalg  # noqa: F401  # its BLAS is loaded, so that it is told of
import torch
from threadpoolctl import threadpool_info, threadpool_limits
from torch.utils.benchmark import Timer

__all__ = ["Meter", "clock", "copy_rate", "gemm_rate", "machine", "one_thread", "peak_bytes"]

Call = Callable[[], Any]


def machine() -> dict[str, str]:
    """Processor, rates on one thread, the kernels of the linear algebra, and versions."""
    with one_thread():
        rates = ", ".join(
            f"{gemm_rate(d) / 1e9:.0f} GFLOP/s {str(d).removeprefix('torch.')}" for d in (torch.float32, torch.float64)
        )
        copy = copy_rate()
    return {
        "processor": _processor(),
        "system": platform.platform(),
        "matrix product, one thread": rates,
        "copy, one thread": f"{copy / 1e9:.1f} GB/s",
        "kernels": ", ".join([f"torch {torch.backends.cpu.get_cpu_capability()}", *_blas()]),
        "versions": f"Python {platform.python_version()}, {', '.join(_versions())}",
    }


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


def clock(call: Call, number: int) -> float:
    """Seconds per call over ``number`` calls."""
    return float(Timer("call()", globals={"call": call}, num_threads=1).timeit(number).median)


@cache
def gemm_rate(dtype: torch.dtype) -> float:
    """The best rate of many short products: short enough that a busy machine leaves some of them alone."""

    def rate(n: int) -> float:
        a, b, out = (torch.ones(n, n, dtype=dtype) for _ in range(3))
        return 2 * n**3 / min(clock(lambda: torch.mm(a, b, out=out), 1) for _ in range(25))

    return max(rate(512), rate(1024))


@cache
def copy_rate(size: int = 2**26) -> float:
    """Bytes a second, read and written, of a copy that is larger than the caches."""
    source, target = (torch.ones(size, dtype=torch.uint8) for _ in range(2))
    return 2 * size / min(clock(lambda: target.copy_(source), 1) for _ in range(25))


def peak_bytes(call: Call) -> int | None:
    """Peak resident memory of one call above what was resident before it; None where Linux does not tell.

    What an earlier call has left in place, a gradient for example, counts as resident.
    """
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    gc.collect()  # what others have left is not given back while the call runs
    try:
        before = _status_bytes(status, "VmRSS")
        reset.write_text("5")  # sets the high-water mark back to the present size
        call()
        return max(0, _status_bytes(status, "VmHWM") - before)
    except OSError:
        return None


class Meter:
    """The cores that others kept busy, on average, while its block ran; None where Linux does not tell.

    Time that the host of a virtual machine took away counts as theirs.
    """

    others: float | None = None

    def __enter__(self) -> "Meter":
        self._start = self._read()
        return self

    def __exit__(self, *error: object) -> None:
        if self._start is not None and (end := self._read()) is not None:
            busy, own, wall = (after - before for after, before in zip(end, self._start, strict=True))
            self.others = max(0.0, busy - own) / max(wall, 1e-9)

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        try:
            ticks = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = map(int, ticks)
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return busy, sum(os.times()[:4]), time.monotonic()


def _blas() -> list[str]:
    names = {"numpy": "NumPy", "scipy": "SciPy"}
    found = []
    for library in threadpool_info():
        owner = next((names[part] for part in names if f"{part}.libs" in library["filepath"]), None)
        if owner is not None and library["user_api"] == "blas":
            found.append(f"{owner} {library['internal_api']} {library['version']} {library.get('architecture', '')}")
    return sorted(map(str.strip, found))


def _versions() -> list[str]:
    """Of torch and NumPy, and of whatever a peer comes from."""
    declared = [r for r in requires("throughline") or [] if re.search(r"extra == .peers.", r)]
    names = ["torch", "numpy", "scipy", "scikit-learn", *(re.split(r"[^\w-]", r)[0] for r in declared)]
    names += ["betty-ml", "botorch", "deepinv", "scikit-fem"]
    found = []
    for name in dict.fromkeys(names):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


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
