"""`retrain doctor`: what it prints and how it ends."""

import json
from pathlib import Path

import pytest

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
    kubernetes_server.add("namespaces", "kubeflow")
    ended = retrain("doctor", "--host", kubeflow_server.url, "--json", folder=tmp_path)
    found = {(finding["area"], finding["name"]): finding for finding in json.loads(ended.stdout)}
    assert {name for area, name in found if area == "this machine"} == MACHINE
    assert found["the cluster", "kfp version"]["state"] == "ok"
    assert found["the cluster", "secret"] == {
        "area": "the cluster",
        "name": "secret",
        "state": "failed",
        "seen": "there is no secret 'mlpipeline-minio-artifact' in namespace 'kubeflow'",
        "advice": "create it, or name another, or none for web identity, in the settings",
    }
    assert ended.returncode == 1


def test_a_host_that_is_no_url_is_a_users_mistake(tmp_path: Path) -> None:
    ended = retrain("doctor", "--host", "kubeflow.example.com", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: --host must be a URL")
