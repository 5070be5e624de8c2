"""Pages made from the catalogue: one per paper, one list per area, and the reference of all modules.

Status, parts and results are read from the files of the project each time, so that no page can be out of date.
"""

import ast
import json
import re
import shutil
import statistics
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import throughline
from throughline.catalog import Paper, areas, papers, public_names
from throughline.data.source import KINDS
from throughline.lab.claim import Claim
from throughline.lab.finding import find_claim

PACKAGE = Path(throughline.__file__).parent
DOCS = Path(__file__).parents[1]
FLOORS = ("core", *throughline.AREAS)  # whose modules hold parts
TOOLS = ("data", "lab")  # packages that are documented as a whole
BADGES = {"held": "success", "refuted": "danger", "not shown": "warning", "incomplete": "secondary"}


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx reads any (an extension's entry point)."""
    app.connect("builder-inited", lambda app: write_pages(Path(app.srcdir)), priority=100)
    app.connect("builder-inited", lambda app: drop_stale_gallery(Path(app.srcdir)), priority=100)
    return {"parallel_read_safe": True}


def write_pages(docs: Path) -> list[Path]:
    """Write every generated page below ``docs``/generated and return their paths; only changed files are touched."""
    generated = docs / "generated"
    pages = {generated / "papers" / f"{entry.slug}.md": paper_page(entry, docs) for entry in papers()}
    pages[generated / "papers" / "index.md"] = papers_index(docs)
    pages |= {generated / "areas" / f"{area}.md": area_table(area, docs) for area in areas()}
    pages[generated / "api" / "index.md"] = reference_index(docs)
    alone = [module for module in part_modules() if module not in owners()]
    pages |= {generated / "api" / f"{module}.md": module_page(module) for module in (*alone, *TOOLS)}
    for folder in {path.parent for path in pages}:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in set(folder.glob("*.md")) - set(pages):
            stale.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return list(pages)


def drop_stale_gallery(docs: Path) -> None:
    """Let the gallery be made afresh when a script is gone, whose page would lie outside of every toctree."""
    made = {page.relative_to(docs / "gallery").with_suffix(".py") for page in (docs / "gallery").rglob("plot_*.rst")}
    if not all((docs / "examples" / script).exists() for script in made):
        shutil.rmtree(docs / "gallery")
        (docs / "sg_execution_times.rst").unlink(missing_ok=True)


def paper_page(entry: Paper, docs: Path) -> str:
    """The page of one paper."""
    results = _results(entry, docs)
    sections = [f"# {entry.title}", _badges(entry, results), entry.offers, _facts(entry)]
    if not (entry.available or entry.has_parts):
        sections += [
            "## What it claims",
            f"> {entry.claim}",
            f"It is in the catalogue and not built yet; `{entry.part_module}` is reserved for its parts. "
            "[How to add a paper](../../add-a-paper.md) says what it takes.",
        ]
        return "\n\n".join(sections) + "\n"
    if (docs / "usage" / f"{entry.slug}.md").exists():
        sections.append(_fence("include", f"../../usage/{entry.slug}.md"))
    sections += ["## Does it hold?", f"> {entry.claim}", *_verdict(entry, results, docs)]
    if entry.available:
        sections += _experiment(find_claim(entry.slug))
    modules = [module for module, owner in owners().items() if owner == entry.slug]
    if scripts := [s for s in (docs / "examples").rglob("plot_*.py") if _imports(s) & {_full(m) for m in modules}]:
        listed = " ".join(path.relative_to(docs).as_posix() for path in sorted(scripts))
        sections += ["## Examples", f"```{{eval-rst}}\n.. minigallery:: {listed}\n```"]
    sections.append("## Reference")
    for module in modules:
        names = ", ".join(public_names(_source(module)))
        line = f"from {_full(module)} import {names}"
        line = line if len(line) <= 88 else f"from {_full(module)} import (\n    {names},\n)".replace(", ", ",\n    ")
        sections += [f"### {module}", f"```python\n{line}\n```", _automodule(module)]
    shared = [m for m in _closure(entry) if m not in modules]
    if shared:
        links = ", ".join(f"[`{_full(m)}`]({_home(m, '..')})" for m in shared)
        sections.append(f"It also uses {links}.")
    return "\n\n".join(sections) + "\n"


def papers_index(docs: Path) -> str:
    """The list of all papers, by area, and the toctree over their pages."""
    built = sum(entry.available for entry in papers())
    lines = [
        "# Papers",
        f"{len(papers())} papers, of which {built} are built: their parts can be imported and their claims run. "
        "The others are waiting for [somebody to build them](../../add-a-paper.md).",
    ]
    for area, about in areas().items():
        lines += [f"## {area.capitalize()}", f"{about[0].upper()}{about[1:]}.", _table(area, docs, "")]
    for caption, ready in (("Built", True), ("Planned", False)):
        entries = "\n".join(f"{entry.slug} <{entry.slug}>" for entry in papers() if entry.available == ready)
        lines.append(f"```{{toctree}}\n:hidden:\n:maxdepth: 1\n:caption: {caption}\n\n{entries}\n```")
    return "\n\n".join(lines) + "\n"


def area_table(area: str, docs: Path) -> str:
    """The papers of one area as a table, to be included by the area's page."""
    return _table(area, docs, "../generated/papers/") + "\n"


def module_page(module: str) -> str:
    """A reference page of its own, for a module or package that no paper's page holds."""
    return f"# {_full(module)}\n\n{_automodule(module)}\n"


def reference_index(docs: Path) -> str:
    """Every public module with its public names, each linked to where it is documented."""
    lines = [
        "# Reference",
        "Every module that you can import, with its public names. A part is documented on the page of the paper that "
        "brought it; tools have a page of their own.",
    ]
    for floor in (*FLOORS, *TOOLS):
        modules = [floor] if floor in TOOLS else [m for m in part_modules() if m.startswith(f"{floor}.")]
        if not modules:
            continue
        lines += [f"## {_full(floor)}", "| module | public names |\n|---|---|"]
        for module in modules:
            names = ", ".join(f"{{py:obj}}`~{_full(module)}.{name}`" for name in public_names(_source(module)))
            lines[-1] += f"\n| [`{module}`]({_home(module, '.')}) | {names} |"
    alone = [module for module in part_modules() if module not in owners()]
    entries = "\n".join(f"{module} <{module}>" for module in (*alone, *TOOLS))
    if (docs / "benchmarks.md").exists():
        lines.append("How fast the parts are beside their peers: [benchmarks](../../benchmarks.md).")
        entries += "\nbenchmarks <../../benchmarks>"
    lines.append(f"```{{toctree}}\n:hidden:\n\n{entries}\n```")
    return "\n\n".join(lines) + "\n"


@cache
def part_modules() -> tuple[str, ...]:
    """Every module of core and the areas that users import from, as ``floor.name``.

    Where one module re-exports all that another one offers, only the first is for users.
    """
    names = {}
    for floor in FLOORS:
        files = (*(PACKAGE / floor).glob("[!_]*.py"), *(p.parent for p in (PACKAGE / floor).glob("[!_]*/__init__.py")))
        found = [f"{floor}.{path.stem}" for path in sorted(files)]
        names |= {module: (floor, set(public_names(_source(module)))) for module in found}
    return tuple(m for m, (floor, own) in names.items() if not any(f == floor and own < o for f, o in names.values()))


@cache
def owners() -> dict[str, str]:
    """Which paper's page documents a module: its own paper's, else that of the first paper that uses it."""
    found = {entry.module: entry.slug for entry in papers() if entry.has_parts}
    for entry in papers():
        for module in _closure(entry):
            found.setdefault(module, entry.slug)
    return found


def _badges(entry: Paper, results: dict[str, Any] | None) -> str:
    if not (entry.available or entry.has_parts):
        return "{bdg-secondary-line}`planned`"
    badges = ["{bdg-primary-line}`parts`"] * entry.has_parts + ["{bdg-primary-line}`claim`"] * entry.available
    if results:
        verdict = results["verdict"]
        badges.append(
            f"{{bdg-{BADGES.get(verdict, 'secondary')}}}`{verdict} at {results.get('scale', 'laptop')} scale`"
        )
    return " ".join(badges)


def _facts(entry: Paper) -> str:
    year, month = entry.date.split("-")
    area = f"[{entry.area}](../../areas/{entry.area}.md)" if entry.area in throughline.AREAS else entry.area
    return f"arXiv [{entry.arxiv}]({entry.url}) ({year}-{month}) · area {area} · slug `{entry.slug}`"


def _verdict(entry: Paper, results: dict[str, Any] | None, docs: Path) -> Iterator[str]:
    if not entry.available:
        yield "The parts are there, the claim is not written yet."
        return
    if results is None:
        yield "Ask your own machine:"
        yield f"```console\n$ throughline run {entry.slug}\n```"
        return
    why = f": {results['why']}" if results.get("why") else ""
    yield f"**{results['verdict'].capitalize()}**{why}."
    if results.get("checks"):
        rows = ["| check | verdict | estimate | interval | seeds |", "|---|---|---|---|---|"]
        for check in results["checks"]:
            interval = f"{_number(check.get('low'), '−∞')} … {_number(check.get('high'), '∞')}"
            seeds = check.get("n", len(check.get("seeds", ())))
            row = (_cell(check["sentence"]), check["verdict"], _number(check.get("estimate")), interval, seeds)
            rows.append("| " + " | ".join(map(str, row)) + " |")
        yield "\n".join(rows)
    if results.get("metrics"):
        yield "Mean ± standard deviation over the seeds:"
        yield _metrics(results["metrics"])
    for picture in sorted((docs / "results").glob(f"{entry.slug}-*.svg")):
        caption = picture.stem.removeprefix(f"{entry.slug}-").replace("-", " ").replace("_", " ").capitalize()
        yield f"```{{figure}} ../../results/{picture.name}\n:alt: {caption}\n\n{caption}\n```"
    yield "The same on your machine:"
    yield f"```console\n$ {results.get('command', f'throughline run {entry.slug}')}\n```"


def _experiment(claim: Claim) -> Iterator[str]:
    rows = ["| arm | what it does |", "|---|---|"]
    for arm, about in claim.about().items():
        role = "baseline" if arm == claim.arms[0] else "no check rests on it" if arm in claim.context else ""
        rows.append(f"| `{arm}`{f' ({role})' if role else ''} | {_cell(about)} |")
    yield "\n".join(rows)
    if claim.quotes:
        rows = ["| the paper's own numbers | | where |", "|---|---|---|"]
        yield "\n".join(rows + ["| " + " | ".join(map(_cell, quote)) + " |" for quote in claim.quotes])
    if claim.notes:
        yield f"**What to know.** {_prose(' '.join(claim.notes.split()))}"
    if claim.accepts:
        kinds = " or ".join(KINDS[kind] for kind in claim.accepts)
        yield f"`--data` puts {kinds} of yours under this claim: [your own data](../../own-data.md)."


def _metrics(metrics: dict[str, dict[str, list[float | None]]]) -> str:
    arms = list(dict.fromkeys(arm for values in metrics.values() for arm in values))
    rows = ["| arm | " + " | ".join(f"`{name}`" for name in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for arm in arms:
        cells = [_spread([v for v in values.get(arm, ()) if v is not None]) for values in metrics.values()]
        rows.append(f"| {_cell(arm)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _spread(values: list[float]) -> str:
    if len(values) < 2:
        return _number(values[0]) if values else "–"
    return f"{_number(statistics.fmean(values))} ± {statistics.stdev(values):.2g}"


def _table(area: str, docs: Path, folder: str) -> str:
    rows = ["| paper | what it offers | status |", "|---|---|---|"]
    for entry in sorted(papers(), key=lambda entry: not entry.available):
        if entry.area == area:
            rows.append(f"| [{entry.slug}]({folder}{entry.slug}.md) | {_cell(entry.offers)} | {_status(entry, docs)} |")
    return "\n".join(rows)


def _status(entry: Paper, docs: Path) -> str:
    if not entry.available:
        return "parts" if entry.has_parts else "planned"
    results = _results(entry, docs)
    return results["verdict"] if results else "built"


def _results(entry: Paper, docs: Path) -> dict[str, Any] | None:
    path = docs / "results" / f"{entry.slug}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


@cache
def _closure(entry: Paper) -> tuple[str, ...]:
    """The part modules that a paper's parts and claim import, directly or not, its own first."""
    found: dict[str, None] = {}
    waiting = [entry.part_module] * entry.has_parts + [entry.claim_module] * entry.available
    seen = set(waiting)
    while waiting:
        module = waiting.pop(0).removeprefix("throughline.")
        if module in part_modules():
            found[module] = None
        for name in sorted(set().union(*map(_imports, _files(module))) - seen):
            parts = name.split(".")
            if parts[0] == "throughline" and len(parts) == 3 and parts[1] in FLOORS and _source(name[12:]).exists():
                seen.add(name)
                waiting.append(name)
    return tuple(found)


def _imports(path: Path) -> set[str]:
    """Modules that a file imports, with ``a.b`` counted for ``from a import b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _files(module: str) -> list[Path]:
    source = _source(module)
    return sorted(source.parent.glob("*.py")) if source.name == "__init__.py" else [source]


def _source(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _home(module: str, api: str) -> str:
    """Where a module is documented, seen from a page in ``generated/papers`` ("..") or ``generated/api`` (".")."""
    if module in owners():
        return f"{owners()[module]}.md" if api == ".." else f"../papers/{owners()[module]}.md"
    return f"../api/{module}.md"


def _automodule(module: str) -> str:
    return f"```{{eval-rst}}\n.. automodule:: {_full(module)}\n```"


def _fence(directive: str, argument: str) -> str:
    return f"```{{{directive}}} {argument}\n```"


def _full(module: str) -> str:
    return f"throughline.{module}"


def _number(value: float | None, infinite: str = "–") -> str:
    return infinite if value is None else f"{value:.4g}".replace("-", "−")


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _prose(text: str) -> str:
    return re.sub(r"([_*<{$~\[])", r"\\\1", text)  # plain words for Markdown to leave as they are


def readme_table(entries: Iterable[Paper] | None = None, docs: Path = DOCS) -> str:
    """The README's list of papers: what is built as a table, with what came of it, and everything by area."""
    entries = tuple(papers() if entries is None else entries)
    rows = ["| paper | what you get | import | its claim |", "|---|---|---|---|"]
    for entry in entries:
        if entry.available:
            found = _results(entry, docs)
            verdict = f"{found['verdict']} ({found['scale']} scale)" if found else "not run yet"
            rows.append(f"| [{entry.slug}]({entry.url}) | {_cell(entry.offers)} | `{entry.part_module}` | {verdict} |")
    rows += ["", "All of the catalogue, by area (**bold**: built):", "", "| area | papers |", "|---|---|"]
    for area in areas():
        names = [f"[{e.slug}]({e.url})" for e in entries if e.area == area and not e.available]
        ready = [f"**[{e.slug}]({e.url})**" for e in entries if e.area == area and e.available]
        rows.append(f"| {area} | {', '.join(ready + names)} |")
    return "\n".join(rows)
