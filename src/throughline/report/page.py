"""The report's pages: what is said, in which order; the template says how it looks."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from throughline.catalog import Paper, paper
from throughline.errors import ThroughlineError
from throughline.lab.checks import Outcome
from throughline.lab.plots import arm_color
from throughline.lab.results import MEASURED, Judgement, Results, judge, keep
from throughline.lab.store import write_atomically
from throughline.report.figures import comparison, effects, learning_curves, svg
from throughline.report.rendering import number, template

__all__ = ["write_comparison", "write_report"]


def write_report(results: Results, judgement: Judgement | None = None) -> Path:
    """Write ``report.html``, ``figures/*.svg`` and ``summary.json`` into the run's folder; returns the page's path."""
    judgement = judgement or judge(results)
    figures: dict[str, list[tuple[str, Figure]]] = {"effect": [], "own": [], "curves": []}
    if judgement.outcomes and results.records:
        figures["effect"].append(("", effects(judgement.outcomes)))
    if results.records:
        figures["own"] = list(results.claim.figures(results).items())
        figures["curves"] = [(name.replace("_", " "), f) for name, f in learning_curves(results).items()]
    drawn = _draw(results.run.folder / "figures", figures)
    html = template("report.html").render(
        paper=_paper(results),
        claim=results.claim,
        judgement=judgement,
        results=results,
        manifest=results.run.manifest,
        figures=drawn,
        about=results.claim.about(),
        colors={arm: arm_color(results, arm) for arm in results.arms},
        means={metric: _means(results, metric) for metric in (*results.metrics, *MEASURED)},
        every={metric: {arm: results.values(metric, arm) for arm in results.arms} for metric in results.metrics},
        failures=[(unit.name, _last_line(results.run.file(unit, "txt"))) for unit in results.failed],
        effect=_effect,
    )
    path = results.run.folder / "report.html"
    write_atomically(path, html)
    keep(results, judgement)
    return path


def write_comparison(first: Results, second: Results, path: Path) -> Path:
    """Write one page that sets two runs of the same paper beside each other.

    Raises:
        ThroughlineError: the runs are of different papers.
    """
    if first.run.paper != second.run.paper:
        raise ThroughlineError(f"cannot compare a run of {first.run.paper} with a run of {second.run.paper}")
    names = (first.run.id, second.run.id)
    arms = [arm for arm in first.arms if arm in second.arms]
    metrics = [metric for metric in first.metrics if metric in second.metrics]
    drawn = []
    for place, metric in enumerate(metrics, 1):
        rows = [(arm, first.values(metric, arm), second.values(metric, arm)) for arm in arms]
        drawn.append((metric, svg(comparison(metric, rows, names), f"compare-{place}")))
    configs = (first.run.manifest["config"], second.run.manifest["config"])
    versions = (first.run.manifest["versions"], second.run.manifest["versions"])
    html = template("compare.html").render(
        paper=_paper(first),
        claim=first.claim,
        names=names,
        judgements=(judge(first), judge(second)),
        figures=drawn,
        means={metric: (_means(first, metric), _means(second, metric)) for metric in metrics},
        arms=arms,
        changed=_differences(*configs) + _differences(*versions),
    )
    write_atomically(path, html)
    return path


def _draw(folder: Path, groups: Mapping[str, list[tuple[str, Figure]]]) -> dict[str, list[tuple[str, str]]]:
    folder.mkdir(exist_ok=True)
    drawn: dict[str, list[tuple[str, str]]] = {}
    for group, figures in groups.items():
        drawn[group] = []
        for place, (caption, figure) in enumerate(figures, 1):
            name = f"{group}-{place}"
            picture = svg(figure, name)
            drawn[group].append((caption, picture))
            (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    return drawn


def _paper(results: Results) -> Paper | None:
    return None if results.claim.origin else paper(results.run.paper)


def _means(results: Results, metric: str) -> dict[str, tuple[float, float, int]]:
    table = {}
    for arm in results.arms:
        values = np.array(list(results.values(metric, arm).values()))
        spread = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        table[arm] = (float(values.mean()) if len(values) else math.nan, spread, len(values))
    return table


def _effect(outcome: Outcome) -> str:
    interval = f"[{number(outcome.low)}, {number(outcome.high)}]"
    kind = "range over the seeds" if outcome.confidence == 1 else f"{100 * outcome.confidence:.5g} % interval"
    if not math.isfinite(outcome.low) or not math.isfinite(outcome.high):
        return f"{number(outcome.estimate)} (no interval from {len(outcome.seeds)} seeds)"
    return f"{number(outcome.estimate)}, {kind} {interval}, {len(outcome.seeds)} seeds"


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    keys = dict.fromkeys((*first, *second))
    return [(key, first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)]
