"""Several processes train together, under torchrun, as one alone would."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from components.dataset.manifest import read_manifest
from components.loader.batches import OrderedBatches
from components.models.artifact import load, read_curve
from components.storage import DirectoryStore, open_store
from components.train.interface import Train
from components.train.learner import judge
from components.train.train import train
from tests.components.train.runs import ENVIRONMENT, Make, finish, maker, start
from tests.ingestion import make_dataset
from tests.samples import write_tree

TOLERANCE = 1e-4
"""Between weights, after some dozens of steps: sums are taken in another order."""

AVERAGED = "ema=0.9 clip=1 accumulate=2"
BY_STAGES = "optimizer=sgd schedule=cosine freeze=1 layer_decay=0.7 ema=0.9"


def torchrun(processes: int) -> tuple[str, ...]:
    # --: or torchrun takes --start for a beginning of --start-method.
    return (
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        "--",
        "components.train",
    )


def end(step: Train, line: str, *starter: str) -> None:
    """Starts a training and ends it after the line that begins so."""
    with start(step, *starter) as process:
        assert process.stdout
        while not process.stdout.readline().startswith(line):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)


def difference(one: Train, other: Train) -> float:
    """The largest between two weights of the same place."""
    ours, theirs = (load_file(step.model / "weights.safetensors") for step in (one, other))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "recipe"),
    [
        (2, ""),
        (4, ""),
        (2, BY_STAGES),
        (4, AVERAGED),
        (2, f"parallel=fsdp {AVERAGED}"),
        (4, f"parallel=fsdp {BY_STAGES}"),
        (2, "compile=on"),
    ],
)
def test_processes_together_learn_what_one_learns(of_pixels: Make, processes: int, recipe: str) -> None:
    alone, together = (of_pixels(out, epochs=3, batch_size=40, recipe=recipe) for out in ("1", "2"))
    train(alone)
    told = finish(together, *torchrun(processes))
    assert difference(alone, together) < TOLERANCE
    assert told.count("epoch 3/3: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_validation_counts_every_image_once(store: DirectoryStore, tmp_path: Path, processes: int) -> None:
    dataset = make_dataset(write_tree(tmp_path / "tree", 38), store.uri, tmp_path)
    make = maker(dataset, store, tmp_path)
    # A learning rate that changes nothing: what is read differs from one to several processes, what is judged does not.
    parameters = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-30, "recipe": "weight_decay=0"}
    alone, together = make("1", **parameters), make("2", **parameters)
    train(alone)
    finish(together, *torchrun(processes))
    ours, theirs = (read_curve(step.model)[0] for step in (alone, together))
    for name in ("validation_loss", "validation_accuracy"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["", "ema=0.9", "parallel=fsdp ema=0.9"])
def test_what_the_processes_have_judged_together_is_what_is_saved(of_files: Make, recipe: str) -> None:
    options = {"architecture": "resnet18", "image_size": 32, "epochs": 2, "batch_size": 16}
    judged = of_files("1", recipe=recipe, **options)
    finish(judged, *torchrun(2))
    classifier, config = load(judged.model)
    validation = OrderedBatches(open_store(judged.store), read_manifest(judged.dataset), "validation", config.shape)
    loss, accuracy = judge(classifier, validation)
    row = read_curve(judged.model)[-1]
    assert (row["validation_loss"], row["validation_accuracy"]) == pytest.approx((loss, accuracy), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_uneven_shares_of_what_is_read_hang_nobody(
    store: DirectoryStore, tmp_path: Path, processes: int, parallel: str
) -> None:
    dataset = make_dataset(write_tree(tmp_path / "tree", 37), store.uri, tmp_path)
    uneven = maker(dataset, store, tmp_path)("1", epochs=3, batch_size=16, recipe=f"parallel={parallel}")
    finish(uneven, *torchrun(processes))
    assert len(read_curve(uneven.model)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "before", "after"), [("", 2, 1), ("", 1, 4), ("parallel=fsdp ema=0.9 patience=99", 2, 4)]
)
def test_an_ended_training_goes_on_with_another_number_of_processes(
    of_pixels: Make, recipe: str, before: int, after: int
) -> None:
    # Slowly: at a high learning rate a rounded sum would lead elsewhere within a few epochs.
    recipe = f"optimizer=sgd {recipe}"
    undisturbed, disturbed = (
        of_pixels(out, epochs=20, batch_size=40, learning_rate=0.002, recipe=recipe) for out in ("1", "2")
    )
    train(undisturbed)
    end(disturbed, "epoch 3/20", *torchrun(before))
    assert not disturbed.model.exists()
    assert "goes on from a checkpoint after batch" in finish(disturbed, *torchrun(after))
    assert difference(undisturbed, disturbed) < TOLERANCE


@pytest.mark.slow
def test_a_batch_size_that_was_chosen_for_other_processes_is_said_to_be(of_pixels: Make) -> None:
    step = of_pixels("1", epochs=10_000)
    end(step, "epoch 1/")
    with start(step, *torchrun(3)) as process:
        _, told = process.communicate(timeout=120)
    assert (
        "error: batch_size must be a multiple of the 3 processes, with at least 4 images for each, not 256: that was "
        "chosen when the number of processes was 1, and stands in the checkpoint of this training; go back to that "
        "number, or give a --batch-size, which begins another training\n"
    ) in told


TALK = """
import torch
from components.train.ranks import here, joined

ranks = here()
with joined(ranks, torch.device("cpu")):
    mean = torch.full((2,), float(ranks.rank))
    ranks.average(mean)
    said = ranks.tell({"rank": ranks.rank})
    found = ranks.sum([1.0, ranks.rank]), ranks.least(7 - ranks.rank), mean.tolist(), said
    found += ranks.everywhere(True), ranks.everywhere(ranks.rank != 1)
    print(found == ([4.0, 6.0], 4, [1.5, 1.5], {"rank": 0}, True, False))
"""

DIFFERENT = """
import torch
from components.storage import open_store
from components.train.checkpoint import Checkpoints
from components.train.ranks import here, joined
from components.train.train import latest

ranks = here()
with joined(ranks, torch.device("cpu")):
    checkpoints = Checkpoints(open_store({store!r}), f"training/{{ranks.rank}}/", 1)
    checkpoints.save(7, {{"course": {{"epoch": 1, "batch": 7 + ranks.rank}}}})
    checkpoints.wait()
    latest(checkpoints, ranks)
"""


PUPIL = """
import torch
from components.models.artifact import ModelConfig, build
from components.train.learner import Learner, judge
from components.train.probe import compile_where_it_pays
from components.train.ranks import here, joined
from components.train.recipe import read_recipe

SHAPE = (28, 28, 1)
lenet5 = {"activation": "relu", "pooling": "max", "bias": True}
rest = dict(classes=tuple("0123456789"), shape=SHAPE, mean=(0.5,), std=(0.5,), dataset="", training={})

def pupil(recipe, ranks):
    classifier = build(ModelConfig(architecture="lenet5", options=lenet5, **rest))
    options = dict(classes=10, batches=9, epochs=1, learning_rate=0.1, ranks=ranks)
    return Learner(classifier, read_recipe(recipe), **options)

images, labels = torch.zeros(4, *SHAPE, dtype=torch.uint8), torch.zeros(4, dtype=torch.long)
ranks = here()
"""

COMPILED = f"""{PUPIL}
def broken(network, dynamic):
    raise RuntimeError("no compiler")

torch.compile = broken if ranks.rank == 1 else lambda network, dynamic: network
with joined(ranks, torch.device("cpu")):
    learner = pupil("", ranks)
    said = compile_where_it_pays(learner, "on", SHAPE, 8, 9)
    learner.learn(images, learner.targets(labels), 8)
    print(said == (False, "not compiled: the compiler failed (on another machine)") and not learner.programs)
"""

JUDGED = f"""{PUPIL}
with joined(ranks, torch.device("cpu")):
    learner = pupil("parallel=fsdp", ranks)
    judge(learner.judged, [(images, labels)], ranks)
    learner.train()
    learner.learn(images, learner.targets(labels), 8)
    print(True)
"""

UNEVEN = f"""{PUPIL}
images, labels = torch.zeros(10 + ranks.rank, *SHAPE, dtype=torch.uint8), torch.zeros(10 + ranks.rank, dtype=torch.long)
with joined(ranks, torch.device("cpu")):
    learner = pupil("parallel=fsdp accumulate=8", ranks)
    learner.learn(images, learner.targets(labels), 21)
    print(True)
"""


def run(text: str, script: Path, processes: int) -> "subprocess.CompletedProcess[str]":
    """Runs a text as several processes."""
    script.write_text(text)
    command = [sys.executable, *torchrun(processes)[:4], str(script)]
    found = ENVIRONMENT | {"PYTHONPATH": str(Path.cwd())}
    return subprocess.run(command, capture_output=True, text=True, env=found, timeout=120)


@pytest.mark.slow
def test_processes_agree(tmp_path: Path) -> None:
    ended = run(TALK, tmp_path / "talk.py", 4)
    assert ended.stdout.count("True") == 4, ended.stderr


@pytest.mark.slow
def test_where_one_process_cannot_compile_none_does(tmp_path: Path) -> None:
    ended = run(COMPILED, tmp_path / "compiled.py", 2)
    assert ended.stdout.count("True") == 2, ended.stderr


@pytest.mark.slow
def test_a_sharded_network_that_was_judged_first_learns(tmp_path: Path) -> None:
    ended = run(JUDGED, tmp_path / "judged.py", 2)
    assert ended.stdout.count("True") == 2, ended.stderr


@pytest.mark.slow
def test_a_sharded_network_learns_from_parts_of_which_one_rank_has_more(tmp_path: Path) -> None:
    ended = run(UNEVEN, tmp_path / "uneven.py", 2)
    assert ended.stdout.count("True") == 2, ended.stderr


@pytest.mark.slow
def test_processes_that_have_found_different_checkpoints_do_not_go_on(store: DirectoryStore, tmp_path: Path) -> None:
    ended = run(DIFFERENT.format(store=store.uri), tmp_path / "different.py", 2)
    assert ended.returncode == 1
    assert ended.stderr.count("StepError: the processes have not found the same checkpoint in the store") == 2


@pytest.mark.slow
def test_a_batch_that_cannot_be_divided_among_the_processes_is_refused(of_pixels: Make) -> None:
    with start(of_pixels("1", batch_size=33), *torchrun(2)) as process:
        _, told = process.communicate(timeout=120)
    assert "error: batch_size must be a multiple of the 2 processes, with at least 4 images for each, not 33\n" in told
