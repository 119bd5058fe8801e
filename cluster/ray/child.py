"""The child process that talks to Ray, as its parent sees it, and the safety of what it starts."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.contract import reason
from jobs.machine.variables import for_ranks
from jobs.rank.parent import PARENT

CLOSE_SECONDS = 20.0  # that the child has to end its trials and a cluster of ours
# Where sockets can be: their whole path is 107 characters at most, and Ray's own part of it is long.
SHORT_FOLDER = "/tmp"

# For a cluster that we start. A node that does not answer for three seconds is dead (by default it
# takes a minute), and workers have the niceness of other launchers (by default it is 15).
OWN_CLUSTER = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}

# Ray would take its workers' interpreter from `uv run`, where the command was started by it, and not from us.
NOT_BY_UV = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
# The cluster is named to Ray when it is connected to; and these make another runtime of what we start there.
ELSEWHERE = ("RAY_ADDRESS", "RAY_RUNTIME_ENV_HOOK", "RAY_OVERRIDE_JOB_RUNTIME_ENV", "RAY_CLIENT_MODE")
ANOTHER_CLUSTERS = ("RAY_AUTH_TOKEN", "RAY_REDIS_ADDRESS")


class Child:
    """The process that talks to Ray. With a cluster of ours (`own`) comes a second one, which ends
    what of it is left when the first is gone, even if this process is gone too."""

    def __init__(self, own: bool) -> None:
        environment = for_ray(os.environ, own) | {PARENT: str(os.getpid())}
        self.folder: Path | None = None
        if own:
            short = SHORT_FOLDER if os.path.isdir(SHORT_FOLDER) else None
            self.folder = Path(tempfile.mkdtemp(prefix="scaling-ray-", dir=short))
            environment |= own_cluster(self.folder)
        else:
            environment |= token_mode(environment)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  closed by end()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "cluster.ray.process"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )
        self._after: subprocess.Popen[bytes] | None = None
        if own:
            self._after = subprocess.Popen(
                [sys.executable, "-P", "-m", "cluster.ray.reaper", str(self._process.pid), str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def say(self, **message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: hear() tells
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def hear(self, seconds: float) -> dict[str, Any] | None:
        """The next message, None once the child has ended. Raises queue.Empty after `seconds`."""
        return self._messages.get(timeout=seconds) if seconds > 0 else self._messages.get_nowait()

    def end(self) -> str:
        """End it, in good order if it can; its last words."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._log as log:
            log.seek(0)
            # Where Ray aborts the process, what it says of that is before the stack.
            words, _, _ = log.read().partition(b"*** StackTrace Information ***")
        said = reason.telling(reason.readable(words))
        if self._after is not None:
            self._after.wait()  # it removes the folder, too
        return said or f"exit code {self._process.returncode}"


def for_ray(environment: Mapping[str, str], own: bool) -> dict[str, str]:
    """What a shell has set for Ray, and of the rest what reaches ranks too: no proxy, no debugging of Python."""
    not_these = (*ELSEWHERE, *(ANOTHER_CLUSTERS if own else ()))
    of_ray = {k: v for k, v in environment.items() if k.startswith("RAY_") and k not in not_these}
    return for_ranks(environment) | of_ray | NOT_BY_UV


def own_cluster(folder: Path) -> dict[str, str]:
    """The environment for a cluster of ours, with a token that only this user can read."""
    token = folder / "token"
    descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    niceness = str(os.getpriority(os.PRIO_PROCESS, 0))
    return OWN_CLUSTER | {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_worker_niceness": niceness}


def token_mode(environment: Mapping[str, str]) -> dict[str, str]:
    """Ray sends a token to a cluster only if it is told to, even where there is one to be found."""
    if "RAY_AUTH_MODE" in environment:
        return {}
    given = "RAY_AUTH_TOKEN" in environment or "RAY_AUTH_TOKEN_PATH" in environment
    return {"RAY_AUTH_MODE": "token"} if given or Path("~/.ray/auth_token").expanduser().is_file() else {}
