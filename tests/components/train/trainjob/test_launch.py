"""The train step on many nodes, as a process between a cluster and a store: how it ends, whatever becomes of either."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.storage import Store
from components.train.processes import LOST
from tests.components.train.trainjob.cluster import MAIN, NAMESPACE, Controller, own_pod, until
from tests.components.train.trainjob.conftest import IDENTITY, Launch
from tests.servers.kubernetes import FakeKubernetes

pytestmark = pytest.mark.slow

Result = Callable[[], dict[str, Any]]

TORCHRUN = """\
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
Root Cause (first observed failure):
[0]:
  rank      : 1 (local_rank: 0)
  exitcode  : {} (pid: 27)"""
"""What torchrun prints when a process of its has failed."""


def created(server: FakeKubernetes) -> int:
    """How many TrainJobs were created."""
    return sum(request.method == "POST" and request.status == 201 for request in server.log)


def reads_logs(server: FakeKubernetes) -> bool:
    """Whether the step has seen that a worker runs."""
    return any(request.path.endswith("/log") for request in server.log)


def refused(ended: tuple[int, str, str]) -> str:
    """The one sentence that a failed step ends with."""
    code, _, err = ended
    assert code in (1, 2)
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    return f"{code} {last.removeprefix('error: ')}"


def test_a_training_on_many_nodes_gives_the_artifacts_of_one(
    launch: Launch, controller: Controller, result: Result, server: FakeKubernetes, s3: Store
) -> None:
    launch.start()
    job = controller.wait()
    assert json.loads(s3.read(f"training/{IDENTITY}/step.json"))["nodes"] == 2
    assert s3.read(f"training/{IDENTITY}/manifest.json") == b"{}"
    assert job["spec"]["trainer"]["args"] == ["--store", s3.uri, "--training", IDENTITY]
    controller.start(0, 1)
    until(lambda: reads_logs(server))
    controller.say(0, "epoch 1/2", "progress: 50%")
    controller.say(1, "not to be shown")
    controller.say(0, "epoch 2/2")
    metadata = result()
    controller.end(0)
    controller.end(1)
    controller.set_condition("Complete")
    code, out, err = launch.end()
    assert (code, err) == (0, "")
    *said, last = out.splitlines()
    assert said == [f"TrainJob retrain-{IDENTITY} created: 2 workers", "epoch 1/2", "progress: 50%", "epoch 2/2"]
    assert json.loads(last)["metadata"] == metadata
    assert (launch.model / "weights.safetensors").read_bytes() == bytes(range(256))
    assert (launch.room / "metrics").read_text() == '{"loss": 1}'
    assert not controller.made


def test_the_log_is_shown_while_it_grows(launch: Launch, controller: Controller) -> None:
    process = launch.start()
    controller.wait()
    controller.start(0, 1)
    assert process.stdout is not None
    process.stdout.readline()
    for epoch in range(3):
        controller.say(0, f"epoch {epoch}")
        assert process.stdout.readline() == f"epoch {epoch}\n"


# What the cluster lacks


def test_a_cluster_without_kubeflow_trainer_is_a_users_mistake(launch: Launch, server: FakeKubernetes) -> None:
    server.trainer = None
    told = refused(launch.run())
    assert (
        told == "2 nodes must be 1 on this cluster, not 2: it has no TrainJobs; install Kubeflow Trainer 2.2 or newer"
    )


def test_a_cluster_without_the_runtime_is_a_users_mistake(launch: Launch, server: FakeKubernetes) -> None:
    server.objects["clustertrainingruntimes"].clear()
    told = refused(launch.run())
    assert told.startswith("2 nodes must be 1 on this cluster, not 2: it has no ClusterTrainingRuntime 'torch-distrib")


def test_a_trainer_that_is_too_old_is_named_and_its_workers_never_stay(
    launch: Launch, server: FakeKubernetes, controller: Controller
) -> None:
    server.trainer = "2.1.0"
    assert refused(launch.run()).endswith("update it to 2.2 or newer")
    assert not controller.made


@pytest.mark.parametrize(
    ("group", "resource", "verb"),
    [
        ("trainer.kubeflow.org", "trainjobs", "create"),
        ("trainer.kubeflow.org", "trainjobs", "list"),
        ("trainer.kubeflow.org", "trainjobs", "watch"),
        ("", "pods", "get"),
        ("", "pods", "list"),
        ("", "pods", "watch"),
    ],
)
def test_a_right_that_is_missing_is_named(
    group: str, resource: str, verb: str, launch: Launch, server: FakeKubernetes, controller: Controller
) -> None:
    server.denied.add((group, resource, verb))
    told = refused(launch.run())
    assert told.startswith(f"2 this step's service account may not {verb} {resource} in namespace 'team'; give it the")
    assert not controller.made


def test_without_the_right_to_logs_one_is_told_and_the_training_goes_on(
    launch: Launch, server: FakeKubernetes, controller: Controller, result: Result
) -> None:
    server.denied.add(("", "pods/log", "get"))
    launch.start()
    controller.wait()
    controller.start(0, 1)
    until(lambda: any(request.path.endswith("/log") for request in server.log))
    result()
    controller.set_condition("Complete")
    code, _, err = launch.end()
    assert code == 0
    assert err.startswith("warning: the workers' log cannot be shown: this step's service account may not get pods/log")


def test_without_the_right_to_delete_it_says_what_stays(
    launch: Launch, server: FakeKubernetes, controller: Controller, result: Result
) -> None:
    server.denied.add(("trainer.kubeflow.org", "trainjobs", "delete"))
    launch.start()
    controller.wait()
    result()
    controller.set_condition("Complete")
    code, _, err = launch.end()
    assert code == 0
    assert err.startswith(f"warning: TrainJob retrain-{IDENTITY} may be left in namespace 'team': ")


def test_outside_of_a_cluster_more_nodes_are_a_users_mistake(launch: Launch) -> None:
    del launch.environment["KUBECONFIG"]
    launch.environment.pop("KUBERNETES_SERVICE_HOST", None)
    assert refused(launch.run()).startswith("2 nodes must be 1 outside of a cluster: there is no Kubernetes to ask (")


def test_a_store_that_only_this_pod_reaches_is_a_users_mistake(launch: Launch) -> None:
    launch.arguments.append("--store=/tmp/store")
    told = refused(launch.run())
    assert told.startswith("2 store must be s3://bucket/prefix where nodes is above 1, so that every worker reaches it")


def test_a_pod_of_another_name_cannot_be_copied_and_is_named(launch: Launch) -> None:
    launch.environment["KFP_POD_NAME"] = "elsewhere"
    assert refused(launch.run()).startswith("1 pod 'elsewhere', in which this step should run, cannot be read")


# Workers that do not start


def test_a_namespace_that_takes_no_trainjob_says_why(launch: Launch, server: FakeKubernetes) -> None:
    full = "exceeded quota: retrain, requested: count/trainjobs.trainer.kubeflow.org=1, used: 2, limited: 2"
    status = {"kind": "Status", "message": f'trainjobs "x" is forbidden: {full}', "code": 403}
    server.fail(403, status, method="POST", path="trainjobs")
    assert refused(launch.run()).endswith(full)


def test_a_quota_that_can_never_hold_the_workers_fails_at_once(launch: Launch, controller: Controller) -> None:
    launch.start()
    controller.wait()
    over = "requested: requests.cpu=2,requests.memory=4Gi, used: requests.cpu=1,requests.memory=0, limited: "
    controller.warn(
        f"{controller.name}-node-0",
        f'Error creating: pods "x" is forbidden: exceeded quota: small, {over}requests.cpu=3,requests.memory=64Gi',
    )
    told = refused(launch.end())
    assert told.startswith(
        "1 quota 'small' of namespace 'team' allows requests.cpu=3, and each of 2 workers asks for 2"
    )
    assert not controller.made


def test_a_quota_that_is_full_is_waited_for_and_said(launch: Launch, controller: Controller) -> None:
    launch.start(pending__PENDING_SECONDS=3)
    controller.wait()
    controller.start(0)
    full = "exceeded quota: busy, requested: requests.cpu=2, used: requests.cpu=15, limited: requests.cpu=16"
    controller.warn(f"{controller.name}-node-0", f'Error creating: pods "x" is forbidden: {full}')
    ended = launch.end()
    assert "waiting: 1 of 2 workers have a pod: Error creating" in ended[1]
    assert refused(ended).startswith(
        f"1 TrainJob retrain-{IDENTITY} has waited for 0 minutes: 1 of 2 workers have a pod"
    )
    assert full in refused(ended)


def test_without_the_right_to_events_the_number_of_pods_is_said(
    launch: Launch, controller: Controller, server: FakeKubernetes
) -> None:
    server.denied.add(("", "events", "list"))
    told = refused(launch.run(pending__PENDING_SECONDS=1))
    assert told.endswith("0 of 2 workers have a pod; ask for less")


def test_workers_that_no_node_takes_are_waited_for_but_not_for_ever(launch: Launch, controller: Controller) -> None:
    launch.start(pending__PENDING_SECONDS=2)
    controller.wait()
    controller.start(0)
    why = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    controller.add_worker(1, {"waiting": {}}, conditions=[condition], containerStatuses=[])
    ended = launch.end()
    assert f"waiting: no node takes worker {controller.pod(1)}: {why}\n" in ended[1]
    assert refused(ended).endswith(
        f"has waited for 0 minutes: no node takes worker {controller.pod(1)}: {why}; ask for less"
    )
    assert not controller.made


def test_an_image_that_cannot_be_pulled_is_not_waited_for_as_long(launch: Launch, controller: Controller) -> None:
    launch.start(pending__IMAGE_SECONDS=3)
    controller.wait()
    controller.start(0)
    controller.add_worker(1, {"waiting": {"reason": "ErrImagePull", "message": "not found"}})
    time.sleep(0.5)
    controller.set_state(1, "Pending", waiting={"reason": "ImagePullBackOff", "message": 'Back-off pulling "i"'})
    told = refused(launch.end())
    assert told.startswith(
        f'1 worker {controller.pod(1)}: ImagePullBackOff: Back-off pulling "i"; see that the image is'
    )


def test_a_wait_that_ends_is_forgotten(launch: Launch, controller: Controller, result: Result) -> None:
    launch.start(pending__PENDING_SECONDS=2)
    controller.wait()
    time.sleep(1)
    controller.start(0, 1)
    time.sleep(2)
    result()
    controller.set_condition("Complete")
    assert launch.end()[0] == 0


def test_a_suspended_job_is_waited_for_and_goes_on(launch: Launch, running: Controller, result: Result) -> None:
    running.say(0, "before")
    time.sleep(0.3)
    running.server.change("trainjobs", NAMESPACE, running.name, lambda job: job["spec"].update(suspend=True))
    running.set_condition("Suspended", "Suspended")
    for number in (0, 1):
        running.server.remove("pods", NAMESPACE, running.pod(number))
    time.sleep(1)
    running.server.change("trainjobs", NAMESPACE, running.name, lambda job: job["spec"].update(suspend=False))
    running.set_condition("Suspended", "Resumed", status="False")
    running.start(0, 1)
    running.say(0, "after")
    time.sleep(0.5)
    result()
    running.set_condition("Complete")
    code, out, _ = launch.end()
    assert code == 0
    assert "waiting: it is suspended, by Kueue or by hand\n" in out


def test_a_job_that_stays_suspended_is_told(launch: Launch, controller: Controller) -> None:
    launch.start(pending__PENDING_SECONDS=1)
    controller.wait()
    controller.server.change("trainjobs", NAMESPACE, controller.name, lambda job: job["spec"].update(suspend=True))
    assert refused(launch.end()).endswith("0 minutes: it is suspended, by Kueue or by hand; ask for less")
    assert not controller.made


# Workers that fail


def test_a_worker_that_was_killed_for_its_memory_is_named_with_its_limit(launch: Launch, running: Controller) -> None:
    running.say(0, "epoch 1/2")
    running.end(0, code=1, second=29)  # it lost its peer, and its end was seen first
    running.end(1, code=137, reason="OOMKilled", second=30)
    told = refused(launch.end())
    assert told.startswith(
        f"1 worker {running.pod(1)} was killed for its memory; its limit is 4Gi: give the train step"
    )
    assert not running.made


@pytest.mark.parametrize("code", [1, 2])
def test_the_sentence_of_a_worker_is_that_of_the_step(code: int, launch: Launch, running: Controller) -> None:
    running.say(0, "epoch 1/2", "[rank0]: RuntimeError: Connection closed by peer [10.0.0.7]:4711")
    running.say(1, "error: loss is nan in epoch 1/2, batch 3", TORCHRUN.format(code))
    running.end(0, code=1, second=29)
    running.end(1, code=1, second=29)
    ended = launch.end()
    assert refused(ended) == f"{code} loss is nan in epoch 1/2, batch 3"
    assert "epoch 1/2\n" in ended[1]


def test_a_worker_whose_container_was_started_again_has_failed(launch: Launch, running: Controller) -> None:
    running.say(1, "[rank1]: ValueError: no such thing", TORCHRUN.format(1))
    running.restart(1, code=1)
    ended = launch.end()
    assert refused(ended) == f"1 worker {running.pod(1)} failed with exit code 1: ValueError: no such thing"
    assert f"{running.pod(1)}: [rank1]: ValueError: no such thing\n" in ended[2]  # whose log is not shown otherwise
    assert not running.made


def test_a_process_that_was_killed_inside_a_worker_is_told_of_memory(launch: Launch, running: Controller) -> None:
    running.say(1, TORCHRUN.format(-9))
    running.end(1, code=1)
    told = refused(launch.end())
    assert told.startswith(f"1 a process of worker {running.pod(1)} was killed; its limit is 4Gi: give the train step")


def test_a_worker_that_the_cluster_takes_away_is_told(launch: Launch, running: Controller) -> None:
    why = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "node is drained",
    }
    running.server.change("pods", NAMESPACE, running.pod(1), lambda pod: pod["status"].update(conditions=[why]))
    told = refused(launch.end())
    assert told.startswith(f"1 worker {running.pod(1)} was taken off its node: EvictionByEvictionAPI: node is drained")


def test_a_worker_that_was_evicted_is_told(launch: Launch, running: Controller) -> None:
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    running.server.change(
        "pods", NAMESPACE, running.pod(1), lambda pod: pod.update(status=status | {"containerStatuses": []})
    )
    assert refused(launch.end()).startswith(f"1 worker {running.pod(1)} failed: Evicted: The node was low on resource")


def test_a_worker_that_is_gone_is_missed(launch: Launch, running: Controller) -> None:
    until(lambda: reads_logs(running.server))
    time.sleep(0.5)
    running.server.remove("pods", NAMESPACE, running.pod(1))
    assert refused(launch.end()).startswith(f"1 worker {running.pod(1)} is gone, perhaps with its node; run again")


def test_a_worker_that_is_gone_is_missed_by_the_others_who_do_not_know_why(launch: Launch, running: Controller) -> None:
    until(lambda: reads_logs(running.server))
    time.sleep(0.5)
    running.say(0, f"error: {LOST} (Connection closed by peer)", TORCHRUN.format(1))
    running.end(0, code=1)
    running.server.remove("pods", NAMESPACE, running.pod(1))
    assert refused(launch.end()).startswith(f"1 worker {running.pod(1)} is gone, perhaps with its node; run again")


def test_a_job_that_fails_without_a_pod_that_did_says_what_its_condition_says(
    launch: Launch, controller: Controller
) -> None:
    launch.start()
    controller.wait()
    controller.set_condition("Failed", "DeadlineExceeded", "TrainJob exceeded its active deadline")
    told = refused(launch.end())
    assert told.endswith("failed: DeadlineExceeded: TrainJob exceeded its active deadline")


def test_a_job_that_somebody_deletes_is_missed(launch: Launch, running: Controller) -> None:
    time.sleep(0.3)
    running.server.collect(NAMESPACE, running.name)
    assert refused(launch.end()).startswith(
        f"1 TrainJob retrain-{IDENTITY} was deleted by somebody; run again, it goes on"
    )


def test_a_job_that_another_run_of_the_same_training_has_collected_is_collected_once_more(
    launch: Launch, controller: Controller, result: Result
) -> None:
    launch.start()
    controller.wait()
    result()
    controller.server.collect(NAMESPACE, controller.name)
    code, _, err = launch.end()
    assert (code, err) == (0, "")
    assert (launch.model / "config.json").read_text() == "{}"


# The cluster's API fails


def test_watches_and_logs_that_break_are_taken_up_again_without_a_line_lost_or_shown_twice(
    launch: Launch, running: Controller, server: FakeKubernetes, result: Result
) -> None:
    for number in range(60):
        running.say(0, f"line {number}")
        time.sleep(0.02)
        if number % 15 == 10:
            server.hang_up()
    result()
    server.hang_up()
    running.end(0)
    running.end(1)
    running.set_condition("Complete")
    code, out, _ = launch.end()
    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("line")] == [f"line {number}" for number in range(60)]
    assert server.watched("pods") >= 2


def test_a_watch_that_has_expired_begins_anew(
    launch: Launch, running: Controller, server: FakeKubernetes, result: Result
) -> None:
    until(lambda: server.watched("trainjobs"))
    for again in (2, 3, 4):
        server.forget()
        while server.watched("trainjobs") < again:
            time.sleep(0.01)
    result()
    running.set_condition("Complete")
    assert launch.end()[0] == 0


def test_an_api_that_is_away_for_a_while_is_waited_for(
    launch: Launch, controller: Controller, server: FakeKubernetes, result: Result
) -> None:
    server.fail(503, times=3)
    server.drop("before", times=3)
    launch.start()
    controller.wait()
    server.fail(500, times=4)
    server.drop("after", times=4)
    server.hang_up()
    controller.start(0, 1)
    result()
    controller.set_condition("Complete")
    code, _, err = launch.end()
    assert (code, err) == (0, "")
    assert created(server) == 1


def test_a_creation_whose_answer_is_lost_is_found_again(
    launch: Launch, controller: Controller, server: FakeKubernetes, result: Result
) -> None:
    server.drop("after", method="POST")
    launch.start()
    controller.wait()
    result()
    controller.set_condition("Complete")
    code, out, _ = launch.end()
    assert code == 0
    assert f"TrainJob retrain-{IDENTITY} is there already; it is followed\n" in out


def test_an_api_that_stays_away_ends_the_step(launch: Launch, controller: Controller, server: FakeKubernetes) -> None:
    launch.start(cluster__AWAY_SECONDS=1, job__CLEANUP_SECONDS=1)
    controller.wait()
    server.fail(503, times=100_000)
    server.hang_up()
    ended = launch.end()
    assert refused(ended) == "1 the Kubernetes API has been away for 1 s: HTTP 503 Service Unavailable; try again"
    assert f"warning: TrainJob retrain-{IDENTITY} may be left in namespace 'team': the Kubernetes API" in ended[2]


# The step is ended, or started again


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("running", [False, True])
def test_a_step_that_is_ended_takes_its_job_along(
    running: bool, number: signal.Signals, code: int, launch: Launch, controller: Controller, server: FakeKubernetes
) -> None:
    process = launch.start(follow__LAST_LINES_SECONDS=3600)  # for which it would wait, if it waited for the log
    controller.wait()
    until(lambda: server.watched("pods"))
    if running:
        controller.start(0, 1)
        until(lambda: reads_logs(server))
    with server.counted() as requests:
        process.send_signal(number)
        assert launch.end()[0] == code
    assert not controller.made
    done = [request.method for request in requests if request.path.endswith(f"/trainjobs/{controller.name}")]
    assert done == ["GET", "DELETE"]  # Argo's executor leaves a step no more than a second


def test_a_step_that_was_killed_finds_its_job_again(
    launch: Launch, controller: Controller, server: FakeKubernetes, result: Result
) -> None:
    process = launch.start()
    uid = controller.wait()["metadata"]["uid"]
    controller.start(0, 1)
    controller.say(0, "epoch 1/2")
    until(lambda: server.watched("pods"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    launch.start()
    until(lambda: server.watched("pods") == 2)
    assert controller.job["metadata"]["uid"] == uid
    controller.say(0, "epoch 2/2")
    result()
    controller.end(0)
    controller.set_condition("Complete")
    code, out, _ = launch.end()
    assert code == 0
    assert out.startswith(f"TrainJob retrain-{IDENTITY} is there already; it is followed\nepoch 1/2\nepoch 2/2\n")
    assert created(server) == 1


@pytest.fixture
def second(launch: Launch, controller: Controller, server: FakeKubernetes) -> Launch:
    """A step whose first attempt was killed, in the pod of the second."""
    process = launch.start()
    controller.wait()
    controller.start(0, 1)
    process.kill()
    process.communicate()
    own_pod(server, name="retrain-x-train-again", uid="u-2")
    launch.environment["KFP_POD_NAME"] = "retrain-x-train-again"
    return launch


def test_a_job_that_is_found_again_outlives_the_pod_that_made_it(
    second: Launch, controller: Controller, server: FakeKubernetes, result: Result
) -> None:
    seen = server.watched("pods")
    second.start()
    until(lambda: server.watched("pods") > seen)
    assert [owner["uid"] for owner in controller.job["metadata"]["ownerReferences"]] == ["u-1", "u-2"]
    server.remove("pods", NAMESPACE, MAIN)
    assert controller.made
    result()
    controller.set_condition("Complete")
    code, _, err = second.end()
    assert (code, err) == (0, "")
    assert created(server) == 1


def test_a_job_that_is_found_again_goes_with_the_last_pod_that_follows_it(
    second: Launch, controller: Controller, server: FakeKubernetes
) -> None:
    seen = server.watched("pods")
    process = second.start()
    until(lambda: server.watched("pods") > seen)
    process.kill()
    process.communicate()
    server.remove("pods", NAMESPACE, MAIN)
    server.remove("pods", NAMESPACE, "retrain-x-train-again")
    assert not controller.made


def test_without_the_right_to_patch_a_job_that_is_found_again_is_followed_all_the_same(
    second: Launch, controller: Controller, server: FakeKubernetes, result: Result
) -> None:
    server.denied.add(("trainer.kubeflow.org", "trainjobs", "patch"))
    seen = server.watched("pods")
    second.start()
    until(lambda: server.watched("pods") > seen)
    result()
    controller.set_condition("Complete")
    code, _, told = second.end()
    assert code == 0
    assert told.startswith(f"warning: TrainJob retrain-{IDENTITY} goes when the pod that made it is deleted, not with")
    assert "may not patch trainjobs in namespace 'team'; give it the rights of the role retrain-runner" in told


@pytest.mark.parametrize("lingering", [False, True])
def test_the_failed_job_of_an_earlier_attempt_is_replaced_once_it_is_gone(
    lingering: bool, launch: Launch, controller: Controller, server: FakeKubernetes, result: Result
) -> None:
    launch.start()
    controller.wait()
    launch.process.kill()  # type: ignore[union-attr]
    launch.process.communicate()  # type: ignore[union-attr]
    failed = controller.job["metadata"]["uid"]
    controller.start(0, 1)
    controller.end(1, code=1)
    controller.set_condition("Failed")
    server.lingering = lingering
    launch.start()
    if lingering:
        until(lambda: "deletionTimestamp" in controller.job["metadata"])
        time.sleep(0.5)
        assert controller.job["metadata"]["uid"] == failed
        server.lingering = False
        server.collect(NAMESPACE, controller.name)
    until(lambda: controller.made and controller.job["metadata"]["uid"] != failed)
    result()
    controller.set_condition("Complete")
    assert launch.end()[0] == 0
    assert created(server) == 2


def test_a_job_that_does_not_go_is_told(launch: Launch, controller: Controller, server: FakeKubernetes) -> None:
    launch.start()
    controller.wait()
    launch.process.kill()  # type: ignore[union-attr]
    launch.process.communicate()  # type: ignore[union-attr]
    controller.set_condition("Failed")
    server.lingering = True
    told = refused(launch.run(job__GONE_SECONDS=2))
    assert told.endswith("of an earlier attempt was deleted and does not go; see what its pods wait for")


def test_a_result_that_is_there_is_collected_and_nothing_is_started(
    launch: Launch, server: FakeKubernetes, result: Result
) -> None:
    metadata = result()
    code, out, err = launch.run()
    assert (code, err) == (0, "")
    assert json.loads(out)["metadata"] == metadata
    assert created(server) == 0


def test_a_result_that_was_damaged_is_named_and_the_next_attempt_trains_again(
    launch: Launch, controller: Controller, result: Result, s3: Store
) -> None:
    launch.start()
    controller.wait()
    result()
    s3.write(f"training/{IDENTITY}/result/model/weights.safetensors", b"\0" * 256)
    controller.set_condition("Complete")
    told = refused(launch.end())
    assert told.startswith(
        f"1 training/{IDENTITY}/result/model/weights.safetensors in {s3.uri} is not what the workers"
    )
    assert not launch.model.exists()
    assert not (launch.room / "metrics").exists()
    launch.start()
    controller.wait()
    for path in sorted((launch.room / "written by a worker").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (launch.room / "written by a worker").rmdir()
    result()
    controller.set_condition("Complete")
    code, _, err = launch.end()
    assert code == 0
    assert err.startswith(f"warning: training/{IDENTITY}/result/model/weights.safetensors in {s3.uri} is not what")
    assert (launch.model / "weights.safetensors").read_bytes() == bytes(range(256))


def test_a_complete_job_without_a_result_is_told(launch: Launch, controller: Controller) -> None:
    launch.start()
    controller.wait()
    controller.set_condition("Complete")
    assert refused(launch.end()).startswith(f"1 TrainJob retrain-{IDENTITY} is complete and left no result in s3://")


def test_a_job_of_that_name_that_is_not_ours_is_left_alone(
    launch: Launch, controller: Controller, server: FakeKubernetes
) -> None:
    server.add("trainjobs", controller.name, NAMESPACE, metadata={"uid": "foreign"}, spec={})
    told = refused(launch.run())
    assert told == f"2 TrainJob retrain-{IDENTITY} in namespace 'team' is not this training's; delete it"
    assert controller.made


def test_no_value_of_a_secret_is_in_what_the_cluster_or_the_store_gets(
    launch: Launch, controller: Controller, server: FakeKubernetes, s3: Store
) -> None:
    launch.environment["AWS_SECRET_ACCESS_KEY"] = "hush-hush"
    launch.start()
    controller.wait()
    sent = b"".join(request.content for request in server.log)
    assert b"secretKeyRef" in sent
    assert b"hush-hush" not in sent
    assert all(b"hush-hush" not in s3.read(key) for key in s3.keys("training/"))
    assert os.environ.get("AWS_SECRET_ACCESS_KEY") == "test"


def test_a_credential_that_stands_in_the_pod_by_value_is_refused(
    launch: Launch, controller: Controller, server: FakeKubernetes, tmp_path: Path
) -> None:
    def spill(pod: dict[str, Any]) -> None:
        pod["spec"]["containers"][1]["env"].append({"name": "AWS_SESSION_TOKEN", "value": "hush-hush"})

    server.change("pods", NAMESPACE, "retrain-x-train", spill)
    told = refused(launch.run())
    assert told.startswith(
        "2 AWS_SESSION_TOKEN has its value in pod retrain-x-train, and other pods must not get it so"
    )
    assert created(server) == 0
