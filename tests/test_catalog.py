"""The catalogue: complete, consistent with the files of the package, and quick, for it loads nothing heavy."""

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import throughline
from throughline import catalog
from throughline.catalog import Paper, areas, paper, papers, search
from throughline.errors import ThroughlineError

PACKAGE = Path(throughline.__file__).parent
STDLIB_ONLY = "import sys, throughline.catalog as c; c.papers(), c.search('sort'), [p.available for p in c.papers()]; "
BUILT = [entry for entry in papers() if entry.available]


def test_holds_all_fifty_five_once() -> None:
    assert len(papers()) == 55
    for field in ("slug", "title", "arxiv", "module", "offers", "claim"):
        values = [getattr(entry, field) for entry in papers()]
        assert len(set(values)) == 55, f"{field} is not unique"


@pytest.mark.parametrize("entry", papers(), ids=lambda entry: entry.slug)
def test_entry_is_well_formed(entry: Paper) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry.slug)
    assert re.fullmatch(r"\d{4}\.\d{5}", entry.arxiv)
    assert entry.date == f"20{entry.arxiv[:2]}-{entry.arxiv[2:4]}"
    assert 1 <= int(entry.date[-2:]) <= 12
    assert re.fullmatch(rf"{entry.area}\.[a-z][a-z0-9_]*", entry.module)
    assert entry.url == f"https://arxiv.org/abs/{entry.arxiv}"
    for sentence in (entry.offers, entry.claim):
        assert 40 <= len(sentence) <= 160
        assert sentence[-1] == "."
        assert ". " not in sentence, "one sentence, not two"


def test_papers_stand_grouped_by_area_in_the_order_of_the_areas() -> None:
    assert [area for area, _ in itertools.groupby(papers(), key=lambda entry: entry.area)] == list(areas())
    text = (PACKAGE / "papers.toml").read_text(encoding="utf-8")
    assert re.findall(r'^slug = "(.+)"$', text, re.MULTILINE) == [entry.slug for entry in papers()]


def test_status_is_derived_from_the_claim_modules() -> None:
    claims = {path.parent.name for path in (PACKAGE / "claims").glob("*/claim.py")}
    assert {entry.claim_module.rpartition(".")[2] for entry in papers() if entry.available} == claims
    assert "status" not in (PACKAGE / "papers.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("entry", BUILT, ids=lambda entry: entry.slug)
def test_what_is_available_has_its_parts(entry: Paper) -> None:
    assert entry.parts
    assert entry.area in throughline.AREAS


def test_status_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PACKAGE", tmp_path)
    entry = Paper("two-words", "T", "2001.00001", "2020-01", "discrete", "discrete.thing", "O.", "C.")
    assert (entry.available, entry.has_parts) == (False, False)
    (tmp_path / "claims" / "two_words").mkdir(parents=True)
    (tmp_path / "claims" / "two_words" / "claim.py").touch()
    (tmp_path / "discrete" / "thing").mkdir(parents=True)
    assert entry.parts == ()
    (tmp_path / "discrete" / "thing" / "__init__.py").write_text('import nothing\n\n__all__ = ["One", "two"]\n')
    assert (entry.available, entry.has_parts, entry.parts) == (True, True, ("One", "two"))


def test_search_needs_every_word_in_any_field_and_any_case() -> None:
    assert [entry.slug for entry in search("F1 metric")] == ["anyloss"]
    assert [entry.slug for entry in search("2301.02009")] == ["groco"]
    assert [entry.slug for entry in search("CONTINUAL", area="continual")] == ["g-acil", "gkcl"]
    assert search("gradient unicorn") == ()
    assert search() == papers()


def test_search_by_area_is_a_filter() -> None:
    for area in areas():
        assert search(area=area) == tuple(entry for entry in papers() if entry.area == area)
    assert search("", "sensing")[0].slug == "sensor-layout"


@pytest.mark.parametrize("slug", ["g-acil", "g_acil", "G-ACIL", " g-acil "])
def test_finds_a_paper_however_it_is_typed(slug: str) -> None:
    assert paper(slug).arxiv == "2403.15706"


@pytest.mark.parametrize(
    ("slug", "message"),
    [
        ("grco", r"^unknown paper 'grco'; did you mean groco\?$"),
        ("sensor layouts", r"did you mean sensor-layout"),
        ("heart", r"^unknown paper 'heart'; did you mean rppg\?$"),  # no slug is near, but one entry speaks of hearts
        ("2301.02009", r"did you mean groco\?"),
        ("zzzzzz", r"^unknown paper 'zzzzzz'; `throughline list` prints all of them$"),
    ],
)
def test_names_the_nearest(slug: str, message: str) -> None:
    with pytest.raises(ThroughlineError, match=message):
        paper(slug)


@pytest.mark.parametrize(("area", "message"), [("sensig", r"did you mean sensing\?"), ("x", r"choose from sensing, ")])
def test_names_the_areas(area: str, message: str) -> None:
    with pytest.raises(ThroughlineError, match=rf"unknown area '{area}'; {message}"):
        search(area=area)


def test_imports_nothing_but_the_standard_library() -> None:
    allowed = "{'throughline', 'throughline.catalog', 'throughline.errors'}"
    foreign = f"{{m for m in sys.modules if m.partition('.')[0] in ('torch', 'numpy', 'throughline')}} - {allowed}"
    code = STDLIB_ONLY + f"print(sorted({foreign}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
