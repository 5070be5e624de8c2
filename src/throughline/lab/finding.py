"""Finds claims: ours by their papers, anyone's by a path, by ``package.module:Class`` or by the name of an entry point.

A claim of one's own is imported as Python itself would import it from the folder that it lies in, so that the processes
of its units find it too. Results depend on the content of its source files, see `source_version`.
"""

import ast
import dataclasses
import hashlib
import importlib
import inspect
import keyword
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from throughline.catalog import canonical, installed_claims, is_path, owner, paper, slugs
from throughline.errors import ThroughlineError
from throughline.lab.claim import Claim

__all__ = ["find_claim", "own_sources", "source_version"]

NEEDED = ("paper", "arms", "checks", "scales")
SCALES = ("smoke", "laptop", "paper")


def find_claim(name: str) -> Claim:
    """The claim called ``name``.

    Args:
        name: a paper of the catalogue (``groco``); a file or folder (``./my_idea.py``, ``./my_idea``);
            ``package.module:Class``, looked up from the current folder too; or the name of an entry point of the group
            ``throughline.claims``, which an installed package declares.

    Raises:
        ThroughlineError: there is none of that name, it cannot be imported, or what is found there is not one claim.
    """
    name = canonical(name)
    if is_path(name):
        return _of_path(name)
    if ":" in name:
        return _of_class(name)
    return _of_paper(name) if name in slugs() else _of_entry_point(name)


def own_sources(claim: Claim) -> tuple[Path, tuple[Path, ...]]:
    """The folder that a claim is imported from, and the source files below it that are the claim's; none for ours.

    They are all of its package, tests apart, or its file, and whatever of the same folder one of these imports.
    """
    module = type(claim).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    if module.partition(".")[0] == "throughline" or file is None:
        return Path(), ()
    path = Path(file)
    root = path.parents[module.count(".") + (path.name == "__init__.py")]
    todo = list(_files(root / module.partition(".")[0]) or [path])
    if root in (Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib", "stdlib")):
        return root, tuple(sorted(todo))
    found: set[Path] = set()
    while todo:
        source = todo.pop()
        if source not in found:
            found.add(source)
            for name in _imported(source):
                todo += _files(root / name) or [p for p in [root / f"{name}.py"] if p.is_file()]
    return root, tuple(sorted(found))


def source_version(claim: Claim) -> dict[str, str]:
    """A hash of the claim's own source files, beside `code_version`; empty for ours, which that one covers."""
    root, files = own_sources(claim)
    content = hashlib.sha256()
    for path in files:
        content.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return {"claim": content.hexdigest()[:16]} if files else {}


def _of_paper(slug: str) -> Claim:
    entry = paper(slug)
    if not entry.available:
        raise ThroughlineError(f"{slug} is in the catalogue but its claim is not written yet; see `throughline list`")
    module = importlib.import_module(entry.claim_module)
    own = [found for found in _claims(module) if getattr(found, "paper", None) == entry.slug]
    if len(own) != 1:
        names = ", ".join(found.__name__ for found in own) or "none"
        raise TypeError(f"{entry.claim_module} must hand out one Claim whose paper is {entry.slug!r}, got {names}")
    return own[0]()


def _of_path(name: str) -> Claim:
    path = Path(os.path.abspath(Path(name).expanduser()))
    if path.is_dir() and not (path / "__init__.py").is_file():
        raise ThroughlineError(f"{name}: no claim here; a folder hands out its class in __init__.py, which is missing")
    if not path.exists():
        raise ThroughlineError(f"{name}: no such file or folder; `throughline new` writes a claim to start from")
    if path.is_file() and path.suffix != ".py":
        raise ThroughlineError(f"{name}: a claim is a folder or a .py file")
    module, root = path.stem if path.is_file() else path.name, path.parent
    while (root / "__init__.py").is_file():
        module, root = f"{root.name}.{module}", root.parent
    for part in module.split("."):
        if not part.isidentifier() or keyword.iskeyword(part):
            better = re.sub(r"\W", "_", part)
            hint = f", such as {better}" if better.isidentifier() and not keyword.iskeyword(better) else ""
            raise ThroughlineError(f"{name}: Python cannot import the name {part!r}; give it another one{hint}")
    if str(root) not in sys.path:
        sys.path.append(str(root))
    importlib.invalidate_caches()
    with _importing(name, root):
        loaded = importlib.import_module(module)
    file = Path(loaded.__file__ or "")
    if not file.exists() or not file.samefile(path if path.is_file() else path / "__init__.py"):
        raise ThroughlineError(
            f"{name}: Python has another module of the name {module}, {file}; give yours another name"
        )
    return _only(_claims(loaded), name, str(path))


def _of_class(name: str) -> Claim:
    module, _, names = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    with _importing(name, Path(os.getcwd())):
        found: Any = importlib.import_module(module)
        for attribute in names.split("."):
            found = getattr(found, attribute)
    return _only([found] if _is_claim(found) else [], name, name)


def _of_entry_point(name: str) -> Claim:
    points = installed_claims()[name]
    if len(points) > 1:
        raise ThroughlineError(f"{name} is a claim of {' and of '.join(map(owner, points))}; uninstall one of them")
    where = f"{name}, of {owner(points[0])}"
    with _importing(where, Path(sysconfig.get_path("purelib"))):
        found = points[0].load()
    claim = _only([found] if _is_claim(found) else [], where, name)
    if claim.paper != name:
        raise ThroughlineError(f"{where}: its class calls itself {claim.paper!r}; both must be one name")
    return claim


def _only(classes: list[type[Claim]], where: str, origin: str) -> Claim:
    """An instance of the only class, if a claim of that kind can be run and filed."""
    if len(classes) != 1:
        names = ", ".join(sorted(found.__name__ for found in classes))
        first = f"{classes[0].__module__}:{classes[0].__name__}" if classes else ""
        many = f"{names}; say which, such as {first}" if classes else "none"
        raise ThroughlineError(f"{where}: one class that extends throughline.lab.Claim is wanted, got {many}")
    found = classes[0]
    lacking = [name for name in NEEDED if not getattr(found, name, None)]
    if found.run is Claim.run:
        lacking.append("run")
    if lacking:
        raise ThroughlineError(f"{where}: {found.__name__} lacks {', '.join(lacking)}")
    if not isinstance(found.paper, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", found.paper):
        raise ThroughlineError(
            f"{where}: paper is the name that runs are filed under, small letters, digits and hyphens, got "
            f"{found.paper!r}"
        )
    if found.paper in slugs():
        raise ThroughlineError(f"{where}: {found.paper!r} is the name of a paper of the catalogue; choose another one")
    if unknown := set(found.scales) - set(SCALES):
        raise ThroughlineError(f"{where}: scales are {', '.join(SCALES)}, got {', '.join(sorted(unknown))}")
    if absent := {arm for check in found.checks for arm in check.arms} - {*found.arms, *found.context}:
        raise ThroughlineError(f"{where}: a check compares {', '.join(sorted(absent))}, which is none of the arms")
    for arm in (*found.arms, *found.context):
        if not re.fullmatch(r"\w[\w.+-]*", arm):
            raise ThroughlineError(f"{where}: an arm's name is of letters, digits and _.+-, got {arm!r}")
    for scale, config in found.scales.items():
        fields = {field.name for field in dataclasses.fields(config)} if dataclasses.is_dataclass(config) else None
        if fields is None or isinstance(config, type):
            raise ThroughlineError(f"{where}: scales[{scale!r}] wants a frozen dataclass's instance, got {config!r}")
        if found.accepts and "data" not in fields:
            raise ThroughlineError(f"{where}: to take --data, the config needs a field data: Source | None = None")
    claim = found()
    claim.origin = origin
    return claim


def _claims(module: ModuleType) -> list[type[Claim]]:
    """The claims that a module hands out: all of its own, and no class that it has imported from elsewhere."""
    package = module.__name__.partition(".")[0]
    found = [value for value in vars(module).values() if _is_claim(value)]
    ours = [value for value in found if value.__module__.partition(".")[0] == package]
    return list(dict.fromkeys(ours if package != "throughline" else found))


def _is_claim(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, Claim) and value is not Claim


@contextmanager
def _importing(what: str, root: Path) -> Iterator[None]:
    """Whatever a stranger's module raises as it is imported becomes one line that names the place."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
        if isinstance(error, SyntaxError):
            frames.append((error.filename or "", error.lineno))
        mine = [f"{os.path.relpath(file)}, line {line}" for file, line in frames if Path(file).is_relative_to(root)]
        reason = error.msg if isinstance(error, SyntaxError) else f"{type(error).__name__}: {error}"
        where = f"{mine[-1]}: " if mine else ""
        raise ThroughlineError(f"{what}: it cannot be imported: {where}{' '.join(reason.split())}") from None


def _files(package: Path) -> list[Path]:
    """The modules of a package, tests apart; none where there is no package."""
    if not (package / "__init__.py").is_file():
        return []
    return [path for path in package.rglob("*.py") if not re.fullmatch(r"test_.*|.*_test|conftest", path.stem)]


def _imported(source: Path) -> set[str]:
    """The top-level names of what a source file imports, wherever in it."""
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names
