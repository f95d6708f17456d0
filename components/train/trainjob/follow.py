"""A TrainJob from its first pod to its end, as a person wants to see it."""

import sys
import time
from collections.abc import Iterable
from queue import Empty
from typing import Self

from components.step import StepError, UserError
from components.train.trainjob.cluster import Cluster, Object, Refused
from components.train.trainjob.log import Log, tail
from components.train.trainjob.pending import Pending, suspended
from components.train.trainjob.resource import condition, leaving
from components.train.trainjob.watch import Changes, Watch
from components.train.trainjob.workers import Worker, culprit, explained, verdict

TICK_SECONDS = 1.0

SETTLE_SECONDS = 5.0
"""From the first sign that something is wrong to the sentence that says what: the cause need not be the first sign."""

SHOWN_LINES = 20
"""Of the log of a worker that failed."""

READ_LOGS = 8
"""Of that many workers, at most, where many fail together."""

LAST_LINES_SECONDS = 5.0
"""In which the rest of the log should be here, when the worker has ended."""


class Deleted(StepError):
    """Somebody has deleted the TrainJob: perhaps another run of the same training, which has its result."""


class Scene:
    """A TrainJob and its workers, as they are in the cluster."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.changes = Changes()
        self.name = name
        self.jobs = Watch(cluster, "trainjobs", self.changes, fieldSelector=f"metadata.name={name}")
        self.pods = Watch(cluster, "pods", self.changes, labelSelector=f"jobset.sigs.k8s.io/jobset-name={name}")

    def __enter__(self) -> Self:
        self.jobs.start()
        self.pods.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.jobs.end()
        self.pods.end()

    def wait(self) -> None:
        """Until something has changed, or a moment has passed. Raises what has ended a watch."""
        try:
            ended = self.changes.get(timeout=TICK_SECONDS)
        except Empty:
            return
        if ended:
            raise StepError(f"the pods of TrainJob {self.name}: {ended}") if isinstance(ended, Refused) else ended

    @property
    def seen(self) -> bool:
        """Whether both have been looked at."""
        return self.jobs.objects is not None and self.pods.objects is not None

    @property
    def job(self) -> Object | None:
        """The TrainJob; None where it is gone, or going."""
        found = (self.jobs.objects or {}).get(self.name)
        return None if found is None or leaving(found) else found

    @property
    def workers(self) -> list[Worker]:
        return sorted(map(Worker, (self.pods.objects or {}).values()), key=lambda worker: worker.number)


class Follower:
    """Shows the first worker's log, to its end but for an interrupt, and finds out what goes wrong."""

    def __init__(self, cluster: Cluster, name: str, nodes: int) -> None:
        self.cluster, self.name = cluster, name
        self.pending = Pending(cluster, name, nodes)
        self.begun: dict[str, Worker] = {}  # the workers that have started, by name
        self.log: Log | None = None
        self.troubled: float | None = None  # since when

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None or issubclass(kind, Exception):  # after SIGTERM a second is all that Argo's executor leaves
            self._end()

    def look(self, job: Object | None, workers: list[Worker]) -> None:
        """Raises StepError or UserError where the training cannot go on."""
        self.show(workers)
        if job and suspended(job):
            self.begun, self.troubled = {}, None
        elif self._trouble(job, workers):
            self.troubled = self.troubled or time.monotonic()
            if time.monotonic() - self.troubled >= SETTLE_SECONDS:
                raise self._reason(job, workers)
            return
        if job:
            self.pending.look(job, workers)
        self.begun |= {worker.name: worker for worker in workers if worker.started}

    def show(self, workers: list[Worker]) -> None:
        """Follows the log of the first worker, once it has one."""
        first = next((worker for worker in workers if worker.number == 0 and worker.started), None)
        if first and (self.log is None or self.log.pod != first.name):
            self._end()
            self.log = Log(self.cluster, first.name)
            self.log.start()

    def _end(self) -> None:
        """Shows the rest of the log."""
        if self.log:
            self.log.end(LAST_LINES_SECONDS)

    def _trouble(self, job: Object | None, workers: list[Worker]) -> bool:
        if job is None or condition(job, "Failed") or any(worker.failed for worker in workers):
            return True
        return bool(self._lost(workers))

    def _lost(self, workers: Iterable[Worker]) -> list[str]:
        """The workers that were at work and are there no more."""
        there = {worker.name for worker in workers}
        return [name for name, worker in self.begun.items() if name not in there and not worker.succeeded]

    def _reason(self, job: Object | None, workers: list[Worker]) -> UserError | StepError:
        if job is None:
            return Deleted(f"TrainJob {self.name} was deleted by somebody; run again, it goes on where it was")
        failed, lost = [worker for worker in workers if worker.failed], self._lost(workers)
        if failed:
            worker, log = self._culprit(failed)
            if explained(worker, log) or not lost:
                self._quote(worker, log)
                return verdict(worker, log)
        if lost:
            return StepError(f"worker {lost[0]} is gone, perhaps with its node; run again, it goes on where it was")
        found = condition(job, "Failed") or {}
        return StepError(f"TrainJob {self.name} failed: {found.get('reason')}: {found.get('message')}")

    def _culprit(self, failed: list[Worker]) -> tuple[Worker, list[str]]:
        """The worker that failed by itself, and the end of its log."""
        first = sorted(failed, key=lambda worker: worker.when)[:READ_LOGS]
        logs = {worker.name: tail(self.cluster, worker.name, previous=worker.restarted) for worker in first}
        worker = culprit(first, logs)
        return worker, logs[worker.name]

    def _quote(self, worker: Worker, log: list[str]) -> None:
        """Shows the last lines of a worker, where they are needed and not shown anyway."""
        if worker.name != (self.log and self.log.pod) and not explained(worker, log):
            for line in log[-SHOWN_LINES:]:
                print(f"{worker.name}: {line}", file=sys.stderr, flush=True)


def follow(cluster: Cluster, name: str, nodes: int) -> None:
    """Shows what the workers do until all have done it. Raises StepError or UserError where they do not, or Deleted."""
    with Scene(cluster, name) as scene, Follower(cluster, name, nodes) as follower:
        while not (scene.job and condition(scene.job, "Complete")):
            scene.wait()
            if scene.seen:
                follower.look(scene.job, scene.workers)
        while not scene.seen:  # its workers, when it was done at once
            scene.wait()
        follower.show(scene.workers)
