"""The claims of the ONNX file."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from components.export.onnx_model import to_onnx
from components.export.parity import compare, open_session, require_parity
from components.models.artifact import Classifier, ModelConfig, build
from components.step import StepError

pytestmark = pytest.mark.slow

CLASSES = ("zéro", "one", "two")


def make(shape: tuple[int, int, int] = (28, 28, 1), **options: object) -> tuple[Classifier, ModelConfig]:
    """A LeNet-5 with random weights, and its config."""
    config = ModelConfig(
        architecture="lenet5",
        options={"activation": "relu", "pooling": "max", "bias": True} | options,
        classes=CLASSES,
        shape=shape,
        mean=(0.13, 0.2, 0.3)[: shape[2]],
        std=(0.31, 0.4, 0.5)[: shape[2]],
        dataset="digest of the dataset",
        training={},
    )
    torch.manual_seed(0)
    return build(config).eval(), config


def random_images(count: int, shape: tuple[int, int, int] = (28, 28, 1)) -> NDArray[np.uint8]:
    """Noise, uint8 [count, height, width, channels]."""
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> bytes:
    """An ONNX file."""
    return bytes(to_onnx(*make(), "mnist", cropped=False).SerializeToString(deterministic=True))


def test_raw_images_go_in_and_probabilities_and_labels_come_out(model: bytes) -> None:
    session = open_session(model)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 28, 28, 1])
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("probabilities", "tensor(float)", ["batch", 3]),
        ("labels", "tensor(string)", ["batch"]),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 257])
def test_a_batch_of_any_size_is_answered_like_pytorch(model: bytes, count: int) -> None:
    images = random_images(count)
    probabilities, labels = open_session(model).run(None, {"images": images})
    with torch.inference_mode():
        expected = make()[0](torch.from_numpy(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert labels.tolist() == [CLASSES[index] for index in expected.argmax(axis=1)]


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "tanh", "pooling": "avg"},
        {"activation": "sigmoid", "bias": False},
        {"activation": "leaky_relu", "pooling": "avg", "bias": False, "shape": (32, 32, 3)},
    ],
)
def test_every_kind_of_layer_is_exported_faithfully(options: dict[str, object]) -> None:
    classifier, config = make(**options)  # type: ignore[arg-type]
    session = open_session(to_onnx(classifier, config, "mnist", cropped=False).SerializeToString())
    require_parity(compare(session, classifier, config.classes, [random_images(300, config.shape)], 300))


class Undecided(torch.nn.Module):
    """Its way depends on what is on the images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


def test_a_network_that_cannot_be_exported_is_one_sentence() -> None:
    _, config = make((28, 28, 3))
    classifier = Classifier(Undecided(), config.mean, config.std).eval()
    with pytest.raises(
        StepError, match=r"^PyTorch \S+ cannot export this network to ONNX \(.+\); take another"
    ) as caught:
        to_onnx(classifier, config, "mnist", cropped=False)
    assert "\n" not in str(caught.value)


def test_the_same_weights_give_the_same_bytes(model: bytes) -> None:
    assert to_onnx(*make(), "mnist", cropped=False).SerializeToString(deterministic=True) == model


def test_the_file_knows_what_it_is_and_nothing_of_this_machine(model: bytes) -> None:
    facts = {entry.key: entry.value for entry in onnx.load_from_string(model).metadata_props}
    classes = json.dumps(CLASSES)
    dataset = "digest of the dataset"
    assert facts == {"model_name": "mnist", "classes": classes, "dataset": dataset, "cropped": "false"}
    assert str(Path(__file__).parents[3]).encode() not in model
    assert b"stack_trace" not in model


def test_parity_is_measured_on_all_images(model: bytes) -> None:
    classifier, config = make()
    parity = compare(open_session(model), classifier, config.classes, [random_images(200), random_images(100)], 300)
    assert parity.images == 300
    assert parity.max_difference < 1e-6
    assert parity.agreement == 1


def test_a_model_whose_weights_changed_since_is_no_match(model: bytes) -> None:
    classifier, config = make()
    with torch.no_grad():
        next(classifier.parameters()).mul_(1.1)
    parity = compare(open_session(model), classifier, config.classes, [random_images(200), random_images(100)], 300)
    assert 1e-4 < parity.max_difference < 0.1
    with pytest.raises(StepError, match="does not answer like PyTorch"):
        require_parity(parity)


def test_classes_in_another_order_are_no_match(model: bytes) -> None:
    classifier, config = make()
    parity = compare(open_session(model), classifier, config.classes[::-1], [random_images(300)], 300)
    assert parity.max_difference < 1e-6
    assert parity.agreement < 0.999
    with pytest.raises(StepError, match="labels agree"):
        require_parity(parity)
