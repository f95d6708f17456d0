"""The Kubernetes API, as far as a training on many nodes calls it: patiently, and with a sentence for each refusal."""

import itertools
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.step import StepError, UserError
from components.storage.connection import pause

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]
"""An object of Kubernetes as its JSON says it."""

AWAY_SECONDS = 600.0
"""For which the API may not answer: the workers train on meanwhile."""

TIMEOUT = (5, 30)
"""Seconds to connect, and to wait for an answer."""

SILENT_SECONDS = 60
"""After which a log or a watch that says nothing is taken for broken."""

PASSING = (429, 500, 502, 503, 504)
"""Answers that another attempt may not get."""

CONTENT = {"PATCH": "application/merge-patch+json"}
"""What is sent, where it is not plain JSON."""

NOTHING: Mapping[str, str] = {}

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod reads the namespace that it is in."""

FORBIDDEN = re.compile(r'cannot (\w+) resource "([\w/]+)"')
"""In what the API says where a right is missing."""


class Refused(Exception):
    """An answer that no patience mends, by HTTP's code and in the API's own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """The objects of one namespace."""

    def __init__(self, api: "ApiClient", namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def path(self, resource: str, name: str = "") -> str:
        """Of an object, or of all of a kind: `trainjobs`, `pods`, `events`."""
        group = "/apis/trainer.kubeflow.org/v1alpha1" if resource == "trainjobs" else "/api/v1"
        return "/".join(filter(None, (f"{group}/namespaces/{self.namespace}/{resource}", name)))

    def call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: Mapping[str, str] = NOTHING,
        away: float | None = None,
    ) -> Any:
        """The answer to a request, which is repeated while the API is away: for so many seconds, or AWAY_SECONDS.

        Raises Refused, UserError where a right is missing, StepError where the API stays away.
        """
        start, away = time.monotonic(), AWAY_SECONDS if away is None else away
        for failures in itertools.count(1):
            try:
                return self._request(method, path, query, TIMEOUT, body=body)
            except _Passing as error:
                if time.monotonic() - start >= away:
                    raise StepError(f"the Kubernetes API has been away for {away:.0f} s: {error}; try again") from None
            time.sleep(pause(failures))

    def lines(self, path: str, query: Mapping[str, str]) -> Iterator[str]:
        """The lines of an answer as they come: a log, or a watch, whose end may also be that the connection broke.

        Raises Refused and UserError.
        """
        from urllib3.exceptions import HTTPError

        try:
            answer = self._request("GET", path, query, (TIMEOUT[0], SILENT_SECONDS), _preload_content=False)
            with closing(answer):
                yield from (line.decode(errors="replace").rstrip("\r\n") for line in answer)
        except (_Passing, HTTPError):
            return

    def _request(
        self, method: str, path: str, query: Mapping[str, str], timeout: tuple[int, int], **options: Any
    ) -> Any:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return self.api.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params={"Accept": "application/json", "Content-Type": CONTENT.get(method, "application/json")},
                auth_settings=["BearerToken"],
                response_type="object",
                _request_timeout=timeout,
                _return_http_data_only=True,
                **options,
            )
        except ApiException as error:
            raise self._refusal(error) from None
        except HTTPError as error:
            raise _Passing(f"it cannot be reached ({getattr(error, 'reason', None) or error})") from None

    def _refusal(self, error: Any) -> Exception:
        message = _message(error)
        missing = FORBIDDEN.search(message)
        if error.status == 403 and missing:
            return UserError(
                f"this step's service account may not {missing[1]} {missing[2]} in namespace {self.namespace!r}; give "
                "it the rights of the role retrain-runner in manifests/base/runner.yaml"
            )
        if error.status == 401:
            return UserError(
                "the Kubernetes API does not know this step's service account; see whether it still exists"
            )
        return _Passing(message) if error.status in PASSING or not error.status else Refused(error.status, message)


class _Passing(Exception):
    """A failure that another attempt may not meet."""


def _message(error: Any) -> str:
    """The sentence of a Status object, or what else the API says."""
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.status} {error.reason}"


def connect() -> Cluster:
    """The cluster that this is a pod of, or the one that $KUBECONFIG names. Raises UserError where there is neither."""
    from kubernetes import client, config

    configuration = client.Configuration()
    configuration.retries = False  # it is `call` that repeats
    try:
        if os.environ.get("KUBECONFIG"):
            config.load_kube_config(client_configuration=configuration)
            namespace = config.list_kube_config_contexts()[1]["context"].get("namespace", "default")
        else:
            config.load_incluster_config(configuration)
            namespace = OWN_NAMESPACE.read_text().strip()
    except config.ConfigException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"nodes must be 1 outside of a cluster: there is no Kubernetes to ask ({reason})") from None
    return Cluster(client.ApiClient(configuration), namespace)
