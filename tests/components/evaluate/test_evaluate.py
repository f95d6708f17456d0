import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kfp.dsl import ClassificationMetrics

from components.dataset.manifest import Manifest, read_manifest
from components.dataset.shards import read_split
from components.evaluate.evaluate import evaluate
from components.evaluate.interface import Evaluate
from components.models import artifact
from components.models.config import ModelConfig
from components.registry import Version, promote, publish
from components.step import StepError, UserError
from components.storage import DirectoryStore
from components.verdict import read_verdict

OUTPUTS = ("verdict", "metrics", "confusion", "report")


@pytest.fixture
def step(tiny_dataset: Path, tiny_model: Path, store: DirectoryStore, tmp_path: Path) -> Evaluate:
    """Evaluates the tiny model on the tiny dataset; the outputs go to a folder of their own."""
    outputs: dict[str, Any] = {name: tmp_path / "outputs" / name for name in OUTPUTS}
    return Evaluate(dataset=tiny_dataset, model=tiny_model, store=store.uri, min_accuracy=0.2, **outputs)


def other_model(directory: Path, manifest: Manifest, **changes: Any) -> Path:
    """An untrained model, for this dataset unless `changes` to its config say otherwise."""
    options = {"activation": "relu", "pooling": "max", "bias": True}
    shape = (28, 28, manifest.shape[2])
    config = ModelConfig("lenet5", options, manifest.classes, shape, manifest.mean, manifest.std, manifest.digest, {})
    config = replace(config, **changes)
    torch.manual_seed(0)
    artifact.save(directory, artifact.build(config), config, [])
    return directory


def crown(store: DirectoryStore, model: Path, **facts: Any) -> Version:
    """Publishes a model, of which the registry knows these facts, and makes it champion."""
    files = {name: model / name for name in ("weights.safetensors", "config.json", "curve.json")}
    version = publish(store, "mnist", files, facts)
    assert promote(store, version, over=None)
    return version


def command(step: Evaluate) -> list[str]:
    """The step as a process."""
    paths = [f"--{name}={getattr(step, name)}" for name in ("dataset", "model", "store", *OUTPUTS)]
    return [sys.executable, "-m", "components.evaluate", *paths, f"--min-accuracy={step.min_accuracy}"]


def test_the_verdict_says_how_many_test_images_were_predicted_rightly(step: Evaluate, store: DirectoryStore) -> None:
    manifest = read_manifest(step.dataset)
    images, labels = read_split(store, manifest, "test")
    classifier, _ = artifact.load(step.model)
    with torch.inference_mode():
        right = classifier(torch.from_numpy(images)).argmax(1).numpy() == labels

    evaluate(step)
    verdict = read_verdict(step.verdict)
    assert verdict.accepted
    assert verdict.accuracy == right.mean()
    assert verdict.test_images == np.sum(verdict.confusion) == len(labels)
    assert np.trace(verdict.confusion) == right.sum()
    assert [row["images"] for row in verdict.per_class] == [20] * 10
    assert (verdict.dataset, verdict.test_digest) == (manifest.digest, manifest.split_digests["test"])
    assert verdict.champion is None


def test_the_files_hold_what_the_user_interface_is_told(step: Evaluate) -> None:
    metadata = evaluate(step)
    assert json.loads(step.metrics.read_text()) == metadata["metrics"]
    assert json.loads(step.confusion.read_text()) == metadata["confusion"]
    assert metadata["metrics"]["accuracy"] == pytest.approx(read_verdict(step.verdict).accuracy, abs=1e-6)
    assert all(isinstance(figure, (int, float)) for figure in metadata["metrics"].values())
    assert "test accuracy" in step.report.read_text()
    assert sorted(path.name for path in step.report.parent.iterdir()) == sorted(OUTPUTS)


def test_the_confusion_matrix_is_what_kfp_itself_would_record(step: Evaluate) -> None:
    metadata = evaluate(step)
    verdict = read_verdict(step.verdict)
    kfp = ClassificationMetrics()
    kfp.log_confusion_matrix([row["class"] for row in verdict.per_class], [list(row) for row in verdict.confusion])
    assert metadata["confusion"] == kfp.metadata


def test_a_model_that_is_not_good_enough_is_rejected_and_still_reported(step: Evaluate) -> None:
    evaluate(replace(step, model=other_model(step.report.parent.parent / "untrained", read_manifest(step.dataset))))
    verdict = read_verdict(step.verdict)
    assert not verdict.accepted
    assert verdict.reasons[0].endswith("is below min_accuracy, 20 %.")
    assert "Rejected" in step.report.read_text()


def test_a_champion_judged_on_the_same_test_split_keeps_its_figure(step: Evaluate, store: DirectoryStore) -> None:
    manifest = read_manifest(step.dataset)
    known = {"accuracy": 0.123, "test_digest": manifest.split_digests["test"], "classes": manifest.classes}
    crown(store, step.model, **known)
    evaluate(step)
    verdict = read_verdict(step.verdict)
    assert verdict.champion == {"version": 1, "accuracy": 0.123}  # not measured anew
    assert verdict.accepted
    assert verdict.reasons[1] == "It beats the champion's 12.3 % (version 1)."


def test_a_champion_judged_on_another_test_split_is_evaluated_on_this_one(
    step: Evaluate, store: DirectoryStore
) -> None:
    classes = read_manifest(step.dataset).classes
    crown(store, step.model, accuracy=0.123, test_digest="another", classes=classes)
    metadata = evaluate(step)
    verdict = read_verdict(step.verdict)
    assert verdict.accepted
    assert verdict.champion == {"version": 1, "accuracy": verdict.accuracy}
    assert verdict.reasons[1].startswith("It equals the champion's")
    assert metadata["metrics"]["champion_accuracy"] == metadata["metrics"]["accuracy"]


def test_a_champion_of_other_classes_is_not_compared(step: Evaluate, store: DirectoryStore, tmp_path: Path) -> None:
    manifest = read_manifest(step.dataset)
    letters = tuple("ABCDEFGHIJ")
    model = other_model(tmp_path / "letters", manifest, classes=letters)
    crown(store, model, accuracy=1.0, test_digest=manifest.split_digests["test"], classes=letters)
    evaluate(step)
    verdict = read_verdict(step.verdict)
    assert verdict.accepted
    assert verdict.champion == {"version": 1, "accuracy": None}
    assert "it knows 'A', 'B', 'C', 'D', 'E' and 5 more, which the dataset lacks" in verdict.reasons[1]


def test_a_champion_whose_weights_are_gone_stops_the_judgement(step: Evaluate, store: DirectoryStore) -> None:
    version = crown(store, step.model, accuracy=0.5, test_digest="another", classes=read_manifest(step.dataset).classes)
    (store.root / version.files["weights.safetensors"]).unlink()
    with pytest.raises(StepError, match=r"weights.safetensors is gone from store"):
        evaluate(step)
    assert not step.verdict.exists()


def test_a_model_for_other_classes_is_refused(step: Evaluate, tmp_path: Path) -> None:
    model = other_model(tmp_path / "letters", read_manifest(step.dataset), classes=("A", "B"))
    with pytest.raises(UserError, match=r"cannot be judged on this dataset, because it does not know '0', '1'"):
        evaluate(replace(step, model=model))


def test_a_model_for_images_of_another_size_is_refused(step: Evaluate, tmp_path: Path) -> None:
    model = other_model(tmp_path / "large", read_manifest(step.dataset), shape=(32, 32, 1))
    with pytest.raises(UserError, match=r"images of 32 x 32 x 1 and those of the dataset are 28 x 28 x 1"):
        evaluate(replace(step, model=model))


def test_a_model_that_answers_nan_fails(step: Evaluate, tmp_path: Path) -> None:
    classifier, config = artifact.load(step.model)
    with torch.no_grad():
        next(classifier.parameters()).fill_(float("nan"))
    artifact.save(tmp_path / "broken", classifier, config, [])
    with pytest.raises(StepError, match=r"the model answers NaN for 64 of 64 images"):
        evaluate(replace(step, model=tmp_path / "broken"))


def test_a_damaged_shard_is_named(step: Evaluate, store: DirectoryStore) -> None:
    for shard in read_manifest(step.dataset).shards:
        (store.root / shard.key).write_bytes(b"damaged")
    with pytest.raises(StepError, match=r"datasets/shards/[0-9a-f]{64}"):
        evaluate(step)


@pytest.mark.parametrize("limit", [{"min_accuracy": 1.1}, {"min_accuracy": float("nan")}, {"max_drop": -0.1}])
def test_limits_outside_of_zero_to_one_are_refused(step: Evaluate, limit: dict[str, Any]) -> None:
    ((name, value),) = limit.items()
    with pytest.raises(UserError, match=rf"{name} must lie between 0 and 1, not {value!r}"):
        replace(step, **limit)


@pytest.mark.slow
def test_as_a_process_it_tells_kfp_the_metrics_and_leaves_the_files(step: Evaluate, tmp_path: Path) -> None:
    listed = {name: {"artifacts": [{"name": name, "uri": str(getattr(step, name))}]} for name in OUTPUTS}
    told = {"outputs": {"artifacts": listed, "outputFile": str(tmp_path / "executor_output.json")}}
    finished = subprocess.run(
        [*command(step), "--executor-input", json.dumps(told)], capture_output=True, text=True, check=True
    )
    assert finished.stdout.startswith("accepted: The test accuracy of ")
    output = json.loads((tmp_path / "executor_output.json").read_text())["artifacts"]
    assert output["metrics"]["artifacts"][0]["metadata"] == json.loads(step.metrics.read_text())
    assert output["confusion"]["artifacts"][0]["metadata"] == json.loads(step.confusion.read_text())


@pytest.mark.slow
def test_as_a_process_it_says_a_mistake_in_one_sentence(step: Evaluate) -> None:
    finished = subprocess.run(
        command(replace(step, model=Path("/absent"))), capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2
    assert re.fullmatch(r"error: .*/absent.*\n", finished.stderr)


@pytest.mark.slow
def test_interrupted_it_leaves_nothing(step: Evaluate) -> None:
    # A pipe in place of the curve holds the process when all is computed and nothing is written.
    (step.model / "curve.json").unlink()
    os.mkfifo(step.model / "curve.json")
    with subprocess.Popen(command(step), stderr=subprocess.PIPE, text=True) as process:
        held = wait_for_reader(step.model / "curve.json")
        # Not in the instant that it is let in: a signal between Python's last look and the system call that reads
        # leaves that call waiting.
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            os.close(held)  # lets go of it, whatever happened
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted; nothing half-written was left behind"
    assert not step.report.parent.exists()


def wait_for_reader(pipe: Path) -> int:
    for _ in range(600):
        try:
            # Opens only when the other end is open for reading: fifo(7).
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"nobody reads {pipe}")


@pytest.mark.slow
def test_on_a_full_disk_it_fails_and_leaves_no_half_of_a_report(step: Evaluate) -> None:
    # A limit on the size of files stops the process where a full disk would: in the middle of the largest.
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *command(step)]
    finished = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("error: File too large")
    assert "report" not in [path.name for path in step.report.parent.iterdir()]
    assert not list(step.report.parent.glob(".aside-*"))
