"""Workers that do not run yet: why, said once it lasts, and for how long that is borne."""

import re
import time
from collections.abc import Sequence

from components.step import StepError, UserError
from components.train.trainjob.cluster import Cluster, Object, Refused
from components.train.trainjob.resource import IMAGE_SECONDS, NODE, PENDING_SECONDS, condition
from components.train.trainjob.workers import Waiting, Worker

PAUSE_SECONDS = 15.0
"""Before a reason is said, and between two; and between two looks at the cluster's events."""

QUOTA = re.compile(r"exceeded quota: (\S+), requested: (\S+), used: \S+, limited: (\S+)")
"""In what Kubernetes says of a pod that a quota keeps out."""


class Pending:
    """Workers that are waited for."""

    def __init__(self, cluster: Cluster, name: str, nodes: int) -> None:
        self.cluster, self.name, self.nodes = cluster, name, nodes
        self.since = self.image_since = self.spoken = time.monotonic()
        self.said = self.event = ""
        self.asked = -PAUSE_SECONDS

    def look(self, job: Object, workers: Sequence[Worker]) -> None:
        """Says what is waited for. Raises StepError where that takes too long, or is in vain."""
        now = time.monotonic()
        waiting = self._why(job, workers, now)
        if waiting is None:
            self.since = self.image_since = self.spoken = now
            return
        self.image_since = self.image_since if waiting.image else now
        if waiting.why != self.said and now - self.spoken >= PAUSE_SECONDS:
            self.said, self.spoken = waiting.why, now
            print(f"waiting: {waiting.why}", flush=True)
        if now - self.image_since >= IMAGE_SECONDS:
            raise StepError(f"{waiting.why}; see that the image is there and every node may pull it")
        if now - self.since >= PENDING_SECONDS:
            minutes = PENDING_SECONDS / 60
            raise StepError(f"TrainJob {self.name} has waited for {minutes:.0f} minutes: {waiting.why}; ask for less")

    def _why(self, job: Object, workers: Sequence[Worker], now: float) -> Waiting | None:
        if suspended(job):
            return Waiting("it is suspended, by Kueue or by hand")
        waiting = [worker.waiting for worker in workers if worker.waiting]
        if waiting:
            return next((each for each in waiting if each.image), waiting[0])
        if len(workers) < self.nodes:
            return Waiting(f"{len(workers)} of {self.nodes} workers have a pod{self._unmade(now)}")
        return None

    def _unmade(self, now: float) -> str:
        """Why the cluster does not make the other pods, as far as its events say. Raises StepError if it never will."""
        if now - self.asked >= PAUSE_SECONDS:
            self.asked = now
            self.event = max(_events(self.cluster, self.name), default=("", ""))[1]
        quota = QUOTA.search(self.event)
        if quota:
            self._check_quota(*quota.groups())
        return f": {self.event}" if self.event else ""

    def _check_quota(self, quota: str, requested: str, limited: str) -> None:
        from kubernetes.utils.quantity import parse_quantity

        wanted = dict(pair.split("=") for pair in requested.split(","))
        for name, limit in (pair.split("=") for pair in limited.split(",")):
            if self.nodes * parse_quantity(wanted.get(name, 0)) > parse_quantity(limit):
                raise StepError(
                    f"quota {quota!r} of namespace {self.cluster.namespace!r} allows {name}={limit}, and each of "
                    f"{self.nodes} workers asks for {wanted[name]}; raise it, or ask for fewer --nodes"
                )


def suspended(job: Object) -> bool:
    """Whether somebody has the TrainJob wait."""
    return bool(job["spec"].get("suspend")) or condition(job, "Suspended") is not None


def _events(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    """When and of what the cluster warns: of the TrainJob, its JobSet, and the Job that makes the pods."""
    found = []
    for each in (name, f"{name}-{NODE}-0"):
        selector = {"fieldSelector": f"involvedObject.name={each},type=Warning"}
        try:
            listed = cluster.call("GET", cluster.path("events"), query=selector)["items"]
        except (Refused, UserError):
            return []  # a right that one can live without
        found += [(item.get("lastTimestamp") or item.get("eventTime") or "", item["message"]) for item in listed]
    return found
