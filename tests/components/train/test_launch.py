"""The train step starts a process a GPU itself, and speaks for all of them; here without GPUs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from components.dataset.manifest import read_manifest
from components.models.artifact import read_config
from components.storage import DirectoryStore
from components.train import launch
from components.train.interface import Train
from components.train.train import train
from tests.components.train.runs import Make, finish, maker, outcome, start
from tests.ingestion import make_dataset
from tests.samples import write_tree

LAUNCH = """
from components.step import main
from components.train.interface import Train
from components.train.launch import launch
main(Train, lambda step: launch(step, {processes}))
"""

LONG = 100_000
"""Epochs that no test waits for."""


def launched(processes: int) -> tuple[str, str]:
    """As the step does for so many GPUs."""
    return "-c", LAUNCH.format(processes=processes)


@contextmanager
def begun(step: Train, processes: int) -> Iterator["subprocess.Popen[str]"]:
    """A training that has done its first epoch; afterwards nothing of it may be left."""
    with start(step, *launched(processes)) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                break
        ranks = children(process.pid)
        assert len(ranks) == processes
        yield process
        process.communicate(timeout=120)
    wait(lambda: not any(alive(rank) for rank in ranks))


def children(number: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{number}/task/{number}/children").read_text().split()]


def alive(number: int) -> bool:
    """Whether a process runs: one that nobody has waited for yet does not."""
    try:
        return ") Z " not in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return False


def wait(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(("given", "each"), [("32", "4"), ("4", "1"), ("", "2"), ("4,2", "2")])
def test_the_threads_of_the_step_are_divided_among_its_processes(
    given: str, each: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr(launch, "cores", lambda: 16)
    found = launch.variables(3, 8, 1234)
    assert (found["OMP_NUM_THREADS"], found["RANK"], found["WORLD_SIZE"]) == (each, "3", "8")


@pytest.mark.slow
def test_launched_processes_write_what_one_writes_and_their_metadata_comes_back(
    of_pixels: Make, tmp_path: Path
) -> None:
    alone, together = of_pixels("1", epochs=3, batch_size=40), of_pixels("2", epochs=3, batch_size=40)
    metadata = train(alone)
    artifacts = {name: {"artifacts": [{"name": name, "uri": "there"}]} for name in ("model", "metrics", "curves")}
    output = tmp_path / "executor_output.json"
    told = json.dumps({"outputs": {"artifacts": artifacts, "outputFile": str(output)}})
    process = start(together, *launched(2), f"--executor-input={told}")
    shown, progress = process.communicate(timeout=120)
    assert process.returncode == 0, progress
    assert shown.count("epoch 2/3: ") == 1
    assert progress.startswith("progress: ")
    written = json.loads(output.read_text())["artifacts"]
    assert written["model"]["artifacts"] == [{"name": "model", "uri": "there", "metadata": metadata["model"]}]
    assert written["metrics"]["artifacts"][0]["metadata"].keys() == metadata["metrics"].keys()
    assert json.loads(together.metrics.read_text()) == written["metrics"]["artifacts"][0]["metadata"]
    config = read_config(together.model)
    assert config.training["processes"] == 2
    assert together.curves.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_sigterm_has_all_processes_write_one_checkpoint_from_which_they_go_on(of_pixels: Make) -> None:
    undisturbed, disturbed = (of_pixels(out, epochs=60, batch_size=40) for out in ("1", "2"))
    finish(undisturbed, *launched(2))
    with begun(disturbed, 2) as process:
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert not disturbed.model.parent.exists()
    checkpoints = [key for key in DirectoryStore(Path(disturbed.store)).keys("training/") if "checkpoints/" in key]
    assert len(checkpoints) == 1
    assert "goes on from a checkpoint after batch" in finish(disturbed, *launched(2))
    assert outcome(disturbed) == outcome(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_process_that_dies_ends_all_within_seconds_and_is_named(
    of_pixels: Make, rank: int, number: signal.Signals
) -> None:
    step = of_pixels("1", epochs=LONG, batch_size=40)
    with begun(step, 2) as process:
        os.kill(children(process.pid)[rank], number)
        died = time.monotonic()
        _, told = process.communicate(timeout=60)
    assert time.monotonic() - died < 15
    assert process.returncode == 1
    how = "was killed, as happens where memory runs out" if number == signal.SIGKILL else "was ended by SIGABRT"
    assert told.splitlines()[-1].startswith(f"error: process {rank} of 2 {how}")
    assert "Traceback" not in told
    assert told.count("error: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_the_process_that_fails_is_heard_not_those_that_miss_it(
    store: DirectoryStore, tmp_path: Path, processes: int
) -> None:
    tree = write_tree(tmp_path / "tree", 80)
    for folder in tree.iterdir():
        (tmp_path / "more" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:38]:
            file.rename(tmp_path / "more" / folder.name / file.name)
    (tmp_path / "first").mkdir()
    parent = read_manifest(make_dataset(tree, store.uri, tmp_path / "first")).digest
    dataset = make_dataset(tmp_path / "more", store.uri, tmp_path, parent=parent)
    shards = [shard for shard in read_manifest(dataset).shards if shard.split == "train"]
    assert len(shards) == 2
    smaller = min(shards, key=lambda shard: shard.images)  # so that not all of them read it
    (store.root / smaller.key).write_bytes(b"damaged")
    with start(maker(dataset, store, tmp_path)("1", epochs=3, batch_size=16), *launched(processes)) as process:
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert told.startswith(f"error: shard {smaller.key} ")
    assert told.count("\n") == 1


@pytest.mark.slow
def test_a_loss_that_is_no_number_is_one_sentence_of_all_processes(of_pixels: Make) -> None:
    diverging = of_pixels("1", batch_size=40, learning_rate=1e30)
    with start(diverging, *launched(2)) as process:
        _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert told.startswith("error: loss is ")
    assert told.count("\n") == 1
    assert not diverging.model.parent.exists()


@pytest.mark.slow
def test_a_mistake_of_the_user_is_one_sentence_with_its_own_exit_code(of_pixels: Make) -> None:
    with start(of_pixels("1", batch_size=33), *launched(2)) as process:
        _, told = process.communicate(timeout=120)
    assert process.returncode == 2
    assert told == "error: batch_size must be a multiple of the 2 processes, with at least 4 images for each, not 33\n"


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(of_pixels: Make) -> None:
    step = of_pixels("1", epochs=LONG, batch_size=40)
    with begun(step, 2) as process:
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "error: interrupted; nothing half-written was left behind"
    assert not step.model.parent.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends what is left behind on Linux alone")
def test_processes_do_not_outlive_the_one_that_started_them(of_pixels: Make) -> None:
    with begun(of_pixels("1", epochs=LONG, batch_size=40), 2) as process:
        process.kill()


@pytest.mark.slow
def test_gpus_that_are_not_there_are_missed_before_any_process_starts(tmp_path: Path) -> None:
    paths = [f"--{name}={tmp_path / name}" for name in ("dataset", "store", "model", "metrics", "curves")]
    command = [sys.executable, "-m", "components.train", *paths, "--gpus=2"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: train asked for 2 nvidia.com/gpu and PyTorch ")
    assert len(ended.stderr.splitlines()) == 1
