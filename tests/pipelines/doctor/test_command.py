"""`retrain doctor`: what it prints and how it ends."""

import json
import socket
from pathlib import Path

import pytest

from pipelines.cli.doctor import needs
from pipelines.kubeflow import Kubeflow
from pipelines.settings import STOCK
from pipelines.transport import Connection
from tests.commands import retrain
from tests.servers.kfp import FakeKubeflow
from tests.servers.kubernetes import FakeKubernetes

MACHINE = {"python", "torch", "cores", "memory", "disk", "store", "conditional PUT", "clock"}


@pytest.mark.slow
def test_a_machine_that_is_well_ends_with_0_and_is_left_as_it_was(tmp_path: Path) -> None:
    ended = retrain("doctor", folder=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("this machine\n  ok       python ")
    assert "the cluster" not in ended.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_failed_is_said_with_what_to_do_and_ends_with_1(tmp_path: Path) -> None:
    ended = retrain("doctor", "--store", "/dev/null/store", folder=tmp_path)
    assert ended.returncode == 1
    said = ended.stdout.splitlines()
    line = next(line for line in said if line.startswith("  failed   store "))
    assert "/dev/null/store cannot be written (Not a directory)" in line
    assert said[said.index(line) + 1].strip() == "give another --store"


@pytest.mark.slow
def test_a_host_makes_it_look_at_the_cluster_too(
    kubeflow_server: FakeKubeflow, kubernetes_server: FakeKubernetes, tmp_path: Path
) -> None:
    kubernetes_server.add("namespaces", "kfp")
    flags = ("--host", kubeflow_server.url, "--kfp-namespace", "kfp", "--json")
    ended = retrain("doctor", *flags, folder=tmp_path)
    found = {(finding["area"], finding["name"]): finding for finding in json.loads(ended.stdout)}
    assert {name for area, name in found if area == "this machine"} == MACHINE
    assert found["the cluster", "kfp version"]["state"] == "ok"
    assert found["the cluster", "secret"] == {
        "area": "the cluster",
        "name": "secret",
        "state": "failed",
        "seen": "there is no secret 'mlpipeline-minio-artifact' in namespace 'kfp'",
        "advice": "create it, or name another, or none for web identity, in the settings",
    }
    assert ended.returncode == 1


@pytest.mark.parametrize(("multi_user", "own", "pods"), [(False, "ci", "kfp"), (True, "ci", "ci"), (True, "", "kfp")])
def test_what_a_run_needs_is_looked_for_where_its_pods_will_be(
    multi_user: bool, own: str, pods: str, kubeflow_server: FakeKubeflow
) -> None:
    kubeflow_server.multi_user = multi_user
    kubeflow = Kubeflow(Connection(host=kubeflow_server.url, namespace=own))
    assert needs(kubeflow, STOCK, "kfp").namespace == pods


def test_where_kubeflow_does_not_answer_it_is_taken_for_one_of_several_users() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        host = f"http://127.0.0.1:{taken.getsockname()[1]}"
        kubeflow = Kubeflow(Connection(host=host, namespace="ci", pauses=()))
        assert needs(kubeflow, STOCK, "kfp").namespace == "ci"


def test_a_host_that_is_no_url_is_a_users_mistake(tmp_path: Path) -> None:
    ended = retrain("doctor", "--host", "kubeflow.example.com", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: --host must be a URL")
