"""A training that is ended, however that comes about, goes on from a checkpoint as if nothing had been."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from components.storage import DirectoryStore
from components.train.interface import Train
from tests.components.train.runs import Make, finish, outcome, start

KILLS = 20


def end(step: Train, number: signal.Signals, seconds: float, after: str = "batch size") -> int:
    """Starts a training and, so long after a line that begins so, sends a signal; returns how it ended."""
    with start(step) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(after):
                break
        time.sleep(seconds)
        process.send_signal(number)
        process.communicate(timeout=120)
    return process.returncode


def checkpoints(step: Train) -> list[str]:
    """Their keys, the oldest first."""
    return [key for key in DirectoryStore(Path(step.store)).keys("training/") if key.endswith(".safetensors")]


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_with_the_weights_of_an_undisturbed_one(of_pixels: Make) -> None:
    recipe = {"epochs": 60, "batch_size": 64, "recipe": "ema=0.99 mixup=0.2"}
    undisturbed, disturbed = of_pixels("1", **recipe), of_pixels("2", checkpoint_minutes=0.0, **recipe)
    finish(undisturbed)
    moments, kills = random.Random(0), 0
    while kills < KILLS or not checkpoints(disturbed):
        code = end(disturbed, signal.SIGKILL, moments.uniform(0, 1.0))
        kills += code == -signal.SIGKILL
        if code == 0:
            assert outcome(disturbed) == outcome(undisturbed)
            shutil.rmtree(disturbed.model.parent)
    told = finish(disturbed)
    assert outcome(disturbed) == outcome(undisturbed)
    assert "goes on from a checkpoint after batch" in told


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["of_pixels", "of_files"])
@pytest.mark.parametrize("extra", ["", "optimizer=sgd schedule=cosine patience=50 cutmix=1 augment=trivial"])
def test_sigterm_leaves_a_checkpoint_from_which_the_training_goes_on(
    kind: str, extra: str, request: pytest.FixtureRequest
) -> None:
    make = request.getfixturevalue(kind)
    recipe = {"epochs": 12, "batch_size": 32, "recipe": extra}
    undisturbed, disturbed = make("1", **recipe), make("2", **recipe)
    finish(undisturbed)
    assert end(disturbed, signal.SIGTERM, 0, after="epoch 2/") == 128 + signal.SIGTERM
    assert not disturbed.model.parent.exists()
    store = DirectoryStore(Path(disturbed.store))
    assert len(list(store.keys("training/"))) > 0
    assert "goes on from a checkpoint after batch" in finish(disturbed)
    assert outcome(disturbed) == outcome(undisturbed)
    assert not checkpoints(disturbed)


@pytest.mark.slow
def test_where_the_newest_checkpoint_is_damaged_the_one_before_leads_to_the_same_weights(of_pixels: Make) -> None:
    recipe = {"epochs": 40, "batch_size": 64}
    undisturbed, disturbed = of_pixels("1", **recipe), of_pixels("2", checkpoint_minutes=0.0, **recipe)
    finish(undisturbed)
    with start(disturbed) as process:
        while len(checkpoints(disturbed)) < 2:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    (Path(disturbed.store) / checkpoints(disturbed)[-1]).write_bytes(b"damaged")
    assert "goes on from a checkpoint after batch" in finish(disturbed)
    assert outcome(disturbed) == outcome(undisturbed)


@pytest.mark.slow
def test_another_recipe_is_another_training(of_pixels: Make) -> None:
    assert end(of_pixels("1", epochs=100_000), signal.SIGTERM, 0.3) == 128 + signal.SIGTERM
    assert "goes on" not in finish(of_pixels("2", epochs=1))
