"""What every claim owes: it declares itself whole, smoke goes through all arms, and its report survives gaps."""

import json
import math
import random
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from throughline.catalog import papers
from throughline.errors import ThroughlineError
from throughline.lab import Device
from throughline.lab.claim import TIMES, Claim
from throughline.lab.config import override
from throughline.lab.finding import find_claim
from throughline.lab.results import Results, judge, summary
from throughline.lab.runner import open_run, plan
from throughline.lab.store import Run, Unit
from throughline.lab.unit import Recorder
from throughline.report import write_report

SLUGS = [paper.slug for paper in papers() if paper.available]

ACTS_ON_TIMES = {"proxylessnas": "the last arm searches by latencies that it has measured"}
FREE: dict[tuple[str, str], str] = {}  # (paper, field) of a number that may be any, and the reason


@pytest.fixture(scope="module", params=SLUGS)
def smoke(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Claim, Run]:
    """Every arm of a claim on two seeds at smoke scale, in this process (the runner has tests of its own)."""
    claim = find_claim(request.param)
    config = claim.scales["smoke"]
    arms = (*claim.arms, *claim.context)
    manifest = plan(claim, "smoke", config, arms, (0, 1), threads=1, command=f"throughline run {claim.paper}")
    run, _ = open_run(tmp_path_factory.mktemp(claim.paper), manifest)
    claim.prepare(config)
    ours, theirs = Pipe(duplex=False)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()  # noqa: NPY002
    for unit in run.units:
        random.seed(unit.seed)
        np.random.seed(unit.seed)  # noqa: NPY002 - the runner seeds all three
        torch.manual_seed(unit.seed)
        log = Recorder(unit, theirs)
        log.flush = lambda done: None  # type: ignore[method-assign]
        metrics = claim.run(unit.arm, config, unit.seed, log)
        record = {"metrics": metrics, "measured": {"seconds": 1.0, "peak_mb": 1.0}, "curves": log.curves}
        run.write(unit, record, log.arrays)
    ours.close()
    theirs.close()
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])  # noqa: NPY002
    return claim, run


@pytest.mark.parametrize("slug", SLUGS)
def test_a_claim_declares_itself_whole(slug: str) -> None:
    claim = find_claim(slug)
    assert claim.paper == slug
    assert claim.sentence().endswith(".")
    assert set(claim.scales) == {"smoke", "laptop", "paper"}
    assert len({type(config) for config in claim.scales.values()}) == 1
    assert len({*claim.arms, *claim.context}) == len(claim.arms) + len(claim.context)
    for check in claim.checks:
        assert set(check.arms) <= set(claim.arms)
    assert bool(claim.accepts) == ("data" in vars(claim.scales["smoke"]))
    assert claim.quotes


@pytest.mark.parametrize("slug", SLUGS)
def test_every_arm_says_what_it_does_in_one_sentence(slug: str) -> None:
    for arm, sentence in find_claim(slug).about().items():
        assert sentence.endswith("."), (arm, sentence)
        assert 5 <= len(sentence.split()) <= 30, (arm, sentence)


def test_claims_load_without_what_makes_loading_slow() -> None:
    """A typo on the command line is answered at once, and a table of all claims too."""
    load = f"""
import sys
from throughline.lab import find_claim
for slug in {SLUGS}:
    claim = find_claim(slug)
    claim.about()
    heavy = {{"torch", "sklearn", "matplotlib", "pandas", "scipy.stats"}} & sys.modules.keys()
    assert not heavy, (slug, heavy)
"""
    subprocess.run([sys.executable, "-c", load], check=True)


@pytest.mark.parametrize("slug", SLUGS)
def test_a_setting_that_cannot_be_is_refused_in_one_line(slug: str) -> None:
    config = find_claim(slug).scales["smoke"]
    kinds = get_type_hints(type(config), include_extras=True)
    assert kinds.pop("device", Device) == Device
    for name, kind in kinds.items():
        refused = list(out_of_range(kind))
        assert None not in refused or (slug, name) in FREE, f"{name} may be any number: constrain it, or say why not"
        for value in (value for value in refused if value is not None):
            with pytest.raises(ThroughlineError, match=f"^--set: {name}[ =]") as caught:
                override(config, (f"{name}={json.dumps(value)}",))
            assert "\n" not in str(caught.value)


def test_smoke_goes_through_every_arm_and_reports(smoke: tuple[Claim, Run]) -> None:
    claim, run = smoke
    results = Results(claim, run, claim.scales["smoke"])
    judgement = judge(results)
    assert judgement.verdict == "no verdict"
    assert {check.metric for check in claim.checks} <= {*results.metrics, "seconds", "peak_mb"}
    for arm in results.arms:
        for metric in results.metrics:
            assert np.isfinite(list(results.values(metric, arm).values())).all(), (arm, metric)
    page = write_report(results, judgement).read_text()
    assert claim.sentence() in page.replace("&#39;", "'")
    assert page.count("<svg") >= 2  # the effect, and at least one picture of the claim's own
    assert summary(results, judgement)["missing"] == []


def test_figures_survive_gaps(smoke: tuple[Claim, Run]) -> None:
    """An interrupted run, or one with --arms, has a report too."""
    claim, run = smoke
    for arms, seeds, gone in ((claim.arms[:1], [1], None), (claim.arms, [0, 1], Unit(claim.arms[0], 0))):
        part = Run(run.folder)
        part.manifest |= {"arms": list(arms), "seeds": seeds}
        results = Results(claim, part, claim.scales["smoke"])
        if gone is not None:
            results.records.pop(gone, None)
            results.missing = (gone,)
        assert Path(write_report(results)).exists(), (arms, seeds, gone)


def test_a_unit_is_deterministic(smoke: tuple[Claim, Run]) -> None:
    claim, run = smoke
    unit = Unit(claim.arms[-2 if claim.paper in ACTS_ON_TIMES else -1], 1)
    stored = run.record(unit)
    assert stored is not None
    torch.manual_seed(unit.seed)
    random.seed(unit.seed)
    np.random.seed(unit.seed)  # noqa: NPY002
    ours, theirs = Pipe(duplex=False)
    log = Recorder(unit, theirs)
    log.flush = lambda done: None  # type: ignore[method-assign]
    again = claim.run(unit.arm, claim.scales["smoke"], unit.seed, log)
    timed = {name: value for name, value in again.items() if name.endswith(TIMES)}
    assert again == stored["metrics"] | timed
    ours.close()
    theirs.close()


def out_of_range(kind: Any) -> Iterator[Any]:
    """Values of a field that its annotation forbids, beside each of its bounds; None for a number without any."""
    inside = get_args(kind)
    if kind in (int, float):
        yield None
    elif get_origin(kind) is Annotated and inside[0] in (int, float):
        limits = [limit for given in inside[1:] for limit in getattr(given, "metadata", [given])]
        for limit in limits:
            for name, beyond in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1)):
                if hasattr(limit, name):
                    yield getattr(limit, name) + beyond
        if inside[0] is float:
            yield from (math.inf, -math.inf, math.nan)
    elif get_origin(kind) is tuple:
        length = 1 if Ellipsis in inside else len(inside)
        yield from (None if value is None else [value] * length for part in inside for value in out_of_range(part))
    elif get_origin(kind) is not Literal:
        yield from (value for part in inside for value in out_of_range(part))
