"""A run's state from the server's answer, and following it to its end."""

import threading
import time
from datetime import UTC, datetime

import pytest

from components.step import StepError, UserError
from pipelines.forward import Forward
from pipelines.kubeflow import Kubeflow, Unreachable
from pipelines.runs import TimedOut, cancel, follow, get
from tests.pipelines.published import STEPS, STORY
from tests.servers.kfp import FakeKubeflow


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.runs.FIRST_PAUSE", 0.01)


def running(server: FakeKubeflow) -> str:
    """A run that has been accepted."""
    run_id: str = server.add_run(display_name="nightly", runtime_config={"parameters": {"epochs": 3.0}})["run_id"]
    return run_id


def test_a_runs_steps_are_its_tasks_without_drivers_groups_and_executors(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.tasks(
        run_id, {"root": "RUNNING", "ingest": "SUCCEEDED", "condition-2": "RUNNING", "train": "RUNNING"}
    )
    run = get(kubeflow, run_id)
    assert [(step.name, step.state) for step in run.steps] == [
        ("plan", "PENDING"),
        ("shard", "PENDING"),
        ("ingest", "SUCCEEDED"),
        ("train", "RUNNING"),
        ("evaluate", "PENDING"),
        ("export", "PENDING"),
    ]
    assert (run.name, run.parameters, run.ended) == ("nightly", {"epochs": 3}, False)
    assert run.finished is None
    assert run.step("evaluate").seconds is None


@pytest.mark.parametrize(
    ("states", "state", "done", "ended"),
    [
        ([""] * 3, "PENDING", 0, False),
        (["RUNNING", "PENDING", ""], "RUNNING", 0, False),
        (["SUCCEEDED", "SUCCEEDED", ""], "RUNNING", 2, False),
        (["SUCCEEDED", "PENDING", "PENDING"], "RUNNING", 1, False),
        (["SUCCEEDED", "FAILED", "RUNNING"], "FAILED", 1, False),
        (["SUCCEEDED", "FAILED", "SUCCEEDED"], "FAILED", 2, True),
        (["SUCCEEDED"] * 3, "SUCCEEDED", 3, True),
    ],
)
def test_a_step_in_a_loop_is_one_step_of_several_parts(
    states: list[str], state: str, done: int, ended: bool, kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.tasks(run_id, {"plan": "SUCCEEDED", "shard": states})
    run = get(kubeflow, run_id)
    assert [step.name for step in run.steps] == list(STEPS)
    shard = run.step("shard")
    assert (shard.state, shard.done, shard.parts, shard.end is not None) == (state, done, 3, ended)
    assert (run.step("plan").parts, run.step("train").parts) == (1, 1)


def test_a_step_that_this_version_does_not_know_is_shown_after_the_others(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.tasks(run_id, dict.fromkeys((*STEPS, "deploy"), "SUCCEEDED"))
    assert [step.name for step in get(kubeflow, run_id).steps] == [*STEPS, "deploy"]


def test_an_ended_step_has_its_time_and_one_that_the_server_dates_1970_has_not_ended(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    start = datetime(2026, 5, 1, 3, 0, 0, tzinfo=UTC)
    kubeflow_server.now = start.timestamp
    run_id = running(kubeflow_server)
    kubeflow_server.now = lambda: start.timestamp() + 90
    kubeflow_server.tasks(run_id, {"ingest": "SUCCEEDED", "train": "RUNNING"})
    for detail in kubeflow_server.runs[run_id]["run_details"]["task_details"]:
        detail.setdefault("end_time", "1970-01-01T00:00:00Z")  # as the server writes what has not happened
    run = get(kubeflow, run_id)
    assert run.step("ingest").seconds == 90
    assert run.step("train").end is None
    assert (run.step("train").seconds or 0) > 90


def test_a_run_whose_condition_was_false_has_stopped_without_a_model(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.tasks(run_id, {**dict.fromkeys(STEPS[:3], "SUCCEEDED"), "condition-2": "SKIPPED"})
    kubeflow_server.finish(run_id, "SUCCEEDED")
    run = get(kubeflow, run_id)
    assert run.stopped
    assert [step.state for step in run.steps] == ["SUCCEEDED"] * 3 + ["SKIPPED"] * 3


def test_a_run_that_was_cancelled_is_so_although_argo_calls_it_failed(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run_id = running(kubeflow_server)
    assert cancel(kubeflow, run_id) == f"run {run_id} is cancelled"
    kubeflow_server.finish(run_id, "FAILED")
    assert get(kubeflow, run_id).state == "CANCELED"


def test_a_run_that_the_server_cannot_convert_is_still_shown(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    broken = {"run_id": "broken", "experiment_id": "e", "error": {"code": 13, "message": "missing pipeline source"}}
    kubeflow_server.runs["broken"] = broken | {"state_history": []}
    run = get(kubeflow, "broken")
    assert (run.state, run.created, run.error) == ("RUNTIME_STATE_UNSPECIFIED", None, "missing pipeline source")


def test_an_unknown_run_is_a_users_mistake(kubeflow: Kubeflow) -> None:
    with pytest.raises(UserError, match="there is no run 'nope' on Kubeflow Pipelines at http://"):
        get(kubeflow, "nope")


def test_following_gives_the_run_until_it_has_ended(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.stories[run_id] = [STORY[0], STORY[2], STORY[3]]
    seen = [(run.state, run.step("train").state) for run in follow(kubeflow, run_id)]
    assert seen[-1] == ("SUCCEEDED", "SUCCEEDED")
    assert ("RUNNING", "PENDING") in seen


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_fails_for_a_while_is_waited_for(
    status: int, kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.finish(run_id, "SUCCEEDED")
    kubeflow_server.fail(status, times=6)
    assert [run.state for run in follow(kubeflow, run_id)] == ["SUCCEEDED"]
    assert len(kubeflow_server.log) == 7


def test_a_dropped_connection_while_waiting_is_survived(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.stories[run_id] = ["SUCCEEDED"]
    seen = []
    for run in follow(kubeflow, run_id):
        seen.append(run.state)
        kubeflow_server.drop("before", times=6)
    assert seen == ["PENDING", "SUCCEEDED"]


def test_a_server_that_stays_away_ends_the_waiting(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runs.PATIENCE_SECONDS", 0.2)
    kubeflow_server.drop("before", times=1000)
    with pytest.raises(Unreachable):
        list(follow(kubeflow, "r"))


@pytest.mark.parametrize("status", [401, 403])
def test_a_user_whom_the_server_refuses_is_told_at_once(
    status: int, kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    kubeflow_server.fail(status, {"code": 16, "message": "no"}, times=1000)
    with pytest.raises(UserError):
        list(follow(kubeflow, "r"))
    assert len(kubeflow_server.log) == 1


def test_a_token_that_expires_ends_the_waiting_through_a_port_forward_too(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Forward("kubeflow")
    monkeypatch.setattr(forward, "url", lambda: kubeflow_server.url)
    kubeflow.connection.forward = forward
    monkeypatch.setattr("pipelines.runs.PATIENCE_SECONDS", 0.5)
    kubeflow_server.fail(401, {"code": 16, "message": "no"}, times=1000)
    with pytest.raises(UserError):
        list(follow(kubeflow, "r"))
    assert len(kubeflow_server.log) == 1


def test_a_run_that_is_deleted_while_it_is_followed_ends_the_waiting(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    run_id = running(kubeflow_server)
    waiting = follow(kubeflow, run_id)
    next(waiting)
    del kubeflow_server.runs[run_id]
    with pytest.raises(StepError, match="is gone: it was deleted"):
        next(waiting)


def test_a_run_that_takes_longer_than_the_timeout_goes_on(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    run_id = running(kubeflow_server)
    start = time.monotonic()
    with pytest.raises(TimedOut, match=f"run {run_id} has not ended after 0.3 s and goes on"):
        list(follow(kubeflow, run_id, timeout=0.3))
    assert time.monotonic() - start < 20
    assert kubeflow_server.runs[run_id]["state"] == "PENDING"


@pytest.mark.slow
def test_a_run_that_is_about_to_start_is_cancelled_when_it_has(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    timer = threading.Timer(0.3, lambda: kubeflow_server.add_run(run_id="late"))
    timer.start()
    assert cancel(kubeflow, "late") == "run late is cancelled"
    assert kubeflow_server.runs["late"]["state"] == "CANCELING"
    timer.join()


def test_a_cancelling_that_is_refused_is_told(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    run_id = running(kubeflow_server)
    kubeflow_server.fail(403, {"code": 7, "message": "no"}, path=":terminate")
    assert cancel(kubeflow, run_id).startswith(f"run {run_id} goes on: cannot stop run")
