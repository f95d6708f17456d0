"""Which server, and as whom: flags, environment, the pod's own."""

from pathlib import Path

import pytest

from components.step import UserError
from pipelines import connection
from pipelines.connection import Options, connect
from tests.servers.kfp import FakeKubeflow


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes this machine a pod in namespace `team`; gives the file of its token, not yet written."""
    (tmp_path / "namespace").write_text("team")
    monkeypatch.setattr(connection, "OWN_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setattr(connection, "PROJECTED_TOKEN", tmp_path / "token")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    return tmp_path / "token"


@pytest.mark.parametrize(
    "given",
    [
        "https://kf.example.com/pipeline",
        "https://kf.example.com/pipeline/",
        "https://kf.example.com/pipeline/#/runs/details/1",
        "https://kf.example.com/pipeline/apis/v2beta1",
    ],
)
def test_a_host_is_taken_as_people_copy_it(given: str) -> None:
    assert connection.address(Options(host=given)) == "https://kf.example.com/pipeline"


@pytest.mark.parametrize(
    "given",
    ["kf.example.com", "localhost:8888", "ftp://kf", "http://", "http://kf:port", "http://kf example", "https://[::1"],
)
def test_a_host_that_is_no_url_is_refused_by_name(given: str) -> None:
    with pytest.raises(UserError, match="--host must be a URL such as https://"), connect(Options(host=given)):
        pass


def test_a_password_in_the_host_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError) as caught, connect(Options(host="https://me:hunter2@kf.example.com")):
        pass
    assert "hunter2" not in str(caught.value)


def test_requests_go_below_the_path_of_the_host(kubeflow_server: FakeKubeflow) -> None:
    with connect(Options(host=f"{kubeflow_server.url}/pipeline/")) as kubeflow:
        assert kubeflow.health().version == "2.17.0"
    assert kubeflow_server.log[0].path == "/pipeline/apis/v2beta1/healthz"


def test_inside_a_cluster_the_service_the_namespace_and_the_token_are_found(pod: Path) -> None:
    pod.write_text("projected\n")
    with connect(Options(kfp_namespace="kfp")) as kubeflow:
        assert kubeflow.connection.host == "http://ml-pipeline.kfp.svc.cluster.local:8888"
        assert kubeflow.namespace == "team"
        assert kubeflow.connection.token() == "projected"


def test_flags_go_before_what_is_found_inside_a_cluster(pod: Path, tmp_path: Path) -> None:
    pod.write_text("projected")
    (tmp_path / "mine").write_text("mine")
    given = Options(host="https://kf.example.com", namespace="other", token_file=tmp_path / "mine")
    with connect(given) as kubeflow:
        assert kubeflow.connection.host == "https://kf.example.com"
        assert kubeflow.namespace == "other"
        assert kubeflow.connection.token() == "mine"


@pytest.mark.parametrize(
    ("given", "known"),
    [
        (Options(), True),
        (Options(context="here"), True),
        (Options(host="https://kf.example.com", context="here"), True),
        (Options(host="https://kf.example.com"), False),
    ],
)
def test_a_host_may_be_anywhere_unless_a_context_says_which_cluster_it_is(given: Options, known: bool) -> None:
    with connect(given) as kubeflow:
        assert kubeflow.connection.kubernetes is known


def test_a_token_file_is_read_again_for_each_request(kubeflow_server: FakeKubeflow, tmp_path: Path) -> None:
    path = tmp_path / "token"
    with connect(Options(host=kubeflow_server.url, token_file=path)) as kubeflow:
        for token in ("first", "rotated"):
            path.write_text(token)
            kubeflow_server.tokens = {token: "me"}
            assert kubeflow.count_runs() == 0
    assert [request.headers["Authorization"] for request in kubeflow_server.log] == ["Bearer first", "Bearer rotated"]


def test_a_token_file_goes_before_the_token_of_the_environment_and_that_before_the_cookie(
    kubeflow_server: FakeKubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(token_file: Path | None = None) -> tuple[str | None, str | None]:
        with connect(Options(host=kubeflow_server.url, token_file=token_file)) as kubeflow:
            kubeflow.count_runs()
        headers = kubeflow_server.log[-1].headers
        return headers.get("Authorization"), headers.get("Cookie")

    assert sent() == (None, None)
    monkeypatch.setenv("KF_PIPELINES_COOKIE", "oauth2_proxy_kubeflow=a; theme=dark")
    assert sent() == (None, "oauth2_proxy_kubeflow=a; theme=dark")
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "environment\n")
    assert sent() == ("Bearer environment", None)
    (tmp_path / "token").write_text("file")
    assert sent(token_file=tmp_path / "token") == ("Bearer file", None)


@pytest.mark.parametrize("content", ["", "two\nlines", "schl\u00fcssel", None])
def test_a_token_file_without_one_token_is_refused_by_name(
    kubeflow_server: FakeKubeflow, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    refused = pytest.raises(UserError, match=r"the token file '.*token' .*; check --token-file")
    with connect(Options(host=kubeflow_server.url, token_file=path)) as kubeflow, refused as caught:
        kubeflow.count_runs()
    assert not content or content not in str(caught.value)
    assert kubeflow_server.log == []


@pytest.mark.parametrize("variable", ["KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE"])
@pytest.mark.parametrize("secret", ["hunter2\nX-Header: 1", "hunter2\u00e4"])
def test_a_secret_that_no_header_can_hold_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, variable: str, secret: str
) -> None:
    monkeypatch.setenv(variable, secret)
    with pytest.raises(UserError, match=f"{variable} must be one line of ASCII") as caught, connect(Options()):
        pass
    assert "hunter2" not in str(caught.value)


def test_people_see_the_ui_where_it_is_said_to_be(
    kubeflow_server: FakeKubeflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(Options(host=kubeflow_server.url)) as kubeflow:
        assert kubeflow.connection.ui == kubeflow_server.url
    with connect(Options()) as kubeflow:
        assert kubeflow.connection.ui == ""  # a forwarded port is gone when somebody looks
    monkeypatch.setenv("KF_PIPELINES_UI_ENDPOINT", "https://kf.example.com/pipeline/")
    with connect(Options()) as kubeflow:
        assert kubeflow.connection.ui == "https://kf.example.com/pipeline"
