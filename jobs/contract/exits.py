"""How ranks have ended ─▶ how their trial has, and whose fault it is."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from jobs.contract.environment import PortTaken
from jobs.contract.files import RankExit, rank_file

STOOD_STILL = re.compile(r"Timeout \(\d+:\d+:\d+(\.\d+)?\)!")  # as faulthandler writes it

# ok: complete. failed: a rank died. timeout: a limit of the trial struck. cancelled: by the user.
# lost: to be launched again, as it is not to blame (its node or its job is gone, its port was taken).
Status = Literal["ok", "failed", "timeout", "cancelled", "lost"]


def last_lines(folder: Path, rank: int, count: int = 12) -> list[str]:
    """The last lines of a rank's log, for the person who reads why it failed."""
    try:
        with rank_file(folder, rank, "log").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line[:500] for line in text.splitlines() if line.strip()][-count:]


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

    Blamed is the rank that overstepped a limit, else the one that died first by itself: the others
    only follow it.
    """
    ended = sorted(exits, key=lambda e: (not e.limit, e.asked, e.ended_unix or 0.0, e.rank))
    for end in ended:
        if end.limit:
            return "timeout", f"rank {end.rank}: {end.limit}"
        if end.exit_code and not end.asked:
            if stood := _stood_still(folder, end.rank):
                return "timeout", f"rank {end.rank} {stood}"
            reason = (last_lines(folder, end.rank, 1) or ["it left no message"])[0]
            if end.exit_code == PortTaken.EXIT_CODE and f"{PortTaken.__name__}: " in reason:
                return "lost", f"rank {end.rank}: {reason.partition(': ')[2]}"
            return "failed", f"rank {end.rank} {in_words(end.exit_code)}: {reason}"
    if len(exits) == processes and all(end.exit_code == 0 for end in exits):
        return "ok", ""
    return None


def _stood_still(folder: Path, rank: int) -> str:
    """What a rank's own watchdog (jobs/rank/watchdog.py) said when it ended the rank; empty if it did not."""
    found = [line for line in last_lines(folder, rank, 200) if STOOD_STILL.fullmatch(line)]
    return (
        f"stood still for {found[-1].removeprefix('Timeout (').removesuffix(')!')}, its log says where" if found else ""
    )


def in_words(exit_code: int) -> str:
    """How a process with this exit code (negative for a signal) has ended."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    try:
        return f"was killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"was killed by signal {-exit_code}"
