"""What of a launch is not as asked: told from its ranks' reports, and never made of what they do not say."""

from __future__ import annotations

from typing import Any

import pytest

from analysis.load import bent


def rank(number: int, cpus: list[int], threads: int = 1, **more: Any) -> dict[str, Any]:
    said = {"rank": number, "host": "n1", "address": "10.0.0.1", "cpus": cpus, "threads": threads, "niceness": 0}
    return said | {"intra_op_threads": threads} | more


def told(*ranks: dict[str, Any]) -> list[str]:
    return [text for text in bent.of({"ranks": list(ranks)})["bent"].split("; ") if text]


def test_ranks_with_a_core_for_each_thread_are_nothing_to_tell_of() -> None:
    assert told(rank(0, [0, 1], 2), rank(1, [2, 3], 2)) == []


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ([rank(0, [0], 2)], "fewer cores than threads in a rank (1 core for 2 threads)"),
        ([rank(0, [0, 1], 2), rank(1, [2], 2)], "fewer cores than threads in a rank (1 core for 2 threads)"),
        ([rank(0, [4, 5], 1, intra_op_threads=8)], "fewer cores than threads in a rank (2 cores for 8 threads)"),
        # Both hardware threads of one core:
        ([rank(0, [0, 32], 2, cores=[0])], "fewer cores than threads in a rank (1 core for 2 threads)"),
    ],
)
def test_fewer_cores_than_threads_are_told(ranks: list[dict[str, Any]], said: str) -> None:
    assert told(*ranks) == [said]


def test_cores_that_ranks_of_a_host_share_are_told() -> None:
    assert told(*(rank(r, [r % 4]) for r in range(8))) == ["ranks that share cores (8 ranks on 4 cores of a host)"]
    assert told(rank(0, [0]), rank(1, [0]), rank(2, [1])) == ["ranks that share cores (2 ranks on 1 core of a host)"]
    hardware_threads = rank(0, [0], cores=[0]), rank(1, [32], cores=[0])
    assert told(*hardware_threads) == ["ranks that share cores (2 ranks on 1 core of a host)"]


def test_a_gpu_that_ranks_share_is_told_where_its_identifier_is_known() -> None:
    def seen(*gpus: str) -> list[str]:
        ranks = (rank(r, [r], environment={"CUDA_VISIBLE_DEVICES": gpu}) for r, gpu in enumerate(gpus))
        return told(*ranks)

    assert seen("GPU-a", "GPU-a", "GPU-b") == ["ranks that share GPUs (2 ranks on one, 1 GPU shared)"]
    assert seen("GPU-a", "GPU-b") == []
    assert seen("0", "0") == []


@pytest.mark.parametrize("apart", [{"host": "n2"}, {"address": "10.0.0.2"}], ids=["names", "addresses"])
def test_the_same_core_of_two_hosts_is_not_shared(apart: dict[str, str]) -> None:
    assert told(rank(0, [0]), rank(1, [0], **apart)) == []


def test_a_quota_below_the_threads_of_a_rank_is_told() -> None:
    assert told(rank(0, [0], cpu_quota=0.5)) == ["a CPU quota of 0.5 cores for 1 thread of a rank"]
    assert told(rank(0, [0, 1], 2, cpu_quota=1.5)) == ["a CPU quota of 1.5 cores for 2 threads of a rank"]
    assert told(rank(0, [0], cpu_quota=1.5)) == []


def test_what_differs_between_the_ranks_of_a_launch_is_told() -> None:
    one = {"versions": {"torch": "2.8.0"}, "environment": {"OMP_PROC_BIND": "true"}, "hardware": {"cpu": "A"}}
    two = {"versions": {"torch": "2.9.0"}, "environment": {}, "hardware": {"cpu": "B"}, "host": "n2"}
    assert told(rank(0, [0], **one), rank(1, [0], **two)) == [
        "hosts with different CPUs (A / B)",
        "ranks that differ in torch (2.8.0 / 2.9.0), $OMP_PROC_BIND (not set / true)",
    ]


def test_what_tells_ranks_and_launches_apart_by_their_nature_is_no_difference() -> None:
    places = (
        {
            "TF_CONFIG": f"{{task {r}}}",
            "HOROVOD_RANK": str(r),
            "CUDA_VISIBLE_DEVICES": str(r),
            "HOROVOD_GLOO_PORT": f"{r}",
        }
        for r in range(2)
    )
    assert told(*(rank(r, [r], environment=place) for r, place in enumerate(places))) == []


def test_what_several_workers_in_a_process_are_given_is_no_difference_from_one() -> None:
    def made(workers: int, flags: str = "") -> str:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "CPU_NUM_DEVICES")
        of_devices = f"--xla_force_host_platform_device_count={workers} {flags}" if workers > 1 else flags
        return str(
            bent.of({"environment": dict.fromkeys(names, str(workers)) | {"XLA_FLAGS": of_devices}})["made_with"]
        )

    by_horovod = bent.of({"environment": {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}})["made_with"]
    assert bent.differences([made(1), made(4), by_horovod]) == []
    assert bent.differences([made(1), made(4, "--xla_a=1")]) == ["$XLA_FLAGS (--xla_a=1 / not set)"]


def test_what_a_rank_says_itself_and_a_niceness_are_told() -> None:
    said = told(rank(0, [0], niceness=10, not_as_asked=["12 of 500 files; not read"]))
    assert said == ["ranks that give way to others (niceness 10)", "12 of 500 files, not read"]


@pytest.mark.parametrize("outcome", [{}, {"ranks": []}, {"ranks": [{"rank": 0, "host": "n1", "device": "cpu"}]},
                                     {"ranks": ["?", {"cpus": "all", "threads": None, "versions": 3}]}])  # fmt: skip
def test_what_is_not_said_is_not_known_and_no_warning(outcome: dict[str, Any]) -> None:
    found = bent.of(outcome)
    assert found["bent"] == ""
    assert found["throttled_periods"] is None
    assert bent.differences([found["made_with"], None]) == []


def test_the_rank_that_a_quota_held_back_most_stands_for_its_launch() -> None:
    held = [
        rank(r, [r], quota_periods=50, throttled_periods=p, throttled_seconds=p / 20) for r, p in enumerate((3, 40))
    ]
    found = bent.of({"ranks": held})
    assert (found["quota_periods"], found["throttled_periods"], found["throttled_seconds"]) == (50, 40, 2.0)


def test_launches_of_one_point_differ_in_what_they_say_they_were_made_with() -> None:
    def made(**said: Any) -> str:
        return str(bent.of({"ranks": [], **said})["made_with"])

    one = made(versions={"torch": "2.8.0"}, commit="a" * 40, environment={"NCCL_ALGO": "Ring"})
    two = made(versions={"torch": "2.8.0", "jax": "0.9"}, commit="b" * 40 + "-dirty", environment={})
    assert bent.differences([one, one, two]) == [
        "$NCCL_ALGO (Ring / not set)",
        "commit (aaaaaaaaaa / bbbbbbbbbb-dirty)",
    ]
    assert bent.differences([made(versions={"torch": "2.8.0"}), made()]) == []
