"""`retrain models` as a user types it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from components.models import ARCHITECTURES
from pipelines.cli import main
from tests.commands import RETRAIN, retrain


def test_every_named_network_is_listed_with_its_figures(tmp_path: Path) -> None:
    shown = retrain("models", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["NAME", "PARAMETERS", "GFLOPS", "INPUT", "SMALLEST", "LICENCE", "FROM", "PAPER"]
    cells = {row.split()[0]: row.split()[1:] for row in rows[: len(ARCHITECTURES)]}
    assert list(cells) == list(ARCHITECTURES)
    assert " ".join(cells["resnet50"]) == "25.6 M 4.09 224x224 1 Apache-2.0 timm resnet50 2015"
    assert " ".join(cells["squeezenet"]) == "1.24 M 0.349 224x224 17 BSD-3-Clause torchvision squeezenet1_1 2016"
    assert "timm/NAME" in shown.stdout


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_network_is_explained_with_its_paper_and_what_to_do(name: str) -> None:
    shown = CliRunner().invoke(main, ["models", name]).output
    for told in (ARCHITECTURES[name].paper.title, "grey images", "--start pretrained", f"--architecture {name}\n"):
        assert told in shown


@pytest.mark.slow
def test_programs_get_json(tmp_path: Path) -> None:
    listed = json.loads(retrain("models", "--json", folder=tmp_path).stdout)
    assert [one["name"] for one in listed] == list(ARCHITECTURES)
    one = json.loads(retrain("models", "inception_v4", "--json", folder=tmp_path).stdout)
    assert (one["parameters"], one["side"], one["smallest"], one["licence"]) == (42_679_816, 299, 75, "Apache-2.0")


@pytest.mark.slow
def test_a_network_of_a_library_is_looked_up_there(tmp_path: Path) -> None:
    shown = retrain("models", "timm/resnet26", folder=tmp_path).stdout
    assert "15,995,176 parameters" in shown
    assert "2.34 GFLOPs for an image of 224x224" in shown
    assert "  timm resnet26 (Apache-2.0)\n" in shown
    assert "`hf download timm/resnet26.bt_in1k model.safetensors`, then " in shown
    assert "--start pretrained; licence: apache-2.0\n" in shown
    found = json.loads(retrain("models", "torchvision/vgg11", "--json", folder=tmp_path).stdout)
    assert (found["parameters"], found["weights"], found["licence"]) == (132_863_336, None, "BSD")


@pytest.mark.slow
def test_the_paper_that_timm_names_with_weights_is_linked(tmp_path: Path) -> None:
    shown = retrain("models", "timm/resnet18", folder=tmp_path).stdout
    assert "; licence: apache-2.0; paper: https://arxiv.org/abs/2110.00476\n" in shown


@pytest.mark.slow
def test_a_name_that_the_library_has_not_is_a_users_mistake(tmp_path: Path) -> None:
    ended = retrain("models", "timm/resnt26", folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: unknown architecture 'timm/resnt26': timm ")
    assert ended.stderr.endswith("has no 'resnt26'; did you mean 'timm/resnet26'?\n")


def test_an_unknown_name_is_a_users_mistake(tmp_path: Path) -> None:
    ended = retrain("models", "resnt18", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: unknown architecture 'resnt18'; did you mean 'resnet18'? `retrain models`")


@pytest.mark.slow
def test_without_torch_the_named_networks_are_told_and_the_others_need_it(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    bare = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def ask(name: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, RETRAIN, "models", name], env=bare, capture_output=True, text=True)

    assert "11,689,512 parameters" in ask("resnet18").stdout
    refused = ask("timm/resnet26")
    assert refused.returncode == 2
    told = "error: timm/resnet26 cannot be looked up here: timm is not installed; pip install 'retrain[local]'\n"
    assert refused.stderr == told


NO_TORCH = """
import sys

finders = sys.meta_path[:]

class WithoutTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "timm", "torchvision"):
            return None
        found = (finder.find_spec(name, path, target) for finder in finders)
        return next((spec for spec in found if spec), None)

sys.meta_path[:] = [WithoutTorch()]
"""
