"""slurm: trials are jobs, or steps of one packed job, and go on without this process.

`launcher: {kind: slurm, …}`, see SlurmOptions and docs/slurm.md. A job writes its trials' outcomes by
itself (cluster/slurm/batch.py); here is what SLURM alone can tell: what waits and why, and what became
of a job that left no word. All that is known of a job is in its folder, so any process on any login
node can take a study up again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.launcher import Launch, State
from cluster.setup.lacking import lacking, why_not
from cluster.slurm import ending, queue
from cluster.slurm.ending import Job, concluded
from cluster.slurm.job import JobFolder, Planned, begun, withdrawn
from cluster.slurm.options import parse
from cluster.slurm.queue import JobState
from cluster.slurm.refusal import refused
from cluster.slurm.script import script
from cluster.slurm.size import largest, size_of, time_limit
from cluster.study.schema import StudyError
from jobs.contract.files import look_afresh
from jobs.contract.trial import Trial
from jobs.machine.tpu import TpuError

POLL_SECONDS, POLL_AT_MOST = 1.0, 30.0  # between two calls of squeue: more and more while nothing changes
# After a job has left the queue, until its files are believed to be all there is: network file systems
# show another node's new files late.
SETTLE_SECONDS = 10.0
FULL_SECONDS = 30.0  # before a full queue is tried again


class SlurmLauncher:
    """Submits, watches and cancels jobs. Nothing ends with it but the watching."""

    kind = "slurm"
    stays = True

    def __init__(self, options: dict[str, Any], results: Path) -> None:
        self._options = parse(options)
        self._jobs_folder = results.resolve() / "slurm"
        self._jobs: list[Job] = []
        self._next_poll = 0.0
        self._pause = POLL_SECONDS
        self._full_until = 0.0
        self._handed_back: list[str] = []
        self._trouble = ""

    # What fits

    def largest(self, threads_per_worker: int, gpus_per_worker: int = 0) -> int:
        return self._options.most_workers

    def tpu_cores(self) -> int:
        raise TpuError("this launcher has no TPUs; take launcher.kind local")

    def unavailable(self, strategy: str) -> str | None:
        return None if self.elsewhere(strategy) else why_not(strategy)  # elsewhere the ranks will say what is lacking

    def elsewhere(self, strategy: str) -> bool:
        return bool(self._options.container_image or self._options.python)

    def on_one_host(self, trial: Trial) -> bool:
        return size_of(trial, self._options).nodes == 1

    def unfit(self, trial: Trial) -> str | None:
        workers_each = trial.workers // trial.processes
        if workers_each > self._options.tasks_per_node:
            most = self._options.tasks_per_node
            return f"its one process needs a node for {workers_each} workers; launcher.tasks_per_node is {most}"
        return None if self.elsewhere(trial.strategy) else lacking(trial)

    def refuse(self, points: Sequence[Trial]) -> list[str]:
        return refused(points, self._options, self._jobs_folder)

    # Submitting

    def room(self) -> int:
        if time.monotonic() < self._full_until:
            return 0
        if self._options.allocation == "packed":
            return 0 if self._jobs else 1_000_000
        return max(0, self._options.max_queued - len(self._jobs))

    def start(self, launches: Sequence[Launch]) -> None:
        waiting = [launches] if self._options.allocation == "packed" else [[launch] for launch in launches]
        for index, group in enumerate(waiting):
            folder = self._write(group)
            job = Job(folder, None, {p.trial: p for p in folder.launches})
            try:
                job.job_id = queue.submit(folder.script)
            except (queue.QueueFull, queue.ControllerAway) as error:
                # It may have been taken all the same: then it is in the queue under its name.
                self._trouble = str(error)
                if isinstance(error, queue.ControllerAway):
                    self._jobs.append(job)
                    index += 1
                else:
                    self._discard(folder)
                self._handed_back += [launch.trial.id for rest in waiting[index:] for launch in rest]
                self._full_until = time.monotonic() + FULL_SECONDS
                break
            except queue.SlurmError as error:
                ending.conclude_all(job, "failed", f"sbatch refused {folder.script}: {error}")
                self._handed_back += job.pending
                continue
            folder.submitted(job.job_id)
            self._jobs.append(job)
        self._poll_soon()

    def _write(self, launches: Sequence[Launch]) -> JobFolder:
        """The folder and the script of a new job."""
        token = secrets.token_hex(4)
        stem = launches[0].trial.id if self._options.allocation == "per-trial" else "packed"
        launched = tuple(Planned(x.trial.id, x.order, size_of(x.trial, self._options)) for x in launches)
        folder = JobFolder(
            self._jobs_folder / f"{stem}-{token}",
            f"{stem}-{token}",
            self._options.allocation,
            self._options.interface,
            launched,
        )
        folder.write()
        needed = largest([p.size for p in launched], self._options)
        minutes = time_limit(self._options, [x.trial for x in launches])
        folder.script.write_text(script(self._options, needed, minutes, folder.path, folder.name), encoding="utf-8")
        return folder

    def _discard(self, folder: JobFolder) -> None:
        """A job that was never submitted leaves nothing behind."""
        for entry in folder.path.iterdir():
            entry.unlink()
        folder.path.rmdir()

    # Watching

    def resume(self) -> int:
        self._load()
        self._poll()
        while any(job.gone_since for job in self._jobs):
            time.sleep(POLL_SECONDS)
            self._poll()
        return max((p.order for folder in self._folders() for p in folder.launches), default=-1)

    def observe(self) -> dict[str, State]:
        self._load()
        self._poll(settle=False)
        return self.running()

    def _load(self) -> None:
        """Take up all jobs of which a trial has no outcome and no later job has it."""
        known = {job.folder.path for job in self._jobs}
        latest: dict[str, tuple[int, Path]] = {}
        folders = self._folders()
        for folder in folders:
            for p in folder.launches:
                latest[p.trial] = max(latest.get(p.trial, (-1, folder.path)), (p.order, folder.path))
        for folder in folders:
            if folder.path in known:
                continue
            pending = {
                p.trial: p
                for p in folder.launches
                if latest[p.trial][1] == folder.path and folder.trial(p).exists() and not concluded(folder.trial(p))
            }
            if pending:
                self._jobs.append(Job(folder, folder.job_id, pending))

    def _folders(self) -> list[JobFolder]:
        found = []
        if self._jobs_folder.is_dir():
            for path in sorted(self._jobs_folder.iterdir()):
                try:
                    found.append(JobFolder.read(path))
                except ValueError:
                    continue  # such as refused/
        return found

    def running(self) -> dict[str, State]:
        return {trial: self._state(job, index) for job in self._jobs for index, trial in enumerate(job.pending)}

    def _state(self, job: Job, index: int) -> State:
        """Of the pending trial at place `index` of its job."""
        if job.state is None and job.gone_since is not None:
            return State("gone", job.job_id or "", "not in the queue any more; `scaling run` finds out")
        if job.state is None:
            return State("submitted", job.job_id or "", self._trouble)
        text = job.state.state.lower()
        if not job.state.goes_on:
            text = f"ended ({text})"
        elif text == "running" and index:
            text = "waiting in the allocation"
        return State(text, job.job_id or "", self._trouble or job.state.reason, job.state.nodes)

    def wait(self, seconds: float) -> list[str]:
        ended, self._handed_back = self._handed_back, []
        if ended:
            return ended
        if not self._jobs:
            time.sleep(seconds)
            return []
        time.sleep(max(0.0, min(seconds, self._next_poll - time.monotonic())))
        return self._poll() if time.monotonic() >= self._next_poll else []

    def _poll(self, settle: bool = True) -> list[str]:
        """Ask SLURM once for all jobs; ids of trials that have ended since the last time."""
        if not self._jobs:
            return []
        try:
            listed = queue.jobs()
            self._trouble = ""
        except queue.SlurmError as error:
            self._trouble, listed = str(error), None
        by_name = {state.name: state for state in (listed or {}).values()}
        before = {job.folder.name: job.state for job in self._jobs}
        ended: list[str] = []
        for job in self._jobs:
            if job.state is None or job.state.state != "PENDING":
                ended += ending.take_concluded(job)
            if listed is None or not job.pending:
                continue
            state = listed.get(job.job_id or "")
            # A controller that has lost its memory gives ids again, and another cluster gives its own.
            if state is None or state.name != job.folder.name:
                state = by_name.get(job.folder.name)
            if state is not None:
                if job.job_id != state.job_id:
                    job.job_id = state.job_id
                    if settle:
                        job.folder.submitted(state.job_id)
                job.state = state
            if state is not None and state.goes_on:
                job.gone_since = None
                continue
            job.gone_since = job.gone_since or time.monotonic()
            if settle and time.monotonic() - job.gone_since >= SETTLE_SECONDS:
                ended += self._settle(job, state)
        self._jobs = [job for job in self._jobs if job.pending]
        changed = ended or any(before.get(job.folder.name) != job.state for job in self._jobs)
        waiting = any(job.gone_since for job in self._jobs)
        self._pause = POLL_SECONDS if changed or waiting else min(POLL_AT_MOST, 1.3 * self._pause)
        self._next_poll = time.monotonic() + self._pause
        return ended

    def _poll_soon(self) -> None:
        self._pause = POLL_SECONDS
        self._next_poll = time.monotonic() + self._pause

    def _settle(self, job: Job, state: JobState | None) -> list[str]:
        """The job has ended and left trials without an outcome: they get one, or are handed back."""
        for p in job.pending.values():
            look_afresh(job.folder.trial(p))
        ended = ending.take_concluded(job)
        if job.job_id is not None and (state is None or state.state not in queue.ENDED):
            state = queue.last_word(job.job_id)
            state = state if state is not None and state.name == job.folder.name else None
        status, why = ending.fate(job, state)
        if job.folder.end is None:
            job.folder.ended("gone")  # or other jobs would take it for one that runs beside them
        anything = any(begun(job.folder.trial(p)) for p in job.folder.launches)
        for p in job.pending.values():
            # A packed job that ran out of time, or was lost, has done what it could: the rest goes
            # into another one. One that did not even begin would do so for ever.
            hand_back = status in ("lost", "timeout") and not begun(job.folder.trial(p))
            if job.job_id is None or (hand_back and anything) or not job.folder.trial(p).exists():
                continue
            ending.conclude_one(job, p, status, why)
        ended += job.pending
        job.pending.clear()
        return ended

    # Ending

    def withdraw(self, trials: Collection[str]) -> list[str]:
        """Jobs that wait in the queue are cancelled; of an allocation whose trials are done one after the other,
        the script passes over those whose folder is gone."""
        waiting = [job for job in self._jobs if any(trial in trials for trial in job.pending)]
        alone = [job for job in waiting if job.folder.allocation != "packed" and job.job_id]
        listed = self._listed() if alone else {}
        # Of one that has ended scancel would say that nothing was done; the queue tells what was.
        pending = [str(job.job_id) for job in alone if _shown(job, listed) == "PENDING"]
        try:
            queue.cancel(pending, state="PENDING")
        except queue.SlurmError as error:
            self._trouble = str(error)
        listed = self._listed() if pending else {}
        taken = []
        for job in waiting:
            if job in alone and _shown(job, listed) != "CANCELLED":
                continue  # it has begun meanwhile
            for trial in [trial for trial in job.pending if trial in trials]:
                if withdrawn(job.folder.trial(job.pending[trial])):
                    del job.pending[trial]
                    taken.append(trial)
        self._jobs = [job for job in self._jobs if job.pending]
        return taken

    def _listed(self) -> dict[str, JobState]:
        """What the queue shows; nothing where it does not answer."""
        try:
            return queue.jobs()
        except queue.SlurmError as error:
            self._trouble = str(error)
            return {}

    def cancel(self) -> None:
        asked: set[str] = set()
        self._poll()
        while self._jobs:
            if self._trouble and not asked:
                raise StudyError([f"not cancelled: {self._trouble}"])
            # Only what the queue has just shown under our name: an id alone may be another job's by now.
            ids = {job.job_id for job in self._jobs if job.job_id and job.state and job.gone_since is None} - asked
            try:
                queue.cancel(sorted(ids))
            except queue.SlurmError as error:
                raise StudyError([f"not cancelled: {error}"]) from None
            asked |= ids
            time.sleep(POLL_SECONDS)
            self._poll()

    def close(self) -> None:
        """The jobs go on."""


def _shown(job: Job, listed: Mapping[str, JobState]) -> str:
    """The state of the job as the queue shows it, empty if it does not; an id alone may be another job's by now."""
    state = listed.get(job.job_id or "")
    return state.state if state is not None and state.name == job.folder.name else ""


LAUNCHER = SlurmLauncher
