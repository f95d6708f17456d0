import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.dataset.manifest import SPLITS, content_digest, read_manifest, write_manifest
from components.step import UserError


def change(path: Path, how: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads(path.read_text())
    how(fields)
    path.write_text(json.dumps(fields))


def test_a_manifest_is_read_as_it_was_written(tiny_dataset: Path, tmp_path: Path) -> None:
    manifest = read_manifest(tiny_dataset)
    write_manifest(tmp_path / "deep" / "copy", manifest)
    assert read_manifest(tmp_path / "deep" / "copy") == manifest


def test_a_manifest_says_what_is_in_the_dataset(tiny_dataset: Path) -> None:
    manifest = read_manifest(tiny_dataset)
    assert manifest.classes == tuple("0123456789")
    assert manifest.shape == (28, 28, 1)
    assert {split: manifest.images(split) for split in SPLITS} == {"train": 540, "validation": 60, "test": 200}
    assert set(manifest.counts["validation"].values()) == {6}
    assert manifest.encoding == "raw"


def test_the_digest_tells_classes_shape_and_content_apart() -> None:
    splits = dict.fromkeys(SPLITS, "0" * 64)
    digests = {
        content_digest(("0", "1"), "raw", (28, 28, 1), splits),
        content_digest(("1", "0"), "raw", (28, 28, 1), splits),
        content_digest(("0", "1"), "raw", (14, 56, 1), splits),
        content_digest(("0", "1"), "encoded", (28, 28, 1), splits),
        content_digest(("0", "1"), "raw", (28, 28, 1), splits | {"test": "1" * 64}),
    }
    assert len(digests) == 5


def test_where_the_images_came_from_does_not_change_the_digest(tiny_dataset: Path) -> None:
    manifest = read_manifest(tiny_dataset)
    moved = dataclasses.replace(manifest, provenance={"source": "elsewhere"}, shards=())
    assert content_digest(moved.classes, moved.encoding, moved.shape, moved.split_digests) == manifest.digest


def test_a_newer_schema_is_refused(tiny_dataset: Path) -> None:
    change(tiny_dataset, lambda fields: fields.update(schema=3))
    with pytest.raises(UserError, match="has schema 3 and this Retrain reads 2"):
        read_manifest(tiny_dataset)


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields.pop("schema"),
        lambda fields: fields.pop("shards"),
        lambda fields: fields.update(surprise=1),
        lambda fields: fields.update(shards=[{"key": "k"}]),
        lambda fields: fields.update(classes=None),
        lambda fields: fields.update(classes=["a", "b"]),
        lambda fields: fields["split_digests"].update(test="0" * 64),
    ],
)
def test_a_manifest_that_was_changed_is_refused_by_name(
    tiny_dataset: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    change(tiny_dataset, damage)
    with pytest.raises(UserError, match=f"{tiny_dataset} is not a dataset manifest"):
        read_manifest(tiny_dataset)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"PAR1"])
def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="file is not a dataset manifest"):
        read_manifest(tmp_path / "file")


def test_a_manifest_that_does_not_exist_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere' cannot be read: No such file"):
        read_manifest(tmp_path / "nowhere")
