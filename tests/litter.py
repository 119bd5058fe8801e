"""What other programs leave in folders, to be strewn into those that are read."""

from __future__ import annotations

from pathlib import Path

# Of macOS's Finder and its archiver, Windows, a Synology, Jupyter, editors, NFS, FUSE, LibreOffice, rsync, Dropbox.
FILES = (
    ".DS_Store",
    "._rank-00000.jsonl",
    "Thumbs.db",
    "desktop.ini",
    "trial.json~",
    ".nfs000000000001",
    ".x.json.swp",
    "#trial.json#",
    ".#trial.json",
    ".fuse_hidden0000000100000001",
    ".~lock.results.csv#",
    ".trial.json.Xy12Zq.part",
    ".dropbox",
    "Icon\r",
)
FOLDERS = ("__MACOSX", ".ipynb_checkpoints", "@eaDir", ".Trashes", "lost+found", ".stfolder", ".~tmp~", "#recycle")


def strew(folder: Path, inside: bytes = b"\x00\x05\x16\x07") -> None:
    """Into `folder` and every folder below it."""
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in FILES:
            (place / name).write_bytes(inside)
        for name in FOLDERS:
            (place / name).mkdir(exist_ok=True)
            (place / name / "0-checkpoint.png").write_bytes(inside)
            (place / name / "study.yaml~").write_bytes(inside)
