"""Tar archives of samples."""

import gzip
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.source import open_source
from components.source.example import Rejected
from components.step import StepError
from components.storage import DirectoryStore, Store
from tests.components.source.archives import special, tar, tar_of
from tests.components.source.reading import examples, fill, read_all, rejections

SAMPLES = {"0/1.jpg": b"one", "0/1.cls": b"3", "0/2.cls": b"4\n", "0/2.PNG": b"two", "0/2.txt": b"passed over"}


def test_files_of_one_name_are_a_sample(any_store: Store) -> None:
    source = open_source(fill(any_store, {"a.tar": tar(SAMPLES), "b.tar": tar({"1.webp": b"x", "1.txt": b" cat\n"})}))
    assert source.kind == "webdataset"
    assert [(e.name, e.label, e.content) for e in examples(source)] == [
        ("a.tar/0/1.jpg", "3", b"one"),
        ("a.tar/0/2.PNG", "4", b"two"),
        ("b.tar/1.webp", "cat", b"x"),
    ]


def test_an_archive_can_be_the_source(any_store: Store) -> None:
    uri = fill(any_store, {"data/a.tar": tar(SAMPLES), "data/b.tar": tar(SAMPLES)})
    source = open_source(f"{uri}/data/a.tar")
    assert source.uri == f"{uri}/data/a.tar"
    assert len(examples(source)) == 2


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz"])
def test_archives_may_be_compressed(any_store: Store, name: str) -> None:
    source = open_source(fill(any_store, {name: tar(SAMPLES, "w:gz")}))
    assert [e.content for e in examples(source)] == [b"one", b"two"]


@pytest.mark.parametrize(
    ("ending", "content", "label"),
    [
        ("cls", b" 17 \n", "17"),
        ("cls", b"-1", "-1"),
        ("cls", b"007", "7"),
        ("txt", "Käse\n".encode(), "Käse"),
        ("json", b'{"label": "cat", "more": 1}', "cat"),
        ("json", b'{"label": 3}', "3"),
    ],
)
def test_a_label_comes_from_cls_txt_or_json(store: DirectoryStore, ending: str, content: bytes, label: str) -> None:
    source = open_source(fill(store, {"a.tar": tar({"1.jpg": b"x", f"1.{ending}": content})}))
    assert [e.label for e in examples(source)] == [label]


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("cls", b"cat"),
        ("cls", b""),
        ("cls", b"1.5"),
        ("cls", b"9" * 5000),
        ("txt", b" \n"),
        ("txt", b"\xff"),
        ("json", b"[1]"),
        ("json", b'"label"'),
        ("json", b'{"label": null}'),
        ("json", b'{"label": true}'),
        ("json", b'{"label": ""}'),
        ("json", b'{"class": 1}'),
        ("json", b"[" * 100_000),
        ("json", b'{"label": ' + b"9" * 5000 + b"}"),
        ("json", b""),
        ("json", b'{"label": "\\ud800"}'),
    ],
)
def test_what_tells_no_class_is_rejected(store: DirectoryStore, ending: str, content: bytes) -> None:
    source = open_source(fill(store, {"a.tar": tar({"1.jpg": b"x", f"1.{ending}": content})}))
    assert rejections(source) == {"a.tar/1.jpg": ("no label", f"has a .{ending} that tells no class")}


def test_an_image_without_a_label_is_rejected(store: DirectoryStore) -> None:
    source = open_source(fill(store, {"a.tar": tar({"1.jpg": b"x", "2.jpg": b"y", "2.cls": b"1"})}))
    assert [reason for reason, _ in rejections(source).values()] == ["no label"]
    assert len(read_all(source)) == 2


def test_a_sample_must_have_one_image(store: DirectoryStore) -> None:
    files = {"1.cls": b"1", "2.jpg": b"x", "2.png": b"y", "2.cls": b"2", "3.yaml": b"other", "3.npy": b"things"}
    assert rejections(open_source(fill(store, {"a.tar": tar(files)}))) == {
        "a.tar/1.cls": ("unsupported", "belongs to a sample with no images; it must have one"),
        "a.tar/2.jpg": ("unsupported", "belongs to a sample with 2 images; it must have one"),
    }


def test_an_ending_begins_at_the_first_dot(store: DirectoryStore) -> None:
    files = {"v1.0/1.seg.png": b"mask", "v1.0/1.png": b"x", "v1.0/1.cls": b"1"}
    assert [e.content for e in examples(open_source(fill(store, {"a.tar": tar(files)})))] == [b"x"]


def test_an_image_whose_stem_has_a_dot_is_rejected_and_not_lost(store: DirectoryStore) -> None:
    files = {"img_1.5.jpg": b"x", "img_1.5.cls": b"1", "img_1.6.jpg": b"y", "img_1.6.cls": b"1", "2.jpg": b"z"}
    said = "has the ending .{}.jpg, which begins at the first dot; its name may have no other dot"
    assert rejections(open_source(fill(store, {"a.tar": tar(files)}))) == {
        "a.tar/img_1.5.jpg": ("unsupported", said.format(5)),
        "a.tar/img_1.6.jpg": ("unsupported", said.format(6)),
        "a.tar/2.jpg": ("no label", "has neither .cls nor .txt nor .json beside it"),
    }


def test_what_macos_adds_is_passed_over(store: DirectoryStore) -> None:
    source = open_source(
        fill(store, {"a.tar": tar({"._1.jpg": b"?", "1.jpg": b"x", "1.cls": b"1", ".DS_Store": b"?"})})
    )
    assert len(examples(source)) == 1


def test_the_path_of_an_archive_tells_its_split(any_store: Store) -> None:
    names = ("imagenet-train-000000.tar", "imagenet-val-000000.tar", "test/0.tar", "latest.tar")
    source = open_source(fill(any_store, {name: tar({"1.jpg": b"x", "1.cls": b"1"}) for name in names}))
    assert {e.name.removesuffix("/1.jpg"): e.split for e in examples(source)} == dict(
        zip(names, ("train", "validation", "test", None), strict=True)
    )
    assert source.splits == {"validation", "test"}


@pytest.mark.parametrize("name", ["/etc/1.jpg", "../1.jpg", "a/../../1.jpg", "..", "/"])
def test_names_that_lead_out_of_the_archive_are_rejected(store: DirectoryStore, name: str) -> None:
    source = open_source(fill(store, {"a.tar": tar([(name, b"!"), *SAMPLES.items()])}))
    assert rejections(source) == {f"a.tar/{name}": ("unsafe name", "has a name that leads out of the archive")}
    assert len(read_all(source)) == 3


def test_names_that_are_no_utf8_are_rejected(store: DirectoryStore) -> None:
    content = tar({"X.jpg": b"!"}, format=tarfile.USTAR_FORMAT)
    block = content[:148].replace(b"X", b"\xff") + b" " * 8 + content[156:512]
    content = block[:148] + f"{sum(block):06o}\0 ".encode() + content[156:]
    assert rejections(open_source(fill(store, {"a.tar": content}))) == {
        "a.tar/\\xff.jpg": ("unsafe name", "has a name that is not UTF-8")
    }


def test_links_and_devices_are_rejected_and_never_followed(store: DirectoryStore) -> None:
    members = (special("1.jpg", tarfile.SYMTYPE, "/etc/passwd"), special("2.jpg", tarfile.CHRTYPE))
    assert rejections(open_source(fill(store, {"a.tar": tar_of(*members)}))) == {
        "a.tar/1.jpg": ("unsupported", "is a symbolic link; only plain files are read"),
        "a.tar/2.jpg": ("unsupported", "is a device; only plain files are read"),
    }


def test_of_a_truncated_archive_is_read_what_is_left(any_store: Store) -> None:
    content = tar(SAMPLES)
    source = open_source(fill(any_store, {"a.tar": content[: 512 * 6 + 100], "b.tar": content}))
    detail = "ends in the middle of a header; what comes before that is read, and about 2 images are missing"
    assert rejections(source) == {"a.tar": ("truncated", detail)}
    assert [e.name for e in read_all(source)] == ["a.tar/0/1.jpg", "a.tar", "b.tar/0/1.jpg", "b.tar/0/2.PNG"]


def test_an_archive_that_lacks_its_end_mark_alone_is_read_to_its_end(store: DirectoryStore) -> None:
    source = open_source(fill(store, {"a.tar": tar(SAMPLES)[: 512 * 10]}))
    assert [e.name for e in read_all(source)] == ["a.tar/0/1.jpg", "a.tar/0/2.PNG", "a.tar"]


def archive(count: int, mode: str = "w") -> bytes:
    """So many samples, of 2,560 bytes each."""
    samples = [
        (f"{n:03}.{ending}", data) for n in range(count) for ending, data in (("jpg", b"x" * 600), ("cls", b"1"))
    ]
    return tar(samples, mode)


def entries(store: DirectoryStore, files: dict[str, bytes]) -> dict[str, int]:
    """How many entries each rejected archive stands for."""
    found = read_all(open_source(fill(store, files)))
    return {entry.name: entry.entries for entry in found if isinstance(entry, Rejected)}


def test_an_archive_that_was_cut_off_stands_for_what_the_largest_has_more(store: DirectoryStore) -> None:
    files = {"a.tar": archive(300), "b.tar": archive(300)[: 2560 * 6 + 100]}
    assert entries(store, files)["b.tar"] == pytest.approx(294, abs=60)


@pytest.mark.parametrize("content", [b"", b"no archive" * 500])
def test_an_archive_of_which_nothing_can_be_read_stands_for_what_others_have(
    store: DirectoryStore, content: bytes
) -> None:
    assert entries(store, {"a.tar": content, "b.tar": archive(300)}) == {
        "a.tar": pytest.approx(300 if not content else 2, abs=3)
    }


def test_the_largest_archive_stands_for_as_much_as_is_left_of_it_where_it_was_cut_off(store: DirectoryStore) -> None:
    files = {"a.tar": archive(100)[: 2560 * 50 + 100], "b.tar": archive(20)}
    assert entries(store, files) == {"a.tar": pytest.approx(50, abs=2)}


def test_a_damaged_archive_stands_for_what_comes_after_the_damage(store: DirectoryStore) -> None:
    content = bytearray(archive(100))
    content[2560 * 25] ^= 1
    assert entries(store, {"a.tar": bytes(content)}) == {"a.tar": pytest.approx(75, abs=4)}


def test_an_archive_that_lacks_its_end_mark_alone_stands_for_one_entry(store: DirectoryStore) -> None:
    assert entries(store, {"a.tar": archive(100)[: 2560 * 100]}) == {"a.tar": 1}


def test_names_of_a_megabyte_are_rejected_and_not_kept(store: DirectoryStore) -> None:
    source = open_source(fill(store, {"a.tar": tar([("x" * 2**19, b"!"), *SAMPLES.items()])}))
    assert rejections(source) == {
        f"a.tar/{'x' * 100}…": ("unsafe name", "has a name of 524,288 bytes; up to 4,096 are read")
    }
    assert len(read_all(source)) == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (tar(SAMPLES, "w:gz")[:-20], "truncated"),
        (b"no gzip at all", "undecodable"),
        (gzip.compress(b"no tar" * 1000, mtime=0), "undecodable"),
        (tar(SAMPLES, "w:gz")[:30] + b"!!!!" + tar(SAMPLES, "w:gz")[34:], "undecodable"),
    ],
)
def test_a_damaged_compressed_archive_is_rejected(store: DirectoryStore, content: bytes, reason: str) -> None:
    found = rejections(open_source(fill(store, {"a.tar.gz": content})))
    assert [reason for reason, _ in found.values()] == [reason]


def test_an_archive_that_changed_ends_the_step_since_it_holds_many_images(any_store: Store) -> None:
    source = open_source(fill(any_store, {"a.tar": tar(SAMPLES)}))
    pieces = list(source.pieces())
    any_store.write("a.tar", tar(SAMPLES | {"3.jpg": b"3"}))
    with pytest.raises(StepError, match=r"a\.tar"):
        list(source.examples(pieces))


def test_an_archive_that_vanished_ends_the_step(any_store: Store) -> None:
    source = open_source(fill(any_store, {"a.tar": tar(SAMPLES)}))
    pieces = [dict(piece) | {"key": "b.tar"} for piece in source.pieces()]
    with pytest.raises(StepError, match=r"b\.tar in .* vanished"):
        list(source.examples(pieces))


@settings(max_examples=40)
@given(st.binary(max_size=2000), st.sampled_from(["a.tar", "a.tar.gz"]))
def test_any_bytes_are_examples_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    store = DirectoryStore(tmp_path_factory.mktemp("fuzz"))
    assert all(isinstance(entry, Rejected) for entry in read_all(open_source(fill(store, {name: content}))))
