"""The page on a claim of one's own: its changes fit what `throughline new` writes, and the result runs."""

import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from throughline.cli import main
from throughline.lab import find_claim
from throughline.starter import write_starter

PAGE = Path(__file__).parents[2] / "docs" / "your-claim.md"


def test_the_changes_fit_and_the_claim_runs(place: Path) -> None:
    file, test = write_starter("label-smoothing", place, single_file=True)
    code = file.read_text()
    changes = re.findall(r"^```diff\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(changes) == 8
    for change in changes:
        old, new = (
            "".join(line[1:] + "\n" for line in change.splitlines() if line.startswith(sign)) for sign in ("-", "+")
        )
        assert code.count(old) == 1, old
        code = code.replace(old, new)
    assert "CHANGE ME" not in code.replace("# CHANGE ME: your own data", "")
    file.write_text(code)
    rules = ["--isolated", "--line-length", "120"]
    subprocess.run([sys.executable, "-m", "ruff", "check", *rules, file], check=True)
    assert find_claim("./label_smoothing.py").sentence() == "Label smoothing makes a small network better on digits."
    ended = CliRunner().invoke(main, ["run", "./label_smoothing.py", "--scale", "smoke", "--seeds", "1"])
    assert ended.exit_code == 0, ended.output
    assert test.exists()
