"""Optional packages are proposed in a form that leaves the user's torch alone."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import throughline
from throughline.catalog import papers
from throughline.cli import main
from throughline.errors import ThroughlineError
from throughline.lab import require
from throughline.lab.extras import EXTRAS, how_to_install, installed, missing

ROOT = Path(__file__).parents[2]
ALONE = f"pip install --no-deps torchvision (the build that matches torch {version('torch')})"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """None of the optional packages is installed."""
    for modules in EXTRAS.values():
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)
    return monkeypatch


def test_the_table_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    users = {extra: set(names) for extra, names in project.items() if extra not in ("all", "peers", "docs", "dev")}
    assert {extra: set(names.values()) for extra, names in EXTRAS.items()} == {
        extra: {name.partition(">")[0] for name in names} for extra, names in users.items()
    }


@pytest.mark.parametrize(
    ("module", "extra", "cure"),
    [
        ("optuna", "search", 'pip install "throughline[search]"'),
        ("skfem", "physics", 'pip install "throughline[physics]"'),
        ("mine", "theirs", 'pip install "throughline[theirs]"'),
        ("transformers", "paper", "pip install transformers"),
        ("skimage.metrics", "imaging", "pip install scikit-image"),
        ("imblearn.datasets", "paper", "pip install imbalanced-learn"),
        ("torchvision.models", "paper", ALONE),
        ("timm", "paper", f"{ALONE}, then pip install timm"),
        ("deepinv", "imaging", f"{ALONE}, then pip install deepinv"),
    ],
)
def test_the_cure_leaves_torch_alone(bare: pytest.MonkeyPatch, module: str, extra: str, cure: str) -> None:
    with pytest.raises(ThroughlineError) as caught:
        require(module, extra=extra)
    assert str(caught.value) == f"{module.partition('.')[0]} is not installed; {cure}"


def test_what_a_paper_needs_is_named_before_any_work(
    bare: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert {entry.extra for entry in papers()} - {None} <= set(EXTRAS)
    ended = CliRunner().invoke(main, ["run", "g-acil", "nap", "--scale", "smoke"])
    assert ended.exit_code == 2
    assert 'nap needs botorch and optuna; pip install "throughline[search]"' in ended.output
    assert not list(tmp_path.iterdir())
    assert 'Needs:  pip install "throughline[search]"' in CliRunner().invoke(main, ["show", "nap"]).output


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize(
    ("paper", "installs"), [("g-acil", ["."]), ("nap", [".", "'.[search]'"]), ("spon", [".", "'.[physics]'"])]
)
def test_make_run_installs_what_the_paper_needs_and_no_more(tmp_path: Path, paper: str, installs: list[str]) -> None:
    (tmp_path / "src/throughline").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "src/throughline/papers.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    words = ["make", "--dry-run", "run", f"PAPER={paper}", f"PYTHON={sys.executable}"]
    planned = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"--editable (\S+)", planned) == installs


def test_what_needs_torchvision_comes_as_it_is_once_that_is_there(bare: pytest.MonkeyPatch) -> None:
    bare.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    with pytest.raises(ThroughlineError, match=r"^lightly is not installed; pip install lightly$"):
        require("lightly.transforms", extra="paper")
    assert missing("paper") == ("datasets", "imblearn", "lightly", "timm", "transformers")


def test_several_at_once(bare: pytest.MonkeyPatch) -> None:
    assert how_to_install(missing("imaging"), "imaging") == f"{ALONE}, then pip install deepinv scikit-image"
    assert not installed("torchvision")


def test_what_is_missing_inside_a_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "halfway.py").write_text("import torchvision\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ThroughlineError, match=r"^torchvision is not installed; pip install --no-deps torchvision"):
        require("halfway", extra="paper")


@pytest.mark.parametrize("error", ["RuntimeError", "ImportError", "OSError"])
def test_a_build_for_another_torch_is_told_from_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: str
) -> None:
    (tmp_path / "torchvision.py").write_text(f"raise {error}('operator torchvision::nms\\ndoes not exist')\n")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ThroughlineError) as caught:
        require("torchvision", extra="paper")
    why = "torchvision cannot be imported (operator torchvision::nms does not exist)"
    assert str(caught.value) == f"{why}; {ALONE}"


def test_nothing_else_proposes_another_torch() -> None:
    for path in Path(throughline.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "throughline[imaging]" not in text, path
        assert "throughline[paper]" not in text, path
        if path.name != "extras.py":
            assert "install torch" not in text, path
