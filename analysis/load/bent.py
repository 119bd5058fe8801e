"""What of a launch is not as it was asked for, by what its ranks say of themselves.

What a rank does not say, as in results of before, is not known, and nothing is made of it.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

import polars as pl

from analysis.load.values import listed, mapping, number, whole
from analysis.wording import clean, some

BENT: dict[str, Any] = {
    "bent": pl.String,  # what is not as asked, "; " between; "" if nothing is known to be
    "quota_periods": pl.Int64,  # of a CPU quota, in the measured steps; of the rank that was held back most
    "throttled_periods": pl.Int64,  # those of them in which it held the rank back
    "throttled_seconds": pl.Float64,  # for how long, summed over cores
    "made_with": pl.String,  # versions, variables, commit, container and kernel, as a JSON object
    "host_names": pl.String,  # as a JSON list
    # Of several hosts, as JSON objects: host ─▶ mean over its ranks of each one's median compute-only step; how many.
    "host_seconds": pl.String,
    "host_ranks": pl.String,
}
# Variables that say where a rank is and not how it computes: others in each launch, or in each rank.
PLACE = re.compile(
    r"_(RANK|DIR|PORTS?|ADDR(ESS(ES)?)?|HOSTNAMES?|VISIBLE_(DEVICES|CHIPS)|BOUNDS|ID)$"
    r"|^HOROVOD_((LOCAL_|CROSS_)?SIZE|CONTROLLER|[CG]PU_OPERATIONS|GLOO_IFACE)$|^GLOO_SOCKET_IFNAME$"
    r"|^TF_CONFIG$|^RAY_|^(TMPDIR|TMP|TEMP|TEMP_DIR)$"
    r"|_NUM_(THREADS|DEVICES)$|^(PJRT_)?NPROC$"  # of a process with several workers, those of all
)
OURS = re.compile(r"^NCCL_SOCKET_IFNAME==")  # the interface where the ranks meet, which a user names without the sign
DEVICES = re.compile(r"--xla_force_host_platform_device_count=\S*")
MOST, LONGEST = 3, 60  # of what differs, named in a warning; of a value, letters
COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")
# Beside a rank's variables: that they are known, and one that is not among them was not set. Launches without sums are
# of earlier versions, which recorded fewer: of these only one that another of them names.
RECORDED, ALL, FEWER = "$", "all", "fewer"


def of(outcome: dict[str, Any]) -> dict[str, Any]:
    """The columns BENT of a launch but `host_seconds`."""
    reports = reports_of(outcome)
    recorded = ALL if outcome.get("sums") else FEWER
    worst = max(reports, key=lambda r: whole(r.get("throttled_periods")) or 0, default={})
    names = {clean(str(name)) for name in (*listed(outcome.get("hosts")), *(r["host"] for r in reports if "host" in r))}
    return {
        "bent": "; ".join(_told(reports)),
        **{name: whole(worst.get(name)) for name in ("quota_periods", "throttled_periods")},
        "throttled_seconds": number(worst.get("throttled_seconds")),
        "made_with": json.dumps(_together([_made_with(s, recorded) for s in (outcome, *reports)]), sort_keys=True),
        "host_names": json.dumps(sorted(names)),
    }


def reports_of(outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """What the ranks reported, in their order."""
    return [report for report in listed(outcome.get("ranks")) if isinstance(report, dict)]


def by_host(outcome: dict[str, Any], seconds: Mapping[int, float]) -> dict[str, str]:
    """The columns `host_seconds` and `host_ranks`, of rank ─▶ seconds; {} where not all ranks say which host is theirs,
    or it is the same."""
    host_of = {report.get("rank"): clean(str(report["host"])) for report in reports_of(outcome) if "host" in report}
    names = sorted(set(host_of.values()))
    if host_of.keys() != seconds.keys() or len(names) < 2:
        return {}
    each = {name: [s for rank, s in seconds.items() if host_of[rank] == name] for name in names}
    return {
        "host_seconds": json.dumps({name: fmean(values) for name, values in each.items()}),
        "host_ranks": json.dumps({name: len(values) for name, values in each.items()}),
    }


def host_cpus(reports: Iterable[dict[str, Any]]) -> list[str]:
    """The CPU models of the ranks' hosts."""
    return _models(mapping(report.get("hardware")).get("cpu") for report in reports)


def devices(reports: Iterable[dict[str, Any]]) -> list[str]:
    """What the ranks computed on: their accelerators, and the CPUs of those that have none."""
    each = [mapping(report.get("hardware")) for report in reports]
    return _models(hardware.get("accelerator") or hardware.get("gpu") or hardware.get("cpu") for hardware in each)


def _models(names: Iterable[Any]) -> list[str]:
    return sorted({clean(str(name)).replace("; ", ", ") for name in names if name})


def _told(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield from _cores(reports)
    yield from _gpus(reports)
    yield from _quotas(reports)
    if (nicest := max((number(report.get("niceness")) or 0 for report in reports), default=0)) > 0:
        yield f"ranks that give way to others (niceness {nicest:g})"
    if len(models := host_cpus(reports)) > 1:
        yield f"hosts with different CPUs ({' / '.join(models)})"
    if len(on := devices(reports)) > 1 and on != models:
        yield f"ranks on different devices ({' / '.join(on)})"
    for text in dict.fromkeys(str(text) for report in reports for text in listed(report.get("not_as_asked"))):
        yield clean(text).replace("; ", ", ")
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
        machines.setdefault(_machine(report), []).append(mine)
    shared = []
    for ranks in machines.values():
        times = Counter(core for mine in ranks for core in mine)
        crowd = [mine for mine in ranks if any(times[core] > 1 for core in mine)]
        if crowd:
            shared.append((max(times.values()), len(crowd), len(set().union(*crowd))))
    if shared:
        _, ranks_there, cores = max(shared)
        yield f"ranks that share cores ({ranks_there} ranks on {_count(cores, 'core')} of a host)"


def _quotas(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """A quota below the threads that have it to share: those of a machine's ranks that have the same."""
    sharing: dict[tuple[Any, ...], list[int]] = {}
    for report in reports:
        if (quota := number(report.get("cpu_quota"))) and (threads := _threads(report)):
            sharing.setdefault((quota, *_machine(report)), []).append(threads)
    if short := [(key[0] / sum(each), key[0], each) for key, each in sharing.items() if key[0] < sum(each)]:
        _, quota, each = min(short)
        whose = "a rank" if len(each) == 1 else f"{len(each)} ranks of a host"
        yield f"a CPU quota of {quota:g} cores for {_count(sum(each), 'thread')} of {whose}"


def _gpus(reports: Sequence[dict[str, Any]]) -> Iterator[str]:
    """GPUs that several ranks use. An index means another device in each control group, so only identifiers tell."""
    visible = [str(mapping(report.get("environment")).get("CUDA_VISIBLE_DEVICES", "")) for report in reports]
    times = Counter(gpu for text in visible for gpu in text.split(",") if gpu.startswith(("GPU-", "MIG-")))
    if shared := sum(count > 1 for count in times.values()):
        yield f"ranks that share GPUs ({max(times.values())} ranks on one, {_count(shared, 'GPU')} shared)"


def _threads(report: dict[str, Any]) -> int:
    """What the rank computes with, as asked for or as its framework has it; 0 if it does not say."""
    return max(whole(report.get(name)) or 0 for name in ("threads", "intra_op_threads"))


def _own(report: dict[str, Any]) -> set[int]:
    """The physical cores that the rank may use; where it does not say, as if each CPU were one."""
    for name in ("cores", "cpus"):
        if (cores := listed(report.get(name))) and all(isinstance(core, int) for core in cores):
            return set(cores)
    return set()


def _machine(report: dict[str, Any]) -> tuple[str, str]:
    return str(report.get("host")), str(report.get("address"))


def _made_with(said: dict[str, Any], recorded: str = ALL) -> dict[str, str]:
    """Name ─▶ what a rank was made with; variables with a dollar before their names."""
    versions, variables, hardware = (mapping(said.get(name)) for name in ("versions", "environment", "hardware"))
    found = versions | {"commit": said.get("commit"), "container": said.get("container")}
    found |= {
        "system": hardware.get("system"),
        RECORDED: recorded if isinstance(said.get("environment"), dict) else None,
    }
    kept = {name: value for name, value in variables.items() if not PLACE.search(name)}
    found |= {f"${name}": value for name, value in kept.items() if not OURS.match(f"{name}={value}")}
    flags = " ".join(DEVICES.sub("", str(found.pop("$XLA_FLAGS", ""))).split())
    found |= {"$XLA_FLAGS": flags} if flags else {}
    return {clean(name): clean(str(value)).replace("; ", ", ") for name, value in found.items() if value is not None}


def _values(name: str, each: Sequence[Mapping[str, str]], others: Sequence[Mapping[str, str]] = ()) -> set[str]:
    """All values of `name`. Where it is not said it is not known, but a variable among those known is not set; the
    `others` tell too what was recorded."""
    values = {one[name] for one in each if name in one}
    if name.startswith("$") and name != RECORDED:
        in_fewer = any(name in one and one.get(RECORDED) == FEWER for one in (*each, *others))
        known = (ALL, FEWER) if in_fewer else (ALL,)
        values |= {"not set" for one in each if name not in one and one.get(RECORDED) in known}
    return values


def _together(each: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    return {name: sorted(_values(name, each)) for name in dict.fromkeys(name for one in each for name in one)}


def differences(launches: Iterable[str | None]) -> list[str]:
    """What launches with these `made_with` were not all made with: `torch (2.8.0 / 2.9.0)`."""
    return _parted(_read(launches))


def apart(
    side: Iterable[str | None], other: Iterable[str | None], *, but: Callable[[str], object] | None = None
) -> list[str]:
    """What launches of two sides were made with that no launch of the other was, without the names that are `but`. What
    differs within a side is told of that side."""
    one, two = _read(side), _read(other)
    pairs = {name: (_values(name, one, two), _values(name, two, one)) for name in _names([*one, *two])}
    return [_versus(name, a | b) for name, (a, b) in pairs.items() if a and b and not a & b and not (but and but(name))]


def _read(launches: Iterable[str | None]) -> list[dict[str, str]]:
    texts = sorted({text for text in launches if text})
    return [{name: " + ".join(values) for name, values in json.loads(text).items()} for text in texts]


def _names(each: Sequence[Mapping[str, str]]) -> list[str]:
    return [name for name in dict.fromkeys(name for one in each for name in one) if name != RECORDED]


def _parted(each: Sequence[Mapping[str, str]]) -> list[str]:
    return [_versus(name, values) for name in _names(each) if len(values := _values(name, each)) > 1]


def _versus(name: str, values: set[str]) -> str:
    return f"{name} ({' / '.join(map(_short, sorted(values)))})"


def _short(value: str) -> str:
    value = COMMIT.sub(r"\1", value)
    return value if len(value) <= LONGEST else f"{value[:LONGEST]}…"


def _count(count: int, name: str) -> str:
    return f"{count} {name}{'' if count == 1 else 's'}"
