"""`retrain lr-find` as a user types it."""

import math
import re
import shlex
from pathlib import Path

import pytest
import safetensors.torch
import torch

from components.dataset.manifest import read_manifest
from components.models.lenet5 import LeNet5
from components.storage import DirectoryStore
from pipelines.cli.lr_find import advice
from pipelines.cli.run import run as RUN
from tests.commands import published, retrain
from tests.ingestion import make_dataset
from tests.samples import write_tree


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread, and no GPU."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.mark.slow
def test_it_draws_the_curve_and_says_what_to_try_next(
    tiny_dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    before = published(store.root)
    tuned = f"--store {store.uri} --batch-size 32 --recipe 'schedule=cosine ema=0.999'"
    shown = retrain("lr-find", *shlex.split(tuned), "--output", "lr-find.html", folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    (rate,) = re.findall(r"^learning rate (\S+): a tenth of .*, with batches of 32$", shown.stdout, re.M)
    assert 1e-4 < float(rate) < 0.1
    again = f"{tuned} --source {tmp_path / 'idx'} --learning-rate {rate}"
    assert shown.stdout.endswith(f"\n\nTry next: retrain run {again}\n")
    RUN.make_context("run", shlex.split(again))  # or it raises what `retrain run` would say
    assert "1e-6       1e-5       1e-4 " in shown.stdout
    assert f">{rate}</strong>" in (tmp_path / "lr-find.html").read_text()
    assert published(store.root) == before
    assert not (store.root / "training").exists()


def test_that_a_run_on_more_gpus_takes_other_batches_is_said() -> None:
    flags = ["--gpus", "4", "--recipe", "clip=1 ema=0.9"]
    told = advice(0.01, {"gpus": "4", "batch_size": 0}, flags)
    assert told.startswith("one GPU found it; 4 may take larger batches: give --batch-size here and there\n\n")
    same = "\nTry next: retrain run --gpus 4 --recipe 'clip=1 ema=0.9' --learning-rate 0.01"
    assert told.endswith(same)
    assert advice(0.01, {"gpus": "4", "batch_size": 64}, flags) == same
    assert advice(0.01, {"gpus": "1", "batch_size": 0}, flags) == same


@pytest.mark.slow
def test_the_dataset_is_the_newest_or_that_of_a_source_or_digest(
    tiny_dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    newer = read_manifest(make_dataset(write_tree(tmp_path / "tree"), store.uri, tmp_path / "second")).digest[:12]
    older = read_manifest(tiny_dataset).digest[:12]
    for flags, digest, source in (
        ((), newer, tmp_path / "tree"),
        (("--source", "idx"), older, "idx"),  # as the user may write it, standing beside it
        (("--dataset", older[:6]), older, tmp_path / "idx"),
    ):
        place = ("--store", store.uri, "--output", "page.html", "--batch-size", 16)
        shown = retrain("lr-find", *place, *flags, folder=tmp_path)
        assert shown.returncode == 0, shown.stderr
        assert digest in (tmp_path / "page.html").read_text()
        assert re.findall(r"--source (\S+)", shown.stdout.splitlines()[-1]) == [str(source)]


@pytest.mark.slow
def test_a_store_without_the_dataset_says_how_to_make_one(
    tiny_dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    for flags, told in (
        (("--store", "nowhere"), "has no dataset yet; `retrain run` makes one\n"),
        (("--store", store.uri, "--source", "cats"), " of source 'cats' yet; `retrain run --source cats` makes one\n"),
        (("--store", store.uri, "--dataset", "0123"), "has no dataset '0123'; did you mean "),
    ):
        shown = retrain("lr-find", *flags, folder=tmp_path)
        assert (shown.returncode, shown.stdout) == (2, "")
        assert shown.stderr.startswith("error: ")
        assert shown.stderr.count("\n") == 1
        assert told in shown.stderr
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--architecture", "lenet-5"), "unknown architecture 'lenet-5'; did you mean 'lenet5'?"),
        (("--recipe", "optimiser=sgd"), "unknown part of a recipe 'optimiser'; did you mean 'optimizer'?"),
        (("--batch-size", "-1"), "batch_size must be at least 4, or 0, not -1"),
        (("--dataset", "01", "--source", "a"), "--dataset 01 and --source a both say which dataset is taken; give one"),
    ],
)
def test_a_wrong_flag_is_refused_before_any_work(flags: tuple[str, ...], told: str, tmp_path: Path) -> None:
    shown = retrain("lr-find", *flags, folder=tmp_path)
    assert shown.returncode == 2
    assert shown.stderr.startswith(f"error: {told}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_training_that_cannot_be_ends_with_one_sentence(
    tiny_dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    weights = LeNet5((28, 28, 1), 10, activation="relu", pooling="max", bias=True).state_dict()
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in weights.items()}
    store.write("pretrained/lenet5.safetensors", safetensors.torch.save(broken))
    shown = retrain("lr-find", "--store", store.uri, "--start", "pretrained", folder=tmp_path)
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: loss is nan in the first batch")
    assert shown.stderr.count("\n") == 1
    assert not (tmp_path / "lr-find.html").exists()
    missing = retrain("lr-find", "--store", store.uri, "--gpus", 1, folder=tmp_path)
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: train asked for 1 nvidia.com/gpu and PyTorch ")
