"""Where units are computed: on this machine (`local`) or on a Ray cluster (`ray`).

Units go in and events come out; whoever stores, judges, shows or resumes a run does not know which engine it was.
"""

import re
from collections.abc import Generator, Sequence
from typing import Any, Protocol

from throughline.errors import ThroughlineError
from throughline.lab.claim import Claim
from throughline.lab.extras import how_to_install, missing
from throughline.lab.store import Run, Unit
from throughline.lab.unit import Failed, Finished, Lost, Progress, Started

__all__ = ["LOCAL", "Engine", "Event", "check_engine"]

LOCAL = "local"
ADDRESS = re.compile(r"(ray://)?([\w.-]+|\[[0-9a-fA-F:.]+\]):\d{1,5}")

Event = Started | Progress | Lost | Finished | Failed


class Engine(Protocol):
    """Computes units of runs."""

    def room(self, config: Any, threads: int) -> int:
        """How many units of ``config`` with ``threads`` each are computed at once, as far as can be told.

        Raises:
            ThroughlineError: none ever will be; says why.
        """

    def compute(self, claim: Claim, run: Run, units: Sequence[Unit]) -> Generator[Event]:
        """Compute ``units`` of ``run``, store the result of each in its folder, and say what happens as it happens.

        A unit that fails is reported, and the others go on. Closing the generator ends what still runs.
        """


def check_engine(name: str) -> None:
    """Refuse what `--engine` does not take, and a cluster when the package for it is not installed.

    >>> for name in ("local", "ray", "ray://head.example.org:10001", "10.0.0.7:6379"):
    ...     check_engine(name)

    Raises:
        ThroughlineError: says what is wanted, or how to install it.
    """
    if name == LOCAL:
        return
    if name != "ray" and not ADDRESS.fullmatch(name):
        raise ThroughlineError(f"--engine wants local, ray, ray://host:port or host:port, got {name!r}")
    lacking = missing("cluster")
    if lacking:
        raise ThroughlineError(
            f"--engine {name}: not installed: {', '.join(lacking)}; {how_to_install(lacking, 'cluster')}"
        )
