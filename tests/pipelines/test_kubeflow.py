"""The client of Kubeflow Pipelines, against a server that speaks its protocol."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kfp_server_api import (
    V2beta1CronSchedule,
    V2beta1PipelineVersionReference,
    V2beta1RecurringRun,
    V2beta1Run,
    V2beta1RuntimeConfig,
    V2beta1Trigger,
)

from components.step import UserError
from pipelines.kubeflow import Kubeflow, Predicate
from pipelines.retrain import compile
from pipelines.transport import Connection, NotFound, ServerError, Unreachable
from tests.servers.kfp import FakeKubeflow

T = TypeVar("T")
RUN_ID = "5b2f6f0e-0000-5000-8000-000000000001"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "retrain.yaml"
    compile(path)
    return path


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.kubeflow.LOOKS", (0.01, 0.01))


@pytest.fixture
def reference(kubeflow: Kubeflow, package: Path) -> V2beta1PipelineVersionReference:
    """An uploaded version."""
    pipeline = kubeflow.create_pipeline("retrain", "", "")
    version = kubeflow.upload_version(pipeline.pipeline_id, "v1", package, "")
    return V2beta1PipelineVersionReference(
        pipeline_id=pipeline.pipeline_id, pipeline_version_id=version.pipeline_version_id
    )


def there(found: T | None) -> T:
    """What was found."""
    assert found is not None
    return found


def run_of(reference: V2beta1PipelineVersionReference, **fields: Any) -> V2beta1Run:
    given = {"display_name": "retrain", "run_id": RUN_ID, "pipeline_version_reference": reference} | fields
    return V2beta1Run(**given)


def test_the_servers_health_tells_its_version_and_is_asked_once(kubeflow: Kubeflow) -> None:
    assert (kubeflow.health().version, kubeflow.health().multi_user) == ("2.17.0", False)
    assert kubeflow.requests == 1


def test_a_server_that_does_not_say_its_version_has_an_unknown_one(kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.version = ""
    connection = Connection(host=kubeflow_server.url)
    assert Kubeflow(connection).health().version == "unknown"
    connection.close()


def test_what_does_not_exist_is_none(kubeflow: Kubeflow) -> None:
    pipeline = kubeflow.create_pipeline("retrain", "", "")
    assert kubeflow.pipeline("other", "") is None
    assert kubeflow.version(pipeline.pipeline_id, "v1") is None
    assert kubeflow.latest_version(pipeline.pipeline_id) is None
    assert kubeflow.find_experiment("other", "") is None
    assert kubeflow.run("other") is None


def test_a_pipeline_is_found_by_name_with_one_request(kubeflow: Kubeflow) -> None:
    made = kubeflow.create_pipeline("retrain", "", "Retrains.")
    before = kubeflow.requests
    found = there(kubeflow.pipeline("retrain", ""))
    assert (found.pipeline_id, found.description) == (made.pipeline_id, "Retrains.")
    assert kubeflow.requests == before + 1


def test_a_version_is_uploaded_with_its_platform_part_and_found_by_name(kubeflow: Kubeflow, package: Path) -> None:
    pipeline = kubeflow.create_pipeline("retrain", "", "")
    made = kubeflow.upload_version(pipeline.pipeline_id, "v1", package, "the first")
    found = there(kubeflow.version(pipeline.pipeline_id, "v1"))
    assert found.pipeline_version_id == made.pipeline_version_id
    assert found.description == "the first"
    assert found.pipeline_spec.keys() == {"pipeline_spec", "platform_spec"}


def test_the_latest_version_is_the_newest(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, package: Path) -> None:
    pipeline = kubeflow.create_pipeline("retrain", "", "")
    for day, name in enumerate(("v1", "v3", "v2")):
        kubeflow_server.now = lambda day=day: 86400.0 * (1 + day)  # type: ignore[misc]
        kubeflow.upload_version(pipeline.pipeline_id, name, package, "")
    assert there(kubeflow.latest_version(pipeline.pipeline_id)).name == "v2"


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_upload_whose_answer_was_lost_is_looked_for(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, package: Path, when: Any
) -> None:
    pipeline = kubeflow.create_pipeline("retrain", "", "")
    kubeflow_server.drop(when, path="upload_version")
    if when == "after":
        assert kubeflow.upload_version(pipeline.pipeline_id, "v1", package, "").name == "v1"
    else:
        with pytest.raises(Unreachable, match="cannot upload version 'v1'"):
            kubeflow.upload_version(pipeline.pipeline_id, "v1", package, "")
    assert len(kubeflow_server.versions) == (1 if when == "after" else 0)


def test_no_right_to_upload_is_the_users_mistake(package: Path) -> None:
    with FakeKubeflow(multi_user=True) as server:
        server.tokens = {"t": "me"}
        server.grant("me", "team", "pipelines", "get", "list", "create")
        connection = Connection(host=server.url, token=lambda: "t")
        client = Kubeflow(connection)
        pipeline = client.create_pipeline("retrain", "team", "")
        server.grants.clear()
        with pytest.raises(UserError, match=r"cannot upload version 'v1': .* you may not create pipelines there"):
            client.upload_version(pipeline.pipeline_id, "v1", package, "")
        connection.close()


def test_an_experiment_is_made_once(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    made = kubeflow.experiment("retrain", "")
    before = kubeflow.requests
    assert kubeflow.experiment("retrain", "").experiment_id == made.experiment_id
    assert kubeflow.requests == before + 1
    assert len(kubeflow_server.experiments) == 1


@pytest.mark.parametrize("name", ["100 % + more", 'a "quoted" näme', "a&b=c#d", "%2B"])
def test_any_name_of_an_experiment_is_found_again(kubeflow: Kubeflow, name: str) -> None:
    made = kubeflow.experiment(name, "")
    assert there(kubeflow.find_experiment(name, "")).experiment_id == made.experiment_id


def test_names_that_differ_in_case_are_different(kubeflow: Kubeflow) -> None:
    kubeflow.experiment("Retrain", "")
    assert kubeflow.find_experiment("retrain", "") is None
    with pytest.raises(ServerError, match="exists already"):
        kubeflow.experiment("retrain", "")


def test_two_who_make_an_experiment_at_once_get_the_same(kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.gather(8, method="GET", path="experiments")

    def make(_: int) -> str:
        connection = Connection(host=kubeflow_server.url)
        made = Kubeflow(connection).experiment("retrain", "")
        connection.close()
        return str(made.experiment_id)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(make, range(8)))) == 1
    assert [request.status for request in kubeflow_server.log].count(409) == 7


def test_experiments_of_the_same_name_in_two_namespaces_are_two() -> None:
    with FakeKubeflow(multi_user=True) as server:
        server.tokens = {"t": "me"}
        for namespace in ("one", "two"):
            server.grant("me", namespace, "experiments", "list", "create")
        connection = Connection(host=server.url, token=lambda: "t")
        client = Kubeflow(connection)
        assert client.experiment("e", "one").experiment_id != client.experiment("e", "two").experiment_id
        assert there(client.find_experiment("e", "one")).namespace == "one"
        connection.close()


def test_a_run_has_the_id_that_it_was_given(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    config = V2beta1RuntimeConfig(parameters={"epochs": 3, "store": "s3://bucket/100 %"})
    started = kubeflow.create_run(run_of(reference, runtime_config=config, service_account="retrain-runner"))
    assert started.run_id == RUN_ID
    assert there(kubeflow.run(RUN_ID)).runtime_config.parameters == {"epochs": 3, "store": "s3://bucket/100 %"}
    assert kubeflow_server.workflows == [RUN_ID]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"epochs": "three"}, "parameter epochs requires type"),
        ({"epoch": 3}, "not required by the pipeline: epoch"),
        ({"bias": 1}, "parameter bias requires type"),
    ],
)
def test_a_parameter_that_the_pipeline_does_not_take_is_the_users_mistake(
    kubeflow: Kubeflow,
    kubeflow_server: FakeKubeflow,
    reference: V2beta1PipelineVersionReference,
    parameters: dict[str, Any],
    says: str,
) -> None:
    with pytest.raises(UserError, match=f"cannot start the run: .*{says}"):
        kubeflow.create_run(run_of(reference, runtime_config=V2beta1RuntimeConfig(parameters=parameters)))
    assert kubeflow_server.workflows == []


def test_an_unknown_version_is_the_users_mistake(
    kubeflow: Kubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    reference.pipeline_version_id = "no such version"
    with pytest.raises(UserError, match="PipelineVersion no such version not found"):
        kubeflow.create_run(run_of(reference))


@pytest.mark.slow
def test_a_run_whose_answer_was_lost_is_found_and_not_started_twice(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    kubeflow_server.drop("after", method="POST", path="/runs$")
    assert kubeflow.create_run(run_of(reference)).run_id == RUN_ID
    assert kubeflow_server.workflows == [RUN_ID]


def test_a_run_that_never_reached_the_server_is_reported_as_not_known(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    kubeflow_server.drop("before", method="POST", path="/runs$")
    with pytest.raises(Unreachable) as caught:
        kubeflow.create_run(run_of(reference))
    assert caught.value.lost
    assert kubeflow_server.workflows == []


def test_of_two_that_start_the_same_run_the_second_gets_the_firsts(
    kubeflow: Kubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    first = kubeflow.create_run(run_of(reference, description="the first"))
    assert kubeflow.create_run(run_of(reference)).description == first.description


def test_a_run_shows_its_tasks_and_its_end(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    kubeflow.create_run(run_of(reference))
    kubeflow_server.tasks(RUN_ID, {"ingest": "SUCCEEDED", "train": "RUNNING"})
    run = there(kubeflow.run(RUN_ID))
    states = {task.display_name: task.state for task in run.run_details.task_details}
    assert (run.state, states["ingest"], states["train"]) == ("RUNNING", "SUCCEEDED", "RUNNING")
    kubeflow_server.finish(RUN_ID, "FAILED", "train: out of memory")
    run = there(kubeflow.run(RUN_ID))
    assert (run.state, run.error.message) == ("FAILED", "train: out of memory")
    assert run.finished_at > run.created_at.replace(year=2000)


def test_a_run_can_be_stopped_more_than_once(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    kubeflow.create_run(run_of(reference))
    kubeflow_server.drop("after", path=":terminate")
    kubeflow.terminate(RUN_ID)
    kubeflow.terminate(RUN_ID)
    assert [entry["state"] for entry in kubeflow_server.runs[RUN_ID]["state_history"]].count("CANCELING") == 1
    with pytest.raises(NotFound):
        kubeflow.terminate("other")


@pytest.fixture(scope="module")
def thousands() -> Iterator[FakeKubeflow]:
    """A server with 10,000 runs, one a minute; every hundredth failed."""
    with FakeKubeflow() as server:
        experiment = server.add_experiment("retrain")["experiment_id"]
        for number in range(10_000):
            server.now = lambda number=number: 1.8e9 + 60 * number  # type: ignore[misc]
            state = "SUCCEEDED" if number % 100 else "FAILED"
            server.add_run(display_name=f"run {number}", state=state, experiment_id=experiment)
        yield server


@pytest.fixture
def crowded(thousands: FakeKubeflow) -> Iterator[Kubeflow]:
    connection = Connection(host=thousands.url)
    yield Kubeflow(connection)
    connection.close()


def test_the_newest_of_ten_thousand_runs_take_one_request(crowded: Kubeflow) -> None:
    runs = crowded.runs(page_size=5)
    assert [next(runs).display_name for _ in range(5)] == [f"run {number}" for number in range(9999, 9994, -1)]
    assert crowded.requests == 1


def test_ten_thousand_runs_are_counted_with_one_request_a_question(crowded: Kubeflow) -> None:
    failed = crowded.count_runs(predicates=[Predicate("state", "EQUALS", "FAILED")])
    assert (crowded.count_runs(), failed) == (10_000, 100)
    assert crowded.requests == 2


@pytest.mark.slow
def test_all_of_ten_thousand_runs_come_once_page_by_page(crowded: Kubeflow) -> None:
    names = [run.display_name for run in crowded.runs(newest_first=False)]
    assert names == [f"run {number}" for number in range(10_000)]
    assert crowded.requests == 50


@pytest.mark.parametrize(
    ("predicates", "count"),
    [
        ([Predicate("display_name", "EQUALS", "run 7")], 1),
        ([Predicate("display_name", "IS_SUBSTRING", "run 999")], 11),
        ([Predicate("state", "IN", ["FAILED", "CANCELED"])], 100),
        ([Predicate("state", "NOT_EQUALS", "SUCCEEDED"), Predicate("display_name", "IS_SUBSTRING", "00")], 99),
        ([Predicate("created_at", "LESS_THAN", datetime.fromtimestamp(1.8e9 + 600, UTC))], 10),
    ],
)
def test_predicates_are_understood(crowded: Kubeflow, predicates: list[Predicate], count: int) -> None:
    assert crowded.count_runs(predicates=predicates) == count


def test_a_filter_holds_on_every_page(crowded: Kubeflow) -> None:
    runs = list(crowded.runs(predicates=[Predicate("state", "EQUALS", "FAILED")], page_size=30))
    assert len({run.run_id for run in runs}) == 100
    assert crowded.requests == 4


def test_an_unknown_key_of_a_filter_is_refused(crowded: Kubeflow) -> None:
    with pytest.raises(UserError, match="unrecognized field 'colour'"):
        crowded.count_runs(predicates=[Predicate("colour", "EQUALS", "red")])


def recurring(reference: V2beta1PipelineVersionReference, name: str = "nightly") -> V2beta1RecurringRun:
    return V2beta1RecurringRun(
        display_name=name,
        mode="ENABLE",
        max_concurrency="1",
        no_catchup=True,
        trigger=V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron="0 0 3 * * *")),
        pipeline_version_reference=reference,
        runtime_config=V2beta1RuntimeConfig(parameters={"epochs": 3}),
    )


def test_a_recurring_run_is_made_paused_resumed_and_deleted(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    made = kubeflow.create_recurring_run(recurring(reference))
    assert (made.status, made.no_catchup, made.max_concurrency) == ("ENABLED", True, "1")
    kubeflow.disable(made.recurring_run_id)
    kubeflow.disable(made.recurring_run_id)
    assert [found.status for found in kubeflow.recurring_runs()] == ["DISABLED"]
    kubeflow.enable(made.recurring_run_id)
    assert [found.status for found in kubeflow.recurring_runs()] == ["ENABLED"]
    kubeflow.delete_recurring_run(made.recurring_run_id)
    kubeflow.delete_recurring_run(made.recurring_run_id)
    assert kubeflow_server.recurring_runs == {}


@pytest.mark.parametrize(("version", "killed"), [("2.17.0", 0), ("2.15.2", 1)])
def test_a_deleted_recurring_runs_run_goes_on_where_the_server_can(
    kubeflow: Kubeflow,
    kubeflow_server: FakeKubeflow,
    reference: V2beta1PipelineVersionReference,
    version: str,
    killed: int,
) -> None:
    kubeflow_server.version = version
    made = kubeflow.create_recurring_run(recurring(reference))
    kubeflow_server.tick(made.recurring_run_id)
    kubeflow.delete_recurring_run(made.recurring_run_id)
    assert len(kubeflow_server.killed) == killed


@pytest.mark.parametrize("call", ["enable", "disable", "delete_recurring_run"])
def test_what_can_be_repeated_survives_a_dropped_connection(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference, call: str
) -> None:
    made = kubeflow.create_recurring_run(recurring(reference))
    kubeflow_server.drop("after", path=made.recurring_run_id)
    getattr(kubeflow, call)(made.recurring_run_id)
    assert kubeflow_server.faults[0].times == 0


@pytest.mark.slow
def test_five_hundred_recurring_runs_take_three_requests(
    kubeflow: Kubeflow, kubeflow_server: FakeKubeflow, reference: V2beta1PipelineVersionReference
) -> None:
    for number in range(500):
        kubeflow.create_recurring_run(recurring(reference, f"schedule {number}"))
    before = kubeflow.requests
    assert len({found.recurring_run_id for found in kubeflow.recurring_runs()}) == 500
    assert kubeflow.requests == before + 3


def test_an_answer_that_is_not_the_models_is_said(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    kubeflow_server.fail(200, {"run_id": "x", "created_at": "yesterday"})
    with pytest.raises(ServerError, match="answers what is no V2beta1Run"):
        kubeflow.run("x")


def test_ids_cannot_lead_to_another_path(kubeflow: Kubeflow, kubeflow_server: FakeKubeflow) -> None:
    assert kubeflow.run("../experiments") is None
    assert re.fullmatch(r"/apis/v2beta1/runs/[^/]+", kubeflow_server.log[-1].path)
