"""The `retrain` command: flags, exit codes and sentences."""

import itertools
import json
import re
import shlex
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image

from pipelines.parameters import parameters
from tests.commands import RETRAIN, published, release, retrain
from tests.samples import drawn_images


def test_help_lists_every_command(tmp_path: Path) -> None:
    shown = retrain("--help", folder=tmp_path)
    assert shown.returncode == 0
    for command in ("run", "compile", "predict"):
        assert f"\n  {command} " in shown.stdout


def test_the_flags_of_run_are_the_pipelines_parameters(tmp_path: Path) -> None:
    shown = " ".join(retrain("run", "--help", folder=tmp_path).stdout.split())
    for field in parameters():
        assert f" {field.flag} " in shown
        assert field.help in shown


@pytest.mark.slow
def test_compile_writes_the_pipeline_and_names_the_file(tmp_path: Path) -> None:
    compiled = retrain("compile", folder=tmp_path)
    assert (compiled.returncode, compiled.stdout) == (0, "retrain.yaml\n")
    assert (tmp_path / "retrain.yaml").read_text().startswith("# PIPELINE DEFINITION\n# Name: retrain\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--architecture", "lenet"],
            "error: unknown architecture 'lenet'; did you mean 'lenet5'? `retrain models` lists all, and any other "
            "network of timm or torchvision is timm/NAME or torchvision/NAME\n",
        ),
        (
            ["--activation", "rellu"],
            "error: unknown activation 'rellu'; did you mean 'relu'? (choices: tanh, sigmoid, relu, leaky_relu)\n",
        ),
        (["--ingest-workers", "0"], "error: ingest_workers must be at least 1, not 0\n"),
        (["--test-fraction", "1"], "error: test_fraction must be between 0 and 1, not 1.0\n"),
        (["--epochs", "0"], "error: epochs must be at least 1, not 0\n"),
        (["--learning-rate", "nan"], "error: learning_rate must be 0 or a positive number, not nan\n"),
        (["--min-accuracy", "99"], "error: min_accuracy must lie between 0 and 1, not 99.0\n"),
        (
            ["--store", "gs://bucket"],
            "error: store must be a directory, file:///directory or s3://bucket/prefix, not 'gs://bucket'\n",
        ),
        (
            ["--store", "/dev/null/store"],
            "error: store '/dev/null/store' cannot be written (Not a directory); give another --store\n",
        ),
    ],
)
def test_a_users_mistake_is_told_before_anything_runs(flags: list[str], sentence: str, tmp_path: Path) -> None:
    ended = retrain("run", *flags, folder=tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", sentence)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_source_that_does_not_exist_is_a_users_mistake(tmp_path: Path) -> None:
    ended = retrain("run", "--source", "nowhere", folder=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == "error: plan: source 'nowhere' does not exist\n"
    assert published(tmp_path / "retrain-store") == []


def test_predicting_without_a_champion_says_how_to_get_one(tmp_path: Path) -> None:
    Image.new("L", (28, 28)).save(tmp_path / "digit.png")
    ended = retrain("predict", "digit.png", folder=tmp_path)
    assert ended.returncode == 2
    assert "retrain run" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "retrain-store").exists()


@pytest.mark.slow
def test_a_run_ends_in_a_champion_that_predicts(idx_folder: Path, tmp_path: Path) -> None:
    first = retrain("run", "--source", idx_folder, "--epochs", 6, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.endswith("\n\nTry next: retrain predict IMAGE.png\n")
    assert "written to the store" in first.stdout
    assert "accepted: " in first.stdout
    assert release(tmp_path / "retrain-store")["champion"]

    second = retrain("run", "--source", idx_folder, "--epochs", 6, "--seed", 1, "--max-drop", 1, folder=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "was in the store already, reused" in second.stdout
    assert release(tmp_path / "retrain-store")["version"]["number"] == 2

    images, labels = drawn_images(per_class=1, seed=3)
    for image, label in zip(images, labels, strict=True):
        Image.fromarray(image).save(tmp_path / f"{label}.png")
    names = [f"{label}.png" for label in labels]
    predicted = retrain("predict", "--json", *names, folder=tmp_path)
    found = json.loads(predicted.stdout)
    assert [set(prediction) for prediction in found] == [{"file", "label", "probability"}] * 10
    assert [prediction["file"] for prediction in found] == names
    assert sum(prediction["file"] == f"{prediction['label']}.png" for prediction in found) >= 9
    plain = retrain("predict", names[0], folder=tmp_path).stdout
    assert plain == f"{names[0]}: {found[0]['label']} ({found[0]['probability']:.1%})\n"


@pytest.mark.slow
def test_a_run_without_a_reason_ends_after_ingest_and_says_why(idx_folder: Path, tmp_path: Path) -> None:
    flags = ["--source", idx_folder, "--epochs", 1, "--min-accuracy", 0, "--condition", "changed"]
    first = retrain("run", *flags, folder=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Retraining, because there is no champion yet." in first.stdout
    again = retrain("run", *flags, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    last = again.stdout.splitlines()[-1]
    assert last.startswith("Nothing to do: dataset and code are those of the champion, version 1. Parameters are ")
    assert "\ntrain " not in again.stdout


@pytest.mark.slow
def test_a_model_below_the_limit_is_rejected_and_never_asked(idx_folder: Path, tmp_path: Path) -> None:
    flags = ["--source", idx_folder, "--epochs", 1, "--store", "my store", "--model-name", "digits"]
    ended = retrain("run", *flags, "--min-accuracy", 1, folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "\nREJECTED: " in ended.stdout
    assert not (tmp_path / "my store" / "models" / "digits" / "champion.json").exists()
    assert "Try next" not in ended.stdout  # there is nobody to ask

    def tried(ended: subprocess.CompletedProcess[str]) -> str:
        """What the command that a run shows last says of an image."""
        command = shlex.split(ended.stdout.splitlines()[-1].removeprefix("Try next: retrain "))
        return retrain(*command, folder=tmp_path).stdout

    Image.fromarray(drawn_images(per_class=1, seed=3)[0][0]).save(tmp_path / "IMAGE.png")
    accepted = retrain("run", *flags, "--min-accuracy", 0, folder=tmp_path)
    assert tried(accepted).startswith("IMAGE.png: ")
    rejected = retrain("run", *flags, "--seed", 1, "--min-accuracy", 1, folder=tmp_path)
    assert "\nREJECTED: " in rejected.stdout
    assert tried(rejected) == tried(accepted)


@pytest.mark.slow
def test_a_learning_rate_that_diverges_fails_the_run_and_publishes_no_model(idx_folder: Path, tmp_path: Path) -> None:
    flags = ["--learning-rate", "1e30", "--epochs", 3]
    ended = retrain("run", "--source", idx_folder, *flags, folder=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: train: ")
    assert "learning" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not any(path.startswith("models") for path in published(tmp_path / "retrain-store"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "number"),
    [
        *itertools.product(("plan", "shard", "ingest", "train", "evaluate", "export"), (signal.SIGINT, signal.SIGTERM)),
        ("train", signal.SIGHUP),
    ],
)
def test_an_interrupt_in_any_step_leaves_nothing_half_written(
    step: str, number: signal.Signals, idx_folder: Path, tmp_path: Path
) -> None:
    command = [RETRAIN, "run", "--source", str(idx_folder), "--epochs", "1", "--min-accuracy", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if line.split() == [step, "started"]:
                break
        time.sleep(0.3)
        process.send_signal(number)
        rest, error = process.communicate(timeout=60)
    store = tmp_path / "retrain-store"
    assert process.returncode == 128 + number, (rest, error)
    assert error == "error: interrupted; nothing half-written was left in the store\n"
    assert [path for path in store.rglob("*") if "aside" in path.name] == []
    assert not any(path.startswith("models") for path in published(store))
    again = retrain("run", "--source", idx_folder, "--epochs", 1, "--min-accuracy", 0, folder=tmp_path)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_training_that_is_ended_by_sigterm_goes_on_in_the_next_run(idx_folder: Path, tmp_path: Path) -> None:
    command = [RETRAIN, "run", "--source", str(idx_folder), "--epochs", "20", "--min-accuracy", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any(line.startswith("train     epoch 1/20") for line in process.stdout)
        process.terminate()
        _, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert error == "error: interrupted; nothing half-written was left in the store\n"
    again = retrain(*command[1:], folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert re.search(r"^train +goes on from a checkpoint after batch \d+ of epoch \d+$", again.stdout, re.M)


@pytest.mark.slow
def test_two_runs_at_once_into_one_store_both_end_well(idx_folder: Path, tmp_path: Path) -> None:
    flags = ["--source", str(idx_folder), "--epochs", "1", "--min-accuracy", "0", "--max-drop", "1"]
    commands = [[RETRAIN, "run", *flags, "--seed", seed] for seed in "12"]
    with ExitStack() as stack:
        running = [
            stack.enter_context(
                subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            for command in commands
        ]
        for process in running:
            _, error = process.communicate(timeout=300)
            assert process.returncode == 0, error
    models = tmp_path / "retrain-store" / "models" / "mnist"
    assert sorted(path.name for path in (models / "versions").iterdir()) == ["000001.json", "000002.json"]
    assert json.loads((models / "champion.json").read_text())["version"] in (1, 2)
    assert len(list((tmp_path / "retrain-store" / "datasets").glob("*.json"))) == 1
