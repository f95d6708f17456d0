"""Whether a store is reached through a proxy; over a real one, to a real S3 server."""

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from components.step import StepError, UserError
from components.storage import S3Store, connection, open_store
from tests.servers.certificates import make_certificate
from tests.servers.proxy import Proxy
from tests.servers.s3 import FaultyS3, Reply


@pytest.fixture
def proxy(s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy that the environment names for either scheme."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name.lower(), raising=False)
        monkeypatch.delenv(name, raising=False)
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield proxy


def use() -> None:
    """Asks the store for a bucket, an object and a listing."""
    store = S3Store(f"s3://{uuid4()}/prefix")
    store.client.make_bucket(store.bucket)
    store.write("object", b"content")
    assert store.read("object") == b"content"
    assert list(store.keys("")) == ["object"]


def test_a_store_is_reached_through_the_proxy_of_its_scheme(proxy: Proxy, s3_server: str) -> None:
    use()
    assert len(proxy.log) == 4
    assert all(f" {s3_server}/" in line for line in proxy.log)


def test_what_is_encrypted_stays_so_through_a_proxy(
    proxy: Proxy, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate.path))
    with FaultyS3(s3_server, tls=certificate.server()) as secured:
        monkeypatch.setenv("AWS_ENDPOINT_URL", secured.url)
        use()
        assert set(proxy.log) == {f"CONNECT 127.0.0.1:{secured.port}"}


@pytest.mark.parametrize("exempt", ["127.0.0.1", "{}", "elsewhere,127.0.0.1", "*"])
def test_a_host_that_is_exempt_is_reached_without_a_proxy(
    exempt: str, proxy: Proxy, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", exempt.format(s3_server.removeprefix("http://")))
    use()
    assert proxy.log == []


def test_a_proxy_may_ask_for_a_password_and_be_named_without_a_scheme(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:p%40ss@{proxy.host}")
    use()
    assert proxy.authorization == {"Basic " + b64encode(b"me:p@ss").decode()}
    monkeypatch.setenv("HTTP_PROXY", proxy.host)
    use()
    assert len(proxy.log) == 8


@pytest.mark.parametrize("value", ["socks5://me:hidden@host:1080", "http://me:hidden@host:port", "http://"])
def test_a_variable_that_names_no_proxy_is_a_mistake(value: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(UserError, match=r"HTTP_PROXY must be http\(s\)://host:port") as caught:
        open_store("s3://bucket")
    assert "hidden" not in str(caught.value)


def test_a_proxy_that_cannot_be_reached_is_named(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("HTTP_PROXY", "http://me:hidden@127.0.0.1:1")
    with pytest.raises(StepError, match=r"cannot be reached \(.*Connection refused\); see HTTP_PROXY$") as caught:
        open_store("s3://bucket").read("object")
    assert "hidden" not in str(caught.value)


def test_a_metadata_service_is_near_and_asked_without_a_proxy(
    proxy: Proxy, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    said = b'{"AccessKeyId": "pod", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}'
    with FaultyS3(s3_server) as metadata:
        metadata.answer(Reply(200, {}, said))
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{metadata.url}/v1/credentials")
        use()
        assert len(metadata.log) == 1
    assert len(proxy.log) == 4
