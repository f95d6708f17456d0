"""A cluster: whether Kubeflow Pipelines answers and fits, what this user may do, and what a run will find there."""

import importlib.metadata
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from components.step import StepError, UserError
from components.train.trainjob.needs import RIGHTS as TRAINING
from components.train.trainjob.needs import RUNTIME
from pipelines.doctor import clock
from pipelines.doctor.finding import Check, Finding, failed, mistaken, ok, warning
from pipelines.kubeflow import Kubeflow, NotFound

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

SECONDS = 5
"""How long an answer of Kubernetes may take."""

KFP = "pipelines.kubeflow.org"
TRAINER = "trainer.kubeflow.org"

RIGHTS: Mapping[tuple[str, str], Sequence[str]] = {
    (KFP, "pipelines"): ("get", "list", "create"),
    (KFP, "experiments"): ("list", "create"),
    (KFP, "runs"): ("get", "list", "create", "terminate"),
    (KFP, "jobs"): ("list", "create", "enable", "disable", "delete"),
}
"""The verbs that the commands need, by group and resource. KFP asks Kubernetes for them in multi-user mode (pipelines
2.17.0, backend/src/apiserver/server); `jobs` are the recurring runs of `retrain schedule`. Of Kubernetes itself they
need none: `retrain submit` looks for GPUs where it may list nodes, and goes on where it may not.
"""

LOGS: Mapping[tuple[str, str], Sequence[str]] = {("", "pods"): ("list",), ("", "pods/log"): ("get",)}
"""What `retrain logs` needs besides."""

GPU = re.compile("gpu|mig-")
"""In the name of what a node offers: a GPU or a part of one, `nvidia.com/gpu` or `nvidia.com/mig-1g.5gb`."""

ORPHANING = (2, 16)
"""The first version that can delete a recurring run without killing its runs (kubeflow/pipelines, PR 12574)."""

METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
"""Asks Kubernetes for an object's metadata alone, so that of a secret no value comes over the wire."""

SET_UP = "apply manifests/ to the cluster: see manifests/README.md"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run finds in its namespace, by name."""

    namespace: str
    service_account: str
    secret: str  # with the store's credentials; empty: web identity
    gpu_type: str
    autoscaled: bool = False  # whether nodes with GPUs are added when a run asks for them


class Denied(Exception):
    """Kubernetes does not let this user look."""


class NoKubeconfig(Exception):
    """There is no way to the Kubernetes API from here; the sentence says why."""


def checks(kubeflow: Kubeflow, needs: Callable[[], Needs], context: str) -> list[Check]:
    """What to look at in a cluster: KFP through its own API, everything else through that of Kubernetes.

    To find out what is needed, KFP may have to be asked; so that is part of a check.
    """
    return [
        Check("kfp", lambda: pipelines(kubeflow)),
        Check("kubernetes", lambda: kubernetes(kubeflow, needs(), context)),
    ]


def pipelines(kubeflow: Kubeflow) -> Sequence[Finding]:
    """Whether Kubeflow Pipelines answers, fits the SDK, and lets this user in."""
    health = kubeflow.health()
    mode = "multi-user" if health.multi_user else "single-user"
    return [
        ok("kfp", f"{kubeflow.connection.where}: {mode}, pipelines in its {health.pipeline_store}"),
        version(health.version, importlib.metadata.version("kfp")),
        access(kubeflow),
    ]


def version(server: str, sdk: str) -> Finding:
    """Whether server and SDK fit; `server` is what it says of itself, such as '2.17.0'."""
    seen = f"server {server}, SDK {sdk}"
    numbers = _numbers(server)
    if numbers is None:
        advice = f"the server does not say its version; see that it is {'.'.join(map(str, ORPHANING))} or newer"
        return warning("kfp version", seen, advice)
    if numbers[0] != (_numbers(sdk) or numbers)[0]:
        return failed("kfp version", seen, "the compiled pipeline is not understood there: update the server")
    if numbers < ORPHANING:
        advice = (
            "it kills a schedule's run in progress when the schedule is deleted, and ignores TTL; update the server"
        )
        return warning("kfp version", seen, advice)
    if numbers < (_numbers(sdk) or numbers):
        return warning("kfp version", seen, "it ignores what only the SDK's version knows, TTL and deadline: update it")
    return ok("kfp version", seen)


def _numbers(version: str) -> tuple[int, int] | None:
    """Major and minor."""
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def access(kubeflow: Kubeflow) -> Finding:
    """Whether the credentials are good, by using them."""
    try:
        count = kubeflow.count_runs()
    except UserError as error:
        return mistaken("access", error)
    where = f"in namespace {kubeflow.namespace!r}" if kubeflow.namespace else "in all"
    return ok("access", f"{count:,} runs {where}")


def kubernetes(kubeflow: Kubeflow, needs: Needs, context: str) -> Sequence[Finding]:
    """What the Kubernetes API tells: the clock, rights, what a run needs, GPUs, storage."""
    try:
        api = connect(context)
    except NoKubeconfig as error:
        advice = "give a kubeconfig to have rights, GPUs and secrets looked at; to submit, none is needed"
        return [warning("kubernetes", str(error), advice)]
    with api:
        looks: dict[str, Callable[[], Sequence[Finding]]] = {
            "namespace": lambda: [namespace(api, needs)],
            "rights": lambda: rights(api, kubeflow, needs.namespace),
            "runner": lambda: [runner(api, needs)],
            "launcher": lambda: [launcher(api, needs)],
            "secret": lambda: [secret(api, needs)],
            "gpus": lambda: [gpus(api, needs)],
            "trainer": lambda: trainer(api, needs),
            "trainer rights": lambda: [runner_rights(api, needs)],
            "storage class": lambda: [storage_class(api)],
        }
        return [*server(api), *(finding for name, look in looks.items() for finding in permitted(name, look))]


def connect(context: str) -> "ApiClient":
    """A client of the kubeconfig's cluster, or else of the cluster that this is a pod of.

    Raises NoKubeconfig, or UserError where a context is named.
    """
    from kubernetes import client, config
    from yaml import YAMLError

    configuration = client.Configuration()
    configuration.retries = 1
    try:
        config.load_kube_config(context=context or None, client_configuration=configuration)
    except (config.ConfigException, YAMLError, OSError, ValueError, TypeError, AttributeError) as error:
        # All but the first come from a broken file, of which the client checks little.
        if context:
            raise UserError(
                f"context {context!r} of the kubeconfig is not usable: {_line(error)}; see kubectl config"
            ) from None
        try:
            config.load_incluster_config(configuration)
        except config.ConfigException:
            raise NoKubeconfig(f"no usable kubeconfig: {_line(error)}") from None
    return client.ApiClient(configuration)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")


def permitted(name: str, look: Callable[[], Sequence[Finding]]) -> Sequence[Finding]:
    """The findings of `look`, or that this user may not look."""
    try:
        return look()
    except Denied as denied:
        return [warning(name, f"this user may not {denied}", "not needed to submit; somebody who may should look")]


@contextmanager
def asking(what: str, host: str) -> Iterator[None]:
    """Turns what the client raises into sentences; `what` completes "this user may not …"."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        if error.status == 401:
            raise UserError(
                f"Kubernetes at {host} does not know this user; log in again, or see kubectl config"
            ) from None
        if error.status == 403:
            raise Denied(what) from None
        if error.status == 404:
            raise NotFound(what) from None
        raise StepError(
            f"Kubernetes at {host} failed to {what}: HTTP {error.status} {error.reason}; try again"
        ) from None
    except HTTPError as error:
        reason = getattr(error, "reason", None) or error
        raise StepError(f"Kubernetes at {host} cannot be reached ({reason}); see kubectl config") from None


def get(api: "ApiClient", path: str, what: str, accept: str = METADATA) -> dict[str, Any]:
    """The metadata of an object, or what else is accepted. Raises NotFound, Denied, UserError, StepError."""
    with asking(what, api.configuration.host):
        answer: dict[str, Any] = api.call_api(
            path,
            "GET",
            header_params={"Accept": accept},
            auth_settings=["BearerToken"],
            response_type="object",
            _request_timeout=SECONDS,
            _return_http_data_only=True,
        )
        return answer


def server(api: "ApiClient") -> Sequence[Finding]:
    """The version of Kubernetes, and its clock."""
    from kubernetes.client import VersionApi

    with asking("ask for its version", api.configuration.host):
        found, _, headers = VersionApi(api).get_code_with_http_info(_request_timeout=SECONDS)
    skewed = clock.judge("clock", clock.skew(headers["Date"]), "the cluster")
    return [ok("kubernetes", f"{found.git_version} at {api.configuration.host}"), skewed]


def rights(api: "ApiClient", kubeflow: Kubeflow, namespace: str) -> Sequence[Finding]:
    """Whether the kubeconfig's user has the rights that the commands need; one line a resource."""
    found = [may(api, namespace, *resource, verbs) for resource, verbs in LOGS.items()]
    logs = next(
        (finding for finding in found if finding.state != "ok"), ok("rights: logs", "pods: list; pods/log: get")
    )
    if not multi_user(kubeflow):
        return [ok("rights", "KFP asks for none in single-user mode: whoever reaches it may do everything"), logs]
    return [*(may(api, namespace, *resource, verbs) for resource, verbs in RIGHTS.items()), logs]


@cache  # a server that does not answer is not waited for twice
def multi_user(kubeflow: Kubeflow) -> bool:
    """Whether KFP asks for rights; where it does not answer, they are looked at all the same."""
    try:
        return kubeflow.health().multi_user
    except (StepError, UserError):
        return True


def may(api: "ApiClient", namespace: str, group: str, resource: str, verbs: Sequence[str]) -> Finding:
    """Whether this user has every one of these verbs on a resource; without `retrain logs` one can live."""
    missing = [verb for verb in verbs if not allowed(api, namespace, group, resource, verb)]
    if not missing:
        return ok(f"rights: {resource}", ", ".join(verbs))
    seen = f"this user may not {', '.join(missing)} {resource} in namespace {namespace!r}"
    if group != KFP:
        return warning(f"rights: {resource}", seen, "`retrain logs` will not work; ask for these verbs")
    return failed(f"rights: {resource}", seen, "bind the user to the role retrain-ci of manifests/base/ci.yaml")


def allowed(api: "ApiClient", namespace: str, group: str, resource: str, verb: str, account: str = "") -> bool:
    """What Kubernetes answers to a review of this user's access, or of a service account's in the namespace."""
    from kubernetes import client

    name, _, part = resource.partition("/")
    asked = client.V1ResourceAttributes(
        group=group, resource=name, subresource=part or None, verb=verb, namespace=namespace
    )
    reviews = client.AuthorizationV1Api(api)
    if account:
        user = f"system:serviceaccount:{namespace}:{account}"
        spec = client.V1SubjectAccessReviewSpec(resource_attributes=asked, user=user)
        of_account = client.V1LocalSubjectAccessReview(metadata={"namespace": namespace}, spec=spec)
        with asking("ask for a service account's rights", api.configuration.host):
            answer = reviews.create_namespaced_local_subject_access_review(
                namespace, of_account, _request_timeout=SECONDS
            )
        return bool(answer.status.allowed)
    own = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked))
    with asking("ask for its own rights", api.configuration.host):
        answer = reviews.create_self_subject_access_review(own, _request_timeout=SECONDS)
    return bool(answer.status.allowed)


def namespace(api: "ApiClient", needs: Needs) -> Finding:
    """Whether the namespace of the runs exists."""
    name = needs.namespace
    try:
        get(api, f"/api/v1/namespaces/{name}", f"look up namespace {name!r}")
    except NotFound:
        return failed("namespace", f"there is no namespace {name!r}", f"check --namespace, or {SET_UP}")
    return ok("namespace", name)


def runner(api: "ApiClient", needs: Needs) -> Finding:
    """Whether the service account that runs work as exists."""
    name = needs.service_account
    if not there(api, needs.namespace, "serviceaccounts", name):
        return failed("runner", f"there is no service account {name!r} in namespace {needs.namespace!r}", SET_UP)
    return ok("runner", f"service account {name}")


def launcher(api: "ApiClient", needs: Needs) -> Finding:
    """Whether the namespace says where artifacts go."""
    if not there(api, needs.namespace, "configmaps", "kfp-launcher"):
        advice = "artifacts go to KFP's default, minio://mlpipeline; add the ConfigMap where that is not meant"
        return warning("launcher", f"there is no ConfigMap 'kfp-launcher' in namespace {needs.namespace!r}", advice)
    return ok("launcher", "ConfigMap kfp-launcher")


def secret(api: "ApiClient", needs: Needs) -> Finding:
    """Whether the secret with the store's credentials is there; its name is looked up, never its content."""
    if not needs.secret:
        return ok("secret", "none is needed: the settings say web identity")
    if not there(api, needs.namespace, "secrets", needs.secret):
        seen = f"there is no secret {needs.secret!r} in namespace {needs.namespace!r}"
        return failed("secret", seen, "create it, or name another, or none for web identity, in the settings")
    return ok("secret", f"secret {needs.secret} (its content was not read)")


def there(api: "ApiClient", namespace: str, kind: str, name: str) -> bool:
    """Whether an object exists."""
    try:
        get(api, f"/api/v1/namespaces/{namespace}/{kind}/{name}", f"look up {kind} in namespace {namespace!r}")
    except NotFound:
        return False
    return True


def gpus(api: "ApiClient", needs: Needs) -> Finding:
    """How many GPUs the nodes can give."""
    nodes = gpus_by_node(api, needs.gpu_type)
    having = [node[needs.gpu_type] for node in nodes]
    seen = f"{sum(having)} {needs.gpu_type} on {sum(map(bool, having))} of {len(nodes)} nodes"
    if not any(having) and not needs.autoscaled:
        advice = "run with --gpus 0, install the device plugin, or set autoscaled_gpus where a pool grows when needed"
        return warning("gpus", seen, advice)
    return ok("gpus", seen)


def gpus_by_node(api: "ApiClient", gpu_type: str) -> list[Counter[str]]:
    """How many GPUs of this type and of others each node can give. Raises Denied, UserError, StepError."""
    from kubernetes.client import CoreV1Api
    from kubernetes.utils.quantity import parse_quantity

    with asking("list nodes", api.configuration.host):
        nodes = CoreV1Api(api).list_node(_request_timeout=SECONDS).items
    given = [(node.status.allocatable or {}).items() for node in nodes]
    return [
        Counter({name: int(parse_quantity(count)) for name, count in node if name == gpu_type or GPU.search(name)})
        for node in given
    ]


def trainer(api: "ApiClient", needs: Needs) -> Sequence[Finding]:
    """Whether there is what trains on many nodes; one node needs none of it."""
    trainer, advice = f"/apis/{TRAINER}/v1alpha1", "to train on more than one node, install it: see manifests/README.md"
    try:
        get(api, trainer, "look for Kubeflow Trainer", accept="application/json")
    except NotFound:
        return [warning("trainer", "there is no Kubeflow Trainer", advice)]
    try:
        get(api, f"{trainer}/clustertrainingruntimes/{RUNTIME}", "look up runtimes of Kubeflow Trainer")
    except NotFound:
        return [warning("trainer", f"Kubeflow Trainer has no ClusterTrainingRuntime {RUNTIME!r}", advice)]
    return [ok("trainer", f"Kubeflow Trainer with its runtime {RUNTIME}")]


def runner_rights(api: "ApiClient", needs: Needs) -> Finding:
    """Whether the runs' service account may train on many nodes."""
    account = needs.service_account
    missing = [
        f"{verb} {resource}"
        for (group, resource), verbs in TRAINING.items()
        for verb in verbs
        if not allowed(api, needs.namespace, group, resource, verb, account)
    ]
    if missing:
        seen = f"service account {account} may not {', '.join(missing)}"
        return warning("trainer rights", seen, f"to train on more than one node, {SET_UP}")
    return ok("trainer rights", f"service account {account} may train on many nodes")


def storage_class(api: "ApiClient") -> Finding:
    """Whether a claim that names no class gets a volume: KFP's own database and store need it."""
    from kubernetes.client import StorageV1Api

    with asking("list storage classes", api.configuration.host):
        classes = StorageV1Api(api).list_storage_class(_request_timeout=SECONDS).items
    annotation = "storageclass.kubernetes.io/is-default-class"
    default = [found.metadata.name for found in classes if (found.metadata.annotations or {}).get(annotation) == "true"]
    if not default:
        seen = f"none of {len(classes)} is the default"
        return warning("storage class", seen, f"annotate one with {annotation}=true: KFP's own volumes need it")
    return ok("storage class", f"{', '.join(default)} is the default")
