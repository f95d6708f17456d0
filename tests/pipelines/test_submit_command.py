"""`retrain submit` as a user and a CI job type it, against a loopback server."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from components.storage import DirectoryStore
from pipelines.submit import Order
from tests.commands import RETRAIN, retrain
from tests.pipelines.published import STEPS, STORY, publish, write
from tests.pipelines.timetables import install
from tests.servers.kfp import FakeKubeflow
from tests.servers.kubernetes import FakeKubernetes

KEY = ["--pipeline-version", "v1", "--idempotency-key", "k"]
RUN = Order(parameters={}, version="v1", key="k").run_id("")
"""What the run will be that has this key."""


@pytest.fixture
def kubeflow_server(kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch) -> FakeKubeflow:
    """With the pipeline, runs that go well, and named by the environment."""
    install(kubeflow_server)
    kubeflow_server.story = list(STORY)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kubeflow_server.url)
    return kubeflow_server


def test_submit_says_which_run_it_is_and_where_it_is_seen(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    write(tmp_path, "p.yaml", "epochs: 3\nseed: 7\n")
    flags = ["--pipeline-version", "latest", "--parameters", "p.yaml", "--epochs", 5, "--bias", "false"]
    ended = retrain("submit", *flags, folder=tmp_path)
    (run_id,) = kubeflow_server.runs
    page = f"{kubeflow_server.url}/#/runs/details/{run_id}"
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"run {run_id} started: {page}\n", "")
    given = kubeflow_server.runs[run_id]["runtime_config"]["parameters"]
    assert given == {"epochs": 5, "seed": 7, "bias": False}
    assert len(kubeflow_server.log) <= 6


@pytest.mark.slow
def test_without_a_version_it_is_this_codes_which_upload_puts_there(
    kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    missing = retrain("submit", folder=tmp_path)
    assert missing.returncode == 2
    assert "put this code's there with `retrain upload`" in missing.stderr
    assert retrain("upload", folder=tmp_path).returncode == 0
    kubeflow_server.log.clear()
    assert retrain("submit", folder=tmp_path).returncode == 0
    assert len(kubeflow_server.log) <= 6
    (run,) = kubeflow_server.runs.values()
    version = kubeflow_server.versions[run["pipeline_version_reference"]["pipeline_version_id"]]
    assert version["name"].startswith("v0-")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--epochs", "0"], "error: epochs must be at least 1, not 0\n"),
        (["--activation", "rellu"], "error: unknown activation 'rellu'; did you mean 'relu'?"),
        (["--parameters", "p.yaml"], "error: unknown parameter 'epoch'; did you mean 'epochs'?"),
        (["--parameters", "nowhere"], "error: parameters 'nowhere' cannot be read: No such file or directory\n"),
        (["--store", "here"], "error: store must be s3://bucket/prefix, or a directory that every pod has, not 'here'"),
        (["--timeout", "9"], "error: --timeout and --cancel-on-interrupt say how to wait; give --wait too\n"),
        (["--idempotency-key", "k" * 201], "error: --idempotency-key must have at most 200 characters"),
    ],
)
def test_a_users_mistake_is_told_before_anything_is_sent(
    flags: list[str], sentence: str, kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    write(tmp_path, "p.yaml", "epoch: 3\n")
    ended = retrain("submit", "--pipeline-version", "v1", *flags, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(sentence)
    assert len(ended.stderr.splitlines()) == 1
    assert kubeflow_server.log == []


@pytest.mark.slow
def test_gpus_that_no_node_has_are_refused_unless_nodes_are_added_on_demand(
    kubeflow_server: FakeKubeflow, kubernetes_server: FakeKubernetes, tmp_path: Path
) -> None:
    kubernetes_server.add_node("only", amd_com_gpu="1")
    write(tmp_path, "settings.toml", "autoscaled_gpus = true\n")
    asked = ["submit", "--pipeline-version", "v1", "--context", "here", "--gpus", 1]
    refused = retrain(*asked, folder=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(
        "error: no node has 1 nvidia.com/gpu, as gpus and gpu_type ask; one has at most 1 amd"
    )
    assert (kubeflow_server.experiments, kubeflow_server.runs) == ({}, {})
    kubernetes_server.log.clear()
    assert retrain(*asked, "--settings", "settings.toml", folder=tmp_path).returncode == 0
    assert kubernetes_server.log == []


@pytest.mark.slow
def test_waiting_tells_each_step_and_the_verdict(
    kubeflow_server: FakeKubeflow, store: DirectoryStore, tmp_path: Path
) -> None:
    publish(store, RUN)
    ended = retrain("submit", *KEY, "--store", store.uri, "--wait", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:-2]] == [
        ["plan", "done"],
        ["shard", "started"],
        ["shard", "done"],
        ["ingest", "done"],
        ["train", "started"],
        ["train", "done"],
        ["evaluate", "done"],
        ["export", "done"],
    ]
    assert lines[-2:] == [
        "accepted: 99.00% test accuracy; mnist version 1, the champion",
        "  0.99 is at least 0.9",
    ]


@pytest.mark.slow
def test_a_rejected_model_is_exit_code_3_and_the_report_is_whole(
    kubeflow_server: FakeKubeflow, store: DirectoryStore, tmp_path: Path
) -> None:
    publish(store, RUN, 0.42, accepted=False)
    ended = retrain("submit", *KEY, "--store", store.uri, "--wait", "--json", folder=tmp_path)
    assert ended.returncode == 3
    error = ended.stderr.splitlines()[-1]
    assert error == "error: REJECTED: 42.00% test accuracy; mnist version 1; 0.42 is below min_accuracy 0.9"
    report = json.loads(ended.stdout)
    assert report["run_id"] == RUN
    assert (report["created"], report["state"], report["pipeline_version"]) == (True, "SUCCEEDED", "v1")
    assert report["release"]["accepted"] is False
    assert list(report["steps"]) == list(STEPS)


@pytest.mark.slow
def test_a_verdict_that_cannot_be_read_from_here_is_exit_code_5(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    ended = retrain("submit", *KEY, "--store", "/nowhere/at/all", "--wait", "--json", folder=tmp_path)
    assert ended.returncode == 5
    assert ended.stderr.splitlines()[-1] == (
        f"error: run {RUN} succeeded; whether its model was accepted cannot be told from here: "
        "store /nowhere/at/all is no directory of this machine"
    )
    assert json.loads(ended.stdout)["state"] == "SUCCEEDED"


@pytest.mark.slow
def test_a_rejected_model_whose_reasons_cannot_be_read_is_still_exit_code_3(
    kubeflow_server: FakeKubeflow, store: DirectoryStore, tmp_path: Path
) -> None:
    version = publish(store, RUN, 0.42, accepted=False)
    (store.root / version.files["verdict.json"]).write_text("")
    ended = retrain("submit", *KEY, "--store", store.uri, "--wait", folder=tmp_path)
    assert ended.returncode == 3
    assert "error: REJECTED: mnist version 1; the reasons cannot be read from here: " in ended.stderr


@pytest.mark.slow
def test_a_failed_run_is_exit_code_1_and_says_where(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    kubeflow_server.story = [{"ingest": "SUCCEEDED", "train": "FAILED"}, "FAILED"]
    ended = retrain("submit", *KEY, "--wait", "--json", folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"error: run {RUN} failed in train; see `retrain logs {RUN} train`"
    assert json.loads(ended.stdout)["state"] == "FAILED"


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_exit_code_4_and_goes_on(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    kubeflow_server.story = [{"train": "RUNNING"}]
    ended = retrain("submit", *KEY, "--wait", "--timeout", 1, "--json", folder=tmp_path)
    assert ended.returncode == 4
    assert f"run {RUN} has not ended after 1 s and goes on" in ended.stderr
    assert json.loads(ended.stdout)["state"] in ("PENDING", "RUNNING")
    assert kubeflow_server.runs[RUN]["state"] == "RUNNING"


@pytest.mark.slow
def test_a_server_that_is_not_there_is_exit_code_5(tmp_path: Path) -> None:
    ended = retrain("submit", *KEY, "--host", "http://127.0.0.1:9", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert "http://127.0.0.1:9 takes no connections" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
def test_connections_that_drop_while_waiting_are_survived(
    kubeflow_server: FakeKubeflow, store: DirectoryStore, tmp_path: Path
) -> None:
    publish(store, RUN)
    command = [RETRAIN, "submit", *KEY, "--store", store.uri, "--wait"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        until_started(kubeflow_server)
        kubeflow_server.drop("before", times=7)
        kubeflow_server.fail(503, times=3)
        output, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert "export    done" in output
    assert kubeflow_server.workflows == [RUN]


@pytest.mark.slow
def test_a_job_that_was_killed_and_is_repeated_waits_for_its_first_run(
    kubeflow_server: FakeKubeflow, store: DirectoryStore, tmp_path: Path
) -> None:
    publish(store, RUN)
    flags = [*KEY, "--store", store.uri, "--wait"]
    with subprocess.Popen([RETRAIN, "submit", *flags], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        until_started(kubeflow_server)
        process.kill()
    again = retrain("submit", *flags, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"run {RUN} was started before with this key: http://")
    assert kubeflow_server.workflows == [RUN]


def until_started(server: FakeKubeflow) -> None:
    """Waits until the run has been started, and was asked for once."""
    deadline = time.monotonic() + 30
    while not any(seen.method == "GET" and seen.path.endswith(RUN) and seen.status == 200 for seen in server.log):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("cancel", [True, False])
def test_an_interrupt_cancels_the_run_only_where_that_is_wanted(
    number: signal.Signals, cancel: bool, kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    kubeflow_server.story = [{"train": "RUNNING"}]
    command = [RETRAIN, "submit", *KEY, "--wait", *(["--cancel-on-interrupt"] if cancel else [])]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        until_started(kubeflow_server)
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    fate = f"run {RUN} is cancelled" if cancel else f"run {RUN} goes on; see `retrain status {RUN}`"
    assert error.decode() == f"error: interrupted; {fate}\n"
    assert (kubeflow_server.runs[RUN]["state"] == "CANCELING") is cancel


@pytest.mark.slow
def test_an_interrupt_while_the_run_is_being_started_cancels_it_too(
    kubeflow_server: FakeKubeflow, tmp_path: Path
) -> None:
    kubeflow_server.delay(1.0, times=1, method="POST", path="/runs$")
    command = [RETRAIN, "submit", *KEY, "--wait", "--cancel-on-interrupt"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while not any((request.method, request.path[-5:]) == ("POST", "/runs") for request in kubeflow_server.log):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error.decode()) == (130, f"error: interrupted; run {RUN} is cancelled\n")
    assert kubeflow_server.runs[RUN]["state"] == "CANCELING"
