"""Claims are found by slug, path, class or entry point; whatever else lies there gets one line that names it."""

import json
import os
import pickle
import sys
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.lab.toys import Toy

from throughline import catalog
from throughline.catalog import canonical
from throughline.cli import main
from throughline.errors import ThroughlineError
from throughline.lab import find_claim
from throughline.lab.finding import own_sources, source_version

pytestmark = pytest.mark.usefixtures("place")

CLAIM = '''
from dataclasses import dataclass
from throughline.lab import Arm, Beats, Claim

@dataclass(frozen=True)
class Config:
    steps: int = 1

class Mine(Claim):
    """Two is more than one."""
    paper = "mine"
    arms = ("one", "two")
    checks = (Beats("number", "two", over="one"),)
    scales = {"smoke": Config(), "laptop": Config()}

    def run(self, arm, config, seed, log):
        return {"number": float(arm == "two")}
'''


def write(**files: str) -> None:
    for name, text in files.items():
        path = Path(name.replace("__slash__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def package(name: str = "my_mine", claim: str = CLAIM) -> Path:
    folder = Path(name)
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"from {name.replace('/', '.')}.claim import Mine\n")
    (folder / "claim.py").write_text(claim)
    return folder


def test_a_file_a_folder_and_a_class_are_found(place: Path) -> None:
    write(mine_file=CLAIM)
    package()
    for name, origin in (
        ("./mine_file.py", str(place / "mine_file.py")),
        (str(place / "my_mine"), str(place / "my_mine")),
        ("my_mine/claim.py", str(place / "my_mine/claim.py")),
        ("mine_file:Mine", "mine_file:Mine"),
        ("my_mine.claim:Mine", "my_mine.claim:Mine"),
    ):
        claim = find_claim(name)
        assert (claim.paper, claim.sentence(), claim.origin) == ("mine", "Two is more than one.", origin)
        again = pickle.loads(pickle.dumps(claim))
        assert (type(again), again.origin) == (type(claim), origin)


def test_a_package_inside_another_keeps_its_name() -> None:
    package("outer_one/inner")
    write(outer_one__slash____init__="")
    assert type(find_claim("outer_one/inner")).__module__ == "outer_one.inner.claim"


BROKEN = {
    "nothing": ("import os\n", "one class that extends throughline.lab.Claim is wanted, got none"),
    "two": (CLAIM + "\nclass Second(Mine):\n    pass\n", "got Mine, Second; say which, such as b_two:Mine"),
    "syntax": ("def f(:\n", r"it cannot be imported: b_syntax\.py, line 1: invalid syntax"),
    "lacking": ("\nimport no_such_package\n", r"b_lacking\.py, line 2: ModuleNotFoundError: No module named 'no_such"),
    "leaves": ("raise SystemExit('bye')\n", r"b_leaves\.py, line 1: SystemExit: bye"),
    "halfway": (CLAIM.replace("    arms = ", "    arm_names = "), "Mine lacks arms"),
    "idle": (CLAIM.replace("def run", "def walk"), "Mine lacks run"),
    "ours": (CLAIM.replace('"mine"', '"groco"'), "'groco' is the name of a paper of the catalogue"),
    "away": (CLAIM.replace('"mine"', '"../mine"'), "small letters, digits and hyphens, got '../mine'"),
    "arm": (CLAIM.replace('"one"', '"o/ne"'), "an arm's name is of letters, digits and _.+-, got 'o/ne'"),
    "absent": (CLAIM.replace('over="one"', 'over="none"'), "a check compares none, which is none of the arms"),
    "scales": (CLAIM.replace('"laptop"', '"cluster"'), "scales are smoke, laptop, paper, got cluster"),
    "config": (CLAIM.replace('"laptop": Config()', '"laptop": Config'), "wants a frozen dataclass"),
    "data": (CLAIM.replace("scales =", "accepts = ('table',)\n    scales ="), "the config needs a field data"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_claim_is_said(kind: str) -> None:
    text, message = BROKEN[kind]
    Path(f"b_{kind}.py").write_text(text)
    with pytest.raises(ThroughlineError, match=message) as caught:
        find_claim(f"./b_{kind}.py")
    assert str(caught.value).startswith(f"./b_{kind}.py: ")
    assert "\n" not in str(caught.value)


def test_paths_that_hold_nothing_are_said() -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("x")
    write(**{"my-mine": CLAIM, "statistics": CLAIM, "class": CLAIM})
    for name, message in {
        "./absent": "no such file or folder; `throughline new` writes",
        "./empty": "__init__.py, which is missing",
        "./notes.txt": "a claim is a folder or a .py file",
        "./my-mine.py": "cannot import the name 'my-mine'; give it another one, such as my_mine",
        "./class.py": "cannot import the name 'class'; give it another one$",
        "./statistics.py": "Python has another module of the name statistics",
        "no_such_package:Mine": "ModuleNotFoundError",
        "json:Mine": "AttributeError",
        "json:dumps": "got none",
    }.items():
        with pytest.raises(ThroughlineError, match=message):
            find_claim(name)


def test_a_bare_name_that_lies_here_is_pointed_to() -> None:
    write(my_mine=CLAIM)
    with pytest.raises(ThroughlineError, match=r"unknown paper 'my_mine'.*; for the claim that lies here, write ./m"):
        canonical("my_mine")
    with pytest.raises(ThroughlineError, match="unknown paper 'my_other'"):
        canonical("my_other")


class Package(Distribution):
    """An installed package as `importlib.metadata` shows it."""

    def __init__(self, name: str) -> None:
        self.text = f"Name: {name}\nVersion: 1.2\nSummary: Claims about mines.\n"

    def read_text(self, filename: str) -> str | None:
        return self.text if filename == "METADATA" else None

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return Path(path)


def install(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    """Let packages declare entry points, each ``name__of__package="module:Class"``."""
    points = []
    for name, value in values.items():
        point = EntryPoint(name.partition("__of__")[0], value, catalog.GROUP)
        vars(point)["dist"] = Package(name.partition("__of__")[2] or "mines")
        points.append(point)
    monkeypatch.setattr(catalog, "entry_points", lambda group: EntryPoints(points))


def test_installed_claims_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    package("pit_of_mine")
    sys.path.append(os.getcwd())
    install(monkeypatch, mine="pit_of_mine:Mine")
    assert canonical("mine") == "mine"
    claim = find_claim("mine")
    assert (claim.paper, claim.origin) == ("mine", "mine")
    install(monkeypatch, mine__of__a="pit_of_mine:Mine", mine__of__b="pit_of_mine.claim:Mine")
    with pytest.raises(ThroughlineError, match=r"mine is a claim of a \(pit.*\) and of b \(pit.*\); uninstall one"):
        find_claim("mine")
    install(monkeypatch, groco="pit_of_mine:Mine")
    with pytest.raises(ThroughlineError, match="groco is a paper of the catalogue and a claim of mines"):
        canonical("groco")
    install(monkeypatch, ours="pit_of_mine:Mine")
    with pytest.raises(ThroughlineError, match="its class calls itself 'mine'; both must be one name"):
        find_claim("ours")
    install(monkeypatch, mine="pit_of_mine:absent")
    with pytest.raises(ThroughlineError, match=r"mine, of mines \(pit_of_mine:absent\): it cannot be imported: Attri"):
        find_claim("mine")


def test_sources_are_the_package_and_what_it_imports_from_beside() -> None:
    package("pit_of_two", CLAIM.replace("        return", "        import beside_it\n        return"))
    write(beside_it="import further_on", further_on="", stranger="", pit_of_two__slash__test_it="")
    root, files = own_sources(find_claim("./pit_of_two"))
    names = [path.relative_to(root).as_posix() for path in files]
    assert names == ["beside_it.py", "further_on.py", "pit_of_two/__init__.py", "pit_of_two/claim.py"]
    assert own_sources(find_claim("groco"))[1] == ()
    assert source_version(find_claim("groco")) == {}


def test_a_change_in_any_source_is_another_version_and_a_test_is_none() -> None:
    package("pit_of_three", "import helper_of_three\n" + CLAIM)
    write(helper_of_three="", pit_of_three__slash__test_it="")
    claim = find_claim("./pit_of_three")
    first = source_version(claim)
    write(pit_of_three__slash__test_it="assert True", stranger="x = 1")
    assert source_version(claim) == first
    write(helper_of_three="x = 1")
    second = source_version(claim)
    write(pit_of_three__slash__claim=CLAIM + "\n")
    assert len({first["claim"], second["claim"], source_version(claim)["claim"]}) == 3


def test_toys_are_their_file_alone() -> None:
    assert [path.name for path in own_sources(Toy())[1]] == ["toys.py"]


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_a_run_is_filed_under_its_code_and_read_again(place: Path) -> None:
    write(mine_run=CLAIM)
    command = ("run", "./mine_run.py", "--scale", "smoke", "--seeds", "1")
    assert call(*command).exit_code == 0
    (manifest,) = place.glob("runs/mine/*/run.json")
    assert "throughline run ./mine_run.py --scale smoke" in manifest.read_text()
    assert call("report", "mine", "--no-open").exit_code == 0
    assert str(place / "mine_run.py") in manifest.with_name("report.html").read_text()
    unit = manifest.parent / "units/two-1000.json"
    assert "number: 1.0 = 1.0 (stored)" in call("run", "--like", str(unit)).output
    write(mine_run=CLAIM.replace('== "two"', '== "one"'))
    assert call(*command).exit_code == 0
    assert len({path.read_text() for path in place.glob("runs/mine/*/units/two-1000.json")}) == 3


def test_a_unit_whose_code_changed_under_the_run_fails(place: Path) -> None:
    text = CLAIM.replace("        return", "        open(__file__, 'a').write('#')\n        return")
    write(mine_changing=text)
    ended = call("run", "./mine_changing.py", "--scale", "smoke", "--seeds", "1", "--jobs", "1")
    assert ended.exit_code == 3
    (error,) = place.glob("runs/mine/*/units/*.txt")
    assert "the code changed under the run (claim); give the command again" in error.read_text()


def test_list_and_show_know_claims_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    package("pit_of_shown")
    sys.path.append(os.getcwd())
    install(monkeypatch, mine="pit_of_shown:Mine")
    listed = call("list").output
    assert "claims of installed packages\n  ● mine                  mines 1.2: Claims about mines." in listed
    assert "mines" not in call("list", "--area", "discrete").output
    assert json.loads(call("list", "mines", "--json").output) == [
        {"slug": "mine", "offers": "mines 1.2: Claims about mines.", "status": "installed"}
    ]
    for name in ("mine", "./pit_of_shown"):
        shown = call("show", name).output
        assert "Claim: Two is more than one." in shown
        assert f"Run:    throughline run {name}" in shown
    assert json.loads(call("show", "mine", "--json").output)["arms"] == {"one": "", "two": ""}


def test_a_scale_that_a_claim_lacks_is_said() -> None:
    write(mine_small=CLAIM)
    ended = call("run", "./mine_small.py", "--scale", "paper")
    assert ended.exit_code == 2
    assert "--scale: mine has no paper, only smoke and laptop" in ended.output
