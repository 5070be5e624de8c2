"""One claim from the words of the command line to a verdict, a report and a summary."""

import dataclasses
import difflib
import math
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, chdir, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from throughline.catalog import paper
from throughline.data import DataError, Source
from throughline.data.source import KINDS
from throughline.display import Display
from throughline.errors import ThroughlineError
from throughline.lab.claim import TIMES, Claim
from throughline.lab.config import override
from throughline.lab.engines import LOCAL, Engine, check_engine
from throughline.lab.engines.local import Local
from throughline.lab.extras import needed
from throughline.lab.finding import find_claim
from throughline.lab.results import Judgement, Results, judge, kept, stored_config, summary
from throughline.lab.runner import command_line, cores, execute, open_run, plan
from throughline.lab.sinks import find_sink, tensorboard
from throughline.lab.store import LAST_SEED, Unit, read_json

__all__ = ["Ended", "Request", "repeat", "run_claims"]

FIRST_SEED = 1000  # of a verdict; settings are chosen on 100 to 199, so that no verdict is about seeds that chose them
MOST_SEEDS = 10_000  # more would be a slip of the pen
COLORS = {"held": "green", "refuted": "red", "not shown": "yellow"}


@dataclass(frozen=True)
class Request:
    """The options of `throughline run`, as the user gave them."""

    scale: str = "laptop"
    seeds: str | None = None
    arms: str | None = None
    assignments: tuple[str, ...] = ()
    data: str | None = None
    target: str | None = None
    size: int | None = None
    positive: str | None = None
    jobs: int | None = None
    threads: int = 1
    engine: str = "local"
    out: Path = Path("runs")
    resume: bool | None = None
    tensorboard: Path | None = None
    sink_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ended:
    """How a run ended: the exit code and everything a machine wants to know."""

    exit_code: int
    summary: dict[str, Any]


def run_claims(slugs: Sequence[str], request: Request, *, as_json: bool = False) -> list[Ended]:
    """Run claims as requested, write their reports and print their verdicts (unless a machine reads along).

    Whatever is wrong with the request, for any of the claims, is said before the first of them starts, and before
    anything heavy is imported.
    """
    parse_seeds(request.seeds, 1)
    check_engine(request.engine)
    if request.engine == LOCAL:
        _jobs(request, request.threads)
    source = None
    if request.data is not None:
        source = Source.of(str(request.data), request.target, request.size, positive=request.positive)
    elif (request.target, request.size, request.positive) != (None, None, None):
        raise ThroughlineError("--target, --positive and --size describe your own data: give --data with them")
    planned = []
    for slug in slugs:
        claim = find_claim(slug)
        needed(claim.paper, None if claim.origin else paper(claim.paper).extra)
        if request.scale not in claim.scales:
            raise ThroughlineError(f"--scale: {claim.paper} has no {request.scale}, only {' and '.join(claim.scales)}")
        config = override(claim.scales[request.scale], request.assignments)
        if source is not None:
            _accept(claim, source)
            config = dataclasses.replace(config, data=source)
        arms = _arms(claim, request.arms)
        seeds = parse_seeds(request.seeds, claim.seeds[request.scale])
        planned.append((slug, claim, config, arms, seeds))
    ended = []
    with _engine(request, request.threads) as engine:
        for slug, claim, config, arms, seeds in planned:
            command = command_line(["run", *_words(slug, request, arms, seeds)])
            manifest = plan(claim, request.scale, config, arms, seeds, threads=request.threads, command=command)
            ended.append(_work(claim, config, manifest, request, engine, as_json)[0])
    return ended


def repeat(path: Path, request: Request, *, as_json: bool = False) -> Ended:
    """Repeat the unit, or the whole run, whose JSON lies at ``path``; for a unit, compare the numbers."""
    check_engine(request.engine)
    stored = read_json(path)
    claim = find_claim(stored.get("claim") or stored["paper"])
    config = stored_config(claim, stored)
    source = getattr(config, "data", None)
    if source is not None and Source.of(source.path, source.target, source.size).digest != source.digest:
        raise DataError(f"{source.path}: its content is not what {path} was computed from; restore the file")
    single = "metrics" in stored
    arms = _arms(claim, stored["arm"] if single else ",".join(stored["arms"]))
    seeds = (stored["seed"],) if single else tuple(stored["seeds"])
    command = command_line(["run", "--like", str(path)])
    manifest = plan(claim, stored["scale"], config, arms, seeds, threads=stored["threads"], command=command)
    request = dataclasses.replace(request, resume=request.resume or False)
    with _engine(request, stored["threads"]) as engine:
        ended, results = _work(claim, config, manifest, request, engine, as_json, quiet=single)
    if not single:
        return ended
    record = results.records.get(Unit(arms[0], seeds[0]))
    if record is None:
        return ended
    same = {
        name: name.endswith(TIMES) or _equal(record["metrics"].get(name), value)
        for name, value in stored["metrics"].items()
    }
    if not as_json:
        for name, value in stored["metrics"].items():
            mark = "=" if same[name] else "≠"
            Console().print(
                f"{name}: {record['metrics'].get(name)} {mark} {value} (stored)", markup=False, highlight=False
            )
    identical = all(same.values())
    return Ended(0 if identical else 1, {**ended.summary, "identical": identical})


def parse_seeds(text: str | None, default: int) -> tuple[int, ...]:
    """Seeds as the user writes them; a count starts at `FIRST_SEED`.

    >>> parse_seeds("3", 10), parse_seeds("10:12", 10), parse_seeds("7,3", 10), parse_seeds(None, 2)
    ((1000, 1001, 1002), (10, 11), (7, 3), (1000, 1001))
    """
    wrong = f"--seeds wants a count (5), a range (10:20) or a list (3,7) of different numbers from 0, got {text!r}"
    try:
        if text is None:
            seeds: Sequence[int] = range(FIRST_SEED, FIRST_SEED + default)
        elif "," in text:
            seeds = [int(part) for part in text.split(",")]
        else:
            first, colon, last = text.partition(":")
            seeds = range(int(first), int(last)) if colon else range(FIRST_SEED, FIRST_SEED + int(first))
    except ValueError:
        raise ThroughlineError(wrong) from None
    if seeds[MOST_SEEDS:]:
        raise ThroughlineError(f"--seeds: {text} are more than a run takes, which is {MOST_SEEDS}")
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ThroughlineError(wrong)
    if max(seeds) > LAST_SEED:
        raise ThroughlineError(f"--seeds: a seed is at most {LAST_SEED}, got {max(seeds)}")
    return tuple(seeds)


def _engine(request: Request, threads: int) -> AbstractContextManager[Engine]:
    if request.engine == LOCAL:
        return nullcontext(Local(_jobs(request, threads)))
    from throughline.lab.engines.ray import connect

    return connect(None if request.engine == "ray" else request.engine, request.jobs, say=_say)


def _work(
    claim: Claim,
    config: Any,
    manifest: dict[str, Any],
    request: Request,
    engine: Engine,
    as_json: bool,
    *,
    quiet: bool = False,
) -> tuple[Ended, Results]:
    jobs = engine.room(config, manifest["threads"])
    sinks = {f"--sink {name}": find_sink(name) for name in request.sink_names}
    if request.tensorboard is not None:
        sinks["--tensorboard"] = tensorboard(request.tensorboard)
    run, resumed = open_run(
        request.out, manifest, resume=request.resume, warn=_say, prepare=lambda: _read(claim, config)
    )
    if resumed:
        done = len(run.units) - len(run.unfinished())
        _say(f"resuming {run.folder}: {done} of {len(run.units)} units are done")
    for arm, about in claim.about().items():
        if about and arm in run.manifest["arms"]:
            _say(f"  {arm:24} {about}")
    display = Display(claim, run, jobs, Console(stderr=True), sinks)
    try:
        with display.showing():
            execute(claim, run, engine, on_event=display)
    except KeyboardInterrupt:
        left = len(run.unfinished())
        message = f"interrupted; {left} of {len(run.units)} units are left, the same command goes on from here"
        raise InterruptedRun(message) from None
    results = Results(claim, run, config)
    judgement = judge(results)
    page = run.folder / "report.html"
    if not (page.exists() and kept(results, judgement)):
        from throughline.report import write_report  # here: Matplotlib would keep whoever has a report waiting

        write_report(results, judgement)
    run.seen(judgement.verdict)
    if not as_json and not quiet:
        _print(results, judgement, page)
    return Ended(judgement.exit_code, {**summary(results, judgement), "report": str(page)}), results


def _read(claim: Claim, config: Any) -> None:
    """Let a claim fetch and check what its units will need, and say what of the user's own data is read."""
    source = getattr(config, "data", None)
    with chdir("."), warnings.catch_warnings(record=True) as caught:  # back to where the user is, whatever a claim does
        warnings.simplefilter("always", UserWarning)
        if source is not None:
            _say(f"reading {source.described(next(kind for kind in claim.accepts if kind in source.kinds))}")
        claim.prepare(config)
        if source is not None:
            source.check_unchanged()
    for remark in dict.fromkeys(str(each.message) for each in caught if each.category is UserWarning):
        _say(f"note: {remark}")


def _say(text: str) -> None:
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True)


class InterruptedRun(ThroughlineError):
    """The user stopped a run; what it has computed is kept."""

    exit_code = 3


def _print(results: Results, judgement: Judgement, page: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(Text(results.claim.sentence(), style="italic"))
    console.print(Text(judgement.verdict.upper(), style=f"bold {COLORS.get(judgement.verdict, 'dim')}"), end="")
    console.print(f": {judgement.why}", markup=False)
    for outcome in judgement.outcomes:
        console.print(Text(f"  {outcome.verdict:9} ", style=COLORS[outcome.verdict]), end="")
        console.print(f"{outcome.sentence}: {outcome.estimate:.4g}; {outcome.reason}", markup=False)
        if outcome.needed:
            after = max(results.seeds) + 1
            console.print(
                f"            a new run of about {outcome.needed} other seeds would settle it, if the size seen is the "
                f"true one (--seeds {after}:{after + outcome.needed})"
            )
    for unit in results.failed[:5]:
        console.print(f"  failed    {unit.arm}, seed {unit.seed}: {results.run.file(unit, 'txt')}", markup=False)
    console.print(f"report: {page}", markup=False)


def _jobs(request: Request, threads: int) -> int:
    available = cores()
    if threads > available:
        raise ThroughlineError(f"--threads {threads} is more than the {available} cores of this machine")
    jobs = request.jobs or available // threads
    if jobs * threads > available:
        raise ThroughlineError(
            f"--jobs {jobs} with --threads {threads} would need {jobs * threads} cores, this machine has {available}"
        )
    return jobs


def _accept(claim: Claim, source: Source) -> None:
    if not claim.accepts:
        raise ThroughlineError(f"--data: {claim.paper} does not run on data of your own")
    if not set(source.kinds) & set(claim.accepts):
        wanted = " or ".join(KINDS[kind] for kind in claim.accepts)
        raise DataError(f"{source.path}: {claim.paper} wants {wanted}, this is {source.kind}")
    if source.positive is not None and "binary" not in claim.accepts:
        raise ThroughlineError(f"--positive: {claim.paper} tells no positive class from the others; leave it out")


def _arms(claim: Claim, text: str | None) -> tuple[str, ...]:
    every = (*claim.arms, *claim.context)
    if text is None:
        return every
    chosen = [arm.strip() for arm in text.split(",") if arm.strip()]
    for arm in chosen:
        if arm not in every:
            near = difflib.get_close_matches(arm, every, n=1)
            hint = f"did you mean {near[0]}?" if near else f"{claim.paper} has {', '.join(every)}"
            raise ThroughlineError(f"{claim.paper}: unknown arm {arm!r}; {hint}")
    if not chosen:
        raise ThroughlineError(f"--arms: no arm given; {claim.paper} has {', '.join(every)}")
    return tuple(arm for arm in every if arm in chosen)


def _words(name: str, request: Request, arms: tuple[str, ...], seeds: tuple[int, ...]) -> list[str]:
    """The command that repeats this run, shortest form first: only what differs from the defaults."""
    words = [name, "--scale", request.scale]
    if request.seeds is not None:
        consecutive = all(following == seed + 1 for seed, following in pairwise(seeds))
        words += ["--seeds", f"{seeds[0]}:{seeds[-1] + 1}" if consecutive else ",".join(map(str, seeds))]
    if request.arms is not None:
        words += ["--arms", ",".join(arms)]
    for assignment in request.assignments:
        words += ["--set", assignment]
    for option in ("data", "target", "positive", "size"):
        if getattr(request, option) is not None:
            words += [f"--{option}", str(getattr(request, option))]
    return words + (["--threads", str(request.threads)] if request.threads != 1 else [])


def _equal(ours: Any, theirs: Any) -> bool:
    return bool(ours == theirs or (isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs)))
