"""Tables of URIs and labels."""

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.source import open_source
from components.source.table import csv_rows
from components.step import UserError
from components.storage import DirectoryStore, S3Store, Store
from tests.components.source.reading import examples, fill, read_all, rejections

IMAGES = {"images/1.jpg": b"one", "images/2.jpg": b"two"}
CSV = "uri,label\nimages/2.jpg,dog\nimages/1.jpg,cat\n"


def open_csv(store: Store, text: str | bytes) -> Any:
    """The source of a table in CSV."""
    content = text.encode() if isinstance(text, str) else text
    return open_source(fill(store, IMAGES | {"labels.csv": content}) + "/labels.csv")


def open_parquet(store: Store, columns: dict[str, Any]) -> Any:
    """The source of a table in Parquet."""
    content = io.BytesIO()
    parquet.write_table(pa.table(columns), content)
    return open_source(fill(store, IMAGES | {"labels.parquet": content.getvalue()}) + "/labels.parquet")


def refusal(store: Store, text: str | bytes) -> str:
    with pytest.raises(UserError) as error:
        list(open_csv(store, text).pieces())
    return str(error.value)


def test_the_images_come_in_the_order_of_the_rows(any_store: Store) -> None:
    source = open_csv(any_store, CSV)
    assert source.kind == "table"
    assert source.uri == f"{any_store.uri}/labels.csv"
    assert [(e.name, e.label, e.content, e.split, e.group) for e in examples(source)] == [
        ("labels.csv#2 images/2.jpg", "dog", b"two", None, None),
        ("labels.csv#3 images/1.jpg", "cat", b"one", None, None),
    ]


def test_parquet_is_as_good_as_csv(any_store: Store) -> None:
    source = open_parquet(any_store, {"uri": ["images/2.jpg", "images/1.jpg"], "label": [3, 4], "group": ["x", None]})
    assert [(e.name, e.label, e.content, e.group) for e in examples(source)] == [
        ("labels.parquet#0 images/2.jpg", "3", b"two", "x"),
        ("labels.parquet#1 images/1.jpg", "4", b"one", None),
    ]


def test_uris_are_relative_to_the_folder_of_the_table(any_store: Store) -> None:
    uri = fill(any_store, {f"a/{name}": content for name, content in IMAGES.items()} | {"a/labels.csv": CSV.encode()})
    assert len(examples(open_source(f"{uri}/a/labels.csv"))) == 2


def test_uris_may_lead_to_s3_from_anywhere(store: DirectoryStore, s3_environment: None) -> None:
    bucket = S3Store("s3://images-elsewhere")
    bucket.client.make_bucket(bucket.bucket)
    fill(bucket, IMAGES)
    source = open_csv(store, f"uri,label\nimages/1.jpg,here\n{bucket.uri}/images/2.jpg,there\n")
    assert [(e.label, e.content) for e in examples(source)] == [("here", b"one"), ("there", b"two")]


def test_split_and_group_may_be_given_in_any_order_of_the_columns(any_store: Store) -> None:
    text = "group,width,split,label,uri\np1,3,Valid,cat,images/1.jpg\n,4,,dog,images/2.jpg\n"
    source = open_csv(any_store, text)
    assert [(e.split, e.group, e.label) for e in examples(source)] == [
        ("validation", "p1", "cat"),
        (None, None, "dog"),
    ]
    assert source.splits == {"validation"}


def test_csv_may_be_quoted_and_written_by_excel(store: DirectoryStore) -> None:
    source = open_csv(store, b'\xef\xbb\xbfuri,label\r\n"images/1.jpg","big, ""old""\ncat"\r\n\r\nimages/2.jpg,dog\r\n')
    assert [(e.name, e.label) for e in examples(source)] == [
        ("labels.csv#3 images/1.jpg", 'big, "old"\ncat'),
        ("labels.csv#5 images/2.jpg", "dog"),
    ]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (
            "path,class",
            "must have the columns uri and label, and may have split and group; its first line has path, class",
        ),
        ("uri,Label", "did 'Label' mean 'label'?"),
        (
            "url,label",
            "must have the columns uri and label, and may have split and group; its first line has url, label",
        ),
        ("uri,label,splits", "did 'splits' mean 'split'?"),
        ("uri,label,Group ", "did 'Group ' mean 'group'?"),
        ("uri,label,label", "has more than one column 'label'"),
        ("", "its first line has none"),
    ],
)
def test_a_wrong_header_is_refused(store: DirectoryStore, header: str, says: str) -> None:
    message = refusal(store, f"{header}\nimages/1.jpg,cat,x\n")
    assert f"{store.uri}/labels.csv" in message
    assert says in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("uri,label\nimages/1.jpg\n", "line 2, has 1 values, not 2"),
        ("uri,label\nimages/1.jpg,cat\nimages/2.jpg,dog,x\n", "line 3, has 3 values, not 2"),
        ('uri,label\nimages/1.jpg,"cat\n', "line 2, is no CSV (unexpected end of data)"),
        ('uri,label\nimages/1.jpg,"cat"x\n', "line 2, is no CSV"),
        ("uri,label,split\nimages/1.jpg,cat,holdout\n", "row 2, has the split 'holdout'; it must be one of train"),
        (b"uri,label\nimages/1.jpg,cat\nimages/2.jpg,caf\xe9\n", "line 3, is no UTF-8"),
        (b"uri,label\n" + b"x" * 2**21, "line 2, is longer than 1048576 bytes"),
        (b"uri,label\n" + b"x" * 2**18 + b",x", "line 2, is no CSV (field larger than field limit"),
    ],
)
def test_a_damaged_line_is_refused_with_its_number(store: DirectoryStore, text: str | bytes, says: str) -> None:
    message = refusal(store, text)
    assert f"{store.uri}/labels.csv, " in message
    assert says in message


@pytest.mark.parametrize(
    "uri",
    ["/etc/passwd", "../1.jpg", "images/../../1.jpg", "images/\0.jpg", "file:///etc/passwd", ".hidden/1.jpg", "s3://"],
)
def test_uris_that_lead_elsewhere_are_rejected(store: DirectoryStore, uri: str) -> None:
    source = open_csv(store, f"uri,label\n{uri},cat\nimages/1.jpg,dog\n")
    assert [reason for reason, _ in rejections(source).values()] in (["unsafe name"], ["unreadable"])
    assert len(read_all(source)) == 2


@pytest.mark.parametrize("uri", ["./images/1.jpg", "images/./1.jpg", "images//1.jpg", "images/../images/1.jpg"])
def test_a_path_may_be_written_in_other_ways(any_store: Store, uri: str) -> None:
    assert [e.content for e in examples(open_csv(any_store, f"uri,label\n{uri},cat\n"))] == [b"one"]


def test_wrong_settings_of_s3_are_said_and_reject_no_row(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio:9000")
    assert "AWS_ENDPOINT_URL must be http(s)://host:port" in refusal(store, "uri,label\ns3://bucket/1.jpg,cat\n")


@pytest.mark.parametrize("uri", ["s3://", "s3:///1.jpg", "s3://bucket", "s3://bucket/../1.jpg"])
def test_uris_that_name_nothing_in_s3_are_rejected_whatever_its_settings(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "minio:9000")
    assert [reason for reason, _ in rejections(open_csv(store, f"uri,label\n{uri},cat\n")).values()] == ["unsafe name"]


def test_rows_that_name_no_image_are_rejected(any_store: Store) -> None:
    text = "uri,label\nimages/3.jpg,cat\nimages/1.jpg,\n,cat\nimages/2.jpg,dog\nimages,dog\n"
    source = open_csv(any_store, text)
    assert rejections(source) == {
        "labels.csv#2 images/3.jpg": ("unreadable", "does not exist"),
        "labels.csv#3 images/1.jpg": ("no label", "has no label in its row"),
        "labels.csv#4": ("unreadable", "has no uri in its row"),
        "labels.csv#6 images": ("unreadable", "does not exist"),
    }
    assert len(read_all(source)) == 5


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "data")
    source = open_csv(store, CSV)
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "data" / "images" / "1.jpg").unlink()
    (tmp_path / "data" / "images" / "1.jpg").symlink_to(tmp_path / "secret")
    assert rejections(source) == {
        "labels.csv#3 images/1.jpg": ("unsafe name", "leads out of the folder of the table by a symbolic link")
    }
    assert len(read_all(source)) == 2


def test_an_image_that_changed_since_the_table_was_looked_up_is_rejected(any_store: Store) -> None:
    source = open_csv(any_store, CSV)
    pieces = list(source.pieces())
    any_store.write("images/1.jpg", b"another")
    assert [getattr(entry, "reason", "") for entry in source.examples(pieces)] == ["", "changed"]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"uri": ["a"], "label": [1.5]}, "has a column 'label' of type double; it must hold strings or whole numbers"),
        ({"uri": [b"a"], "label": ["a"]}, "has a column 'uri' of type binary"),
        ({"uri": ["a"], "label": ["a"], "split": [True]}, "has a column 'split' of type bool"),
        ({"uri": ["a"], "lable": ["a"]}, "did 'lable' mean 'label'?"),
        ({"uri": ["a"]}, "must have the columns uri and label"),
    ],
)
def test_a_parquet_table_of_other_columns_is_refused(store: DirectoryStore, columns: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        open_parquet(store, columns)
    assert says in str(error.value)


def test_an_empty_table_has_no_images(store: DirectoryStore) -> None:
    assert read_all(open_csv(store, "uri,label\n")) == []
    assert read_all(open_parquet(store, {"uri": pa.array([], pa.string()), "label": pa.array([], pa.string())})) == []


@given(st.one_of(st.binary(max_size=300), st.text('uri,label"\n\r x\0é\ufeff', max_size=60).map(str.encode)))
def test_any_bytes_are_a_table_or_refused(content: bytes) -> None:
    for text in (content, b"uri,label\n" + content):
        with suppress(UserError):
            list(csv_rows(io.BytesIO(text), "a table"))


@settings(max_examples=10)
@given(st.lists(st.text(max_size=20), min_size=20))
def test_any_uri_is_read_or_rejected(tmp_path_factory: pytest.TempPathFactory, uris: list[str]) -> None:
    source = open_parquet(DirectoryStore(tmp_path_factory.mktemp("fuzz")), {"uri": uris, "label": uris})
    assert len(read_all(source)) == len(uris)
