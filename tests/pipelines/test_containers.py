"""Running steps in containers, as far as that can be told without any; tests/test_containers.py has the rest."""

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import docker
import pytest

from components.step import UserError
from pipelines.containers import Containers, lend
from pipelines.local import StepRun
from pipelines.placement import USER
from pipelines.terminal import Terminal, lines
from tests.commands import retrain
from tests.servers.loopback import Loopback, Reply, Request


@pytest.mark.parametrize(
    "chunks",
    [
        [b"uid 65532\nzw\xc3\xb6lf\n"],
        [b"uid", b" 65532", b"\n", b"zw\xc3", b"\xb6lf\n"],
        [b"uid 65532\nzw\xc3\xb6", b"lf"],
        [b"", b"uid 65532\nz", b"", b"w\xc3\xb6lf\n"],
    ],
)
def test_a_log_that_comes_in_chunks_is_read_line_by_line(chunks: list[bytes]) -> None:
    assert list(lines(chunks)) == ["uid 65532", "zwölf"]


def test_bytes_that_are_no_utf_8_do_not_end_a_run() -> None:
    assert list(lines([b"\xff\n"])) == ["\N{REPLACEMENT CHARACTER}"]


@pytest.mark.slow
def test_without_a_daemon_nothing_starts_and_one_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    ended = retrain("run", "--runner", "docker", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: no Docker daemon answers at unix://{tmp_path}/nobody.sock (")
    assert ended.stderr.endswith("; start Docker, or podman's socket, and name it in DOCKER_HOST\n")
    assert len(ended.stderr.splitlines()) == 1


def test_an_image_for_processes_is_a_users_mistake(tmp_path: Path) -> None:
    ended = retrain("run", "--image", "retrain:1", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --image retrain:1 needs --runner docker; a process has no image\n"


class Engine(Loopback):
    """A container engine that tells what it is."""

    def __init__(self, **told: Any) -> None:
        super().__init__()
        self.told = told

    def answer(self, request: Request) -> Reply:
        return Reply(200, {"ApiVersion": "1.44"} if request.path.endswith("/version") else self.told)


@pytest.mark.parametrize(
    ("told", "user"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=default"]}, f"{os.getuid() or USER}:{os.getgid() or USER}"),
        ({"SecurityOptions": None}, f"{os.getuid() or USER}:{os.getgid() or USER}"),
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}, "0:0"),  # Docker's
        ({"SecurityOptions": ["name=seccomp,profile=default"], "Rootless": True}, "0:0"),  # podman's
    ],
)
def test_root_in_a_rootless_engine_is_its_user(
    told: dict[str, Any], user: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(**told) as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url.replace("http:", "tcp:"))
        assert Containers(tmp_path).user == user


def test_a_folder_of_ones_own_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lend(tmp_path, os.getuid())
    assert tmp_path.stat().st_uid == os.getuid()


def test_a_folder_that_the_containers_cannot_write_to_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as refusal:
        lend(tmp_path, os.getuid() + 1)
    assert str(refusal.value).startswith(f"{tmp_path} belongs to user {os.getuid()}, and the containers run as user ")
    assert f"chown -R {os.getuid() + 1}:{os.getuid() + 1} {tmp_path}" in str(refusal.value)


class Silent(Engine):
    """An engine that answers for the log, as podman does, when the container has said something: after 0.5 s."""

    def answer(self, request: Request) -> Reply:
        place = request.path.partition("/containers")[2]
        if place == "/1234/logs":
            time.sleep(0.5)
            return Reply(200, iter(["\x01\0\0\0\0\0\0\x06hello\n"]))
        answers = {
            "/create": Reply(201, {"Id": "1234"}),
            "/1234/json": Reply(200, {"Id": "1234", "Config": {"Tty": False}}),
            "/1234/start": Reply(204, ""),
            "/1234/wait": Reply(200, {"StatusCode": 0}),
            "/1234": Reply(204, ""),
        }
        return answers.get(place) or super().answer(request)


@pytest.mark.slow
def test_a_container_may_be_silent_for_longer_than_the_engine_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, shown = StepRun("probe", "", tmp_path), io.StringIO()
    with Silent() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url.replace("http:", "tcp:"))
        monkeypatch.setattr("pipelines.containers.connect", lambda: docker.from_env(timeout=0.25))
        Containers(tmp_path).execute(["python3"], {}, step, Terminal(shown))
    assert (step.code, shown.getvalue()) == (0, "probe     hello\n")


def test_an_engine_that_breaks_the_connection_off_fails_the_step_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = StepRun("probe", "", tmp_path)
    with Silent() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url.replace("http:", "tcp:"))
        engine.drop("before", path="/1234/start$")
        Containers(tmp_path).execute(["python3"], {}, step, Terminal(io.StringIO()))
    assert step.code == 1
    assert step.error.startswith("its container failed: ('Connection aborted.'")


class Interrupting(Engine):
    """An engine whose answer to a creation comes with an interrupt."""

    def answer(self, request: Request) -> Reply:
        if request.path.endswith("/containers/create"):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            return Reply(201, {"Id": "1234"})
        return Reply(200, {"Id": "1234"}) if request.path.endswith("/1234/json") else super().answer(request)


def test_an_interrupt_while_a_container_is_created_removes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Interrupting() as engine:
        monkeypatch.setenv("DOCKER_HOST", engine.url.replace("http:", "tcp:"))
        containers = Containers(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            containers.execute(["python3"], {}, StepRun("probe", "", tmp_path), Terminal(io.StringIO()))
        asked = [f"{request.method} {request.path.partition('/containers')[2]}" for request in engine.log]
    assert asked[-1] == "DELETE /1234"
    assert "POST /1234/start" not in asked
