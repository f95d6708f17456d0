"""`.ci/retrain`, executed: against Kubeflow Pipelines, Kubernetes and an identity provider on loopback."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.registry import Version, promote, publish
from components.storage import DirectoryStore
from components.verdict import Verdict, write_verdict
from pipelines.submit import Order
from tests.servers.kfp import FakeKubeflow
from tests.servers.loopback import Loopback, Reply, Request

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

VERDICT = Verdict(
    accepted=True,
    reasons=("0.9712 is at least 0.9, the least that is accepted",),
    accuracy=0.9712,
    macro_precision=0.97,
    macro_recall=0.97,
    macro_f1=0.9701,
    per_class=(),
    confusion=((1,),),
    test_images=200,
    dataset="d" * 64,
    test_digest="t" * 64,
    champion=None,
    seconds=1.0,
)

STEPS = ("plan", "shard", "ingest", "train", "evaluate", "export")


class Place:
    """A checkout with the script, a store, and the environment of a CI job."""

    def __init__(self, folder: Path, host: str) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder / "store")
        (folder / ".ci").mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "retrain", folder / ".ci")
        self.write("canary.yaml", f"model_name: mnist-canary\nstore: {self.store.uri}\n")
        self.write("promote.yaml", f"store: {self.store.uri}\n")
        self.variables = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "KF_PIPELINES_ENDPOINT": host,
            "RETRAIN_BIN": str(Path(sys.executable).parent),
            "RETRAIN_CANARY": str(folder / "canary.yaml"),
            "RETRAIN_COMMIT": COMMIT,
            "RETRAIN_PARAMETERS": str(folder / "promote.yaml"),
        }

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def renew_each_second(self) -> None:
        """Has the script renew its credentials, and send its order again, before a run ends."""
        script = self.folder / ".ci" / "retrain"
        text = script.read_text()
        assert "\nrenewal=1200 " in text
        script.write_text(text.replace("\nrenewal=1200 ", "\nrenewal=1 "))

    def call(self, *commands: str) -> subprocess.CompletedProcess[str]:
        """Runs the script as a CI job does."""
        script = str(self.folder / ".ci" / "retrain")
        return subprocess.run(
            [script, *commands], env=self.variables, cwd="/", capture_output=True, text=True, timeout=120
        )

    def publish(self, name: str, verdict: Verdict, **facts: Any) -> Version:
        """What a run would have published."""
        write_verdict(self.folder / "verdict.json", verdict)
        (self.folder / "model").write_text(json.dumps([name, facts]))
        known: dict[str, Any] = {
            "accepted": verdict.accepted,
            "accuracy": verdict.accuracy,
            "macro_f1": verdict.macro_f1,
        }
        known |= {"dataset": verdict.dataset, "test_digest": verdict.test_digest, "onnx_bytes": 1000}
        known |= {"milliseconds_per_image": 0.5, "created": "2100-01-01T00:00:00+00:00"}
        files = {"verdict.json": self.folder / "verdict.json", "model.onnx": self.folder / "model"}
        return publish(self.store, name, files, known | facts)


def run_id(stage: str = "canary", namespace: str = "") -> str:
    """The ID that the run of a stage will have."""
    order = Order(parameters={}, version="", experiment=f"retrain-{stage}", key=f"{stage} {COMMIT}")
    return order.run_id(namespace)


@pytest.fixture
def server() -> Iterator[FakeKubeflow]:
    """Kubeflow Pipelines, where every run succeeds."""
    with FakeKubeflow() as server:
        server.story = [dict.fromkeys(STEPS, "SUCCEEDED"), "SUCCEEDED"]
        yield server


@pytest.fixture
def place(server: FakeKubeflow, tmp_path: Path) -> Place:
    return Place(tmp_path / "checkout", server.url)


def test_without_a_command_the_script_lists_them(place: Place) -> None:
    for commands in ((), ("canari",), ("canary", "canari")):
        ended = place.call(*commands)
        assert ended.returncode == 1
        assert "\n  canary    Upload the pipeline, run it on little data" in ended.stderr
    assert not (place.folder / ".retrain-ci").exists()


def test_a_canary_goes_from_upload_to_summary(place: Place, server: FakeKubeflow) -> None:
    champion = place.publish("mnist", replace(VERDICT, accuracy=0.99, macro_f1=0.98), onnx_bytes=2000)
    promote(place.store, champion, over=None)
    place.publish("mnist-canary", VERDICT, run=run_id())

    ended = place.call("canary")
    assert ended.returncode == 0, ended.stderr
    summary = ended.stdout[ended.stdout.index("## Run") :]
    assert f"## Run [{run_id()}]({server.url}/#/runs/details/{run_id()}): succeeded" in summary
    assert "\n| train | ✓ succeeded | " in summary
    assert "\n**mnist-canary version 1: accepted**\n" in summary
    assert "- 0.9712 is at least 0.9, the least that is accepted\n" in summary
    assert "| | this run | champion: mnist version 1 | difference |\n" in summary
    assert "| accuracy | 97.12% | 99.00% | -1.88 points |\n" in summary
    assert "| ONNX file, bytes | 1,000 | 2,000 | -50.0% |\n" in summary

    (run,) = server.runs.values()
    assert run["runtime_config"]["parameters"] == {"model_name": "mnist-canary", "store": place.store.uri}
    assert server.experiments[run["experiment_id"]]["display_name"] == "retrain-canary"
    assert len(server.versions) == 1


def test_a_canary_with_a_store_of_its_own_is_compared_with_the_champion_in_that_of_the_real_runs(place: Place) -> None:
    champion = place.publish("mine", replace(VERDICT, accuracy=0.99))
    promote(place.store, champion, over=None)
    place.write("promote.yaml", f"model_name: mine\nstore: {place.store.uri}\n")
    place.store = DirectoryStore(place.folder / "canaries")
    place.write("canary.yaml", f"model_name: mnist-canary\nstore: {place.store.uri}\n")
    place.publish("mnist-canary", VERDICT, run=run_id())
    ended = place.call("canary")
    assert ended.returncode == 0, ended.stderr
    assert "**mnist-canary version 1: accepted**" in ended.stdout
    assert "| | this run | champion: mine version 1 | difference |" in ended.stdout


def test_a_job_that_is_repeated_starts_no_second_run(place: Place, server: FakeKubeflow) -> None:
    place.publish("mnist-canary", VERDICT, run=run_id())
    for _ in range(2):
        assert place.call("canary").returncode == 0
    assert server.workflows == [run_id()]
    assert len(server.versions) == 1


def test_a_rejected_model_ends_with_3_and_says_why(place: Place) -> None:
    rejected = replace(VERDICT, accepted=False, accuracy=0.5, reasons=("0.5 is below 0.9",))
    place.publish("mnist-canary", rejected, run=run_id())
    ended = place.call("canary")
    assert ended.returncode == 3
    assert "**mnist-canary version 1: rejected**\n\n- 0.5 is below 0.9\n" in ended.stdout
    assert "Model `mnist` has no champion yet." in ended.stdout


def test_a_run_that_fails_ends_with_1_and_names_the_step(place: Place, server: FakeKubeflow) -> None:
    server.story = [{"ingest": "SUCCEEDED", "train": "FAILED"}, "FAILED"]
    ended = place.call("canary")
    assert ended.returncode == 1
    assert ": failed\n" in ended.stdout
    assert "\n| train | ✗ failed | " in ended.stdout


def test_a_verdict_that_cannot_be_read_is_not_a_good_one(place: Place) -> None:
    place.publish("mnist-canary", VERDICT, run="another")
    ended = place.call("canary")
    assert ended.returncode == 5
    assert "**The verdict cannot be read from here**" in ended.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_is_cancelled_cancels_its_canary(number: signal.Signals, place: Place, server: FakeKubeflow) -> None:
    server.story = []
    command = [str(place.folder / ".ci" / "retrain"), "canary"]
    with subprocess.Popen(command, env=place.variables, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert "started: " in process.stderr.readline()
        process.send_signal(number)  # to the shell alone, as the machines of CI do
        rest = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM, rest
    assert server.runs[run_id()]["state"] == "CANCELING"


def test_without_a_registry_its_password_goes_nowhere(place: Place) -> None:
    docker = place.write("bin/docker", '#!/bin/sh\necho "$@" >>"$HOME/docker.log"\n')
    docker.chmod(0o755)
    place.variables["PATH"] = f"{docker.parent}:{place.variables['PATH']}"
    place.variables["RETRAIN_REGISTRY_PASSWORD"] = "hush-hush"
    assert place.call("images").returncode == 0
    called = (place.folder / "docker.log").read_text().splitlines()
    assert {call.split()[0] for call in called} == {"build"}


def test_a_server_that_is_not_there_ends_with_5(place: Place) -> None:
    place.variables["KF_PIPELINES_ENDPOINT"] = "http://127.0.0.1:1"
    ended = place.call("canary")
    assert ended.returncode == 5
    assert ended.stderr.splitlines()[-1].startswith("error: ")


def test_the_summary_is_added_to_that_of_the_job(place: Place) -> None:
    place.publish("mnist-canary", VERDICT, run=run_id())
    place.variables["GITHUB_STEP_SUMMARY"] = str(place.write("summary.md", "# Before\n"))
    ended = place.call("canary")
    written = (place.folder / "summary.md").read_text()
    assert written.startswith("# Before\n## Run")
    assert ended.stdout.endswith(written.removeprefix("# Before\n"))


def test_promote_runs_the_pipeline_for_good(place: Place, server: FakeKubeflow) -> None:
    version = place.publish("mnist", VERDICT, run=run_id("promote"))
    promote(place.store, version, over=None)
    ended = place.call("promote")
    assert ended.returncode == 0, ended.stderr
    assert "**mnist version 1: champion**" in ended.stdout
    (run,) = server.runs.values()
    assert run["runtime_config"]["parameters"] == {"store": place.store.uri}
    assert server.experiments[run["experiment_id"]]["display_name"] == "retrain-promote"


def test_a_promotion_without_a_reason_to_retrain_is_green(place: Place, server: FakeKubeflow) -> None:
    server.story = [{"ingest": "SUCCEEDED"}, "SUCCEEDED"]
    ended = place.call("promote")
    assert ended.returncode == 0, ended.stderr
    assert "There was no reason to retrain" in ended.stdout


def test_check_tells_a_compiled_pipeline_that_is_not_current(place: Place) -> None:
    compiled = place.write("pipelines/retrain.yaml", "old")
    ended = place.call("check")
    assert ended.returncode == 1
    assert ended.stderr == (
        "error: pipelines/retrain.yaml is not that of this code; "
        "call 'retrain compile --output pipelines/retrain.yaml'\n"
    )
    shutil.copy(place.folder / ".retrain-ci" / "retrain.yaml", compiled)
    assert place.call("check").returncode == 0


def test_what_is_uploaded_runs_in_the_images_that_were_pushed(place: Place, server: FakeKubeflow) -> None:
    docker = place.write(
        "bin/docker", '#!/bin/sh\necho "$@" >>"$HOME/docker.log"\n[ "$1" != login ] || cat >>"$HOME/in"\n'
    )
    docker.chmod(0o755)
    place.variables["PATH"] = f"{docker.parent}:{place.variables['PATH']}"
    place.variables["RETRAIN_IMAGES"] = "registry.example.com/team"
    place.variables["RETRAIN_REGISTRY_PASSWORD"] = "hush-hush"
    place.publish("mnist-canary", VERDICT, run=run_id())
    ended = place.call("images", "canary")
    assert ended.returncode == 0, ended.stderr

    called = (place.folder / "docker.log").read_text().splitlines()
    assert called[0] == "login registry.example.com --username retrain --password-stdin"
    assert (place.folder / "in").read_text() == "hush-hush\n"
    pushed = {call.removeprefix("push ") for call in called if call.startswith("push ")}
    assert pushed == {f"registry.example.com/team/retrain-{image}:{COMMIT}" for image in ("small", "train")}
    assert images(server) == pushed


def test_the_images_of_the_commit_join_the_settings_file(place: Place, server: FakeKubeflow) -> None:
    settings = '[steps.train] # big\nmemory = "9Gi"\n[environments.fast.steps.train]\ncpu = "8"'
    place.variables["RETRAIN_SETTINGS"] = str(place.write("settings.toml", settings))
    place.variables["RETRAIN_ENVIRONMENT"] = "fast"
    place.variables["RETRAIN_IMAGES"] = "example.com"
    place.publish("mnist-canary", VERDICT, run=run_id())
    ended = place.call("canary")
    assert ended.returncode == 0, ended.stderr
    assert images(server) == {f"example.com/retrain-{image}:{COMMIT}" for image in ("small", "train")}
    resources = executors(server)["exec-train"]["container"]["resources"]
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("8", "9Gi")


def executors(server: FakeKubeflow) -> dict[str, Any]:
    """Those of the only version that was uploaded."""
    (version,) = server.versions.values()
    found = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
    executors: dict[str, Any] = found["deploymentSpec"]["executors"]
    return executors


def images(server: FakeKubeflow) -> set[str]:
    return {executor["container"]["image"] for executor in executors(server).values()}


class Authorities(Loopback):
    """GitHub's identity provider, Kubernetes' TokenRequest and AWS' STS in one."""

    def answer(self, request: Request) -> Reply:
        given = request.headers.get("Authorization")
        if request.path == "/identity" and given == "Bearer of-the-job":
            return Reply(200, {"value": f"identity-for-{request.query['audience']}"})
        if request.path == "/api/v1/namespaces/team/serviceaccounts/retrain-ci/token":
            return self.token(request, given)
        if request.path == "/":
            return self.role(request)
        return Reply(403, {"message": "forbidden"})

    def token(self, request: Request, given: str | None) -> Reply:
        from kubernetes.client import V1TokenRequestSpec

        assert request.json()["spec"].keys() <= set(V1TokenRequestSpec.attribute_map.values())
        if given != "Bearer identity-for-retrain" or request.headers["Content-Type"] != "application/json":
            return Reply(401, {"message": "Unauthorized"})
        audience = request.json()["spec"]["audiences"][0]
        return Reply(201, {"status": {"token": f"token-for-{audience}", "expirationTimestamp": "2100-01-01T00:00:00Z"}})

    def role(self, request: Request) -> Reply:
        if b"WebIdentityToken=identity-for-sts.amazonaws.com&RoleArn=arn%3Aaws%3A" not in request.content:
            return Reply(400, "<Error><Message>no</Message></Error>")
        keys = "<AccessKeyId>AK</AccessKeyId>\n<SecretAccessKey>S/+=</SecretAccessKey><SessionToken>T==</SessionToken>"
        return Reply(200, f"<Result><Credentials>{keys}</Credentials></Result>")


@pytest.fixture
def authorities(place: Place) -> Iterator[Authorities]:
    """What a job on GitHub with `id-token: write` can ask."""
    with Authorities() as server:
        place.variables |= {
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{server.url}/identity?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job",
            "RETRAIN_KUBERNETES": server.url,
            "RETRAIN_NAMESPACE": "team",
        }
        yield server


def test_credentials_are_renewed_while_a_job_waits_for_a_run_that_outlasts_them(
    place: Place, server: FakeKubeflow, authorities: Authorities
) -> None:
    place.renew_each_second()
    place.variables |= {"RETRAIN_AWS_ROLE": "arn:aws:iam::1:role/ci", "AWS_ENDPOINT_URL_STS": authorities.url}
    server.story = [*[{"ingest": "RUNNING"}] * 5, dict.fromkeys(STEPS, "SUCCEEDED"), "SUCCEEDED"]
    place.publish("mnist-canary", VERDICT, run=run_id(namespace="team"))
    ended = place.call("login", "canary")
    assert ended.returncode == 0, ended.stderr
    assert server.workflows == [run_id(namespace="team")]
    asked = [request.path.rpartition("/")[2] for request in authorities.log]
    assert asked.count("token") == asked.count("") > 1


def test_what_fails_in_passing_at_a_login_is_tried_again(place: Place, authorities: Authorities) -> None:
    place.variables |= {"RETRAIN_AWS_ROLE": "arn:aws:iam::1:role/ci", "AWS_ENDPOINT_URL_STS": authorities.url}
    authorities.drop("before", path="^/identity$")
    authorities.fail(503, {"message": "later"}, path="/token$")
    authorities.fail(500, "<Error><Code>InternalFailure</Code></Error>", path="^/$")
    ended = place.call("login")
    assert ended.returncode == 0, ended.stderr
    work = place.folder / ".retrain-ci"
    assert (work / "token").read_text() == "token-for-pipelines.kubeflow.org\n"
    assert (work / "store").read_text().startswith("AWS_ACCESS_KEY_ID=AK\n")


def test_a_job_goes_on_with_the_credentials_that_it_has_where_it_gets_no_new_ones(
    place: Place, server: FakeKubeflow, authorities: Authorities
) -> None:
    place.renew_each_second()
    place.variables |= {"RETRAIN_AWS_ROLE": "arn:aws:iam::1:role/ci", "AWS_ENDPOINT_URL_STS": authorities.url}
    server.tokens["token-for-pipelines.kubeflow.org"] = "retrain-ci"
    server.story = [*[{"ingest": "RUNNING"}] * 5, dict.fromkeys(STEPS, "SUCCEEDED"), "SUCCEEDED"]
    place.publish("mnist-canary", VERDICT, run=run_id(namespace="team"))
    assert place.call("login").returncode == 0
    authorities.fail(403, {"message": "not now"}, times=1, path="/token$")
    authorities.fail(403, "<Error><Message>not now</Message></Error>", times=1_000, path="^/$")
    ended = place.call("canary")
    assert ended.returncode == 0, ended.stderr
    warning = "warning: the credentials were not renewed; that is tried again later"
    warnings = [line for line in ended.stderr.splitlines() if line.startswith(("error: ", "warning: "))]
    assert [line for line in warnings if "has not ended after" not in line][:4] == [
        'error: the answer has no \'token\': {"message": "not now"}',
        warning,
        "error: AWS gave no AccessKeyId for arn:aws:iam::1:role/ci: <Error><Message>not now</Message></Error>",
        warning,
    ]
    assert (place.folder / ".retrain-ci" / "store").read_text().startswith("AWS_ACCESS_KEY_ID=AK\n")


def test_a_server_that_goes_away_while_a_job_waits_leaves_the_run_in_the_summary(
    place: Place, server: FakeKubeflow
) -> None:
    place.renew_each_second()
    server.story = []
    command = [str(place.folder / ".ci" / "retrain"), "canary"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=place.variables, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert any("has not ended after" in line for line in process.stderr)
        server.drop("before", times=1_000_000)
        printed = process.stdout.read()
    assert process.returncode == 5
    assert f"\n## Run [{run_id()}]" in printed


def test_a_run_that_takes_too_long_ends_with_4(place: Place, server: FakeKubeflow) -> None:
    server.story = []
    place.variables["RETRAIN_TIMEOUT"] = "1"
    ended = place.call("canary")
    assert ended.returncode == 4
    assert "has not ended after" in ended.stderr
    assert server.runs[run_id()]["state"] == "PENDING"


def test_a_timeout_that_is_no_number_is_told_before_anything_is_sent(place: Place, server: FakeKubeflow) -> None:
    place.variables["RETRAIN_TIMEOUT"] = "90 min"
    ended = place.call("canary")
    assert (ended.returncode, ended.stderr) == (1, "error: RETRAIN_TIMEOUT must be whole seconds, not '90 min'\n")
    assert server.log == []


@pytest.mark.usefixtures("authorities")
def test_a_jobs_identity_becomes_a_token_that_lets_it_in(place: Place, server: FakeKubeflow) -> None:
    server.multi_user = True
    server.tokens["token-for-pipelines.kubeflow.org"] = "retrain-ci"
    for resource in ("pipelines", "experiments", "runs"):
        server.grant("retrain-ci", "team", resource, "get", "list", "create")
    place.publish("mnist-canary", VERDICT, run=run_id(namespace="team"))
    ended = place.call("login", "canary")
    assert ended.returncode == 0, ended.stderr
    assert server.workflows == [run_id(namespace="team")]
    assert "token-for" not in ended.stdout + ended.stderr
    token = place.folder / ".retrain-ci" / "token"
    assert token.stat().st_mode & 0o077 == 0


def test_a_role_at_aws_becomes_variables(place: Place, authorities: Authorities) -> None:
    place.variables["RETRAIN_AWS_ROLE"] = "arn:aws:iam::1:role/retrain-ci"
    place.variables["AWS_ENDPOINT_URL_STS"] = authorities.url
    ended = place.call("login")
    assert ended.returncode == 0, ended.stderr
    written = (place.folder / ".retrain-ci" / "store").read_text()
    assert written == "AWS_ACCESS_KEY_ID=AK\nAWS_SECRET_ACCESS_KEY=S/+=\nAWS_SESSION_TOKEN=T==\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ACTIONS_ID_TOKEN_REQUEST_URL": ""}, "set RETRAIN_ID_TOKEN, or on GitHub the permission id-token: write"),
        ({"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "wrong"}, "the answer has no 'value'"),
        ({"RETRAIN_ID_TOKEN": "of-somebody-else"}, "the answer has no 'token'"),
        ({"RETRAIN_NAMESPACE": "others"}, "the answer has no 'token'"),
    ],
)
def test_a_login_that_is_refused_ends_the_job_at_once(
    changes: Mapping[str, str], sentence: str, place: Place, authorities: Authorities
) -> None:
    place.variables |= changes
    ended = place.call("login", "canary")
    assert ended.returncode != 0
    assert sentence in ended.stderr
    assert not (place.folder / ".retrain-ci" / "canary.json").exists()
    asked = [request.path for request in authorities.log]
    assert len(set(asked)) == len(asked)


def test_the_canary_that_is_committed_is_one_that_submit_takes() -> None:
    from pipelines.submit import checked, read_parameters

    given = checked(read_parameters(ROOT / ".ci" / "canary.yaml"))
    assert given["model_name"] != "mnist"
    assert yaml.safe_load((ROOT / ".ci" / "canary.yaml").read_text()) == given
