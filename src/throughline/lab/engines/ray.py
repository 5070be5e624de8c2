"""Computes units on a Ray cluster: a task each, whose worker needs nothing of this machine's disk.

A worker computes a unit with the local engine, in a process and a folder of its own, and sends back what comes out;
only this machine, the driver, writes the run's folder. What happens on the way is put into a mailbox, an actor beside
the driver. The user's own files, and the sources of a claim of their own, go through Ray's object store.
"""

import os
import pickle
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from throughline.data import Source
from throughline.data.shipping import pack
from throughline.errors import ThroughlineError
from throughline.lab.claim import Claim, require
from throughline.lab.config import check_device
from throughline.lab.engines import Event
from throughline.lab.engines.local import cores
from throughline.lab.engines.worker import Answer, keep
from throughline.lab.finding import own_sources
from throughline.lab.store import Run, Unit, write_atomically
from throughline.lab.unit import Failed, Finished, Lost

__all__ = ["Cluster", "connect"]

INTERVAL = 0.25  # seconds between two looks into the mailbox
AGAIN = 3  # times that a unit is run again when its worker is lost
REST = 5.0  # seconds before the first of them, twice as many before the next: a cluster is slow to see a node's death
PATIENCE = 10.0  # seconds in which the port of a cluster must answer


class Disconnected(ThroughlineError):
    """The cluster went away in the middle of a run; what had come back is kept."""

    exit_code = 3


@contextmanager
def connect(address: str | None, jobs: int | None = None, *, say: Callable[[str], None]) -> Iterator["Cluster"]:
    """The cluster at ``host:port`` or ``ray://host:port``, by default that of ``RAY_ADDRESS``, else one started here.

    Args:
        jobs: the most units at once; by default all are handed over, and wait there.
        say: is told where the units run, and why they might have to wait.

    Raises:
        ThroughlineError: Ray is not installed, or no cluster answers.
    """
    ray = require("ray", extra="cluster")
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"address": where, "log_to_driver": False, "logging_level": "ERROR"}
    if where == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of one command has nothing to report
        options |= {"num_cpus": cores(), "include_dashboard": False}
    _knock(where)
    try:
        ray.init(**options)
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        raise ThroughlineError(
            f"--engine: cannot join the Ray cluster {where}: {' '.join(str(error).split())}"
        ) from None
    # Ray would tell of a node that dies on standard output, which is the verdict's, and JSON's; here an event does
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield Cluster(ray, jobs, say, started=where == "local")
    finally:
        ray.shutdown()


class Cluster:
    """The `throughline.lab.engines.Engine` of a Ray cluster that this process is connected to."""

    def __init__(self, ray: ModuleType, jobs: int | None, say: Callable[[str], None], *, started: bool) -> None:
        self.ray, self.jobs, self.say, self.started = ray, jobs, say, started
        self.shipped: dict[Source, list[Any]] = {}  # a reference to the files, or nothing for a registry key
        nodes = self._nodes()
        count = sum(int(node.get("CPU", 0)) for node in nodes)
        say(f"on a Ray cluster of {len(nodes)} node{'s' * (len(nodes) > 1)} with {count} cores")

    def room(self, config: Any, threads: int) -> int:
        device = getattr(config, "device", "cpu")
        if self.started:
            check_device(config)
        self._ship(getattr(config, "data", None))
        needs = {"CPU": threads, "GPU": _gpus(device)}
        room = sum(min(int(node.get(name, 0) // n) for name, n in needs.items() if n) for node in self._nodes())
        if not room:
            wanted = " and ".join(f"{n} {name}" for name, n in needs.items() if n)
            if self.started:
                raise ThroughlineError(f"a unit needs {wanted}, which this machine has not; try fewer --threads")
            self.say(f"no node of the cluster has {wanted}: units wait until one joins")
        return max(1, min(room, self.jobs or room))

    def compute(self, claim: Claim, run: Run, units: Sequence[Unit]) -> Generator[Event]:
        ray = self.ray
        if not units:
            return
        data = run.manifest["config"].get("data")
        files = self._ship(data and Source(**data))
        task, mailbox = _task(ray), _mailbox(ray)
        needs = {"num_cpus": run.manifest["threads"], "num_gpus": _gpus(run.manifest["config"].get("device", "cpu"))}
        root, sources = own_sources(claim)
        code = [ray.put({path.relative_to(root).as_posix(): path.read_bytes() for path in sources})] if sources else []
        pickled = pickle.dumps(claim)
        waiting = dict.fromkeys(units, 0.0)  # until when
        flying: dict[Any, Unit] = {}
        tries = Counter[Unit]()
        try:
            while waiting or flying:
                ready = [unit for unit, until in waiting.items() if until <= time.monotonic()]
                for unit in ready[: (self.jobs or len(units)) - len(flying)]:
                    del waiting[unit]
                    tries[unit] += 1
                    call = task.options(name=f"{run.paper} {unit.name}", **needs)
                    flying[call.remote(pickled, run.manifest, tuple(unit), tries[unit], files, code, mailbox)] = unit
                done = []
                if flying:
                    done, _ = ray.wait(list(flying), timeout=INTERVAL)
                else:
                    time.sleep(INTERVAL)
                for letter in ray.get(mailbox.take.remote()):
                    attempt, event = pickle.loads(letter)
                    if attempt == tries[event.unit]:  # and not of a node that was given up, and lives
                        yield event
                for ref in done:
                    event = self._receive(run, ref, flying.pop(ref), tries)
                    if isinstance(event, Lost):
                        waiting[event.unit] = time.monotonic() + REST * 2 ** (tries[event.unit] - 1)
                    yield event
        except ConnectionError as error:
            flying.clear()
            raise Disconnected(f"the cluster is gone ({error}); the same command goes on from here") from None
        finally:
            for ref in flying:
                ray.cancel(ref, force=True)

    def _receive(self, run: Run, ref: Any, unit: Unit, tries: Mapping[Unit, int]) -> Lost | Finished | Failed:
        errors = self.ray.exceptions
        file = run.file(unit, "txt")
        try:
            answer = self.ray.get(ref)
        except errors.RayTaskError as error:  # not the unit itself, but what surrounds it
            write_atomically(file, _plain(error))
            cause = error.cause
            reason = str(cause) if isinstance(cause, ThroughlineError) else f"{type(cause).__name__}: {cause}"
            return Failed(unit, " ".join(reason.split()), file)
        except errors.RayError as error:
            lost = f"lost with its worker ({type(error).__name__})"
            if tries[unit] <= AGAIN:
                return Lost(unit, f"{lost}; it is run again, {tries[unit]} of at most {AGAIN} times")
            write_atomically(file, _plain(error))
            return Failed(unit, f"{lost} {tries[unit]} times", file)
        if not isinstance(answer, Answer):
            raise ThroughlineError(_refusal(*answer, ours=run.manifest["versions"]))
        return keep(run, answer)

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _ship(self, source: Source | None) -> list[Any]:
        if source is None:
            return []
        if source not in self.shipped:
            files = pack(source)
            self.shipped[source] = [] if files is None else [self.ray.put(files)]
        return self.shipped[source]


def _task(ray: ModuleType) -> Any:
    """A unit's task; Ray sends its code along, so that it runs where our modules are others, or none."""

    def task(
        claim: bytes,
        manifest: dict[str, Any],
        unit: tuple[str, int],
        attempt: int,
        files: list[Any],
        code: list[Any],
        mailbox: Any,
    ) -> Any:
        import sys

        import ray

        try:
            from throughline.lab.store import code_version

            versions = code_version()
        except ImportError:
            versions = {}
        if versions != {name: found for name, found in manifest["versions"].items() if name != "claim"}:
            return socket.gethostname(), versions
        from throughline.lab.engines.worker import answer
        from throughline.lab.store import Unit

        vars(sys.modules["__main__"])["__file__"] = None  # Ray's own: a process that is spawned would import it again
        return answer(
            claim,
            manifest,
            Unit(*unit),
            send=lambda event: ray.get(mailbox.put.remote(pickle.dumps((attempt, event)))),
            content=(lambda: ray.get(files[0])) if files else None,
            code=ray.get(code[0]) if code else {},
        )

    return ray.remote(max_retries=0)(task)


def _mailbox(ray: ModuleType) -> Any:
    """An actor on the driver's node, which a lost node cannot take along; it comes back empty if it is killed."""

    class Mailbox:
        def __init__(self) -> None:
            self.letters: list[bytes] = []

        def put(self, letter: bytes) -> None:
            self.letters.append(letter)

        def take(self) -> list[bytes]:
            letters, self.letters = self.letters, []
            return letters

    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), False)
    return ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1, scheduling_strategy=here)(Mailbox).remote()


def _refusal(worker: str, theirs: Mapping[str, str], *, ours: Mapping[str, str]) -> str:
    if not theirs:
        return f"worker {worker} has no Throughline; install version {ours['throughline']} of it there"
    compared = [name for name in {**ours, **theirs} if name != "claim"]  # whose sources are sent along
    other = [name for name in compared if ours.get(name) != theirs.get(name)]
    found = ", ".join(f"{name} {theirs.get(name, 'none')} instead of {ours.get(name, 'none')}" for name in other)
    return f"worker {worker} has {found}; give it the versions of this machine, which `throughline doctor` prints"


def _plain(error: Exception) -> str:
    return re.sub(r"\x1b\[[\d;]*m", "", f"{error}\n")  # without the colours that Ray gives it


def _gpus(device: str) -> int:
    kind, _, index = device.partition(":")
    if kind in ("cpu", "mps"):
        return 0
    if index not in ("", "0"):
        raise ThroughlineError(f"device={device}: on a cluster a unit sees its own GPU alone; --set device={kind}")
    return 1


def _knock(where: str) -> None:
    """Ask a port before Ray does, which waits for minutes."""
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise ThroughlineError(
            f"--engine: no Ray cluster answers at {where} ({error}); `ray start --head` starts one"
        ) from None
