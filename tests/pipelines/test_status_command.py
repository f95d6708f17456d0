"""`retrain status` as a user types it, against a loopback server."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.storage import DirectoryStore
from pipelines.cli.status import status
from tests.commands import RETRAIN, retrain
from tests.pipelines.published import STORY, publish
from tests.pipelines.timetables import install
from tests.servers.kfp import FakeKubeflow
from tests.servers.loopback import Reply, Request

MINE = {"pipeline_version_reference": {"pipeline_id": "P", "pipeline_version_id": "id of v1"}}


@pytest.fixture
def kubeflow_server(kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch) -> FakeKubeflow:
    """With the pipeline, and named by the environment."""
    install(kubeflow_server)
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", kubeflow_server.url)
    return kubeflow_server


def test_status_as_json_has_runs_champion_and_schedules(
    kubeflow_server: FakeKubeflow, store: DirectoryStore, tmp_path: Path
) -> None:
    run_id = kubeflow_server.add_run(**MINE)["run_id"]
    kubeflow_server.finish(run_id, "SUCCEEDED")
    publish(store, run_id)
    shown = retrain("status", "--store", store.uri, "--json", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert [run["run_id"] for run in found["runs"]] == [run_id]
    assert (found["champion"]["version"], found["champion"]["run"]) == (1, run_id)
    assert (found["total"], found["schedules"], found["unreadable"]) == (1, [], None)


@pytest.mark.slow
def test_status_of_a_run_says_where_it_is_seen(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    run_id = kubeflow_server.add_run(**MINE)["run_id"]
    shown = retrain("status", run_id, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert f"{kubeflow_server.url}/#/runs/details/{run_id}" in shown.stdout
    wrong = retrain("status", "nope", folder=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: there is no run 'nope' on Kubeflow Pipelines at ")
    assert len(wrong.stderr.splitlines()) == 1


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    # By its entry, because the package names the command like the module.
    monkeypatch.setattr(sys.modules["pipelines.cli.status"], "WATCH_SECONDS", 0.01)


@pytest.mark.usefixtures("_impatient")
def test_a_watched_run_is_shown_again_until_it_has_ended(kubeflow_server: FakeKubeflow) -> None:
    run_id = kubeflow_server.add_run(runtime_config={"parameters": {"store": "/nowhere"}}, **MINE)["run_id"]
    kubeflow_server.stories[run_id] = list(STORY)
    shown = CliRunner().invoke(status, [run_id, "--watch"])
    assert shown.exit_code == 0
    states = [line.split()[2].rstrip(",") for line in shown.stdout.splitlines() if line.startswith("run ")]
    assert (states[0], states[-1]) == ("pending", "succeeded")
    assert "running" in states


@pytest.mark.slow
@pytest.mark.usefixtures("_impatient")
def test_watching_survives_a_server_that_restarts(kubeflow_server: FakeKubeflow) -> None:
    run_id = kubeflow_server.add_run(**MINE)["run_id"]
    kubeflow_server.stories[run_id] = [{"train": "RUNNING"}, "FAILED"]
    answer = kubeflow_server.answer

    def answer_once(request: Request) -> Reply:
        kubeflow_server.answer = answer  # type: ignore[method-assign]
        kubeflow_server.drop("before", times=7)
        return answer(request)

    kubeflow_server.answer = answer_once  # type: ignore[method-assign]
    shown = CliRunner().invoke(status, [run_id, "--watch"])
    assert shown.exit_code == 0
    assert "failed" in shown.stdout


@pytest.mark.slow
def test_an_interrupt_ends_the_watching(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    command = [RETRAIN, "status", "--watch", "--store", "/nowhere"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_server_that_is_not_there_is_exit_code_5(tmp_path: Path) -> None:
    ended = retrain("status", "--watch", "--host", "http://127.0.0.1:9", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (5, "")
    assert len(ended.stderr.splitlines()) == 1
