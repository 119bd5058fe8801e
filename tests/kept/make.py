"""python -m tests.kept.make FROM NAME [--spoilt]

Takes the results folder FROM, of a real run, into results/NAME without what is a machine's own: names of hosts,
addresses, paths, users, processor, environment and commit are made up, logs are cut to their first lines and telemetry
to the time of training. What was measured stays as it is. `--spoilt` spoils some launches of it, each in another way.
Then `python -m tests.kept.renew --numbers-of NAME` keeps what the analysis makes of it.
"""

from __future__ import annotations

import getpass
import json
import re
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.contract.folder import SUMMED, sum_of
from tests.kept import files

HOME = "/home/user"
MADE_UP: dict[str, Any] = {
    "cpu": "Example CPU 9000",
    "system": "Linux 6.1.0 x86_64",
    "environment": {"OMP_NUM_THREADS": "1"},
    "container": "apptainer example.sif",
    "commit": "0" * 40,
}
VERSIONS = ("python", "torch", "tensorflow-cpu", "scaling")
LOG_LINES, LOG_WIDTH = 8, 120
AFTER, MOST_SAMPLES = 0.6, 6  # telemetry is kept until so many seconds after training, and so much of it
ADDRESS = re.compile(r"(?<![\d.])(?!127\.|0\.0\.0\.0)\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")
PROCESS = re.compile(r"(?<= )\d+(?= \w+\.cc:)|(?<=pid[= ])\d+")
OUR_PATH = re.compile(r"(?<![\w./])/(?:work|root|tmp|home(?!/user)|var|opt|mnt|srv|Users)\b[^\s'\":,;]*")


class Disguise:
    """What is a machine's own ─▶ what is put in its place; the same each time."""

    def __init__(self, source: Path) -> None:
        self.hosts: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.processes: dict[int, int] = {}
        self.paths = {
            str(source.resolve()): f"{HOME}/study",
            sys.prefix: f"{HOME}/scaling/.venv",
            str(files.ROOT): f"{HOME}/scaling",
        }
        for path in sorted(source.rglob("outcome.json")):
            for host in json.loads(path.read_text(encoding="utf-8"))["hosts"]:
                self.host(host)
        self.host(socket.gethostname())

    def host(self, name: str) -> str:
        return self.hosts.setdefault(name, f"node{len(self.hosts) + 1}.example")

    def address(self, address: str) -> str:
        return self.addresses.setdefault(address, f"192.0.2.{len(self.addresses) + 1}")

    def process(self, number: int) -> int:
        return self.processes.setdefault(number, 4000 + len(self.processes))

    def text(self, text: str) -> str:
        for path, other in self.paths.items():
            text = text.replace(path, other)
        text = OUR_PATH.sub(f"{HOME}/elsewhere", text)
        text = ADDRESS.sub(lambda found: self.address(found[0]), text)
        text = PROCESS.sub(lambda found: str(self.process(int(found[0]))), text)
        for host, other in self.hosts.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w.])", other, text)
        return re.sub(rf"\b{re.escape(getpass.getuser())}\b", "user", text)

    def value(self, value: Any, key: str = "") -> Any:
        """`value`, which is that of `key`, with everything in it."""
        if key == "commit" or (key in MADE_UP and value is not None and not isinstance(value, int | float)):
            return MADE_UP[key]
        if key == "versions":
            return {name: version for name, version in value.items() if name in VERSIONS}
        if key == "hardware":
            value = value | {"memory_bytes": 64 << 30} if value else value
        if isinstance(value, dict):
            return {each: self.value(inside, each) for each, inside in value.items()}
        if isinstance(value, list):
            return [self.value(inside, key) for inside in value]
        if key == "pid" and isinstance(value, int):
            return self.process(value)
        return self.text(value) if isinstance(value, str) else value

    def name(self, name: str) -> str:
        """A file's name, which may hold a host's."""
        for host, other in self.hosts.items():
            name = re.sub(rf"^telemetry-{re.escape(host)}(?=-\d+\.jsonl$|\.jsonl$)", f"telemetry-{other}", name)
        return name


def take(source: Path, target: Path) -> None:
    """Copy the results folder `source` to `target` in disguise."""
    disguise = Disguise(source)
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        if path.is_dir() or inside.parts[0] in ("figures", "report", ".lock", ".look") or path.is_symlink():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.name.startswith("telemetry-"):
            text = _while_training(path.parent, text)
        if path.suffix == ".json":
            # A launch's reports are most of a folder, and no one's reading.
            form: Any = {"separators": (",", ":")} if path.name.startswith(("rank-", "outcome")) else {"indent": 1}
            text = json.dumps(disguise.value(json.loads(text)), **form) + "\n"
        elif path.suffix == ".jsonl":
            # As the two writers of lines have it, with a space after a comma or without.
            apart = (", ", ": ") if text.startswith('{"phase": ') else (",", ":")
            rows = (disguise.value(json.loads(line)) for line in text.splitlines())
            text = "".join(json.dumps(row, separators=apart) + "\n" for row in rows)
        elif path.suffix in (".log", ".txt"):
            text = "".join(f"{line[:LOG_WIDTH]}\n" for line in disguise.text(text).splitlines()[:LOG_LINES])
        else:
            text = disguise.text(text)
        place = target / inside.parent / disguise.name(path.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    for path in target.rglob("outcome.json"):
        _sum_anew(path)


def _sum_anew(outcome: Path) -> None:
    """In disguise a launch's files are others than it had."""
    content = json.loads(outcome.read_text(encoding="utf-8"))
    if "sums" in content:
        there = [path for path in outcome.parent.iterdir() if SUMMED.fullmatch(path.name)]
        content["sums"] = {path.name: asdict(sum_of(path)) for path in there}
        outcome.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def _while_training(home: Path, text: str) -> str:
    """The lines of telemetry that are no samples, and the last samples of the time of training."""
    ends = [json.loads(path.read_text(encoding="utf-8"))["train_ended_unix"] for path in home.glob("rank-*.json")]
    rows = [(line, json.loads(line)) for line in text.splitlines()]
    samples = [line for line, row in rows if row["kind"] == "sample" and (not ends or row["unix"] <= max(ends) + AFTER)]
    cut = {line for line, row in rows if row["kind"] == "sample"} - set(samples[-MOST_SAMPLES:])
    return "".join(f"{line}\n" for line, _ in rows if line not in cut)


def spoil(folder: Path) -> None:
    """Spoil launches of the folder, those of several ranks first, one in each way that the reader must tell; the rest
    stay sound."""
    homes = sorted((folder / "trials").iterdir(), key=lambda home: not (home / "rank-00001.json").exists())
    for home, way in zip(homes, (_unfinished, _cut_outcome, _cut_line, _failed, _cut_telemetry), strict=False):
        way(home)
    (folder / "trials" / "notes.txt").write_text("somebody's own\n", encoding="utf-8")
    aside = folder / "set-aside" / f"{homes[-1].name}-20260101T000000000000"
    aside.mkdir(parents=True)
    (aside / "trial.json").write_bytes((homes[-1] / "trial.json").read_bytes())


def _unfinished(home: Path) -> None:
    (home / "outcome.json").unlink()


def _cut_outcome(home: Path) -> None:
    _cut(home / "outcome.json")


def _cut_line(home: Path) -> None:
    _cut(home / "rank-00001.jsonl")


def _cut_telemetry(home: Path) -> None:
    for path in home.glob("telemetry-*.jsonl"):
        _cut(path, b'{"kind":"sample","unix":1\n')


def _cut(path: Path, end: bytes = b"") -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3] + end)


def _failed(home: Path) -> None:
    path = home / "outcome.json"
    outcome = json.loads(path.read_text(encoding="utf-8"))
    outcome |= {"status": "failed", "error": "rank 1 ended with exit code 1: MemoryError"}
    outcome["exits"][1] |= {"exit_code": 1, "last_lines": ["Traceback (most recent call last):", "MemoryError"]}
    path.write_text(json.dumps(outcome) + "\n", encoding="utf-8")


def main(
    source: Annotated[Path, typer.Argument(metavar="FROM")],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    spoilt: Annotated[bool, typer.Option("--spoilt")] = False,
) -> None:
    target = files.RESULTS / name
    if target.exists():
        raise SystemExit(f"{target.relative_to(files.ROOT)} is there; what is kept is not made anew")
    take(source, target)
    if spoilt:
        spoil(target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target.relative_to(files.ROOT)}: {size / 1e3:.0f} kB; read it before you commit it")


if __name__ == "__main__":
    typer.run(main)
