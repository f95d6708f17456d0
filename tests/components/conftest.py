"""Both kinds of store: what holds for one must hold for the other."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from components.storage import S3Store, Store, open_store
from tests.servers.moto import moto_server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server on loopback."""
    with moto_server() as url:
        yield url


@pytest.fixture
def s3_environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables through which this process and its children find the S3 server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture(params=["directory", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "directory":
        return open_store(str(tmp_path / "store"))
    request.getfixturevalue("s3_environment")
    store = S3Store(f"s3://{uuid4()}/a/prefix")
    store.client.make_bucket(store.bucket)
    return store
