"""Schedules on a server: what plan says, what apply does, and that nothing goes wrong wherever it is cut."""

import copy
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from components.step import StepError, UserError
from pipelines import generations, schedules
from pipelines.generations import everything
from pipelines.kubeflow import Kubeflow
from pipelines.schedules import Change, Done, look, pause, resume, trigger
from pipelines.timetable import Timetable
from pipelines.transport import Connection, Unreachable
from tests.pipelines.timetables import install, schedule_names, timetable
from tests.servers.kfp import FakeKubeflow, Row
from tests.servers.loopback import Fault, Reply, Request

NIGHTLY = 'schedules: [{name: nightly, cron: "0 3 * * *", parameters: {epochs: 3}}]'
LATER = 'schedules: [{name: nightly, cron: "0 4 * * *", parameters: {epochs: 5}}]'


class Watched(FakeKubeflow):
    """Sees whether two generations of a schedule are ever enabled at once; can go away after some requests."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.overlaps: list[str] = []
        self.left = -1
        """How many requests are still answered; -1: all."""
        self.last_has_effect = False

    def answer(self, request: Request) -> Reply:
        reply = super().answer(request)
        with self.lock:
            enabled = schedule_names(self, status="ENABLED")
            self.overlaps += {name for name in enabled if enabled.count(name) > 1}
        return reply

    def exchange(self, request: Request) -> Reply | None:
        with self.lock:
            left = self.left
            self.left = max(0, left - 1) if left >= 0 else left
        if left == 0:
            if self.last_has_effect:
                self.last_has_effect = False
                super().exchange(request)
            return None
        return super().exchange(request)

    def tables(self) -> tuple[dict[str, Row], dict[str, Row], dict[str, Row]]:
        return copy.deepcopy((self.recurring_runs, self.runs, self.experiments))


@pytest.fixture
def kubeflow_server() -> Iterator[Watched]:
    with Watched() as server:
        install(server)
        yield server


@contextmanager
def client(server: FakeKubeflow, **options: Any) -> Iterator[Kubeflow]:
    connection = Connection(host=server.url, pauses=(0.001,), **options)
    yield Kubeflow(connection)
    connection.close()


def apply(kubeflow: Kubeflow, wanted: Timetable, quiet: float = 0.0) -> list[Done]:
    return list(schedules.apply(kubeflow, wanted, quiet=quiet, looks=(0.001, 0.001)))


def actions(changes: list[Change]) -> dict[str, str]:
    return {change.name: change.action for change in changes}


def only(server: FakeKubeflow) -> Row:
    (row,) = server.recurring_runs.values()
    return row


# What is made


def test_a_schedule_becomes_a_recurring_run_that_does_what_the_file_says(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    text = """
service_account: team-runner
experiment: digits
schedules:
- name: nightly
  cron: "30 3 * * 7"
  parameters: {epochs: 3, learning_rate: 1, gpus: "1"}
  pipeline_version: v1
  concurrency: 2
  catch_up: true
  condition: always
"""
    apply(kubeflow, timetable(tmp_path, text))
    row = only(kubeflow_server)
    (experiment,) = kubeflow_server.experiments.values()
    assert experiment["display_name"] == "digits"
    assert row["experiment_id"] == experiment["experiment_id"]
    assert row["display_name"] == "nightly"
    assert row["trigger"] == {"cron_schedule": {"cron": "0 30 3 * * 0"}}
    assert row["runtime_config"]["parameters"] == {
        "epochs": 3,
        "learning_rate": 1.0,
        "gpus": "1",
        "condition": "always",
    }
    assert row["pipeline_version_reference"] == {"pipeline_id": "P", "pipeline_version_id": "id of v1"}
    assert (row["max_concurrency"], row["no_catchup"], row["status"]) == ("2", False, "ENABLED")
    assert row["service_account"] == "team-runner"
    assert len(row["description"]) <= 255


def test_without_more_words_the_latest_version_runs_where_something_changed_and_no_tick_is_made_up_for(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    row = only(kubeflow_server)
    assert row["pipeline_version_reference"] == {"pipeline_id": "P"}
    assert row["runtime_config"]["parameters"]["condition"] == "changed"
    assert (row["no_catchup"], row["max_concurrency"], row["service_account"]) == (True, "1", "retrain-runner")


def test_applying_again_changes_nothing(kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path) -> None:
    wanted = timetable(tmp_path, NIGHTLY)
    assert [done.text for done in apply(kubeflow, wanted)] == ["created"]
    before = kubeflow_server.tables()
    assert apply(kubeflow, wanted) == []
    assert actions(look(kubeflow, wanted)) == {"nightly": "unchanged"}
    assert kubeflow_server.tables() == before


def test_plan_changes_nothing_and_says_which_fields_differ(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    assert actions(look(kubeflow, timetable(tmp_path, NIGHTLY))) == {"nightly": "create"}
    assert kubeflow_server.experiments == {}
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    before = kubeflow_server.tables()
    (change,) = look(kubeflow, timetable(tmp_path, LATER))
    assert change.action == "replace"
    assert change.differences == {"cron": ("0 3 * * *", "0 4 * * *"), "epochs": (3, 5)}
    assert kubeflow_server.tables() == before


def test_a_changed_schedule_has_one_new_recurring_run_and_the_old_one_goes(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    old = only(kubeflow_server)["recurring_run_id"]
    did = apply(kubeflow, timetable(tmp_path, LATER))
    assert [done.text for done in did] == ["disabled", "replaced", "the old one deleted"]
    new = only(kubeflow_server)
    assert new["recurring_run_id"] != old
    assert new["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    assert kubeflow_server.overlaps == []


def test_another_upload_of_the_pipeline_is_another_schedule(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    text = 'schedules: [{name: nightly, cron: "0 3 * * *", pipeline_version: v1}]'
    apply(kubeflow, timetable(tmp_path, text))
    version = kubeflow_server.versions.pop("id of v1")
    kubeflow_server.versions["new"] = version | {"pipeline_version_id": "new"}
    (change,) = look(kubeflow, timetable(tmp_path, text))
    assert (change.action, list(change.differences)) == ("replace", ["pipeline_version"])


def test_a_schedule_that_left_the_file_leaves_the_server(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    assert actions(look(kubeflow, timetable(tmp_path, ""))) == {"nightly": "retire"}
    apply(kubeflow, timetable(tmp_path, ""))
    assert kubeflow_server.recurring_runs == {}


# What is not touched


def test_what_others_made_stays_as_it_is(kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    mine = only(kubeflow_server)
    others = {
        "by hand": {"display_name": "nightly", "description": ""},
        "copied in the UI": {"display_name": "Clone of nightly"},
        "of a longer name": {"display_name": "nightly-2", "description": "retrain schedule nightly of the team"},
        "of another experiment": {"experiment_id": kubeflow_server.add_experiment("other")["experiment_id"]},
    }
    for key, fields in others.items():
        kubeflow_server.recurring_runs[key] = mine | {"recurring_run_id": key} | fields
    before = copy.deepcopy({key: kubeflow_server.recurring_runs[key] for key in others})
    apply(kubeflow, timetable(tmp_path, LATER))
    apply(kubeflow, timetable(tmp_path, ""))
    assert kubeflow_server.recurring_runs == before


def test_a_run_in_progress_is_never_killed_not_even_by_a_server_that_knows_no_better(tmp_path: Path) -> None:
    with Watched(version="2.5.0") as server, client(server) as kubeflow:
        install(server)
        apply(kubeflow, timetable(tmp_path, NIGHTLY))
        old = only(server)["recurring_run_id"]
        run = server.tick(old)["run_id"]
        did = apply(kubeflow, timetable(tmp_path, LATER))
        assert did[-1].text == "the old one's run is in progress; a later apply deletes it"
        assert server.recurring_runs[old]["status"] == "DISABLED"
        assert schedule_names(server, status="ENABLED") == ["nightly"]
        assert apply(kubeflow, timetable(tmp_path, ""))[0].text == "disabled"
        assert old in server.recurring_runs
        assert server.runs[run]["state"] == "PENDING"
        server.finish(run, "SUCCEEDED")
        apply(kubeflow, timetable(tmp_path, ""))
        assert server.recurring_runs == {}
        assert server.killed == []
        assert server.runs[run]["state"] == "SUCCEEDED"


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "CANCELING", "PAUSED", "RUNTIME_STATE_UNSPECIFIED"])
def test_every_state_of_a_run_that_goes_on_keeps_its_recurring_run(
    state: str, kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    kubeflow_server.tick(only(kubeflow_server)["recurring_run_id"])["state"] = state
    apply(kubeflow, timetable(tmp_path, ""))
    assert schedule_names(kubeflow_server, status="DISABLED") == ["nightly"]


def test_what_ticked_just_now_is_not_deleted_before_its_run_must_have_shown_up(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    applying = schedules.apply(kubeflow, timetable(tmp_path, ""), quiet=24 * 3600)
    assert next(applying).text == "disabled"
    assert next(applying).text.startswith("a tick of the old one was due just now; it is deleted in 86")
    assert schedule_names(kubeflow_server, status="DISABLED") == ["nightly"]


@pytest.mark.slow
@pytest.mark.parametrize("late", [True, False])
def test_a_run_that_shows_up_late_keeps_its_recurring_run(
    late: bool, kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    hours_ago = datetime.now(UTC) - timedelta(hours=5)
    text = f'schedules: [{{name: nightly, cron: "0 {hours_ago.hour} * * *", concurrency: 1}}]'
    apply(kubeflow, timetable(tmp_path, text))
    old = only(kubeflow_server)["recurring_run_id"]
    # The end of a run lets through a tick that waited for it.
    kubeflow_server.finish(kubeflow_server.tick(old)["run_id"], "SUCCEEDED")
    second = kubeflow_server.tick(old)
    hidden = kubeflow_server.runs.pop(second["run_id"])
    applying = schedules.apply(kubeflow, timetable(tmp_path, ""), quiet=5)
    assert [next(applying).text[:9] for _ in range(2)] == ["disabled", "a tick of"]
    if late:
        kubeflow_server.runs[second["run_id"]] = hidden
    assert next(applying).text.startswith("the old one's run is in progress" if late else "the old one deleted")
    assert (old in kubeflow_server.recurring_runs) == late


# Pausing


def test_a_pause_survives_an_apply_unless_the_file_says_otherwise(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    plain, on, off = (
        timetable(tmp_path, f'schedules: [{{name: nightly, cron: "0 3 * * *"{more}}}]')
        for more in ("", ", enabled: true", ", enabled: false")
    )
    apply(kubeflow, plain)
    assert pause(kubeflow, plain, "nightly")
    assert not pause(kubeflow, plain, "nightly")
    (change,) = look(kubeflow, plain)
    assert (change.action, change.notes) == ("unchanged", ("paused, and stays so without `enabled: true`",))
    assert apply(kubeflow, plain) == []
    assert only(kubeflow_server)["status"] == "DISABLED"

    (change,) = look(kubeflow, on)
    assert (change.action, change.differences) == ("enable", {"enabled": (False, True)})
    assert "if one was missed, KFP makes up for the last tick at once" in change.notes
    first = only(kubeflow_server)["recurring_run_id"]
    assert [done.text for done in apply(kubeflow, on)] == ["enabled"]
    assert [done.text for done in apply(kubeflow, off)] == ["disabled"]
    assert only(kubeflow_server)["recurring_run_id"] == first
    assert resume(kubeflow, plain, "nightly")
    assert not resume(kubeflow, plain, "nightly")
    assert only(kubeflow_server)["status"] == "ENABLED"


def test_a_changed_schedule_starts_anew_and_plan_says_so_where_it_was_paused(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    pause(kubeflow, timetable(tmp_path, NIGHTLY), "nightly")
    (change,) = look(kubeflow, timetable(tmp_path, LATER))
    assert change.notes == ("was paused and will be enabled; `enabled: false` keeps it paused",)
    apply(kubeflow, timetable(tmp_path, LATER))
    assert only(kubeflow_server)["status"] == "ENABLED"


def test_a_schedule_that_is_off_in_the_file_is_made_disabled(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, 'schedules: [{name: nightly, cron: "@daily", enabled: false}]'))
    assert only(kubeflow_server)["status"] == "DISABLED"


def test_going_back_to_what_was_before_makes_a_new_one_and_does_not_wake_the_old_one(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    """The old one would make up for a tick that its successor has fired."""
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    first = only(kubeflow_server)
    first["created_at"] = "2026-01-01T00:00:00Z"
    run = kubeflow_server.tick(first["recurring_run_id"])
    apply(kubeflow, timetable(tmp_path, LATER))
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    assert first["status"] == "DISABLED"
    kubeflow_server.finish(run["run_id"], "SUCCEEDED")
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    assert only(kubeflow_server)["recurring_run_id"] != first["recurring_run_id"]
    enabled = [request for request in kubeflow_server.log if request.path.endswith(":enable")]
    assert enabled == []


def test_of_two_paused_ones_that_do_the_same_the_newer_stays(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    """The older one, whose run goes on, would make up for a tick that the newer one has fired."""
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    first = only(kubeflow_server)
    first["created_at"] = "2026-01-01T00:00:00Z"
    run = kubeflow_server.tick(first["recurring_run_id"])
    apply(kubeflow, timetable(tmp_path, LATER))
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    pause(kubeflow, timetable(tmp_path, NIGHTLY), "nightly")
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    kubeflow_server.finish(run["run_id"], "SUCCEEDED")
    resume(kubeflow, timetable(tmp_path, NIGHTLY), "nightly")
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    enabled = [request.path for request in kubeflow_server.log if request.path.endswith(":enable")]
    assert enabled == [f"/apis/v2beta1/recurringruns/{only(kubeflow_server)['recurring_run_id']}:enable"]
    assert only(kubeflow_server)["recurring_run_id"] != first["recurring_run_id"]


def test_triggering_starts_the_run_of_the_next_tick_on_its_own(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    wanted = timetable(tmp_path, NIGHTLY)
    apply(kubeflow, wanted)
    run_id = trigger(kubeflow, wanted, "nightly").run_id
    run, owner = kubeflow_server.runs[run_id], only(kubeflow_server)
    for field in ("runtime_config", "service_account", "experiment_id", "pipeline_version_reference"):
        assert run[field] == owner[field]
    assert "recurring_run_id" not in run, "it would go with the schedule"


@pytest.mark.parametrize("command", [pause, resume, trigger])
def test_a_schedule_that_is_not_on_the_server_is_told_with_the_nearest(
    command: Any, kubeflow: Kubeflow, tmp_path: Path
) -> None:
    wanted = timetable(tmp_path, NIGHTLY)
    with pytest.raises(UserError, match="experiment 'retrain' of the server has no schedules; make them with"):
        command(kubeflow, wanted, "nightly")
    apply(kubeflow, wanted)
    with pytest.raises(UserError, match="unknown schedule 'nigtly'; did you mean 'nightly'"):
        command(kubeflow, wanted, "nigtly")


# Cut anywhere

BEFORE = """
schedules:
- {name: same, cron: "0 1 * * *"}
- {name: changed, cron: "0 2 * * *"}
- {name: busy, cron: "0 3 * * *"}
- {name: gone, cron: "0 4 * * *"}
- {name: wakes, cron: "0 5 * * *", enabled: false}
- {name: rests, cron: "0 6 * * *"}
"""
AFTER = """
schedules:
- {name: same, cron: "0 1 * * *"}
- {name: changed, cron: "0 2 * * *", parameters: {epochs: 5}}
- {name: busy, cron: "0 3 * * *", parameters: {epochs: 5}}
- {name: new, cron: "0 4 * * *"}
- {name: wakes, cron: "0 5 * * *", enabled: true}
- {name: rests, cron: "0 6 * * *", enabled: false}
"""
ON, OFF = ["busy", "changed", "new", "same", "wakes"], ["rests"]


def prepared(server: Watched, kubeflow: Kubeflow, folder: Path) -> str:
    """Puts BEFORE on the server, a run of `busy` in progress; returns that run's ID."""
    apply(kubeflow, timetable(folder, BEFORE))
    (busy,) = (row for row in server.recurring_runs.values() if row["display_name"] == "busy")
    for row in server.recurring_runs.values():
        row["created_at"] = "2026-01-01T00:00:00Z"
    return str(server.tick(busy["recurring_run_id"])["run_id"])


@pytest.mark.slow
@pytest.mark.parametrize("last_has_effect", [False, True])
def test_an_apply_that_is_cut_at_any_request_and_called_again_ends_well(last_has_effect: bool, tmp_path: Path) -> None:
    with Watched() as server, client(server) as kubeflow:
        install(server)
        run = prepared(server, kubeflow, tmp_path)
        wanted = timetable(tmp_path, AFTER)
        start = server.tables()
        for cut in range(1000):
            server.recurring_runs, server.runs, server.experiments = copy.deepcopy(start)
            server.left, server.last_has_effect = cut, last_has_effect
            try:
                apply(kubeflow, wanted)
            except Unreachable:
                whole = False
            else:
                whole = server.left != 0
            server.left = -1
            apply(kubeflow, wanted)
            assert schedule_names(server, status="ENABLED") == ON, cut
            assert schedule_names(server, status="DISABLED") == ["busy", *OFF], cut
            assert set(actions(look(kubeflow, wanted)).values()) <= {"unchanged", "retire"}, cut
            assert (server.overlaps, server.killed, server.runs[run]["state"]) == ([], [], "PENDING"), cut
            server.finish(run, "SUCCEEDED")
            apply(kubeflow, wanted)
            assert schedule_names(server) == sorted(ON + OFF), cut
            if whole:
                break
        assert cut > 15


@pytest.mark.parametrize(("reply", "error"), [(400, UserError), (403, UserError), (500, StepError), (503, Unreachable)])
def test_a_new_one_that_is_refused_leaves_the_old_one_as_it_was(
    reply: int, error: type[Exception], kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    old = copy.deepcopy(only(kubeflow_server))
    answer = Reply(reply, {"code": 3, "message": "no", "details": []})
    kubeflow_server.faults.append(Fault(9, "POST", "/recurringruns$", reply=answer))
    with pytest.raises(error):
        apply(kubeflow, timetable(tmp_path, LATER))
    assert {key: only(kubeflow_server)[key] for key in ("recurring_run_id", "status")} == {
        "recurring_run_id": old["recurring_run_id"],
        "status": "ENABLED",
    }


def test_a_new_one_whose_answer_was_lost_is_found_and_kept(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    kubeflow_server.faults.append(Fault(1, "POST", "/recurringruns$", drop="after"))
    did = apply(kubeflow, timetable(tmp_path, LATER))
    assert [done.text for done in did] == ["disabled", "replaced", "the old one deleted"]
    assert only(kubeflow_server)["trigger"]["cron_schedule"]["cron"] == "0 0 4 * * *"
    assert kubeflow_server.overlaps == []


def test_what_could_be_neither_replaced_nor_enabled_again_is_named(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    refused = Reply(403, {"code": 7, "message": "no", "details": []})
    kubeflow_server.faults += [Fault(1, "POST", path, reply=refused) for path in ("/recurringruns$", ":enable$")]
    with pytest.raises(UserError, match="schedule 'nightly' is disabled until you apply again"):
        apply(kubeflow, timetable(tmp_path, LATER))
    apply(kubeflow, timetable(tmp_path, LATER))
    assert only(kubeflow_server)["status"] == "ENABLED"


# Two at once


class Meeting(Watched):
    """Lets the first two creations begin only when both have come."""

    def __init__(self) -> None:
        super().__init__()
        self.both = threading.Barrier(2)

    def exchange(self, request: Request) -> Reply | None:
        creates = request.method == "POST" and request.path.endswith("/recurringruns")
        if creates and len(schedule_names(self)) < 2:
            with suppress(threading.BrokenBarrierError):
                self.both.wait(timeout=60)
        return super().exchange(request)


def at_once(server: FakeKubeflow, wanted: Timetable, count: int = 2) -> list[Exception]:
    """Applies the same from several threads, each with a connection of its own; returns what they raised."""
    failed: list[Exception] = []

    def work() -> None:
        with client(server) as kubeflow:
            try:
                apply(kubeflow, wanted)
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failed


def test_two_that_create_the_same_at_the_same_moment_end_with_one(tmp_path: Path) -> None:
    with Meeting() as server:
        install(server)
        server.add_experiment("retrain")
        wanted = timetable(tmp_path, NIGHTLY)
        assert at_once(server, wanted) == []
        created = [
            request for request in server.log if (request.method, request.path[-14:]) == ("POST", "/recurringruns")
        ]
        assert len(created) == 2
        assert schedule_names(server, status="ENABLED") == ["nightly"]
        assert len(server.recurring_runs) == 1


def test_a_twin_is_disabled_before_anything_else_is_done(tmp_path: Path) -> None:
    class Twins(Watched):
        """Somebody else creates each schedule too, right after it was asked for."""

        def answer(self, request: Request) -> Reply:
            reply = super().answer(request)
            if request.method == "POST" and len(self.recurring_runs) == 1:
                twin = only(self) | {"recurring_run_id": "twin", "created_at": "2999-01-01T00:00:00Z"}
                self.recurring_runs["twin"] = twin
            return reply

    text = 'schedules: [{name: a, cron: "0 3 * * *"}, {name: b, cron: "0 3 * * *"}]'
    with Twins() as server, client(server) as kubeflow:
        install(server)
        server.add_experiment("retrain")
        did = apply(kubeflow, timetable(tmp_path, text))
        assert [(done.name, done.text) for done in did] == [
            ("a", "created"),
            ("a", "disabled"),
            ("b", "created"),
            ("a", "the old one deleted"),
        ]
        changing = [request.path.rpartition("/")[2] for request in server.log if request.method != "GET"]
        assert changing == ["recurringruns", "twin:disable", "recurringruns", "twin"]
        assert schedule_names(server, status="ENABLED") == ["a", "b"]


def test_of_two_that_do_the_same_the_enabled_one_stays_then_the_older_then_the_one_of_the_lower_id(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    wanted = timetable(tmp_path, NIGHTLY)
    apply(kubeflow, wanted)
    row = kubeflow_server.recurring_runs.popitem()[1]

    def kept(*twins: dict[str, str]) -> str:
        kubeflow_server.recurring_runs = {one["recurring_run_id"]: row | one for one in twins}
        apply(kubeflow, wanted)
        return str(only(kubeflow_server)["recurring_run_id"])

    early, late = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    b_early, a_late = ({"recurring_run_id": key, "created_at": at} for key, at in (("b", early), ("a", late)))
    a_early = {"recurring_run_id": "a", "created_at": early}
    assert kept(b_early, a_late) == kept(a_late, b_early) == "b"
    assert kept(b_early, a_early) == kept(a_early, b_early) == "a"
    assert kept(b_early | {"status": "DISABLED"}, a_late) == "a"


def test_what_another_has_deleted_meanwhile_is_as_good_as_disabled(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    gone = Reply(404, {"code": 5, "message": "Job not found", "details": []})
    kubeflow_server.faults.append(Fault(1, "POST", ":disable$", reply=gone))
    apply(kubeflow, timetable(tmp_path, LATER))
    assert schedule_names(kubeflow_server) == ["nightly"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_at_once_end_with_one_of_each_and_kill_nothing(count: int, tmp_path: Path) -> None:
    for _ in range(5):
        with Watched() as server, client(server) as kubeflow:
            install(server)
            run = prepared(server, kubeflow, tmp_path)
            wanted = timetable(tmp_path, AFTER)
            assert at_once(server, wanted, count) == []
            assert schedule_names(server, status="ENABLED") == ON
            assert schedule_names(server, status="DISABLED") == ["busy", *OFF]
            assert (server.killed, server.runs[run]["state"]) == ([], "PENDING")
            assert set(actions(look(kubeflow, wanted)).values()) <= {"unchanged", "retire"}


# What the server refuses


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, UserError), (403, UserError), (404, UserError), (500, StepError), (503, Unreachable), (429, Unreachable)],
)
def test_a_refusal_is_a_sentence_and_changes_nothing(
    status: int, error: type[Exception], kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    answer = Reply(status, {"code": 2, "message": "no", "details": []})
    kubeflow_server.faults.append(Fault(99, "GET", "/recurringruns$", reply=answer))
    with pytest.raises(error) as refused:
        apply(kubeflow, timetable(tmp_path, NIGHTLY))
    assert "\n" not in str(refused.value)
    assert kubeflow_server.recurring_runs == {}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(
    status: int, kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    kubeflow_server.faults.append(Fault(1, "GET", "", reply=Reply(status, "busy")))
    kubeflow_server.faults.append(Fault(1, "GET", "/recurringruns$", drop="before"))
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    assert schedule_names(kubeflow_server) == ["nightly"]


def test_what_the_file_names_must_be_on_the_server(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="does not have version 'v7'"):
        apply(kubeflow, timetable(tmp_path, 'schedules: [{name: a, cron: "@daily", pipeline_version: v7}]'))
    spec = kubeflow_server.versions["id of v1"]["pipeline_spec"]
    del spec["root"]["inputDefinitions"]["parameters"]["condition"]
    with pytest.raises(
        UserError, match="schedule 'a': pipeline_version 'v1' on the server has no parameter 'condition'"
    ):
        apply(kubeflow, timetable(tmp_path, 'schedules: [{name: a, cron: "@daily", pipeline_version: v1}]'))
    kubeflow_server.pipelines.clear()
    with pytest.raises(UserError, match="has no pipeline 'retrain'; put it there with `retrain upload`"):
        look(kubeflow, timetable(tmp_path, NIGHTLY))
    assert (kubeflow_server.recurring_runs, kubeflow_server.experiments) == ({}, {})


def test_each_namespace_has_schedules_of_its_own(tmp_path: Path) -> None:
    with Watched(multi_user=True) as server:
        install(server, namespace="")
        server.tokens = {"a": "ann", "b": "bob"}
        for user, namespace in (("ann", "team-a"), ("bob", "team-b")):
            server.grant(user, namespace, "experiments", "list", "create")
            server.grant(user, namespace, "jobs", "list", "create", "enable", "disable", "delete")
            server.grant(user, namespace, "runs", "list")
            server.grant(user, namespace, "pipelines", "get", "list")
        wanted = timetable(tmp_path, NIGHTLY)
        with (
            client(server, namespace="team-a", token=lambda: "a") as ann,
            client(server, namespace="team-b", token=lambda: "b") as bob,
            client(server, namespace="team-b", token=lambda: "a") as thief,
        ):
            apply(ann, wanted)
            apply(bob, wanted)
            assert len(server.recurring_runs) == 2
            apply(ann, timetable(tmp_path, ""))
            (left,) = everything(bob, wanted)
            assert server.recurring_runs[left.id]["namespace"] == "team-b"
            with pytest.raises(UserError, match="may not"):
                apply(thief, timetable(tmp_path, ""))
            assert left.id in server.recurring_runs


# How many requests


@pytest.mark.slow
def test_a_plan_of_500_schedules_takes_six_requests(
    kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path
) -> None:
    entries = [f'- {{name: s-{n}, cron: "{n % 60} {n % 24} * * *"}}' for n in range(500)]
    wanted = timetable(tmp_path, "schedules:\n" + "\n".join(entries))
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    template = only(kubeflow_server)
    for number, (name, wish) in enumerate(generations.wanted(kubeflow, wanted).items()):
        kubeflow_server.recurring_runs[f"{number:03}"] = template | {
            "recurring_run_id": f"{number:03}",
            "display_name": name,
            "description": f"retrain schedule {name} {wish.digest} latest; made by retrain",
        }
    del kubeflow_server.recurring_runs[template["recurring_run_id"]]
    with kubeflow_server.counted() as requests:
        changes = look(kubeflow, wanted)
    assert {change.action for change in changes} == {"unchanged"}
    assert len(changes) == 500
    assert len(requests) == 6


def test_a_replacement_takes_few_requests(kubeflow: Kubeflow, kubeflow_server: Watched, tmp_path: Path) -> None:
    apply(kubeflow, timetable(tmp_path, NIGHTLY))
    with kubeflow_server.counted() as requests:
        apply(kubeflow, timetable(tmp_path, LATER))
    verbs = [(request.method, request.path.rpartition("/")[2].partition(":")[2]) for request in requests]
    changing = [(method, verb) for method, verb in verbs if method != "GET"]
    assert changing == [("POST", "disable"), ("POST", ""), ("DELETE", "")]
    assert len(requests) <= 12


class Rival(FakeKubeflow):
    """Has another apply at work until a moment: whenever one looks, there is one more of what is there."""

    until = 0.0

    def answer(self, request: Request) -> Reply:
        if request.method == "GET" and request.path.endswith("/recurringruns") and time.monotonic() < self.until:
            twin = copy.deepcopy(next(iter(self.recurring_runs.values())))
            twin["recurring_run_id"] = str(uuid4())
            self.recurring_runs[twin["recurring_run_id"]] = twin
        return super().answer(request)


@pytest.mark.slow
def test_one_that_meets_another_at_work_waits_for_its_end(tmp_path: Path) -> None:
    wanted = timetable(tmp_path, NIGHTLY)
    with Rival() as server:
        install(server)
        with client(server) as kubeflow:
            apply(kubeflow, wanted)
            server.until = time.monotonic() + 1
            apply(kubeflow, wanted)
        assert schedule_names(server) == ["nightly"]
