"""Parquet files with the images in a column."""

import io
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.source import open_source
from components.source.example import Rejected
from components.step import StepError, UserError
from components.storage import DirectoryStore, Store
from tests.components.source.reading import examples, fill, read_all, rejections

FILES = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def write(columns: dict[str, Any], metadata: dict[str, Any] | None = None, **options: Any) -> bytes:
    """A file with these columns; the metadata are JSON."""
    table = pa.table(columns)
    if metadata:
        table = table.replace_schema_metadata({name: json.dumps(value) for name, value in metadata.items()})
    content = io.BytesIO()
    parquet.write_table(table, content, **options)
    return content.getvalue()


def images(count: int = 4) -> dict[str, Any]:
    """Columns as Hugging Face `datasets` has them."""
    rows = [{"bytes": bytes([number]) * 10, "path": f"{number}.jpg"} for number in range(count)]
    return {"image": pa.array(rows, FILES), "label": pa.array([number % 2 for number in range(count)], pa.int64())}


def class_label(column: str, *names: str) -> dict[str, Any]:
    """The metadata by which Hugging Face `datasets` knows the names of classes."""
    features = {"image": {"_type": "Image"}, column: {"_type": "ClassLabel", "names": names}}
    return {"huggingface": {"info": {"features": features}}}


def refusal(source: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as error:
        source()
    return str(error.value)


def refuse(store: Store, content: bytes) -> str:
    """What is said of a file."""
    uri = fill(store, {"a.parquet": content})
    return refusal(lambda: read_all(open_source(uri)))


def test_files_of_hugging_face_are_read_with_the_names_of_their_classes(any_store: Store) -> None:
    content = write(images(), class_label("label", "cat", "dog"), row_group_size=3)
    names = ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet")
    source = open_source(fill(any_store, dict.fromkeys(names, content) | {"README.md": b"", "data/a.json": b""}))
    pieces = list(source.pieces())
    found = list(source.examples(pieces))
    assert source.kind == "parquet"
    assert source.shape is None
    assert source.splits == {"test"}
    assert source.passed_over == {".md": 1, ".json": 1}
    assert [piece["images"] for piece in pieces] == [3, 1, 3, 1]
    assert [(e.name, e.label, e.content, e.split) for e in found[4:]] == [  # type: ignore[union-attr]
        (f"{names[0]}#{number}", ("cat", "dog")[number % 2], bytes([number]) * 10, "train") for number in range(4)
    ]


def test_one_file_can_be_the_source(any_store: Store) -> None:
    uri = fill(any_store, {"a/b.parquet": write(images()), "a/c.parquet": write(images())})
    assert len(examples(open_source(f"{uri}/a/b.parquet"))) == 4


def test_a_folder_may_be_called_like_a_file(any_store: Store) -> None:
    uri = fill(any_store, {"a.parquet/part-0.parquet": write(images()), "a.parquet/_SUCCESS": b""})
    assert len(examples(open_source(f"{uri}/a.parquet"))) == 4


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.struct({"bytes": pa.large_binary()})]
)
def test_images_may_be_bytes_of_any_kind(store: DirectoryStore, kind: pa.DataType) -> None:
    values: list[Any] = [b"one", b"two"]
    if pa.types.is_struct(kind):
        values = [{"bytes": value} for value in values]
    content = write({"image": pa.array(values, kind), "label": ["a", "b"]})
    assert [e.content for e in examples(open_source(fill(store, {"a.parquet": content})))] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (pa.array(["a", "b"]), ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
        (pa.array([3, -1], pa.int8()), ["3", "-1"]),
        (pa.array([2**63, 0], pa.uint64()), [str(2**63), "0"]),
    ],
)
def test_labels_may_be_strings_or_whole_numbers(store: DirectoryStore, labels: pa.Array, expected: list[str]) -> None:
    content = write({"image": [b"1", b"2"], "label": labels})
    assert [e.label for e in examples(open_source(fill(store, {"a.parquet": content})))] == expected


def test_the_only_columns_of_bytes_and_of_classes_may_have_any_name(store: DirectoryStore) -> None:
    columns = {"img": [b"1"], "fine_label": [1], "note": ["x"]}
    source = open_source(fill(store, {"a.parquet": write(columns, class_label("fine_label", "apple", "bear"))}))
    assert [(e.content, e.label) for e in examples(source)] == [(b"1", "bear")]


def test_a_class_whose_name_is_no_text_labels_nothing(store: DirectoryStore) -> None:
    source = open_source(fill(store, {"a.parquet": write(images(), class_label("label", "cat", "d\ud800g"))}))
    assert [reason for reason, _ in rejections(source).values()] == ["no label", "no label"]
    assert len(read_all(source)) == 4


def test_raw_pixels_have_their_shape_in_the_metadata(any_store: Store) -> None:
    columns = {"image": pa.array([b"abcdef", b"ghijkl"], pa.binary(6)), "label": ["0", "1"]}
    source = open_source(fill(any_store, {"a.parquet": write(columns, {"shape": [1, 2, 3]}), "x.txt": b""}))
    assert source.shape == (1, 2, 3)
    assert [(e.content, e.label) for e in examples(source)] == [(b"abcdef", "0"), (b"ghijkl", "1")]


def test_split_and_group_may_be_columns(any_store: Store) -> None:
    columns = {"image": [b"1", b"2", b"3"], "label": ["a"] * 3, "split": ["dev", None, "train"], "group": [7, None, 8]}
    source = open_source(fill(any_store, {"a.parquet": write(columns)}))
    assert [(e.split, e.group) for e in examples(source)] == [("validation", "7"), (None, None), ("train", "8")]
    assert source.splits == {"validation"}


def test_folders_may_stand_for_columns(any_store: Store) -> None:
    content = write({"image": [b"1"]})
    paths = ("label=big%20cat/split=val/0.parquet", "label=dog/split=train/group=shop/0.parquet")
    source = open_source(fill(any_store, dict.fromkeys(paths, content)))
    assert [(e.label, e.split, e.group) for e in examples(source)] == [
        ("big cat", "validation", None),
        ("dog", "train", "shop"),
    ]
    assert source.splits == {"validation"}


def test_rows_without_an_image_or_a_class_are_rejected(store: DirectoryStore) -> None:
    rows = [None, {"bytes": None, "path": "a.jpg"}, {"bytes": b"3"}, {"bytes": b"4"}, {"bytes": b"5"}, {"bytes": b"6"}]
    columns = {"image": pa.array(rows, FILES), "label": [0, 0, None, -1, 2, 1]}
    source = open_source(fill(store, {"a.parquet": write(columns, class_label("label", "cat", "dog"))}))
    reasons = {name: reason for name, (reason, _) in rejections(source).items()}
    assert reasons == {f"a.parquet#{row}": "empty" for row in (0, 1)} | {
        f"a.parquet#{row}": "no label" for row in (2, 3, 4)
    }
    assert len(read_all(source)) == 6


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"label": ["a"]}, "must have a column 'image' of bytes, or a single one of that type; it has label (string)"),
        ({"image": ["a.jpg"], "label": ["a"]}, "it has image (string), label (string)"),
        ({"a": [b"1"], "b": [b"2"], "label": ["a"]}, "must have a column 'image' of bytes"),
        ({"image": [b"1"]}, "must have a column 'label'; it has image (binary)"),
        (
            {"image": [b"1"], "label": [1.5]},
            "has a column 'label' of type double; it must hold strings or whole numbers",
        ),
        ({"image": [b"1"], "label": [["a"]]}, "has a column 'label' of type list"),
        ({"image": [b"1"], "label": ["a"], "group": [1.5]}, "has a column 'group' of type double"),
        (
            {"image": [b"1"], "label": ["a"], "split": ["tain"]},
            "has the split 'tain'; it must be one of train, training",
        ),
        ({"image": pa.array([b"12"], pa.binary(2)), "label": ["a"]}, "but no 'shape' in its metadata that fits"),
    ],
)
def test_other_columns_are_refused_with_what_is_there(
    store: DirectoryStore, columns: dict[str, Any], says: str
) -> None:
    message = refuse(store, write(columns))
    assert f"{store.uri}/a.parquet" in message
    assert says in message


@pytest.mark.parametrize(
    "shape", [[1, 2], [2, 2, 2], [0, 0, 0], [3, 1, 1], "x", [1, 1, 1e400], {"a": 1}, [1, "6", 1, 1]]
)
def test_a_shape_that_does_not_fit_is_refused(store: DirectoryStore, shape: Any) -> None:
    columns = {"image": pa.array([b"abcdef"], pa.binary(6)), "label": ["0"]}
    assert "but no 'shape' in its metadata that fits" in refuse(store, write(columns, {"shape": shape}))


@pytest.mark.parametrize("metadata", [{"huggingface": []}, {"huggingface": {"info": {"features": {"label": 1}}}}])
def test_metadata_that_are_none_are_passed_over(store: DirectoryStore, metadata: dict[str, Any]) -> None:
    assert [e.label for e in examples(open_source(fill(store, {"a.parquet": write(images(1), metadata)})))] == ["0"]


def test_a_later_file_of_other_types_is_refused_by_name(store: DirectoryStore) -> None:
    uri = fill(store, {"a.parquet": write(images()), "b.parquet": write({"image": [b"1"], "label": [1.5]})})
    assert "b.parquet has a column 'label' of type double" in refusal(lambda: list(open_source(uri).pieces()))


def test_raw_pixels_and_files_do_not_mix(store: DirectoryStore) -> None:
    raw = write({"image": pa.array([b"abcdef"], pa.binary(6)), "label": ["0"]}, {"shape": [1, 2, 3]})
    uri = fill(store, {"a.parquet": write(images()), "b.parquet": raw})
    assert "b.parquet has images as raw pixels 1x2x3, the first file as files" in refusal(
        lambda: list(open_source(uri).pieces())
    )


def test_a_damaged_file_among_others_is_rejected(any_store: Store) -> None:
    content = write(images())
    source = open_source(fill(any_store, {"a.parquet": content, "b.parquet": content[:-5], "c.parquet": b""}))
    assert {name: reason for name, (reason, _) in rejections(source).items()} == {
        "b.parquet": "undecodable",
        "c.parquet": "undecodable",
    }
    assert len(read_all(source)) == 6


def test_a_file_without_a_footer_stands_for_as_many_images_as_the_others_have_in_its_size(
    store: DirectoryStore,
) -> None:
    content = write({"image": [random.Random(row).randbytes(300) for row in range(200)], "label": ["a"] * 200})
    source = open_source(fill(store, {"a.parquet": content, "b.parquet": content[: len(content) // 2]}))
    assert [piece["images"] for piece in source.pieces()] == [200, 100]
    assert [entry.entries for entry in read_all(source) if isinstance(entry, Rejected)] == [100]


def test_files_that_are_all_damaged_are_refused(store: DirectoryStore) -> None:
    assert "a.parquet is no Parquet file" in refuse(store, b"PAR1 and nothing else PAR1")


def test_a_damaged_file_at_the_beginning_is_put_aside_as_any_other(store: DirectoryStore) -> None:
    content = write({"image": [random.Random(row).randbytes(300) for row in range(200)], "label": ["a"] * 200})
    source = open_source(fill(store, {"a.parquet": content[: len(content) // 2], "b.parquet": content}))
    assert [piece["images"] for piece in source.pieces()] == [100, 200]
    found = read_all(source)
    assert [(entry.name, entry.entries) for entry in found if isinstance(entry, Rejected)] == [("a.parquet", 100)]
    assert len(found) == 201


def test_of_a_damaged_row_group_the_others_are_read(store: DirectoryStore) -> None:
    content = bytearray(write(images(100), row_group_size=50, compression="zstd", use_dictionary=False))
    content[10:60] = bytes(50)
    found = read_all(open_source(fill(store, {"a.parquet": bytes(content)})))
    assert [e.name for e in found] == ["a.parquet#0", *(f"a.parquet#{row}" for row in range(50, 100))]
    assert isinstance(found[0], Rejected)
    assert (found[0].reason, found[0].entries) == ("undecodable", 50)


def test_a_page_that_would_not_fit_into_memory_is_refused(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.source.parquet.LARGEST_PAGE", 2**20)
    monkeypatch.setattr("components.source.parquet.BUFFER", 2**16)
    columns = {"image": [random.Random(row).randbytes(2**14) for row in range(200)], "label": ["a"] * 200}
    fitting = write(columns, row_group_size=100, use_dictionary=False, write_batch_size=1, data_page_size=2**17)
    assert len(examples(open_source(fill(store, {"a.parquet": fitting})))) == 200
    for options in ({"use_dictionary": False}, {"use_dictionary": True}, {"data_page_version": "2.0"}):
        message = refuse(store, write(columns, **options))
        assert (
            "a.parquet has a page of 3 MiB, and up to 1 MiB are read; write it anew with row groups of 100" in message
        )


@pytest.mark.parametrize("rows", [1, 3])
def test_a_small_page_that_would_not_fit_into_memory_unpacked_is_refused(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr("components.source.parquet.LARGEST_PAGE", 2**20)
    monkeypatch.setattr("components.source.parquet.BUFFER", 2**16)
    columns = {"image": [bytes(2**21)] * 3, "label": ["a"] * 3}
    content = write(columns, compression="zstd", use_dictionary=False, row_group_size=rows)
    assert len(content) < 10_000
    assert f"has a row group of {2 * rows} MiB, and up to 1 MiB are read" in refuse(store, content)


def test_images_that_stand_in_a_dictionary_are_unpacked_few_at_a_time(store: DirectoryStore) -> None:
    images = pa.DictionaryArray.from_arrays(pa.array([0] * 300, pa.int32()), pa.array([bytes(2**20)], pa.binary()))
    content = write({"image": images, "label": ["a"] * 300}, store_schema=False, compression="none")
    assert len(content) < 2**21
    source = open_source(fill(store, {"a.parquet": content}))
    pieces = list(source.pieces())
    before = pa.default_memory_pool().max_memory()
    assert sum(len(entry.content) == 2**20 for entry in source.examples(pieces)) == 300
    assert max(pa.default_memory_pool().max_memory() - before, 0) < 64 * 2**20


def test_a_file_that_changed_ends_the_step_since_it_holds_many_images(any_store: Store) -> None:
    source = open_source(fill(any_store, {"a.parquet": write(images())}))
    pieces = list(source.pieces())
    any_store.write("a.parquet", write(images(5)))
    with pytest.raises(StepError, match=r"a\.parquet"):
        list(source.examples(pieces))


def test_a_file_that_vanished_ends_the_step(any_store: Store) -> None:
    source = open_source(fill(any_store, {"a.parquet": write(images())}))
    pieces = [dict(piece) | {"key": "b.parquet"} for piece in source.pieces()]
    with pytest.raises(StepError, match=r"b\.parquet vanished"):
        list(source.examples(pieces))


@pytest.mark.slow
@settings(max_examples=60)
@given(st.data())
def test_a_file_with_any_bytes_changed_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(write(images(), class_label("label", "cat", "dog")))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    store = DirectoryStore(tmp_path_factory.mktemp("fuzz"))
    with suppress(UserError, StepError):
        read_all(open_source(fill(store, {"a.parquet": bytes(content)})))


TYPES = st.sampled_from(
    [
        pa.int8(),
        pa.float32(),
        pa.string(),
        pa.binary(),
        pa.binary(4),
        pa.bool_(),
        pa.date32(),
        pa.null(),
        FILES,
        pa.list_(FILES),
    ]
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(["image", "label", "split", "group", "uri", ""]), TYPES), max_size=5),
    st.binary(),
)
def test_any_columns_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, fields: list[tuple[str, pa.DataType]], metadata: bytes
) -> None:
    schema = pa.schema(fields, metadata={"huggingface": metadata, "shape": metadata})
    content = io.BytesIO()
    parquet.write_table(pa.table([pa.nulls(3, kind) for _, kind in fields], schema=schema), content)
    store = DirectoryStore(tmp_path_factory.mktemp("fuzz"))
    uri = fill(store, {"a.parquet": content.getvalue()})
    for name in (uri, f"{uri}/a.parquet"):
        with suppress(UserError, StepError):
            read_all(open_source(name))
