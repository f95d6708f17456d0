import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from components.models.artifact import Classifier, ModelConfig, build
from components.step import StepError
from components.train.learner import Learner
from components.train.probe import compile_where_it_pays, largest_batch
from components.train.recipe import Recipe
from tests.components.train.runs import ENVIRONMENT, Make, finish, flags, outcome, start

SHAPE = (28, 28, 1)
LENET5 = ModelConfig(
    architecture="lenet5",
    options={"activation": "relu", "pooling": "max", "bias": True},
    classes=tuple("0123456789"),
    shape=SHAPE,
    mean=(0.5,),
    std=(0.5,),
    dataset="",
    training={},
)


class Bounded(nn.Module):
    """A network that finds memory for so many images; its statistics and its dropout change with each."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 26 * 26, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")
        logits: Tensor = self.layers(images)
        return logits


def bounded(most: int) -> Classifier:
    torch.manual_seed(0)
    return Classifier(Bounded(most), (0.5,), (0.5,))


def maker(classifier: Classifier, **recipe: Any) -> Callable[[], Learner]:
    options: dict[str, Any] = {"classes": 10, "batches": 2, "epochs": 1, "learning_rate": 0.1}
    return lambda: Learner(classifier, Recipe(**recipe), **options)


def learner(**recipe: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(build(LENET5), Recipe(**recipe), classes=10, batches=100, epochs=1, learning_rate=0.001)


@pytest.mark.parametrize(("fitting", "most", "found"), [(100, 1024, 64), (128, 1024, 128), (5000, 256, 256), (4, 9, 4)])
def test_the_largest_power_of_two_is_found_that_fits(fitting: int, most: int, found: int) -> None:
    classifier = bounded(fitting)
    assert largest_batch(classifier, maker(classifier), SHAPE, most, 0) == found


def test_a_batch_in_parts_may_be_larger() -> None:
    classifier = bounded(100)
    assert largest_batch(classifier, maker(classifier, accumulate=4), SHAPE, 1024, 0) == 256


@pytest.mark.parametrize("recipe", [{}, {"ema": 0.9}, {"optimizer": "sgd", "clip": 1.0}])
def test_trying_leaves_weights_statistics_and_random_numbers_as_they_were(recipe: dict[str, Any]) -> None:
    classifier = bounded(40)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    chance = torch.get_rng_state()
    largest_batch(classifier, maker(classifier, **recipe), SHAPE, 64, 0)
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(parameter.grad is None for parameter in classifier.parameters())


def test_where_nothing_fits_a_sentence_says_what_to_do() -> None:
    classifier = bounded(3)
    with pytest.raises(StepError, match="not even 4 images of 28x28 fit into the memory of cpu; try a smaller"):
        largest_batch(classifier, maker(classifier), SHAPE, 64, 0)


def test_a_short_training_is_not_compiled() -> None:
    compiled, sentence = compile_where_it_pays(learner(), "auto", SHAPE, 32, 100)
    assert not compiled
    assert re.fullmatch(r"not compiled: \d+ s of training could not make up for it", sentence)


def test_off_is_off() -> None:
    assert compile_where_it_pays(learner(), "off", SHAPE, 32, 10**9) == (False, "")


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Has torch.compile do something else: the real one takes a minute."""
    return lambda made: monkeypatch.setattr(torch, "compile", lambda network, dynamic: made(network))


def slow(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def through(images: Tensor) -> Tensor:
        for _ in range(50):
            torch.mm(torch.ones(300, 300), torch.ones(300, 300))
        logits: Tensor = network(images)
        return logits

    return through


def fast(network: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda images: network(images[:1]).expand(len(images), -1)


def broken(network: nn.Module) -> Callable[[Tensor], Tensor]:
    def through(images: Tensor) -> Tensor:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nin any folder")

    return through


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "wanted", "chosen", "told"),
    [
        (fast, "auto", True, "compiled: a step takes "),
        (slow, "auto", False, "not compiled: a step would take "),
        (slow, "on", True, "compiled: a step takes "),
        (broken, "on", False, "not compiled: the compiler failed (RuntimeError: InvalidCxxCompiler: No working"),
        (broken, "auto", False, "not compiled: the compiler failed (RuntimeError: InvalidCxxCompiler: No working"),
    ],
)
def test_a_long_training_is_compiled_where_its_steps_become_faster_by_it(
    compilers: Callable[[Any], None], made: Any, wanted: str, chosen: bool, told: str
) -> None:
    compilers(made)
    tried = learner()
    compiled, sentence = compile_where_it_pays(tried, wanted, SHAPE, 32, 10**9)
    assert compiled == chosen
    assert sentence.startswith(told)
    assert "\n" not in sentence
    assert list(tried.programs) == ([32] if chosen else [])


def test_parts_of_either_size_are_compiled(compilers: Callable[[Any], None]) -> None:
    compilers(fast)
    tried = learner(accumulate=3)
    compile_where_it_pays(tried, "on", SHAPE, 32, 1)
    assert sorted(tried.programs) == [10, 11]


def test_finding_out_leaves_a_learner_as_it_was(compilers: Callable[[Any], None]) -> None:
    compilers(fast)
    torch.manual_seed(0)
    tried = Learner(bounded(64), Recipe(ema=0.9), classes=10, batches=100, epochs=1, learning_rate=0.001)
    before = {name: value.clone() for name, value in tried.classifier.state_dict().items()}
    chance = torch.get_rng_state()
    compile_where_it_pays(tried, "auto", SHAPE, 32, 10**9)
    assert all(torch.equal(value, before[name]) for name, value in tried.classifier.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(parameter.grad is None for parameter in tried.classifier.parameters())
    assert not tried.optimizer.state


@pytest.mark.slow
def test_a_compiled_network_learns_what_it_learns_otherwise() -> None:
    eager, compiled = learner(accumulate=2), learner(accumulate=2)
    assert compile_where_it_pays(compiled, "on", SHAPE, 32, 1)[0]
    assert list(compiled.programs) == [16]
    random = torch.Generator().manual_seed(0)
    for count in (32, 32, 20):  # the last goes through the network as it is
        images = torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=random)
        targets = eager.targets(torch.randint(10, (count,), generator=random))
        losses = [float(each.learn(images, targets, count)) for each in (eager, compiled)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    ours, theirs = (each.classifier.state_dict() for each in (eager, compiled))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


@pytest.mark.slow
def test_a_compiled_training_that_is_ended_goes_on_compiled_to_the_same_weights(of_pixels: Make) -> None:
    undisturbed, disturbed = (of_pixels(out, epochs=40, batch_size=60, recipe="compile=on") for out in ("1", "2"))
    assert re.search("^compiled: a step takes ", finish(undisturbed), re.MULTILINE)
    with start(disturbed) as process:
        assert process.stdout
        while not process.stdout.readline().startswith("epoch 3/40"):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    told = finish(disturbed)
    assert "goes on from a checkpoint after batch" in told
    assert re.search("^compiled: a step takes ", told, re.MULTILINE)
    assert outcome(disturbed) == outcome(undisturbed)


@pytest.mark.slow
def test_without_a_compiler_a_training_is_not_compiled_and_says_so(of_pixels: Make, tmp_path: Path) -> None:
    step = of_pixels("1", epochs=1, batch_size=60, recipe="compile=on")
    nowhere = {"CXX": "/nowhere/g++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "components.train", *flags(step)]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT | nowhere, timeout=300)
    assert ended.returncode == 0
    assert re.search("^not compiled: the compiler failed ", ended.stdout, re.MULTILINE)
    assert "Traceback" not in ended.stderr
    assert step.model.exists()
