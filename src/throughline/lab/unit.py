"""One unit in a process of its own: seed everything, run one arm, report as it goes, store the result."""

import faulthandler
import os
import random
import sys
import threading
import time
import traceback
from datetime import UTC, datetime
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from throughline.errors import ThroughlineError
from throughline.lab.claim import Claim
from throughline.lab.config import check_unchanged, restore
from throughline.lab.finding import source_version
from throughline.lab.store import Run, Unit, code_version, write_atomically

__all__ = ["Failed", "Finished", "Lost", "Progress", "Started", "run_unit"]

PROCESS = Path("/proc/self/status")
INTERVAL = 0.2  # seconds between two messages to the parent


class Started(NamedTuple):
    """A unit's process has been started."""

    unit: Unit


class Progress(NamedTuple):
    """Where a unit stands: new curve points since the last message, and the share of its steps that is done."""

    unit: Unit
    points: list[tuple[int, dict[str, float]]]
    done: float | None


class Lost(NamedTuple):
    """A unit was lost with the machine that computed it, and is started again."""

    unit: Unit
    reason: str


class Finished(NamedTuple):
    """A unit's result is stored."""

    unit: Unit
    metrics: dict[str, float]
    seconds: float


class Failed(NamedTuple):
    """A unit raised or died; the traceback lies in ``file``."""

    unit: Unit
    reason: str
    file: Path


class Recorder:
    """The `Log` of a running unit."""

    def __init__(self, unit: Unit, pipe: Connection) -> None:
        self.unit, self.pipe = unit, pipe
        self.curves: dict[str, dict[str, list[float]]] = {}
        self.arrays: dict[str, np.ndarray] = {}
        self.points: list[tuple[int, dict[str, float]]] = []
        self.sent = 0.0

    def __call__(self, step: int, *, of: int | None = None, **values: Any) -> None:
        numbers = {name: float(value.detach() if hasattr(value, "detach") else value) for name, value in values.items()}
        for name, number in numbers.items():
            curve = self.curves.setdefault(name, {"step": [], "value": []})
            curve["step"].append(step)
            curve["value"].append(number)
        if numbers:
            self.points.append((step, numbers))
        if time.monotonic() - self.sent >= INTERVAL:
            self.flush(min(1.0, (step + 1) / of) if of else None)

    def keep(self, **arrays: Any) -> None:
        for name, array in arrays.items():
            self.arrays[name] = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)

    def flush(self, done: float | None) -> None:
        self.pipe.send(Progress(self.unit, self.points, done))
        self.points, self.sent = [], time.monotonic()


def run_unit(claim: Claim, folder: Path, unit: Unit, threads: int, pipe: Connection) -> None:
    """Run ``unit`` of the run in ``folder`` and store its result; the entry point of a spawned process."""
    _die_with_parent()
    run = Run(folder)
    try:
        _speak_into(run.file(unit, "log"))
        _seed(unit.seed, threads)
        config = restore(type(claim.scales[run.manifest["scale"]]), run.manifest["config"])
        check_unchanged(config)
        versions = code_version() | source_version(claim)
        if changed := [name for name, found in versions.items() if found != run.manifest["versions"].get(name)]:
            raise ThroughlineError(f"the code changed under the run ({', '.join(changed)}); give the command again")
        log = Recorder(unit, pipe)
        started, clock = datetime.now(UTC), time.perf_counter()
        metrics = {name: float(value) for name, value in claim.run(unit.arm, config, unit.seed, log).items()}
        seconds = time.perf_counter() - clock
        check_unchanged(config)
        record = {
            "metrics": metrics,
            "measured": {"seconds": seconds, "peak_mb": _peak_mb()},
            "curves": log.curves,
            "started": started.isoformat(timespec="seconds"),
            **({"claim": claim.origin} if claim.origin else {}),
            **{key: run.manifest[key] for key in ("paper", "scale", "config", "threads", "host", "commit")},
            "versions": versions,
        }
        run.write(unit, record, log.arrays)
        run.file(unit, "txt").unlink(missing_ok=True)  # an earlier attempt's traceback
        log.flush(1.0)
        pipe.send(Finished(unit, metrics, seconds))
    except BaseException as error:  # whatever a unit raises, the others go on and its traceback is kept
        reason = str(error) if isinstance(error, ThroughlineError) else f"{type(error).__name__}: {error}"
        path = run.file(unit, "txt")
        try:
            write_atomically(path, traceback.format_exc())
        except OSError as full:  # no space left: say it in the parent, where it can still be read
            reason += f" (and its traceback could not be written: {full.strerror})"
        pipe.send(Failed(unit, " ".join(reason.split()), path))


def _seed(seed: int, threads: int) -> None:
    import torch  # here, so that the parent of all units need not load it

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - third-party code may draw from the global generator
    torch.manual_seed(seed)
    # on a GPU some backward passes (pooling, interpolation) have no deterministic form: there PyTorch warns instead.
    # `use_deterministic_algorithms` sets the same and imports the compiler for it, a second in every unit
    torch.set_deterministic_debug_mode("warn" if torch.cuda.is_available() else "error")
    # a debugging aid of the line above, which would write every new tensor twice
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(threads)


def _speak_into(path: Path) -> None:
    """Send what a unit prints, and a crash in native code, to a file: the parent's display stays whole."""
    stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)  # less what the user's umask takes away
    for standard in (1, 2):
        os.dup2(stream, standard)
    faulthandler.enable()


def _die_with_parent() -> None:
    """Leave when the parent is gone, also when it was killed with no chance to say so."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _peak_mb() -> float:
    if PROCESS.exists():  # Linux: getrusage there reports the parent's peak too, carried over by the start of a process
        line = next(line for line in PROCESS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**10
    import resource  # here, for Windows has none: the command line says so, and what runs no units works there

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
