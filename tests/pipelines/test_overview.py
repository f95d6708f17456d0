"""What goes on on a cluster, in few requests, however much of it there is."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from components.step import UserError
from components.storage import DirectoryStore
from pipelines.kubeflow import Kubeflow, ServerError
from pipelines.overview import Overview, look, look_at
from pipelines.pages import page, run_page, steps
from pipelines.transport import Connection
from tests.pipelines.published import STEPS, publish
from tests.pipelines.timetables import install
from tests.servers.kfp import FakeKubeflow, Row

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINE: Row = {"pipeline_version_reference": {"pipeline_id": "P", "pipeline_version_id": "id of v1"}}
OTHERS: Row = {"pipeline_version_reference": {"pipeline_id": "Q", "pipeline_version_id": "w"}}


@pytest.fixture
def kubeflow_server(kubeflow_server: FakeKubeflow) -> FakeKubeflow:
    """With the pipeline."""
    install(kubeflow_server)
    return kubeflow_server


def add(server: FakeKubeflow, run_id: str, minutes: int, state: str = "SUCCEEDED", **fields: Any) -> Row:
    """A run that was made so many minutes ago; it took one."""
    made = NOW - timedelta(minutes=minutes)
    server.now = made.timestamp
    run = server.add_run(run_id=run_id, **(MINE | fields))
    server.now = lambda: made.timestamp() + 60
    server.tasks(run_id, dict.fromkeys(STEPS, state))
    if state != "RUNNING":
        server.finish(run_id, state)
    return run


def schedule(server: FakeKubeflow, name: str, cron: str, status: str = "ENABLED", **fields: Any) -> None:
    row = {"recurring_run_id": name, "display_name": name, "status": status, "created_at": "2026-05-01T00:00:00Z"}
    trigger = {"trigger": {"cron_schedule": {"cron": cron}}, "max_concurrency": "1", "experiment_id": ""}
    server.recurring_runs[name] = row | trigger | MINE | fields


def seen(client: Kubeflow, experiment: str = "", store: str = "", limit: int = 10) -> Overview:
    return look(client, experiment=experiment, store=store, model="", limit=limit)


@pytest.mark.slow
def test_ten_thousand_runs_take_few_requests(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    for number in range(10_000):
        run = {
            "run_id": f"r{number:05}",
            "created_at": f"2026-04-{1 + number // 400:02}T00:00:00Z",
            "state": "SUCCEEDED",
        }
        kubeflow_server.runs[run["run_id"]] = {"storage_state": "AVAILABLE", "display_name": "r", **MINE, **run}
    for number in range(450):
        schedule(kubeflow_server, f"s{number:03}", "0 0 3 * * *")
    found = seen(kubeflow)
    assert [run.id for run in found.runs] == [f"r{number:05}" for number in range(9_999, 9_989, -1)]
    assert found.total == 10_000
    assert len(found.schedules) == 450
    assert len(kubeflow_server.log) == 7
    assert kubeflow.requests == 7


@pytest.mark.slow
def test_even_where_other_pipelines_crowd_the_namespace(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    for number in range(1000):
        add(kubeflow_server, f"other{number}", number, "RUNNING", **OTHERS)
    add(kubeflow_server, "mine", 120)
    add(kubeflow_server, "too long ago", 5000)
    found = seen(kubeflow)
    assert [run.id for run in found.runs] == ["mine"]
    assert len(kubeflow_server.log) <= 20


def test_a_run_in_progress_is_shown_however_old_it_is(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    add(kubeflow_server, "old", 9_000, "RUNNING")
    for number in range(20):
        add(kubeflow_server, f"r{number}", number)
    found = seen(kubeflow, limit=3)
    assert [run.id for run in found.runs] == ["r0", "r1", "r2", "old"]


def test_archived_runs_are_not_shown(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    add(kubeflow_server, "gone", 1, storage_state="ARCHIVED")
    found = seen(kubeflow)
    assert (found.runs, found.total) == ((), 0)


def test_a_run_that_was_made_from_the_yaml_alone_is_shown(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    for name in ("retrain", "other"):
        run = add(kubeflow_server, name, 1, pipeline_spec={"pipeline_spec": {"pipelineInfo": {"name": name}}})
        del run["pipeline_version_reference"]
    assert [run.id for run in seen(kubeflow).runs] == ["retrain"]


def test_verdicts_and_champion_come_from_the_newest_runs_store(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, store: DirectoryStore
) -> None:
    parameters: Row = {"runtime_config": {"parameters": {"store": store.uri}}}
    for minutes, (run_id, accepted) in enumerate({"good": True, "bad": False, "better": True}.items()):
        add(kubeflow_server, run_id, 30 - minutes, **parameters)
        publish(store, run_id, 0.99 if accepted else 0.42, accepted=accepted)
    found = seen(kubeflow)
    assert (found.store, found.unreadable) == (store.uri, "")
    text = page(found)
    assert text.startswith("champion: mnist version 3, 99.00%, of 20")
    verdicts = {line.split()[0]: line for line in text.splitlines()[3:]}
    assert "accepted, version 1, 99.00%" in verdicts["good"]
    assert "rejected, version 2, 42.00%" in verdicts["bad"]
    assert "champion, version 3, 99.00%" in verdicts["better"]


def test_a_store_that_cannot_be_read_hides_nothing_else(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    add(kubeflow_server, "r", 1, runtime_config={"parameters": {"store": "/nowhere/at/all"}})
    text = page(seen(kubeflow))
    assert text.startswith("champion and verdicts cannot be read from here: store /nowhere/at/all is no directory")
    assert "\nr    2026-05-01 11:59 UTC  succeeded  60 s" in text


def test_the_page_tells_runs_and_schedules(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, store: DirectoryStore
) -> None:
    store.require_writable()
    parameters: Row = {"runtime_config": {"parameters": {"store": store.uri}}}
    add(kubeflow_server, "failed", 9, "FAILED", **parameters)
    stopped = add(kubeflow_server, "stopped", 5, **parameters)
    stopped["run_details"]["task_details"] = kubeflow_server.nodes(stopped, "ingest", "SUCCEEDED")
    schedule(kubeflow_server, "yearly", "0 0 3 1 1 *")
    schedule(kubeflow_server, "off", "0 0 3 * * *", "DISABLED")
    schedule(kubeflow_server, "odd", "0 0 3 L * *")
    schedule(kubeflow_server, "theirs", "0 0 3 * * *", **OTHERS)
    year = datetime.now(UTC).year + 1
    assert (
        page(seen(kubeflow))
        == f"""\
no champion of mnist yet in {store.uri}

RUN      STARTED               STATE      TIME  VERDICT        STEPS
stopped  2026-05-01 11:55 UTC  succeeded  60 s  nothing to do  ingest 60 s
failed   2026-05-01 11:51 UTC  failed     60 s                 {", ".join(f"{step} failed 60 s" for step in STEPS)}

SCHEDULE  CRON, SECONDS FIRST  NEXT
yearly    0 0 3 1 1 *          {year}-01-01 03:00 UTC
odd       0 0 3 L * *
off       0 0 3 * * *          paused"""
    )


def test_a_schedule_that_starts_later_or_has_ended_is_told_so(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    later = {"cron_schedule": {"cron": "0 0 3 * * *", "start_time": "2099-01-01T12:00:00Z"}}
    ended = {"cron_schedule": {"cron": "0 0 3 * * *", "end_time": "2020-01-01T00:00:00Z"}}
    periodic = {"periodic_schedule": {"interval_second": "3600"}}
    for name, trigger in {"later": later, "ended": ended, "periodic": periodic}.items():
        schedule(kubeflow_server, name, "", trigger=trigger)
    found = {one.name: (one.trigger, one.next) for one in seen(kubeflow).schedules}
    assert found == {
        "later": ("0 0 3 * * *", datetime(2099, 1, 2, 3, tzinfo=UTC)),
        "ended": ("0 0 3 * * *", None),
        "periodic": ("every 3600 s", None),
    }


def test_an_empty_server_says_how_to_begin(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.pipelines.clear()
    assert "no runs yet; start one with `retrain submit`" in page(seen(kubeflow, store="/nowhere"))


def test_an_experiment_can_be_looked_at_alone(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    home = kubeflow_server.add_experiment("nightly")["experiment_id"]
    add(kubeflow_server, "in", 1, experiment_id=home)
    add(kubeflow_server, "out", 2)
    assert [run.id for run in seen(kubeflow, experiment="nightly").runs] == ["in"]
    with pytest.raises(UserError, match="has no experiment 'nightli'; leave --experiment out"):
        seen(kubeflow, experiment="nightli")


def test_how_far_the_shards_are_is_told(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.add_run(run_id="r")
    kubeflow_server.tasks("r", {"plan": "SUCCEEDED", "shard": ["SUCCEEDED", "RUNNING", "", ""]})
    assert re.search(r"^shard +running, 1 of 4 done ", run_page(look_at(kubeflow, "r", "")), re.M)
    assert re.search(r"plan \d+ s, shard running, 1 of 4 done \d+ s$", steps(look_at(kubeflow, "r", "").run))


def test_one_run_is_told_with_its_steps_and_verdict(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, store: DirectoryStore
) -> None:
    add(kubeflow_server, "r", 1, runtime_config={"parameters": {"store": store.uri, "epochs": 3}})
    publish(store, "r", 0.42, accepted=False)
    assert (
        run_page(look_at(kubeflow, "r", ""))
        == f"""\
run r: succeeded, 60 s
retrain

STEP      STATE      STARTED               TIME
plan      succeeded  2026-05-01 11:59 UTC  60 s
shard     succeeded  2026-05-01 11:59 UTC  60 s
ingest    succeeded  2026-05-01 11:59 UTC  60 s
train     succeeded  2026-05-01 11:59 UTC  60 s
evaluate  succeeded  2026-05-01 11:59 UTC  60 s
export    succeeded  2026-05-01 11:59 UTC  60 s

REJECTED: 42.00% test accuracy; mnist version 1
  0.42 is below min_accuracy 0.9

epochs: 3
store: {store.uri}"""
    )


@pytest.mark.parametrize(
    ("status", "error"), [(400, UserError), (401, UserError), (403, UserError), (404, UserError), (500, ServerError)]
)
def test_a_refusal_is_one_sentence(
    status: int, error: type[Exception], kubeflow: Kubeflow, kubeflow_server: FakeKubeflow
) -> None:
    kubeflow_server.fail(status, {"code": 13, "message": "no luck"}, path="/runs$")
    with pytest.raises(error) as raised:
        seen(kubeflow)
    assert "list the runs" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_is_asked_again(status: int, kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    add(kubeflow_server, "r", 1)
    kubeflow_server.fail(status, times=2)
    kubeflow_server.drop("after", times=1)
    assert [run.id for run in seen(kubeflow).runs] == ["r"]


@pytest.fixture
def several() -> Iterator[FakeKubeflow]:
    """A server for several users, with a pipeline that all share; `t` is the token of a reader of namespace `team`."""
    with FakeKubeflow(multi_user=True) as server:
        install(server)
        server.tokens["t"] = "ann"
        for resource in ("pipelines", "experiments", "runs", "jobs"):
            server.grant("ann", "team", resource, "get", "list")
        yield server


def test_a_namespace_has_its_own_runs(several: FakeKubeflow) -> None:
    for namespace in ("team", "other"):
        add(several, namespace, 1, experiment_id=several.add_experiment("retrain", namespace)["experiment_id"])
    client = Kubeflow(Connection(host=several.url, namespace="team", token=lambda: "t"))
    assert [run.id for run in seen(client).runs] == ["team"]
    assert len(several.log) <= 20
    stranger = Kubeflow(Connection(host=several.url, namespace="other", token=lambda: "t"))
    with pytest.raises(UserError, match="user 'ann' may not get pipelines in namespace 'other'"):
        seen(stranger)
