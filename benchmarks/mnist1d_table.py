"""Builds the table that the claims about architecture search look their architectures up in: all 729 of `cells_1d`.

``python -m benchmarks.mnist1d_table --workers 2`` trains each of them on MNIST-1D from three seeds, side by side, and
goes on where it was stopped.
"""

import argparse
import time
from functools import partial
from pathlib import Path

from throughline.claims.shared.cells.laptop import mnist1d_rows
from throughline.claims.shared.cells.training import accuracies
from throughline.claims.shared.cells.truth import TABLE, TABULATED
from throughline.search.spaces import cells_1d
from throughline.search.supernet import choices
from throughline.search.tabular import ArchitectureTable


def score(decisions: dict[str, str], seeds: tuple[int, ...]) -> list[float]:
    """Test accuracy of an architecture from each seed."""
    train, test, classes = mnist1d_rows(TABULATED.samples)
    build = partial(cells_1d, TABULATED.final_channels, classes, decisions=decisions)
    return accuracies(build, train, test, TABULATED, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--file", type=Path, default=TABLE)
    options = parser.parse_args()
    began = time.monotonic()

    def told(done: int, every: int) -> None:
        print(f"{done} of {every} architectures, {time.monotonic() - began:.0f} s", flush=True)

    names = {name: choice.names for name, choice in choices(cells_1d()).items()}
    seeds = range(TABULATED.retrainings)
    ArchitectureTable.build(options.file, names, score, tuple(seeds), options.workers, on_row=told)


if __name__ == "__main__":
    main()
