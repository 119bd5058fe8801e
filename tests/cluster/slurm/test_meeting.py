"""Where the ranks of a job meet, on a real SLURM whose commands are led astray; and a set-up that fails there."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm.runs import drive, jobs_of

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.usefixtures("bare_ranks", "slurm_cluster", "settles_soon"),
    pytest.mark.timeout(200),
]

THIEF = """
import os, socket, sys, time
with socket.create_server((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))):
    open(sys.argv[1], "w").close()
    time.sleep(20)
"""
STOLEN_ONCE = """
if mkdir {folder}/first 2>/dev/null; then
  {python} {folder}/thief.py {folder}/there &
  until test -e {folder}/there; do sleep 0.05; done
  trap "kill $!" EXIT
  $real "$@"
else
  exec $real "$@"
fi
"""


def instead_of(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, lines: str) -> None:
    """Put lines of shell in the place of a command of SLURM's, here and in jobs; `$real` is that command."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/bash\nreal={shutil.which(name)}\n{lines}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize("address", ["127.0.1.1", "fd00::dead"])
def test_what_slurm_calls_a_node_may_mean_nothing_there(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The practice nodes are one host, which can always meet itself; several are in tests/jobs/machine."""
    instead_of(monkeypatch, tmp_path / "bin", "scontrol", f'$real "$@" | sed "s/NodeAddr=[^ ]*/NodeAddr={address}/"')
    summary, _ = drive(tmp_path / "results", workers=[2])
    assert (summary.ok, summary.failed) == (1, [])
    (job,) = jobs_of(tmp_path / "results")
    told = f"rank 0 is met at 127.0.0.1; SLURM knows its node n1 by NodeAddr={address}"
    assert told in (job / "output.txt").read_text()


def test_nodes_that_cannot_find_each_other_are_told_before_a_rank_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of hosts each of which calls itself 127.0.1.1, where nothing else is known."""
    hosts = r"s/NodeAddr=[^ ]*/NodeAddr=127.0.1.1/; s/\(NodeName=\)\([^ ]*\)\(.*NodeHostName=\)[^ ]*/\1\2\3\2/"
    instead_of(monkeypatch, tmp_path / "bin", "scontrol", f"$real \"$@\" | sed '{hosts}'")
    summary, _ = drive(tmp_path / "results", workers=[2])
    (failed,) = summary.failed
    assert failed.status == "failed"
    assert "NodeAddr=127.0.1.1 of node n1: 127.0.1.1 is on this host's loopback, where no other host is" in failed.error
    assert "name the network between the nodes in launcher.interface (this node has " in failed.error
    assert len(jobs_of(tmp_path / "results")) == 1
    cured, _ = drive(tmp_path / "cured", workers=[2], launcher={"kind": "slurm", "nodes": 4, "interface": "lo"})
    assert (cured.ok, cured.failed) == (1, [])


def test_a_port_that_another_program_has_taken_costs_another_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thief.py").write_text(THIEF)
    instead_of(monkeypatch, tmp_path / "bin", "srun", STOLEN_ONCE.format(folder=tmp_path, python=sys.executable))
    summary, folder = drive(tmp_path / "results", workers=[2])
    assert (summary.ok, summary.failed) == (1, [])
    assert ["was lost: rank 0: another program has port" in line for line in folder.moved] == [True]
    assert len(jobs_of(tmp_path / "results")) == 2


def test_a_step_of_the_set_up_that_fails_costs_one_job_and_nothing_is_measured(tmp_path: Path) -> None:
    slurm = {"kind": "slurm", "nodes": 4, "setup": ["export A=1", "export NCCL_X=$(cat /no/such/file)", "export B=1"]}
    summary, _ = drive(tmp_path, workers=[2], launcher=slurm)
    (failed,) = summary.failed
    assert (failed.status, failed.exits) == ("failed", [])
    assert failed.error.endswith(
        "launcher.setup[1]: export NCCL_X=$(cat /no/such/file): a substitution in it ended with exit code 1: "
        "cat: /no/such/file: No such file or directory"
    )
    (job,) = jobs_of(tmp_path)
    assert not (job / "began.json").exists()
