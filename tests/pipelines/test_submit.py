"""Submitting a run: what is checked before anything is sent, what is sent, and that it is sent once."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.step import UserError
from components.storage import DirectoryStore
from pipelines.kubeflow import Kubeflow, ServerError, Unreachable
from pipelines.retrain import compile
from pipelines.runs import RunState, get
from pipelines.settings import STOCK
from pipelines.submit import (
    LATEST,
    Order,
    Submitted,
    address,
    check_gpus,
    checked,
    earlier,
    ending,
    find_version,
    outcome,
    prepare,
    read_parameters,
    start,
    verdict,
)
from pipelines.transport import Connection
from pipelines.upload import upload, version_name
from tests.pipelines.conftest import use_kubeconfig
from tests.pipelines.published import STEPS, publish, write
from tests.pipelines.timetables import install
from tests.servers.kfp import FakeKubeflow
from tests.servers.kubernetes import FakeKubernetes


@pytest.fixture
def kubeflow_server(kubeflow_server: FakeKubeflow) -> FakeKubeflow:
    """With the pipeline in versions v1 and v2."""
    install(kubeflow_server, ("v1", "v2"))
    return kubeflow_server


def submitted(client: Kubeflow, **order: Any) -> Submitted:
    """As `retrain submit` does it."""
    wanted = Order(**({"parameters": {}, "version": "v1"} | order))
    run_id = wanted.run_id(client.namespace)
    experiment = client.find_experiment(wanted.experiment, client.namespace)
    found = earlier(client, wanted, run_id, experiment)
    return found or start(client, prepare(client, wanted, run_id, experiment, find_version(client, wanted.version)))


# Parameters


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"epoch": 3}, "unknown parameter 'epoch'; did you mean 'epochs'?"),
        ({"batch-size": 3}, "unknown parameter 'batch-size'; did you mean 'batch_size'?"),
        ({"epochs": "3"}, "epochs must be a whole number, not '3'"),
        ({"epochs": 3.0}, "epochs must be a whole number, not 3.0"),
        ({"epochs": True}, "epochs must be a whole number, not True"),
        ({"gpus": 1}, "gpus must be a text (in quotes), not 1"),
        ({"bias": "true"}, "bias must be true or false, not 'true'"),
        ({"learning_rate": None}, "learning_rate must be a number, not None"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"activation": "rellu"}, "unknown activation 'rellu'; did you mean 'relu'?"),
        ({"model_name": "Mnist"}, "model_name must be 1 to 63 lowercase letters"),
        ({"store": "retrain-store"}, "store must be s3://bucket/prefix, or a directory that every pod has"),
        ({"store": "gs://bucket"}, "store must be s3://bucket/prefix, or a directory that every pod has"),
    ],
)
def test_a_wrong_parameter_is_one_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as error:
        checked(given)
    assert str(error.value).startswith(sentence)


def test_only_what_is_given_is_sent() -> None:
    assert checked({"epochs": 3, "learning_rate": 1, "store": "s3://b/p"}) == {
        "epochs": 3,
        "learning_rate": 1.0,
        "store": "s3://b/p",
    }


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("epochs: 3\ngpus: '1'\n", {"epochs": 3, "gpus": "1"}),
        ('{"epochs": 3, "bias": false}', {"epochs": 3, "bias": False}),
        ("", {}),
        ("# nothing\n", {}),
    ],
)
def test_a_file_of_parameters_is_yaml_or_json(text: str, values: dict[str, Any], tmp_path: Path) -> None:
    assert read_parameters(write(tmp_path, "p.yaml", text)) == values


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("epochs: [", "is neither YAML nor JSON in line 1: expected the node content"),
        ("\0", "is neither YAML nor JSON: unacceptable character #x0000"),
        ("epochs: 3\nsource: 2020-13-45", "is neither YAML nor JSON in line 2: '2020-13-45' is no timestamp (month"),
        ("- epochs\n", "must hold names and values, such as `epochs: 3`"),
        ("3: epochs\n", "must hold names and values, such as `epochs: 3`"),
        ("just words", "must hold names and values, such as `epochs: 3`"),
        ("x: !!python/object/apply:os.system [true]", "is neither YAML nor JSON in line 1: could not determine"),
    ],
)
def test_a_file_that_holds_no_parameters_is_named(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"parameters '.*p\.yaml'") as error:
        read_parameters(write(tmp_path, "p.yaml", text))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"parameters 'nowhere\.yaml' cannot be read: No such file"):
        read_parameters(Path("nowhere.yaml"))


# What is sent


def test_a_run_is_sent_as_ordered_in_at_most_six_requests(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    done = submitted(kubeflow, parameters={"epochs": 3, "gpus": "1"}, service_account="trainer", experiment="nightly")
    row = kubeflow_server.runs[done.run_id]
    assert done.created
    assert row["runtime_config"] == {"parameters": {"epochs": 3, "gpus": "1"}}
    assert row["pipeline_version_reference"] == {"pipeline_id": "P", "pipeline_version_id": "id of v1"}
    assert row["service_account"] == "trainer"
    assert kubeflow_server.experiments[row["experiment_id"]]["display_name"] == "nightly"
    assert len(kubeflow_server.log) == 5  # pipeline, version, experiment twice, run


@pytest.mark.parametrize("key", ["", "commit 4f2a"])
def test_a_run_of_an_experiment_that_exists_takes_less_than_six_requests(
    key: str, kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    kubeflow_server.add_experiment("retrain")
    submitted(kubeflow, key=key)
    assert len(kubeflow_server.log) == (5 if key else 4)


def test_latest_is_the_newest_version_of_now(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    row = kubeflow_server.runs[submitted(kubeflow, version=LATEST).run_id]
    assert row["pipeline_version_reference"]["pipeline_version_id"] == "id of v2"


def test_the_same_content_from_an_earlier_version_of_the_code_will_do(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    compile(tmp_path / "retrain.yaml")
    name = version_name(tmp_path / "retrain.yaml")
    earlier_name = f"v0-0-9-{name[-12:]}"
    kubeflow_server.versions["id of v1"] |= {"name": earlier_name, "display_name": earlier_name}
    assert upload(kubeflow, STOCK).name == earlier_name
    assert find_version(kubeflow, name).name == earlier_name


def test_a_version_that_is_not_there_is_said_before_anything_is_created(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    with pytest.raises(UserError, match="does not have version 'v9'; put this code's there with `retrain upload`"):
        submitted(kubeflow, version="v9")
    kubeflow_server.versions.clear()
    with pytest.raises(UserError, match="does not have any version"):
        submitted(kubeflow, version=LATEST)
    kubeflow_server.pipelines.clear()
    with pytest.raises(UserError, match="has no pipeline 'retrain'; put it there with `retrain upload`"):
        submitted(kubeflow)
    assert (kubeflow_server.experiments, kubeflow_server.runs) == ({}, {})


# GPUs


@pytest.fixture
def in_cluster(kubeflow_server: FakeKubeflow) -> Kubeflow:
    """A client that knows the Kubernetes API of the server's cluster."""
    return Kubeflow(Connection(host=kubeflow_server.url, kubernetes=True))


def order(**given: str) -> Order:
    return Order(parameters=given, version="v1")


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ([], "no node has 1 nvidia.com/gpu, as gpus and gpu_type ask; none has any GPU; give --gpus 0 or "),
        ([{"rdma/hca": "8", "nvidia.com/gpu": "0"}], "none has any GPU; give --gpus 0 or another --gpu-type, or set "),
        (
            [{"amd.com/gpu": "4", "nvidia.com/mig-1g.5gb": "7"}, {"amd.com/gpu": "8"}],
            "one has at most 8 amd.com/gpu, 7 nvidia.com/mig-1g.5gb; give --gpus 0 or another --gpu-type, "
            "or set autoscaled_gpus = true in the settings if nodes are added on demand",
        ),
    ],
)
def test_gpus_that_no_node_has_are_refused_with_one_request_to_kubernetes(
    nodes: list[dict[str, str]], sentence: str, in_cluster: Kubeflow, kubernetes_server: FakeKubernetes
) -> None:
    for number, allocatable in enumerate(nodes):
        kubernetes_server.add_node(f"node-{number}", **allocatable)
    with pytest.raises(UserError) as error:
        check_gpus(in_cluster, order(gpus="1"))
    assert sentence in str(error.value)
    assert [request.path for request in kubernetes_server.log] == ["/api/v1/nodes"]


def test_gpus_that_a_node_has_are_asked_for(in_cluster: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    kubernetes_server.add_node("small")
    kubernetes_server.add_node("large", nvidia_com_gpu="1", **{"habana.ai/gaudi": "8"})
    check_gpus(in_cluster, order(gpus="1"))
    check_gpus(in_cluster, order(gpus="1", gpu_type="habana.ai/gaudi"))


def test_without_gpus_nobody_looks_at_the_nodes(in_cluster: Kubeflow, kubernetes_server: FakeKubernetes) -> None:
    check_gpus(in_cluster, order())
    assert kubernetes_server.log == []


@pytest.mark.parametrize("why", ["no rights", "expired", "unreachable", "another cluster", "no kubeconfig"])
def test_where_the_nodes_cannot_be_seen_the_run_goes_on(
    why: str, in_cluster: Kubeflow, kubernetes_server: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why == "no rights":
        kubernetes_server.denied.add(("", "nodes", "list"))
    if why == "expired":
        kubernetes_server.tokens.add("another")
    if why == "unreachable":
        kubernetes_server.drop("before", times=1000)
    if why == "another cluster":
        in_cluster.connection.kubernetes = False
    if why == "no kubeconfig":
        use_kubeconfig(monkeypatch, Path("nowhere"))
    check_gpus(in_cluster, order(gpus="1"))


# Once


def test_the_same_key_starts_one_run(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    first = submitted(kubeflow, key="commit 4f2a", parameters={"epochs": 3})
    again = submitted(kubeflow, key="commit 4f2a", parameters={"epochs": 3})
    assert (first.created, again.created) == (True, False)
    assert first.run_id == again.run_id
    assert kubeflow_server.workflows == [first.run_id]


@pytest.mark.parametrize("different", [{"key": "commit 5b3c"}, {"experiment": "other"}])
def test_another_key_or_experiment_is_another_run(
    different: dict[str, Any], kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    submitted(kubeflow, key="commit 4f2a")
    submitted(kubeflow, **({"key": "commit 4f2a"} | different))
    assert len(set(kubeflow_server.workflows)) == 2


def test_a_key_that_was_used_for_other_parameters_is_refused(kubeflow: Kubeflow) -> None:
    first = submitted(kubeflow, key="k", parameters={"epochs": 3})
    for parameters, said in (({"epochs": 5}, "epochs is 3, not 5"), ({}, "epochs is 3, not its default")):
        with pytest.raises(UserError) as error:
            submitted(kubeflow, key="k", parameters=parameters)
        assert said in str(error.value)
        assert first.run_id in str(error.value)


def test_an_answer_that_was_lost_starts_no_second_run(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.drop("after", method="POST", path="/runs$")
    done = submitted(kubeflow)
    assert kubeflow_server.workflows == [done.run_id]


@pytest.mark.parametrize("status", [0, 503, 504])
def test_a_run_that_may_not_have_started_is_not_sent_again(
    status: int, kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.kubeflow.LOOKS", (0.01, 0.01))
    if status:
        kubeflow_server.fail(status, method="POST", path="/runs$")
    else:
        kubeflow_server.drop("before", method="POST", path="/runs$")
    with pytest.raises(Unreachable):
        submitted(kubeflow, key="k")
    assert [request.method for request in kubeflow_server.log if request.path.endswith("/runs")] == ["POST"]
    assert submitted(kubeflow, key="k").created  # a CI job that is repeated
    assert len(kubeflow_server.workflows) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, UserError), (401, UserError), (403, UserError), (404, UserError), (409, ServerError), (500, ServerError)],
)
def test_a_refusal_of_the_run_is_one_sentence(
    status: int, error: type[Exception], kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    kubeflow_server.fail(status, {"code": 13, "message": "no luck"}, method="POST", path="/runs$")
    with pytest.raises(error) as raised:
        submitted(kubeflow)
    assert "start the run" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert kubeflow_server.runs == {}


def test_a_server_that_is_busy_gets_the_run_later(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.fail(429, times=2)
    kubeflow_server.fail(429, times=2, method="POST", path="/runs$")
    assert submitted(kubeflow).created
    assert len(kubeflow_server.workflows) == 1


# Several users


@pytest.fixture
def several() -> Iterator[FakeKubeflow]:
    """A server for several users, with the pipeline in the namespace `team`; `t` is the token of one of its members."""
    with FakeKubeflow(multi_user=True) as server:
        install(server, namespace="team")
        server.tokens["t"] = "ann"
        for resource in ("pipelines", "experiments", "runs"):
            server.grant("ann", "team", resource, "get", "list", "create")
        yield server


def member(server: FakeKubeflow, namespace: str = "team", token: str = "t") -> Kubeflow:
    return Kubeflow(Connection(host=server.url, namespace=namespace, token=lambda: token, pauses=(0.01,)))


def test_a_run_belongs_to_the_users_namespace(several: FakeKubeflow) -> None:
    done = submitted(member(several), key="k")
    experiment = several.experiments[several.runs[done.run_id]["experiment_id"]]
    assert experiment["namespace"] == "team"
    assert len(several.log) == 5
    assert Order(parameters={}, version="v1", key="k").run_id("team") != Order(
        parameters={}, version="v1", key="k"
    ).run_id("")


def test_a_pipeline_that_all_namespaces_share_is_found(several: FakeKubeflow) -> None:
    several.pipelines["P"]["namespace"] = ""
    several.add_experiment("retrain", "team")
    assert submitted(member(several), key="k").created
    assert len(several.log) == 6


def test_a_key_a_shared_pipeline_and_a_new_experiment_take_six_requests_at_most(several: FakeKubeflow) -> None:
    several.pipelines["P"]["namespace"] = ""
    assert submitted(member(several), key="k").created
    assert len(several.log) == 6  # experiment, pipeline twice, version, experiment, run


@pytest.mark.parametrize(
    ("namespace", "token", "sentence"),
    [
        ("other", "t", "user 'ann' may not list experiments in namespace 'other', or it does not exist"),
        ("team", "expired", "the token has expired"),
        ("team", "", "no credentials were given"),
    ],
)
def test_no_rights_no_login_or_no_namespace_is_one_sentence(
    namespace: str, token: str, sentence: str, several: FakeKubeflow
) -> None:
    with pytest.raises(UserError) as error:
        submitted(member(several, namespace, token))
    assert sentence in str(error.value)
    assert several.runs == {}


# The page of a run


@pytest.mark.parametrize(
    ("ui", "url"),
    [
        ("http://localhost:8080", "http://localhost:8080/#/runs/details/r"),
        ("https://kf.example.com/pipeline", "https://kf.example.com/_/pipeline/?ns=team#/runs/details/r"),
        ("http://ml-pipeline.kubeflow.svc.cluster.local:8888", ""),
        ("http://localhost:8888", ""),
        ("", ""),
    ],
)
def test_the_page_of_a_run_is_where_people_see_it(ui: str, url: str) -> None:
    assert address(Kubeflow(Connection(host="http://localhost", namespace="team", ui=ui)), "r") == url


# Judging


def ended(client: Kubeflow, server: FakeKubeflow, state: str, store: str, **tasks: str) -> RunState:
    run = server.add_run(runtime_config={"parameters": {"store": store}})
    server.tasks(run["run_id"], tasks)
    server.finish(run["run_id"], state)
    return get(client, run["run_id"])


def test_a_runs_verdict_is_read_through_its_store(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, store: DirectoryStore
) -> None:
    run = ended(kubeflow, kubeflow_server, "SUCCEEDED", store.uri, **dict.fromkeys(STEPS, "SUCCEEDED"))
    publish(store, run.id)
    release = outcome(run)
    assert release is not None
    assert (release.accepted, release.champion) == (True, True)
    headline, reasons = verdict(run, release)
    assert headline == "accepted: 99.00% test accuracy; mnist version 1, the champion"
    assert reasons == ["0.99 is at least 0.9"]


def test_a_run_that_found_no_reason_to_retrain_has_no_verdict(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run = ended(kubeflow, kubeflow_server, "SUCCEEDED", "/nowhere", ingest="SUCCEEDED")
    assert outcome(run) is None
    assert verdict(run, None)[0].startswith("nothing to do: ")


def test_a_failed_run_says_where_and_how_to_see_more(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    run = ended(kubeflow, kubeflow_server, "FAILED", "/s", ingest="SUCCEEDED", train="FAILED")
    assert ending(run) == f"run {run.id} failed in train; see `retrain logs {run.id} train`"


def test_facts_of_a_release_are_json(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, store: DirectoryStore) -> None:
    run = ended(kubeflow, kubeflow_server, "SUCCEEDED", store.uri, **dict.fromkeys(STEPS, "SUCCEEDED"))
    publish(store, run.id, 0.42, accepted=False)
    release = outcome(run)
    assert release is not None
    found = json.loads(json.dumps(release.facts()))
    assert (found["accepted"], found["champion"], found["accuracy"], found["version"]) == (False, False, 0.42, 1)
