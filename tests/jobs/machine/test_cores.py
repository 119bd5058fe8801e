"""The cores that there are."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from jobs.machine import cores


@pytest.mark.parametrize(("quota", "count"), [(None, 4), (64.0, 4), (4.0, 4), (2.0, 2), (1.9, 1), (0.5, 1)])
def test_no_more_cores_are_used_than_the_cgroup_allows(
    quota: float | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of four cores whose numbers no machine has, so that none is another's second hardware thread."""
    there = [100_000, 100_001, 100_002, 100_003]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(there))
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    assert cores.allowed_cores() == there[:count]


@pytest.mark.parametrize(
    ("mask", "processes", "wanted"), [(4, 8, 1), (4, 3, 2), (2, 4, 1), (3, 8, 2), (1, 2, 1), (6, 4, 4), (2, 2, 3)]
)
def test_ranks_that_must_share_a_mask_are_spread_over_it_evenly(mask: int, processes: int, wanted: int) -> None:
    """No core has two ranks more than another, and each rank has as many as it wants, or all there are."""
    there = list(range(10, 10 + mask))
    shares = [cores.share(there, rank, processes, wanted) for rank in range(processes)]
    assert {len(share) for share in shares} == {min(wanted, mask)}
    times = Counter(core for share in shares for core in share)
    assert set(times) == set(there)
    assert max(times.values()) - min(times.values()) <= 1


@pytest.mark.parametrize("local_rank", range(4))
def test_a_rank_whose_mask_is_its_own_stays_in_it(local_rank: int) -> None:
    assert cores.share([6, 7], local_rank, 4, 2) == [6, 7]
    assert set(cores.share([6, 7, 8], local_rank, 4, 1)) < {6, 7, 8}


@pytest.mark.parametrize(("quota", "said"), [(None, ""), (4.0, ""), (1.5, "1 can be used in full"), (0.5, "not even")])
def test_a_quota_that_is_no_whole_number_of_cores_is_said(
    quota: float | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    assert said in cores.quota_note()
    assert bool(cores.quota_note()) is bool(said)


@pytest.mark.parametrize(("siblings", "core"), [("0,32\n", 0), ("2-3\n", 2), ("7\n", 7)])
def test_a_core_is_known_by_its_first_hardware_thread(
    siblings: str, core: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: siblings)
    assert cores.core_of(99) == core
