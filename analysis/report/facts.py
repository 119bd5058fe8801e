"""What the report says of a study besides its numbers: where it ran, with what, and what is missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.load import bent
from analysis.load.results import Results
from analysis.wording import clean, digits

MOST_MISSING = 60
LOG_RANKS, LOG_LINES = 3, 12


@dataclass(frozen=True)
class Seen:
    """A property and its values, each with the number of launches that have it."""

    name: str
    values: list[tuple[str, int]]


@dataclass(frozen=True)
class Setting:
    """Hardware and versions of all launches that wrote an outcome, in launch order."""

    devices: list[str]
    hardware: list[Seen]
    versions: list[Seen]


@dataclass(frozen=True)
class Missing:
    """A launch that did not succeed; `logs` are (rank and exit code, its last lines)."""

    trial_id: str
    status: str
    error: str
    logs: list[tuple[str, str]]


@dataclass(frozen=True)
class Base:
    """A base case with its absolute performance."""

    strategy: str
    where: str
    throughput: str
    interval: str
    step: str
    launches: int


def setting(results: Results) -> Setting:
    devices: Counter[str] = Counter()
    hardware: dict[str, Counter[str]] = {}
    versions: dict[str, Counter[str]] = {}
    for trial_id in results.trials.filter(status="ok")["trial_id"]:
        outcome = results.outcome(trial_id)
        devices.update([device(outcome)])
        hosts = outcome.get("hosts")
        names = ", ".join(map(str, hosts)) if isinstance(hosts, list) else ""
        _count(hardware, {"hosts": names, **_mapping(outcome.get("hardware"))})
        _count(versions, _mapping(outcome.get("versions")))
    return Setting(list(devices), _seen(hardware), _seen(versions))


def device(outcome: dict[str, Any]) -> str:
    """What computed, as the ranks say it: a machine may hold a GPU that the trial did not use."""
    hardware = _mapping(outcome.get("hardware"))
    ranks = outcome.get("ranks")
    used = {str(r.get("device") or "") for r in ranks if isinstance(r, dict)} if isinstance(ranks, list) else set()
    accelerator = hardware.get("accelerator") or hardware.get("gpu")
    on_cpu = all(name.lower().startswith("cpu") for name in used) if used - {""} else not accelerator
    kind = "CPU" if on_cpu else ", ".join(sorted(used - {""})) or "accelerator"
    reports = bent.reports_of(outcome)
    models = bent.host_cpus(reports) if on_cpu else bent.devices(reports) if accelerator else []
    model = " + ".join(models) or (hardware.get("cpu") if on_cpu else accelerator)
    label = f"{kind} ({model})" if model else kind
    simulated = any(_mapping(place).get(word) for place in (hardware, outcome) for word in ("emulated", "simulated"))
    return f"emulated {label}" if simulated else label


def base_cases(estimates: pl.DataFrame) -> list[Base]:
    rows = estimates.filter(pl.col("workers") == 1, pl.col("strategy") == pl.col("base_case"))
    found: dict[tuple[Any, ...], Base] = {}
    for row in rows.iter_rows(named=True):
        low, high = row["throughput_low"], row["throughput_high"]
        interval = f"{digits(low)} – {digits(high)}" if low is not None else "no interval"
        identity = (row["strategy"], row["global_batch"], row["throughput"])
        modes = f"{found[identity].where.split(' · ')[0]} and {row['scaling']}" if identity in found else row["scaling"]
        found[identity] = Base(
            row["strategy"],
            f"{modes} · batch {row['global_batch']:,}",
            digits(row["throughput"]),
            interval,
            digits(1e3 * row["step_p50"]),
            row["n_launches"],
        )
    return list(found.values())


def missing(results: Results) -> tuple[list[Missing], int]:
    """The launches that did not succeed, with the ends of their logs, and how many more there are."""
    wrong = results.trials.filter(pl.col("status") != "ok").sort("order", nulls_last=True)
    found = []
    for trial_id, status, error in wrong.select("trial_id", "status", "error").head(MOST_MISSING).iter_rows():
        said = error or ("no outcome was written" if status == "unfinished" else "")
        found.append(Missing(trial_id, status, said, _logs(results.outcome(trial_id))))
    return found, max(0, len(wrong) - MOST_MISSING)


def not_planned(results: Results) -> list[tuple[str, str]]:
    """What the study asks for and its plan leaves out, each with why."""
    left_out, absent = results.plan.get("left_out"), results.plan.get("not_available")
    found = [("left out", str(line)) for line in left_out] if isinstance(left_out, list) else []
    return found + [(f"not available: {name}", str(why)) for name, why in _mapping(absent).items()]


def not_measured(results: Results) -> list[tuple[str, str]]:
    """What the plan holds and no launch that succeeded does, each with why."""
    plan, found = results.plan, not_planned(results)
    given_up = plan.get("given_up")
    found += [("left out in the last run", str(line)) for line in given_up] if isinstance(given_up, list) else []
    points, least = plan.get("points"), plan.get("repeats")
    if isinstance(points, list):
        done = Counter(results.trials.filter(status="ok")["point"].to_list())
        wanted = least if isinstance(least, int) else 1
        for point in points:
            have = done[str(point)]
            if have < wanted:
                found.append((str(point), f"{have} of at least {wanted} launches succeeded"))
    return found


def no_companion(results: Results) -> list[tuple[str, str]]:
    """The points that could have had the base case beside and have not, each with why."""
    planned = _mapping(results.plan.get("base_beside"))
    return [(clean(point), clean(why)) for point, why in planned.items() if isinstance(why, str)]


def folders(results: Results) -> list[dict[str, Any]]:
    """What was found in the user's own folders of files: by who planned the study, else by a launch's first rank."""
    planned = results.plan.get("data")
    if isinstance(planned, list) and planned:
        return [told for told in planned if isinstance(told, dict) and "path" in told]
    if not any(_mapping(results.study.get(key)).get("path") for key in ("data", "files")):
        return []
    # One launch of each point: those of before do not say, and to read each would take long.
    of_points = results.trials.filter(status="ok").unique("point", keep="first", maintain_order=True)
    for trial_id in of_points["trial_id"]:
        ranks = results.outcome(trial_id).get("ranks")
        for rank in ranks if isinstance(ranks, list) else []:
            if told := _mapping(_mapping(rank).get("data")):
                return [told]
    return []


def data(results: Results) -> list[tuple[str, str]]:
    """Each of these folders, and what is in it."""
    found = []
    for told in folders(results):
        if counts := [count for count in _mapping(told.get("classes")).values() if isinstance(count, int)]:
            each = f"{min(counts):,}" if len(set(counts)) == 1 else f"{min(counts):,} to {max(counts):,}"
            words = f"{_number(told.get('images'))} images of {len(counts):,} classes, {each} each"
            words += f"; {_number(told.get('held_out'))} held out ({told.get('held_out_from')})"
        else:
            words = f"{_number(told.get('files'))} PNG files"
        found.append((clean(str(told.get("path"))), clean(words)))
    return found


def left_out_of_data(results: Results) -> list[tuple[str, str]]:
    """Each of these folders that has files which were not taken, how many and why."""
    found = []
    for told in folders(results):
        if left_out := _mapping(told.get("left_out")):
            why = ", ".join(f"{_number(count)} {why}" for why, count in left_out.items())
            found.append((clean(str(told.get("path"))), clean(why)))
    return found


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "?"


def left_out(results: Results) -> list[str]:
    """What of the study's folder is not used, and what was not measured, a line each."""
    return not_used(results) + _lines(results, not_measured(results))


def left_out_of_status(results: Results) -> list[str]:
    """The same without points that lack launches, and strategies given up, which `scaling status` shows itself."""
    return not_used(results) + _lines(results, not_planned(results))


def not_used(results: Results) -> list[str]:
    return [clean(f"not used: {aside.path.name}: {aside.reason}") for aside in results.set_aside]


def _lines(results: Results, found: list[tuple[str, str]]) -> list[str]:
    said = [f"{what}: {why}" for what, why in found]
    return said + [f"left out of {path}: {why}" for path, why in left_out_of_data(results)]


def without_sums(results: Results) -> str:
    """How many launches do not tell whether their files are as they were, "" if all that ended well do."""
    ended_well = results.trials.filter(status="ok")
    count = int((~ended_well["has_sums"]).sum())
    said = "were measured before outcomes carried sums of their files; nothing tells whether these are as they were"
    return f"{count} of {len(ended_well)} launches {said}" if count else ""


def constant_factors(results: Results) -> list[tuple[str, str]]:
    trials = results.trials
    return [(name, str(trials[name][0])) for name in results.factors if trials[name].n_unique() == 1]


def varied_factors(results: Results) -> list[tuple[str, str]]:
    names = ["strategy", "workers", "global_batch", *results.factors]
    trials = results.trials
    return [
        (name, ", ".join(map(str, trials[name].unique().sort().to_list())))
        for name in names
        if len(trials) and (trials[name].n_unique() > 1 or name not in results.factors)
    ]


def _logs(outcome: dict[str, Any]) -> list[tuple[str, str]]:
    """The first ranks that did not end well and left words; all of them are in the log files."""
    exits = outcome.get("exits")
    rows = [row for row in exits if isinstance(row, dict)] if isinstance(exits, list) else []
    found = []
    for row in rows:
        lines = row.get("last_lines")
        if row.get("exit_code") != 0 and isinstance(lines, list) and lines:
            title = f"rank {row.get('rank')}, exit code {row.get('exit_code')}"
            found.append((title, "\n".join(str(line)[:500] for line in lines[-LOG_LINES:])))
    return found[:LOG_RANKS]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(into: dict[str, Counter[str]], values: dict[str, Any]) -> None:
    for name, value in values.items():
        if value not in (None, "", [], {}):
            into.setdefault(str(name), Counter()).update([_readable(str(name), value)])


def _readable(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value / 2**30:.1f} GiB"
    return str(value)


def _seen(counters: dict[str, Counter[str]]) -> list[Seen]:
    return [Seen(name, counter.most_common(8)) for name, counter in counters.items()]
