"""How ranks have ended ─▶ how their trial has, and whose fault it is."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from jobs.contract import reason
from jobs.contract.environment import PortTaken
from jobs.contract.files import RankExit, rank_file

STOOD_STILL = re.compile(r"Timeout \(\d+:\d+:\d+(\.\d+)?\)!")  # as faulthandler writes it

# ok: complete. failed: a rank died. timeout: a limit of the trial struck. cancelled: by the user.
# lost: to be launched again, as it is not to blame (its node or its job is gone, its port was taken).
Status = Literal["ok", "failed", "timeout", "cancelled", "lost"]


# What a signal means that nobody need have sent.
MEANS = {
    signal.SIGKILL: "by somebody, or by the kernel for want of memory",
    signal.SIGBUS: "want of shared memory (/dev/shm), or a file that was cut off under it",
    signal.SIGILL: "an instruction that this CPU does not have, of a library that was built for another",
}
# Said by a rank of which another one is gone: not the reason, if any other rank has one.
FOLLOWS = re.compile(
    r"a rank went away|changes turns is gone"
    r"|cannot be reached at|did not come in time|[Cc]onnection (closed|reset)|Broken pipe|Socket closed"
    r"|HorovodInternalError|remote process exited|DistNetworkError|UnavailableError|communicator was aborted"
)
TAIL = 20_000  # bytes


def tail(folder: Path, rank: int) -> list[str]:
    """The end of a rank's log, as a terminal would show it."""
    try:
        with rank_file(folder, rank, "log").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return reason.readable(file.read())
    except OSError:
        return []


def last_lines(folder: Path, rank: int, count: int = 12) -> list[str]:
    """The last lines of a rank's log, for the person who reads why it failed."""
    return [line[:500] for line in tail(folder, rank)][-count:]


def read_exits(folder: Path, processes: int) -> list[RankExit]:
    """The exit records that the ranks' keepers left; of a rank without one, nothing."""
    return [found for rank in range(processes) if (found := read_exit(folder, rank)) is not None]


def read_exit(folder: Path, rank: int) -> RankExit | None:
    """The exit record that the rank's keeper left, None if it could not."""
    try:
        return TypeAdapter(RankExit).validate_json(rank_file(folder, rank, "exit").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def verdict(folder: Path, exits: Sequence[RankExit], processes: int) -> tuple[Status, str] | None:
    """How a trial has ended by its ranks' ends; None if they do not tell.

    Blamed is the rank that overstepped a limit, else the one that died first by itself: the others only follow
    it. A rank that says no more than that another has gone is blamed only if none says more.
    """
    ended = sorted(exits, key=lambda e: (not e.limit, e.asked, e.ended_unix or 0.0, e.rank))
    told: list[tuple[Status, str]] = []
    for end in ended:
        if end.limit:
            told.append(("timeout", f"rank {end.rank}: {end.limit}"))
        elif end.exit_code and not end.asked:
            if stood := _stood_still(folder, end.rank):
                told.append(("timeout", f"rank {end.rank} {stood}"))
                continue
            why = _why(folder, end.rank, end.exit_code)
            if end.exit_code == PortTaken.EXIT_CODE and why.startswith(f"{PortTaken.__name__}: "):
                told.append(("lost", f"rank {end.rank}: {why.partition(': ')[2]}"))
            else:
                told.append(("failed", f"rank {end.rank} {in_words(end.exit_code)}: {why}"))
    if told:
        return next((each for each in told if not FOLLOWS.search(each[1])), told[0])
    if len(exits) == processes and all(end.exit_code == 0 for end in exits):
        return "ok", ""
    return None


def _why(folder: Path, rank: int, exit_code: int) -> str:
    said = reason.of_log(tail(folder, rank), cut_off=exit_code < 0)
    if not said and (full := reason.full_disk(folder)):
        return f"it left no message, and {full} is full"
    try:
        hint = MEANS.get(signal.Signals(-exit_code), "") if exit_code < 0 else ""
    except ValueError:
        hint = ""
    return "; ".join(filter(None, [hint, said])) or "it left no message"


def _stood_still(folder: Path, rank: int) -> str:
    """What a rank's own watchdog (jobs/rank/watchdog.py) said when it ended the rank; empty if it did not."""
    lines = tail(folder, rank)
    found = [line for line in lines if STOOD_STILL.fullmatch(line)]
    if not found:
        return ""
    where = reason.stood_at(lines)
    seconds = found[-1].removeprefix("Timeout (").removesuffix(")!")
    return f"stood still for {seconds}, its log says where" + (f": {where}" if where else "")


def in_words(exit_code: int) -> str:
    """How a process with this exit code (negative for a signal) has ended."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
