"""The process that talks to Ray: `python -P -m cluster.ray.process`, a child of the one that runs the study.

Ray aborts a process that uses it about a minute after the head node has died, so the study's own
process never does. The two exchange lines of JSON:

    ─▶ {"do": "connect", …}    ◀─ {"is": "connected", "nodes": […]} or {"is": "refused", "faults": […]}
    ─▶ {"do": "start", …}      ◀─ {"is": "state", …}, as often as it changes, then {"is": "over", …}
    ─▶ {"do": "cancel"}        ◀─ {"is": "over", "status": "cancelled", …} of each trial
    end of input: everything is ended

If the cluster is our own it is part of this process's session, and cluster/ray/reaper.py, outside of
it, ends what of that session outlives this process, however that ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from dataclasses import asdict
from typing import IO, Any

from cluster.ray.connection import Cluster
from cluster.ray.trial import END_SECONDS, STEP_SECONDS, TrialOnRay


class Voice:
    """Says lines of JSON to the parent; for all threads."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._lock = file, threading.Lock()

    def say(self, **message: Any) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._file.write(json.dumps(message) + "\n")
            self._file.flush()


def serve(lines: IO[str], voice: Voice) -> None:
    """Do what the parent says until it says no more."""
    cluster: Cluster | None = None
    trials: list[TrialOnRay] = []
    for line in lines:
        order = json.loads(line)
        if order["do"] == "connect":
            cluster = Cluster(order)
            if faults := cluster.connect():
                voice.say(**{"is": "refused", "faults": faults})
                break
            voice.say(**{"is": "connected", "nodes": [asdict(node) for node in cluster.nodes()]})
        elif order["do"] == "start" and cluster is not None:
            trials = [trial for trial in trials if trial.is_alive()]
            trials.append(TrialOnRay(cluster, voice.say, order, tuple(trials)))
            trials[-1].start()
        elif order["do"] == "cancel":
            for trial in trials:
                trial.cancel()
    for trial in trials:
        trial.cancel()
    for trial in trials:
        trial.join(END_SECONDS + STEP_SECONDS)
    if cluster is not None:
        import ray

        ray.shutdown()


def main() -> None:
    from jobs.rank.parent import die_with_parent

    die_with_parent()
    # What Ray prints goes to the log, not among the lines for the parent.
    voice = Voice(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    try:
        serve(sys.stdin, voice)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main()
