"""The lines of a telemetry file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

FLUSH_SECONDS = 10.0


def as_line(kind: str, **content: Any) -> bytes:
    row = {"kind": kind, "unix": round(time.time(), 3)} | content
    return json.dumps(row, separators=(",", ":")).encode() + b"\n"


class Lines:
    """The file, written from memory in whole lines; a note of the same thing is written once."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._held: list[bytes] = []
        self._due = 0.0  # the first lines at once: a file that is there says that somebody looked
        self._noted: set[str] = set()

    def begin(self, **content: Any) -> None:
        """The start line: the first of the file, before notes of what was found missing meanwhile."""
        self._held.insert(0, as_line("start", **content))

    def add(self, kind: str, **content: Any) -> None:
        self._held.append(as_line(kind, **content))

    def note(self, what: str, why: str) -> None:
        if what not in self._noted:
            self._noted.add(what)
            self.add("note", what=what, why=why)

    def flush(self, now: float | None = None) -> None:
        """Write what is held, if it is due at the monotonic time `now`, or in any case."""
        if now is not None and now < self._due:
            return
        content = b"".join(self._held)
        while content:
            content = content[os.write(self._descriptor, content) :]
        self._held.clear()
        self._due = time.monotonic() + FLUSH_SECONDS
