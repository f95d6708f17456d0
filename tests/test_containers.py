"""The images, and the pipeline with each step in a container. `make test-containers` brings what they need."""

import errno
import io
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import docker
import pytest
from PIL import Image

from components.registry import champion
from components.storage import S3Store
from pipelines.containers import Containers
from pipelines.local import StepRun
from pipelines.placement import USER
from pipelines.settings import SMALL_IMAGE, TRAIN_IMAGE
from pipelines.terminal import Terminal
from tests.commands import RETRAIN, retrain
from tests.samples import drawn_images, write_folder
from tests.servers.moto import moto_server

IMAGES = (SMALL_IMAGE, TRAIN_IMAGE)


def built() -> bool:
    """Whether a container engine is here and has the images; that a machine has Docker says nothing of them."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    try:
        with closing(docker.from_env()) as client:
            return all(client.images.get(image) for image in IMAGES)
    except docker.errors.DockerException:
        return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.containers,
    pytest.mark.skipif(
        "RETRAIN_NO_SKIPS" not in os.environ and not built(),
        reason="no container engine with the images is here; `make test-containers` brings them",
    ),
]

STEPS = dict.fromkeys(("plan", "shard", "ingest"), SMALL_IMAGE) | dict.fromkeys(
    ("train", "evaluate", "export"), TRAIN_IMAGE
)

CONFINED = {"read_only": True, "tmpfs": {"/tmp": ""}, "cap_drop": ["ALL"], "network_mode": "none"}

USER_INSIDE = os.getuid() or USER


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        yield client


@pytest.fixture
def nothing_left(client: docker.DockerClient) -> Iterator[None]:
    """A test that leaves no container behind."""
    before = {container.id for container in client.containers.list(all=True)}
    yield
    assert {container.id for container in client.containers.list(all=True)} <= before


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URI of a store on an S3 server on loopback, which this process and its children find by their environment."""
    with moto_server() as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        store = S3Store(f"s3://{uuid4()}/retrain")
        store.client.make_bucket(store.bucket)
        yield store.uri


class Finished(NamedTuple):
    folder: Path
    printed: str
    containers: list[dict[str, Any]]


@pytest.fixture(scope="module")
def finished(client: docker.DockerClient, bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A run of the whole pipeline, each step in a container, and what the engine says of the containers."""
    folder = tmp_path_factory.mktemp("containers")
    source = write_folder(folder / "idx")
    start = time.time()
    ended = retrain("run", "--runner", "docker", "--source", source, "--store", bucket, "--epochs", 6, folder=folder)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    filters = {"type": "container", "event": "create"}
    events = client.events(since=int(start), until=int(time.time()) + 1, filters=filters, decode=True)
    return Finished(folder, ended.stdout, list(events))


def contained(client: docker.DockerClient, image: str, *command: str, **options: Any) -> str:
    """What a container prints; raises docker's ContainerError where it fails."""
    printed: bytes = client.containers.run(image, list(command), remove=True, **{**CONFINED, **options})
    return printed.decode()


def executed(tmp_path: Path, script: str, image: str = SMALL_IMAGE) -> tuple[StepRun, list[str]]:
    """A script of Python run as `retrain run` runs a step, and the lines that it showed."""
    folder = tmp_path / "artifacts"
    folder.mkdir(exist_ok=True)
    step, shown = StepRun("probe", image, folder), io.StringIO()
    Containers(folder).execute(["python3", "-c", script], {}, step, Terminal(shown))
    return step, [line.removeprefix("probe").strip() for line in shown.getvalue().splitlines()]


def test_the_whole_pipeline_ends_in_a_champion_in_s3(finished: Finished, bucket: str) -> None:
    assert re.search(r"^accepted: \d+\.\d\d% test accuracy; mnist version 1, the champion$", finished.printed, re.M)
    best = champion(S3Store(bucket), "mnist")
    assert best is not None
    assert best.number == 1


def test_each_step_has_a_container_of_its_own_from_its_own_image(finished: Finished) -> None:
    assert [event["from"] for event in finished.containers] == list(STEPS.values())


def test_the_artifacts_belong_to_a_user_who_is_not_root(finished: Finished) -> None:
    artifacts = [path for path in (finished.folder / "retrain-store" / "runs").rglob("*") if path.is_file()]
    assert len(artifacts) > 10
    assert {path.stat().st_uid for path in artifacts} == {USER_INSIDE}


SYSTEM = ["/", "/venv", "/retrain/components", "/etc", "/home", "/var/lib"]

CONFINEMENT = """
import os, pathlib
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
status = dict(line.split(":\\t") for line in lines if ":\\t" in line)
print("users", status["Uid"].split(), "groups", status["Gid"].split())
print("capabilities", {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")})
print("no new privileges", status["NoNewPrivs"])
for place in PLACES:
    try:
        pathlib.Path(place, "file").write_text("")
        print("writes to", place)
    except OSError as error:
        print("cannot write to", place, error.errno)
"""


def test_a_step_may_write_to_tmp_and_its_artifacts_and_has_no_rights(tmp_path: Path, nothing_left: None) -> None:
    artifacts = str(tmp_path / "artifacts")
    step, shown = executed(tmp_path, CONFINEMENT.replace("PLACES", repr([*SYSTEM, "/tmp", artifacts])))
    assert step.code == 0
    group = os.getgid() or USER
    assert shown[0] == f"users {[str(USER_INSIDE)] * 4} groups {[str(group)] * 4}"
    assert shown[1] == "capabilities {'0000000000000000'}"
    assert shown[2] == "no new privileges 1"
    refused = [f"cannot write to {place} {errno.EROFS}" for place in SYSTEM]
    assert shown[3:] == [*refused, "writes to /tmp", f"writes to {artifacts}"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can pose as somebody else")
def test_a_step_runs_as_whoever_started_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    monkeypatch.setattr(os, "getgid", lambda: 4321)
    _, shown = executed(tmp_path, f"import os; open('{tmp_path}/artifacts/file', 'w'); print(os.getuid(), os.getgid())")
    assert shown == ["1234 4321"]
    assert (tmp_path / "artifacts" / "file").stat().st_uid == 1234


def test_a_step_sees_of_the_environment_only_how_to_reach_the_store(
    tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "secret")
    _, shown = executed(tmp_path, "import os; print(*sorted(os.environ))")
    seen = set(shown[0].split())
    assert {"AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= seen
    assert "KF_PIPELINES_TOKEN" not in seen
    assert not [name for name in seen if name.startswith("AWS_") and name not in os.environ]


def test_an_exit_code_is_never_lost(tmp_path: Path, nothing_left: None) -> None:
    ended = [executed(tmp_path, "import sys; sys.exit(7)")[0].code for _ in range(10)]
    assert ended == [7] * 10


def test_the_last_error_sentence_of_a_step_is_kept(tmp_path: Path) -> None:
    step, shown = executed(tmp_path, "import sys; print('half', end=''); print(' a line'); sys.exit('error: too bad')")
    assert (step.code, step.error, shown) == (1, "too bad", ["half a line"])


def test_a_container_that_cannot_start_fails_its_step_with_a_sentence(tmp_path: Path, nothing_left: None) -> None:
    step = StepRun("probe", SMALL_IMAGE, tmp_path)
    Containers(tmp_path).execute(["no-such-program"], {}, step, Terminal(io.StringIO()))
    assert step.code == 1
    assert step.error.startswith("its container failed: ")
    assert "no-such-program" in step.error


def test_an_image_that_cannot_be_had_is_a_users_mistake(tmp_path: Path) -> None:
    image = "localhost/retrain-nowhere:1"
    ended = retrain("run", "--runner", "docker", "--image", image, folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: image {image} cannot be pulled (")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--learning-rate", "1e30", "--epochs", "3"], 1, "error: train: "),
        (["--source", "/nowhere"], 2, "error: plan: source '/nowhere' does not exist"),
    ],
)
def test_a_step_that_fails_in_its_container_fails_the_run_with_its_sentence_and_code(
    flags: list[str], code: int, sentence: str, idx_folder: Path, tmp_path: Path, nothing_left: None
) -> None:
    ended = retrain("run", "--runner", "docker", "--source", idx_folder, *flags, folder=tmp_path)
    assert ended.returncode == code, ended.stdout
    assert ended.stderr.startswith(sentence)
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_and_removes_the_container(
    number: signal.Signals, idx_folder: Path, tmp_path: Path, nothing_left: None
) -> None:
    command = [RETRAIN, "run", "--runner", "docker", "--source", str(idx_folder), "--epochs", "100000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        while not re.match(r"train +epoch", line := process.stdout.readline()):
            assert line, process.communicate()
        process.send_signal(number)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert error == "error: interrupted; nothing half-written was left in the store\n"
    assert list(tmp_path.rglob("checkpoints/*.safetensors"))  # it was told to stop, and did not have to be killed
    assert [path for path in tmp_path.rglob("*") if "aside" in path.name] == []


@pytest.mark.skipif(os.cpu_count() == 1, reason="on one core the workers run one after the other")
def test_an_interrupt_stops_and_removes_the_containers_of_all_the_workers(tmp_path: Path, nothing_left: None) -> None:
    for number, image in enumerate(drawn_images(1, seed=0)[0]):
        (tmp_path / "tree" / str(number)).mkdir(parents=True)
        Image.fromarray(image).save(tmp_path / "image.png")
        for copy in range(4_000):  # 40,000 files are two chunks
            os.link(tmp_path / "image.png", tmp_path / "tree" / str(number) / f"{copy}.png")
        (tmp_path / "image.png").unlink()
    command = [RETRAIN, "run", "--runner", "docker", "--source", str(tmp_path / "tree"), "--ingest-workers", "2"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        started: set[str] = set()
        while len(started) < 2:
            line = process.stdout.readline()
            assert line, process.communicate()
            started |= set(re.findall(r"^shard ./2(?= +started$)", line))
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert error == "error: interrupted; nothing half-written was left in the store\n"


def test_sigterm_reaches_python_through_the_entry_point(
    client: docker.DockerClient, tiny_dataset: Path, tmp_path: Path
) -> None:
    volumes = {str(tmp_path / name): {"bind": f"/data/{name}", "mode": "ro"} for name in ("dataset", "store")}
    flags = ["--dataset", "/data/dataset", "--store", "/data/store", "--epochs", "100000"]
    outputs = [f"--{name}=/tmp/{name}" for name in ("model", "metrics", "curves")]
    command = ["components.train", *flags, *outputs]
    often = {"RETRAIN_PROGRESS_SECONDS": "0.2"}
    container = client.containers.run(TRAIN_IMAGE, command, detach=True, environment=often, volumes=volumes, **CONFINED)
    try:
        log = container.logs(stream=True, follow=True)
        assert any(b"epoch" in chunk for chunk in log)
        container.stop(timeout=30)
        assert b"Traceback" not in b"".join(log)
        assert container.wait()["StatusCode"] == 128 + signal.SIGTERM  # it did not have to be killed
    finally:
        container.remove(force=True)


@pytest.mark.parametrize(("name", "image"), STEPS.items())
def test_every_step_answers_without_a_network_and_with_a_read_only_root(
    name: str, image: str, client: docker.DockerClient
) -> None:
    assert contained(client, image, f"components.{name}", "--help").startswith(f"usage: python -m components.{name} ")
    as_in_a_pod = contained(client, image, "-m", f"components.{name}", "--help", entrypoint=["python3"])
    assert as_in_a_pod.startswith("usage: ")


CONTENT = """
import os, pathlib, shutil
print(os.getuid(), os.getgid())
print([name for name in ("pip", "pip3", "curl") if shutil.which(name, path="/venv/bin")]
    + [name for name in ("g++", "make", "git", "curl") if shutil.which(name)])
print([place for place in ("/root/.cache", "/tmp/.cache", "/etc/pip.conf", "/build", "/wheels", "/run/secrets")
    if os.path.exists(place) and os.listdir(place)])
print(sorted(path.name for path in pathlib.Path("/retrain").iterdir()))
"""


@pytest.mark.parametrize(("image", "tools"), [(SMALL_IMAGE, []), (TRAIN_IMAGE, ["g++"])])
def test_an_image_has_no_tool_of_the_build_no_cache_and_nothing_but_the_steps(
    image: str, tools: list[str], client: docker.DockerClient
) -> None:
    printed = contained(client, image, "-c", CONTENT, entrypoint=["python3"]).splitlines()
    assert printed == [f"{USER} {USER}", str(tools), "[]", "['components']"]


COMPILING = """
import torch
network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
images = torch.rand(2, 1, 8, 8)
compiled = torch.compile(network)(images)
print(torch.allclose(compiled, network(images), atol=1e-5))
"""


def test_torch_compile_works_where_the_image_trains(tmp_path: Path, nothing_left: None) -> None:
    step, shown = executed(tmp_path, COMPILING, TRAIN_IMAGE)
    assert (step.code, shown[-1]) == (0, "True"), shown


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_says_nothing_secret(image: str, client: docker.DockerClient) -> None:
    found = client.images.get(image)
    told = [*found.attrs["Config"]["Env"], *(layer["CreatedBy"] for layer in found.history())]
    assert [text for text in told if re.search(r"(?i)aws_|passw|token|secret|pip\.conf|index.url", text)] == []
    assert found.attrs["Config"]["User"] == f"{USER}:{USER}"


def test_the_small_image_is_small(client: docker.DockerClient) -> None:
    assert client.images.get(SMALL_IMAGE).attrs["Size"] <= 700e6
