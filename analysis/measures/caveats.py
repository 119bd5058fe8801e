"""What a reader must know of a number before he trusts it: the warnings of a point's launches.

    texts = launch_warnings(launches, Around.of(results))
    marks, notes = lettered(frame["warning"])           a letter for each row, and what the letters mean

There is this one way by which warnings go with a number: the column `warning` of a frame ("; " between), which every
table on a terminal and on the page shows, and CSV files hold; `by_point` and `counted` for who has no row of a point.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from analysis import wording
from analysis.load import bent
from analysis.load.results import Results
from analysis.measures import hosts

FEW_LAUNCHES = 5
BASE = "its base case"
FEW = f"fewer than {FEW_LAUNCHES} launches"


@dataclass(frozen=True)
class Around:
    """What of a study its points' warnings need beside their launches.

    `added`: launches were added until an interval was narrow. `slow`: hosts that compute slower than their peers over
    all launches, each with its warning.
    """

    added: bool = False
    slow: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Results) -> Around:
        repeats = results.study.get("repeats")
        added = isinstance(repeats, dict) and repeats.get("until_ci") is not None
        return cls(added, hosts.slow(results))


def launch_warnings(trials: pl.DataFrame, around: Around) -> list[str]:
    """What to warn of in the launches of one point."""
    ok, lost = trials.filter(status="ok"), failed(trials)
    n, found = len(ok), []
    if ok["emulated"].any():
        found.append("EMULATED: CPU devices stood in for a TPU's cores")
    if n < FEW_LAUNCHES:
        found.append(FEW)
    if around.added:
        found.append("launches were added until the interval was narrow: it covers less than 95%")
    if lost:
        found.append(f"{lost} of {n + lost} launches did not succeed")
    found += _still(ok) + _of_blocks(ok)
    if unsteady := ok.filter(pl.col("steady").eq(False)).height:
        found.append(f"not steady in {unsteady} of {n} launches")
    if beside := ok.filter(pl.col("concurrent").eq(True)).height:
        found.append(f"{beside} of {n} launches ran beside other trials, which disturb")
    if noisy := ok.filter(pl.col("noisy_neighbour").eq(True)).height:
        found.append(f"a noisy neighbour in {noisy} of {n} launches")
    found += _not_as_asked(ok)
    if (unchecked := ok["steady"].null_count()) > n / 2:
        found.append(f"steadiness not checked in {unchecked} of {n} launches")
    if len(ran_on := hardware(ok)) > 1:
        found.append(f"launches ran on different hardware ({' / '.join(sorted(ran_on))})")
    if made := bent.differences(ok["made_with"]):
        found.append(f"launches differ in {wording.some(made, bent.MOST)}")
    return found + _hosts(ok, around)


def _still(ok: pl.DataFrame) -> list[str]:
    found, n = [], len(ok)
    if len(still := ok.filter(pl.col("stood_still_seconds") > 0)):
        seconds, whole = still["stood_still_seconds"].sum(), still["train_seconds"].sum()
        on = ", not on all ranks at once" if still["stood_still_on_all"].eq(False).any() else ""
        found.append(
            f"{len(still)} of {n} launches stood still for {seconds:.1f} of their {whole:.1f} s, which are counted{on}"
        )
    if len(alone := ok.filter(pl.col("alone_still_seconds") > 0)):
        base = alone["exposed_seconds"].eq(0.0).all()  # by definition
        bent_by_it = "their compute-only time is too long" if base else "exposed communication is too small"
        found.append(f"{len(alone)} of {n} launches stood still in compute-only steps: {bent_by_it}")
    if halted := ok.filter(pl.col("base_still_seconds") > 0).height:
        found.append(f"{halted} of {n} launches stood still in steps of the base case beside: efficiency is too large")
    return found


def _of_blocks(ok: pl.DataFrame) -> list[str]:
    found, n = [], len(ok)
    if len(awake := ok.filter(pl.col("rounds_unused") > 0)):
        unused, rounds = awake["rounds_unused"].sum(), awake["rounds"].sum()
        why = "a side that was stopped used a CPU"
        found.append(f"{unused} of {rounds} rounds in {len(awake)} of {n} launches were not used: {why}")
    if len(off := ok.filter(pl.col("blocks_off") > 0)):
        found.append(f"blocks far from the others ({off['blocks_off'].sum()}, counted) in {len(off)} of {n} launches")
    return found


def _not_as_asked(ok: pl.DataFrame) -> list[str]:
    n = len(ok)
    found = [f"{text} in {count} of {n} launches" for text, count in _told(ok).items()]
    if len(held := ok.filter(pl.col("throttled_periods") > 0)):
        periods, throttled = held["quota_periods"].sum(), held["throttled_periods"].sum()
        found.append(f"a CPU quota held {len(held)} of {n} launches back, in {throttled} of {periods} periods")
    return found


def _told(launches: pl.DataFrame) -> Counter[str]:
    """What is not as asked in these launches, each with how many have it."""
    return Counter(text for told in launches["bent"].drop_nulls() for text in told.split("; ") if text)


def _hosts(ok: pl.DataFrame, around: Around) -> list[str]:
    here = {host for text in ok["host_names"].drop_nulls().unique() for host in json.loads(text)}
    found = [text for host, text in around.slow.items() if host in here]
    several = ok.filter(pl.col("hosts") > 1)
    if several["host_seconds"].null_count() >= hosts.FEWEST_LAUNCHES:
        found.append("whether one of the hosts is slower cannot be told without compute-only steps")
    known = several.select("host_seconds", "host_ranks").drop_nulls("host_seconds").rows()
    if sum(not hosts.peers(*each) for each in known) >= hosts.FEWEST_LAUNCHES:
        found.append("whether one of the hosts is slower cannot be told where each has another number of ranks")
    return found


def of_launch(row: Mapping[str, Any]) -> str:
    """What to warn of in a single launch, a row of the launches' frame, beside what has columns of its own there."""
    found = [row["bent"] or ""]
    if row["throttled_periods"]:
        found.append(f"held back by a CPU quota in {row['throttled_periods']} of {row['quota_periods']} periods")
    if row["stood_still_seconds"]:
        found.append(f"stood still for {row['stood_still_seconds']:.1f} s")
    if row["alone_still_seconds"]:
        found.append(f"stood still for {row['alone_still_seconds']:.1f} s in compute-only steps")
    if row["base_still_seconds"]:
        found.append(f"stood still for {row['base_still_seconds']:.1f} s in steps of the base case beside")
    if row["rounds_unused"]:
        found.append(f"{row['rounds_unused']} of {row['rounds']} rounds not used")
    if row["blocks_off"]:
        found.append(f"blocks far from the others ({row['blocks_off']}, counted)")
    return "; ".join(filter(None, found))


def hardware(launches: pl.DataFrame) -> set[str]:
    """What the launches ran on, as far as they say: the device, and the host's CPU where that is another."""
    pairs = launches.select("device", "host_cpu").drop_nulls("device").unique().rows()
    return {device if host in (None, device) else f"{device} in {host}" for device, host in pairs}


def failed(trials: pl.DataFrame) -> int:
    """Launches that ended otherwise than well; one without an outcome may still run, and has not ended."""
    return int(trials["status"].is_in(["ok", "unfinished"]).not_().sum())


def reference_warnings(
    own: Sequence[str], ok: pl.DataFrame, its: Sequence[str], reference: pl.DataFrame, called: str = BASE
) -> list[str]:
    """What to warn of where launches `ok` are set against those of a `reference`: `its` warnings but for those that are
    their `own` too, and what the two do not share."""
    return [f"{called}: {text}" for text in its if text not in own] + unlike(ok, reference, called)


def unlike(ok: pl.DataFrame, other: pl.DataFrame, called: str = BASE) -> list[str]:
    """What launches of the `other` ran on and were made with that these did not and were not."""
    found = []
    ran_on, on = hardware(ok), hardware(other)
    if ran_on and on and ran_on != on:
        found.append(f"{called} ran on other hardware ({' / '.join(sorted(on))})")
    if made := bent.apart(ok["made_with"], other["made_with"]):
        found.append(f"{called} differs in {wording.some(made, bent.MOST)}")
    return found


def by_point(results: Results) -> dict[str, list[str]]:
    """Point ─▶ its warnings, of each that has a launch that is ok, whatever its workload."""
    around = Around.of(results)
    points = results.trials.partition_by("point", maintain_order=True) if len(results.trials) else []
    return {p["point"][0]: launch_warnings(p, around) for p in points if (p["status"] == "ok").any()}


def joined(
    launches: pl.DataFrame,
    warned: Mapping[str, Sequence[str]],
    reference: pl.DataFrame | None = None,
    called: str = BASE,
) -> str:
    """The column `warning` of a row that stands on these launches, and on those of a `reference` that they are set
    against; `warned` is that of `by_point`."""

    def told(frame: pl.DataFrame) -> list[str]:
        points = frame["point"].unique(maintain_order=True)
        return list(dict.fromkeys(text for point in points for text in warned[point]))

    own = told(launches)
    if reference is not None and reference is not launches:
        own += reference_warnings(own, launches, told(reference), reference, called)
    return "; ".join(own)


def kinds(warnings: Mapping[Any, Sequence[str]]) -> list[tuple[str, int]]:
    """Each kind of warning, and how many have it, the commonest first."""
    counts = Counter(name for texts in warnings.values() for name in dict.fromkeys(map(kind, texts)))
    return counts.most_common()


def counted(warnings: Mapping[Any, Sequence[str]], what: str = "points") -> list[str]:
    """The same in words: `3 of 7 points: not steady in some launches`."""
    return [f"{count} of {len(warnings)} {what}: {name}" for name, count in kinds(warnings)]


def kind(warning: str) -> str:
    """The warning without the numbers of its point."""
    warning = re.sub(r"\b\d+ of \d+ launches", "some launches", warning)
    warning = re.sub(r"^\d+ of \d+ rounds", "some rounds", re.sub(r" \(\d+, counted\)", "", warning))
    warning = re.sub(
        r" takes [\d.]+ \[.*\] of its time alone, which is not 1", " does not take its time alone", warning
    )
    return re.sub(r" for [\d.]+ of their [\d.]+ s, which are counted|, in \d+ of \d+ periods", "", warning)


def lettered(warnings: Iterable[str]) -> tuple[list[str], list[str]]:
    """For the rows of a table: the letters that each carries, and the lines that say what they mean. What all rows
    share has no letter."""
    rows = [list(filter(None, text.split("; "))) for text in warnings]
    texts = dict.fromkeys(text for row in rows for text in row)
    of_all = [text for text in texts if len(rows) > 1 and all(text in row for row in rows)]
    some = [text for text in texts if text not in of_all]
    letters = {text: chr(ord("a") + i) if i < 26 else "*" for i, text in enumerate(some)}
    marks = ["".join(sorted(letters.get(text, "") for text in row)) for row in rows]
    return marks, [
        *(f"All rows: {text}." for text in of_all),
        *(f"{letter}: {text}" for text, letter in letters.items()),
    ]
