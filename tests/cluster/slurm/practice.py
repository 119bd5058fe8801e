"""The practice cluster of slurm/practice, and what the tests do to it."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import psutil

from jobs.machine.network import master_port
from tests.running import until

PRACTICE = Path(__file__).parents[3] / "slurm" / "practice"
NODES = ("n1", "n2", "n3", "n4")


def absent(*more: str) -> str | None:
    """Why there can be no practice cluster here, or none with `more` programs; None if there can."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    missing = [p for p in ("munged", "slurmctld", "slurmd", "sbatch", *more) if not shutil.which(p, path=path)]
    return f"SLURM is missing ({', '.join(missing)})" if missing else None


@contextmanager
def practice_cluster(folder: Path, **settings: str) -> Iterator[None]:
    """A cluster of four nodes in `folder`, found by SLURM's commands while it is up; with other `settings`."""
    home = PRACTICE
    if settings:
        home = shutil.copytree(PRACTICE, folder / "practice")
        text = (home / "slurm.conf").read_text()
        kept = [line for line in text.splitlines() if line.partition("=")[0] not in settings]
        (home / "slurm.conf").write_text("\n".join(kept + [f"{key}={value}" for key, value in settings.items()]) + "\n")
    up = subprocess.run([home / "up", folder], capture_output=True, text=True, timeout=120)
    assert up.returncode == 0, up.stderr
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    try:
        yield
    finally:
        subprocess.run([PRACTICE / "down", folder], check=True, timeout=60)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


@contextmanager
def accounting(folder: Path) -> Iterator[None]:
    """Give the cluster in `folder` what most real ones have: a database of jobs, accounts (`lab`) and limits.

    Also a partition `urgent`, whose jobs end those of the other one.
    """
    database, port, user = folder / "db", master_port(), getpass.getuser()
    database.mkdir(0o700)
    server = [
        "/usr/sbin/mariadbd",
        "--no-defaults",
        f"--user={user}",
        f"--datadir={database}",
        f"--socket={database}/socket",
        "--skip-networking",
        "--skip-grant-tables",
        "--innodb-buffer-pool-size=32M",
    ]
    tables = "create database mysql;\nuse mysql;\n" + Path("/usr/share/mysql/mysql_system_tables.sql").read_text()
    subprocess.run([*server, "--bootstrap"], input=tables, text=True, check=True, stderr=subprocess.DEVNULL, timeout=60)
    settings = folder / "slurmdbd.conf"
    settings.touch(0o600)
    settings.write_text(
        f"AuthType=auth/munge\nAuthInfo=socket={folder}/munge.socket\nSlurmUser={user}\n"
        f"DbdHost=localhost\nDbdAddr=127.0.0.1\nDbdPort={port}\nPidFile={folder}/slurmdbd.pid\n"
        "StorageType=accounting_storage/mysql\nStorageHost=localhost\nStorageLoc=practice\n"
    )
    configuration = folder / "slurm.conf"
    text = configuration.read_text().replace(
        "AccountingStorageType=accounting_storage/none",
        f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
        f"AccountingStoragePort={port}\nAccountingStoragePass={folder}/munge.socket\n"
        "AccountingStorageEnforce=limits,qos\nPreemptType=preempt/partition_prio\nPreemptMode=CANCEL",
    )
    configuration.write_text(text + "PartitionName=urgent Nodes=ALL PriorityTier=2\n")
    variables = os.environ | {"MYSQL_UNIX_PORT": f"{database}/socket"}
    with ExitStack() as stack:
        log = stack.enter_context((folder / "accounting.log").open("w"))
        stack.enter_context(_running(server, log))
        until((database / "socket").exists, 30)
        stack.enter_context(_running(["/usr/sbin/slurmdbd", "-D"], log, variables))
        until(lambda: subprocess.run(["sacctmgr", "-n", "list", "cluster"], capture_output=True).returncode == 0, 30)
        for what in ("cluster practice", "account lab", f"user {user} account=lab"):
            slurm("sacctmgr", "-i", "add", *what.split())
        restart_controller(folder, signal.SIGTERM)
        yield


@contextmanager
def _running(command: list[str], log: IO[str], variables: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def slurm(*command: str) -> str:
    """What one of SLURM's commands prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def restart_controller(folder: Path, number: signal.Signals) -> None:
    """End slurmctld by a signal and start it again on its saved state.

    One that was killed has forgotten its last seconds, and would give out their jobs' ids again, which the nodes
    refuse; it begins above them.
    """
    told = slurm("scontrol", "show", "config").splitlines()
    following = next(int(line.split("=")[1]) for line in told if line.startswith("NEXT_JOB_ID"))
    again = folder / "slurm-again.conf"
    again.write_text(f"{(folder / 'slurm.conf').read_text()}FirstJobId={following + 100}\n")
    controller = psutil.Process(int((folder / "slurmctld.pid").read_text()))
    controller.send_signal(number)
    gone(controller)
    start = ["/usr/sbin/slurmctld", "-f", str(again)]
    subprocess.run(start, check=True, timeout=30, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def gone(process: psutil.Process, seconds: float = 10.0) -> None:
    """Wait until the process, which need not be a child, is no more."""
    deadline = time.monotonic() + seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, process
        time.sleep(0.05)


def empty() -> None:
    """End all jobs and bring all nodes back, so that no test sees another's leavings."""
    slurm("scancel", "--me")
    deadline = time.monotonic() + 60
    while slurm("squeue", "--me", "--noheader") or "4" not in slurm("sinfo", "-h", "-t", "idle", "-o", "%D"):
        for node in NODES:
            if slurm("sinfo", "-h", "-n", node, "-t", "down,drain,fail", "-o", "%n"):
                subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True)
        assert time.monotonic() < deadline, slurm("sinfo", "-N", "-l") + slurm("squeue")
        time.sleep(0.2)
