"""Kubeflow Pipelines' REST API v2beta1 on loopback, as its API server 2.17 speaks it.

What comes in and goes out is checked against the models of `kfp_server_api`. Sources: kubeflow/pipelines 2.17.0,
backend/src/apiserver/{server,resource,list,filter}/*.go; the names of functions in comments are theirs.
"""

import email.parser
import email.policy
import re
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import kfp_server_api
import yaml

from tests.servers.loopback import Loopback, Reply, Request
from tests.servers.models import WrongField, check
from tests.servers.permissions import GROUP, required
from tests.servers.rows import BadList, page

HTTP = {3: 400, 5: 404, 6: 409, 7: 403, 9: 400, 10: 409, 13: 500, 14: 503, 16: 401}
"""How the gateway answers gRPC codes."""
NEVER = "1970-01-01T00:00:00Z"
ACTIVE = ("RUNTIME_STATE_UNSPECIFIED", "PENDING", "RUNNING", "PAUSED")

Row = dict[str, Any]

States = Mapping[str, str | list[str]]
"""The states of tasks by their key in the pipeline's DAG. A task in a loop has a list: of the states of its iterations,
an empty one where only the loop has begun there."""

Story = list[States | str]
"""What is seen of a run from look to look: its tasks, and at last its own state."""


class Refusal(Exception):
    """An answer that is an error; `code` is gRPC's."""

    def __init__(self, code: int, message: str, chain: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.chain = chain or message


def invalid(message: str) -> Refusal:
    """NewInvalidInputError."""
    return Refusal(3, message, f"Invalid input error: {message}")


def wrapped(message: str) -> Refusal:
    """NewInternalServerError around NewInvalidInputError: how many a user's mistake arrives."""
    return Refusal(13, "Internal Server Error", f"InternalServerError: {message}: Invalid input error: {message}")


def missing(kind: str, name: str) -> Refusal:
    """NewResourceNotFoundError."""
    message = f"{kind} {name} not found"
    return Refusal(5, message, f"Failed to fetch: ResourceNotFoundError: {message}")


class FakeKubeflow(Loopback):
    """A server whose state lies open in dictionaries of rows by ID."""

    def __init__(self, *, multi_user: bool = False, version: str = "2.17.0", **options: Any) -> None:
        super().__init__(**options)
        self.multi_user = multi_user
        self.version = version
        self.pipeline_store = "database"
        self.tokens: dict[str, str] = {}
        """The user of each token; where there is any token or cookie, nobody else comes in."""
        self.cookies: dict[str, str] = {}
        self.grants: set[tuple[str, str, str, str]] = set()
        """(user, namespace, resource, verb)."""
        self.pipelines: dict[str, Row] = {}
        self.versions: dict[str, Row] = {}
        self.experiments: dict[str, Row] = {}
        self.runs: dict[str, Row] = {}
        self.recurring_runs: dict[str, Row] = {}
        self.workflows: list[str] = []
        """The run ID of each workflow that was ever started: twice where a run was started twice."""
        self.killed: list[str] = []
        """The runs that went with their recurring run."""
        self.story: Story = []
        """What a run does from one look at it to the next: the states of its tasks, or the state that it ends in."""
        self.stories: dict[str, Story] = {}
        self.now: Callable[[], float] = time.time

    # What a test tells the server

    def grant(self, user: str, namespace: str, resource: str, *verbs: str) -> None:
        """Gives a user verbs on a resource, such as `runs`, in a namespace."""
        self.grants |= {(user, namespace, resource, verb) for verb in verbs}

    def add_run(self, **fields: Any) -> Row:
        """A run as if it had been started before."""
        run = {
            "run_id": str(uuid.uuid4()),
            "display_name": "retrain",
            "storage_state": "AVAILABLE",
            "created_at": self.time(),
            "scheduled_at": self.time(),
            "finished_at": NEVER,
            "state": "PENDING",
        } | fields
        run.setdefault("experiment_id", "")
        run.setdefault("state_history", [{"update_time": run["created_at"], "state": run["state"]}])
        self.runs[run["run_id"]] = run
        return run

    def tasks(self, run_id: str, states: States) -> None:
        """Sets the states of tasks; the run is running."""
        run = self.runs[run_id]
        self.enter(run, "RUNNING")
        run["run_details"] = {"task_details": [detail for task in states.items() for detail in self.nodes(run, *task)]}

    def finish(self, run_id: str, state: str, error: str = "") -> None:
        """Ends a run."""
        run = self.runs[run_id]
        run["finished_at"] = self.time()
        if error:
            run["error"] = {"code": 13, "message": error}
        self.enter(run, state)

    def tick(self, recurring_run_id: str) -> Row:
        """Starts the run that is due, as the controller does."""
        owner = self.recurring_runs[recurring_run_id]
        assert owner["status"] == "ENABLED", "a disabled recurring run starts nothing"
        run = self.add_run(
            display_name=f"{owner['display_name']}-{len(self.workflows)}",
            recurring_run_id=recurring_run_id,
            **{key: owner[key] for key in ("experiment_id", "runtime_config", "pipeline_version_reference")},
        )
        self.workflows.append(run["run_id"])
        return run

    def time(self) -> str:
        return f"{datetime.fromtimestamp(self.now(), UTC):%Y-%m-%dT%H:%M:%SZ}"

    def enter(self, run: Row, state: str) -> None:
        if run["state"] != state:
            run["state"] = state
            run["state_history"] = [*run["state_history"], {"update_time": self.time(), "state": state}]

    def nodes(self, run: Row, task: str, state: str | list[str]) -> list[Row]:
        """A task as the persistence agent reports it: the driver and the executor are entries like itself."""
        if not isinstance(state, str):
            return self.loop(run, task, state)
        common = {"run_id": run["run_id"], "create_time": run["created_at"], "start_time": run["created_at"]}
        # A task whose condition is false is skipped itself; one from the cache skips its executor.
        executor = "SKIPPED" if state == "CACHED" else state
        states = {
            f"{task}-driver": "SUCCEEDED",
            task: "SUCCEEDED" if state == "CACHED" else state,
            "executor": executor,
        }
        end = {"end_time": self.time()} if state not in (*ACTIVE, "CANCELING") else {}
        return [
            common | end | {"task_id": str(uuid.uuid4()), "display_name": name, "state": state}
            for name, state in states.items()
        ]

    def loop(self, run: Row, task: str, states: list[str]) -> list[Row]:
        """The same of a task in a loop; argocompiler/dag.go has the names (iteratorTask, iterationItemTask)."""
        whole = "SUCCEEDED" if set(states) == {"SUCCEEDED"} else "FAILED" if "FAILED" in states else "RUNNING"
        nodes = self.nodes(run, "for-loop-1", whole)[1:2] + self.nodes(run, "iteration", "SUCCEEDED")[:1]
        nodes += self.nodes(run, "iteration-iterations", whole)[1:2]
        for number, state in enumerate(states):
            nodes += self.nodes(run, f"iteration-iterations({number}:{number})", state or "RUNNING")[1:2]
            nodes += self.nodes(run, "iteration-item", state or "RUNNING")
            nodes += self.nodes(run, task, state) if state else []
        return nodes

    # The protocol

    def answer(self, request: Request) -> Reply:
        path = request.path.removeprefix("/pipeline")  # as Kubeflow's gateway has it in front
        try:
            with self.lock:
                user = self.user(request, path)
                return Reply(200, self.route(request, path, user))
        except BadList as error:
            return self.refusal(path, invalid(str(error)))
        except WrongField as error:
            return self.refusal(path, Refusal(3, f"proto: (line 1:2): {error}"))
        except Refusal as refusal:
            return self.refusal(path, refusal)

    def refusal(self, path: str, refusal: Refusal) -> Reply:
        if "/pipelines/upload" in path:  # plain HTTP: writeErrorToResponse; no rights are a 400 there
            status = 400 if refusal.code == 7 else HTTP[refusal.code]
            return Reply(status, {"error_message": refusal.message, "error_details": refusal.message})
        detail = {
            "@type": "type.googleapis.com/google.rpc.Status",
            "code": refusal.code,
            "message": refusal.message,
        }
        return Reply(HTTP[refusal.code], {"code": refusal.code, "message": refusal.chain, "details": [detail]})

    def user(self, request: Request, path: str) -> str:
        """Who asks; the server's health is for everyone."""
        if path.endswith("/healthz") or not (self.multi_user or self.tokens or self.cookies):
            return ""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        user = self.tokens.get(token) or self.cookies.get(request.headers.get("Cookie", ""))
        if not user:
            message = "User identity is empty in the request header"
            raise Refusal(16, message, f"Failed to authorize: Unauthenticated: {message}")
        return user

    def allow(self, request: Request, user: str, namespace: str) -> None:
        """IsAuthorized."""
        permission = required(request.method, request.path.removeprefix("/pipeline"))
        if not self.multi_user or permission is None:
            return
        resource, verb = permission
        if resource == "pipelines" and namespace == "" and verb in ("get", "list"):
            return  # shared pipelines are for all to read
        if (user, namespace, resource, verb) not in self.grants:
            attributes = f"Namespace:{namespace},Verb:{verb},Group:{GROUP},Version:v1beta1,Resource:{resource},Name:,"
            message = f"User '{user}' is not authorized with reason:  (request: &ResourceAttributes{{{attributes}}})"
            raise Refusal(7, message, f"Failed to authorize: PermissionDenied: {message}: Unauthorized access")

    def route(self, request: Request, path: str, user: str) -> Row:
        for (method, pattern), action in ACTIONS.items():
            match = re.fullmatch(f"/apis/v2beta1{pattern}", path)
            if method == request.method and match:
                given = [re.sub("%20", " ", group) for group in match.groups()]
                return action(self, request, user, *given)
        raise Refusal(5, "Not Found")

    def body(self, request: Request, model: str) -> Row:
        """The JSON that came in, if it is the model's."""
        try:
            given = request.json()
        except ValueError:
            raise Refusal(3, "proto: syntax error (line 1:1): unexpected token") from None
        check(kfp_server_api.models, model, given)
        return cast(Row, given)

    def shown(self, row: Row, model: str) -> Row:
        """A row as it goes out: what is empty is absent."""
        out = {key: value for key, value in row.items() if value not in ("", None, 0, False, [], {})}
        check(kfp_server_api.models, model, out)
        return out

    def listed(self, kind: str, rows: list[Row], query: Mapping[str, str], model: str) -> Row:
        found = page(kind, rows, query)
        found[kind] = [self.shown(row, model) for row in found[kind]]
        return {key: value for key, value in found.items() if value}

    def scope(self, query: Mapping[str, str]) -> str:
        """ReplaceNamespace: in single-user mode there is one."""
        return query.get("namespace", "") if self.multi_user else ""

    # Pipelines

    def health(self, request: Request, user: str) -> Row:
        return {
            "commit_sha": "4a3592cb2d",
            "tag_name": self.version,
            "multi_user": self.multi_user,
            "pipeline_store": self.pipeline_store,
        }

    def get_pipeline_by_name(self, request: Request, user: str, name: str) -> Row:
        namespace = self.scope(request.query)
        self.allow(request, user, namespace)
        for pipeline in self.pipelines.values():
            if (pipeline["name"], pipeline["namespace"]) == (name, namespace):
                return self.shown(pipeline, "V2beta1Pipeline")
        raise missing("Pipeline", name)

    def create_pipeline(self, request: Request, user: str) -> Row:
        given = self.body(request, "V2beta1Pipeline")
        name, namespace = given.get("name") or given.get("display_name", ""), self.scope(given)
        self.allow(request, user, namespace)
        if not name:
            raise invalid("name is required")
        if any((row["name"], row["namespace"]) == (name, namespace) for row in self.pipelines.values()):
            raise Refusal(6, f"Failed to create a new pipeline. The name {name} already exists.")
        row = {
            "pipeline_id": str(uuid.uuid4()),
            "name": name,
            "display_name": given.get("display_name") or name,
            "description": given.get("description", ""),
            "namespace": namespace,
            "created_at": self.time(),
        }
        self.pipelines[row["pipeline_id"]] = row
        return self.shown(row, "V2beta1Pipeline")

    def list_pipelines(self, request: Request, user: str) -> Row:
        namespace = self.scope(request.query)
        self.allow(request, user, namespace)
        rows = [row for row in self.pipelines.values() if row["namespace"] == namespace]
        return self.listed("pipelines", rows, request.query, "V2beta1Pipeline")

    def get_pipeline(self, request: Request, user: str, pipeline_id: str) -> Row:
        pipeline = self.found(self.pipelines, "Pipeline", pipeline_id)
        self.allow(request, user, pipeline["namespace"])
        return self.shown(pipeline, "V2beta1Pipeline")

    def list_versions(self, request: Request, user: str, pipeline_id: str) -> Row:
        pipeline = self.found(self.pipelines, "Pipeline", pipeline_id)
        self.allow(request, user, pipeline["namespace"])
        rows = [row for row in self.versions.values() if row["pipeline_id"] == pipeline_id]
        return self.listed("pipeline_versions", rows, request.query, "V2beta1PipelineVersion")

    def get_version(self, request: Request, user: str, pipeline_id: str, version_id: str) -> Row:
        version = self.found(self.versions, "PipelineVersion", version_id)
        self.allow(request, user, self.pipelines[pipeline_id]["namespace"])
        return self.shown(version, "V2beta1PipelineVersion")

    def upload_version(self, request: Request, user: str) -> Row:
        given = request.query
        failed = "Failed to create a pipeline version"
        content = uploaded(request)
        pipeline = self.pipelines.get(given.get("pipelineid", ""))
        if content is None or pipeline is None:
            raise Refusal(3, failed)
        try:
            self.allow(request, user, pipeline["namespace"])
        except Refusal:
            raise Refusal(7, failed) from None
        specification = parsed_package(content)
        name = given.get("name") or given.get("display_name", "")
        check_version_name(name, pipeline, self.pipeline_store)
        versions = self.versions.values()
        if any((row["pipeline_id"], row["name"]) == (pipeline["pipeline_id"], name) for row in versions):
            raise Refusal(6, failed)
        row = {
            "pipeline_id": pipeline["pipeline_id"],
            "pipeline_version_id": str(uuid.uuid4()),
            "name": name,
            "display_name": given.get("display_name") or name,
            "description": given.get("description", ""),
            "created_at": self.time(),
            "pipeline_spec": specification,
        }
        self.versions[row["pipeline_version_id"]] = row
        return self.shown(row, "V2beta1PipelineVersion")

    # Experiments

    def list_experiments(self, request: Request, user: str) -> Row:
        namespace = self.scope(request.query)
        self.allow(request, user, namespace)
        rows = [row for row in self.experiments.values() if row["namespace"] == namespace]
        return self.listed("experiments", rows, request.query, "V2beta1Experiment")

    def create_experiment(self, request: Request, user: str) -> Row:
        given = self.body(request, "V2beta1Experiment")
        name, namespace = given.get("display_name", ""), self.scope(given)
        self.allow(request, user, namespace)
        if not name:
            raise wrapped("Experiment must have a non-empty name")
        taken = [(row["display_name"].lower(), row["namespace"]) for row in self.experiments.values()]
        if (name.lower(), namespace) in taken:
            raise Refusal(6, f"Failed to create a new experiment. The name {name} already exists.")
        return self.shown(self.add_experiment(name, namespace), "V2beta1Experiment")

    def add_experiment(self, name: str, namespace: str = "") -> Row:
        """An experiment as if it had been created before."""
        row = {
            "experiment_id": str(uuid.uuid4()),
            "display_name": name,
            "namespace": namespace,
            "created_at": self.time(),
            "last_run_created_at": NEVER,
            "storage_state": "AVAILABLE",
        }
        self.experiments[row["experiment_id"]] = row
        return row

    def get_experiment(self, request: Request, user: str, experiment_id: str) -> Row:
        experiment = self.found(self.experiments, "Experiment", experiment_id)
        self.allow(request, user, experiment["namespace"])
        return self.shown(experiment, "V2beta1Experiment")

    def owner(self, given: Row) -> Row:
        """GetValidExperimentNamespacePair."""
        if given.get("experiment_id"):
            return self.found(self.experiments, "Experiment", given["experiment_id"])
        if self.multi_user:
            raise invalid("Experiment id can not be empty in multi-user mode")
        default = [row for row in self.experiments.values() if row["display_name"] == "Default"]
        return default[0] if default else self.add_experiment("Default")

    # Runs

    def create_run(self, request: Request, user: str) -> Row:
        given = self.body(request, "V2beta1Run")
        if not given.get("display_name"):
            raise wrapped("The run name is empty. Please specify a valid name")
        check_lengths(given)
        experiment = self.owner(given)
        self.allow(request, user, experiment["namespace"])
        owner, name = given.get("recurring_run_id"), given["display_name"]
        for run in self.runs.values():
            if owner and (run.get("recurring_run_id"), run["display_name"]) == (owner, name):
                return self.shown(run, "V2beta1Run")
        check_parameters(self.specification(given), given)
        run_id = given.get("run_id") or str(uuid.uuid4())
        self.workflows.append(run_id)  # before the row: a second request starts a second workflow
        if run_id in self.runs:
            raise Refusal(
                13, "Internal Server Error", "Failed to create a run: InternalServerError: Failed to store run"
            )
        fields = given | {"run_id": run_id, "experiment_id": experiment["experiment_id"]}
        fields.setdefault("service_account", "default-editor" if self.multi_user else "pipeline-runner")
        run = self.add_run(**fields)
        experiment["last_run_created_at"] = run["created_at"]
        self.stories[run_id] = list(self.story)
        return self.shown(run, "V2beta1Run")

    def specification(self, given: Row) -> Row:
        """fetchTemplateFromPipelineSpec: the version that is named, or the newest."""
        if given.get("pipeline_spec"):
            return cast(Row, given["pipeline_spec"])
        reference = given.get("pipeline_version_reference") or {}
        pipeline_id, version_id = reference.get("pipeline_id"), reference.get("pipeline_version_id")
        if version_id:
            version = self.versions.get(version_id)
            if version is None:
                raise wrapped(
                    f"Failed to create a run due to error fetching manifest: PipelineVersion {version_id} not found"
                )
            if pipeline_id and version["pipeline_id"] != pipeline_id:
                raise invalid(f"Pipeline version {version_id} belongs to pipeline {version['pipeline_id']}")
            return cast(Row, version["pipeline_spec"])
        versions = [row for row in self.versions.values() if row["pipeline_id"] == pipeline_id]
        if not versions:
            raise wrapped(f"error fetching manifest: a version of pipeline {pipeline_id} not found")
        return cast(Row, max(versions, key=lambda row: row["created_at"])["pipeline_spec"])

    def namespace_of(self, row: Row) -> str:
        return str(self.experiments.get(row.get("experiment_id", ""), {}).get("namespace", ""))

    def get_run(self, request: Request, user: str, run_id: str) -> Row:
        run = self.found(self.runs, "Run", run_id)
        self.allow(request, user, self.namespace_of(run))
        shown = self.shown(run, "V2beta1Run")
        if self.stories.get(run_id):
            self.tell(run_id, self.stories[run_id].pop(0))
        return shown

    def tell(self, run_id: str, event: States | str) -> None:
        if isinstance(event, str):
            self.finish(run_id, event, "the run failed" if event == "FAILED" else "")
        else:
            self.tasks(run_id, event)

    def list_runs(self, request: Request, user: str) -> Row:
        rows = self.scoped(request, user, list(self.runs.values()))
        return self.listed("runs", rows, request.query, "V2beta1Run")

    def scoped(self, request: Request, user: str, rows: list[Row]) -> list[Row]:
        """The rows of the experiment or of the namespace that is asked for."""
        experiment_id = request.query.get("experiment_id", "")
        namespace = self.scope(request.query)
        if experiment_id:
            namespace = self.found(self.experiments, "Experiment", experiment_id)["namespace"]
        self.allow(request, user, namespace)
        if experiment_id:
            return [row for row in rows if row.get("experiment_id") == experiment_id]
        return [row for row in rows if not self.multi_user or self.namespace_of(row) == namespace]

    def terminate(self, request: Request, user: str, run_id: str) -> Row:
        run = self.found(self.runs, "Run", run_id)
        self.allow(request, user, self.namespace_of(run))
        if run["state"] not in ACTIVE:
            raise Refusal(3, f"Failed to terminate run {run_id}. Row not found")
        self.enter(run, "CANCELING")
        self.stories[run_id] = ["FAILED"]
        return {}

    # Recurring runs

    def list_recurring_runs(self, request: Request, user: str) -> Row:
        rows = self.scoped(request, user, list(self.recurring_runs.values()))
        return self.listed("recurringRuns", rows, request.query, "V2beta1RecurringRun")

    def create_recurring_run(self, request: Request, user: str) -> Row:
        given = self.body(request, "V2beta1RecurringRun")
        if not given.get("display_name"):
            raise wrapped("Recurring run name is empty. Please specify a valid name")
        check_lengths(given)
        check_trigger(given)
        experiment = self.owner(given)
        self.allow(request, user, experiment["namespace"])
        check_parameters(self.specification(given), given)
        enabled = given.get("mode") != "DISABLE"
        row = given | {
            "recurring_run_id": str(uuid.uuid4()),
            "experiment_id": experiment["experiment_id"],
            "namespace": experiment["namespace"] or "kubeflow",
            "mode": "ENABLE" if enabled else "DISABLE",
            "status": "ENABLED" if enabled else "DISABLED",
            "max_concurrency": str(given["max_concurrency"]),
            "created_at": self.time(),
            "updated_at": self.time(),
        }
        row.setdefault("runtime_config", {})
        row.setdefault("pipeline_version_reference", {})
        self.recurring_runs[row["recurring_run_id"]] = row
        return self.shown(row, "V2beta1RecurringRun")

    def get_recurring_run(self, request: Request, user: str, recurring_run_id: str) -> Row:
        row = self.found(self.recurring_runs, "Job", recurring_run_id)
        self.allow(request, user, self.namespace_of(row))
        return self.shown(row, "V2beta1RecurringRun")

    def change_mode(self, request: Request, user: str, recurring_run_id: str, mode: str) -> Row:
        row = self.found(self.recurring_runs, "Job", recurring_run_id)
        self.allow(request, user, self.namespace_of(row))
        row.update(mode=mode.upper(), status=f"{mode.upper()}D", updated_at=self.time())
        return {}

    def delete_recurring_run(self, request: Request, user: str, recurring_run_id: str) -> Row:
        row = self.found(self.recurring_runs, "Job", recurring_run_id)
        self.allow(request, user, self.namespace_of(row))
        del self.recurring_runs[recurring_run_id]
        known = tuple(map(int, self.version.split(".")[:2])) >= (2, 16)  # an older server ignores the policy
        if not (known and request.query.get("propagation_policy") == "ORPHAN"):
            for run in self.runs.values():
                if run.get("recurring_run_id") == recurring_run_id and run["state"] in ACTIVE:
                    self.killed.append(run["run_id"])
                    self.finish(run["run_id"], "FAILED", "the workflow was deleted")
        return {}

    def found(self, rows: dict[str, Row], kind: str, row_id: str) -> Row:
        if row_id not in rows:
            raise missing(kind, row_id)
        return rows[row_id]


ID = "([^/:]+)"
ACTIONS: dict[tuple[str, str], Callable[..., Row]] = {
    ("GET", "/healthz"): FakeKubeflow.health,
    ("GET", f"/pipelines/names/{ID}"): FakeKubeflow.get_pipeline_by_name,
    ("POST", "/pipelines"): FakeKubeflow.create_pipeline,
    ("GET", "/pipelines"): FakeKubeflow.list_pipelines,
    ("POST", "/pipelines/upload_version"): FakeKubeflow.upload_version,
    ("GET", f"/pipelines/{ID}"): FakeKubeflow.get_pipeline,
    ("GET", f"/pipelines/{ID}/versions"): FakeKubeflow.list_versions,
    ("GET", f"/pipelines/{ID}/versions/{ID}"): FakeKubeflow.get_version,
    ("GET", "/experiments"): FakeKubeflow.list_experiments,
    ("POST", "/experiments"): FakeKubeflow.create_experiment,
    ("GET", f"/experiments/{ID}"): FakeKubeflow.get_experiment,
    ("GET", "/runs"): FakeKubeflow.list_runs,
    ("POST", "/runs"): FakeKubeflow.create_run,
    ("GET", f"/runs/{ID}"): FakeKubeflow.get_run,
    ("POST", f"/runs/{ID}:terminate"): FakeKubeflow.terminate,
    ("GET", "/recurringruns"): FakeKubeflow.list_recurring_runs,
    ("POST", "/recurringruns"): FakeKubeflow.create_recurring_run,
    ("GET", f"/recurringruns/{ID}"): FakeKubeflow.get_recurring_run,
    ("POST", f"/recurringruns/{ID}:(enable|disable)"): FakeKubeflow.change_mode,
    ("DELETE", f"/recurringruns/{ID}"): FakeKubeflow.delete_recurring_run,
}


def uploaded(request: Request) -> bytes | None:
    """The file in the field `uploadfile` of a form."""
    header = f"Content-Type: {request.headers.get('Content-Type', '')}\r\n\r\n".encode()
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(header + request.content)
    for part in form.iter_parts() if form.is_multipart() else ():
        if part.get_param("name", header="content-disposition") == "uploadfile" and part.get_filename():
            return cast(bytes, part.get_payload(decode=True))
    return None


def parsed_package(content: bytes) -> Row:
    """The pipeline of compiled YAML, in the shape of a version's `pipeline_spec`."""
    documents = list(yaml.load_all(content, yaml.CSafeLoader))
    specification = next((document for document in documents if document and "pipelineInfo" in document), None)
    platform = next((document for document in documents if document and "platforms" in document), None)
    if specification is None:
        raise invalid("no pipeline spec is provided")
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,127}", specification["pipelineInfo"]["name"]):
        raise invalid("pipeline's name must contain only lowercase alphanumeric characters or '-'")
    return {"pipeline_spec": specification, "platform_spec": platform} if platform else cast(Row, specification)


def check_version_name(name: str, pipeline: Row, store: str) -> None:
    if not name or len(name) > 127:
        raise invalid("PipelineVersion.Name must have 1 to 127 characters")
    whole = f"{pipeline['name']}-{name}"
    if store == "kubernetes" and not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", whole):
        raise Refusal(10, "Invalid pipeline version name")


def check_lengths(given: Row) -> None:
    """VARCHAR(255) in MySQL's strict mode."""
    for field in ("display_name", "description"):
        if len(given.get(field, "")) > 255:
            raise Refusal(13, "Internal Server Error", f"Error 1406 (22001): Data too long for column '{field}'")


def check_trigger(given: Row) -> None:
    """toModelJob; the cron is github.com/robfig/cron v1's, seconds first."""
    concurrency = int(given.get("max_concurrency", 0))
    if not 1 <= concurrency <= 10:
        raise invalid(f"The max concurrency of the job is out of range. Support 1-10. Received {concurrency}")
    cron = given.get("trigger", {}).get("cron_schedule", {}).get("cron", "@daily")
    fields = cron.split()
    if not (cron.startswith("@") or (len(fields) in (5, 6) and all(re.fullmatch(r"[\w*/,?-]+", f) for f in fields))):
        raise invalid("Schedule cron is not a supported format(https://godoc.org/github.com/robfig/cron).")


TYPES: dict[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int, float),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}


def check_parameters(specification: Row, given: Row) -> None:
    """validatePipelineJobInputs."""
    specification = specification.get("pipeline_spec", specification)
    declared = specification.get("root", {}).get("inputDefinitions", {}).get("parameters", {})
    parameters = (given.get("runtime_config") or {}).get("parameters") or {}
    for name, declaration in declared.items():
        if name not in parameters:
            if not declaration.get("isOptional") and "defaultValue" not in declaration:
                raise invalid(
                    f"parameter {name} is not optional, yet has neither default value nor user provided value"
                )
            continue
        value, kind = parameters[name], declaration["parameterType"]
        if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
            raise invalid(f"input parameter {name} requires type {kind}, but the parameter value is not of it")
    extra = sorted(parameters.keys() - declared.keys())
    if extra:
        raise invalid(f"parameter(s) provided are not required by the pipeline: {', '.join(extra)}")
