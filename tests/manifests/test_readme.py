"""The README's commands name what exists, in versions that are pinned in one place."""

import re
import shlex
from importlib.metadata import version

import click
import pytest

from pipelines.cli import main
from pipelines.settings import SMALL_IMAGE, TRAIN_IMAGE, read_settings
from tests.manifests.rendered import MANIFESTS, NEWEST, OLDEST, OVERLAYS

README = (MANIFESTS / "README.md").read_text()
ROOT = MANIFESTS.parent

BLOCKS = "\n".join(re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)).replace("\\\n", " ")
COMMANDS = [line for line in BLOCKS.splitlines() if line and not line.startswith("#")]
OURS = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("retrain ")]


def test_every_file_and_folder_that_the_readme_names_exists() -> None:
    in_commands = re.findall(r"(?<![\w/.-])(?:manifests|docker)/[\w./-]+", README)
    in_text = re.findall(r"`((?:base|components|overlays)(?:/[\w.-]+)*|[\w-]+\.toml)`", README)
    assert len(in_commands) > 10
    assert len(in_text) > 10
    assert [path for path in in_commands if not (ROOT / path).exists()] == []
    assert [path for path in in_text if not (MANIFESTS / path).exists()] == []


def test_every_overlay_is_applied_by_a_command() -> None:
    assert [name for name in OVERLAYS if f"kubectl apply -k manifests/overlays/{name}" not in COMMANDS] == []


def test_kubeflow_pipelines_and_trainer_are_pinned_once_to_the_versions_of_their_packages() -> None:
    assert re.findall(r"^export KFP=(.+)$", README, re.M) == [version("kfp")]
    assert re.findall(r"^export TRAINER=(.+)$", README, re.M) == [version("kubeflow_trainer_api")]
    assert re.findall(r"\?ref=(v?\$\w+)", README) == ["$KFP", "$KFP", "v$TRAINER", "v$TRAINER"]
    assert README.count("?ref=") == 4


def test_the_cluster_that_is_made_is_the_newest_that_is_tested() -> None:
    assert re.findall(r"kindest/node:v(\d+\.\d+)\.\d+", README) == [NEWEST]
    assert f"Kubernetes {OLDEST} and {NEWEST}" in README


def test_the_images_that_are_built_are_those_of_the_settings() -> None:
    assert set(re.findall(r"ghcr\.io/retrain/[\w.:-]+", README)) == {SMALL_IMAGE, TRAIN_IMAGE}


def test_every_environment_is_in_the_settings() -> None:
    environments = set(re.findall(r"--environment (\w+)", README))
    assert environments == {"kind", "minio", "production"}
    for name in environments:
        read_settings(MANIFESTS / "settings.toml", name)


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_every_command_of_ours_takes_the_flags_it_is_given(words: list[str]) -> None:
    assert isinstance(main, click.Group)
    command = main.get_command(click.Context(main), words[0])
    assert command is not None, words[0]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_no_command_shows_a_secret() -> None:
    literals = re.findall(r"--from-literal=(\w+)=(\S+)", README)
    assert [name for name, value in literals if "SECRET" in name and not value.startswith('"$(')] == []
