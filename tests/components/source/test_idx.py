import gzip
import hashlib
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.source import open_source
from components.source.example import Example
from components.source.idx import PIECE_BYTES, read_shape
from components.step import StepError, UserError
from components.storage import Store
from tests.components.source.reading import examples, read_all
from tests.samples import drawn_images, write_folder, write_idx

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read_all(open_source(str(folder)))
    return str(error.value)


def change(folder: Path, name: str, how: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(how((folder / name).read_bytes()))


def test_images_and_labels_are_read_as_they_were_written(idx_folder: Path) -> None:
    source = open_source(str(idx_folder))
    found = examples(source)
    images, labels = drawn_images(60, seed=1)
    train = [example for example in found if example.split == "train"]
    assert source.shape == (28, 28, 1)
    assert [example.content for example in train] == [image.tobytes() for image in images]
    assert [example.label for example in train] == [str(label) for label in labels]
    assert [example.split for example in found[600:]] == ["test"] * 200
    assert source.splits == {"test"}


def test_every_image_has_a_name_of_its_own(idx_folder: Path) -> None:
    names = [example.name for example in examples(open_source(str(idx_folder)))]
    assert names[17] == f"{IMAGES}#17"
    assert len(set(names)) == 800


@pytest.mark.slow
def test_gzipped_files_are_as_good_as_plain_ones_and_s3_as_good_as_a_directory(
    idx_folder: Path, any_store: Store, tmp_path: Path
) -> None:
    for path in write_folder(tmp_path / "gzipped", ".gz").iterdir():
        any_store.write(path.name, path)
    plain, gzipped = examples(open_source(str(idx_folder))), examples(open_source(any_store.uri))
    assert [(e.content, e.label, e.split) for e in plain] == [(e.content, e.label, e.split) for e in gzipped]


def test_names_may_be_written_with_a_dot(idx_folder: Path) -> None:
    for path in idx_folder.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(examples(open_source(str(idx_folder)))) == 800


def test_images_may_have_three_channels(idx_folder: Path) -> None:
    for part, count in (("train", 600), ("t10k", 200)):
        write_idx(idx_folder / f"{part}-images-idx3-ubyte", np.zeros((count, 8, 9, 3), np.uint8))
    source = open_source(str(idx_folder))
    assert source.shape == (8, 9, 3)
    assert {len(example.content) for example in examples(source)} == {8 * 9 * 3}


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_any_piece_can_be_read_by_itself(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.source.idx.PIECE_BYTES", 28 * 28 * 100)
    source = open_source(str(write_folder(tmp_path / "idx", suffix)))
    pieces = list(source.pieces())
    assert [piece["images"] for piece in pieces] == ([600, 200] if suffix else [100] * 8)
    whole = list(source.examples(pieces))
    assert [example for piece in reversed(pieces) for example in source.examples([piece])] == [
        example for piece in reversed(pieces) for example in whole if _is_of(example, piece)
    ]


def _is_of(example: object, piece: object) -> bool:
    assert isinstance(example, Example)
    assert isinstance(piece, dict)
    name, _, number = example.name.partition("#")
    return name.startswith(piece["part"]) and piece["start"] <= int(number) < piece["start"] + piece["images"]


def test_a_piece_is_no_larger_than_is_read_at_once(idx_folder: Path) -> None:
    assert all(piece["bytes"] <= PIECE_BYTES + 2**20 for piece in open_source(str(idx_folder)).pieces())


def test_a_file_that_changed_after_it_was_listed_ends_the_step(idx_folder: Path) -> None:
    pieces = list(open_source(str(idx_folder)).pieces())
    change(idx_folder, LABELS, lambda content: content[:-1] + b"\7")
    with pytest.raises(StepError, match="changed after they were listed"):
        list(open_source(str(idx_folder)).examples(pieces))


def test_a_file_that_vanishes_ends_the_step(idx_folder: Path) -> None:
    source = open_source(str(idx_folder))
    (idx_folder / LABELS).unlink()
    with pytest.raises(StepError, match=f"{LABELS} vanished"):
        read_all(source)


def test_mnist_is_known_by_what_its_files_hold_wherever_the_cache_lies(
    idx_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in idx_folder.iterdir()}
    monkeypatch.setattr("components.source.mnist.FILES", hashes)
    monkeypatch.setattr("components.source.mnist.cache", lambda: idx_folder)
    one = list(open_source("mnist").pieces())
    for path in idx_folder.iterdir():
        path.write_bytes(path.read_bytes())
    assert list(open_source("mnist").pieces()) == one
    assert len(examples(open_source("mnist", "idx"))) == 800


def test_images_with_two_channels_are_refused(idx_folder: Path) -> None:
    write_idx(idx_folder / IMAGES, np.zeros((600, 8, 9, 2), np.uint8))
    assert f"{IMAGES} has images with 2 channels; they must have 1 or 3" in refusal(idx_folder)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
@pytest.mark.parametrize("length", [0, 3, 7, 100])
def test_a_truncated_file_is_refused_by_name(idx_folder: Path, name: str, length: int) -> None:
    change(idx_folder, name, lambda content: content[:length])
    message = refusal(idx_folder)
    assert str(idx_folder / name) in message
    assert "is truncated: it has" in message or "has the magic number" in message


def test_a_truncated_file_is_refused_with_both_lengths(idx_folder: Path) -> None:
    change(idx_folder, IMAGES, lambda content: content[:-1])
    assert "is truncated: it has 470415 bytes, not the 470416 of 600x28x28 values" in refusal(idx_folder)


def test_trailing_bytes_are_refused(idx_folder: Path) -> None:
    change(idx_folder, LABELS, lambda content: content + b"\0")
    assert f"{LABELS} is too long: it has 609 bytes, not the 608 of 600 values" in refusal(idx_folder)


def test_a_header_that_claims_more_than_memory_holds_costs_none(idx_folder: Path) -> None:
    change(idx_folder, IMAGES, lambda content: content[:4] + b"\xff" * 12 + content[16:])
    assert "is truncated" in refusal(idx_folder)


@pytest.mark.parametrize(
    ("name", "magic", "wanted"),
    [
        (IMAGES, "00000d03", "00000803 or 00000804"),  # floats
        (IMAGES, "00000801", "00000803 or 00000804"),  # labels
        (LABELS, "00000803", "00000801"),
        (LABELS, "89504e47", "00000801"),  # PNG
    ],
)
def test_a_wrong_magic_number_is_shown_with_the_right_one(idx_folder: Path, name: str, magic: str, wanted: str) -> None:
    change(idx_folder, name, lambda content: bytes.fromhex(magic) + content[4:])
    assert f"{name} has the magic number {magic}, not {wanted}" in refusal(idx_folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
        lambda content: content[:-8] + bytes(4) + content[-4:],
        lambda content: b"no gzip at all",
    ],
    ids=["truncated", "bit flipped", "wrong checksum", "something else"],
)
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = write_folder(tmp_path / "gzipped", ".gz")
    change(folder, f"{IMAGES}.gz", damage)
    assert re.search(rf"{IMAGES}\.gz is a damaged gzip file \(.+\); get it anew", refusal(folder))


def test_different_counts_of_images_and_labels_are_refused(idx_folder: Path) -> None:
    write_idx(idx_folder / LABELS, np.zeros(599, np.uint8))
    message = refusal(idx_folder)
    assert f"{IMAGES} has 600 images" in message
    assert f"{LABELS} has 599 labels" in message


def test_different_shapes_of_training_and_test_images_are_refused(idx_folder: Path) -> None:
    write_idx(idx_folder / "t10k-images-idx3-ubyte", np.zeros((200, 32, 32), np.uint8))
    assert "28x28x1 and 32x32x1; they must be the same" in refusal(idx_folder)


@pytest.mark.parametrize("shape", [(0, 28, 28), (600, 0, 28)])
def test_an_empty_file_is_refused(idx_folder: Path, shape: tuple[int, ...]) -> None:
    write_idx(idx_folder / IMAGES, np.zeros(shape, np.uint8))
    assert f"{IMAGES} is empty: it has {'x'.join(map(str, shape))} values" in refusal(idx_folder)


def test_a_missing_file_is_named(idx_folder: Path) -> None:
    (idx_folder / LABELS).unlink()
    assert f"lacks {LABELS} (plain or .gz)" in refusal(idx_folder)


def test_a_folder_in_place_of_a_file_is_none(idx_folder: Path) -> None:
    (idx_folder / LABELS).unlink()
    (idx_folder / LABELS).mkdir()
    assert f"lacks {LABELS} (plain or .gz)" in refusal(idx_folder)


def test_a_gzipped_file_that_goes_on_after_its_values_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "gzipped", ".gz")
    change(folder, f"{LABELS}.gz", lambda content: gzip.compress(gzip.decompress(content) + b"!"))
    assert f"{LABELS}.gz is too long: it has 609 bytes, not the 608 of 600 values" in refusal(folder)


@pytest.mark.slow
@settings(max_examples=40)
@given(st.data())
def test_files_with_any_bytes_changed_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    suffix = data.draw(st.sampled_from(["", ".gz"]))
    folder = write_folder(tmp_path_factory.mktemp("fuzz") / "idx", suffix)
    for name in data.draw(st.sets(st.sampled_from([IMAGES, LABELS]), min_size=1)):
        content = bytearray((folder / f"{name}{suffix}").read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, 40))] = data.draw(st.integers(0, 255))
        (folder / f"{name}{suffix}").write_bytes(content[: data.draw(st.integers(0, 2**19))])
    with suppress(UserError, StepError):
        read_all(open_source(str(folder)))


@given(st.binary(max_size=100), st.integers(0, 2))
def test_any_header_is_read_or_refused(content: bytes, kept: int) -> None:
    with suppress(UserError):
        assert 0 not in read_shape("a file", bytes.fromhex("00000803")[: 2 * kept] + content, (3, 4))


def test_an_image_larger_than_memory_is_not_believed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "gzipped", ".gz")
    shape = np.array([600, 2**30, 2**30], ">u4").tobytes()
    change(folder, f"{IMAGES}.gz", lambda content: gzip.compress(gzip.decompress(content)[:4] + shape))
    assert "claims images of 1073741824x1073741824 bytes" in refusal(folder)
