"""What a worker waits for or died of is found in its pod's status and its log."""

from typing import Any

import pytest

from components.step import StepError, UserError
from components.train.processes import LOST
from components.train.trainjob.workers import Worker, culprit, verdict


def worker(name: str = "w", limit: str = "4Gi", **status: Any) -> Worker:
    container = {"name": "node", "resources": {"limits": {"memory": limit}} if limit else {}}
    return Worker({"metadata": {"name": name}, "spec": {"containers": [container]}, "status": status})


def ended(name: str = "w", code: int = 1, reason: str = "Error", second: int = 0, **more: Any) -> Worker:
    finished = {"exitCode": code, "reason": reason, "finishedAt": f"2026-01-01T00:00:{second:02}Z"}
    return worker(name, containerStatuses=[{"name": "node", "state": {"terminated": finished}}], **more)


def leaving() -> Worker:
    return Worker({"metadata": {"name": "w", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []}})


def waiting(reason: str, message: str = "") -> Worker:
    state = {"waiting": {"reason": reason, "message": message}}
    return worker(phase="Pending", containerStatuses=[{"name": "node", "state": state}])


@pytest.mark.parametrize(
    ("found", "why", "image"),
    [
        (worker(phase="Pending"), "worker w: its pod is being made", False),
        (waiting("ContainerCreating"), "worker w: ContainerCreating", False),
        (waiting("CreateContainerConfigError", "no secret"), "worker w: CreateContainerConfigError: no secret", False),
        (waiting("ErrImagePull", "not found"), "worker w: ErrImagePull: not found", True),
        (waiting("InvalidImageName"), "worker w: InvalidImageName", True),
    ],
)
def test_a_worker_that_has_not_started_says_why(found: Worker, why: str, image: bool) -> None:
    assert found.waiting is not None
    assert (found.waiting.why, found.waiting.image) == (why, image)
    assert not found.started
    assert not found.failed


def test_a_worker_that_runs_waits_for_nothing() -> None:
    running = worker(phase="Running", containerStatuses=[{"name": "node", "state": {"running": {}}}])
    assert running.waiting is None
    assert running.started
    assert not running.failed


def test_a_worker_that_has_done_its_work_has_not_failed() -> None:
    done = ended(code=0, reason="Completed", phase="Succeeded")
    assert done.succeeded
    assert not done.failed


def test_a_worker_that_waits_to_be_started_again_has_failed() -> None:
    last = {"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}}
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    again = worker(containerStatuses=[{"name": "node", "state": state, "lastState": last}])
    assert again.failed
    assert again.restarted
    assert again.waiting is None


def test_a_sidecar_that_fails_is_no_failure_of_the_worker() -> None:
    sidecar = {"name": "proxy", "state": {"terminated": {"exitCode": 1}}}
    node = {"name": "node", "state": {"running": {}}}
    assert not worker(containerStatuses=[sidecar, node]).failed


def test_the_culprit_is_who_was_killed_or_else_who_has_a_sentence_or_else_who_missed_nobody() -> None:
    killed = ended("killed", 137, "OOMKilled", second=9)
    spoke, first, late = ended("spoke", second=5), ended("first", second=2), ended("late", second=1)
    missed = [f"error: {LOST} (Connection closed by peer)"]  # which is no sentence of its own
    logs = {"killed": [], "spoke": ["error: loss is nan"], "first": ["[rank0]: OSError: x"], "late": missed}
    assert culprit([late, first, spoke, killed], logs) is killed
    assert culprit([late, first, spoke], logs) is spoke
    assert culprit([late, first], logs) is first


@pytest.mark.parametrize(
    ("found", "log", "kind", "told"),
    [
        (ended(), ["error: a mistake", "  exitcode  : 2 (pid: 7)"], UserError, "a mistake"),
        (ended(), ["error: a failure", "  exitcode  : 1 (pid: 7)"], StepError, "a failure"),
        (ended(), ["error: a failure"], StepError, "a failure"),
        (
            ended(code=137, reason="OOMKilled"),
            [],
            StepError,
            "was killed for its memory; its limit is 4Gi: give the train step more in the settings, or train with",
        ),
        (ended(), ["  exitcode  : -9 (pid: 7)"], StepError, "a process of worker w was killed; its limit is 4Gi"),
        (
            ended(),
            ["Traceback", "[rank3]: torch.OutOfMemoryError: CUDA out of memory.", "more", "  exitcode  : 1 (pid: 7)"],
            StepError,
            "worker w failed with exit code 1: torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (
            ended(),
            [f"error: {LOST} (Connection closed by peer)", "  exitcode  : 1 (pid: 7)"],
            StepError,
            f"worker w failed with exit code 1: {LOST} (Connection closed by peer)",
        ),
        (ended(code=139), ["what", "", ""], StepError, "worker w failed with exit code 139: what"),
        (ended(), [], StepError, "worker w failed with exit code 1: it printed nothing"),
        (leaving(), [], StepError, "worker w was deleted by somebody; run again, it goes on where it was"),
        (worker(phase="Failed"), [], StepError, "worker w failed with exit code ?: it printed nothing"),
        (
            worker(phase="Failed", reason="Evicted", message="low on memory"),
            [],
            StepError,
            "worker w failed: Evicted: low on memory; run again, it goes on where it was",
        ),
    ],
)
def test_a_failure_is_one_sentence(found: Worker, log: list[str], kind: type[Exception], told: str) -> None:
    error = verdict(found, log)
    assert type(error) is kind
    assert told in str(error)


def test_a_worker_without_a_limit_was_killed_for_its_nodes_memory() -> None:
    box = {"name": "node", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
    assert "its node has no more: give" in str(verdict(worker(limit="", containerStatuses=[box]), []))
