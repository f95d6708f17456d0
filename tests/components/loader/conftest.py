"""An S3 server whose faults a test decides."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from components.storage import S3Store, connection
from tests.servers.s3 import FaultyS3


@pytest.fixture
def faulty(s3_server: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """The way to the S3 server."""
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    with FaultyS3(s3_server) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


@pytest.fixture
def remote(faulty: FaultyS3) -> S3Store:
    """An empty bucket behind it."""
    store = S3Store(f"s3://{uuid4()}/prefix")
    store.client.make_bucket(store.bucket)
    return store
