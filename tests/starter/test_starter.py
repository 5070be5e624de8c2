"""What `throughline new` writes runs at once, passes its own test, and never takes the place of anything."""

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from tests.claims.stand_ins import Notes

from throughline.cli import main
from throughline.errors import ThroughlineError
from throughline.lab import Beats, find_claim
from throughline.starter import write_starter

RUFF = ("E", "W", "F", "B", "I", "UP", "PT", "SIM", "RET")


def call(*words: str) -> Result:
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("single", [False, True], ids=["folder", "file"])
def test_it_runs_at_once_and_passes_its_own_test(place: Path, single: bool) -> None:
    name = "starter-of-one-file" if single else "starter-of-a-folder"
    module = name.replace("-", "_")
    ended = call("new", name, *(["--single-file"] if single else []))
    assert ended.exit_code == 0
    where = f"./{module}.py" if single else f"./{module}"
    assert f"throughline run {where} --scale smoke" in ended.output
    assert call("run", where, "--scale", "smoke", "--seeds", "1").exit_code == 0
    (page,) = place.glob(f"runs/{name}/*/report.html")
    assert page.read_text().count("<svg") >= 4  # the effect, two pictures of its own, a curve
    test = importlib.import_module(f"test_{module}" if single else f"{module}.test_{module}")
    for arm in find_claim(where).arms:
        test.test_an_arm_runs(arm)
    files = [str(path) for path in place.rglob("*.py")]
    plain = ["--isolated", "--line-length", "120"]
    for words in (["check", *plain], ["check", *plain, "--select", ",".join(RUFF)], ["format", "--check", *plain]):
        command = [sys.executable, "-m", "ruff", *words, *files]
        linted = subprocess.run(command, capture_output=True, text=True, cwd=place)
        assert linted.returncode == 0, linted.stdout


def test_the_arms_differ_by_the_idea_alone_and_a_table_takes_the_place_of_digits(place: Path) -> None:
    write_starter("starter-compared", place, single_file=True)
    claim = find_claim("./starter_compared.py")
    assert claim.checks == (Beats("accuracy", "idea", over="plain"),)
    (place / "d.csv").write_text("a,b,kind\n" + "".join(f"{i},{i * i % 5},{'xy'[i > 20]}\n" for i in range(40)))
    ended = call("run", "./starter_compared.py", "--scale", "smoke", "--seeds", "1", "--data", "d.csv")
    assert ended.exit_code == 0, ended.output
    results = []
    for arm in claim.arms:
        torch.manual_seed(0)
        results.append(claim.run(arm, dataclasses.replace(claim.scales["smoke"], strength=0.0), 0, Notes()))
    assert results[0] == results[1]
    torch.manual_seed(0)
    assert claim.run("idea", claim.scales["smoke"], 0, Notes()) != results[0]


def test_nothing_is_overwritten_and_names_must_do(place: Path) -> None:
    write_starter("starter-kept", place)
    (place / "test_starter_other.py").write_text("mine")
    for name, single, message in (
        ("starter-kept", False, "starter_kept is already there; choose another name"),
        ("starter-other", True, "test_starter_other.py is already there"),
        ("Starter", False, "words of small letters and digits, joined by hyphens, got 'Starter'"),
        ("../starter", False, "got '../starter'"),
        ("groco", False, "groco is the name of a paper of the catalogue"),
        ("statistics", True, "Python has a use for the name statistics already"),
        ("lambda", True, "Python has a use for the name lambda already"),
        ("throughline", False, "Python has a use for the name throughline already"),
    ):
        with pytest.raises(ThroughlineError, match=message):
            write_starter(name, place, single_file=single)
    assert (place / "test_starter_other.py").read_text() == "mine"
    assert not (place / "starter_other.py").exists()
    assert call("new", "Starter").exit_code == 2
