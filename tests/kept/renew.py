"""python -m tests.kept.renew [--numbers-of FOLDER]

Writes anew the words and pictures: what is shown of every kept results folder (words/) and what is said of every wrong
study file (wrong/said.txt). They may change; so read the diff line by line, and commit it with the reason.

Numbers may not change, and are not renewed: `--numbers-of FOLDER` keeps those of a results folder that has none yet.
To keep other numbers all the same, remove numbers/FOLDER.json by hand, in a commit that says which were wrong and why.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tests.kept import files, wrong_studies
from tests.kept.found import Found, analyse, folded, folders


def words(found: Found) -> None:
    home = files.WORDS / found.name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name, text in found.words().items():
        (home / name).write_text(text, encoding="utf-8")


def numbers(found: Found) -> None:
    place = files.NUMBERS / f"{found.name}.json"
    if place.exists():
        raise SystemExit(f"{place.relative_to(files.ROOT)} is there: numbers are not renewed")
    files.write(place, folded(found.numbers({})))


def main(numbers_of: Annotated[list[str] | None, typer.Option(metavar="FOLDER")] = None) -> None:
    if unknown := set(numbers_of or ()) - set(folders()):
        raise SystemExit(f"{', '.join(sorted(unknown))}: is no kept results folder")
    with tempfile.TemporaryDirectory() as scratch:
        for name in numbers_of or folders():
            found = analyse(name, Path(scratch))
            if numbers_of:
                numbers(found)
            else:
                words(found)
            print(name)
    if not numbers_of:
        wrong_studies.SAID.write_text(wrong_studies.all_said(), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
