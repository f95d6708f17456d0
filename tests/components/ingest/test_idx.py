import gzip
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from components.ingest.idx import read_folder, read_idx
from components.step import UserError
from tests.samples import drawn_images, write_folder, write_idx

IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        read_folder(folder)
    return str(error.value)


def change(folder: Path, name: str, how: Callable[[bytes], bytes]) -> None:
    (folder / name).write_bytes(how((folder / name).read_bytes()))


def test_images_and_labels_are_read_as_they_were_written(idx_folder: Path) -> None:
    source = read_folder(idx_folder)
    images, labels = drawn_images(60, seed=1)
    assert source.train.images.shape == (600, 28, 28, 1)
    assert source.train.labels.dtype == np.int64
    np.testing.assert_array_equal(source.train.images[..., 0], images)
    np.testing.assert_array_equal(source.train.labels, labels)
    assert source.test.images.shape == (200, 28, 28, 1)


def test_the_hash_of_every_file_is_kept(idx_folder: Path) -> None:
    files = read_folder(idx_folder).files
    assert files == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in idx_folder.iterdir()}


def test_gzipped_files_are_as_good_as_plain_ones(idx_folder: Path, tmp_path: Path) -> None:
    plain, gzipped = read_folder(idx_folder), read_folder(write_folder(tmp_path / "gzipped", ".gz"))
    np.testing.assert_array_equal(plain.train.images, gzipped.train.images)
    assert plain.files == gzipped.files


def test_names_may_be_written_with_a_dot(idx_folder: Path) -> None:
    for path in idx_folder.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(read_folder(idx_folder).train.images) == 600


def test_images_may_have_three_channels(idx_folder: Path) -> None:
    for part, count in (("train", 600), ("t10k", 200)):
        write_idx(idx_folder / f"{part}-images-idx3-ubyte", np.zeros((count, 8, 9, 3), np.uint8))
    assert read_folder(idx_folder).train.images.shape == (600, 8, 9, 3)


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
    assert "28x28x1 and 32x32x1" in refusal(idx_folder)


@pytest.mark.parametrize("shape", [(0, 28, 28), (600, 0, 28)])
def test_an_empty_file_is_refused(idx_folder: Path, shape: tuple[int, ...]) -> None:
    write_idx(idx_folder / IMAGES, np.zeros(shape, np.uint8))
    assert f"{IMAGES} is empty: it has {'x'.join(map(str, shape))} values" in refusal(idx_folder)


def test_a_missing_file_is_named(idx_folder: Path) -> None:
    (idx_folder / LABELS).unlink()
    assert f"lacks {LABELS} (plain or .gz)" in refusal(idx_folder)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path / "mnits")
    assert "source must be 'mnist' or a folder of IDX files" in message
    assert "mnits': No such file or directory" in message


def test_a_folder_in_place_of_a_file_is_refused(idx_folder: Path) -> None:
    (idx_folder / LABELS).unlink()
    (idx_folder / LABELS).mkdir()
    assert f"{LABELS} cannot be read: Is a directory" in refusal(idx_folder)


def test_gzip_is_known_by_the_name(tmp_path: Path) -> None:
    (tmp_path / "labels.gz").write_bytes(gzip.compress(bytes.fromhex("00000801 00000002 0103")))
    assert read_idx(tmp_path / "labels.gz", (1,)).values.tolist() == [1, 3]
