"""Keep the results of finished runs for the documentation: ``python docs/save_results.py RUN_FOLDER ...``.

``results/<slug>.json`` is the last verdict of a claim, and ``results/history.jsonl`` has a line for each that ever was.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from throughline.lab.results import judge, load_results, summary
from throughline.lab.store import Run
from throughline.report import write_report

RESULTS = Path(__file__).parent / "results"
HISTORY = "history.jsonl"
KEPT = ("paper", "run", "scale", "verdict", "why", "seeds", "command", "finished")
PICTURES = {"effect-1": "every seed and the interval of each check", "own-1": "the first picture of the report"}


def save(folder: Path) -> Path:
    """Write the summary and two pictures of a run into ``docs/results``."""
    results = load_results(Run(folder))
    write_report(results)
    found = summary(results, judge(results)) | {"run": folder.name}
    del found["measured"]  # times and memory are of one machine on one day
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{results.run.paper}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, words in PICTURES.items():
        picture = folder / "figures" / f"{name}.svg"
        shutil.copy(picture, RESULTS / f"{results.run.paper}-{words.replace(' ', '_')}.svg")
    remember(found, RESULTS / HISTORY)
    return path


def remember(found: Mapping[str, Any], history: Path) -> None:
    """Append what a run has shown to the history; a run that is there already is left as it stands."""
    line = {
        **{name: found[name] for name in KEPT if name in found},
        "source": found["versions"]["source"],
        "checks": [
            {name: check[name] for name in ("sentence", "verdict", "estimate", "low", "high", "bounds")}
            for check in found["checks"]
        ],
    }
    before = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    if line["run"] not in [json.loads(each)["run"] for each in before]:
        history.write_text("\n".join([*before, json.dumps(line)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(save(Path(argument)))
