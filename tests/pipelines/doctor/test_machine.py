"""What the doctor sees of a machine and a store; each failure is provoked for real."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from components.storage import S3Store
from pipelines.doctor import machine
from pipelines.doctor.finding import Check, Finding, examine
from tests.servers.moto import Quiet, moto_server


def states(found: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.state for finding in found}


def stored(uri: str) -> list[Finding]:
    found = examine([Check("store", lambda: machine.stored(uri))], seconds=30)
    assert all(bool(finding.advice) == (finding.state != "ok") for finding in found)
    return found


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server on loopback."""
    with server() as url:
        yield url


@pytest.fixture
def environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"ENDPOINT_URL": s3_server, "REGION": "us-east-1", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}
    for name, value in variables.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture
def bucket(environment: None) -> S3Store:
    store = S3Store(f"s3://{uuid4()}/a/prefix")
    store.client.make_bucket(store.bucket)
    return store


def test_a_directory_is_well_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    assert states(stored(str(tmp_path / "new" / "store"))) == {"store": "ok", "conditional PUT": "ok", "clock": "ok"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["/dev/null/store", "/proc/store"])
def test_a_directory_that_cannot_be_written_fails(uri: str) -> None:
    (found,) = stored(uri)
    assert (found.name, found.state) == ("store", "failed")
    assert uri in found.seen
    assert "--store" in found.advice


def test_a_bucket_is_well_and_nothing_is_left_in_it(bucket: S3Store) -> None:
    assert states(stored(bucket.uri)) == {"store": "ok", "conditional PUT": "ok", "clock": "ok"}
    assert list(bucket.keys("")) == []


def test_a_bucket_that_is_missing_is_named(environment: None) -> None:
    store, clock = stored("s3://no-such-bucket")
    assert (store.state, clock.state) == ("failed", "ok")
    assert "'no-such-bucket' does not exist" in store.seen


def test_a_server_that_ignores_conditions_is_found_out(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(ignoring="If-None-Match") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found = {finding.name: finding for finding in stored(bucket.uri)}
    assert found["store"].state == "ok"
    assert found["conditional PUT"].state == "warning"
    assert found["conditional PUT"].seen.startswith("ignored")


def test_a_server_whose_clock_is_wrong_is_found_out(bucket: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with server(seconds_behind=3600) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        found = {finding.name: finding for finding in stored(bucket.uri)}
    assert found["clock"].state == "failed"
    assert re.match(r"36\d\d s ahead of", found["clock"].seen)


@pytest.mark.parametrize(
    ("endpoint", "sentence"),
    [
        ("http://127.0.0.1:1", "nobody answers at http://127.0.0.1:1 ("),
        ("http://no-such-host.invalid", "nobody answers at http://no-such-host.invalid ("),
    ],
)
def test_an_endpoint_where_nobody_listens_is_told_at_once(
    endpoint: str, sentence: str, environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    (found,) = stored("s3://bucket")
    assert (found.name, found.state) == ("store", "failed")
    assert found.seen.startswith(sentence)
    assert "AWS_ENDPOINT_URL" in found.advice


def test_an_endpoint_that_is_no_s3_server_is_told(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        threading.Thread(target=answer_twice, args=(mute,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{mute.getsockname()[1]}")
        (found,) = stored("s3://bucket")
    assert "does not answer like an S3 server" in found.seen


def answer_twice(server: socket.socket) -> None:
    """Answers the doctor's two connections with what no HTTP client understands."""
    for _ in range(2):
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_credentials_that_are_missing_are_told(
    bucket: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = stored(bucket.uri)[0]
    assert found.state == "failed"
    assert "AWS_ACCESS_KEY_ID" in found.advice


@pytest.mark.slow
def test_torch_fits_torchvision_here() -> None:
    (found,) = machine.torch()
    assert found.state == "ok"
    assert "fits torchvision" in found.seen


@pytest.mark.parametrize(
    ("torchvision", "torch", "seen"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "__version__ = '2'", "torchvision::nms"),
        ("", "import os; os.kill(os.getpid(), 9)", "exit code -9"),
        ("", "raise ImportError('libcudart.so.13: cannot open shared object file')", "libcudart"),
    ],
)
def test_a_torch_that_is_broken_is_found_out(
    torchvision: str, torch: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision.py").write_text(torchvision)
    (tmp_path / "torch.py").write_text(torch)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = machine.torch()
    assert found.state == "failed"
    assert seen in found.seen
    assert "constraints.txt" in found.advice


def test_a_machine_without_torch_is_only_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")  # Debian's, which has no torch
    (found,) = machine.torch()
    assert (found.state, found.seen) == ("warning", "not installed")
    assert "retrain[local]" in found.advice


def test_a_single_core_is_warned_of() -> None:
    command = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
    command += "from pipelines.doctor.machine import cores; print(cores()[0].state, cores()[0].seen)"
    child = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert child.stdout == "warning 1\n"


def test_memory_is_what_is_available(tmp_path: Path) -> None:
    assert machine.memory()[0].seen.endswith("GiB available")
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       16000000 kB\nMemAvailable:    1000000 kB\n")
    (found,) = machine.memory(meminfo)
    assert (found.state, found.seen) == ("warning", "1.0 GiB available")


def test_a_container_has_the_cores_and_the_memory_that_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.loader.machine.CGROUPS", tmp_path)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**29}\n")
    (tmp_path / "meminfo").write_text("MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n")
    for meminfo in (tmp_path / "meminfo", tmp_path / "none"):
        assert machine.memory(meminfo)[0].seen.startswith("0.5 GiB")
    assert [finding.seen for finding in machine.cores()] == ["1"]


def test_a_disk_without_room_fails() -> None:
    (found,) = machine.disk(Path("/proc/store"))  # a file system that never has any
    assert (found.state, found.seen) == ("failed", "0.0 GiB free at /proc")


def test_the_disk_is_the_one_that_a_new_store_would_be_on(tmp_path: Path) -> None:
    (found,) = machine.disk(tmp_path / "new" / "store")
    assert found.seen.endswith(f"GiB free at {tmp_path}")


@contextmanager
def server(ignoring: str = "", seconds_behind: float = 0.0) -> Iterator[str]:
    """The URL of an S3 server with a fault: a request header that it does not see, or a clock that is wrong."""

    class Handler(Quiet):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() - seconds_behind)

    with moto_server(ignoring, Handler) as url:
        yield url
