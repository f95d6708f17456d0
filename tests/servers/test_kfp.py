"""That the server on loopback keeps the rules of the real one, which clients stumble over."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import urllib3

from tests.servers.kfp import FakeKubeflow


class Client:
    """Plain HTTP."""

    def __init__(self, server: FakeKubeflow) -> None:
        self.server = server
        self.pool = urllib3.PoolManager(retries=False)

    def __call__(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        url = f"{self.server.url}/apis/v2beta1{path}?" + "&".join(f"{k}={quote(str(v))}" for k, v in query.items())
        answer = self.pool.request(method, url, body=None if body is None else json.dumps(body))
        return answer.status, answer.json()


@pytest.fixture
def server() -> Iterator[FakeKubeflow]:
    with FakeKubeflow() as server:
        yield server


@pytest.fixture
def client(server: FakeKubeflow) -> Iterator[Client]:
    client = Client(server)
    yield client
    client.pool.clear()


@pytest.mark.parametrize(
    "body",
    [
        {"display_name": "e", "colour": "red"},
        {"display_name": ["e"]},
        {"display_name": "e", "storage_state": "GONE"},
        {"display_name": "e", "created_at": "yesterday"},
    ],
)
def test_a_field_that_the_model_does_not_have_is_refused(client: Client, body: dict[str, Any]) -> None:
    status, answer = client("POST", "/experiments", body)
    assert (status, answer["code"]) == (400, 3)


def test_what_is_empty_is_absent(client: Client, server: FakeKubeflow) -> None:
    assert client("GET", "/runs") == (200, {})
    assert client("GET", "/healthz")[1]["multi_user"] is False  # the one answer that is not protobuf's
    run = server.add_run()
    _, shown = client("GET", f"/runs/{run['run_id']}")
    assert not {"description", "run_details", "recurring_run_id", "error"} & shown.keys()
    assert shown["finished_at"] == "1970-01-01T00:00:00Z"


def test_a_page_has_twenty_rows_unless_asked_and_never_more_than_two_hundred(
    client: Client, server: FakeKubeflow
) -> None:
    for _ in range(250):
        server.add_run()
    assert len(client("GET", "/runs")[1]["runs"]) == 20
    answer = client("GET", "/runs", page_size=1000)[1]
    assert (len(answer["runs"]), answer["total_size"]) == (200, 250)
    rest = client("GET", "/runs", page_size=1000, page_token=answer["next_page_token"])[1]
    assert (len(rest["runs"]), "next_page_token" in rest) == (50, False)


def test_a_page_token_takes_no_other_order_or_filter(client: Client, server: FakeKubeflow) -> None:
    for _ in range(3):
        server.add_run()
    token = client("GET", "/runs", page_size=1, sort_by="created_at desc")[1]["next_page_token"]
    assert client("GET", "/runs", page_token=token, sort_by="created_at asc")[0] == 400
    assert client("GET", "/runs", page_token=token)[0] == 200
    assert client("GET", "/runs", page_token="garbage")[0] == 400


def test_rows_that_come_in_between_pages_move_none(client: Client, server: FakeKubeflow) -> None:
    clock = iter(range(10_000))
    server.now = lambda: float(next(clock))
    for number in range(4):
        server.add_run(display_name=str(number))
    first = client("GET", "/runs", page_size=2, sort_by="created_at desc")[1]
    server.add_run(display_name="new")
    second = client("GET", "/runs", page_size=2, page_token=first["next_page_token"])[1]
    assert [run["display_name"] for run in first["runs"] + second["runs"]] == ["3", "2", "1", "0"]


def filter_of(operation: str, key: str, **value: Any) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, **value}]})


def test_a_filter_is_decoded_twice(client: Client, server: FakeKubeflow) -> None:
    server.add_run(display_name="a+b")
    plain = filter_of("EQUALS", "display_name", string_value="a+b")
    assert "runs" not in client("GET", "/runs", filter=plain)[1]
    assert len(client("GET", "/runs", filter=quote(plain))[1]["runs"]) == 1


@pytest.mark.parametrize(
    "given",
    [
        filter_of("EQUALS", "colour", string_value="red"),
        filter_of("RESEMBLES", "display_name", string_value="red"),
        filter_of("EQUALS", "display_name", text="red"),
        "not JSON",
    ],
)
def test_a_filter_that_is_not_understood_is_refused(client: Client, given: str) -> None:
    assert client("GET", "/runs", filter=given)[0] == 400


def test_comparison_is_without_regard_to_case_and_substrings_have_wildcards(
    client: Client, server: FakeKubeflow
) -> None:
    server.add_run(display_name="Nightly-1")
    assert client("GET", "/runs", filter=filter_of("EQUALS", "name", string_value="nightly-1"))[1]["total_size"] == 1
    assert client("GET", "/runs", filter=filter_of("IS_SUBSTRING", "name", string_value="ly_1"))[1]["total_size"] == 1


def test_many_mistakes_of_the_user_arrive_as_500(client: Client) -> None:
    status, answer = client("POST", "/runs", {"display_name": ""})
    assert (status, answer["code"]) == (500, 13)
    assert "Invalid input error" in answer["message"]
    assert client("POST", "/runs", {"display_name": "x" * 256})[0] == 500


def test_a_second_start_of_the_same_run_starts_a_second_workflow_and_fails(
    client: Client, server: FakeKubeflow
) -> None:
    run = {"display_name": "r", "run_id": "r1", "pipeline_spec": {"pipelineInfo": {"name": "p"}}}
    assert client("POST", "/runs", run)[0] == 200
    assert client("POST", "/runs", run)[0] == 500
    assert server.workflows == ["r1", "r1"]


def test_a_finished_run_cannot_be_stopped(client: Client, server: FakeKubeflow) -> None:
    run = server.add_run(state="SUCCEEDED")
    assert client("POST", f"/runs/{run['run_id']}:terminate")[0] == 400


def test_a_classic_cron_is_taken_and_a_broken_one_is_not(client: Client) -> None:
    def made(cron: str, concurrency: int = 1) -> int:
        return client(
            "POST",
            "/recurringruns",
            {
                "display_name": "r",
                "max_concurrency": concurrency,
                "pipeline_spec": {"pipelineInfo": {"name": "p"}},
                "trigger": {"cron_schedule": {"cron": cron}},
            },
        )[0]

    assert (made("0 3 * * *"), made("0 0 3 * * *"), made("@daily")) == (200, 200, 200)
    assert (made("0 3 * *"), made("every day at three"), made("@daily", 11)) == (400, 400, 400)


def test_with_several_users_nobody_comes_in_without_credentials_and_each_needs_a_grant() -> None:
    with FakeKubeflow(multi_user=True) as server:
        client = Client(server)
        assert client("GET", "/healthz")[0] == 200
        assert client("GET", "/runs", namespace="team")[0] == 401
        client.pool.headers["Authorization"] = "Bearer t"  # type: ignore[index]
        server.tokens = {"t": "me"}
        assert client("GET", "/runs", namespace="team")[0] == 403
        server.grant("me", "team", "runs", "list")
        assert client("GET", "/runs", namespace="team")[0] == 200
        assert client("GET", "/runs", namespace="other")[0] == 403
        status, answer = client("POST", "/runs", {"display_name": "r"})
        assert (status, answer["details"][0]["message"]) == (400, "Experiment id can not be empty in multi-user mode")
        client.pool.clear()


def test_a_story_is_told_from_look_to_look(client: Client, server: FakeKubeflow) -> None:
    server.story = [{"ingest": "RUNNING"}, {"ingest": "CACHED", "train": "FAILED"}, "FAILED"]
    client("POST", "/runs", {"display_name": "r", "run_id": "r1", "pipeline_spec": {"pipelineInfo": {"name": "p"}}})
    seen = [client("GET", "/runs/r1")[1] for _ in range(4)]
    assert [run["state"] for run in seen] == ["PENDING", "RUNNING", "RUNNING", "FAILED"]
    tasks = [(task["display_name"], task["state"]) for task in seen[2]["run_details"]["task_details"]]
    assert ("ingest", "SUCCEEDED") in tasks
    assert ("executor", "SKIPPED") in tasks  # so the persistence agent reports a task from the cache
    assert ("train", "FAILED") in tasks


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_comes_before_or_after_the_effect(client: Client, server: FakeKubeflow, when: Any) -> None:
    server.drop(when, method="POST")
    with pytest.raises(urllib3.exceptions.ProtocolError):
        client("POST", "/experiments", {"display_name": "e"})
    assert len(server.experiments) == (1 if when == "after" else 0)
    assert client("POST", "/experiments", {"display_name": "other"})[0] == 200
