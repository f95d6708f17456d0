"""The claims of `predict`: pictures in, the champion's answers out."""

import io
import json
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from components.export.onnx_model import to_onnx
from components.export.parity import open_session
from components.models import artifact
from components.registry import promote, publish
from components.step import StepError, UserError
from components.storage import DirectoryStore
from pipelines.predict import predict, read_image
from tests.samples import drawn_images

pytestmark = pytest.mark.slow

GREY = (28, 28, 1)


@pytest.fixture(scope="module")
def onnx_model(_trained: Path) -> bytes:
    """A trained model as an ONNX file."""
    return bytes(to_onnx(*artifact.load(_trained), "mnist", cropped=False).SerializeToString())


@pytest.fixture
def champion_store(onnx_model: bytes, store: DirectoryStore, tmp_path: Path) -> DirectoryStore:
    """A store whose champion is `onnx_model`."""
    (tmp_path / "model.onnx").write_bytes(onnx_model)
    promote(store, publish(store, "mnist", {"model.onnx": tmp_path / "model.onnx"}, {}), over=None)
    return store


@pytest.fixture
def digits() -> NDArray[np.uint8]:
    """Test images, uint8 [20, 28, 28]."""
    return drawn_images(per_class=2, seed=2)[0]


def save(picture: Image.Image, file: Path, **options: Any) -> Path:
    """Writes a picture in the format that the file's name ends with."""
    picture.save(file, **options)
    return file


def answers(model: bytes, images: NDArray[np.uint8]) -> list[tuple[str, float]]:
    """What the model says of raw images, uint8 [N, 28, 28]: label and probability."""
    probabilities, labels = open_session(model).run(None, {"images": images[..., None]})
    return list(zip(labels, map(float, probabilities.max(axis=1)), strict=True))


def test_a_png_is_answered_exactly_like_the_image_in_it(
    champion_store: DirectoryStore, onnx_model: bytes, digits: NDArray[np.uint8], tmp_path: Path
) -> None:
    files = [save(Image.fromarray(digit), tmp_path / f"{index}.png") for index, digit in enumerate(digits)]
    found = predict(champion_store, "mnist", files)
    assert [prediction.file for prediction in found] == list(map(str, files))
    expected = answers(onnx_model, digits)
    assert [prediction.label for prediction in found] == [label for label, _ in expected]
    assert [prediction.probability for prediction in found] == pytest.approx([share for _, share in expected], abs=1e-5)
    assert len({prediction.label for prediction in found}) > 1


def test_a_jpeg_is_answered_nearly_like_the_image_it_was_made_from(
    champion_store: DirectoryStore, onnx_model: bytes, digits: NDArray[np.uint8], tmp_path: Path
) -> None:
    files = [save(Image.fromarray(digit), tmp_path / f"{i}.jpg", quality=95) for i, digit in enumerate(digits)]
    found = [prediction.label for prediction in predict(champion_store, "mnist", files)]
    expected = [label for label, _ in answers(onnx_model, digits)]
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 18


def test_more_files_than_a_batch_are_answered_in_their_order(
    champion_store: DirectoryStore, digits: NDArray[np.uint8], tmp_path: Path
) -> None:
    files = [save(Image.fromarray(digit), tmp_path / f"{index}.png") for index, digit in enumerate(digits)]
    once = predict(champion_store, "mnist", files)
    assert predict(champion_store, "mnist", files * 30) == once * 30


def test_no_files_give_no_predictions(champion_store: DirectoryStore) -> None:
    assert predict(champion_store, "mnist", []) == []


NO_TORCH = """
import json, sys
from pathlib import Path
from components.storage import open_store
from pipelines.predict import predict
[found] = predict(open_store(sys.argv[1]), "mnist", [Path(sys.argv[2])])
print(json.dumps({"label": found.label, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def test_predicting_needs_neither_torch_nor_the_tools_of_training(
    champion_store: DirectoryStore, digits: NDArray[np.uint8], tmp_path: Path
) -> None:
    file = save(Image.fromarray(digits[0]), tmp_path / "digit.png")
    command = [sys.executable, "-c", NO_TORCH, champion_store.uri, str(file)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found["label"] == predict(champion_store, "mnist", [file])[0].label
    assert set(found["modules"]).isdisjoint({"torch", "onnx", "onnxscript", "safetensors", "pyarrow", "kfp", "minio"})


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16"])
def test_any_kind_of_pixel_is_read_as_the_same_grey(mode: str, digits: NDArray[np.uint8], tmp_path: Path) -> None:
    grey = Image.fromarray(digits[0])
    picture = Image.fromarray(digits[0].astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    assert picture.mode == mode
    found = read_image(save(picture, tmp_path / "digit.png"), GREY, cropped=False)
    np.testing.assert_array_equal(found[..., 0], digits[0])


def test_a_grey_file_becomes_an_rgb_image(digits: NDArray[np.uint8], tmp_path: Path) -> None:
    found = read_image(save(Image.fromarray(digits[0]), tmp_path / "digit.png"), (28, 28, 3), cropped=False)
    np.testing.assert_array_equal(found, np.repeat(digits[0][..., None], 3, axis=2))


def test_a_larger_picture_is_made_smaller(digits: NDArray[np.uint8], tmp_path: Path) -> None:
    large = Image.fromarray(digits[0]).resize((280, 280), Image.Resampling.NEAREST)
    found = read_image(save(large, tmp_path / "digit.png"), GREY, cropped=False)
    assert found.shape == GREY
    assert np.abs(found[..., 0].astype(int) - digits[0]).mean() < 20


def test_what_is_transparent_is_ignored_as_it_is_where_data_is_ingested(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    picture.paste((255, 255, 255, 128), (10, 0, 20, 28))
    found = read_image(save(picture, tmp_path / "digit.png"), GREY, cropped=False)[..., 0]
    assert set(found[:, 10:20].flat) == {255}
    assert set(found[:, :10].flat) == {0}


def test_a_picture_that_was_taken_sideways_is_turned_upright(digits: NDArray[np.uint8], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    sideways = Image.fromarray(digits[0]).rotate(90, expand=True)
    found = read_image(save(sideways, tmp_path / "digit.png", exif=exif), GREY, cropped=False)
    np.testing.assert_array_equal(found[..., 0], digits[0])


PNG_END = bytes.fromhex("0000000049454e44ae426082")


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds hardly a pixel."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0"))]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "has no bytes"),
        (b"just text", "is none of JPEG, PNG"),
        (b"GIF89a" + bytes(100), "has a damaged header"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is none of JPEG, PNG"),
        (png_header(28, 28), "ends too early"),
        (png_header(10_000, 10_000) + PNG_END, "has 10000x10000 pixels; max_pixels is 50,000,000"),
        (png_header(100_000, 100_000) + PNG_END, "has 100000x100000 pixels"),
    ],
    ids=["empty", "text", "gif", "postscript", "truncated", "bomb", "large bomb"],
)
def test_a_file_that_is_no_sound_picture_is_named(content: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"/picture\.png {complaint}"):
        read_image(tmp_path / "picture.png", GREY, cropped=False)


def test_a_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.png cannot be read: No such file or directory"):
        read_image(tmp_path / "missing.png", GREY, cropped=False)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_image(tmp_path, GREY, cropped=False)


def test_damaged_pictures_are_read_or_refused_but_nothing_else(tmp_path: Path, digits: NDArray[np.uint8]) -> None:
    chance, refused = random.Random(0), set[bool]()
    sound = []
    for kind, mode in (("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("JPEG", "L"), ("JPEG", "CMYK")):
        exif, file = Image.Exif(), io.BytesIO()
        exif[0x0112], exif[0x010E] = 6, "a description"
        Image.fromarray(digits[0]).convert("RGB").convert(mode).save(file, kind, exif=exif)
        sound.append(file.getvalue())
    for _ in range(500):
        content = bytearray(chance.choice(sound))
        for _ in range(chance.choice((1, 3, 20))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        (tmp_path / "picture").write_bytes(content)
        try:
            assert read_image(tmp_path / "picture", GREY, cropped=False).shape == GREY
        except UserError as error:
            refused.add(str(error).startswith(f"{tmp_path}/picture "))
    assert refused == {True}


def test_without_a_champion_the_sentence_says_how_to_make_one(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no champion of model 'mnist' yet; `retrain run` makes one"):
        predict(store, "mnist", [tmp_path / "digit.png"])


def test_a_champion_that_was_damaged_in_the_store_answers_nothing(
    champion_store: DirectoryStore, digits: NDArray[np.uint8], tmp_path: Path
) -> None:
    file = save(Image.fromarray(digits[0]), tmp_path / "digit.png")
    [model] = (key for key in champion_store.keys("models/") if key.endswith(".onnx"))
    champion_store.write(model, champion_store.read(model)[:-1])
    with pytest.raises(StepError, match=r"model\.onnx is damaged in store"):
        predict(champion_store, "mnist", [file])
