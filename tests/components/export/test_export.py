"""The claims of the export step."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from components.dataset.manifest import read_manifest
from components.export.export import crown, export
from components.export.interface import Export
from components.models import artifact
from components.registry import Version, champion, promote, publish, read_file, read_version, versions
from components.step import StepError, UserError
from components.storage import DirectoryStore
from components.verdict import Verdict, read_verdict, write_verdict

FILES = {"model.onnx", "weights.safetensors", "config.json", "curve.json", "verdict.json", "report.html"}


def verdict_on(dataset: str, test_digest: str) -> Verdict:
    """An accepting verdict on a dataset, the first for its model."""
    return Verdict(
        accepted=True,
        reasons=("The test accuracy of 90 % reaches min_accuracy, 80 %.", "There is no champion yet."),
        accuracy=0.9,
        macro_precision=0.91,
        macro_recall=0.92,
        macro_f1=0.93,
        per_class=(),
        confusion=(),
        test_images=200,
        dataset=dataset,
        test_digest=test_digest,
        champion=None,
        seconds=1.0,
    )


def change_verdict(step: Export, **changes: object) -> None:
    """Replaces figures of the verdict that the step will read."""
    write_verdict(step.verdict, dataclasses.replace(read_verdict(step.verdict), **changes))  # type: ignore[arg-type]


@pytest.fixture
def step(tiny_dataset: Path, tiny_model: Path, store: DirectoryStore, tmp_path: Path) -> Export:
    """An export of a model that evaluate accepted."""
    manifest = read_manifest(tiny_dataset)
    write_verdict(tmp_path / "verdict", verdict_on(manifest.digest, manifest.split_digests["test"]))
    (tmp_path / "report").write_text("<html></html>")
    return Export(
        dataset=tiny_dataset,
        model=tiny_model,
        verdict=tmp_path / "verdict",
        report=tmp_path / "report",
        store=store.uri,
        release=tmp_path / "out" / "release",
        metrics=tmp_path / "out" / "metrics",
        summary=tmp_path / "out" / "summary",
    )


@pytest.mark.slow
def test_an_accepted_model_is_published_whole_and_becomes_champion(step: Export, store: DirectoryStore) -> None:
    export(step)
    version = champion(store, "mnist")
    assert version is not None
    assert set(version.files) == FILES
    assert read_file(store, version, "report.html") == step.report.read_bytes()
    assert read_file(store, version, "verdict.json") == step.verdict.read_bytes()
    for name in ("weights.safetensors", "config.json", "curve.json"):
        assert read_file(store, version, name) == (step.model / name).read_bytes()
    assert version.facts["accuracy"] == 0.9
    assert version.facts["test_digest"] == read_manifest(step.dataset).split_digests["test"]
    assert version.facts["classes"] == [str(digit) for digit in range(10)]


@pytest.mark.slow
def test_the_outputs_say_what_was_published_and_where(step: Export, store: DirectoryStore) -> None:
    metadata = export(step)
    release = json.loads(step.release.read_text())
    assert release["champion"]
    assert release["version"]["number"] == 1
    assert Path(release["onnx"]).read_bytes() == store.read(release["version"]["files"]["model.onnx"])
    assert Path(release["report"]).read_bytes() == step.report.read_bytes()
    assert release["parity"]["images"] == 200
    assert release["parity"]["max_difference"] <= 1e-5
    assert release["parity"]["agreement"] == 1
    assert metadata["metrics"] == json.loads(step.metrics.read_text())
    assert metadata["metrics"]["onnx_bytes"] == Path(release["onnx"]).stat().st_size
    assert metadata["metrics"]["milliseconds_per_image"] > 0
    summary = step.summary.read_text()
    for expected in ("# mnist version 1: champion", "90.00%", "There is no champion yet.", release["onnx"]):
        assert expected in summary


@pytest.mark.slow
def test_exporting_again_gives_the_same_version(step: Export, store: DirectoryStore) -> None:
    export(step)
    first = json.loads(step.release.read_text())
    export(step)
    again = json.loads(step.release.read_text())
    assert again["version"] == first["version"]
    assert again["champion"]
    assert len(list(versions(store, "mnist"))) == 1


@pytest.mark.slow
def test_a_rejected_model_is_published_and_not_promoted(step: Export, store: DirectoryStore) -> None:
    change_verdict(step, accepted=False, reasons=("The test accuracy of 90 % is below min_accuracy, 95 %.",))
    export(step)
    release = json.loads(step.release.read_text())
    assert not release["champion"]
    assert "rejected" in release["reason"]
    assert champion(store, "mnist") is None
    assert not read_version(store, "mnist", 1).facts["accepted"]
    assert "# mnist version 1: rejected" in step.summary.read_text()
    assert "is below min_accuracy" in step.summary.read_text()


@pytest.mark.slow
def test_an_onnx_model_that_answers_otherwise_is_not_published(step: Export, store: DirectoryStore) -> None:
    classifier, config = artifact.load(step.model)
    with torch.no_grad():
        next(classifier.parameters()).fill_(float("nan"))  # no runtime agrees on NaN, not even with itself
    artifact.save(step.model, classifier, config, [])
    with pytest.raises(StepError, match=r"does not answer like PyTorch: on 200 test images .* nothing was published"):
        export(step)
    assert list(store.keys("models/")) == []
    assert not step.release.exists()


def test_files_of_different_runs_are_refused(step: Export, store: DirectoryStore) -> None:
    change_verdict(step, dataset="another")
    with pytest.raises(UserError, match="not of one run"):
        export(step)
    assert list(store.keys("models/")) == []


@pytest.mark.parametrize(
    ("rival_accuracy", "rival_split", "promoted", "reason"),
    [
        (0.89, "split", True, "It is the champion"),
        (0.90, "split", True, "It is the champion"),
        (0.91, "split", False, "version 3 became champion meanwhile and is better: 0.9100 against 0.9000"),
        (0.10, "other", False, "version 3 became champion meanwhile and was judged on another test split"),
    ],
)
def test_a_champion_of_a_faster_run_gives_way_only_to_a_model_that_is_as_good(
    store: DirectoryStore, tmp_path: Path, rival_accuracy: float, rival_split: str, promoted: bool, reason: str
) -> None:
    def published(text: str, accuracy: float, split: str) -> Version:
        (tmp_path / text).write_text(text)
        return publish(store, "mnist", {"file": tmp_path / text}, {"accuracy": accuracy, "test_digest": split})

    old, own, rival = (
        published("a", 0.8, "split"),
        published("b", 0.9, "split"),
        published("c", rival_accuracy, rival_split),
    )
    assert promote(store, old, over=None)
    assert promote(store, rival, over=1)
    verdict = dataclasses.replace(verdict_on("dataset", "split"), champion={"version": 1, "accuracy": 0.8})
    crowned, why = crown(store, own, verdict)
    assert crowned == promoted
    assert reason in why
    assert champion(store, "mnist") == (own if promoted else rival)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.2, 2, 4, 5, 6])
def test_ctrl_c_at_any_moment_leaves_nothing_half_written(step: Export, store: DirectoryStore, seconds: float) -> None:
    flags = [f"--{field.name.replace('_', '-')}={getattr(step, field.name)}" for field in dataclasses.fields(step)]
    process = subprocess.Popen([sys.executable, "-m", "components.export", *flags], stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    for version in versions(store, "mnist"):
        assert {name for name in version.files if read_file(store, version, name)} == FILES
    if process.returncode == 0:
        assert champion(store, "mnist") is not None
    else:
        assert not list(step.release.parent.glob(".*"))
