"""What of a launch is not as it was asked for, by what its ranks say of themselves.

What a rank does not say, as in results of before, is not known, and nothing is made of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from analysis.load.telemetry import number
from analysis.wording import clean, some

BENT: dict[str, Any] = {
    "bent": pl.String,  # what is not as asked, "; " between; "" if nothing is known to be
    "quota_periods": pl.Int64,  # of a CPU quota, in the measured steps; of the rank that was held back most
    "throttled_periods": pl.Int64,  # those of them in which it held the rank back
    "throttled_seconds": pl.Float64,  # for how long, summed over cores
    "made_with": pl.String,  # versions, variables, commit, container and kernel, as a JSON object
    "host_seconds": pl.String,  # host ─▶ its ranks' mean compute-only step, as a JSON object; null for a single host
}
# Variables that say where a rank is and not how it computes: others in each launch, or in each rank.
PLACE = re.compile(
    r"_(RANK|DIR|PORTS?|ADDR(ESS(ES)?)?|HOSTNAMES?|IFACE|IFNAME|VISIBLE_(DEVICES|CHIPS)|BOUNDS|ID)$"
    r"|^HOROVOD_((LOCAL_|CROSS_)?SIZE|CONTROLLER|[CG]PU_OPERATIONS)$|^TF_CONFIG$|^RAY_|^(TMPDIR|TMP|TEMP|TEMP_DIR)$"
    r"|_NUM_(THREADS|DEVICES)$|^(PJRT_)?NPROC$"  # of a process with several workers, those of all
)
DEVICES = re.compile(r"--xla_force_host_platform_device_count=\S*")
MOST, LONGEST = 3, 60  # of what differs, named in a warning; of a value, letters
COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")
RECORDED = "$"  # beside a rank's variables: that they are known, and one that is not among them was not set


def of(outcome: dict[str, Any]) -> dict[str, Any]:
    """The columns BENT of a launch but `host_seconds`."""
    reports = reports_of(outcome)
    worst = max(reports, key=lambda r: number(r.get("throttled_periods")) or 0, default={})
    whole = {name: number(worst.get(name)) for name in ("quota_periods", "throttled_periods")}
    return {
        "bent": "; ".join(_told(reports)),
        **{name: None if value is None else int(value) for name, value in whole.items()},
        "throttled_seconds": number(worst.get("throttled_seconds")),
        "made_with": json.dumps(_together([_made_with(said) for said in (outcome, *reports)]), sort_keys=True),
    }


def reports_of(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """What the ranks reported, in their order."""
    return [report for report in _list(outcome.get("ranks")) if isinstance(report, dict)]


def by_host(outcome: dict[str, Any], seconds: Sequence[float]) -> str | None:
    """The column `host_seconds`; `seconds` are the ranks', in their order."""
    hosts = [str(report.get("host")) for report in reports_of(outcome)]
    if len(hosts) != len(seconds) or len(set(hosts)) < 2:
        return None
    mean = {name: [s for host, s in zip(hosts, seconds, strict=True) if host == name] for name in sorted(set(hosts))}
    return json.dumps({clean(name): round(sum(each) / len(each), 9) for name, each in mean.items()})


def host_cpus(reports: Sequence[dict[str, Any]]) -> str | None:
    """The CPU models of the ranks' hosts."""
    said = [_mapping(report.get("hardware")).get("cpu") for report in reports]
    models = {clean(str(model)).replace("; ", ", ") for model in said if model}
    return " + ".join(sorted(models)) or None


def _told(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from _cores(reports)
    yield from _gpus(reports)
    allowed = [(number(report.get("cpu_quota")), _threads(report)) for report in reports]
    if short := [(quota / threads, quota, threads) for quota, threads in allowed if quota and quota < threads]:
        _, quota, threads = min(short)
        yield f"a CPU quota of {quota:g} cores for {_count(threads, 'thread')} of a rank"
    if (nicest := max((number(report.get("niceness")) or 0 for report in reports), default=0)) > 0:
        yield f"ranks that give way to others (niceness {nicest:g})"
    if len(models := (host_cpus(reports) or "").split(" + ")) > 1:
        yield f"hosts with different CPUs ({' / '.join(models)})"
    for text in dict.fromkeys(text for report in reports for text in _list(report.get("not_as_asked"))):
        yield clean(str(text)).replace("; ", ", ")
    if parted := _parted([_made_with(report) for report in reports]):
        yield f"ranks that differ in {some(parted, MOST)}"


def _cores(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Ranks with more threads than cores; ranks of one machine on the same cores."""
    known = [(report, threads, mine) for report in reports if (threads := _threads(report)) and (mine := _own(report))]
    if short := [(threads / len(mine), threads, len(mine)) for _, threads, mine in known if threads > len(mine)]:
        _, threads, cores = max(short)
        yield f"fewer cores than threads in a rank ({_count(cores, 'core')} for {_count(threads, 'thread')})"
    machines: dict[tuple[str, str], list[set[int]]] = {}
    for report, _, mine in known:
        machines.setdefault((str(report.get("host")), str(report.get("address"))), []).append(mine)
    shared = []
    for ranks in machines.values():
        times = Counter(core for mine in ranks for core in mine)
        crowd = [mine for mine in ranks if any(times[core] > 1 for core in mine)]
        if crowd:
            shared.append((max(times.values()), len(crowd), len(set().union(*crowd))))
    if shared:
        _, ranks_there, cores = max(shared)
        yield f"ranks that share cores ({ranks_there} ranks on {_count(cores, 'core')} of a host)"


def _gpus(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """GPUs that several ranks use. An index means another device in each control group, so only identifiers tell."""
    visible = [str(_mapping(report.get("environment")).get("CUDA_VISIBLE_DEVICES", "")) for report in reports]
    times = Counter(gpu for text in visible for gpu in text.split(",") if gpu.startswith(("GPU-", "MIG-")))
    if shared := sum(count > 1 for count in times.values()):
        yield f"ranks that share GPUs ({max(times.values())} ranks on one, {_count(shared, 'GPU')} shared)"


def _threads(report: dict[str, Any]) -> int:
    """What the rank computes with, as asked for or as its framework has it; 0 if it does not say."""
    return max(int(number(report.get(name)) or 0) for name in ("threads", "intra_op_threads"))


def _own(report: dict[str, Any]) -> set[int]:
    """The physical cores that the rank may use; where it does not say, as if each CPU were one."""
    for name in ("cores", "cpus"):
        if (cores := _list(report.get(name))) and all(isinstance(core, int) for core in cores):
            return set(cores)
    return set()


def _made_with(said: dict[str, Any]) -> dict[str, str]:
    """Name ─▶ what a rank was made with; variables with a dollar before their names."""
    versions, variables, hardware = (_mapping(said.get(name)) for name in ("versions", "environment", "hardware"))
    found = versions | {"commit": said.get("commit"), "container": said.get("container")}
    found |= {"system": hardware.get("system"), RECORDED: "yes" if isinstance(said.get("environment"), dict) else None}
    found |= {f"${name}": value for name, value in variables.items() if not PLACE.search(name)}
    flags = " ".join(DEVICES.sub("", str(found.pop("$XLA_FLAGS", ""))).split())
    found |= {"$XLA_FLAGS": flags} if flags else {}
    return {clean(name): clean(str(value)).replace("; ", ", ") for name, value in found.items() if value is not None}


def _values(name: str, each: Sequence[Mapping[str, str]]) -> list[str]:
    """All values of `name`. Where it is not said it is not known, but a variable among those known is not set."""
    not_set = "not set" if name.startswith("$") else None
    values = {one.get(name, not_set if RECORDED in one else None) for one in each}
    return sorted(value for value in values if value is not None)


def _together(each: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    return {name: _values(name, each) for name in dict.fromkeys(name for one in each for name in one)}


def differences(launches: Iterable[str | None]) -> list[str]:
    """What launches with these `made_with` were not all made with: `torch (2.8.0 / 2.9.0)`."""
    texts = sorted({text for text in launches if text})
    return _parted([{name: " + ".join(values) for name, values in json.loads(text).items()} for text in texts])


def _parted(each: Sequence[Mapping[str, str]]) -> list[str]:
    return [
        f"{name} ({' / '.join(map(_short, values))})" for name, values in _together(each).items() if len(values) > 1
    ]


def _short(value: str) -> str:
    value = COMMIT.sub(r"\1", value)
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}…"


def _count(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
