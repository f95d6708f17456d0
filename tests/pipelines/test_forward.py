"""The port-forward: opened when it is needed, again when it has gone, and closed at the end."""

import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import pytest

from components.step import UserError
from pipelines.connection import Options, connect
from pipelines.forward import Forward
from pipelines.transport import Unreachable
from tests.servers.kfp import FakeKubeflow
from tests.servers.kubernetes import FakeKubernetes

KUBECTL = """#!{python}
import os, socket, sys, threading
with open({log!r}, "a") as log:
    print(os.getpid(), *sys.argv[1:], file=log)
if {error!r}:
    sys.exit({error!r})
def pump(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
server = socket.create_server(("127.0.0.1", 0))
print(f"Forwarding from 127.0.0.1:{{server.getsockname()[1]}} -> 8888", flush=True)
while True:
    here, _ = server.accept()
    there = socket.create_connection(("127.0.0.1", {port}))
    threading.Thread(target=pump, args=(here, there), daemon=True).start()
    threading.Thread(target=pump, args=(there, here), daemon=True).start()
"""


class Kubectl:
    """A program of that name on PATH that forwards to a port of loopback, and says what it was called with."""

    def __init__(self, folder: Path, port: int) -> None:
        self.path = folder / "kubectl"
        self.log = folder / "calls"
        self.port = port
        self.become()

    def become(self, error: str = "") -> None:
        """From now on it forwards, or fails with this."""
        self.path.write_text(KUBECTL.format(python=sys.executable, log=str(self.log), error=error, port=self.port))
        self.path.chmod(self.path.stat().st_mode | stat.S_IXUSR)

    @property
    def calls(self) -> list[tuple[int, list[str]]]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [(int(line.split()[0]), line.split()[1:]) for line in lines]


@pytest.fixture
def kubectl(kubeflow_server: FakeKubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Kubectl(folder, kubeflow_server.port)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_without_a_host_a_port_is_forwarded_and_closed_at_the_end(kubectl: Kubectl) -> None:
    with connect(Options(context="production", kfp_namespace="kfp")) as kubeflow:
        assert kubectl.calls == []
        assert kubeflow.health().version == "2.17.0"
        ((process, arguments),) = kubectl.calls
        assert alive(process)
    assert not alive(process)
    assert arguments == [
        *("port-forward", "--address=127.0.0.1", "--namespace=kfp", "--context=production"),
        *("svc/ml-pipeline", ":8888"),
    ]


def test_the_port_is_closed_when_the_command_fails(kubectl: Kubectl) -> None:
    with pytest.raises(UserError, match="no run"), connect(Options()) as kubeflow:
        kubeflow.terminate("no run")
    ((process, _),) = kubectl.calls
    assert not alive(process)


def test_a_forward_that_has_ended_is_opened_again(kubectl: Kubectl) -> None:
    with connect(Options()) as kubeflow:
        kubeflow.count_runs()
        os.kill(kubectl.calls[0][0], signal.SIGKILL)
        assert kubeflow.count_runs() == 0
        assert len(kubectl.calls) == 2


def test_a_forward_whose_pod_has_gone_is_opened_again(kubectl: Kubectl, kubeflow_server: FakeKubeflow) -> None:
    with connect(Options()) as kubeflow:
        kubeflow_server.drop("before")
        assert kubeflow.count_runs() == 0
        assert [alive(process) for process, _ in kubectl.calls] == [False, True]


def test_why_kubectl_could_not_is_said_in_its_own_words(kubectl: Kubectl) -> None:
    kubectl.become(error='error: services "ml-pipeline" not found')
    with (
        pytest.raises(UserError, match=r"port-forward to svc/ml-pipeline in namespace 'kubeflow': services \"ml-pip.*"),
        connect(Options()) as kubeflow,
    ):
        kubeflow.health()


def test_a_forward_that_cannot_be_opened_again_leaves_the_server_unreachable(kubectl: Kubectl) -> None:
    forward = Forward("kubeflow")
    forward.url()
    forward.close()
    kubectl.become(error="error: unable to forward port because pod is not running")
    with pytest.raises(Unreachable, match="pod is not running; it was open before"):
        forward.url()


def test_the_real_kubectl_says_that_a_context_does_not_exist() -> None:
    with pytest.raises(UserError, match=r"of context 'nowhere': .*nowhere.*; check the kubeconfig, or give --host"):
        Forward("kubeflow", "nowhere").url()


def test_the_real_kubectl_says_that_the_cluster_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with FakeKubernetes() as cluster:
            path = cluster.kubeconfig(tmp_path / "kubeconfig")
        path.write_text(path.read_text().replace(str(cluster.port), str(free.getsockname()[1])))
        monkeypatch.setenv("KUBECONFIG", str(path))
        with pytest.raises(Unreachable, match=r"refused.*; check that the cluster runs, or give --host"):
            Forward("kubeflow").url()


def test_the_real_kubectl_says_that_the_service_does_not_exist(kubernetes_server: FakeKubernetes) -> None:
    kubernetes_server.add("namespaces", "kubeflow")
    with pytest.raises(
        UserError, match=r"in namespace 'kubeflow': .*services \"ml-pipeline\" not found; check the kube"
    ):
        Forward("kubeflow").url()


def test_without_kubectl_and_host_both_are_offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no --host was given and kubectl is not installed"):
        Forward("kubeflow").url()


@pytest.mark.slow
def test_a_kubectl_that_says_nothing_is_given_up(kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.forward.SECONDS", 0.1)
    kubectl.path.write_text("#!/bin/sh\nexec sleep 60\n")
    start = time.monotonic()
    with pytest.raises(Unreachable, match="no answer in"):
        Forward("kubeflow").url()
    assert time.monotonic() - start < 5
