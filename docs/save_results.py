"""Keep the results of finished runs for the documentation: ``python docs/save_results.py RUN_FOLDER ...``."""

import json
import shutil
import sys
from pathlib import Path

from throughline.lab.results import judge, load_results, summary
from throughline.lab.store import Run
from throughline.report import write_report

RESULTS = Path(__file__).parent / "results"
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
    return path


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(save(Path(argument)))
