"""The documentation without a build: pages complete and reachable, links and commands right, gallery scripts run."""

import importlib
import importlib.util
import inspect
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from tests.contract.table import NOT_PARTS
from tests.docs.gallery import drawn
from tests.test_snippets import blocks, commands

import throughline
from throughline import catalog
from throughline.catalog import is_path
from throughline.cli import main
from throughline.lab.config import override
from throughline.lab.finding import find_claim
from throughline.session import parse_seeds

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOT_SOURCES = ("_build", "generated", "gallery")
SOURCES = sorted(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in NOT_SOURCES)
PAGES = [p for p in SOURCES if p.relative_to(DOCS).parts[0] not in ("usage", "results")]  # those two are included
SCRIPTS = sorted((DOCS / "examples").rglob("plot_*.py"))
READY = [entry for entry in catalog.papers() if entry.available]


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


extension = load(DOCS / "_ext" / "papers.py")
verdicts = load(DOCS / "_ext" / "verdicts.py")
PARTS = extension.part_modules()


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the generated pages written into it."""
    copy = tmp_path_factory.mktemp("tree") / "docs"
    shutil.copytree(DOCS, copy, ignore=lambda folder, _: NOT_SOURCES if Path(folder) == DOCS else ())
    extension.write_pages(copy)
    verdicts.write_page(copy)
    return copy


# Pages


def test_every_paper_has_a_page(tree: Path) -> None:
    for entry in catalog.papers():
        page = (tree / "generated" / "papers" / f"{entry.slug}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {entry.title}\n")
        for fact in (entry.url, entry.offers, entry.claim, entry.slug):
            assert fact in page, f"{fact} is missing on the page of {entry.slug}"
        assert ("throughline run" in page) == entry.available
        assert ("{include}" in page) == (tree / "usage" / f"{entry.slug}.md").exists()


def test_every_part_module_is_documented_once(tree: Path) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (tree / "generated").rglob("*.md"))
    for module in (*PARTS, "data", "lab"):
        assert len(re.findall(rf"automodule:: throughline\.{re.escape(module)}\n", pages)) == 1, module


def test_a_second_writing_touches_nothing(tree: Path) -> None:
    pages = sorted((tree / "generated").rglob("*.md"))
    stale = tree / "generated" / "papers" / "gone.md"
    stale.touch()
    times = [page.stat().st_mtime_ns for page in pages]
    extension.write_pages(tree)
    assert [page.stat().st_mtime_ns for page in pages] == times
    assert not stale.exists()


def test_results_become_tables_and_figures(tree: Path, tmp_path: Path) -> None:
    entry = catalog.Paper("tell", "T", "1808.07292", "2018-08", "discrete", "discrete.clustering", "O.", "C.")
    results = {
        "verdict": "not shown",
        "why": "1 of 1 checks: not shown",
        "scale": "laptop",
        "checks": [
            {
                "sentence": "a|b beats c",
                "verdict": "not shown",
                "estimate": -0.5,
                "low": None,
                "high": 1.25,
                "seeds": [0, 1],
            }
        ],
        "metrics": {"nmi": {"c": [0.25, 0.75, None], "a|b": [0.5]}},
        "command": "throughline run tell --seeds 2",
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tell-two-dots.svg").touch()
    built = type("Built", (catalog.Paper,), {"available": True})(**vars(entry))
    text = "\n".join(extension._verdict(built, results, tmp_path))
    assert "**Not shown**: 1 of 1 checks: not shown." in text
    assert r"| a\|b beats c | not shown | −0.5 | −∞ … 1.25 | 2 |" in text
    assert "| c | 0.5 ± 0.35 |" in text
    assert r"| a\|b | 0.5 |" in text
    assert "{figure} ../../results/tell-two-dots.svg" in text
    assert "$ throughline run tell --seeds 2" in text


def test_built_papers_come_first_and_apart(tree: Path) -> None:
    page = tree / "generated" / "papers" / "index.md"
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^:caption: (.+)$", text, re.MULTILINE) == ["Built", "Planned"]
    listed = [path.stem for path in entries(page, text)]
    built = [entry.slug for entry in READY]
    assert (listed[: len(built)], len(listed)) == (built, len(catalog.papers()))
    for area in catalog.areas():
        rows = re.findall(
            r"^\| \[(.+?)\]", (tree / "generated" / "areas" / f"{area}.md").read_text("utf-8"), re.MULTILINE
        )
        assert rows == sorted(rows, key=lambda slug: slug not in built), f"{area}: a planned paper is above a built one"


def test_the_readme_says_what_came_of_each_claim(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tell.json").write_text('{"verdict": "refuted", "scale": "paper"}', encoding="utf-8")
    rows = extension.readme_table(READY, tmp_path).splitlines()
    (told,) = (row for row in rows if row.startswith("| [tell]"))
    (other,) = (row for row in rows if row.startswith("| [groco]"))
    assert told.endswith("| refuted (paper scale) |")
    assert other.endswith("| not run yet |")


def test_the_front_page_installs_shows_and_pictures() -> None:
    front = DOCS / "index.md"
    assert "$ pip install ." in front.read_text(encoding="utf-8")
    assert len(blocks(front, "python")) == 1  # which test_snippets runs
    (picture,) = re.findall(r"\{figure\} (\S+)", front.read_text(encoding="utf-8"))
    assert (DOCS / picture).exists()


conf = load(DOCS / "conf.py")


class Fields(NamedTuple):
    """Two fields, one of which says what it is."""

    loss: float  # F*(x_) before x moves
    norm: float
    kind: str = "a # b"  # type: ignore[assignment]


def test_comments_beside_fields_become_their_documentation() -> None:
    assert conf.field_comments(Fields) == {"loss": "F*(x_) before x moves"}
    said = {"loss": ["Alias for field number 0"], "norm": ["Alias for field number 1"], "kind": ["Its own words."]}
    for field, lines in said.items():
        conf.document_fields(None, "attribute", f"{__name__}.Fields.{field}", None, None, lines)
    assert said == {"loss": [r"F\*(x\_) before x moves"], "norm": [], "kind": ["Its own words."]}


def test_prompts_are_not_copied() -> None:
    prompt = re.compile(conf.copybutton_prompt_text)
    assert [prompt.sub("", line) for line in ("$ make run", ">>> x = 1", "... y")] == ["make run", "x = 1", "y"]


def entries(page: Path, text: str) -> Iterator[Path]:
    for tree in re.findall(r"```\{toctree\}\n(.*?)```", text, re.DOTALL):
        for line in tree.splitlines():
            if line.strip() and not line.startswith(":"):
                target = re.sub(r"^.*<(.+)>$", r"\1", line.strip())
                yield (page.parent / f"{target.removesuffix('.md')}.md").resolve()


def test_every_page_is_reachable(tree: Path) -> None:
    reached, waiting = set(), [tree / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or "gallery" in page.parts:  # sphinx-gallery writes its own toctrees
            continue
        assert page.exists(), f"a toctree names {page.relative_to(tree)}, which is not there"
        reached.add(page)
        waiting += entries(page, page.read_text(encoding="utf-8"))
    generated = {p for p in (tree / "generated").rglob("*.md") if p.parent.name != "areas"}
    wanted = {tree / page.relative_to(DOCS) for page in PAGES} | generated
    assert wanted - reached == set()


def test_links_lead_somewhere(tree: Path) -> None:
    for page in tree.rglob("*.md"):
        if page.parent == tree / "generated" / "areas":
            continue  # included from docs/areas, and its links are seen from there
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in link and "gallery/" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(tree)} links to {link}"


def test_every_area_has_a_page_to_choose_from() -> None:
    for area in ("core", *throughline.AREAS):
        assert (DOCS / "areas" / f"{area}.md").exists()


@pytest.mark.parametrize("entry", READY, ids=lambda entry: entry.slug)
def test_available_paper_says_how_to_use_it(entry: catalog.Paper) -> None:
    text = (DOCS / "usage" / f"{entry.slug}.md").read_text(encoding="utf-8")
    assert text.startswith("## In ten lines\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["In ten lines", "When to use it", "What to watch"]
    assert entry.part_module in text


@pytest.mark.parametrize("module", [f"throughline.{part}" for part in (*PARTS, "data", "lab", "catalog")])
def test_every_public_name_has_a_docstring(module: str) -> None:
    for public in importlib.import_module(module).__all__:
        value = getattr(importlib.import_module(module), public)
        if inspect.isclass(value) or inspect.isroutine(value):
            own = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
            assert own, f"{module}.{public} has no docstring"


def test_readme_lists_the_papers() -> None:
    table = load(DOCS / "papers_table.py")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == table.with_table(readme), "run `python docs/papers_table.py --write`"


def test_the_version_is_the_same_everywhere() -> None:
    assert f"\nversion: {throughline.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{throughline.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# Commands (that snippets run and commands parse is tests/test_snippets.py)

TYPED = [shlex.split(line, comments=True) for page in (ROOT / "README.md", *SOURCES) for line in commands(page)]
RUNS = {shlex.join(words): words[1:] for words in TYPED if words[0] == "run" and "--like" not in words}


@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_runs_name_what_there_is(words: list[str]) -> None:
    asked = main.commands["run"].make_context("run", list(words)).params
    parse_seeds(asked["seeds"], 1)
    for claim in (find_claim(name) for name in asked["papers"] if not is_path(name)):
        config = override(claim.scales[asked["scale"]], asked["assignments"])
        assert set((asked["arms"] or claim.arms[0]).split(",")) <= {*claim.arms, *claim.context}
        assert asked["data"] is None or (claim.accepts and hasattr(config, "data"))


# Gallery


def test_every_part_has_a_gallery_script() -> None:
    shown = set().union(*(extension._imports(script) for script in SCRIPTS))
    for part in PARTS:
        names = importlib.import_module(f"throughline.{part}").__all__
        if not all(f"throughline.{part}.{public}" in NOT_PARTS for public in names):
            assert f"throughline.{part}" in shown, f"no docs/examples/**/plot_*.py imports throughline.{part}"


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_gallery_script_draws(script: Path, tmp_path: Path) -> None:
    wrong = drawn(script, tmp_path)
    assert not wrong, wrong
    text = script.read_text(encoding="utf-8")
    assert re.match(r'r?"""\n?.+\n=+\n', text), "a gallery script opens with a docstring that has a title"
