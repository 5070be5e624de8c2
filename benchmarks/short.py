"""A claim of short units, which workers of a cluster can import: what `benchmarks.engines` runs."""

import time
from dataclasses import dataclass

from throughline.lab import Beats, Claim, Log

__all__ = ["Config", "Short"]


@dataclass(frozen=True)
class Config:
    seconds: float = 0.1


class Short(Claim):
    """A unit takes as long as it is told."""

    paper = "groco"  # any paper of the catalogue will do
    arms = ("busy",)
    checks = (Beats("x", "busy", over="busy"),)
    scales = {"laptop": Config()}

    def run(self, arm: str, config: Config, seed: int, log: Log) -> dict[str, float]:
        end = time.perf_counter() + config.seconds
        while time.perf_counter() < end:
            pass
        return {"x": 0.0}
