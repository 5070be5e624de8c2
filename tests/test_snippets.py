"""What a reader can copy works: every Python block of README and documentation runs, every command parses."""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

ROOT = Path(__file__).parents[1]
BUILT = {"_build", "generated", "gallery"}
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```\s*$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    line: int
    code: str


def pages() -> Iterator[Path]:
    found = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
    return (path for path in found if path.exists() and not BUILT & set(path.relative_to(ROOT).parts))


def blocks(page: Path, language: str) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, match.start("code")) + 1, match["code"])
        for match in FENCE.finditer(text)
        if match["language"] == language
    ]


def commands(page: Path) -> Iterator[str]:
    for block in blocks(page, "console"):
        for line in block.code.replace("\\\n", " ").splitlines():
            if re.match(r"\s*\$ (\w+=\S+ )*throughline\b", line):
                yield line.split("throughline", 1)[1].strip()


PYTHON = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in pages() if blocks(page, "python")]
CONSOLE = [
    pytest.param(command, id=f"{page.relative_to(ROOT)}: throughline {command}")
    for page in pages()
    for command in dict.fromkeys(commands(page))
]


@pytest.mark.parametrize("page", PYTHON)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        indented = re.match(r" *", block.code)
        code = re.sub(rf"^{indented[0]}" if indented else "", "", block.code, flags=re.MULTILINE)
        # blank lines in front: a traceback then names the line of the page
        exec(compile("\n" * (block.line - 1) + code, str(page), "exec"), namespace)


@pytest.mark.skipif(find_spec("throughline.cli") is None, reason="there is no command line yet")
@pytest.mark.parametrize("command", CONSOLE)
def test_commands_parse(command: str) -> None:
    from throughline.cli import main

    words = shlex.split(re.split(r"[|>#&]", command)[0])
    parse(main, "throughline", words)


def parse(command: click.Command, name: str, words: list[str], parent: click.Context | None = None) -> None:
    """Fail as the command would on a name, option or value that it does not know, without running it."""
    try:
        context = command.make_context(name, list(words), parent=parent)
    except click.exceptions.Exit as done:  # --help and --version print and stop
        if done.exit_code:
            raise
        return
    except click.BadParameter as error:  # the reader's own file is not here
        if "does not exist" not in str(error):
            raise
        return
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        found, sub, rest = command.resolve_command(context, rest)
        assert sub is not None, f"throughline has no command {found}"
        parse(sub, str(found), rest, context)


def test_fences_are_found_where_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n```python\nx = 1\n```\n- b\n  ```console\n  $ throughline list\n  ```\n", encoding="utf-8")
    assert blocks(page, "python") == [Block(3, "x = 1\n")]
    assert list(commands(page)) == ["list"]


@click.group()
def toy() -> None: ...


@toy.command()
@click.option("--seeds", type=int)
def run(seeds: int) -> None: ...


def test_a_wrong_command_is_found() -> None:
    parse(toy, "toy", ["run", "--seeds", "3"])
    for wrong in (["walk"], ["run", "--sees", "3"], ["run", "--seeds", "many"]):
        with pytest.raises((click.UsageError, AssertionError)):
            parse(toy, "toy", wrong)
