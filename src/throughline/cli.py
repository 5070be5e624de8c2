"""The command line: list, show, run, new, report, board, data, doctor.

Exit codes: 0 every claim held, 1 a claim refuted or not shown, 2 bad usage, 3 a run is incomplete.
"""

import errno
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import throughline
from throughline import catalog
from throughline.errors import ThroughlineError

if TYPE_CHECKING:
    from throughline.lab.claim import Claim

__all__ = ["main"]

SCALES = ("smoke", "laptop", "paper")
INCOMPLETE = 3
SPACE, ELSEWHERE = "free some space and run the same command again", "choose another folder with --out"
CURES = {  # what the user can mend of what the operating system refuses
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), SPACE),
    **dict.fromkeys((errno.EROFS, errno.EISDIR, errno.ENOTDIR), ELSEWHERE),
    **dict.fromkeys((errno.EACCES, errno.EPERM), f"change its permissions, or {ELSEWHERE}"),
    errno.ENAMETOOLONG: "give a shorter one",
}


class Usage(click.ClickException):
    """One clear line and an exit code."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]


class Commands(click.Group):
    """Turns what the user can mend into one clear line; anything else stays a traceback, for it is our fault."""

    def main(self, *args: Any, **options: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a mark that the terminal lacks must not cost a result
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ThroughlineError as error:
            raise Usage(str(error), error.exit_code) from None
        except KeyboardInterrupt:
            raise Usage("interrupted; the same command goes on from here", INCOMPLETE) from None
        except OSError as error:
            cure = CURES.get(error.errno or 0)
            if cure is None:
                raise
            where = error.filename or "the results folder"
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise Usage(f"{error.strerror}: {where}; {cure}", INCOMPLETE if full else 2) from None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(self.list_commands(ctx))}"
            raise Usage(f"unknown command {args[0]!r}; {hint}") from None


def runs_folder(function: Any) -> Any:
    """The --out option: where runs are kept."""
    return click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="THROUGHLINE_RUNS",
        default=Path("runs"),
        show_default=True,
        help="Folder that holds the runs.",
    )(function)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(throughline.__version__, prog_name="throughline")
def main() -> None:
    """Machine-learning papers as parts you can import and claims you can re-run."""


@main.command("list")
@click.argument("text", nargs=-1)
@click.option("--area", help="Only papers of this area.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_papers(text: tuple[str, ...], area: str | None, as_json: bool) -> None:
    """List the papers, or those in which all words of TEXT occur."""
    found = catalog.search(" ".join(text), area)
    own = _installed(text, area)
    if as_json:
        others = [{"slug": name, "offers": about, "status": "installed"} for name, about in own.items()]
        return click.echo(json.dumps([*map(_plain, found), *others], indent=1))
    for name in dict.fromkeys(entry.area for entry in found):
        click.secho(f"\n{name}", bold=True)
        for entry in (e for e in found if e.area == name):
            click.echo(f"  {'●' if entry.available else ' '} {entry.slug:21} {entry.offers}")
    if own:
        click.secho("\nclaims of installed packages", bold=True)
        for name, about in own.items():
            click.echo(f"  ● {name:21} {about}")
    ready = sum(entry.available for entry in found)
    return click.echo(f"\n{len(found)} papers; {ready} can be run (●), {len(found) - ready} are planned")


@main.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show one paper, or a claim of your own: what it offers, what it claims, what to import and what to run."""
    from throughline.lab.finding import find_claim

    name = catalog.canonical(name)
    entry = catalog.paper(name) if name in catalog.slugs() else None
    if entry is None:
        claim = find_claim(name)
        facts = {"slug": claim.paper, "claim": claim.sentence(), "scales": list(claim.scales), "arms": claim.about()}
        if as_json:
            return click.echo(json.dumps(facts, indent=1))
        click.secho(claim.paper, bold=True)
        click.echo(f"\nClaim: {claim.sentence()}\n")
        return _arms(claim, name)
    if as_json:
        arms = {"arms": find_claim(name).about()} if entry.available else {}
        return click.echo(json.dumps(_plain(entry) | arms, indent=1))
    click.secho(entry.title, bold=True)
    click.echo(f"{entry.url} · {entry.date} · {entry.area}\n\n{entry.offers}\n\nClaim: {entry.claim}\n")
    if not entry.available:
        return click.echo("Status: planned, nothing to import or run yet")
    click.echo(f"Parts:  from throughline.{entry.module} import {', '.join(entry.parts)}")
    if entry.extra:
        click.echo(f'Needs:  pip install "throughline[{entry.extra}]"')
    return _arms(find_claim(name), name)


@main.command()
@click.argument("papers", nargs=-1, metavar="[CLAIMS]...")
@click.option("--scale", type=click.Choice(SCALES), default="laptop", show_default=True)
@click.option(
    "--seeds", help="How many (5 is 1000:1005), a range (10:20) or a list (3,7).  [default: the claim's, mostly 10]"
)
@click.option("--arms", help="Only these arms, separated by commas.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a field of the config.")
@click.option("--data", help="Your own data: a file or folder of a kind that the claim takes, or a registry key.")
@click.option("--target", help="With tables: the column to predict, by name or index.  [default: the last]")
@click.option("--positive", help="With tables of two classes: the one to be found.  [default: the rarer]")
@click.option("--size", type=click.IntRange(1), help="With images: their side in pixels (of the sensor, where one is).")
@click.option("--jobs", type=click.IntRange(1), help="Units at once.  [default: as many as the cores allow]")
@click.option(
    "--engine",
    default="local",
    show_default=True,
    metavar="WHERE",
    help="Where units run: local, ray (the cluster of RAY_ADDRESS, or one started here), ray://host:port, host:port.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of each unit.")
@runs_folder
@click.option("--resume/--fresh", default=None, help="Go on with a run, or start anew.  [default: resume unfinished]")
@click.option("--like", type=click.Path(path_type=Path), help="Repeat a stored result (or run.json) exactly.")
@click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Write curves for TensorBoard too.")
@click.option("--sink", "sink_names", multiple=True, metavar="MODULE:FUNCTION", help="Send curves to a function too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")
def run(papers: tuple[str, ...], like: Path | None, as_json: bool, **options: Any) -> None:
    """Run CLAIMS: every arm on every seed, then a verdict and a report.

    A claim is a paper of `throughline list`, a file or folder of your own (./my_idea), package.module:Class, or the
    name of one that an installed package brings.
    """
    if sys.platform == "win32":
        raise Usage("claims run on Linux and macOS, this is Windows: use its Subsystem for Linux (WSL)")
    names = _known(papers)
    from throughline.session import Request, repeat, run_claims

    if like is not None:
        given = [n for n in ("seeds", "arms", "data", "target", "positive", "size") if options[n] is not None]
        if papers or given or options["assignments"]:
            raise Usage(
                "--like repeats a stored configuration: give no paper, --seeds, --arms, --set or --data with it"
            )
        outcomes = [repeat(like, Request(**options), as_json=as_json)]
    else:
        if not papers:
            raise Usage("no paper given; `throughline list` shows what can be run")
        outcomes = run_claims(names, Request(**options), as_json=as_json)
    if as_json:
        click.echo(json.dumps([outcome.summary for outcome in outcomes], indent=1))
    sys.exit(max(outcome.exit_code for outcome in outcomes))


@main.command()
@click.argument("name")
@click.option("--single-file", is_flag=True, help="One file and its test, instead of a folder.")
def new(name: str, single_file: bool) -> None:
    """Write a claim of your own to start from: it runs at once, and its comments say what to change."""
    from throughline.starter import write_starter

    written = [path.as_posix() for path in write_starter(name, Path(), single_file=single_file)]
    click.echo("\n".join(written))
    claim = f"./{written[0]}" if single_file else f"./{Path(written[0]).parent}"
    click.echo(f"\nNext:  throughline run {claim} --scale smoke   that it runs, in seconds")
    click.echo(f"       throughline run {claim}                 a verdict\n       pytest {written[-1]}")


@main.command()
@click.argument("name", metavar="[RUN]", required=False)
@click.option("--compare", nargs=2, metavar="RUN RUN", help="Set two runs of one paper side by side.")
@click.option("--open/--no-open", "open_it", default=True, show_default=True, help="Open it in the browser.")
@runs_folder
def report(name: str | None, compare: tuple[str, str] | None, open_it: bool, out: Path) -> None:
    """Rebuild the report of RUN (a folder, an id, a paper; by default the newest) and open it."""
    from throughline.lab.results import load_results
    from throughline.lab.store import find_run
    from throughline.report import write_comparison, write_report

    if compare and name:
        raise Usage("give either one RUN or --compare RUN RUN")
    if compare:
        first, second = (load_results(find_run(out, each)) for each in compare)
        path = write_comparison(first, second, second.run.folder / f"compare-{first.run.id}.html")
    else:
        path = write_report(load_results(find_run(out, name)))
    click.echo(path)
    if open_it:
        click.launch(str(path))


@main.command()
@click.argument("runs", type=click.Path(path_type=Path, file_okay=False), envvar="THROUGHLINE_RUNS", default="runs")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("board"),
    show_default=True,
    help="Folder for index.html, verdicts.xml and reports/.",
)
def board(runs: Path, out: Path) -> None:
    """Write one page over all runs in the folder RUNS (by default "runs"), and a feed of their verdicts.

    Each claim and configuration (scale, settings, and data by its content) has a row, which tells of its newest run,
    finished or not, whatever its seeds and the version of the code. The feed, verdicts.xml, has an entry for every
    verdict that was the first of its row or another than before. Reports are copied beside the page: the folder can
    be moved, or put on any web server, as it is.
    """
    from throughline.report.board import write_board

    click.echo(write_board(runs, out, say=lambda line: click.echo(line, err=True)))


@main.group()
def data() -> None:
    """The data sets that claims download."""


@data.command("list")
def list_data() -> None:
    """List the registry: key, size, licence, and whether the file is here."""
    from throughline.data import describe

    for row in describe():
        click.echo(f"{row.status:8} {row.size / 1e6:7.2f} MB  {row.key:44} {row.licence:16} {row.what}")


@data.command()
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Fetch the whole registry.")
def fetch(keys: tuple[str, ...], everything: bool) -> None:
    """Download the files of KEYS (a key or a folder such as tabular/) and check them."""
    from throughline.data import fetch as get

    if not keys and not everything:
        raise Usage("give the keys to fetch, or --all; `throughline data list` shows them")
    for key in _matching(keys):
        click.echo(get(key))


@data.command()
@click.argument("keys", nargs=-1)
def verify(keys: tuple[str, ...]) -> None:
    """Compare files on disk with the registry's checksums."""
    from throughline.data import verify as check

    statuses = check(_matching(keys))
    for key, status in statuses.items():
        click.echo(f"{status:8} {key}")
    altered = [key for key, status in statuses.items() if status == "altered"]
    if altered:
        raise Usage(f"{len(altered)} altered: {', '.join(altered)}; delete them and run `throughline data fetch`")


@main.command()
def doctor() -> None:
    """Print what a bug report needs: versions, cores, folders, extras."""
    from throughline.data import folders
    from throughline.lab.extras import EXTRAS, how_to_install, missing
    from throughline.lab.runner import cores
    from throughline.lab.store import code_version

    for name, found in code_version().items():
        click.echo(f"{name:14} {found}")
    click.echo(
        f"{'python':14} {sys.version.split()[0]}\n{'cores':14} {cores()}\n{'data':14} {', '.join(map(str, folders()))}"
    )
    for extra in EXTRAS:
        lacking = missing(extra)
        found = f"missing {', '.join(lacking)}: {how_to_install(lacking, extra)}" if lacking else "installed"
        click.echo(f"{extra:14} {found}")


def _known(names: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(map(catalog.canonical, names)))  # all names are checked before any work


def _installed(text: tuple[str, ...], area: str | None) -> dict[str, str]:
    """Claims that installed packages declare, in whose name all words occur; an area is of papers alone."""
    words = " ".join(text).lower().split()
    described = {}
    for name, points in sorted(catalog.installed_claims().items()) if area is None else ():
        if (dist := points[0].dist) is not None:
            about = (dist.metadata.get_all("Summary") or ["no summary"])[0]
            described[name] = f"{dist.name} {dist.version}: {about}"
    return {name: says for name, says in described.items() if all(word in f"{name} {says}".lower() for word in words)}


def _arms(claim: "Claim", name: str) -> None:
    click.echo("Arms:   the baseline first; those in brackets are printed without a check")
    for arm, about in claim.about().items():
        shown = f"[{arm}]" if arm in claim.context else arm
        click.echo(f"  {shown:26} {about}")
    click.echo(f"Run:    throughline run {name}")


def _plain(entry: catalog.Paper) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(entry), "url": entry.url, "status": "available" if entry.available else "planned"}


def _matching(keys: tuple[str, ...]) -> list[str]:
    from throughline.data import entries

    known = [entry.key for entry in entries()]
    chosen = [k for k in known if not keys or any(k == key or k.startswith(key.rstrip("/") + "/") for key in keys)]
    unknown = [key for key in keys if not any(k == key or k.startswith(key.rstrip("/") + "/") for k in known)]
    return chosen + unknown  # an unknown key gets the data layer's own error, with the nearest names
