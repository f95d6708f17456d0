"""Which layout a source has."""

from pathlib import Path

import pytest

from components.source import open_source
from components.step import UserError
from components.storage import S3Store, Store, open_store
from tests.components.source.archives import tar
from tests.components.source.reading import examples, fill
from tests.samples import write_folder


def refusal(uri: str) -> str:
    with pytest.raises(UserError) as error:
        open_source(uri)
    return str(error.value)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"cat/1.jpg": b"", "README.md": b"", "labels.txt": b""}, "tree"),
        ({"1.PNG": b""}, "tree"),
        ({"a/b.tgz": b"", "index.json": b""}, "webdataset"),
    ],
)
def test_a_folder_is_recognised_by_its_files(any_store: Store, files: dict[str, bytes], kind: str) -> None:
    assert open_source(fill(any_store, files)).kind == kind


def test_idx_files_are_recognised(tmp_path: Path) -> None:
    assert open_source(str(write_folder(tmp_path / "idx", ".gz"))).kind == "idx"


def test_a_layout_that_is_known_is_not_looked_for(tmp_path: Path) -> None:
    assert open_source(str(tmp_path), "tree").kind == "tree"


def test_a_folder_is_recognised_without_being_listed_to_its_end(any_store: Store) -> None:
    class Listed(Exception):
        pass

    from components.source import recognition

    def objects(prefix: str, passed_over: object):  # type: ignore[no-untyped-def]
        from components.storage import Object

        yield from (Object(f"cat/{number:04}.jpg", 1, "") for number in range(recognition.LOOKED_AT))
        raise Listed

    any_store.objects = objects  # type: ignore[method-assign, assignment]
    assert recognition.recognise_folder(any_store) == "tree"


def test_what_belongs_to_no_layout_is_refused_with_what_was_seen_and_what_is_supported(any_store: Store) -> None:
    message = refusal(fill(any_store, {"a.txt": b"", "b.txt": b"", "c/d.npy": b"", "e": b""}))
    assert any_store.uri in message
    assert "its first 4 files are 2 .txt, 1 .npy, 1 (none), such as 'a.txt', 'b.txt', 'c/d.npy'" in message
    assert "supported are a folder of images by class" in message


def test_several_layouts_in_a_folder_are_refused(any_store: Store) -> None:
    message = refusal(fill(any_store, {"cat/1.jpg": b"", "a.tar": b"", "b.parquet": b""}))
    assert "has files of several layouts (parquet, tree, webdataset)" in message


def test_a_table_in_a_folder_has_to_be_named(any_store: Store) -> None:
    uri = fill(any_store, {"labels.csv": b"uri,label\n"})
    assert "a .csv or .parquet table of uri and label" in refusal(uri)
    assert open_source(f"{uri}/labels.csv").kind == "table"


def test_a_folder_of_links_is_refused_with_their_number(tmp_path: Path) -> None:
    elsewhere = fill(open_store(str(tmp_path / "elsewhere")), {"cat/1.jpg": b""})
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "cat").symlink_to(f"{elsewhere}/cat")
    (tmp_path / "tree" / "broken").symlink_to("nowhere")
    assert "has nothing but 2 symbolic links" in refusal(str(tmp_path / "tree"))


def test_a_folder_of_hidden_names_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    assert "has nothing but 1 hidden or unusable names; rename them" in refusal(str(tmp_path))


def test_an_empty_folder_is_refused(any_store: Store, tmp_path: Path) -> None:
    if not isinstance(any_store, S3Store):
        (tmp_path / "store").mkdir()
    assert "is empty, or does not exist" in refusal(any_store.uri)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refusal(str(tmp_path / "mnits")) == f"source '{tmp_path / 'mnits'}' does not exist"


def test_a_bucket_that_does_not_exist_is_refused(s3_environment: None) -> None:
    assert "NoSuchBucket" in refusal("s3://no-such-bucket/images")
    assert "NoSuchBucket" in refusal("s3://no-such-bucket/images.tar")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"")
    assert f"source {tmp_path}/model.onnx is a .onnx file; supported are" in refusal(str(tmp_path / "model.onnx"))


def test_a_scheme_that_is_none_is_refused() -> None:
    assert "https://example.org/images" in refusal("https://example.org/images")


def test_a_path_may_be_relative_and_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(open_store(str(tmp_path / "data")), {"cat/1.jpg": b"x", "a.tar": tar({"1.jpg": b"x", "1.cls": b"1"})})
    monkeypatch.chdir(tmp_path)
    source = open_source("data/a.tar")
    assert source.uri == str(tmp_path / "data" / "a.tar")
    assert len(examples(source)) == 1


def test_an_archive_at_the_top_of_a_bucket_is_a_source(s3_environment: None) -> None:
    store = S3Store("s3://top-of-a-bucket")
    store.client.make_bucket(store.bucket)
    fill(store, {"a.tar": tar({"1.jpg": b"x", "1.cls": b"1"})})
    assert len(examples(open_source("s3://top-of-a-bucket/a.tar"))) == 1
