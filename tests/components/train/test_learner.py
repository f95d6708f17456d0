import copy
import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.models.artifact import build
from components.train.learner import Learner, judge
from components.train.ranks import Ranks
from components.train.recipe import Recipe, read_recipe
from tests.components.models.test_artifact import CONFIG

LABELS = torch.arange(30) % 3

NOISE = torch.randint(0, 100, (30, 28, 28, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IMAGES = NOISE + (70 * LABELS).to(torch.uint8).view(-1, 1, 1, 1)
BATCHES = [(IMAGES, LABELS)]


def pupil(recipe: str = "", batches: int = 60, rate: float = 0.005, **options: Any) -> Learner:
    torch.manual_seed(0)
    classes = len(CONFIG.classes)
    options = {"classes": classes, "batches": batches, "epochs": 1, "learning_rate": rate, **options}
    return Learner(build(CONFIG), read_recipe(recipe), **options)


def learn(learner: Learner, images: Tensor = IMAGES, labels: Tensor = LABELS) -> float:
    return learner.learn(images, learner.targets(labels), len(labels)).item()


def gradients(learner: Learner) -> list[Tensor]:
    found = [parameter.grad for parameter in learner.classifier.parameters()]
    return [gradient.clone() for gradient in found if gradient is not None]


def weights(learner: Learner) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in learner.classifier.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", ["", "optimizer=sgd schedule=cosine", "optimizer=lamb", "precision=bf16", "ema=0.5", "clip=1"]
)
def test_a_learner_learns_a_batch_by_heart(recipe: str) -> None:
    learner = pupil(recipe, rate=0.03 if "optimizer" in recipe else 0.005)
    losses = [learn(learner) for _ in range(60)]
    assert losses[-1] < losses[0] / 2
    assert judge(learner.judged, BATCHES)[1] == 1.0


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 10])
def test_the_learning_rate_rises_to_its_peak_and_ends_near_zero(batches: int) -> None:
    learner = pupil(batches=batches, rate=0.01)
    rates = [learner.learning_rate]
    for _ in range(batches):
        learn(learner)
        rates.append(learner.learning_rate)
    assert max(rates) <= 0.01
    assert rates[-1] <= 1e-6


def test_judging_changes_nothing() -> None:
    classifier = build(CONFIG)
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    assert judge(classifier, BATCHES) == judge(classifier, BATCHES)
    assert all(torch.equal(before[name], tensor) for name, tensor in classifier.state_dict().items())


def test_a_judgement_covers_every_image_whatever_the_batches() -> None:
    classifier = build(CONFIG)
    sevens = [(IMAGES[start : start + 7], LABELS[start : start + 7]) for start in range(0, len(LABELS), 7)]
    assert judge(classifier, sevens) == pytest.approx(judge(classifier, BATCHES))


@pytest.mark.parametrize("smoothing", [0.0, 0.05, 0.3])
def test_a_step_goes_down_the_smoothed_loss_and_tells_the_plain_one(smoothing: float) -> None:
    learner = pupil(f"label_smoothing={smoothing}")
    logits = learner.classifier(IMAGES)
    smoothed = F.cross_entropy(logits, LABELS, label_smoothing=smoothing)
    expected = torch.autograd.grad(smoothed, list(learner.classifier.parameters()), retain_graph=True)
    assert learn(learner) == pytest.approx(F.cross_entropy(logits, LABELS).item())
    for gradient, wanted in zip(gradients(learner), expected, strict=True):
        torch.testing.assert_close(gradient, wanted)


def test_weighted_classes_have_the_gradient_of_the_weighted_loss() -> None:
    given = torch.tensor([0.5, 2.0, 0.5])
    learner = pupil("label_smoothing=0", weights=given)
    loss = (F.cross_entropy(learner.classifier(IMAGES), LABELS, reduction="none") * given[LABELS]).mean()
    expected = torch.autograd.grad(loss, list(learner.classifier.parameters()))
    learn(learner)
    for gradient, wanted in zip(gradients(learner), expected, strict=True):
        torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(parts: int) -> None:
    whole, divided = pupil(), pupil(f"accumulate={parts}")
    assert learn(divided) == pytest.approx(learn(whole), rel=1e-5)
    for gradient, wanted in zip(gradients(divided), gradients(whole), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


def test_the_norm_of_the_gradient_is_clipped() -> None:
    learner = pupil("clip=0.01")
    learn(learner)
    assert torch.cat([gradient.flatten() for gradient in gradients(learner)]).norm() == pytest.approx(0.01, rel=1e-3)


def test_an_average_follows_the_weights_slowly_and_is_what_is_judged() -> None:
    learner = pupil("ema=0.9")
    learn(learner)
    before = copy.deepcopy(dict(learner.judged.state_dict()))
    learn(learner)
    after, now = learner.judged.state_dict(), learner.classifier.state_dict()
    for name, value in before.items():
        torch.testing.assert_close(after[name], 0.9 * value + 0.1 * now[name])


@pytest.mark.parametrize("decay", [0.9, 0.9995, 0.9999])
def test_an_average_leaves_tables_of_whole_numbers_as_they_are(decay: float) -> None:
    learner = pupil(f"ema={decay}")
    for _ in range(3):
        learn(learner)
    tables = [buffer for buffer in learner.classifier.buffers() if not buffer.is_floating_point()]
    kept = [buffer for buffer in learner.judged.buffers() if not buffer.is_floating_point()]
    assert tables
    assert all(torch.equal(one, other) for one, other in zip(tables, kept, strict=True))


@pytest.mark.parametrize("recipe", ["", "optimizer=sgd", "ema=0.9", "optimizer=lamb schedule=step", "precision=bf16"])
def test_a_restored_learner_goes_on_bit_for_bit(recipe: str) -> None:
    straight = pupil(recipe)
    for _ in range(3):
        learn(straight)
    state = copy.deepcopy(straight.state())
    other = pupil(recipe)
    other.restore(state)
    for learner in (straight, other):
        for _ in range(3):
            learn(learner)
    assert straight.learning_rate == other.learning_rate
    assert all(torch.equal(one, two) for one, two in zip(weights(straight), weights(other), strict=True))


def test_a_gradient_scaler_is_restored_too() -> None:
    learner = pupil()
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    other = pupil()
    other.scaler = torch.amp.GradScaler("cpu")
    other.restore(learner.state())
    assert other.scaler.get_scale() == 8.0


def test_frozen_stages_stay_as_they_are() -> None:
    learner = pupil("freeze=2")
    before = weights(learner)
    learn(learner)
    changed = [not torch.equal(one, two) for one, two in zip(before, weights(learner), strict=True)]
    assert 0 < sum(changed) < len(changed)
    assert changed == sorted(changed)  # the first ones are frozen


def test_a_stage_learns_more_slowly_than_the_one_after_it() -> None:
    learner = pupil("layer_decay=0.5 schedule=constant", rate=0.01)
    rates = [group["lr"] for group in learner.optimizer.param_groups]
    assert rates[-1] == 0.01
    assert all(after == pytest.approx(2 * before) for before, after in itertools.pairwise(rates))


@pytest.mark.parametrize(
    ("images", "accumulate", "sizes"),
    [(13, 4, [4, 3, 3, 3]), (11, 8, [3, 2, 2, 2, 2]), (10, 8, [2] * 5), (12, 3, [4] * 3), (3, 4, [3]), (1, 2, [1])],
)
def test_a_part_of_a_batch_has_two_images_at_least(images: int, accumulate: int, sizes: list[int]) -> None:
    cut = pupil(f"accumulate={accumulate}").cut(IMAGES[:images], images)
    assert [len(part) for part in cut] == sizes


@pytest.mark.slow
def test_batch_normalisation_learns_from_every_part_of_a_batch() -> None:
    torch.manual_seed(0)
    config = dataclasses.replace(CONFIG, architecture="resnet18", options={})
    learner = Learner(build(config), Recipe(accumulate=4), classes=3, batches=2, epochs=1, learning_rate=0.001)
    learner.train()
    assert math.isfinite(learn(learner, IMAGES[:13], LABELS[:13]))


@pytest.mark.parametrize("accumulate", [3, 4, 8])
def test_all_ranks_cut_their_parts_of_a_batch_into_as_many(accumulate: int) -> None:
    learner = pupil(f"accumulate={accumulate}")
    learner.ranks = Ranks(0, 2, 0)
    for fewer in range(1, 20):
        numbers = {len(learner.cut(IMAGES[:own], 2 * fewer + 1)) for own in (fewer, fewer + 1)}
        assert len(numbers) == 1
