"""A run on a cluster: checked here, started once, waited for, and judged by what it published."""

import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import reduce
from importlib.metadata import version as package_version
from operator import or_
from pathlib import Path
from typing import Any

import yaml
from kfp_server_api import (
    V2beta1Experiment,
    V2beta1PipelineVersion,
    V2beta1PipelineVersionReference,
    V2beta1Run,
    V2beta1RuntimeConfig,
)

from components import step
from components.step import StepError, UserError, choose
from pipelines import releases
from pipelines.kubeflow import Connection, Kubeflow, Predicate
from pipelines.parameters import PIPELINE, check, parameters
from pipelines.releases import Release, Unreadable
from pipelines.runs import RunState, TimedOut

__all__ = ["Order", "Rejected", "Report", "Submitted", "TimedOut"]

EXPERIMENT = "retrain"
LATEST = "latest"


class Rejected(StepError):
    """The run went well and its model was not good enough."""

    code = 3


class Untold(StepError):
    """The run went well, and the store that knows what became of its model cannot be read from here."""

    code = 5


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be run."""

    parameters: Mapping[str, Any]  # those given; the others have the defaults of the pipeline's version
    version: str  # of the pipeline, by name, or LATEST
    experiment: str = EXPERIMENT
    service_account: str = "retrain-runner"
    key: str = ""  # orders of the same key, namespace and experiment are one run

    def __post_init__(self) -> None:
        step.require(bool(self.experiment), "--experiment", self.experiment, "name one")
        step.require(len(self.key) <= 200, "--idempotency-key", self.key, "have at most 200 characters")

    def run_id(self, namespace: str) -> str:
        """The ID that the run will have, whoever sends the order and however often; without a key a new one."""
        if not self.key:
            return str(uuid.uuid4())
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"retrain:{namespace}/{self.experiment}/{self.key}"))


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A run that was started, now or by an earlier order of the same key."""

    run_id: str
    created: bool
    parameters: Mapping[str, Any]


# Parameters


class Loader(yaml.SafeLoader):
    """Says where a date stands that is none, such as 2020-13-45; YAML's own loader raises a bare ValueError."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            why = f"{node.value!r} is no {node.tag.rpartition(':')[2]} ({error})"
            raise yaml.constructor.ConstructorError(None, None, why, node.start_mark) from None


def read_parameters(path: Path) -> dict[str, Any]:
    """Parameters from a file of YAML or JSON: names and values, nothing else."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"parameters {str(path)!r} cannot be read: {getattr(error, 'strerror', 'not text')}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        why = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(
            f"parameters {str(path)!r} is neither YAML nor JSON{where}: {why}; a text needs quotes"
        ) from None
    if not isinstance(content or {}, dict) or not all(isinstance(name, str) for name in content or {}):
        raise UserError(f"parameters {str(path)!r} must hold names and values, such as `epochs: 3`")
    return dict(content or {})


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, if their names and values are those of the pipeline. Raises UserError."""
    fields = {field.name: field for field in parameters()}
    values = {choose("parameter", name, list(fields)): typed(fields[name], value) for name, value in given.items()}
    check(values)
    if "store" in values:
        check_store(values["store"])
    return values


KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text (in quotes)"}


def typed(field: step.Field, value: Any) -> Any:
    """The value, if it has the parameter's type; a whole number is a number too."""
    fits = type(value) is field.type or (field.type is float and type(value) is int)
    step.require(fits, field.name, value, f"be {KINDS[field.type]}")
    return field.type(value)


def check_store(uri: str) -> None:
    """Raises UserError unless the store means the same in every pod."""
    scheme, _, rest = uri.partition("://")
    if not (uri.startswith("/") or (scheme == "s3" and rest.strip("/")) or (scheme == "file" and rest[:1] == "/")):
        raise UserError(f"store must be s3://bucket/prefix, or a directory that every pod has, not {uri!r}")


# Starting


def earlier(client: Kubeflow, order: Order, run_id: str, experiment: V2beta1Experiment | None) -> Submitted | None:
    """The run that an order of the same key has started. Raises UserError where that had other parameters.

    It is not looked for where there is no experiment that it could belong to.
    """
    run = client.run(run_id) if order.key and experiment else None
    return None if run is None else _same(run, order)


def prepare(
    client: Kubeflow,
    order: Order,
    run_id: str,
    experiment: V2beta1Experiment | None,
    version: V2beta1PipelineVersion,
) -> V2beta1Run:
    """A run that can be started; makes its experiment where there is none."""
    experiment = experiment or client.create_experiment(order.experiment, client.namespace)
    return V2beta1Run(
        run_id=run_id,
        display_name=f"{PIPELINE} {datetime.now():%Y-%m-%d %H:%M:%S}",
        description=f"retrain {package_version('retrain')}" + (f", key {order.key}" if order.key else ""),
        experiment_id=experiment.experiment_id,
        pipeline_version_reference=V2beta1PipelineVersionReference(
            pipeline_id=version.pipeline_id, pipeline_version_id=version.pipeline_version_id
        ),
        runtime_config=V2beta1RuntimeConfig(parameters=dict(order.parameters)),
        service_account=order.service_account,
    )


def start(client: Kubeflow, run: V2beta1Run) -> Submitted:
    """Starts the run; one whose answer was lost is found again under its ID."""
    started = client.create_run(run)
    return Submitted(run_id=started.run_id, created=True, parameters=run.runtime_config.parameters)


def _same(run: V2beta1Run, order: Order) -> Submitted:
    before = dict((run.runtime_config and run.runtime_config.parameters) or {})
    for name in sorted({*before, *order.parameters}):
        if before.get(name) != order.parameters.get(name):
            was, now = (repr(given[name]) if name in given else "its default" for given in (before, order.parameters))
            raise UserError(
                f"--idempotency-key {order.key!r} was used for run {run.run_id}, where {name} is {was}, not {now}; "
                "take another key"
            )
    return Submitted(run_id=run.run_id, created=False, parameters=before)


def check_gpus(client: Kubeflow, order: Order) -> None:
    """Raises UserError where the nodes can be seen and none has the GPUs that the run asks for."""
    given = {field.name: field.default for field in parameters()} | dict(order.parameters)
    wanted, gpu_type = int(given["gpus"]), given["gpu_type"]
    most = _most_gpus(client.connection, gpu_type) if wanted else None
    if most is not None and most[gpu_type] < wanted:
        there = ", ".join(f"{count} {name}" for name, count in sorted(most.items()))
        raise UserError(
            f"no node has {wanted} {gpu_type}, as gpus and gpu_type ask; "
            f"{f'one has at most {there}' if there else 'none has any GPU'}; give --gpus 0 or another --gpu-type, "
            "or set autoscaled_gpus = true in the settings if nodes are added on demand"
        )


def _most_gpus(connection: Connection, gpu_type: str) -> Counter[str] | None:
    """The most GPUs of each type that one node has; None where the nodes cannot be seen from here."""
    from pipelines.doctor.cluster import Denied, NoKubeconfig, connect, gpus_by_node

    if not connection.kubernetes:
        return None
    try:
        with connect(connection.context) as api:
            return reduce(or_, gpus_by_node(api, gpu_type), Counter())
    except (Denied, NoKubeconfig, StepError, UserError):
        return None


def find_version(client: Kubeflow, name: str) -> V2beta1PipelineVersion:
    """A version of the pipeline: of the user's namespace, or else of those that all namespaces share."""
    found = client.pipeline(PIPELINE, client.namespace)
    if found is None and client.namespace:
        found = client.pipeline(PIPELINE, "")
    if found is None:
        raise UserError(f"{client.connection.where} has no pipeline {PIPELINE!r}; put it there with `retrain upload`")
    version = client.latest_version(found.pipeline_id) if name == LATEST else _named(client, found.pipeline_id, name)
    if version is None:
        what = "any version" if name == LATEST else f"version {name!r}"
        raise UserError(
            f"pipeline {PIPELINE!r} does not have {what}; put this code's there with `retrain upload`, "
            "or name another one, such as `--pipeline-version latest`"
        )
    return version


def _named(client: Kubeflow, pipeline_id: str, name: str) -> V2beta1PipelineVersion | None:
    """The version of that name, or else of the same content: `retrain upload` uploads none twice."""
    digest = re.search(r"-[0-9a-f]{12}$", name)
    if digest is None:
        return client.version(pipeline_id, name)
    listed = client.versions(pipeline_id, [Predicate("name", "IS_SUBSTRING", digest.group())])
    found = {version.name or version.display_name: version for version in listed}
    return found.get(name) or next((found[other] for other in found if other.endswith(digest.group())), None)


def address(client: Kubeflow, run_id: str) -> str:
    """The page of a run in the Kubeflow UI; '' where only the cluster's inside is known."""
    return client.connection.page(f"runs/details/{run_id}")


# Judging


def ending(run: RunState) -> str:
    """How a run ended that did not end well, and where to look."""
    if run.state == "CANCELED":
        return f"run {run.id} was cancelled"
    failed = next((step.name for step in run.steps if step.state == "FAILED"), "")
    where = f" in {failed}; see `retrain logs {run.id} {failed}`" if failed else f": {run.error}" if run.error else ""
    return f"run {run.id} {run.state.lower()}{where}"


def outcome(run: RunState, store: str = "") -> Release | None:
    """What a run that went well published; None where it found no reason to retrain. Raises Unreadable."""
    if run.stopped:
        return None
    own_store, model = releases.place(run.parameters)
    release = releases.look(store or own_store, model, [run.id], run.created).runs.get(run.id)
    if release is None:
        raise Unreadable(f"store {store or own_store} has no version of model {model!r} that this run published")
    return release


def verdict(run: RunState, release: Release | None, store: str = "") -> tuple[str, list[str]]:
    """What became of the run's model, in one line, and why. Raises Unreadable."""
    from pipelines.summary import headline

    if release is None:
        return "nothing to do: neither the dataset nor the code has changed since the champion was trained", []
    found = releases.verdict(store or releases.place(run.parameters)[0], release.version)
    line = headline(found, {"version": asdict(release.version), "champion": release.champion})
    return line, list(found["reasons"])


def require_success(run: RunState) -> None:
    """Raises StepError unless the run ended well."""
    if run.state != "SUCCEEDED":
        raise StepError(ending(run))


@dataclass(kw_only=True)
class Report:
    """What is known of a submitted run; it grows while the run is waited for."""

    submitted: Submitted
    order: Order
    version: str  # of the pipeline
    namespace: str
    url: str
    run: RunState | None = None
    release: Release | None = None

    def json(self) -> str:
        """One object for programs."""
        run = self.run
        steps = {step.name: {"state": step.state, "seconds": step.seconds} for step in run.steps} if run else None
        found: dict[str, Any] = {
            "run_id": self.submitted.run_id,
            "created": self.submitted.created,
            "url": self.url or None,
            "namespace": self.namespace,
            "experiment": self.order.experiment,
            "pipeline_version": self.version,
            "parameters": dict(self.submitted.parameters),
            "state": run.state if run else None,
            "seconds": run.seconds if run else None,
            "steps": steps,
            "release": self.release.facts() if self.release else None,
        }
        return json.dumps(found, indent=2)
