"""The `scaling` command: how does this training scale, and why does the curve bend?

    scaling run studies/quick.yaml      measure what is missing, then table and figures
    scaling plot results/quick          the figures again

Only wiring: each command imports what it needs when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from analysis.load.results import Results as LoadedResults
    from cluster.driver.plan import Plan
    from jobs.data.survey import Survey

app = typer.Typer(
    help="Measure how distributed training scales, and test what is said about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
OURS = ("jobs", "cluster", "analysis")
FILE_COLUMNS = 110  # of output that goes into a file
StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file, such as studies/quick.yaml.")]
Results = Annotated[Path, typer.Argument(metavar="RESULTS", help="A study's results folder.")]


@app.command()
def run(
    study: StudyFile,
    on: Annotated[str | None, typer.Option(metavar="LAUNCHER", help="Instead of the study's launcher.kind.")] = None,
    results: Annotated[Path | None, typer.Option(help="Default: results/<name of the study>.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and stop.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Submit to the queue, and leave.")] = False,
) -> None:
    """Measure what is missing of a study, then show the table and draw the figures."""
    from dataclasses import replace

    from cluster.driver.plan import launcher_of
    from cluster.driver.plan import plan as make_plan
    from cluster.driver.progress import TerminalDisplay, show_plan
    from cluster.driver.run import Cancelled
    from cluster.driver.run import run as drive
    from cluster.local import machine
    from cluster.local.launcher import LocalLauncher
    from cluster.results.folder import ResultsFolder
    from cluster.setup.importable import broken
    from cluster.study import file
    from cluster.study.schema import StudyError

    console = _console()
    again = f"`scaling run {study}{f' --on {on}' if on else ''}{f' --results {results}' if results else ''}`"
    with _clean_errors():
        own = file.parse(study)
        chosen = file.on_launcher(own, on)
        path = results or Path("results", own.slug if chosen is own else f"{own.slug}-{on}")
        launcher = launcher_of(chosen, path)
        if detach and not launcher.stays:
            raise StudyError([f"--detach: trials of the {launcher.kind} launcher end with this command; leave it out"])
        folder = ResultsFolder(path)
        plan = make_plan(chosen, launcher, folder.base_beside())
        data = _check_data(plan, launcher.kind == "local")
        plan = replace(plan, data=data.told)
        folder.check(chosen, plan.least_bytes(folder))
        for note in plan.notes():
            console.print(note, style="yellow", markup=False, highlight=False)
        for warning in data.warnings:
            console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
        for line in data.lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if dry_run:
            if isinstance(launcher, LocalLauncher):  # elsewhere ranks may find another environment
                strategies = dict.fromkeys(point.strategy for point in plan.grid.points)
                if faults := broken({name: launcher.interpreter(name) for name in strategies}):
                    raise StudyError(faults)
            show_plan(console, plan)
            return
        _decode(data, console)
        folder.open(chosen)
    signal.signal(signal.SIGTERM, _stop)
    try:
        if launcher.kind == "local":
            machine.describe(path, chosen.resources.threads_per_worker)
        with _clean_errors(), TerminalDisplay(console) as display:
            summary = drive(plan, folder, launcher, precision, display, detach)
    except Cancelled:
        console.print("cancelled; what is finished is kept. Run the same command to go on.")
        raise typer.Exit(128 + signal.SIGINT) from None
    except KeyboardInterrupt as stopped:
        if launcher.stays:
            commands = f"`scaling status {path}` shows it, `scaling cancel {path}` ends it"
            console.print(f"left; what is submitted goes on. {commands}, {again} comes back.", markup=False)
        else:
            console.print("stopped; what is finished is kept. Run the same command to go on.")
        raise typer.Exit(128 + (stopped.args[0] if stopped.args else signal.SIGINT)) from None
    finally:
        for line in folder.moved + folder.foreign():
            console.print(f"set aside: {line}", markup=False, highlight=False, soft_wrap=True)
        folder.close()
    if detach:
        console.print(f"submitted; {again} comes back, `scaling status {path}` shows how far it is", markup=False)
        if summary.left:
            console.print(f"{summary.left} launches do not fit in the queue yet: come back for them", markup=False)
    else:
        show_results(console, path)
    if summary.failed:
        out = f" and {summary.left_out} were left out" if summary.left_out else ""
        console.print(f"{len(summary.failed)} launches failed{out}; `scaling status {path}` says why", style="red")
        raise typer.Exit(1)


@app.command()
def status(results: Results) -> None:
    """How far a study has come, and what its launches wait for."""
    from analysis.report import standing
    from cluster.driver import status as state
    from cluster.driver.plan import launcher_of
    from cluster.study import file

    with _clean_errors():
        console = _console()
        state.planned(results)
        loaded, few = standing.read(results)
        faults = {aside.path.name: aside.reason for aside in loaded.set_aside}
        # The files are compared with their sums once, and not at all where there is too much of them.
        states = state.status(results, lambda home, outcome: faults.get(home.name, "") if outcome.sums else "")
        console.print(state.render(states))
        for line in standing.lines(loaded, few=few):
            console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
        for line in state.given_up(results):
            console.print(f"left out: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
        launcher = launcher_of(file.stored(results), results)
        if running := launcher.observe():
            console.print(state.render_running(running))


@app.command()
def cancel(results: Results) -> None:
    """End what runs or waits of a study; what is finished is kept."""
    from cluster.driver.plan import launcher_of
    from cluster.results.folder import InUse, ResultsFolder, take_over
    from cluster.study import file

    with _clean_errors():
        study = file.stored(results)
        folder, asked = ResultsFolder(results), False
        try:
            folder.open(study)
        except InUse:
            asked = True
            print("asking the command that runs the study to end it")
            take_over(folder, study)
        launcher = launcher_of(study, results)
        launcher.resume()
        count = len(launcher.running())
        launcher.cancel()
        folder.close()
    if count or not asked:
        print(f"{count} launches cancelled" if count else "nothing is left to cancel")
    else:
        print("it has ended, and what it had started too")


@app.command()
def plot(
    results: Results,
    to: Annotated[Path | None, typer.Option(help="Default: RESULTS/figures.")] = None,
    published: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="Also draw efficiency with a source's published series behind it."),
    ] = None,
) -> None:
    """Draw the figures of a results folder (SVG and PNG)."""
    _figures_are_files()
    from analysis.figures.published import write as write_published
    from analysis.figures.write import write_all

    to = to or results / "figures"
    with _clean_errors():
        loaded = _load(results)
        written = write_all(loaded, to)
        if published:
            try:
                written += write_published(loaded, to, published)
            except ValueError as error:
                print(f"--published: {error}", file=sys.stderr)
                raise typer.Exit(2) from None
    for path in written:
        print(path)


@app.command()
def claims(
    results: Results,
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Judge the article's claims by a study's results."""
    from analysis.report import facts
    from analysis.verdicts import claims as judging

    with _clean_errors():
        loaded = _load(results)
        verdicts = judging.judge(loaded)
    if json:
        ascii_only = not (sys.stdout.encoding or "").lower().startswith("utf")
        print(judging.to_json(verdicts, facts.left_out(loaded), ascii_only))
    else:
        _console().print(judging.render(verdicts))


@app.command()
def report(
    results: Results,
    to: Annotated[Path | None, typer.Option(help="Default: RESULTS/report.")] = None,
) -> None:
    """Write one self-contained HTML page, with its figures and tables beside it."""
    _figures_are_files()
    from analysis.report import page

    with _clean_errors():
        print(page.write(results, to))


@app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="A results folder.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same points.")],
    fail_on_regression: Annotated[
        float | None,
        typer.Option(
            metavar="PERCENT", min=0.0, max=100.0, help="Exit 1 if a point got slower by more, or that cannot be told."
        ),
    ] = None,
) -> None:
    """What changed for real between two results folders."""
    from analysis.verdicts import compare as comparing

    with _clean_errors():
        comparison = comparing.compare(_load(before), _load(after))
    _console().print(comparing.render(comparison))
    if fail_on_regression is not None:
        slower = [f"{c.point}: slower by {1 - c.ratio:.0%}" for c in comparison.regressions(fail_on_regression)]
        found = slower + comparison.unknown()
        for line in found:
            print(line, file=sys.stderr)
        if found:
            for line in comparison.differs:
                print(f"not the same: {line}", file=sys.stderr)
            for line in comparison.warned:
                print(f"warning: {line}", file=sys.stderr)
            raise typer.Exit(1)


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="A zip of a results folder, or the folder.")],
    results: Annotated[Path | None, typer.Option(help="Default: results/<name of the study>.")] = None,
) -> None:
    """Bring in results that were measured on another machine."""
    from cluster.results import importing

    with _clean_errors():
        brought = importing.bring(source, results, examine)
    console = _console()
    for line in brought.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if brought.refused:
        raise typer.Exit(1)
    console.print(f"next: `scaling claims {brought.target}`", markup=False, highlight=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """What this machine can run, what it lacks, and what would mend it."""
    from cluster.setup import doctor as examination

    _console().print(examination.render(examination.examine()))


@app.command()
def schema() -> None:
    """The JSON Schema of the study file, for editors."""
    import json

    from cluster.study.schema import json_schema

    print(json.dumps(json_schema(), indent=2))


def _figures_are_files() -> None:
    """Matplotlib fails at its import over a backend that it does not have, and a notebook's draws no files."""
    os.environ.pop("MPLBACKEND", None)


def _ours_first() -> None:
    """A package called `jobs`, say, in a folder of PYTHONPATH does not stand before ours: not here, nor in ranks."""
    project = str(Path(__file__).resolve().parent)
    there = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    # Here the folder of `python -m scaling` comes first; for ranks those of PYTHONPATH do.
    found = [PathFinder.find_spec(name, path) for name in OURS for path in (None, there)]
    # A folder without an __init__.py has no origin, and stands before a project that is installed as editable too.
    places = [p for s in found if s for p in ([s.origin] if s.origin else s.submodule_search_locations or [])]
    if any(not place.startswith(project + os.sep) for place in places):
        sys.path.insert(0, project)
        os.environ["PYTHONPATH"] = os.pathsep.join([project, *there])


def _load(folder: Path) -> LoadedResults:
    """The results in `folder`. What of them cannot be trusted is left out, and named beside the command's answer."""
    from analysis.load.results import left_out, load

    loaded = load(folder)
    for line in left_out(loaded):
        print(line, file=sys.stderr)
    return loaded


def _stop(number: int, _: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: its ranks too, and what is finished is kept."""
    raise KeyboardInterrupt(number)


def _console() -> Console:
    from rich.console import Console

    if not os.environ.get("COLUMNS", "").strip("0"):  # what some programs leave there, and no width
        os.environ.pop("COLUMNS", None)
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        return Console(width=FILE_COLUMNS)
    return console


@contextmanager
def _clean_errors() -> Iterator[None]:
    """A mistake of the user's is one line per fault on stderr and exit code 2, never a traceback."""
    from analysis.load.results import NotResults
    from cluster.study.schema import StudyError
    from jobs.rank import raised

    try:
        yield
    except StudyError as error:
        faults = error.faults
    except NotResults as error:
        faults = [str(error)]
    except OSError as error:  # a folder of somebody else's, a file where a folder is wanted, a full disk
        if error.filename is None and error.errno not in raised.FULL:
            raise
        faults = [f"{error.filename}: {error.strerror or error}" if error.filename else raised.in_a_line(error)]
    else:
        return
    for fault in faults:
        print(fault, file=sys.stderr)
    raise typer.Exit(2)


def _check_data(plan: Plan, here: bool) -> Survey:
    """Look at the data before anything is launched: a wrong file is found here, not by each rank."""
    from cluster.study.schema import StudyError
    from jobs.data.dataset import DataError
    from jobs.data.survey import survey

    try:
        return survey(plan.grid.points, plan.study.seed, here)
    except DataError as error:
        raise StudyError([str(error)]) from None


def _decode(data: Survey, console: Console) -> None:
    """Decode the user's images, for all ranks of all launches that run on this machine."""
    from cluster.driver.progress import follow
    from cluster.study.schema import StudyError
    from jobs.data.dataset import DataError

    try:
        for images in data.undecoded:
            follow(console, "decoding", len(images.files), images.decode())
    except DataError as error:
        raise StudyError([str(error)]) from None


def examine(trial: Path) -> tuple[str, str]:
    """The status that the analysis gives the launch in folder `trial`, and why."""
    from analysis.load.trial import SetAside, read

    faults: list[SetAside] = []
    row = read(trial, faults, check_steady=False)
    return (row["status"], row["error"]) if row else ("broken", faults[0].reason)


def precision(results: Path) -> dict[str, float]:
    """Point ─▶ relative half-width of the interval of its throughput, for the driver."""
    from analysis.measures import efficiency

    return efficiency.precision(results)


def show_results(console: Console, results: Path) -> None:
    _figures_are_files()
    from analysis.report import terminal

    with _clean_errors():
        terminal.show_results(console, results)


def main() -> None:
    """Entry point of the `scaling` command."""
    _ours_first()
    # A study does not end over a warning of somebody's library; what the shell says of others holds.
    warnings.filters = [("default" if each[0] == "error" else each[0], *each[1:]) for each in warnings.filters]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a sign that cannot be shown must not cost what was measured
            stream.reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
