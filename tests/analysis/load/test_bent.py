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
    shared = [rank(r, [r], cpu_quota=2.0) for r in range(8)]
    assert told(*shared) == ["a CPU quota of 2 cores for 8 threads of 8 ranks of a host"]
    assert told(*(each | {"host": f"n{i // 2}"} for i, each in enumerate(shared))) == []


def test_what_differs_between_the_ranks_of_a_launch_is_told() -> None:
    one = {"versions": {"torch": "2.8.0"}, "environment": {"OMP_PROC_BIND": "true"}, "hardware": {"cpu": "A"}}
    two = {"versions": {"torch": "2.9.0"}, "environment": {}, "hardware": {"cpu": "B"}, "host": "n2"}
    assert told(rank(0, [0], **one), rank(1, [0], **two)) == [
        "hosts with different CPUs (A / B)",
        "ranks that differ in torch (2.8.0 / 2.9.0), $OMP_PROC_BIND (not set / true)",
    ]


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ({"cpu": "A", "gpu": "H100"}, {"cpu": "A", "gpu": "A100"}, ["ranks on different devices (A100 / H100)"]),
        ({"cpu": "A", "accelerator": "TPU v5e"}, {"cpu": "A"}, ["ranks on different devices (A / TPU v5e)"]),
        ({"cpu": "A"}, {"cpu": "B"}, ["hosts with different CPUs (A / B)"]),
        ({"cpu": "A", "gpu": "H100"}, {"cpu": "B", "gpu": "H100"}, ["hosts with different CPUs (A / B)"]),
        ({"cpu": "A", "gpu": "H100"}, {}, []),
    ],
)
def test_hosts_with_different_devices_are_told(one: dict[str, str], two: dict[str, str], said: list[str]) -> None:
    assert told(rank(0, [0], hardware=one), rank(1, [1], host="n2", hardware=two)) == said


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


def made(sums: bool = False, **environment: str) -> str:
    return str(bent.of({"environment": environment, "sums": {"trial.json": 1} if sums else None})["made_with"])


def test_an_interface_that_a_user_chose_is_compared_and_that_of_the_meeting_is_not() -> None:
    def of(value: str, name: str = "NCCL_SOCKET_IFNAME") -> str:
        return made(**{name: value})

    assert bent.differences([of("ib0"), of("eth0")]) == ["$NCCL_SOCKET_IFNAME (eth0 / ib0)"]
    assert bent.differences([of("ib0"), of("=eth0")]) == ["$NCCL_SOCKET_IFNAME (ib0 / not set)"]
    assert bent.differences([of("=eth0"), of("=eth1"), made()]) == []
    assert bent.differences([of("eth0", "GLOO_SOCKET_IFNAME"), of("eth1", "HOROVOD_GLOO_IFACE")]) == []
    assert bent.differences([of("a", "UCX_SOCKET_IFNAME"), made()]) == ["$UCX_SOCKET_IFNAME (a / not set)"]


def test_a_variable_that_an_earlier_version_did_not_record_is_not_known_there() -> None:
    before, now = made(NCCL_ALGO="Ring"), made(True, NCCL_ALGO="Ring", LD_LIBRARY_PATH="/opt/cuda/lib64")
    assert bent.differences([before, now]) == []
    assert bent.apart([before], [now]) == []
    assert bent.differences([now, made(True, NCCL_ALGO="Ring")]) == ["$LD_LIBRARY_PATH (/opt/cuda/lib64 / not set)"]
    assert bent.differences([before, made(True)]) == ["$NCCL_ALGO (Ring / not set)"]
    assert bent.differences([before, made(), now]) == ["$NCCL_ALGO (Ring / not set)"]


def test_what_two_sides_were_made_with_is_apart_where_no_launch_of_one_is_as_the_others() -> None:
    one, two, mixed = made(A="1", B="1"), made(A="2", B="1"), made(A="1", B="2")
    assert bent.apart([one], [two]) == ["$A (1 / 2)"]
    assert bent.apart([one, two], [two]) == []
    assert bent.apart([one, mixed], [two]) == ["$A (1 / 2)"]
    assert bent.apart([one], [two], but=lambda name: name == "$A") == []


@pytest.mark.parametrize("wrong", [1e30, 10**30, "many", True, -3, float("nan")])
def test_a_number_that_cannot_be_is_none(wrong: Any) -> None:
    names = ("quota_periods", "throttled_periods", "throttled_seconds", "threads", "niceness", "cpu_quota")
    found = bent.of({"ranks": [dict.fromkeys(names, wrong), {"throttled_periods": 3, "quota_periods": 4}]})
    assert (found["quota_periods"], found["throttled_periods"]) == (4, 3)


def test_ranks_are_on_the_host_that_they_report_in_whatever_order() -> None:
    ranks = [{"rank": 1, "host": "b"}, {"rank": 0, "host": "a"}, {"rank": 2, "host": "b"}]
    found = bent.by_host({"ranks": ranks}, {0: 1e-12, 1: 2.0, 2: 4.0})
    assert found == {"host_seconds": '{"a": 1e-12, "b": 3.0}', "host_ranks": '{"a": 1, "b": 2}'}
    assert bent.by_host({"ranks": ranks[:2]}, {0: 1.0, 1: 2.0, 2: 4.0}) == {}
    alike = [{"rank": 0, "host": "n\ud800"}, {"rank": 1, "host": "n\ud801"}]
    assert bent.by_host({"ranks": alike}, {0: 1.0, 1: 2.0}) == {}


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
