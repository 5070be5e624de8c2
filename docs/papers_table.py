"""Print the README's list of papers; with --write, put it between the markers of README.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from papers import readme_table

START, END = "<!-- papers -->", "<!-- /papers -->"
README = Path(__file__).parents[1] / "README.md"


def with_table(readme: str) -> str:
    """``readme`` with the table between its markers."""
    before, rest = readme.split(START)
    _, after = rest.split(END)
    return f"{before}{START}\n\n{readme_table()}\n\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(readme_table())
