"""`python -m tests.faults [AREA or NAME …] [--at REV] [--column NAME]`: whether the tests catch small faults.

Mutation testing by hand. A fault is a file `tests/faults/<area>/<name>.patch`:

    What: one sentence, what is wrong with the product once the patch is applied
    Test: tests/jobs/test_x.py::test_name        (one line for each; a whole file may be named)
    diff --git …

Each is applied to a checkout of its own of the revision (HEAD if none is given), where only the tests it names are
run, to the first failure, for at most three minutes. What became of it is kept in table.json, one column for each
revision: caught (by which test), not caught, not ended in time, or an error: the patch does not apply, or no test ran.

On a busy machine a test may fail, or not end, by chance: read by which test a fault was caught, or use --confirm.

    --table         show what is kept, and run nothing
    --check-clean   run the tests without any fault first: one that fails anyway catches nothing
    --confirm       run what has failed once more with the fault and once without, to tell a catch from a chance
    --missing       only the faults that the column does not have yet, or only as errors
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import psutil
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = HERE / "table.json"
LIMIT_SECONDS = 180.0
GRACE_SECONDS = 10.0  # for the fixtures of tests that were too slow
MARK = "SCALING_FAULT"  # in the environment of all that a run has started, ranks and clusters too
COLOURS = {"yes": "green", "no": "bold red", "not ended": "yellow", "error": "magenta"}
WORDS = {"yes": "caught", "no": "NOT CAUGHT", "not ended": "not ended", "error": "error"}


@dataclass(frozen=True)
class Fault:
    """A patch and the tests that should fail with it."""

    path: Path
    what: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.path.parent.name}/{self.path.stem}"


@dataclass(frozen=True)
class Result:
    """`caught` is yes, no, not ended or error; `by` the test that failed, or what the error is."""

    caught: str
    by: str = ""
    seconds: float = 0.0


class BadFault(ValueError):
    """A patch's head is not as it has to be."""


def read(path: Path) -> Fault:
    """The fault in the file. Raises BadFault."""
    what = ""
    tests: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("diff ", "--- ")):
            break
        key, _, value = line.partition(": ")
        value = value.strip()
        if key == "What":
            what = value
        elif key == "Test":
            tests.append(value)
    if not what or not tests:
        raise BadFault("its head lacks " + " and ".join(n for n, v in (("What:", what), ("Test:", tests)) if not v))
    return Fault(path, what, tuple(tests))


def chosen(wanted: Sequence[str]) -> list[Path]:
    """The patches of the areas and names; all if none is given. Exits where one names nothing."""
    patches = sorted(HERE.glob("*/*.patch"))
    found: dict[Path, None] = {}
    for word in wanted:
        those = [p for p in patches if word in (p.parent.name, p.stem, f"{p.parent.name}/{p.stem}")]
        if not those:
            sys.exit(f"{word}: no area and no fault is called that; there are {', '.join(areas(patches)) or 'none'}")
        found |= dict.fromkeys(those)
    return list(found) if wanted else patches


def areas(patches: Sequence[Path]) -> list[str]:
    return sorted({p.parent.name for p in patches})


def git(*arguments: str, at: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "-C", str(at), *arguments], capture_output=True, text=True, check=False)


def commit_of(revision: str) -> str:
    done = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if done.returncode:
        sys.exit(f"--at {revision}: there is no such revision")
    return done.stdout.strip()


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A checkout of the commit in a temporary folder, gone at the end whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))  # short: sockets are made below it
    tree = folder / "tree"
    try:
        done = git("worktree", "add", "--quiet", "--detach", str(tree), commit)
        if done.returncode:
            sys.exit(f"no checkout of {commit}: {done.stderr.strip()}")
        yield tree
    finally:
        git("worktree", "remove", "--force", "--force", str(tree))
        shutil.rmtree(folder, ignore_errors=True)
        git("worktree", "prune")


def clean(tree: Path) -> None:
    """Put the checkout back to the revision, compiled files included: they are told apart by size and second."""
    git("reset", "--hard", "--quiet", at=tree)
    git("clean", "-ffdxq", at=tree)


def run(tree: Path, tests: Sequence[str]) -> Result:
    """What became of the tests in the checkout as it is; nothing of theirs is left running."""
    scratch, mark = tree.parent / "t", uuid4().hex
    paths = [str(tree), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), MARK: mark}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", "-o", "addopts="]
    command += [f"--basetemp={scratch}", "--color=no", *tests]
    began = time.monotonic()
    with (tree.parent / "output").open("w+b") as output:
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            end(process, mark)
        seconds = round(time.monotonic() - began, 1)
        output.seek(0)
        text = output.read().decode("utf-8", errors="replace")
    shutil.rmtree(scratch, ignore_errors=True)
    if code is None:
        return Result("not ended", f"within {LIMIT_SECONDS:g} s", seconds)
    caught, by = judged(code, text)
    return Result(caught, by, seconds)


def judged(code: int, text: str) -> tuple[str, str]:
    """What pytest's exit code and output say."""
    lines = text.splitlines()
    failed = re.search(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$", text, re.MULTILINE)
    last = next((line.strip("= ") for line in reversed(lines) if line.strip()), "no output")
    if code in (1, 2) and failed:
        return "yes", failed[1]
    if code == 0 and re.search(r"\b\d+ passed\b", last):
        return "no", last
    if code == 0:
        return "error", f"no test ran: {last}"
    complaint = next((line for line in lines if line.startswith("ERROR")), last)
    return "error", f"pytest ended with {code}: {complaint.removeprefix('ERROR: ')}"


def end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End the run and all that it has started: what tests leave behind would be in the way of the next."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait()
    left = [other for other in psutil.process_iter() if marked(other, mark)]
    for other in left:
        try:
            other.kill()
        except psutil.NoSuchProcess:
            pass
    psutil.wait_procs(left, timeout=GRACE_SECONDS)


def marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):
        return False


@dataclass
class Doubts:
    """Of catches, which may be chance: lists of tests that are `broken` anyway, each with what it came to; tests
    that are known to be `passing` without a fault; and whether to `confirm` each catch."""

    broken: dict[tuple[str, ...], str]
    passing: set[str]
    confirm: bool


def tried(tree: Path, path: Path, doubts: Doubts) -> Result:
    """Apply the fault, run its tests, and take it back."""
    try:
        fault = read(path)
    except BadFault as error:
        return Result("error", str(error))
    tests = fault.tests
    if why := doubts.broken.get(tests):
        return Result("error", f"its tests do not pass without it: {why}")
    try:
        if (done := git("apply", str(path.resolve()), at=tree)).returncode:
            return Result("error", f"does not apply: {done.stderr.strip().splitlines()[0].removeprefix('error: ')}")
        result = run(tree, tests)
        if result.caught != "yes" or not doubts.confirm:
            return result
        if run(tree, [result.by]).caught != "yes":
            return replace(result, caught="error", by=f"{result.by} failed, and passed when it was run again")
    finally:
        clean(tree)
    if result.by not in doubts.passing:
        again = run(tree, [result.by])
        clean(tree)
        if again.caught != "no":
            return replace(result, caught="error", by=f"{result.by} does not pass without it either")
        doubts.passing.add(result.by)
    return result


def without_faults(tree: Path, patches: Sequence[Path], console: Console) -> dict[tuple[str, ...], str]:
    """The lists of tests that do not pass in the revision as it is, each with what it came to."""
    lists: dict[tuple[str, ...], None] = {}
    for path in patches:
        try:
            lists[read(path).tests] = None
        except BadFault:
            continue
    broken = {}
    for tests in lists:
        result = run(tree, tests)
        clean(tree)
        if result.caught != "no":
            broken[tests] = f"{WORDS[result.caught] if result.caught != 'yes' else 'failed'}: {result.by}"
        console.print(
            f"without a fault: {broken.get(tests, 'passed')} [{result.seconds} s] {' '.join(tests)}",
            style="magenta" if tests in broken else "dim",
            markup=False,
            highlight=False,
        )
    return broken


Kept = dict[str, dict[str, dict[str, Any]]]


def kept() -> Kept:
    try:
        content: Kept = json.loads(TABLE.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return content


def keep(name: str, column: str, result: Result) -> None:
    """Put one result into table.json; others may be at it too."""
    folder = os.open(HERE, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        table = kept()
        table.setdefault(name, {})[column] = asdict(result)
        temporary = TABLE.with_name(f".{TABLE.name}.{os.getpid()}")
        temporary.write_text(json.dumps(table, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(TABLE)
    finally:
        os.close(folder)


def show(console: Console, patches: Sequence[Path], columns: Sequence[str]) -> None:
    """The kept results of the patches, the columns side by side, and how many were caught by area."""
    table, contents = Table(title="faults"), kept()
    for heading in ("fault", "what is wrong", *columns):
        table.add_column(heading, overflow="fold")
    counts: dict[str, dict[str, Counter[str]]] = {}
    for path in patches:
        name = f"{path.parent.name}/{path.stem}"
        try:
            what = read(path).what
        except BadFault as error:
            what = str(error)
        cells = []
        for column in columns:
            result = contents.get(name, {}).get(column)
            for area in (path.parent.name, "all"):
                tally = counts.setdefault(area, {}).setdefault(column, Counter())
                tally[result["caught"] if result else "none"] += 1
            cells.append(cell(result))
        table.add_row(escape(name), escape(what), *cells)
    console.print(table)
    totals = Table(title="caught, of those that were tried")
    for heading in ("area", "faults", *columns):
        totals.add_column(heading)
    for area in [*areas(patches), "all"] if patches else []:
        of = sum(p.parent.name == area or area == "all" for p in patches)
        totals.add_row(area, str(of), *(total(counts[area][column]) for column in columns))
    console.print(totals)


def cell(result: dict[str, Any] | None) -> str:
    if result is None:
        return "–"
    by = escape(result["by"].removeprefix("tests/")) if result["caught"] != "no" else ""
    return f"[{COLOURS[result['caught']]}]{WORDS[result['caught']]}[/] {by} [dim]{result['seconds']:g} s[/]"


def total(tally: Counter[str]) -> str:
    count = sum(tally.values()) - tally["none"]
    also = [f"{tally[kind]} {word}" for kind, word in (("not ended", "not ended"), ("error", "errors")) if tally[kind]]
    return f"{tally['yes']} of {count}" + (f" ({', '.join(also)})" if also else "") if count else "–"


def interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Whether the tests catch small faults.")
    parser.add_argument("wanted", nargs="*", metavar="AREA or NAME", help="all if none is given")
    parser.add_argument("--at", default="HEAD", metavar="REV", help="the revision that is tested (HEAD)")
    parser.add_argument("--column", metavar="NAME", help="what its results are called (the commit's short name)")
    parser.add_argument("--table", action="store_true", help="show what is kept, and run nothing")
    parser.add_argument("--check-clean", action="store_true", help="run the tests without any fault first")
    parser.add_argument("--confirm", action="store_true", help="run what has failed once more, with and without")
    parser.add_argument("--missing", action="store_true", help="only what the column has not, or only as an error")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    patches = chosen(options.wanted)
    if options.table:
        seen = {column: None for results in kept().values() for column in results}
        show(console, patches, list(seen))
        return 0
    commit = commit_of(options.at)
    column = options.column or commit[:7]
    todo = patches
    if options.missing:
        done = {name for name, row in kept().items() if row.get(column, {"caught": "error"})["caught"] != "error"}
        todo = [p for p in patches if f"{p.parent.name}/{p.stem}" not in done]
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)  # in the background of a shell it would be ignored
    code = 0
    try:
        with checkout(commit) as tree:
            broken = without_faults(tree, todo, console) if options.check_clean else {}
            doubts = Doubts(broken, set(), options.confirm)
            for number, path in enumerate(todo, 1):
                name = f"{path.parent.name}/{path.stem}"
                result = tried(tree, path, doubts)
                keep(name, column, result)
                console.print(f"{number}/{len(todo)} {escape(name)}: {cell(asdict(result))}", highlight=False)
    except KeyboardInterrupt:
        console.print("interrupted; what was done is kept")
        code = 130
    show(console, patches, [column])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
