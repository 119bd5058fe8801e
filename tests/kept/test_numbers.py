"""The analysis makes the same numbers of the same results."""

from __future__ import annotations

import re

import pytest

from tests.kept import files
from tests.kept.conftest import Analysed
from tests.kept.found import folders, keys, unfolded

# What may name a machine: addresses and paths that are not made up.
OF_A_MACHINE = re.compile(
    r"(?<![\d.])(?!127\.0\.0\.1|0\.0\.0\.0|192\.0\.2\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\d.])"
    r"|(?<![\w./])/(?:root|tmp|work|opt|mnt|srv|var|Users|home/(?!user/))\b\S*"
)


@pytest.mark.parametrize("folder", folders())
def test_results_keep_their_numbers(folder: str, analysed: Analysed) -> None:
    """Every value of every table, verdict and comparison, and which launches are not trusted; there may be more."""
    kept = unfolded(files.read(files.NUMBERS / f"{folder}.json"))
    assert kept, f"{folder}: no numbers are kept; run `python -m tests.kept.renew --numbers-of {folder}`"
    lines = list(files.differences(kept, analysed(folder).numbers(keys(kept)), (folder,)))
    assert not lines, files.told(lines, "The same results must mean the same; numbers are never renewed.")


def test_what_is_kept_has_no_equal_rows() -> None:
    """Each row of a kept table has a name of its own, or a number where it is one of a launch's samples."""
    numbers = {name: unfolded(files.read(files.NUMBERS / f"{name}.json")) for name in folders()}
    numbered = {
        table
        for held in numbers.values()
        for table, content in held.items()
        for row in content.get("rows", ())
        if " #" in row
    }
    assert numbered <= {"utilization"}


def test_kept_results_name_no_machine() -> None:
    """Addresses, hosts and paths in them are made up."""
    found = []
    for path in sorted(files.RESULTS.rglob("*")):
        if path.is_file():
            named = OF_A_MACHINE.search(path.read_text(encoding="utf-8", errors="replace"))
            found += [f"{path.relative_to(files.RESULTS)}: {named[0]}"] if named else []
    assert not found
