"""Tables of what every architecture of a small space is worth, so that a search can be judged without training.

Tabular benchmarks are the idea of "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search"
(arXiv 2001.00326); a table of one's own space is what "Rethinking Architecture Selection in Differentiable NAS"
(arXiv 2108.04392) is re-run on here.
"""

import itertools
import math
import os
import platform
import string
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Self

import numpy as np
import torch

from throughline.core.checks import integer

__all__ = ["ArchitectureTable"]

Architecture = tuple[str, ...]  # an option for each choice, in order
Evaluate = Callable[[dict[str, str], tuple[int, ...]], Sequence[float]]

DIGITS = string.digits + string.ascii_lowercase  # one for each option
HEADER = "architecture,seed,score"


class ArchitectureTable:
    """Scores of architectures over seeds, higher is better, with the rank and regret of any of them
    (as in arXiv 2001.00326).

    Args:
        options: the options of each choice, by its name, as in ``{name: c.names for name, c in choices(net).items()}``.
        scores: score by seed of each architecture, which is a tuple with an option for each choice.
        versions: what they were made with, one line each.

    Attributes:
        options, scores, versions: as given.

    Raises:
        ValueError: no choices, a choice of no or of more than 36 options, names with spaces, or scores of something
            else.

    >>> scores = {("skip",): {0: 0.5, 1: 0.7}, ("conv",): {0: 0.9}}
    >>> table = ArchitectureTable({"edge": ("skip", "conv")}, scores)
    >>> table.score({"edge": "conv"}), table.rank({"edge": "skip"}), round(table.regret({"edge": "skip"}), 6)
    (0.9, 2, 0.3)
    """

    def __init__(
        self,
        options: Mapping[str, Sequence[str]],
        scores: Mapping[Architecture, Mapping[int, float]],
        *,
        versions: Sequence[str] = (),
    ) -> None:
        self.options = {name: tuple(names) for name, names in options.items()}
        if not self.options:
            raise ValueError("options must hold at least one choice, got none")
        for name, names in self.options.items():
            if any(len(word.split()) != 1 for word in (name, *names)):
                raise ValueError(f"options must have names without spaces, got {name!r}: {names}")
            if not 1 <= len(names) <= len(DIGITS) or len(set(names)) < len(names):
                raise ValueError(
                    f"options must be 1 to {len(DIGITS)} different ones for each choice, got {name}: {names}"
                )
        self.scores = {self._check(architecture): dict(by_seed) for architecture, by_seed in scores.items()}
        self.versions = tuple(versions)

    def __len__(self) -> int:
        """How many architectures have a score."""
        return len(self.scores)

    def __contains__(self, decisions: Mapping[str, str | None]) -> bool:
        return self._key(decisions) in self.scores

    def by_seed(self, decisions: Mapping[str, str | None]) -> dict[int, float]:
        """The scores of an architecture from each seed; none where it has no row."""
        return dict(self.scores.get(self._key(decisions), {}))

    def score(self, decisions: Mapping[str, str | None]) -> float:
        """Mean over seeds of an architecture, given as a selection gives it.

        Raises:
            ValueError: choices or options that are not those of the table, or an architecture without a row.
        """
        return self._mean(self._known(decisions))

    def rank(self, decisions: Mapping[str, str | None]) -> int:
        """1 for the best of the table, one more for each that is better. Errors as of `score`."""
        own = self.score(decisions)
        return 1 + sum(self._mean(other) > own for other in self.scores)

    def regret(self, decisions: Mapping[str, str | None]) -> float:
        """By how much the best score of the table is above this one. Errors as of `score`."""
        own = self.score(decisions)
        return max(map(self._mean, self.scores)) - own

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The table in a file that `build` or `save` wrote.

        Raises:
            FileNotFoundError: there is none.
            ValueError: the file is no such table; the message names the line.
        """
        options: dict[str, tuple[str, ...]] = {}
        versions, rows = [], []
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("# choice "):
                name, *names = line.split()[2:]
                options[name] = tuple(names)
            elif line.startswith("# made with "):
                versions.append(line.removeprefix("# made with "))
            elif line != HEADER:
                rows.append((number, line))
        table = cls(options, {}, versions=versions) if options else None
        for number, line in rows:
            try:
                code, seed, score = line.split(",")
                key = tuple(n[DIGITS.index(d)] for d, n in zip(code, options.values(), strict=True))
                table.scores.setdefault(key, {})[int(seed)] = float(score)  # type: ignore[union-attr]
            except (AttributeError, IndexError, ValueError) as error:
                raise ValueError(
                    f"path must be a table of architectures, got {path} with {line!r} in line {number}"
                ) from error
        if table is None:
            raise ValueError(
                f"path must be a table of architectures, got {path} without a line '# choice NAME OPTIONS'"
            )
        return table

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a CSV of one row for each architecture and seed, all at once or not at all."""
        lines = [f"# choice {name} {' '.join(names)}" for name, names in self.options.items()]
        lines += [f"# made with {version}" for version in self.versions]
        lines.append(HEADER)
        places = [{name: DIGITS[k] for k, name in enumerate(names)} for names in self.options.values()]
        rows = ((("".join(p[o] for p, o in zip(places, a, strict=True))), by) for a, by in self.scores.items())
        for code, by_seed in sorted(rows):
            lines += [f"{code},{seed},{score:.6g}" for seed, score in sorted(by_seed.items())]
        target = Path(path)
        draft = target.with_name(f"{target.name}.{os.getpid()}.part")
        draft.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(draft, target)

    @classmethod
    def build(
        cls,
        path: str | os.PathLike[str],
        names: Mapping[str, Sequence[str]],
        evaluate: Evaluate,
        seeds: Sequence[int] = (0, 1, 2),
        workers: int = 1,
        *,
        on_row: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Score all architectures of a space, and write each as soon as it is known.

        What the file holds already is not computed again, so that a table that was interrupted is finished by the same
        call.

        Args:
            path: of the CSV file.
            names: the options of each choice, by its name.
            evaluate: ``evaluate(decisions, seeds)`` gives a score for each of these seeds, higher is better. It is
                asked for one architecture at a time and for all its missing seeds at once, which may be trained
                together. With several workers it must be picklable.
            seeds: of each architecture.
            workers: processes, which share the processors' threads evenly.
            on_row: called after each architecture with how many are done and how many there are.

        Returns:
            The table.

        Raises:
            ValueError: a file of another space; no seeds, one twice, or no workers; ``evaluate`` returns another number
                of scores, or one that is not finite.
        """
        if integer("workers", workers) < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds must be at least one, and none of them twice, got {tuple(seeds)}")
        table = cls.load(path) if Path(path).exists() else cls(names, {})
        if list(table.options.items()) != [(name, tuple(options)) for name, options in names.items()]:
            raise ValueError(f"path must hold a table of the choices {dict(names)}, got {path} with {table.options}")
        made_with = f"Python {platform.python_version()}, NumPy {np.__version__}, PyTorch {torch.__version__}"
        wanted = {
            key: missing
            for key in itertools.product(*table.options.values())
            if (missing := tuple(seed for seed in seeds if seed not in table.scores.get(key, {})))
        }
        total = math.prod(map(len, table.options.values()))

        def keep(key: Architecture, found: Sequence[float]) -> None:
            if len(found) != len(wanted[key]) or not all(map(math.isfinite, found)):
                raise ValueError(
                    f"evaluate must return a finite number for each of {len(wanted[key])} seeds, got {found!r}"
                )
            table.scores.setdefault(key, {}).update(zip(wanted[key], map(float, found), strict=True))
            table.versions = tuple(dict.fromkeys((*table.versions, made_with)))
            table.save(path)
            del wanted[key]
            if on_row is not None:
                on_row(total - len(wanted), total)

        def decisions(key: Architecture) -> dict[str, str]:
            return dict(zip(table.options, key, strict=True))

        if workers == 1:
            for key, missing in list(wanted.items()):
                keep(key, evaluate(decisions(key), missing))
            return table
        threads = max(1, (os.cpu_count() or 1) // workers)
        pool = ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (threads,))
        with pool:
            running = {pool.submit(evaluate, decisions(key), missing): key for key, missing in wanted.items()}
            try:
                for future in as_completed(running):
                    keep(running[future], future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return table

    def _mean(self, architecture: Architecture) -> float:
        return math.fsum(self.scores[architecture].values()) / len(self.scores[architecture])

    def _known(self, decisions: Mapping[str, str | None]) -> Architecture:
        key = self._key(decisions)
        if key not in self.scores:
            raise ValueError(
                f"decisions must be of an architecture in the table, got {dict(decisions)}, which has no row"
            )
        return key

    def _key(self, decisions: Mapping[str, str | None]) -> Architecture:
        if set(decisions) != set(self.options):
            raise ValueError(f"decisions must be for the choices {', '.join(self.options)}, got {', '.join(decisions)}")
        return self._check(tuple(decisions[name] for name in self.options))

    def _check(self, architecture: tuple[str | None, ...]) -> Architecture:
        """The architecture, which must have an option of each choice."""
        if len(architecture) != len(self.options):
            raise ValueError(f"scores must be of {len(self.options)} options each, got {architecture}")
        for option, (name, names) in zip(architecture, self.options.items(), strict=True):
            if option not in names:
                raise ValueError(f"decisions must be among {', '.join(names)} for {name}, got {option!r}")
        return architecture  # type: ignore[return-value]
