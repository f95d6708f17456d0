import pytest
import torch
import torch.nn.functional as F

from components.models.artifact import build
from components.train import learner
from components.train.learner import Learner, judge
from tests.components.models.test_artifact import CONFIG

IMAGES = torch.randint(0, 256, (30, 28, 28, 1), dtype=torch.uint8)
LABELS = torch.arange(30) % 3
BATCHES = [(IMAGES, LABELS)]


def test_a_learner_learns_a_batch_by_heart() -> None:
    pupil = Learner(build(CONFIG), batches=60, learning_rate=0.005)
    losses = [pupil.learn(IMAGES, LABELS) for _ in range(60)]
    assert losses[-1] < losses[0] / 2
    assert judge(pupil.classifier, BATCHES)[1] == 1.0


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 10])
def test_the_learning_rate_rises_to_its_peak_and_ends_near_zero(batches: int) -> None:
    pupil = Learner(build(CONFIG), batches, learning_rate=0.01)
    rates = [pupil.learning_rate]
    for _ in range(batches):
        pupil.learn(IMAGES, LABELS)
        rates.append(pupil.learning_rate)
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


def test_a_step_goes_down_the_smoothed_loss_and_tells_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "SMOOTHING", 0.3)
    pupil = Learner(build(CONFIG), batches=1, learning_rate=0.01)
    logits = pupil.classifier(IMAGES)
    smoothed = F.cross_entropy(logits, LABELS, label_smoothing=0.3)
    bias = pupil.classifier.get_parameter("network.output.bias")
    (expected,) = torch.autograd.grad(smoothed, bias, retain_graph=True)
    told = pupil.learn(IMAGES, LABELS)
    assert told == pytest.approx(F.cross_entropy(logits, LABELS).item())
    assert bias.grad is not None
    assert torch.allclose(bias.grad, expected, atol=1e-6)


def test_the_gradient_is_that_of_the_smoothed_cross_entropy() -> None:
    pupil = Learner(build(CONFIG), batches=1, learning_rate=0.01)
    images = torch.randint(0, 256, (16, *CONFIG.shape), dtype=torch.uint8)
    labels = torch.randint(0, len(CONFIG.classes), (16,))
    loss = F.cross_entropy(pupil.classifier(images), labels, label_smoothing=learner.SMOOTHING)
    expected = torch.autograd.grad(loss, list(pupil.classifier.parameters()))
    pupil.learn(images, labels)
    for parameter, gradient in zip(pupil.classifier.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient)
