"""Computes units on this machine: a spawned process each, several at once."""

import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from throughline.lab.claim import Claim
from throughline.lab.config import check_device
from throughline.lab.engines import Event
from throughline.lab.store import Run, Unit, write_atomically
from throughline.lab.unit import Failed, Finished, Progress, Started, run_unit

__all__ = ["Local", "cores"]

Running = dict[Connection, tuple[SpawnProcess, Unit]]


class Local:
    """The `throughline.lab.engines.Engine` of this machine, with ``jobs`` units at once."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def room(self, config: Any, threads: int) -> int:
        check_device(config)
        return self.jobs

    def compute(self, claim: Claim, run: Run, units: Sequence[Unit]) -> Generator[Event]:
        waiting = list(units)
        threads = int(run.manifest["threads"])
        context = get_context("spawn")
        running: Running = {}
        try:
            with _environment(threads):
                while waiting or running:
                    while waiting and len(running) < self.jobs:
                        unit = waiting.pop(0)
                        ours, theirs = context.Pipe(duplex=False)
                        job = (claim, run.folder, unit, threads, theirs)
                        process = context.Process(target=run_unit, args=job)
                        with _deaf_to_interrupts():  # Ctrl-C reaches the parent alone, which ends its children
                            process.start()
                        theirs.close()
                        running[ours] = (process, unit)
                        yield Started(unit)
                    for pipe in wait(list(running)):
                        assert isinstance(pipe, Connection)
                        yield _receive(run, running, pipe)
        finally:
            for process, _ in running.values():
                process.kill()
                process.join()


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _receive(run: Run, running: Running, pipe: Connection) -> Progress | Finished | Failed:
    process, unit = running[pipe]
    message: Progress | Finished | Failed
    try:
        message = pipe.recv()
    except (EOFError, OSError):  # the process died without a word: killed, out of memory, a crash in native code
        process.join()
        reason = f"its process ended with exit code {process.exitcode} and no result"
        write_atomically(run.file(unit, "txt"), reason + "\n")
        message = Failed(unit, reason, run.file(unit, "txt"))
    if isinstance(message, Finished | Failed):
        process.join()
        pipe.close()
        del running[pipe]
    return message


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Variables that a process reads when it starts, so they are set before it does."""
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    wanted = {**counts, "PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCHINDUCTOR_DETERMINISTIC": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
