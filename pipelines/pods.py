"""The pods of a run, through the Kubernetes API: which is whose, why one waits, and what it prints."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components.step import StepError
from pipelines.doctor.cluster import NoKubeconfig, connect, multi_user
from pipelines.kubeflow import Kubeflow
from pipelines.terminal import lines

if TYPE_CHECKING:
    from kubernetes.client import V1Pod

NODE = "workflows.argoproj.io/node-name"
"""Argo's annotation with the path of the node: `retrain-x7k.root.condition-2.train.executor(1)`, 1 being a retry."""

CONTAINER = "main"
TIMEOUT = (5, 60)
"""Seconds to connect, and to wait for an answer."""
FOLLOW_TIMEOUT = (5, 300)
"""The same while a log is followed: a step may be silent for long, and a connection may be dead without a word."""


class NoPods(Exception):
    """The Kubernetes API does not give pods or logs; the sentence says why."""


class NoAnswer(NoPods):
    """It may give them if it is asked again."""


def namespace(client: Kubeflow, kfp_namespace: str) -> str:
    """Where the pods of runs are: in the user's namespace, or with one user in that of Kubeflow Pipelines itself."""
    return client.namespace if client.namespace and multi_user(client) else kfp_namespace


class Pods:
    """The pods of one namespace."""

    def __init__(self, namespace: str, context: str = "") -> None:
        """Raises NoPods, or UserError where a context is named that is of no use."""
        from kubernetes.client import CoreV1Api

        self.namespace = namespace
        try:
            self.api = CoreV1Api(connect(context))
        except NoKubeconfig as error:
            raise NoPods(f"there is {error}") from None

    def attempts(self, run_id: str, step: str) -> "list[V1Pod]":
        """The pods in which the step ran or is to run, the newest attempt last. Raises NoPods.

        `shard/3` is the third of those that run at once in a loop.
        """
        name, _, part = step.partition("/")
        loop = rf"\({int(part) - 1}:.*" if part else ""  # KFP counts iterations from 0, and Argo doubles them: `(2:2)`
        path = re.compile(rf"{loop}\.{re.escape(name)}\.executor(?:\((\d+)\))?")
        listed = self._call("list_namespaced_pod", label_selector=f"pipeline/runid={run_id}").items
        found = [(path.search((pod.metadata.annotations or {}).get(NODE, "")), pod) for pod in listed]
        attempts = [(int(match.group(1) or 0), pod) for match, pod in found if match]
        return [pod for _, pod in sorted(attempts, key=lambda attempt: attempt[0])]

    def lines(self, pod: "V1Pod", *, follow: bool = False, skip: int = 0) -> Iterator[str]:
        """The lines that the step printed, after the first `skip`. Raises NoPods, StepError on a broken connection."""
        from urllib3.exceptions import HTTPError

        response = self._call(
            "read_namespaced_pod_log", pod.metadata.name, container=CONTAINER, follow=follow, _preload_content=False
        )
        try:
            for number, line in enumerate(lines(response.stream(2**16))):
                if number >= skip:
                    yield line
        except HTTPError:
            raise StepError(f"the connection to the log of pod {pod.metadata.name} broke off; try again") from None
        finally:
            response.release_conn()

    def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        timeout = FOLLOW_TIMEOUT if options.get("follow") else TIMEOUT
        namespaced = (*arguments, self.namespace)
        try:
            return getattr(self.api, method)(*namespaced, _request_timeout=timeout, **options)
        except ApiException as error:
            kind = NoAnswer if error.status >= 500 else NoPods
            raise kind(_refusal(error, self.namespace)) from None
        except HTTPError:
            raise NoAnswer("the Kubernetes API cannot be reached") from None


def waiting(pod: "V1Pod") -> str:
    """Why the step's container has not started; empty where it has."""
    status = pod.status
    for container in status.container_statuses or []:
        if container.name == CONTAINER and container.state:
            held = container.state.waiting
            return ": ".join(filter(None, (held.reason, held.message))) if held else ""
    for condition in status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"no node takes it: {condition.message or condition.reason}"
    return "" if status.phase in ("Running", "Succeeded", "Failed") else "its pod is being made"


def over(pod: "V1Pod") -> bool:
    """Whether the step's container has ended, and prints no more."""
    return any(
        container.name == CONTAINER and container.state and container.state.terminated is not None
        for container in pod.status.container_statuses or []
    )


def _refusal(error: Any, namespace: str) -> str:
    if error.status == 401:
        return "the kubeconfig's credentials have expired"
    if error.status == 403:
        return f"you may not read pods and their logs in namespace {namespace!r}"
    if error.status == 404:
        return "its pod is gone"
    return f"the Kubernetes API failed ({error.status} {error.reason})"
