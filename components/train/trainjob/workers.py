"""The workers' pods: why one does not run yet, and what one died of."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from components.step import StepError, UserError
from components.train.processes import ERROR, LOST
from components.train.trainjob.cluster import Object
from components.train.trainjob.resource import NODE

INDEX = "batch.kubernetes.io/job-completion-index"
"""The annotation with a worker's number; 0 is where rank 0 runs."""

IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable")
"""Reasons of a container that waits for its image."""

EXIT_CODE = re.compile(r"exitcode\s*: (-?\d+)")
"""In torchrun's report of a process that failed; the root cause comes last."""

RAISED = re.compile(r"(?:\[rank\d+\]: )?([\w.]+(?:Error|Exception)\b.*)")
"""The last line of a traceback."""


@dataclass(frozen=True)
class Waiting:
    """Why a worker does not run yet; `image`: its image cannot be pulled."""

    why: str
    image: bool = False


class Worker:
    """A worker's pod, as its status says."""

    def __init__(self, pod: Object) -> None:
        self.name: str = pod["metadata"]["name"]
        self.leaving = "deletionTimestamp" in pod["metadata"]
        self.number = int(pod["metadata"].get("annotations", {}).get(INDEX, -1))
        self.limit: str = _node(pod["spec"]["containers"]).get("resources", {}).get("limits", {}).get("memory", "")
        self.status: Object = pod.get("status", {})
        self.container = _node(self.status.get("containerStatuses", []))

    @property
    def started(self) -> bool:
        """Whether its container runs, or has run."""
        return bool(self._state.keys() & {"running", "terminated"} or self.restarted)

    @property
    def restarted(self) -> bool:
        """Whether its container ended and was started again."""
        return "terminated" in self.container.get("lastState", {})

    @property
    def succeeded(self) -> bool:
        return self.status.get("phase") == "Succeeded" or self._state.get("terminated", {}).get("exitCode") == 0

    @property
    def waiting(self) -> Waiting | None:
        """Why it has not started; None where it has."""
        if self.started:
            return None
        held = self._state.get("waiting", {})
        if held.get("reason") in IMAGE:
            return Waiting(f"worker {self.name}: {_both(held)}", image=True)
        unplaced = self._condition("PodScheduled", "False")
        if unplaced:
            return Waiting(f"no node takes worker {self.name}: {unplaced.get('message') or unplaced.get('reason')}")
        return Waiting(f"worker {self.name}: {_both(held) or 'its pod is being made'}")

    @property
    def ended(self) -> Object | None:
        """How its container failed: `exitCode`, `reason`, `finishedAt`; None where it has not."""
        for state in (self.container.get("lastState", {}), self._state):
            if state.get("terminated", {}).get("exitCode", 0) != 0:
                found: Object = state["terminated"]
                return found
        return None

    @property
    def when(self) -> str:
        """The time at which its container failed, in whole seconds; after all times where it is not known."""
        return (self.ended or {}).get("finishedAt") or "~"

    @property
    def failed(self) -> bool:
        return self.leaving or self.ended is not None or self.status.get("phase") == "Failed" or self.taken is not None

    @property
    def taken(self) -> Object | None:
        """Why the cluster takes the pod away: its node is drained, lost, or wanted by somebody more important."""
        return self._condition("DisruptionTarget", "True")

    @property
    def _state(self) -> Object:
        found: Object = self.container.get("state", {})
        return found

    def _condition(self, kind: str, status: str) -> Object | None:
        conditions = self.status.get("conditions", [])
        return next((each for each in conditions if each["type"] == kind and each["status"] == status), None)


def _node(containers: list[Object]) -> Object:
    """The one in which the training runs."""
    return next((each for each in containers if each["name"] == NODE), {})


def culprit(failed: Sequence[Worker], logs: Mapping[str, Sequence[str]]) -> Worker:
    """Which of several that failed did so by itself, where the others missed a peer; `logs` has their last lines.

    One that was killed from outside; or else one that has a sentence of its own, or did not miss another; or else the
    first.
    """

    def order(worker: Worker) -> tuple[bool, bool, bool, str]:
        log = logs[worker.name]
        missed = any(line.startswith(ERROR + LOST) for line in log)
        return not _killed(worker), not explained(worker, log), missed, worker.when

    return min(failed, key=order)


def explained(worker: Worker, log: Sequence[str]) -> bool:
    """Whether there is a sentence that says what the worker failed of, so that nobody need read its log."""
    return bool(_killed(worker) or _own(log))


def verdict(worker: Worker, log: Sequence[str]) -> UserError | StepError:
    """What a worker failed of, in a sentence; `log` has its last lines."""
    killed = _killed(worker)
    if killed:
        return StepError(killed)
    own = _own(log)
    code = next((int(code) for line in reversed(log) for code in EXIT_CODE.findall(line)), None)
    if own:
        return UserError(own) if code == UserError.code else StepError(own)
    if code == -9:
        return StepError(f"a process of worker {worker.name} was killed; {_more_memory(worker)}")
    raised = next((found[1] for found in map(RAISED.match, log) if found), None)
    missed = next((line.removeprefix(ERROR) for line in log if line.startswith(ERROR)), None)
    last = raised or missed or next((line for line in reversed(log) if line.strip()), "it printed nothing")
    return StepError(f"worker {worker.name} failed with exit code {(worker.ended or {}).get('exitCode', '?')}: {last}")


def _own(log: Sequence[str]) -> str | None:
    """The sentence in which a worker itself says why it failed, unless it is that others did."""
    said = [line.removeprefix(ERROR) for line in log if line.startswith(ERROR)]
    return next((sentence for sentence in said if not sentence.startswith(LOST)), None)


def _killed(worker: Worker) -> str | None:
    """Who ended a worker from outside, in a sentence."""
    if (worker.ended or {}).get("reason") == "OOMKilled":
        return f"worker {worker.name} was killed for its memory; {_more_memory(worker)}"
    if worker.taken:
        return f"worker {worker.name} was taken off its node: {_both(worker.taken)}; run again, it goes on where it was"
    if worker.leaving and not worker.succeeded:
        return f"worker {worker.name} was deleted by somebody; run again, it goes on where it was"
    if worker.status.get("reason") and worker.status.get("phase") == "Failed":
        return f"worker {worker.name} failed: {_both(worker.status)}; run again, it goes on where it was"
    return None


def _more_memory(worker: Worker) -> str:
    allowed = f"its limit is {worker.limit}" if worker.limit else "its node has no more"
    return f"{allowed}: give the train step more in the settings, or train with a smaller --batch-size"


def _both(said: Object) -> str:
    return ": ".join(filter(None, (said.get("reason"), said.get("message"))))
