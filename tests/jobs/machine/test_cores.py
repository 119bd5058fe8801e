"""The cores that there are."""

from __future__ import annotations

import os

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
