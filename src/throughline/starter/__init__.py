"""Writes the claim that somebody's own begins with: it runs at once, and its comments say what to change."""

import keyword
import re
import sys
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from throughline.catalog import slugs
from throughline.errors import ThroughlineError

__all__ = ["write_starter"]

FOLDER = ("__init__.py", "claim.py", "config.py", "data.py", "figures.py", "training.py")


def write_starter(name: str, where: Path, *, single_file: bool = False) -> tuple[Path, ...]:
    """Write a claim and its test below ``where``, as a package or as one file, and return the files.

    Args:
        name: words of small letters and digits, joined by hyphens, which is what runs will be filed under.
        where: an existing folder.
        single_file: ``my_idea.py`` and ``test_my_idea.py`` in the place of the folder ``my_idea``.

    Raises:
        ThroughlineError: ``name`` is of another form, or taken, or a file that would be written is already there.
    """
    slug = name.strip().replace("_", "-")
    module = slug.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", slug):
        raise ThroughlineError(f"a name is words of small letters and digits, joined by hyphens, got {name!r}")
    if slug in slugs():
        raise ThroughlineError(f"{slug} is the name of a paper of the catalogue; choose another one")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module == "throughline":
        raise ThroughlineError(f"{slug}: Python has a use for the name {module} already; choose another one")
    if single_file:
        wanted = {where / f"{module}.py": "single.py", where / f"test_{module}.py": "test.py"}
    else:
        wanted = {where / module / file: file for file in FOLDER}
        wanted[where / module / f"test_{module}.py"] = "test.py"
    present = [path for path in ({path.parent for path in wanted} - {where} or wanted) if path.exists()]
    if present:
        raise ThroughlineError(f"{present[0]} is already there; choose another name, or move it away")
    names = {"slug": slug, "module": module, "words": slug.replace("-", " "), "single": single_file}
    names["class_name"] = "".join(word.capitalize() for word in slug.split("-"))
    templates = Environment(
        loader=PackageLoader("throughline.starter"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for path, template in wanted.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(templates.get_template(f"{template}.jinja").render(names), encoding="utf-8")
    return tuple(wanted)
