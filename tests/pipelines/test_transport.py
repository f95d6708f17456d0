"""One exchange: retries, TLS, and every failure as one sentence with a way out."""

import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3

from components.step import UserError
from pipelines.kubeflow import Kubeflow
from pipelines.transport import Conflict, Connection, NotFound, ServerError, Unreachable
from tests.servers.certificates import make_certificate
from tests.servers.kfp import FakeKubeflow
from tests.servers.proxy import Proxy

QUICK = (0.01, 0.01)
SECRET = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"
LOGIN = "<html><body><form action='/dex/auth'>Log in</form></body></html>"


@pytest.fixture
def connection(kubeflow_server: FakeKubeflow) -> Iterator[Connection]:
    connection = Connection(host=kubeflow_server.url, pauses=QUICK)
    yield connection
    connection.close()


def get(connection: Connection) -> dict[str, Any]:
    return connection.call("GET", "/apis/v2beta1/healthz", "ask for its health")


def test_a_server_is_reached_through_the_proxy_of_the_environment(
    kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        get(Connection(host=kubeflow_server.url))
        assert proxy.log == [f"GET {kubeflow_server.url}/apis/v2beta1/healthz"]
    with pytest.raises(Unreachable, match="is not reached through the proxy that HTTP_PROXY names; check it, or NO"):
        get(Connection(host=kubeflow_server.url, pauses=QUICK))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(Connection(host=kubeflow_server.url))


def post(connection: Connection) -> dict[str, Any]:
    body = {"display_name": "retrain"}
    return connection.call("POST", "/apis/v2beta1/experiments", "create an experiment", body=body)


def sentence(error: Exception) -> str:
    """The message, if it is one sentence of a line."""
    text = str(error)
    assert text.startswith("cannot ")
    assert "\n" not in text
    assert "<" not in text
    return text


@pytest.mark.parametrize(
    ("status", "content", "kind", "says"),
    [
        (400, {"code": 3, "message": "Invalid input error: bad sort"}, UserError, "bad sort"),
        (401, {"code": 16, "message": "Unauthenticated"}, UserError, "KF_PIPELINES_TOKEN"),
        (403, {"code": 7, "message": "no"}, UserError, "--namespace"),
        (404, {"code": 5, "message": "Run x not found"}, NotFound, "Run x not found"),
        (409, {"code": 6, "message": "Already exist error: x"}, Conflict, "exists already"),
        (409, {"code": 10, "message": "BadRequestError: bad name"}, UserError, "bad name"),
        (429, "slow down", Unreachable, "try again later"),
        (500, {"code": 13, "message": "InternalServerError: database is locked"}, ServerError, "ml-pipeline"),
        (500, {"code": 13, "message": "InternalServerError: x: Invalid input error: bad"}, UserError, "bad"),
        (502, "<html>bad gateway</html>", Unreachable, "not ready (502)"),
        (503, "no healthy upstream", Unreachable, "not ready (503)"),
        (504, "", Unreachable, "not ready (504)"),
        (404, "page not found", UserError, "something else than Kubeflow Pipelines"),
        (200, "welcome", UserError, "something else than Kubeflow Pipelines"),
        (200, LOGIN, UserError, "login"),
        (403, LOGIN, UserError, "login"),
        (302, "", UserError, "login"),
        (400, "Client sent an HTTP request to an HTTPS server.", UserError, "https://"),
    ],
)
def test_every_status_becomes_one_sentence_with_a_way_out(
    kubeflow_server: FakeKubeflow, connection: Connection, status: int, content: Any, kind: type[Exception], says: str
) -> None:
    kubeflow_server.fail(status, content, times=9)
    with pytest.raises(kind) as caught:
        get(connection)
    assert says in sentence(caught.value)
    assert type(caught.value) is kind


def test_the_servers_own_reason_is_said_not_its_chain_of_causes(
    kubeflow_server: FakeKubeflow, connection: Connection
) -> None:
    kubeflow_server.add_experiment("retrain")
    with pytest.raises(Conflict, match=r"it exists already: Failed to create a new experiment\. The name retrain"):
        post(connection)


def test_missing_rights_are_named_with_user_verb_resource_and_namespace() -> None:
    with FakeKubeflow(multi_user=True) as server:
        server.tokens = {SECRET: "system:serviceaccount:team:ci"}
        connection = Connection(host=server.url, token=lambda: SECRET, namespace="team")
        with pytest.raises(UserError) as caught:
            Kubeflow(connection).experiment("retrain", "team")
        connection.close()
    assert sentence(caught.value) == (
        "cannot look up experiment 'retrain': user 'system:serviceaccount:team:ci' may not list experiments in "
        "namespace 'team', or it does not exist; ask for the right, or check --namespace"
    )


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_get_is_sent_again_while_the_server_is_not_ready(
    kubeflow_server: FakeKubeflow, connection: Connection, status: int
) -> None:
    kubeflow_server.fail(status, times=2)
    assert get(connection)["tag_name"] == "2.17.0"
    assert connection.requests == 3


def test_a_get_is_sent_again_after_a_dropped_connection(kubeflow_server: FakeKubeflow, connection: Connection) -> None:
    kubeflow_server.drop("before")
    kubeflow_server.drop("after")
    assert get(connection)["tag_name"] == "2.17.0"
    assert connection.requests == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
def test_a_refusal_is_final(kubeflow_server: FakeKubeflow, connection: Connection, status: int) -> None:
    kubeflow_server.fail(status, {"code": 0, "message": "no"}, times=9)
    with pytest.raises((UserError, ServerError)):
        get(connection)
    assert connection.requests == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_post_that_may_have_had_its_effect_is_not_sent_again(
    kubeflow_server: FakeKubeflow, connection: Connection, when: Any
) -> None:
    kubeflow_server.drop(when)
    with pytest.raises(Unreachable, match="broke the connection off") as caught:
        post(connection)
    assert caught.value.lost
    assert connection.requests == 1
    assert len(kubeflow_server.experiments) == (1 if when == "after" else 0)


def test_a_post_that_was_throttled_is_sent_again(kubeflow_server: FakeKubeflow, connection: Connection) -> None:
    kubeflow_server.fail(429)
    assert post(connection)["display_name"] == "retrain"


@pytest.mark.slow
def test_a_server_that_asks_for_a_pause_gets_it(kubeflow_server: FakeKubeflow, connection: Connection) -> None:
    kubeflow_server.fail(429)
    kubeflow_server.faults[0].reply.headers["Retry-After"] = "1"  # type: ignore[union-attr]
    start = time.monotonic()
    assert get(connection)["tag_name"]
    assert time.monotonic() - start >= 1


def test_a_server_that_does_not_answer_in_time_is_unreachable(
    kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.transport.TIMEOUT", urllib3.Timeout(connect=1, read=0.1))
    kubeflow_server.delay(5)
    connection = Connection(host=kubeflow_server.url, pauses=())
    with pytest.raises(Unreachable, match="took too long"):
        get(connection)
    connection.close()


def test_a_wrong_port_is_said(kubeflow_server: FakeKubeflow) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        connection = Connection(host=f"http://127.0.0.1:{free.getsockname()[1]}", pauses=QUICK)
        with pytest.raises(
            Unreachable, match=r"takes no connections \(Connection refused\); check the host and the port"
        ):
            get(connection)
    assert connection.requests == 3  # a server that restarts refuses too


def test_a_wrong_host_is_said_at_once() -> None:
    connection = Connection(host="http://kubeflow.invalid")
    with pytest.raises(Unreachable, match="host name that is not known"):
        get(connection)
    assert connection.requests == 1


def test_a_server_of_another_protocol_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk_grpc() -> None:
            peer, _ = server.accept()
            peer.recv(1000)
            peer.sendall(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00")
            peer.close()

        thread = threading.Thread(target=talk_grpc)
        thread.start()
        connection = Connection(host=f"http://127.0.0.1:{server.getsockname()[1]}", pauses=())
        with pytest.raises(Unreachable, match="broke the connection off"):
            get(connection)
        thread.join()


def test_the_certificate_of_a_private_authority_is_trusted_when_it_is_given(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with FakeKubeflow(tls=certificate.server()) as server:
        connection = Connection(host=server.url, ca=certificate.path)
        assert get(connection)["tag_name"] == "2.17.0"
        connection.close()


@pytest.mark.parametrize(
    ("address", "days", "given", "reason"),
    [
        ("127.0.0.1", 1, False, "self.signed certificate"),
        ("127.0.0.1", -1, True, "certificate has expired"),
        ("10.0.0.1", 1, True, "IP address mismatch"),
    ],
)
def test_a_certificate_that_is_not_trusted_is_said_with_its_reason(
    tmp_path: Path, address: str, days: int, given: bool, reason: str
) -> None:
    certificate = make_certificate(tmp_path, address, days)
    with FakeKubeflow(tls=certificate.server()) as server:
        connection = Connection(host=server.url, ca=certificate.path if given else None)
        with pytest.raises(Unreachable, match=f"not trusted .*{reason}.*--ca"):
            get(connection)
        assert connection.requests == 1


def test_a_file_that_is_no_certificate_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(UserError, match=r"--ca must be a file of PEM certificates, which '.*ca\.pem' is not"):
        Connection(host="https://127.0.0.1", ca=tmp_path / "ca.pem")
    with pytest.raises(UserError, match=r"--ca '.*missing\.pem' cannot be read: No such file"):
        Connection(host="https://127.0.0.1", ca=tmp_path / "missing.pem")


def test_tls_to_a_server_without_it_is_said(kubeflow_server: FakeKubeflow) -> None:
    connection = Connection(host=kubeflow_server.url.replace("http:", "https:"))
    with pytest.raises(Unreachable, match="does not speak TLS there; write http://"):
        get(connection)


@pytest.mark.parametrize("expired", [True, False])
@pytest.mark.parametrize("kind", ["token", "cookie"])
def test_a_session_that_has_expired_is_said(kubeflow_server: FakeKubeflow, expired: bool, kind: str) -> None:
    given: dict[str, Any] = (
        {"token": lambda: SECRET} if kind == "token" else {"cookie": f"oauth2_proxy_kubeflow={SECRET}"}
    )
    held = {} if expired else {SECRET: "me"} if kind == "token" else {f"oauth2_proxy_kubeflow={SECRET}": "me"}
    kubeflow_server.tokens = {"another": "you"} | (held if kind == "token" else {})
    kubeflow_server.cookies = held if kind == "cookie" else {}
    connection = Connection(host=kubeflow_server.url, **given)
    client = Kubeflow(connection)
    if expired:
        with pytest.raises(UserError, match=f"asks for a login: the {kind} has expired or is not meant for it"):
            client.count_runs()
    else:
        assert client.count_runs() == 0
    connection.close()


def test_no_token_goes_where_a_redirection_leads(kubeflow_server: FakeKubeflow) -> None:
    with FakeKubeflow() as elsewhere:
        kubeflow_server.fail(302)
        kubeflow_server.faults[0].reply.headers["Location"] = f"{elsewhere.url}/dex/auth"  # type: ignore[union-attr]
        connection = Connection(host=kubeflow_server.url, token=lambda: SECRET)
        with pytest.raises(UserError, match="asks for a login"):
            get(connection)
        assert elsewhere.log == []


@pytest.mark.parametrize("status", [400, 403, 404, 409, 500])
def test_secrets_appear_in_no_message_no_log_and_no_representation(
    kubeflow_server: FakeKubeflow, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    kubeflow_server.fail(status, {"code": 0, "message": f"Authorization: Bearer {SECRET}, session=c00kie"}, times=9)
    for connection in (
        Connection(host=kubeflow_server.url, token=lambda: SECRET),
        Connection(host=kubeflow_server.url, cookie="theme=dark; session=c00kie"),
    ):
        with pytest.raises((UserError, ServerError)) as caught:
            get(connection)
        said = f"{caught.value} {connection!r} {caplog.text}"
        assert "***" in said
        assert re.search(SECRET if connection.token() else "c00kie", said) is None
        connection.close()
