"""What runs have published, read from where the user stands."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from components.storage import DirectoryStore
from pipelines.releases import Unreadable, look, place, verdict
from tests.pipelines.published import publish


@pytest.fixture
def silent_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 server that takes connections and never answers, as a firewall's other side."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        yield


def test_the_versions_of_runs_are_found_by_the_runs_ids(store: DirectoryStore) -> None:
    for run_id in ("r1", "r2", "r3"):
        publish(store, run_id, accepted=run_id != "r2")
    shelf = look(store.uri, "mnist", ["r1", "r2", "other"], None)
    assert shelf.champion is not None
    assert shelf.champion.number == 3
    assert {
        run: (release.version.number, release.accepted, release.champion) for run, release in shelf.runs.items()
    } == {
        "r1": (1, True, False),
        "r2": (2, False, False),
    }


def test_versions_from_long_before_the_runs_are_not_read(store: DirectoryStore) -> None:
    publish(store, "old")
    publish(store, "new")
    damaged = store.root / "models" / "mnist" / "versions" / "000001.json"
    damaged.write_text(damaged.read_text().replace(f"{datetime.now(UTC):%Y}", "2020"))
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert look(store.uri, "mnist", ["old"], tomorrow).runs == {}
    assert list(look(store.uri, "mnist", ["old"], None).runs) == ["old"]


def test_the_verdict_of_a_version_has_its_reasons(store: DirectoryStore) -> None:
    version = publish(store, "r", 0.42, accepted=False)
    assert verdict(store.uri, version)["reasons"] == ["0.42 is below min_accuracy 0.9"]


def test_a_run_without_parameters_uses_the_defaults() -> None:
    assert place({}) == ("s3://mlpipeline/retrain", "mnist")
    assert place({"store": "s3://b/p", "model_name": "cats"}) == ("s3://b/p", "cats")


def test_a_directory_that_this_machine_does_not_have_is_no_empty_store() -> None:
    with pytest.raises(Unreadable, match="store /nowhere/at/all is no directory of this machine"):
        look("/nowhere/at/all", "mnist", [], None)


@pytest.mark.usefixtures("silent_s3")
def test_a_store_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.releases.SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(Unreadable, match=r"did not answer within 0\.2 s"):
        look("s3://bucket/prefix", "mnist", [], None)
    assert time.monotonic() - start < 20
