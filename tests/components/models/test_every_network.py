"""Every network of the catalogue learns, is saved, and answers alike when loaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from components.models import ARCHITECTURES
from components.models.artifact import Classifier, adaptations, build, load, save
from tests.components.models.test_networks import describe

FOREIGN = ["timm/convnext_atto", "timm/efficientnet_lite0", "torchvision/googlenet", "torchvision/regnet_y_400mf"]
"""Some that have no short name here."""

NAMES = [*ARCHITECTURES, *FOREIGN]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "channels"), [(name, 1 + 2 * (number % 2)) for number, name in enumerate(NAMES)])
def test_a_network_learns_and_answers_alike_when_loaded(name: str, channels: int, tmp_path: Path) -> None:
    config = describe(name, 28, 28, channels)
    torch.manual_seed(0)
    classifier = build(config)
    images, labels = blobs(8, channels)
    losses = [learn(classifier, images, labels) for _ in range(2)]
    assert losses[1] < losses[0]

    save(tmp_path / "model", classifier, config, [])
    loaded, _ = load(tmp_path / "model")
    with torch.inference_mode():
        assert torch.equal(loaded(images), classifier.eval()(images))
    assert adaptations(config, loaded) == adaptations(config, classifier)


def blobs(count: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of three classes that differ in brightness, uint8 [count, 28, 28, channels], and their labels."""
    labels = np.arange(count) % 3
    noise = np.random.default_rng(0).integers(0, 60, (count, 28, 28, channels))
    images: NDArray[np.uint8] = (noise + 90 * labels[:, None, None, None]).astype(np.uint8)
    return torch.from_numpy(images), torch.from_numpy(labels)


def learn(classifier: Classifier, images: torch.Tensor, labels: torch.Tensor) -> float:
    """A step down the gradient, so short that it foretells a loss that is 0.03 less; the loss before it.

    Over fewer than eight images, batch normalisation bends the loss so sharply that no step is short enough.
    """
    torch.manual_seed(1)  # the same dropout in each
    loss: torch.Tensor = F.cross_entropy(classifier.train()(images), labels)
    gradients = torch.autograd.grad(loss, list(classifier.parameters()))
    length = 0.03 / sum(gradient.square().sum().item() for gradient in gradients)
    with torch.no_grad():
        for parameter, gradient in zip(classifier.parameters(), gradients, strict=True):
            parameter.sub_(length * gradient)
    return loss.item()
