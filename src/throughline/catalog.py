"""The catalogue: which papers and claims there are, read from ``papers.toml`` without importing anything heavy."""

import ast
import difflib
import os
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from throughline.errors import ThroughlineError

__all__ = [
    "Paper",
    "areas",
    "canonical",
    "installed_claims",
    "is_path",
    "owner",
    "paper",
    "papers",
    "public_names",
    "search",
    "slugs",
]

GROUP = "throughline.claims"  # of the entry points by which installed packages declare claims of their own
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Paper:
    """One paper of the catalogue; whether it is built is derived from the files of the package.

    >>> paper("anyloss").url
    'https://arxiv.org/abs/2405.14745'
    """

    slug: str
    title: str
    arxiv: str
    date: str  # year and month, "2024-05"
    area: str
    module: str  # the area module of its parts below ``throughline``, "discrete.confusion"
    offers: str  # one sentence: what a practitioner gets
    claim: str  # one sentence: the headline claim
    extra: str | None = None  # what its claim needs beside the package itself at laptop scale

    @property
    def url(self) -> str:
        """The abstract on arXiv."""
        return f"https://arxiv.org/abs/{self.arxiv}"

    @property
    def part_module(self) -> str:
        """The module that holds its parts, ``throughline.<area>.<mechanism>``."""
        return f"throughline.{self.module}"

    @property
    def claim_module(self) -> str:
        """The package that holds its claim, ``throughline.claims.<slug with underscores>``."""
        return f"throughline.claims.{self.slug.replace('-', '_')}"

    @property
    def available(self) -> bool:
        """Whether its claim can be run, that is, whether its ``claim.py`` exists."""
        return _source(f"{self.claim_module}.claim") is not None

    @property
    def has_parts(self) -> bool:
        """Whether its parts can be imported, that is, whether the area module exists."""
        return _source(self.part_module) is not None

    @property
    def parts(self) -> tuple[str, ...]:
        """The public names of its area module, read from the source; empty while there is none."""
        source = _source(self.part_module)
        return public_names(source) if source else ()


@cache
def papers() -> tuple[Paper, ...]:
    """Every paper of the catalogue, in the order of ``papers.toml``."""
    return tuple(Paper(**row) for row in _catalogue()["paper"])


@cache
def areas() -> dict[str, str]:
    """The areas in catalogue order, each with one line of what it is about."""
    return dict(_catalogue()["areas"])


def paper(slug: str) -> Paper:
    """The paper called ``slug``.

    Args:
        slug: as in the catalogue; case and underscores for hyphens do not matter.

    Raises:
        ThroughlineError: there is no such paper; the message names the nearest ones.

    >>> paper("grco")
    Traceback (most recent call last):
    ...
    throughline.errors.ThroughlineError: unknown paper 'grco'; did you mean groco?
    """
    wanted = slug.strip().lower().replace("_", "-")
    by_slug = {entry.slug: entry for entry in papers()}
    if wanted in by_slug:
        return by_slug[wanted]
    near = difflib.get_close_matches(wanted, by_slug, n=3, cutoff=0.7) or [entry.slug for entry in search(slug)[:3]]
    hint = f"did you mean {' or '.join(near)}?" if near else "`throughline list` prints all of them"
    raise ThroughlineError(f"unknown paper {slug!r}; {hint}")


def slugs() -> set[str]:
    """The names of all papers."""
    return {entry.slug for entry in papers()}


def canonical(name: str) -> str:
    """What `throughline.lab.find_claim` takes: ``name`` itself, a paper's spelling mended; nothing is imported.

    Raises:
        ThroughlineError: neither a paper nor an installed claim has that name.

    >>> canonical("Bo_Rep"), canonical("./my_idea")
    ('bo-rep', './my_idea')
    """
    if is_path(name) or ":" in name:
        return name
    if name in (found := installed_claims()):
        if name in slugs():
            whose = " and ".join(owner(point) for point in found[name])
            raise ThroughlineError(f"{name} is a paper of the catalogue and a claim of {whose}; uninstall that one")
        return name
    try:
        return paper(name).slug
    except ThroughlineError as error:
        here = next((path for path in (name, f"{name}.py") if name and Path(path).exists()), None)
        if here is None:
            raise
        raise ThroughlineError(f"{error}; for the claim that lies here, write ./{here}") from None


def installed_claims() -> dict[str, list[EntryPoint]]:
    """The entry points of installed packages by name; a name that two packages declare has two."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        if point not in found.setdefault(point.name, []):
            found[point.name].append(point)
    return found


def owner(point: EntryPoint) -> str:
    """The package that declares an entry point, and what it points to."""
    return f"{point.dist.name if point.dist else 'a package'} ({point.value})"


def is_path(name: str) -> bool:
    """Whether ``name`` means a file or folder."""
    return os.sep in name or name.endswith(".py") or name in (".", "..")


def search(text: str = "", area: str | None = None) -> tuple[Paper, ...]:
    """The papers of ``area`` in which every word of ``text`` occurs somewhere, in catalogue order.

    Args:
        text: words to look for in slug, title, arXiv id, date, module and both sentences; empty finds everything.
        area: only papers of this area; None for all.

    Raises:
        ThroughlineError: there is no such area.

    >>> [entry.slug for entry in search("differentiable sort")]
    ['groco']
    """
    if area is not None and area not in areas():
        near = difflib.get_close_matches(area.lower(), areas(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(areas())}"
        raise ThroughlineError(f"unknown area {area!r}; {hint}")
    words = text.lower().split()
    found = (entry for entry in papers() if area in (None, entry.area))
    return tuple(entry for entry in found if all(word in _haystack(entry) for word in words))


def public_names(source: Path) -> tuple[str, ...]:
    """What a module's source file lists in ``__all__``; empty when it lists nothing."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return tuple(ast.literal_eval(node.value))
    return ()


@cache
def _catalogue() -> dict[str, Any]:
    return tomllib.loads((PACKAGE / "papers.toml").read_text(encoding="utf-8"))


@cache
def _haystack(entry: Paper) -> str:
    fields = (entry.slug, entry.title, entry.arxiv, entry.date, entry.module, entry.offers, entry.claim)
    return " ".join(fields).lower()


def _source(module: str) -> Path | None:
    path = PACKAGE.joinpath(*module.split(".")[1:])  # as a file: the import system would load the parent, and torch
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)
