"""Where a training starts from."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models as torchvision_models

from components.models.artifact import Classifier, ModelConfig, build, save
from components.models.start import start
from components.registry import promote, publish
from components.step import StepError, UserError
from components.storage import DirectoryStore
from tests.components.models.test_networks import describe

CONFIG = replace(describe("lenet5", 28, 28, 1), classes=("a", "b", "c", "d"))
FILES = ("weights.safetensors", "config.json", "curve.json")


@pytest.fixture
def crown(store: DirectoryStore, tmp_path: Path) -> Callable[[ModelConfig], Classifier]:
    """Makes a classifier of this config, with random weights, the champion of `digits`."""

    def crowned(config: ModelConfig) -> Classifier:
        torch.manual_seed(1)
        champion = build(config)
        save(tmp_path / "model", champion, config, [])
        version = publish(store, "digits", {file: tmp_path / "model" / file for file in FILES}, {})
        assert promote(store, version, None)
        return champion

    return crowned


def fresh(config: ModelConfig) -> Classifier:
    """A classifier that nothing was done to."""
    torch.manual_seed(2)
    return build(config)


def logits(classifier: Classifier, config: ModelConfig = CONFIG) -> torch.Tensor:
    """Of eight images of noise, always the same."""
    images = torch.randint(0, 256, (8, *config.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    answer: torch.Tensor = classifier.eval()(images)
    return answer


def test_from_scratch_nothing_is_changed(store: DirectoryStore) -> None:
    classifier = fresh(CONFIG)
    assert start(classifier, CONFIG, "scratch", store, "digits") == "starts from scratch"
    assert torch.equal(logits(classifier), logits(fresh(CONFIG)))


def test_without_a_champion_it_starts_from_scratch_and_says_so(store: DirectoryStore) -> None:
    classifier = fresh(CONFIG)
    told = start(classifier, CONFIG, "champion", store, "digits")
    assert told == f"starts from scratch: digits has no champion in store {store.uri} yet"
    assert torch.equal(logits(classifier), logits(fresh(CONFIG)))


def test_the_champion_goes_on_where_it_stood(store: DirectoryStore, crown: Callable[[ModelConfig], Classifier]) -> None:
    champion, classifier = crown(CONFIG), fresh(CONFIG)
    told = start(classifier, CONFIG, "champion", store, "digits")
    assert told == "starts from digits version 1, the champion; its 4 classes keep their weights"
    assert torch.equal(logits(classifier), logits(champion))


def test_each_row_of_the_head_follows_its_class(
    store: DirectoryStore, crown: Callable[[ModelConfig], Classifier]
) -> None:
    champion, config = crown(CONFIG), replace(CONFIG, classes=("d", "new", "a", "c"))
    classifier = fresh(config)
    told = start(classifier, config, "champion", store, "digits")
    assert told == "starts from digits version 1, the champion; new classes: new; classes gone: b"
    kept = logits(classifier)[:, [0, 2, 3]]
    assert torch.allclose(kept, logits(champion)[:, [3, 0, 2]], atol=1e-6)
    untouched = fresh(config).network.get_parameter("output.weight")[1]
    assert torch.equal(classifier.network.get_parameter("output.weight")[1], untouched)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet18", "squeezenet", "nasnet_mobile", "torchvision/regnet_y_400mf"])
def test_classes_come_and_go_in_networks_of_every_library(
    architecture: str, store: DirectoryStore, crown: Callable[[ModelConfig], Classifier]
) -> None:
    before = replace(describe(architecture, 32, 32, 3), classes=("a", "b", "c"))
    after = replace(before, classes=("c", "a", "e", "f", "b"))
    champion, classifier = crown(before), fresh(after)
    start(classifier, after, "champion", store, "digits")
    assert torch.allclose(logits(classifier, after)[:, [1, 4, 0]], logits(champion, before), atol=1e-5)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (describe("squeezenet", 28, 28, 1), "squeezenet on images of 28x28x1"),
        (replace(CONFIG, shape=(32, 32, 1)), "on images of 32x32x1"),
        (replace(CONFIG, options={**CONFIG.options, "activation": "tanh"}), "lenet5 activation=tanh bias=True pooling"),
    ],
)
def test_a_champion_that_is_another_network_is_no_start(
    other: ModelConfig, told: str, store: DirectoryStore, crown: Callable[[ModelConfig], Classifier]
) -> None:
    crown(CONFIG)
    with pytest.raises(
        UserError,
        match=r"start 'champion' needs the champion's own network: digits version 1 is lenet5"
        rf".*{told}.*--start scratch or pretrained",
    ):
        start(fresh(other), other, "champion", store, "digits")


def test_a_damaged_champion_is_not_started_from(
    store: DirectoryStore, crown: Callable[[ModelConfig], Classifier]
) -> None:
    crown(CONFIG)
    (weights,) = (key for key in store.keys("models/digits/") if key.endswith(".safetensors"))
    store.write(weights, b"damaged")
    with pytest.raises(StepError, match="is damaged in store"):
        start(fresh(CONFIG), CONFIG, "champion", store, "digits")


def test_an_unknown_start_is_refused(store: DirectoryStore) -> None:
    with pytest.raises(UserError, match="unknown start 'champ'; did you mean 'champion'"):
        start(fresh(CONFIG), CONFIG, "champ", store, "digits")


# pretrained


def put(store: DirectoryStore, network: torch.nn.Module, name: str, tmp_path: Path) -> None:
    """Lays the weights of a network into the store as its library publishes them."""
    save_file(network.state_dict(), tmp_path / "published.safetensors")
    store.write(f"pretrained/{name}.safetensors", tmp_path / "published.safetensors")


@pytest.mark.slow
def test_timm_s_weights_are_taken_from_the_store_and_the_head_stays_fresh(
    store: DirectoryStore, tmp_path: Path
) -> None:
    published = timm.create_model("resnet18", num_classes=1000)
    put(store, published, "resnet18", tmp_path)
    config = describe("resnet18", 32, 32, 3)
    classifier = fresh(config)
    head = classifier.network.get_parameter("fc.weight").clone()
    told = start(classifier, config, "pretrained", store, "digits")
    place = f"pretrained/resnet18.safetensors in store {store.uri}"
    assert told == f"starts from the pretrained weights {place}; the head for 3 classes is fresh"
    assert torch.equal(classifier.network.get_parameter("fc.weight"), head)
    assert torch.equal(
        classifier.network.get_parameter("layer4.1.conv2.weight"), published.get_parameter("layer4.1.conv2.weight")
    )


def test_grey_images_get_the_sum_of_the_colours_in_the_first_layer(store: DirectoryStore, tmp_path: Path) -> None:
    published = timm.create_model("resnet10t", num_classes=1000)
    put(store, published, "timm/resnet10t", tmp_path)
    config = describe("timm/resnet10t", 32, 32, 1)
    classifier = fresh(config)
    start(classifier, config, "pretrained", store, "digits")
    first = classifier.network.get_parameter("conv1.0.weight")
    assert torch.allclose(first, published.get_parameter("conv1.0.weight").sum(1, keepdim=True), atol=1e-6)


@pytest.mark.slow
def test_as_many_classes_keep_the_head(store: DirectoryStore, tmp_path: Path) -> None:
    config = replace(describe("resnet18", 32, 32, 3), classes=tuple(map(str, range(1000))))
    published = timm.create_model("resnet18", num_classes=1000)
    put(store, published, "resnet18", tmp_path)
    classifier = fresh(config)
    assert start(classifier, config, "pretrained", store, "digits").endswith("their head is kept, for as many classes")
    assert torch.equal(classifier.network.get_parameter("fc.weight"), published.get_parameter("fc.weight"))


def test_torchvision_s_weights_are_taken_without_their_auxiliary_heads(store: DirectoryStore, tmp_path: Path) -> None:
    published = torchvision_models.googlenet(weights=None, num_classes=1000, aux_logits=True, init_weights=False)
    put(store, published, "torchvision/googlenet", tmp_path)
    config = describe("torchvision/googlenet", 32, 32, 1)
    classifier = fresh(config)
    start(classifier, config, "pretrained", store, "digits")
    assert torch.equal(classifier.network.get_parameter("conv1.conv.weight"), published.conv1.conv.weight)


@pytest.mark.slow
def test_timm_s_cache_serves_where_the_store_has_nothing(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = timm.create_model("resnet18", num_classes=1000)
    cache(published, "timm/resnet18.a1_in1k", tmp_path, monkeypatch)
    config = describe("resnet18", 32, 32, 3)
    classifier = fresh(config)
    told = start(classifier, config, "pretrained", store, "digits")
    assert told.startswith("starts from the pretrained weights timm/resnet18.a1_in1k in the Hugging Face cache")
    assert torch.equal(classifier.network.get_parameter("conv1.weight"), published.get_parameter("conv1.weight"))


def cache(network: torch.nn.Module, repository: str, room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lays weights where the Hugging Face Hub's client keeps what it has downloaded."""
    folder = room / "hub" / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(room / "hub"))


@pytest.mark.parametrize(
    ("architecture", "told"),
    [
        (
            "resnet18",
            r"finds no weights of resnet18, and downloads none: neither pretrained/resnet18\.safetensors in store \S+ "
            r"nor timm/resnet18\.a1_in1k in the Hugging Face cache .*"
            r"`hf download timm/resnet18\.a1_in1k model\.safetensors`",
        ),
        (
            "squeezenet",
            r"no pretrained/squeezenet\.safetensors in store .*squeezenet1_1.*weights=.DEFAULT.* put the file",
        ),
        ("xception", r"no pretrained/xception\.safetensors in store .*timm\.create_model\(.legacy_xception\.tf_in1k."),
        ("lenet5", r"no pretrained/lenet5\.safetensors in store \S+; put them there"),
    ],
)
def test_no_weights_here_is_one_sentence_that_names_the_command(
    architecture: str, told: str, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "nothing"))
    config = describe(architecture, 28, 28, 1)
    with pytest.raises(UserError, match=told) as caught:
        start(fresh(config), config, "pretrained", store, "digits")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet18", "squeezenet", "timm/dla34"])
def test_weights_of_another_network_are_refused(architecture: str, store: DirectoryStore, tmp_path: Path) -> None:
    put(store, torch.nn.Linear(3, 4), architecture, tmp_path)
    config = describe(architecture, 32, 32, 3)
    classifier = fresh(config)
    with pytest.raises(UserError, match=rf"pretrained/{architecture}\S+ in store \S+ does not fit {architecture}"):
        start(classifier, config, "pretrained", store, "digits")
    assert torch.equal(logits(classifier, config), logits(fresh(config), config))


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"\x80\x02a pickle", json.dumps({"a": 1}).encode() * 10])
def test_what_is_no_safetensors_file_is_refused_unread(content: bytes, store: DirectoryStore) -> None:
    store.write("pretrained/resnet18.safetensors", content)
    config = describe("resnet18", 32, 32, 3)
    with pytest.raises(UserError, match=r"is damaged, or no safetensors file \(.*\); fetch it anew"):
        start(fresh(config), config, "pretrained", store, "digits")
