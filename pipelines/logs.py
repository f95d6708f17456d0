"""What a step printed: from its pod while there is one, from the archive that Kubeflow Pipelines keeps afterwards."""

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from components.step import StepError, UserError, choose
from pipelines.kubeflow import Kubeflow
from pipelines.pods import NoAnswer, NoPods, Pods, namespace, over, waiting
from pipelines.runs import PATIENCE_SECONDS, RunState, get, tasks
from pipelines.terminal import lines
from pipelines.transport import ServerError

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

PAUSE_SECONDS = 1.0

POD_SECONDS = 120
"""In which a step has a pod after its driver began; if it has none, the kubeconfig may be another cluster's."""

FAILURE = '{"error_message":'
"""Starts what the server says, at status 200, where it has no log (apiserver/server/run_log_server.go)."""


def read(client: Kubeflow, run_id: str, step: str, *, kfp_namespace: str, follow: bool) -> Iterator[str]:
    """The lines of a step's newest attempt; with `follow` as they come, those of later attempts too.

    `step` is its name, or that of one of its parts, such as `shard/3`; the name alone means all of the parts.
    Raises UserError where run, step or context do not exist or the step has no log yet, StepError where it is gone.
    """
    run = get(client, run_id)
    parts = _parts(run, step)
    if follow and len(parts) > 1:
        raise UserError(f"{step} has {len(parts)} parts that run at once; follow one of them, such as {parts[0]}")
    try:
        pods = Pods(namespace(client, kfp_namespace), client.connection.context)
        if len(parts) > 1:
            yield from _together(pods, run, parts)
        else:
            yield from _followed(client, pods, run, step) if follow else _printed(pods, run, step)
    except NoPods as error:
        yield from _archived(client, run, step, str(error))


def _parts(run: RunState, step: str) -> list[str]:
    """The parts that are meant: those of a step that has several, or the step itself. Raises UserError."""
    name, _, part = step.partition("/")
    choose("step", name, [known.name for known in run.steps])
    found = run.step(name)
    if found.state == "SKIPPED":
        raise UserError(f"{name} was skipped in run {run.id}; it printed nothing")
    parts = [f"{name}/{number}" for number in range(1, found.parts + 1)]
    if part and step not in parts:
        raise UserError(f"{name} had {len(parts)} parts in run {run.id}, {parts[0]} to {parts[-1]}, not {step!r}")
    return [step] if part or len(parts) == 1 else parts


def _together(pods: Pods, run: RunState, parts: list[str]) -> Iterator[str]:
    """The logs of several parts, one after the other; of those that have none, nothing."""
    missing = []
    for part in parts:
        try:
            yield from (f"{part}  {line}" for line in _printed(pods, run, part))
        except (NoPods, UserError) as error:
            missing.append(error)
    if len(missing) == len(parts):
        raise missing[0]


def _printed(pods: Pods, run: RunState, step: str) -> Iterator[str]:
    """The log as it is now."""
    attempts = pods.attempts(run.id, step)
    _require_pods(attempts, pods, run, step)
    held = waiting(attempts[-1]) if attempts else "it has no pod yet"
    if held:
        raise UserError(f"{step} has not started in run {run.id}: {held}; --follow waits for it")
    yield from pods.lines(attempts[-1])


def _followed(client: Kubeflow, pods: Pods, run: RunState, step: str) -> Iterator[str]:
    """The log as it grows, attempt after attempt, until the step has ended.

    Survives broken connections, and for PATIENCE_SECONDS that nobody answers who has answered before.
    """
    printed: Counter[str] = Counter()  # lines by pod
    complete: set[str] = set()
    answered = -math.inf
    while True:
        try:
            run = get(client, run.id)
            newest = pods.attempts(run.id, step)[-1:]
        except (ServerError, NoAnswer):
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise
            time.sleep(PAUSE_SECONDS)
            continue
        answered = time.monotonic()
        if not printed:
            _require_pods(newest, pods, run, step)
        for pod in newest:
            name = pod.metadata.name
            if name not in complete and not waiting(pod):
                with contextlib.suppress(StepError, NoAnswer):  # a connection that broke: it goes on where it stopped
                    for line in pods.lines(pod, follow=True, skip=printed[name]):
                        printed[name] += 1
                        yield line
                    complete |= {name} if over(pod) else set()
        if _ended(run, step) and all(pod.metadata.name in complete or waiting(pod) for pod in newest):
            return
        time.sleep(PAUSE_SECONDS)


def _ended(run: RunState, step: str) -> bool:
    return run.ended or run.step(step.partition("/")[0]).end is not None


def _require_pods(found: "Sequence[V1Pod]", pods: Pods, run: RunState, step: str) -> None:
    """Raises NoPods where there should be a pod and is none."""
    if found:
        return
    if _ended(run, step):
        raise NoPods("its pod is gone")
    if "/" in step:  # a part may wait for those before it, however long the step has run
        return
    seconds = run.step(step).seconds
    if seconds is not None and seconds > POD_SECONDS:
        where = f"namespace {pods.namespace!r} of the kubeconfig's cluster"
        raise NoPods(f"it has no pod in {where}; if Kubeflow Pipelines is in another one, name it with --context")


def _archived(client: Kubeflow, run: RunState, step: str, why: str) -> Iterator[str]:
    """The archived log. Of a step that was tried several times it is the first attempt's that was archived.

    The server does not say which of its parts is which: it is all of them or none.
    """
    name, _, part = step.partition("/")
    if part:
        raise StepError(
            f"the log of {step} in run {run.id} cannot be had: {why}, and the archive of Kubeflow Pipelines does not "
            f"tell the parts apart; ask for {name}, all of them"
        )
    found = client.run(run.id)
    nodes = tasks(found).get(step, []) if found else []
    # The task's child is the node of its executor, under whose ID the server finds what Argo archived.
    children = [[child.pod_name for child in node.child_tasks or [] if child.pod_name] for node in nodes]
    empty = True
    for first in [pods[0] for pods in children if pods]:
        for line in _from_server(client, run.id, first):
            empty = False
            yield line
    if empty:
        raise StepError(
            f"the log of {step} in run {run.id} cannot be had: {why}, and Kubeflow Pipelines has none in its archive"
        )


def _from_server(client: Kubeflow, run_id: str, node: str) -> Iterator[str]:
    """The lines that the server has archived of a node; none where it has nothing."""
    path = f"/apis/v1alpha1/runs/{quote(run_id, safe='')}/nodes/{quote(node, safe='')}/log"
    for line in lines(client.connection.stream(path, "read the archived log")):
        if line.startswith(FAILURE):
            return
        yield line
