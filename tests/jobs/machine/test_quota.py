"""The CPU quota of control groups: found wherever they are mounted, and what it holds back is counted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.machine import quota
from tests import limited

V1 = "33 32 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"
V2 = "29 22 0:26 {root} {at} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"


def faked(root: Path, own: str, mounts: list[str], **files: str) -> Path:
    """A stand-in for the kernel's files below `root`: other versions than this machine has cannot be mounted."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    (root / "proc/self/mountinfo").write_text("\n".join(["22 1 8:1 / / rw - ext4 /dev/sda1 rw", *mounts]) + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(quota, "ROOT", tmp_path)
    return tmp_path


def test_the_least_quota_counts_of_this_group_and_those_above(told: Path) -> None:
    """Of a pod whose container has more than the pod: Kubernetes limits both."""
    files = {"kube/cpu.max": "150000 100000", "kube/pod/cpu.max": "max 100000", "kube/pod/box/cpu.max": "400000 100000"}
    faked(told, "0::/kube/pod/box\n", [V2.format(root="/", at="/sys/fs/cgroup")], **files)
    assert quota.cgroup_quota() == 1.5


def test_a_quota_of_version_1_is_found_in_its_own_hierarchy(told: Path) -> None:
    own = "11:cpuset:/other\n4:cpu,cpuacct:/job/step\n0::/\n"
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": "200000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}
    files |= {"cpu,cpuacct/job/step/cpu.cfs_quota_us": "-1", "cpu,cpuacct/job/step/cpu.cfs_period_us": "100000"}
    faked(told, own, [V1.format(root="/"), V2.format(root="/", at="/sys/fs/cgroup/unified")], **files)
    assert quota.cgroup_quota() == 2.0


@pytest.mark.parametrize("root", ["/docker/4f2", "/", "/kube/pod"], ids=["its own", "outside", "another's"])
def test_in_a_container_what_is_mounted_is_its_own_group(root: str, told: Path) -> None:
    """Its path is the host's, or begins above what it sees."""
    own = "0::/docker/4f2\n" if root != "/" else "0::/../../docker/4f2\n"
    faked(told, own, [V2.format(root=root, at="/sys/fs/cgroup")], **{"cpu.max": "50000 100000"})
    assert quota.cgroup_quota() == 0.5


def test_without_a_quota_there_is_none(told: Path) -> None:
    faked(told, "0::/user\n", [V2.format(root="/", at="/sys/fs/cgroup")], **{"user/cpu.max": "max 100000"})
    assert (quota.cgroup_quota(), quota.throttling()) == (None, {})


def test_without_the_kernels_files_there_is_none(told: Path) -> None:
    assert (quota.cgroup_quota(), quota.throttling(), quota.throttled_since({})) == (None, {}, None)


def test_what_version_2_held_back_is_in_microseconds(told: Path) -> None:
    stat = "usage_usec 9\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n"
    files = {"box/cpu.max": "50000 100000", "box/cpu.stat": stat}
    root = faked(told, "0::/box\n", [V2.format(root="/", at="/sys/fs/cgroup")], **files)
    before = quota.throttling()
    later = stat.replace("10", "30").replace(" 4", " 20").replace("2500000", "4000000")
    (root / "sys/fs/cgroup/box/cpu.stat").write_text(later)
    assert quota.throttled_since(before) == (20, 16, 1.5)


SPIN = """
import json, time
from jobs.machine import cores, quota
before, until = quota.throttling(), time.monotonic() + 30.0
while quota.throttled_since(before).throttled < 2 and time.monotonic() < until:
    pass
print(json.dumps([quota.cgroup_quota(), cores.allowed_cores(), quota.throttled_since(before), cores.quota_note()]))
"""


@pytest.mark.quota
@pytest.mark.parametrize("within", [False, True], ids=["its own", "of the group above"])
def test_a_real_quota_is_found_and_what_it_holds_back_is_counted(within: bool) -> None:
    """A fifth of a core is less than a process gets beside many others, so it is held back on a busy machine too."""
    with limited.group(0.2, within) as enter:
        done = subprocess.run([*enter, sys.executable, "-c", SPIN], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found, allowed, (periods, throttled, seconds), note = json.loads(done.stdout)
    assert (found, len(allowed)) == (0.2, 1)
    assert 2 <= throttled <= periods
    assert seconds > 0
    assert note.startswith("a CPU quota of 0.2 cores: not even one")
