"""Kubeflow Pipelines, as far as this project needs it: pipelines, versions, experiments, runs and recurring runs.

What is sent and what comes back goes through the models of `kfp_server_api`, so that a field that does not exist fails
here. Source of the rules: kubeflow/pipelines 2.17, backend/api/v2beta1/*.proto and backend/src/apiserver.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from urllib.parse import quote

import kfp_server_api
from kfp_server_api import (
    V2beta1Experiment,
    V2beta1Pipeline,
    V2beta1PipelineVersion,
    V2beta1RecurringRun,
    V2beta1Run,
)

from components.step import UserError
from pipelines.transport import Conflict, Connection, NotFound, ServerError, Unreachable

__all__ = ["Conflict", "Connection", "Health", "Kubeflow", "NotFound", "Predicate", "ServerError", "Unreachable"]

LARGEST_PAGE = 200
"""The server answers no more at once, whatever is asked (backend/src/apiserver/list/list.go)."""
LOOKS = (0.2, 1.0, 3.0)
"""Seconds before each look for a run whose creation got no answer."""

Operation = Literal[
    "EQUALS",
    "NOT_EQUALS",
    "GREATER_THAN",
    "GREATER_THAN_EQUALS",
    "LESS_THAN",
    "LESS_THAN_EQUALS",
    "IN",
    "IS_SUBSTRING",
]


@dataclass(frozen=True)
class Health:
    """What the server says of itself."""

    version: str
    """Such as '2.17.0'; 'unknown' where it does not say."""
    multi_user: bool
    pipeline_store: str
    """`database`, or `kubernetes` where pipelines are custom resources."""


@dataclass(frozen=True)
class Predicate:
    """A condition on the rows of a list; several are joined by AND."""

    key: str
    operation: Operation
    value: str | int | datetime | Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """As backend/api/v2beta1/filter.proto has it."""
        return {"operation": self.operation, "key": self.key, **self._value()}

    def _value(self) -> dict[str, Any]:
        if isinstance(self.value, str):
            return {"string_value": self.value}
        if isinstance(self.value, int):
            return {"long_value": str(self.value)}
        if isinstance(self.value, datetime):
            return {"timestamp_value": f"{self.value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"}
        return {"string_values": {"values": list(self.value)}}


def rendered(predicates: Sequence[Predicate]) -> str:
    """The `filter` of a list, percent-encoded: the server decodes it again after HTTP has (list_request_util.go)."""
    if not predicates:
        return ""
    return quote(json.dumps({"predicates": [predicate.as_dict() for predicate in predicates]}), safe="")


class Kubeflow:
    """A client of one server."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._models = kfp_server_api.ApiClient(kfp_server_api.Configuration(host=""))
        self._health: Health | None = None

    @property
    def requests(self) -> int:
        """HTTP requests made so far, every attempt counted."""
        return self.connection.requests

    @property
    def namespace(self) -> str:
        """The namespace that the user chose; '' in single-user mode."""
        return self.connection.namespace

    def health(self) -> Health:
        """What the server says of itself; asked once."""
        if self._health is None:
            # Raw JSON: the generated model leaves the version out.
            answer = self._call("GET", "/healthz", "ask for the server's health")
            self._health = Health(
                version=answer.get("tag_name") or "unknown",
                multi_user=bool(answer.get("multi_user")),
                pipeline_store=answer.get("pipeline_store") or "database",
            )
        return self._health

    # Pipelines

    def pipeline(self, name: str, namespace: str) -> V2beta1Pipeline | None:
        """The pipeline of that name in a namespace, '' for the shared ones; None if there is none."""
        path = f"/pipelines/names/{quote(name, safe='')}"
        try:
            answer = self._call("GET", path, f"look up pipeline {name!r}", query={"namespace": namespace})
        except NotFound:
            return None
        return self._read(answer, "V2beta1Pipeline")

    def create_pipeline(self, name: str, namespace: str, description: str) -> V2beta1Pipeline:
        """A new pipeline without versions, or the one that another has created meanwhile."""
        wanted = V2beta1Pipeline(name=name, display_name=name, namespace=namespace or None, description=description)
        doing = f"create pipeline {name!r}"
        try:
            return self._read(self._call("POST", "/pipelines", doing, body=wanted), "V2beta1Pipeline")
        except (Conflict, Unreachable) as error:
            found = self.pipeline(name, namespace) if may_exist(error) else None
            if found is None:
                raise
            return found

    def version(self, pipeline_id: str, name: str) -> V2beta1PipelineVersion | None:
        """The version of that name; None if there is none."""
        listed = self.versions(pipeline_id, [Predicate("name", "EQUALS", name)])
        return next((version for version in listed if (version.name or version.display_name) == name), None)

    def latest_version(self, pipeline_id: str) -> V2beta1PipelineVersion | None:
        """The newest version; None if the pipeline has none."""
        return next(self.versions(pipeline_id, page_size=1), None)

    def versions(
        self, pipeline_id: str, predicates: Sequence[Predicate] = (), page_size: int = 20
    ) -> Iterator[V2beta1PipelineVersion]:
        """The versions, newest first. Each carries its whole specification."""
        path = f"/pipelines/{pipeline_id}/versions"
        doing = "list the versions of the pipeline"
        query = {"sort_by": "created_at desc", "filter": rendered(predicates), "page_size": page_size}
        return self._list(path, "pipeline_versions", "V2beta1PipelineVersion", doing, {}, query)

    def upload_version(self, pipeline_id: str, name: str, package: Path, description: str) -> V2beta1PipelineVersion:
        """A new version from compiled YAML, or the one of that name that another has uploaded meanwhile."""
        query = {"name": name, "display_name": name, "pipelineid": pipeline_id, "description": description}
        upload = (f"{name}.yaml", package.read_bytes())
        doing = f"upload version {name!r}"
        try:
            answer = self._call("POST", "/pipelines/upload_version", doing, query=query, upload=upload)
            return self._read(answer, "V2beta1PipelineVersion")
        except (Conflict, Unreachable) as error:
            found = self.version(pipeline_id, name) if may_exist(error) else None
            if found is None:
                raise
            return found

    # Experiments

    def find_experiment(self, name: str, namespace: str) -> V2beta1Experiment | None:
        """The experiment of that name; None if there is none."""
        query = {"filter": rendered([Predicate("display_name", "EQUALS", name)]), "page_size": LARGEST_PAGE}
        doing = f"look up experiment {name!r}"
        listed = self._list("/experiments", "experiments", "V2beta1Experiment", doing, {"namespace": namespace}, query)
        # MySQL compares without regard to case.
        return next((experiment for experiment in listed if experiment.display_name == name), None)

    def experiment(self, name: str, namespace: str) -> V2beta1Experiment:
        """The experiment of that name, created if there is none."""
        return self.find_experiment(name, namespace) or self.create_experiment(name, namespace)

    def create_experiment(self, name: str, namespace: str) -> V2beta1Experiment:
        """A new experiment, or the one that another has created meanwhile."""
        wanted = V2beta1Experiment(display_name=name, namespace=namespace or None)
        try:
            answer = self._call("POST", "/experiments", f"create experiment {name!r}", body=wanted)
            return self._read(answer, "V2beta1Experiment")
        except (Conflict, Unreachable) as error:
            found = self.find_experiment(name, namespace) if may_exist(error) else None
            if found is None:
                raise
            return found

    # Runs

    def create_run(self, run: V2beta1Run) -> V2beta1Run:
        """Starts a run. Where `run.run_id` is set the server takes it, and a lost answer is looked for under that ID.

        The same run is never sent twice: the server starts its pods before it notices that the ID is taken.
        Raises Unreachable with `lost` set if whether it has started is not known.
        """
        try:
            return self._read(self._call("POST", "/runs", "start the run", body=run), "V2beta1Run")
        except Unreachable as error:
            started = self._look_for(run.run_id) if error.lost and run.run_id else None
            if started is None:
                raise
            return started
        except ServerError:
            started = self.run(run.run_id) if run.run_id else None
            if started is None:
                raise
            return started

    def _look_for(self, run_id: str) -> V2beta1Run | None:
        """A run that may be about to appear."""
        for pause in LOOKS:
            time.sleep(pause)
            found = self.run(run_id)
            if found is not None:
                return found
        return None

    def run(self, run_id: str) -> V2beta1Run | None:
        """A run with the details of its tasks; None if there is none of that ID."""
        try:
            answer = self._call("GET", f"/runs/{quote(run_id, safe='')}", f"look up run {run_id!r}")
        except NotFound:
            return None
        return self._read(answer, "V2beta1Run")

    def terminate(self, run_id: str) -> None:
        """Stops a run; one that has ended, or is stopping, stays as it is."""
        path = f"/runs/{quote(run_id, safe='')}:terminate"
        try:
            self._call("POST", path, f"stop run {run_id!r}", repeatable=True)
        except NotFound:
            raise
        except UserError:
            run = self.run(run_id)
            if run is None or run.state in (None, "RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "PAUSED"):
                raise

    def runs(
        self,
        *,
        namespace: str | None = None,
        experiment_id: str | None = None,
        predicates: Sequence[Predicate] = (),
        newest_first: bool = True,
        page_size: int = LARGEST_PAGE,
    ) -> Iterator[V2beta1Run]:
        """The runs of a namespace or of an experiment, a page at a time as they are asked for; archived ones too."""
        scope = {"namespace": self._scope(namespace), "experiment_id": experiment_id}
        order = "created_at desc" if newest_first else "created_at asc"
        query = {"sort_by": order, "filter": rendered(predicates), "page_size": page_size}
        return self._list("/runs", "runs", "V2beta1Run", "list the runs", scope, query)

    def count_runs(
        self,
        *,
        namespace: str | None = None,
        experiment_id: str | None = None,
        predicates: Sequence[Predicate] = (),
    ) -> int:
        """How many runs `runs` would yield; one request."""
        scope = {"namespace": self._scope(namespace), "experiment_id": experiment_id}
        query = scope | {"filter": rendered(predicates), "page_size": 1}
        return int(self._call("GET", "/runs", "count the runs", query=query).get("total_size", 0))

    # Recurring runs

    def recurring_runs(
        self,
        *,
        namespace: str | None = None,
        experiment_id: str | None = None,
        predicates: Sequence[Predicate] = (),
    ) -> Iterator[V2beta1RecurringRun]:
        """The recurring runs, oldest first."""
        scope = {"namespace": self._scope(namespace), "experiment_id": experiment_id}
        query = {"sort_by": "created_at asc", "filter": rendered(predicates), "page_size": LARGEST_PAGE}
        # The one list whose field is not in snake case (backend/api/v2beta1/recurring_run.proto).
        return self._list(
            "/recurringruns", "recurringRuns", "V2beta1RecurringRun", "list the recurring runs", scope, query
        )

    def create_recurring_run(self, recurring_run: V2beta1RecurringRun) -> V2beta1RecurringRun:
        """A new recurring run. Names are not unique: after an Unreachable with `lost` set, look before trying again."""
        doing = f"create recurring run {recurring_run.display_name!r}"
        return self._read(self._call("POST", "/recurringruns", doing, body=recurring_run), "V2beta1RecurringRun")

    def enable(self, recurring_run_id: str) -> None:
        """Lets a recurring run start runs."""
        path = f"/recurringruns/{recurring_run_id}:enable"
        self._call("POST", path, "enable the recurring run", repeatable=True)

    def disable(self, recurring_run_id: str) -> None:
        """Stops a recurring run from starting runs; those in progress go on."""
        path = f"/recurringruns/{recurring_run_id}:disable"
        self._call("POST", path, "disable the recurring run", repeatable=True)

    def delete_recurring_run(self, recurring_run_id: str) -> None:
        """Deletes a recurring run; one that has gone is fine.

        Runs in progress go on where the server is 2.16 or newer. An older one ignores the policy and kills them, so
        let them end first (kubeflow/pipelines #7421, #12574).
        """
        path = f"/recurringruns/{recurring_run_id}"
        query = {"propagation_policy": "ORPHAN"}
        try:
            self._call("DELETE", path, "delete the recurring run", query=query, repeatable=True)
        except NotFound:
            return

    def _scope(self, namespace: str | None) -> str:
        return self.namespace if namespace is None else namespace

    def _list(
        self, path: str, field: str, model: str, doing: str, scope: dict[str, Any], query: dict[str, Any]
    ) -> Iterator[Any]:
        """The items of all pages; the token carries order and filter, which may not be sent again with it."""
        answer = self._call("GET", path, doing, query=scope | query)
        while True:
            yield from (self._read(item, model) for item in answer.get(field, []))
            token = answer.get("next_page_token")
            if not token:
                return
            further = {"page_token": token, "page_size": query["page_size"]}
            answer = self._call("GET", path, doing, query=scope | further)

    def _call(self, method: str, path: str, doing: str, *, body: Any = None, **options: Any) -> dict[str, Any]:
        sent = self._models.sanitize_for_serialization(body)
        return self.connection.call(method, f"/apis/v2beta1{path}", doing, body=sent, **options)

    def _read(self, answer: dict[str, Any], model: str) -> Any:
        try:
            return self._models.deserialize(SimpleNamespace(data=json.dumps(answer)), model)
        except (kfp_server_api.ApiException, AttributeError, TypeError, ValueError):
            where = self.connection.where
            raise ServerError(f"{where} answers what is no {model}; is its version one with API v2beta1?") from None


def may_exist(error: ServerError) -> bool:
    """Whether what could not be created may be there all the same."""
    return isinstance(error, Conflict) or (isinstance(error, Unreachable) and error.lost)
