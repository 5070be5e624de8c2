"""Every module imports, the package and its command load nothing heavy, imports only go down, and rooms stay rooms."""

import importlib
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import throughline

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "sklearn", "scipy", "pandas", "matplotlib"}
PACKAGE = ROOT / "src" / "throughline"
CLAIMS = sorted(file.parent for file in (PACKAGE / "claims").glob("*/claim.py"))
MODULES = sorted(m.name for m in pkgutil.walk_packages(throughline.__path__, "throughline."))


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``code``."""
    tell = "import sys as _sys; print('|'.join(_sys.modules))"
    ran = subprocess.run([sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return set(ran.stdout.splitlines()[-1].split("|"))


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports_and_says_what_it_is(name: str) -> None:
    assert importlib.import_module(name).__doc__, f"{name} needs a docstring"


def test_the_package_alone_is_light() -> None:
    before, after = loaded_after("pass"), loaded_after("import throughline")
    own = {name for name in after if name.partition(".")[0] == "throughline"}
    assert own == {"throughline"}
    assert not after & HEAVY
    assert len(after - before) < 50, sorted(after - before)  # counted, not timed: a count does not flake


def test_every_floor_is_an_attribute_of_the_package() -> None:
    for name in throughline.__all__:
        assert getattr(throughline, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        throughline.nonsense  # noqa: B018


@pytest.mark.skipif(find_spec("throughline.cli") is None, reason="there is no command line yet")
@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["run", "--help"]], ids=" ".join)
def test_the_command_line_answers_without_torch(arguments: list[str]) -> None:
    call = f"""
from throughline.cli import main
try:
    main({arguments})
except SystemExit as end:
    assert not end.code, end.code
"""
    assert not loaded_after(call) & HEAVY


def test_importing_leaves_the_global_random_state_alone() -> None:
    below = [name for name in MODULES if name.split(".")[1] in ("core", "data", "lab", "claims", *throughline.AREAS)]
    code = f"""
import importlib, pickle, random
import numpy, sklearn.preprocessing, torch  # scikit-learn's loads rich, which draws ids of its styles
def state():
    return pickle.dumps((random.getstate(), numpy.random.get_state())), torch.get_rng_state().tolist()
def settings():
    return torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
before = state(), settings(), torch.get_num_threads()
for name in {below}:
    importlib.import_module(name)
assert (state(), settings(), torch.get_num_threads()) == before
"""
    loaded_after(code)


def test_the_floors_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    linter = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    assert linter.lint_imports(no_cache=True) == 0


def test_what_is_inside_of_a_mechanism_is_its_own() -> None:
    """Code outside of ``area.mechanism`` imports its face, never a file inside of it."""
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph("throughline", cache_dir=None)
    rooms = ("core", "data", *throughline.AREAS)
    inside = [name for name in graph.modules if name.count(".") == 3 and name.split(".")[1] in rooms]
    assert inside
    for name in inside:
        package = name.rpartition(".")[0]
        outside = {other for other in graph.find_modules_that_directly_import(name) if not within(other, package)}
        assert not outside, f"{outside} import {name}: take it from {package}"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_read_in_one_sitting(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    lines = len(Path(spec.origin).read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{name} has {lines} lines: make it a package, or move down what others need too"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda folder: folder.name)
def test_a_claim_is_an_experiment_and_nothing_else(claim: Path) -> None:
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in claim.glob("*.py"))
    assert lines <= 1_000, f"{claim.name} has {lines} lines: a part, a data set or a shared helper is in disguise"


def test_tests_mirror_the_source() -> None:
    packages = [folder.parent.relative_to(PACKAGE) for folder in PACKAGE.glob("*/*/__init__.py")]
    for package in (package for package in packages if package.parts[0] in ("core", "data", *throughline.AREAS)):
        assert list((ROOT / "tests" / package).glob("test_*.py")), f"tests/{package} is missing"
        loose = list((ROOT / "tests" / package.parent).glob(f"test_{package.name}*.py"))
        assert not loose, f"{loose} belong into tests/{package}"


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
