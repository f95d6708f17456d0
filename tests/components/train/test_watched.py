"""What a real training leaves to be seen."""

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.step import StepError
from components.storage import DirectoryStore
from components.train.interface import Train
from components.train.train import train
from tests.components.train.test_live import text


def step(dataset: Path, store: DirectoryStore, out: Path, **options: float) -> Train:
    outputs = {"model": out / "model", "metrics": out / "metrics", "curves": out / "curves"}
    return Train(dataset=dataset, store=store.uri, batch_size=64, **outputs, **options)  # type: ignore[arg-type]


def page(store: DirectoryStore) -> str:
    (key,) = [key for key in store.keys("training/") if re.fullmatch(r"training/[0-9a-f]{16}/live\.html", key)]
    return store.read(key).decode()


def test_a_training_leaves_its_page_its_artifact_and_tensorboards_curves(
    tiny_dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    trained = step(tiny_dataset, store, tmp_path, epochs=2)
    train(trained)
    assert "Finished: epoch 2 of 2" in text(page(store))
    assert "Finished: epoch 2 of 2" in text(trained.curves.read_text())
    (folder,) = {key.rpartition("/")[0] for key in store.keys("training/") if "/tensorboard/" in key}
    events = EventAccumulator(str(store.root / folder))
    events.Reload()
    steps = [one.step for one in events.Scalars("validation/accuracy")]
    assert len(steps) == 2
    assert steps[1] == 2 * steps[0] == events.Scalars("train/loss")[-1].step


def test_a_loss_that_is_no_number_is_the_failure_that_the_page_names(
    tiny_dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    with pytest.raises(StepError, match=r"loss is nan|loss is inf"):
        train(step(tiny_dataset, store, tmp_path, epochs=3, learning_rate=1e18))
    assert re.search(r"Failed: epoch \d of 3, \d+% loss is (nan|inf) in epoch \d/3, batch \d+,", text(page(store)))
