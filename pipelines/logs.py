"""What a step printed: from its pod while there is one, from the archive that Kubeflow Pipelines keeps afterwards."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

import urllib3

from components.step import StepError, UserError, choose
from pipelines.kubeflow import Connection, Kubeflow
from pipelines.pods import NoPods, Pods, over, waiting
from pipelines.runs import RunState, get, tasks
from pipelines.terminal import lines

PAUSE_SECONDS = 1.0

FAILURE = '{"error_message":'
"""Starts what the server says, at status 200, where it has no log (apiserver/server/run_log_server.go)."""


def read(client: Kubeflow, run_id: str, step: str, *, kfp_namespace: str, follow: bool) -> Iterator[str]:
    """The lines of a step's newest attempt; with `follow` as they come, those of later attempts too.

    Raises UserError where run or step do not exist or the step has no log yet, StepError where the log is gone.
    """
    run = get(client, run_id)
    choose("step", step, [known.name for known in run.steps])
    if run.step(step).state == "SKIPPED":
        raise UserError(f"{step} was skipped in run {run_id}; it printed nothing")
    try:
        pods = Pods(_namespace(client, kfp_namespace), client.connection.context)
        yield from _followed(client, pods, run, step) if follow else _printed(pods, run, step)
    except NoPods as error:
        yield from _archived(client, run, step, str(error))


def _namespace(client: Kubeflow, kfp_namespace: str) -> str:
    """Where the pods of runs are: in the user's namespace, or with one user in that of Kubeflow Pipelines itself."""
    return client.namespace if client.namespace and client.health().multi_user else kfp_namespace


def _printed(pods: Pods, run: RunState, step: str) -> Iterator[str]:
    """The log as it is now."""
    attempts = pods.attempts(run.id, step)
    if not attempts and _ended(run, step):
        raise NoPods("its pod is gone")
    held = waiting(attempts[-1]) if attempts else "it has no pod yet"
    if held:
        raise UserError(f"{step} has not started in run {run.id}: {held}; --follow waits for it")
    yield from pods.lines(attempts[-1])


def _followed(client: Kubeflow, pods: Pods, run: RunState, step: str) -> Iterator[str]:
    """The log as it grows, attempt after attempt, until the step has ended; survives broken connections."""
    printed: Counter[str] = Counter()  # lines by pod
    complete: set[str] = set()
    while True:
        newest = pods.attempts(run.id, step)[-1:]
        if not newest and not printed and _ended(run, step):
            raise NoPods("its pod is gone")
        for pod in newest:
            name = pod.metadata.name
            if name not in complete and not waiting(pod):
                with contextlib.suppress(StepError):  # a connection that broke: it goes on where it stopped
                    for line in pods.lines(pod, follow=True, skip=printed[name]):
                        printed[name] += 1
                        yield line
                    complete |= {name} if over(pod) else set()
        if _ended(run, step) and all(pod.metadata.name in complete or waiting(pod) for pod in newest):
            return
        time.sleep(PAUSE_SECONDS)
        run = get(client, run.id)


def _ended(run: RunState, step: str) -> bool:
    return run.ended or run.step(step).end is not None


def _archived(client: Kubeflow, run: RunState, step: str, why: str) -> Iterator[str]:
    """The archived log. Of a step that was tried several times it is the first attempt's that was archived."""
    found = client.run(run.id)
    node = tasks(found).get(step) if found else None
    # The task's child is the node of its executor, under whose ID the server finds what Argo archived.
    children = [child.pod_name for child in (node and node.child_tasks) or [] if child.pod_name]
    empty = True
    for child in children[:1]:
        for line in _from_server(client, run.id, child):
            empty = False
            yield line
    if empty:
        raise StepError(
            f"the log of {step} in run {run.id} cannot be had: {why}, and Kubeflow Pipelines has none in its archive"
        )


def _from_server(client: Kubeflow, run_id: str, node: str) -> Iterator[str]:
    """The lines that the server has archived of a node; none where it has nothing."""
    path = f"/apis/v1alpha1/runs/{quote(run_id, safe='')}/nodes/{quote(node, safe='')}/log"
    for line in lines(_stream(client.connection, path, "read the archived log")):
        if line.startswith(FAILURE):
            return
        yield line


def _stream(connection: Connection, path: str, doing: str) -> Iterator[bytes]:
    """The bytes that the server sends, as they come; none where it knows no such path, as the UI's proxy."""
    url = (connection.forward.url() if connection.forward else connection.host) + path
    connection.requests += 1
    try:
        response = connection._pool.request(
            "GET",
            url,
            headers=connection._headers(connection.token(), None),
            redirect=False,
            preload_content=False,
        )
        if response.status == 200 and "html" not in response.headers.get("Content-Type", ""):
            yield from response.stream(2**16)
        response.release_conn()
    except urllib3.exceptions.HTTPError as error:
        raise connection._broken(error, doing) from None
