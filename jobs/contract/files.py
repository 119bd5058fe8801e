"""What a rank's keeper needs of the results format: names, and how a file is written.

Apart from jobs/contract/outcome.py because a keeper stands beside every rank while it starts, on the same
cores: what it imports, the rank waits for. The standard library only.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from fnmatch import translate
from functools import cache
from pathlib import Path, PurePath

TRIAL = "trial.json"
# What file managers, editors, notebooks, archivers and file systems leave in folders; analysis/load/trial.py has the
# same.
LITTER = (
    ".DS_Store", "._*", ".AppleDouble", ".localized", ".Spotlight-V100", ".Trash*", ".fseventsd", ".TemporaryItems",
    "__MACOSX", "[Tt]humbs.db", "ehthumbs*.db", "[Dd]esktop.ini", "$RECYCLE.BIN", "System Volume Information",
    ".directory", "@eaDir", "#recycle", "#snapshot", ".snapshot", "lost+found", ".nfs*", ".fuse_hidden*", ".smbdelete*",
    ".ipynb_checkpoints", "*~", ".*.sw[a-p]", "~$*", ".~lock.*", ".#*", "#*#", ".goutputstream-*", "Icon\r",
    ".dropbox*", ".stfolder", ".stversions", ".syncthing.*", ".~tmp~", ".rsync-partial", ".*.part",
)  # fmt: skip


@dataclass(frozen=True)
class RankExit:
    """How one process of the trial ended. `exit_code` is negative for a signal, None if unknown.

    `limit` says which limit it overstepped, empty if none; `asked` that it was ended from outside.
    """

    rank: int
    exit_code: int | None = None
    limit: str = ""
    asked: bool = False
    ended_unix: float | None = None
    last_lines: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        write_atomically(rank_file(folder, self.rank, "exit"), json.dumps(asdict(self)) + "\n")


def rank_file(folder: Path, rank: int, ending: str) -> Path:
    """Path of a rank's file; `ending` is jsonl, json, log, alive or exit."""
    return folder / f"rank-{rank:05d}.{ending}"


def base_file(folder: Path, batch: int, ending: str) -> Path:
    """Path of a file of the base case that ran beside on batches of that size; `ending` is jsonl, json or log."""
    return folder / f"base-{batch}.{ending}"


def litter(path: PurePath) -> bool:
    """Whether this is something that another program left there: passed over wherever folders are read.

    A relative path is it if any of its parts is.
    """
    return any(map(_litter().match, path.parts))


@cache
def _litter() -> re.Pattern[str]:
    return re.compile("|".join(map(translate, LITTER)))


def look_afresh(folder: Path) -> None:
    """Have a network file system forget what it believes to be in `folder`.

    It may not look for up to a minute at what other machines write there (nfs(5), acdirmax), but does
    when this one changes the folder.
    """
    probe = folder / f".look.{os.getpid()}"
    with suppress(OSError):
        probe.touch()
        probe.unlink()


def write_atomically(path: Path, text: str) -> None:
    """Write `text` so that a reader, or a kill at any moment, sees all of it or none. An OSError names `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        if error.errno is not None:
            error.filename = str(path)  # a full disk does not say what was written
        raise
