import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from components.dataset.manifest import read_manifest, write_manifest
from components.dataset.shards import read_split
from components.loader.apart import Apart
from components.loader.batches import OrderedBatches, TrainingBatches, reader
from components.loader.machine import cores
from components.loader.stream import FEW
from components.models.artifact import Classifier, load, read_config, read_curve
from components.step import StepError, UserError
from components.storage import DirectoryStore
from components.train.interface import Train
from components.train.learner import Learner, judge
from components.train.range_test.range_test import range_test
from components.train.train import class_weights, describe, identity, train
from tests.components.train.runs import Make, outcome
from tests.conftest import Ingested
from tests.ingestion import make_dataset
from tests.samples import write_tree


def step(dataset: Path, store: DirectoryStore, out: Path, **options: Any) -> Train:
    parameters: dict[str, Any] = {"epochs": 2, "batch_size": 64, **options}
    outputs: dict[str, Any] = {name: out / name for name in ("model", "metrics", "curves")}
    return Train(dataset=dataset, store=store.uri, **outputs, **parameters)


def command(step: Train) -> list[str]:
    """The step as KFP starts it: a process of its own."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in dataclasses.asdict(step).items()]
    return [sys.executable, "-m", "components.train", *flags]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120)


@pytest.fixture
def tiny_step(tiny_dataset: Path, store: DirectoryStore, tmp_path: Path) -> Callable[..., Train]:
    """Makes a training of the tiny dataset, which writes to a folder of that name."""
    return lambda out="out", **options: step(tiny_dataset, store, tmp_path / out, **options)


def weights(step: Train) -> bytes:
    return (step.model / "weights.safetensors").read_bytes()


@pytest.mark.slow
def test_a_training_learns_what_its_dataset_shows(tiny_step: Callable[..., Train]) -> None:
    learnt = tiny_step(epochs=6, batch_size=16)
    train(learnt)
    manifest = read_manifest(learnt.dataset)
    test = OrderedBatches(DirectoryStore(Path(learnt.store)), manifest, "test", (28, 28, 1))
    classifier, _ = load(learnt.model)
    assert judge(classifier, test)[1] >= 0.9


def test_the_results_stand_in_the_metadata_the_metrics_and_the_config(tiny_step: Callable[..., Train]) -> None:
    trained = tiny_step(seed=3)
    metadata = train(trained)
    config = read_config(trained.model)
    metrics = metadata["metrics"]
    assert json.loads(trained.metrics.read_text()) == metrics
    assert config.training.items() >= metrics.items()
    assert config.training.items() >= {"epochs": 2, "batch_size": 64, "seed": 3, "parameters": 60_806}.items()
    assert (config.training["decoding_threads"], config.shape) == (min(cores(), FEW), (28, 28, 1))
    assert config.dataset == read_manifest(trained.dataset).digest
    assert metadata["model"]["architecture"] == "lenet5"
    assert 0 <= metrics["validation_accuracy"] <= 1
    assert metrics["images_per_second"] > 0


def test_the_curve_has_a_row_an_epoch(tiny_step: Callable[..., Train], capsys: pytest.CaptureFixture[str]) -> None:
    trained = tiny_step(epochs=3)
    metadata = train(trained)
    curve = read_curve(trained.model)
    assert [row["epoch"] for row in curve] == [1, 2, 3]
    assert {*curve[0]} == {
        *("epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate", "data_wait", "seconds")
    }
    assert curve[-1]["validation_accuracy"] == metadata["metrics"]["validation_accuracy"]
    assert curve[0]["learning_rate"] > curve[-1]["learning_rate"]
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told if line.startswith("epoch")] == [f"epoch {n}/3" for n in (1, 2, 3)]


def test_the_validation_split_alone_steers(tiny_step: Callable[..., Train]) -> None:
    trained = tiny_step()
    train(trained)
    manifest = read_manifest(trained.dataset)
    images, labels = read_split(DirectoryStore(Path(trained.store)), manifest, "validation")
    classifier, config = load(trained.model)
    predicted = classifier(torch.from_numpy(images)).argmax(1).numpy()
    assert config.training["validation_accuracy"] == pytest.approx((predicted == labels).mean())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_others(tiny_step: Callable[..., Train]) -> None:
    first, again, other = tiny_step("1"), tiny_step("2"), tiny_step("3", seed=1)
    for each in (first, again, other):
        train(each)
    assert weights(first) == weights(again)
    assert weights(first) != weights(other)


@pytest.fixture
def tree_step(store: DirectoryStore, tmp_path: Path) -> Callable[..., Train]:
    """Makes a training on JPEG files of many sizes."""
    dataset = make_dataset(write_tree(tmp_path / "tree"), store.uri, tmp_path)
    return lambda out="out", **options: step(dataset, store, tmp_path / out, **options)


@pytest.mark.slow
def test_image_files_are_fitted_to_what_the_network_is_made_for(tree_step: Callable[..., Train]) -> None:
    learnt = tree_step(epochs=12, batch_size=16)
    train(learnt)
    manifest = read_manifest(learnt.dataset)
    assert manifest.shape == (None, None, 3)
    classifier, config = load(learnt.model)
    assert config.shape == (32, 32, 3)
    test = OrderedBatches(DirectoryStore(Path(learnt.store)), manifest, "test", config.shape)
    assert judge(classifier, test)[1] >= 0.7


@pytest.mark.slow
def test_image_files_give_the_same_weights_for_the_same_seed(tree_step: Callable[..., Train]) -> None:
    first, again = tree_step("1"), tree_step("2")
    for each in (first, again):
        train(each)
    assert weights(first) == weights(again)


def test_the_size_of_the_images_can_be_chosen_where_they_are_files(tree_step: Callable[..., Train]) -> None:
    chosen = tree_step(epochs=1, image_size=28)
    train(chosen)
    assert read_config(chosen.model).shape == (28, 28, 3)
    with pytest.raises(UserError, match="image size must be 28x28 or 32x32 for lenet5, not '30x30'"):
        train(replace(chosen, image_size=30))


def test_raw_pixels_are_taken_in_their_own_size(tiny_step: Callable[..., Train]) -> None:
    with pytest.raises(UserError, match="image_size must be 0 or 28: the dataset holds raw pixels of 28x28, not 32"):
        train(tiny_step(image_size=32))


def test_the_share_of_the_time_spent_waiting_for_data_is_told(
    tree_step: Callable[..., Train], capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tree_step()
    metrics = train(trained)["metrics"]
    assert 0 < metrics["data_wait"] < 1
    assert all(0 <= row["data_wait"] < 1 for row in read_curve(trained.model))
    assert capsys.readouterr().out.count("of it waiting for data") == 2


def test_options_reach_the_network(tiny_step: Callable[..., Train]) -> None:
    trained = tiny_step(activation="tanh", pooling="avg", bias=False, epochs=1)
    train(trained)
    classifier, config = load(trained.model)
    assert config.options == {"activation": "tanh", "pooling": "avg", "bias": False}
    assert sum(parameter.numel() for parameter in classifier.parameters()) == 60_592


@pytest.mark.slow
def test_a_batch_may_hold_more_than_the_dataset(tiny_step: Callable[..., Train]) -> None:
    trained = tiny_step(batch_size=100_000)
    train(trained)
    assert len(read_curve(trained.model)) == 2


def test_a_learning_rate_that_diverges_is_named_and_nothing_is_written(tiny_step: Callable[..., Train]) -> None:
    diverging = tiny_step(learning_rate=1e30)
    with pytest.raises(StepError, match=r"loss is \S+ in epoch 1/2, batch \d+, at learning rate .*--learning-rate"):
        train(diverging)
    assert not diverging.model.parent.exists()


def test_balanced_classes_weigh_inversely_to_their_images_and_one_without_any_is_no_matter(tiny_dataset: Path) -> None:
    counts = {"many": 30, "few": 10, "none": 0}
    manifest = replace(read_manifest(tiny_dataset), classes=tuple(counts), counts={"train": counts})
    many, few, none = class_weights(manifest).tolist()
    assert few == pytest.approx(3 * many)
    assert 30 * many + 10 * few == pytest.approx(40)  # 1 in the mean
    assert 0 * none == 0


def test_a_shard_that_is_gone_is_named_and_nothing_is_written(
    tiny_step: Callable[..., Train], store: DirectoryStore
) -> None:
    for shard in list(store.keys("datasets/shards/")):
        (store.root / shard).unlink()
    starved = tiny_step()
    with pytest.raises(StepError, match="is gone"):
        train(starved)
    assert not starved.model.parent.exists()


@pytest.mark.parametrize(("split", "left", "least"), [("validation", 0, 1), ("train", 1, 2)])
def test_a_split_without_enough_images_is_refused_in_one_sentence(
    tiny_step: Callable[..., Train], tmp_path: Path, split: str, left: int, least: int
) -> None:
    whole = read_manifest(tiny_step().dataset)
    counts = {name: left if name == whole.classes[0] else 0 for name in whole.classes}
    write_manifest(tmp_path / "dataset.json", replace(whole, counts=whole.counts | {split: counts}))
    told = f"the dataset has {left} images in its {split} split, and this training needs {least} at least; ingest"
    for work in (train, range_test):
        with pytest.raises(UserError, match=told):
            work(replace(tiny_step(), dataset=tmp_path / "dataset.json"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_size": -1}, "batch_size must be at least 4, or 0, not -1"),
        ({"batch_size": 3}, "batch_size must be at least 4, or 0, not 3"),
        (
            {"batch_size": 12, "gpus": "2", "nodes": 2},
            "batch_size must be a multiple of the 4 processes, with at least 4 images for each, not 12",
        ),
        ({"learning_rate": -0.1}, "learning_rate must be 0 or a positive number, not -0.1"),
        ({"learning_rate": float("nan")}, "learning_rate must be 0 or a positive number, not nan"),
        ({"gpus": "two"}, "gpus must be a whole number, 0 or more, not 'two'"),
        ({"nodes": 0}, "nodes must be at least 1, not 0"),
        ({"recipe": "optimiser=sgd"}, "unknown part of a recipe 'optimiser'; did you mean 'optimizer'?"),
        ({"start": "champ"}, "unknown start 'champ'; did you mean 'champion'?"),
        ({"seed": -1}, "seed must be from 0 to 9223372036854775807, not -1"),
        ({"seed": 2**64}, "seed must be from 0 to 9223372036854775807, not 18446744073709551616"),
        ({"architecture": "lenet-5"}, "unknown architecture 'lenet-5'; did you mean 'lenet5'?"),
        (
            {"architecture": "resnet18", "activation": "tanh"},
            "activation must be 'relu' for resnet18: lenet5 alone has a choice, not 'tanh'",
        ),
        ({"architecture": "resnet18", "bias": False}, "bias must be True for resnet18: lenet5 alone has a choice"),
        ({"pooling": "average"}, "unknown pooling 'average'; did you mean 'avg'? (choices: max, avg)"),
    ],
)
def test_a_bad_parameter_is_refused_before_any_work(
    tiny_step: Callable[..., Train], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError) as refused:
        tiny_step(**options)
    assert str(refused.value).startswith(told)


def test_the_command_line_refuses_an_unknown_activation_with_a_hint(tmp_path: Path) -> None:
    paths = [f"--{name}={tmp_path / name}" for name in ("dataset", "store", "model", "metrics", "curves")]
    ended = run(sys.executable, "-m", "components.train", *paths, "--activation=rleu")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: unknown activation 'rleu'; did you mean 'relu'?")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_with_the_same_seed_write_the_same_weights(tiny_step: Callable[..., Train]) -> None:
    first, again = tiny_step("1"), tiny_step("2")
    for each in (first, again):
        assert run(*command(each)).returncode == 0
    assert weights(first) == weights(again)


@pytest.mark.slow
def test_a_diverging_process_ends_with_one_sentence(tiny_step: Callable[..., Train]) -> None:
    diverging = tiny_step(learning_rate=1e30)
    ended = run(*command(diverging))
    assert ended.returncode == 1
    assert re.search("^error: loss is .*\n\\Z", ended.stderr, re.M)
    assert "Traceback" not in ended.stderr
    assert not diverging.model.parent.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_leaves_no_half_model(
    tiny_step: Callable[..., Train], number: signal.Signals, code: int
) -> None:
    interrupted = tiny_step(epochs=100_000)
    with subprocess.Popen(command(interrupted), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 1/100000") for line in process.stdout)
        process.send_signal(number)
        _, told = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in told
    assert not interrupted.model.parent.exists()


@pytest.mark.slow
def test_one_epoch_of_mnist_reaches_97_percent(mnist: Ingested, tmp_path: Path) -> None:
    trained = step(mnist.manifest, mnist.store, tmp_path, epochs=1, batch_size=256)
    assert train(trained)["metrics"]["validation_accuracy"] >= 0.97


@pytest.mark.slow
def test_the_default_recipe_reaches_the_promised_accuracy_on_mnist(mnist: Ingested, tmp_path: Path) -> None:
    outputs: dict[str, Any] = {name: tmp_path / name for name in ("model", "metrics", "curves")}
    recipe = Train(dataset=mnist.manifest, store=mnist.store.uri, **outputs)
    train(recipe)
    test = OrderedBatches(mnist.store, read_manifest(mnist.manifest), "test", (28, 28, 1))
    classifier, _ = load(recipe.model)
    assert judge(classifier, test)[1] >= 0.991


def test_a_batch_that_the_memory_does_not_hold_is_one_sentence(
    tiny_step: Callable[..., Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    def descend(self: Learner, *batch: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")

    large = tiny_step(recipe="compile=off")
    monkeypatch.setattr(Learner, "descend", descend)
    with pytest.raises(StepError, match="the memory of cpu does not hold a batch of 64; try a smaller --batch-size"):
        train(large)
    assert not large.model.parent.exists()


def test_a_network_that_the_memory_does_not_hold_is_one_sentence(
    tiny_step: Callable[..., Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    def move(self: Classifier, *where: Any, **how: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")

    monkeypatch.setattr(Classifier, "to", move)
    with pytest.raises(StepError, match="the memory of cpu does not hold the network and its optimizer; try a"):
        train(tiny_step())


def test_another_code_goes_on_from_no_checkpoint_of_this_one(
    tiny_step: Callable[..., Train], store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = tiny_step()
    config = describe(step, read_manifest(step.dataset))
    mine = identity(step, config, store)
    assert identity(step, config, store) == mine
    monkeypatch.setattr("components.train.train.code_digest", lambda: "another")
    assert identity(step, config, store) != mine


def test_other_pretrained_weights_begin_another_training(
    tiny_step: Callable[..., Train], store: DirectoryStore
) -> None:
    step = tiny_step(start="pretrained")
    config = describe(step, read_manifest(step.dataset))
    seen = [identity(step, config, store)]
    for content in (b"one", b"another"):
        store.write("pretrained/lenet5.safetensors", content)
        seen.append(identity(step, config, store))
    assert len(set(seen)) == 3


def test_images_that_no_memory_holds_are_one_sentence(tree_step: Callable[..., Train]) -> None:
    large = tree_step(architecture="squeezenet", image_size=100_000_000)
    with pytest.raises(StepError, match=r"the memory of cpu does not hold a batch of 64; try .* --image-size"):
        train(large)
    assert not large.model.parent.exists()


@pytest.mark.slow
def test_a_gpu_that_was_asked_for_and_is_not_there_fails_at_once(tmp_path: Path) -> None:
    paths = [f"--{name}={tmp_path / name}" for name in ("dataset", "store", "model", "metrics", "curves")]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "components.train", *paths, "--gpus=1"], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: train asked for 1 nvidia.com/gpu and PyTorch ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.slow
def test_images_that_another_process_decodes_are_learned_from_as_those_decoded_here(
    of_files: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they are beside a GPU."""
    here, there = (of_files(out, epochs=3, batch_size=32, recipe="augment=trivial") for out in ("here", "there"))
    train(here)
    begin = TrainingBatches.__init__

    def apart(self: TrainingBatches, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        store, manifest, shape, size, seed = arguments
        make = partial(reader, store.uri, manifest, shape, size, seed, options["policy"], 0, 1)
        self._apart = Apart(make, size, shape, ahead=True)

    monkeypatch.setattr(TrainingBatches, "__init__", apart)
    train(there)
    assert outcome(there) == outcome(here)
