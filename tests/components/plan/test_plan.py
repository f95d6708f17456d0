"""The plan of a source."""

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from components.dataset import plan as records
from components.dataset.manifest import SPLITS, Manifest, content_digest, encode, manifest_key
from components.dataset.splits import Cuts
from components.plan import plan as module
from components.plan.cuts import Survey
from components.plan.interface import Plan
from components.plan.plan import Spool, plan
from components.source.example import Piece, Source
from components.step import StepError, UserError
from components.storage import DirectoryStore, Store
from tests.components.source.reading import fill
from tests.servers.listing import PAGE, Bucket


def make_plan(source: object, store: Store, folder: Path, **parameters: Any) -> tuple[records.Plan, list[int]]:
    """What the step writes: the plan, and the numbers of the workers."""
    step = Plan(source=str(source), store=store.uri, plan=folder / "plan", workers=folder / "workers", **parameters)
    plan(step)
    return records.read_plan(store, step.plan.read_text()), json.loads(step.workers.read_text())


def pieces(store: Store, made: records.Plan) -> list[list[Piece]]:
    return [list(records.read_chunk(store, made.digest, number)) for number in range(made.chunks)]


def contents(store: DirectoryStore) -> dict[str, bytes]:
    return {key: store.read(key) for key in store.keys("")}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of 60 images of two classes."""
    for label in "ab":
        folder = tmp_path / "tree" / label
        folder.mkdir(parents=True)
        for number in range(30):
            (folder / f"{number:02}.jpg").write_bytes(random.Random(f"{label}{number}").randbytes(100))
    return tmp_path / "tree"


def test_the_plan_says_what_there_is_and_where(tree: Path, any_store: Store, tmp_path: Path) -> None:
    made, workers = make_plan(tree, any_store, tmp_path, max_pixels=1000)
    assert (made.source, made.kind, made.shape) == (str(tree), "tree", None)
    assert (made.chunks, made.images, made.bytes) == (1, 60, 6000)
    assert (made.parent, made.max_pixels, workers) == (None, 1000, [0])
    assert [piece["key"] for piece in pieces(any_store, made)[0]][:2] == ["a/00.jpg", "a/01.jpg"]


def test_a_source_in_s3_is_planned_like_a_folder(any_store: Store, store: DirectoryStore, tmp_path: Path) -> None:
    made, _ = make_plan(fill(any_store, {"a/1.jpg": b"1", "b/2.jpg": b"2"}), store, tmp_path)
    assert (made.source, made.images) == (any_store.uri, 2)


def test_idx_files_are_planned_with_their_shape(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> None:
    made, _ = make_plan(idx_folder, store, tmp_path)
    assert (made.shape, made.images, made.bytes) == ((28, 28, 1), 800, 800 * 785)
    assert made.cuts.test == 0.0
    assert set(made.cuts.by_class) == set("0123456789")


def test_planning_twice_writes_the_same(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    one, _ = make_plan(tree, store, tmp_path)
    before = contents(store)
    other, _ = make_plan(tree, store, tmp_path)
    assert one == other
    assert contents(store) == before


def test_the_number_of_workers_changes_nothing_but_the_list(
    tree: Path, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    one, alone = make_plan(tree, store, tmp_path, ingest_workers=1)
    other, four = make_plan(tree, store, tmp_path, ingest_workers=4)
    _, many = make_plan(tree, store, tmp_path, ingest_workers=100)
    assert one == other
    assert (alone, four, many) == ([0], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    "parameters", [{"max_pixels": 7}, {"test_fraction": 0.2}, {"validation_fraction": 0.2}], ids=lambda p: next(iter(p))
)
def test_other_parameters_make_another_plan(
    tree: Path, store: DirectoryStore, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    one, _ = make_plan(tree, store, tmp_path)
    other, _ = make_plan(tree, store, tmp_path, **parameters)
    assert one.digest != other.digest


def test_a_file_that_changed_makes_another_plan(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    one, _ = make_plan(tree, store, tmp_path)
    (tree / "a" / "07.jpg").write_bytes(bytes(100))
    other, _ = make_plan(tree, store, tmp_path)
    assert one.digest != other.digest


def lines(sizes: Iterable[int]) -> list[bytes]:
    """Pieces of these bytes, as they are listed."""
    return [json.dumps({"place": place, "bytes": size}).encode() for place, size in enumerate(sizes)]


def test_parts_of_files_are_cut_by_bytes_and_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 10)
    monkeypatch.setattr(module, "CHUNK_PIECES", 3)
    sizes = [4, 6, 1, 1, 1, 1, 25, 3, 25, 25, 0, 0, 0, 0]
    chunks: dict[int, list[int]] = {}
    for number, line in module.cut(lines(sizes)):
        chunks.setdefault(number, []).append(json.loads(line)["bytes"])
    assert list(chunks) == list(range(9))
    assert list(chunks.values()) == [[4, 6], [1, 1, 1], [1], [25], [3], [25], [25], [0, 0, 0], [0]]


@pytest.mark.parametrize("chunks", [1, 2, 7, 10])
@pytest.mark.parametrize("order", ["one class after another", "by turns"])
def test_files_are_dealt_out_so_that_every_chunk_has_its_share_of_every_class(chunks: int, order: str) -> None:
    labels = ["a"] * 300 + ["b"] * 100 + ["c"] * 200 if order == "one class after another" else ["a", "b"] * 300
    dealt = [Counter[str]() for _ in range(chunks)]
    for number, line in module.deal(lines([1] * len(labels)), chunks):
        dealt[number][labels[json.loads(line)["place"]]] += 1
    assert max(chunk.total() for chunk in dealt) - min(chunk.total() for chunk in dealt) <= 1
    spread = 2 if order == "one class after another" else len(labels) / chunks / 4
    for label, count in Counter(labels).items():
        assert all(abs(chunk[label] - count / chunks) <= spread for chunk in dealt)


def test_all_files_are_in_the_chunks_each_in_the_order_of_the_source(
    tree: Path, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 700)
    monkeypatch.setattr(module, "LINES", 13)
    made, _ = make_plan(tree, store, tmp_path)
    chunks = [[each["key"] for each in chunk] for chunk in pieces(store, made)]
    assert sorted(map(len, chunks)) == [6] * 3 + [7] * 6
    assert all(chunk == sorted(chunk) for chunk in chunks)
    assert sorted(key for chunk in chunks for key in chunk) == [f"{c}/{n:02}.jpg" for c in "ab" for n in range(30)]
    assert all({key[0] for key in chunk} == {"a", "b"} for chunk in chunks)


def test_no_chunk_has_more_pieces_than_are_read_together(
    tree: Path, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_PIECES", 16)
    made, _ = make_plan(tree, store, tmp_path)
    assert [len(chunk) for chunk in pieces(store, made)] == [15] * 4


def test_archives_are_read_one_after_another(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    archives = {f"{number:02}.tar": bytes(400) for number in range(9)}
    made, _ = make_plan(fill(DirectoryStore(tmp_path / "data"), archives), store, tmp_path, test_fraction=0.1)
    assert [[piece["key"][:2] for piece in chunk] for chunk in pieces(store, made)] == [
        ["00", "01"],
        ["02", "03"],
        ["04", "05"],
        ["06", "07"],
        ["08"],
    ]


def test_a_chunk_that_went_from_the_store_is_written_again(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    made, _ = make_plan(tree, store, tmp_path)
    before = contents(store)
    (store.root / records.chunk_key(made.digest, 0)).unlink()
    make_plan(tree, store, tmp_path)
    assert contents(store) == before


def test_a_plan_that_can_be_found_is_whole(
    tree: Path, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 1000)
    write = DirectoryStore.write

    def fail(self: DirectoryStore, key: str, content: bytes | Path) -> None:
        if key.endswith("000003.jsonl"):
            raise StepError("the store is gone")
        write(self, key, content)

    with monkeypatch.context() as failing:
        failing.setattr(DirectoryStore, "write", fail)
        with pytest.raises(StepError, match="the store is gone"):
            make_plan(tree, store, tmp_path)
    assert not [key for key in store.keys("") if key.endswith("plan.json")]
    assert not (tmp_path / "plan").exists()
    assert make_plan(tree, store, tmp_path)[0].chunks == 6


def test_a_source_without_images_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    table = fill(DirectoryStore(tmp_path / "data"), {"labels.csv": b"uri,label\n"}) + "/labels.csv"
    with pytest.raises(UserError, match=r"labels.csv' has no images"):
        make_plan(table, store, tmp_path)


def test_a_small_source_is_cut_exactly_and_a_large_one_by_the_fractions(
    tree: Path, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, _ = make_plan(tree, store, tmp_path, test_fraction=0.1, validation_fraction=0.2)
    assert set(small.cuts.by_class) == {"a", "b"}
    monkeypatch.setattr(module, "SURVEY_BYTES", 5999)
    large, _ = make_plan(tree, store, tmp_path, test_fraction=0.1, validation_fraction=0.2)
    assert large.cuts == Cuts(0.1, 0.1 + 0.2, {})


def test_a_small_source_is_read_once_and_again_where_it_or_the_cuts_change(
    tree: Path, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveys: list[Spool] = []
    look_at = module.look_at

    def counted(source: Source, spool: Spool) -> Survey:
        surveys.append(spool)
        return look_at(source, spool)

    monkeypatch.setattr(module, "look_at", counted)
    first, _ = make_plan(tree, store, tmp_path)
    assert make_plan(tree, store, tmp_path)[0] == first
    assert len(surveys) == 1
    make_plan(tree, store, tmp_path, test_fraction=0.3)
    assert len(surveys) == 2
    (tree / "a" / "07.jpg").write_bytes(bytes(100))
    make_plan(tree, store, tmp_path)
    assert len(surveys) == 3


def test_cuts_that_were_damaged_in_the_store_are_made_anew(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    first, _ = make_plan(tree, store, tmp_path)
    (key,) = store.keys("ingest/cuts/")
    for content in (b"", b"[]", b"{}", b'{"by_class": {}}'):
        store.write(key, content)
        assert make_plan(tree, store, tmp_path)[0] == first


@pytest.mark.parametrize(
    ("folders", "test", "validation"),
    [
        (("train", "test"), 0.0, 0.1),
        (("train", "val"), 0.2, 0.2),
        (("train", "val", "test"), 0.0, 0.0),
        (("train",), 0.2, pytest.approx(0.3)),
    ],
)
def test_a_split_that_the_source_gives_is_not_cut(
    store: DirectoryStore, tmp_path: Path, folders: tuple[str, ...], test: float, validation: float
) -> None:
    files = {f"{folder}/cat/{number}.jpg": b"x" for folder in folders for number in range(2)}
    made, _ = make_plan(fill(DirectoryStore(tmp_path / "data"), files), store, tmp_path, test_fraction=0.2)
    assert (made.cuts.test, made.cuts.validation) == (test, validation)


def test_what_was_passed_over_is_said(
    tree: Path, store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(DirectoryStore(tree), {"a/Thumbs.db": b"", "b/Thumbs.db": b"", "README": b""})
    make_plan(tree, store, tmp_path)
    assert "60 images (tree), 0.0 MB, in 1 chunk; plan " in capsys.readouterr().out
    make_plan(tree, store, tmp_path)
    assert "passed over 3 files: 2 .db, 1 (none)" in capsys.readouterr().out


def test_links_that_lead_out_are_counted_and_said_first(
    tree: Path, store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(DirectoryStore(tree), {f"a/1.{suffix}": b"" for suffix in ("b", "c", "d", "e", "f", "g")} | {"a/2.b": b""})
    fill(DirectoryStore(tmp_path), {"secret.jpg": b"secret"})
    (tree / "a" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    made, _ = make_plan(tree, store, tmp_path)
    assert made.images == 60
    assert made.passed_over == "8 files: 1 (symbolic link), 2 .b, 1 .c, 1 .d, 1 .e"
    assert f"passed over {made.passed_over}\n" in capsys.readouterr().out


def test_what_is_passed_over_makes_no_other_plan(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    one, _ = make_plan(tree, store, tmp_path)
    fill(DirectoryStore(tree), {"README": b""})
    other, _ = make_plan(tree, store, tmp_path)
    assert (one.digest, one.passed_over, other.passed_over) == (other.digest, "", "1 file: 1 (none)")


# Appending


def write_parent(
    store: Store,
    encoding: str = "encoded",
    classes: tuple[str, ...] = ("a",),
    shape: tuple[int, int, int] = (28, 28, 1),
    **changes: Any,
) -> Manifest:
    """The manifest of a dataset that is cut at 0.25 and 0.5, and its class `a` at 0.3 and 0.6."""
    digests = dict.fromkeys(SPLITS, "0" * 64)
    manifest = Manifest(
        classes=classes,
        encoding=encoding,
        shape=shape,
        counts={split: dict.fromkeys(classes, 1) for split in SPLITS},
        mean=(0.5,),
        std=(0.5,),
        split_digests=digests,
        digest=content_digest(classes, encoding, shape, digests),
        shards=(),
        facts=(),
        cuts=Cuts(0.25, 0.5, {"a": (0.3, 0.6)}),
        parent=None,
        provenance={},
    )
    manifest = dataclasses.replace(manifest, **changes)
    store.write(manifest_key(manifest.digest), encode(manifest))
    return manifest


def test_what_is_appended_is_cut_like_its_parent_and_new_classes_by_the_fractions(
    tree: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    parent = write_parent(store)
    made, _ = make_plan(tree, store, tmp_path, parent=parent.digest[:8], test_fraction=0.1, validation_fraction=0.1)
    assert made.parent == parent.digest
    assert (made.cuts.test, made.cuts.validation, made.cuts.by_class["a"]) == (0.25, 0.5, (0.3, 0.6))
    low, high = made.cuts.by_class["b"]
    assert 0 < low < high < 0.5


def test_a_parent_that_holds_raw_pixels_takes_no_image_files(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    parent = write_parent(store, "raw")
    with pytest.raises(UserError, match=r"holds raw pixels 28x28x1, source .*tree' image files; only the same can"):
        make_plan(tree, store, tmp_path, parent=parent.digest)


def test_raw_pixels_must_have_the_shape_of_their_parent(
    idx_folder: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    parent = write_parent(store, "raw", shape=(32, 32, 1))
    with pytest.raises(UserError, match=r"holds raw pixels 32x32x1, source .* raw pixels 28x28x1"):
        make_plan(idx_folder, store, tmp_path, parent=parent.digest)
    fitting = write_parent(store, "raw", classes=("0",))
    assert make_plan(idx_folder, store, tmp_path, parent=fitting.digest)[0].parent == fitting.digest


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("zzzz", "a dataset is named by 4 to 64 hexadecimal digits, not 'zzzz'"),
        ("../datasets", "a dataset is named by 4 to 64 hexadecimal digits, not '../datasets'"),
        ("0000", "has no dataset '0000'"),
        ("fac7", "has no dataset 'fac7'"),
    ],
)
def test_a_parent_that_is_none_is_refused(
    tree: Path, store: DirectoryStore, tmp_path: Path, prefix: str, says: str
) -> None:
    store.write("datasets/facts/f.parquet", b"")
    with pytest.raises(UserError, match=says):
        make_plan(tree, store, tmp_path, parent=prefix)


def test_a_prefix_of_two_parents_is_refused(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    for digit in "01":
        store.write(manifest_key("abcd" + digit * 60), b"")
    with pytest.raises(UserError, match="2 datasets begin with 'abcd', among them"):
        make_plan(tree, store, tmp_path, parent="abcd")


def test_a_parent_is_named_like_any_dataset(tree: Path, store: DirectoryStore, tmp_path: Path) -> None:
    parent = write_parent(store)
    assert make_plan(tree, store, tmp_path, parent=parent.digest[:8].upper())[0].parent == parent.digest


# The process


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "components.plan", *arguments], capture_output=True, text=True, check=False
    )


def test_the_step_runs_as_a_process(tree: Path, tmp_path: Path) -> None:
    outputs = ("--plan", str(tmp_path / "plan"), "--workers", str(tmp_path / "out" / "workers"))
    done = run("--source", str(tree), "--store", str(tmp_path / "store"), *outputs)
    assert (done.returncode, done.stdout[: len(str(tree))]) == (0, str(tree))
    assert (tmp_path / "out" / "workers").read_text() == "[0]"


def test_a_mistake_is_one_sentence_and_leaves_nothing_behind(tmp_path: Path) -> None:
    outputs = ("--plan", str(tmp_path / "plan"), "--workers", str(tmp_path / "workers"))
    done = run("--source", str(tmp_path / "none"), "--store", str(tmp_path / "store"), *outputs)
    assert (done.returncode, done.stderr) == (2, f"error: source '{tmp_path / 'none'}' does not exist\n")
    assert list((tmp_path / "store").iterdir()) == []


# How it grows

MEASURE = """
import sys
from pathlib import Path
from components.plan.plan import write_chunks
from tests.memory import peak
count = int(sys.argv[1])
pieces = ({"key": f"class/{n:09}.jpg", "label": "class", "bytes": 5000, "version": "0" * 40} for n in range(count))
assert write_chunks(pieces, Path(sys.argv[2]), True).images == count
print(peak() // 1024)
"""


PLAN = """
import sys
from pathlib import Path
from components.plan.interface import Plan
from components.plan.plan import plan
from tests.memory import peak
source, folder = sys.argv[1], Path(sys.argv[2])
plan(Plan(source=source, store=str(folder / "store"), plan=folder / "plan", workers=folder / "workers"))
print(peak() // 1024)
"""


@pytest.mark.slow
def test_a_bucket_is_listed_page_by_page_and_ten_times_the_keys_need_no_more_memory(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        with Bucket(count) as bucket:
            command = [sys.executable, "-c", PLAN, "s3://images", str(folder)]
            environment = os.environ | bucket.environment
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
            # One page to recognise the layout; a longer listing is not begun again.
            assert len(bucket.log) == 1 + count // PAGE
        assert f"{count:,} images" in done.stdout
        return int(done.stdout.split()[-1])

    assert peak(60_000) < peak(6_000) + 8  # MiB


@pytest.mark.slow
def test_ten_times_the_files_need_no_more_memory(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        folder = tmp_path / str(count)
        folder.mkdir()
        command = [sys.executable, "-c", MEASURE, str(count), str(folder)]
        environment = os.environ | {"RETRAIN_PROGRESS_SECONDS": "100"}
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)

    assert peak(200_000) < peak(20_000) + 16  # MiB
