"""What is said of each wrong study file in wrong/, without starting anything."""

from __future__ import annotations

from pathlib import Path

from cluster.driver.plan import launcher_of
from cluster.study import file
from cluster.study.grid import grid
from cluster.study.schema import StudyError
from tests.kept import files

SAID = files.WRONG / "said.txt"
CORES = 4  # that the study has to fit on


def studies() -> list[Path]:
    return sorted(files.WRONG.glob("*.yaml"))


def said(study: Path) -> list[str]:
    """A line for each fault, as `scaling run` writes them to stderr; none if nothing is wrong."""
    try:
        parsed = file.parse(study)
        launcher_of(parsed, Path("results"))
        grid(parsed, CORES)
    except StudyError as error:
        return [line.replace(str(study), study.name) for fault in error.faults for line in fault.split("\n")]
    return []


def all_said() -> str:
    """All of it: the name of each file, and what is said of it."""
    return "".join(f"# {study.name}\n{_text(said(study))}\n" for study in studies())


def kept() -> dict[str, list[str]]:
    """The name of each file ─▶ the lines that are kept of it."""
    blocks = SAID.read_text(encoding="utf-8").removesuffix("\n\n").split("\n\n") if SAID.exists() else []
    return {lines[0].removeprefix("# "): lines[1:] for lines in map(str.splitlines, blocks)}


def _text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
