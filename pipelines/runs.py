"""A run as it stands: its state and that of its steps, from one answer of the server; and following it to its end."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.shard.interface import Shard
from components.step import StepError, UserError
from pipelines.kubeflow import Kubeflow, NotFound, ServerError
from pipelines.parameters import STEPS

if TYPE_CHECKING:
    from kfp_server_api import V2beta1PipelineTaskDetail, V2beta1Run

NAMES = tuple(interface.__name__.lower() for interface in STEPS)
"""The steps in the order of the pipeline."""

LOOPED = Shard.__name__.lower()
"""The step that runs once a worker."""

ENDED = ("SUCCEEDED", "SKIPPED", "FAILED", "CANCELED")
ACTIVE = ("PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED")

GROUP = re.compile(r"root|(condition|condition-branches|for-loop|exit-handler)-\d+|iteration-item")
"""The tasks that KFP's compilers make for what holds other tasks."""

ITERATION = re.compile(r"iteration-iterations\(\d+:\d+\)")
"""What holds the tasks of one iteration; those of all are there when the loop begins."""

GRAVITY = ("FAILED", "CANCELED", "CANCELING", "RUNNING", "PAUSED", "PENDING", "SUCCEEDED", "SKIPPED")
"""Of a step that runs in several iterations, the first of these is its state."""

PATIENCE_SECONDS = 600
"""How long a server may be away while a run is followed: an upgrade, a laptop that sleeps, a proxy that restarts."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds between two looks at a run; they grow as it lasts."""


class TimedOut(StepError):
    """The run still goes on when the time to wait for it is over."""

    code = 4


@dataclass(frozen=True, kw_only=True)
class StepState:
    """One step of a run. `state` is KFP's; times are UTC, None where the step has not begun or not ended.

    A step in a loop is one step, too: from the first to the last of its `parts`, of which `done` have succeeded.
    """

    name: str
    state: str
    start: datetime | None = None
    end: datetime | None = None
    parts: int = 1
    done: int = 0

    @property
    def seconds(self) -> float | None:
        """How long it ran, or runs already."""
        return (self.end or datetime.now(UTC)).timestamp() - self.start.timestamp() if self.start else None


@dataclass(frozen=True, kw_only=True)
class RunState:
    """A run. `state` is KFP's, except that a run that was cancelled is CANCELED, whatever KFP calls its end."""

    id: str
    name: str
    state: str
    created: datetime | None
    finished: datetime | None
    steps: tuple[StepState, ...]
    parameters: dict[str, Any]  # those that were given; the others have the defaults of the pipeline's version
    experiment_id: str
    recurring_run_id: str  # of the schedule that started it; empty: none did
    error: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def stopped(self) -> bool:
        """Whether it went well and made no model, because there was no reason to retrain."""
        return self.state == "SUCCEEDED" and self.step("export").state == "SKIPPED"

    @property
    def seconds(self) -> float | None:
        """How long it took, or takes already."""
        if self.created is None:
            return None
        return (self.finished or datetime.now(UTC)).timestamp() - self.created.timestamp()

    def step(self, name: str) -> StepState:
        return next(step for step in self.steps if step.name == name)


def run_state(run: "V2beta1Run") -> RunState:
    """What one answer of the server says of a run."""
    state = _state(run)
    return RunState(
        id=run.run_id or "",
        name=run.display_name or "",
        state=state,
        created=_time(run.created_at),
        finished=_time(run.finished_at),
        steps=_steps(run, ended=state in ENDED),
        parameters=dict((run.runtime_config and run.runtime_config.parameters) or {}),
        experiment_id=run.experiment_id or "",
        recurring_run_id=run.recurring_run_id or "",
        error=(run.error and run.error.message) or "",
    )


def tasks(run: "V2beta1Run") -> "dict[str, list[V2beta1PipelineTaskDetail]]":
    """The run's nodes that are steps, by the step's name; those in a loop have one for each iteration.

    KFP lists every node of the Argo workflow under its display name: `train`, but also `train-driver`, `executor(0)`,
    the groups and the workflow itself. What is a task has a driver, or is skipped before it gets one.
    """
    nodes = _nodes(run)
    return {
        name: found
        for name, found in nodes.items()
        if (name in NAMES or f"{name}-driver" in nodes) and not GROUP.fullmatch(name)
    }


def _nodes(run: "V2beta1Run") -> "dict[str, list[V2beta1PipelineTaskDetail]]":
    nodes: dict[str, list[V2beta1PipelineTaskDetail]] = {}
    for detail in (run.run_details and run.run_details.task_details) or []:
        nodes.setdefault(detail.display_name or "", []).append(detail)
    return nodes


def _steps(run: "V2beta1Run", *, ended: bool) -> tuple[StepState, ...]:
    found = tasks(run)
    # A step that the workflow never came to has no node.
    missing = "SKIPPED" if ended else "PENDING"
    parts = sum(bool(ITERATION.fullmatch(name)) for name in _nodes(run))
    return tuple(
        _step(name, found.get(name, []), missing, parts if name == LOOPED else 1)
        for name in dict.fromkeys((*NAMES, *found))
    )


def _step(name: str, nodes: "list[V2beta1PipelineTaskDetail]", missing: str, parts: int) -> StepState:
    """The step with these nodes, as many as have begun of its parts."""
    states = [node.state or missing for node in nodes] + [missing] * (max(parts, 1) - len(nodes))
    starts = [start for node in nodes if (start := _time(node.start_time))]
    ends = [_time(node.end_time) for node in nodes]
    state = min(states, key=lambda state: GRAVITY.index(state) if state in GRAVITY else len(GRAVITY))
    if state == "PENDING" and "SUCCEEDED" in states:
        state = "RUNNING"
    return StepState(
        name=name,
        state=state,
        start=min(starts, default=None),
        end=max((end for end in ends if end), default=None) if state in ENDED and None not in ends else None,
        parts=len(states),
        done=states.count("SUCCEEDED"),
    )


def _state(run: "V2beta1Run") -> str:
    state = run.state or "RUNTIME_STATE_UNSPECIFIED"
    # Argo knows no cancelled workflow: it ends as FAILED.
    cancelled = any(passed.state == "CANCELING" for passed in run.state_history or [])
    return "CANCELED" if state == "FAILED" and cancelled else str(state)


def _time(time: datetime | None) -> datetime | None:
    """KFP writes 1970 for what has not happened."""
    return time if time and time.year > 1970 else None


def get(client: Kubeflow, run_id: str) -> RunState:
    """A run by its ID. Raises UserError where there is none."""
    run = client.run(run_id)
    if run is None:
        raise UserError(f"there is no run {run_id!r} on {client.connection.where}; `retrain status` lists the newest")
    return run_state(run)


def follow(client: Kubeflow, run_id: str, timeout: float | None = None) -> Iterator[RunState]:
    """The run, every few seconds, until it has ended; the last one given is its end.

    A server that does not answer is asked again, for PATIENCE_SECONDS. Raises TimedOut after `timeout` seconds,
    StepError where the run is gone, UserError where the server refuses the user, ServerError when patience ends.
    """
    start = answered = time.monotonic()
    while True:
        try:
            run = client.run(run_id)
        except ServerError:
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise
        else:
            answered = time.monotonic()
            if run is None:
                raise StepError(f"run {run_id} is gone: it was deleted while it was waited for")
            yield (state := run_state(run))
            if state.ended:
                return
        passed = time.monotonic() - start
        pause = min(LONGEST_PAUSE, FIRST_PAUSE + passed / 20)
        if timeout is not None and passed + pause > timeout:
            raise TimedOut(f"run {run_id} has not ended after {timeout:g} s and goes on; see `retrain status {run_id}`")
        time.sleep(pause)


def cancel(client: Kubeflow, run_id: str) -> str:
    """Cancels a run that may be about to start; says in a few words what came of it."""
    for pause in (0, 1, 3):
        time.sleep(pause)
        try:
            client.terminate(run_id)
        except NotFound:
            continue
        except (UserError, ServerError) as error:
            return f"run {run_id} goes on: {error}"
        return f"run {run_id} is cancelled"
    return f"run {run_id} did not start"
