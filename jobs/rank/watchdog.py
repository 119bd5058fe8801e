"""The end of a rank that hangs, and its sign of life.

`faulthandler` ends the process from a C thread, even if the interpreter never gets another turn, and
leaves the traceback of every thread in the rank's log. So in a trial where one rank stands still, the
others, which wait for it, end by themselves, and the launcher, whichever it is, sees a dead rank.
A single stopped process cannot do that; for it the modification time of the `alive` file says by when
the next sign of life is due, and a launcher on the same node may look at it.
"""

from __future__ import annotations

import faulthandler
import os
import time
from pathlib import Path
from typing import Protocol

BEAT_SECONDS = 1.0
HANDED_OVER = "handed over\n"  # in the `alive` file, which is empty otherwise


class Watched(Protocol):
    """What a loop of steps gives signs of life to."""

    due: float

    def allow(self, seconds: float) -> None: ...

    def beat(self) -> None: ...


class Watchdog:
    """Armed from construction; `due` is the `time.perf_counter` at which the next beat is wanted."""

    def __init__(self, alive: Path, seconds: float) -> None:
        self._alive = alive
        alive.touch()
        self.allow(seconds)

    def allow(self, seconds: float) -> None:
        """From now on, end the process if nothing is heard of it for `seconds`."""
        self._seconds = seconds
        self.beat()

    def beat(self) -> None:
        """A sign of life. Call between steps, at most every BEAT_SECONDS: it costs about 0.1 ms."""
        faulthandler.dump_traceback_later(self._seconds, exit=True)
        deadline = time.time() + self._seconds
        os.utime(self._alive, (deadline, deadline))
        self.due = time.perf_counter() + BEAT_SECONDS

    def work(self) -> None:
        """A sign of life if one is due: for what is called as often as there are files."""
        if time.perf_counter() >= self.due:
            self.beat()

    def hand_over(self, seconds: float) -> None:
        """Say that this process will be stopped and continued, by one of its own launch, within so many seconds."""
        self._alive.write_text(HANDED_OVER)
        self.allow(seconds)

    def take_back(self, seconds: float) -> None:
        self._alive.write_text("")
        self.allow(seconds)

    def stop(self) -> None:
        faulthandler.cancel_dump_traceback_later()
