"""The TrainJob in the cluster: created or found again, and removed."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components.step import StepError, UserError
from components.train.trainjob.cluster import Cluster, Object, Refused
from components.train.trainjob.resource import condition, leaving, name_of, ours

GONE_SECONDS = 300.0
"""In which the pods of a TrainJob that was deleted should have gone."""

CLEANUP_SECONDS = 20.0
"""In which the TrainJob is to be deleted; after SIGTERM Kubernetes leaves a pod 30."""


def place(cluster: Cluster, wanted: Object, identity: str, *, anew: bool) -> Object:
    """Creates the TrainJob, or takes the one that an earlier attempt has made: at work, or complete unless `anew`.

    Raises UserError where the cluster cannot have it, StepError where it does not let it in now.
    """
    name = wanted["metadata"]["name"]
    start = time.monotonic()
    while time.monotonic() - start < GONE_SECONDS:
        created = _create(cluster, wanted)
        if created:
            return created
        found = _known(cluster, name)
        if found is None:
            continue  # it has gone just now
        if not ours(found, identity):
            raise UserError(f"TrainJob {name} in namespace {cluster.namespace!r} is not this training's; delete it")
        if not leaving(found) and not condition(found, "Failed") and not (anew and condition(found, "Complete")):
            print(f"TrainJob {name} is there already; it is followed", flush=True)
            _adopt(cluster, found, wanted["metadata"]["ownerReferences"])
            return found
        if not leaving(found):
            _delete(cluster, found)
        time.sleep(1)
    raise StepError(f"TrainJob {name} of an earlier attempt was deleted and does not go; see what its pods wait for")


@contextmanager
def removed(cluster: Cluster, identity: str) -> Iterator[None]:
    """Has the training's TrainJob deleted in the end, whatever the end: done, failed, interrupted."""
    try:
        yield
    finally:
        name = name_of(identity)
        try:
            job = _known(cluster, name, away=CLEANUP_SECONDS)
            if job and ours(job, identity) and not leaving(job):
                _delete(cluster, job, away=CLEANUP_SECONDS)
        except (UserError, StepError) as error:
            told = f"warning: TrainJob {name} may be left in namespace {cluster.namespace!r}: {error}"
            print(told, file=sys.stderr, flush=True)


def _create(cluster: Cluster, wanted: Object) -> Object | None:
    """The TrainJob as it was created; None where there is one of its name."""
    nodes, name = wanted["spec"]["trainer"]["numNodes"], wanted["metadata"]["name"]
    try:
        created: Object = cluster.call("POST", cluster.path("trainjobs"), wanted)
    except Refused as refused:
        if refused.status == 409:
            return None
        raise _unwanted(refused, cluster.namespace, wanted) from None
    if "runtimePatches" not in created["spec"]:
        raise UserError(
            f"nodes must be 1 on this cluster, not {nodes}: its Kubeflow Trainer does not know runtimePatches, by "
            "which the workers run as this step does; update it to 2.2 or newer"
        )
    print(f"TrainJob {name} created: {nodes} workers", flush=True)
    return created


def _unwanted(refused: Refused, namespace: str, wanted: Object) -> UserError | StepError:
    """Why the cluster did not create a TrainJob."""
    nodes, runtime = wanted["spec"]["trainer"]["numNodes"], wanted["spec"]["runtimeRef"]["name"]
    lacking = f"nodes must be 1 on this cluster, not {nodes}: it has no"
    if refused.status == 404:
        return UserError(f"{lacking} TrainJobs; install Kubeflow Trainer 2.2 or newer")
    if "specified clusterTrainingRuntime must be created" in str(refused):
        return UserError(f"{lacking} ClusterTrainingRuntime {runtime!r}; install those that Kubeflow Trainer ships")
    return StepError(f"namespace {namespace!r} does not take TrainJob {wanted['metadata']['name']}: {refused}")


def _adopt(cluster: Cluster, job: Object, owners: list[Object]) -> None:
    """Has the TrainJob stay as long as one of these: else it goes with the pod of an attempt that is over."""
    name, known = job["metadata"]["name"], job["metadata"].get("ownerReferences", [])
    added = [each for each in owners if each["uid"] not in {one["uid"] for one in known}]
    try:
        if added:
            cluster.call("PATCH", cluster.path("trainjobs", name), {"metadata": {"ownerReferences": known + added}})
    except (Refused, UserError) as error:
        told = f"warning: TrainJob {name} goes when the pod that made it is deleted, not with this step's: {error}"
        print(told, file=sys.stderr, flush=True)


def _known(cluster: Cluster, name: str, **options: Any) -> Object | None:
    """The TrainJob of the name; None where there is none, or where the cluster knows no TrainJobs."""
    try:
        found: Object = cluster.call("GET", cluster.path("trainjobs", name), **options)
        return found
    except Refused as refused:
        if refused.status != 404:
            raise StepError(f"TrainJob {name} cannot be read: {refused}") from None
        return None


def _delete(cluster: Cluster, job: Object, **options: Any) -> None:
    """Deletes this very TrainJob; in the foreground: it is there until its pods are gone."""
    uid = {"uid": job["metadata"]["uid"]}
    body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground", "preconditions": uid}
    try:
        cluster.call("DELETE", cluster.path("trainjobs", job["metadata"]["name"]), body, **options)
    except Refused as refused:
        if refused.status not in (404, 409):  # it is gone, or another is in its place
            raise StepError(f"TrainJob {job['metadata']['name']} cannot be deleted: {refused}") from None
