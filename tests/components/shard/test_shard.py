import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.dataset import facts, quarantine
from components.dataset.images import decode
from components.dataset.manifest import SPLITS, Manifest, content_digest, encode, manifest_key
from components.dataset.plan import Part, part_key, read_part
from components.dataset.shards import files, pixels, read_shard
from components.shard import shard as module
from components.shard.interface import Shard
from components.shard.shard import shard
from components.step import StepError, UserError
from components.storage import DirectoryStore, Store
from tests.components.dataset.pictures import jpeg, oriented, picture, png, save
from tests.components.dataset.test_shards import dataset
from tests.components.shard.conftest import CUTS, DIGEST, contents, planned
from tests.components.source.archives import tar


def run(store: Store, worker: int = 0, workers: int = 1) -> None:
    shard(Shard(store=store.uri, plan=DIGEST, worker=worker, workers=workers))


def start(uri: str, worker: int = 0, workers: int = 1, **options: Any) -> "subprocess.Popen[str]":
    """The step as a process of its own, as the pipeline runs it."""
    arguments = ["--store", uri, "--plan", DIGEST, "--worker", str(worker), "--workers", str(workers)]
    return subprocess.Popen(
        [sys.executable, "-m", "components.shard", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def part(store: Store, number: int = 0) -> Part:
    found = read_part(store, DIGEST, number)
    assert found is not None
    return found


def rows(store: Store, found: Part) -> list[dict[str, Any]]:
    """The facts of a part."""
    assert found.facts is not None
    return [row for group in facts.read(store, found.facts) for row in group.to_pylist()]


def entries(store: Store, found: Part) -> list[quarantine.Entry]:
    return quarantine.read(store, found.quarantine) if found.quarantine else []


# What it writes


def test_every_image_is_in_the_shard_that_its_facts_name(tree: Path, any_store: Store) -> None:
    planned(any_store, tree, 100)
    run(any_store)
    found = part(any_store)
    manifest = dataclasses.replace(dataset(*found.shards), classes=("cat", "dog"))
    read = {shard.sha256: files(read_shard(any_store, shard), shard, manifest) for shard in found.shards}
    splits = {shard.sha256: shard.split for shard in found.shards}
    paths = {path.relative_to(tree).as_posix(): path for path in tree.rglob("*.*")}
    for row in rows(any_store, found):
        content = paths.pop(row["name"]).read_bytes()
        shard_files, numbers = read[row["shard"]]
        assert bytes(shard_files[row["row"]]) == content
        assert row["sha256"] == hashlib.sha256(content).digest()
        assert row["label"] == row["name"].split("/")[0] == manifest.classes[numbers[row["row"]]]
        assert row["split"] == splits[row["shard"]]
        assert (row["width"], row["height"], row["channels"], row["bytes"]) == (60, 40, 3, len(content))
    assert not paths
    assert (found.known, found.rejected, found.quarantine) == (0, {}, None)


def test_an_image_is_in_the_split_where_its_hash_puts_it(tree: Path, store: DirectoryStore) -> None:
    planned(store, tree, 100)
    run(store)
    for row in rows(store, part(store)):
        position = int.from_bytes(row["sha256"][:8], "big") / 2**64
        expected = "test" if position < CUTS.test else "validation" if position < CUTS.validation else "train"
        assert row["split"] == expected


def test_a_shard_is_sorted_by_hash(tree: Path, store: DirectoryStore) -> None:
    planned(store, tree, 100)
    run(store)
    found = rows(store, part(store))
    for written in part(store).shards:
        mine = [row["row"] for row in found if row["shard"] == written.sha256]
        assert mine == list(range(written.rows))  # facts are sorted by hash


def test_the_sums_are_those_of_the_training_images(tree: Path, store: DirectoryStore) -> None:
    planned(store, tree, 100)
    run(store)
    found = part(store)
    training = [row["name"] for row in rows(store, found) if row["split"] == "train"]
    values = np.concatenate([decode((tree / name).read_bytes(), 3).reshape(-1, 3) for name in training]).astype(int)
    assert found.sums == {
        "pixels": [len(values)],
        "sum": values.sum(axis=0).tolist(),
        "squares": (values**2).sum(axis=0).tolist(),
    }


def test_raw_images_are_written_as_pixels(store: DirectoryStore, idx_folder: Path) -> None:
    plan = planned(store, idx_folder, 1)
    run(store)
    names = set()
    for number in range(plan.chunks):
        found = part(store, number)
        manifest = dataclasses.replace(dataset(*found.shards, shape=(28, 28, 1)), classes=tuple("0123456789"))
        values = []
        for written in found.shards:
            images, _ = pixels(read_shard(store, written), written, manifest)
            mine = sorted(
                (row for row in rows(store, found) if row["shard"] == written.sha256), key=lambda row: row["row"]
            )
            assert [row["sha256"] for row in mine] == [hashlib.sha256(image.tobytes()).digest() for image in images]
            names |= {row["name"] for row in mine}
            if written.split == "train":
                values.append(images)
        total = np.concatenate(values).astype(int) if values else np.zeros(0, int)
        assert found.sums == {"pixels": [total.size], "sum": [total.sum()], "squares": [(total**2).sum()]}
    assert len(names) == 800


def test_a_split_that_the_source_gives_is_kept(store: DirectoryStore, idx_folder: Path) -> None:
    plan = planned(store, idx_folder, 1)
    run(store)
    given = [row for number in range(plan.chunks) for row in rows(store, part(store, number))]
    assert all((row["split"] == "test") == row["name"].startswith("t10k") or row["split"] == "test" for row in given)
    assert {row["split"] for row in given if row["name"].startswith("t10k")} == {"test"}


def test_more_than_memory_may_hold_is_written_in_several_shards(
    tree: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned(store, tree, 100)
    monkeypatch.setattr(module, "BATCH_IMAGES", 12)
    monkeypatch.setattr(module, "BLOCK_IMAGES", 5)
    run(store)
    found = part(store)
    assert len(found.shards) > len(SPLITS)
    listed = rows(store, found)
    assert len(listed) == 40
    assert [row["sha256"] for row in listed] == sorted(row["sha256"] for row in listed)


def test_the_images_of_other_kinds_are_written_as_png(tmp_path: Path, store: DirectoryStore) -> None:
    from PIL import Image

    folder = tmp_path / "tree" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.tif").write_bytes(save(Image.fromarray(picture()), "TIFF"))
    (folder / "2.jpg").write_bytes(oriented(6, "JPEG"))
    planned(store, tmp_path / "tree", 10)
    run(store)
    first, second = sorted(rows(store, part(store)), key=lambda row: row["name"])
    assert first["sha256"] == hashlib.sha256((folder / "1.tif").read_bytes()).digest()
    assert first["bytes"] != (folder / "1.tif").stat().st_size
    assert (second["width"], second["height"]) == (96, 144)
    assert first["phash"] != second["phash"]


# What it turns away


@pytest.mark.slow
def test_what_cannot_be_used_goes_into_quarantine_and_the_rest_goes_on(tree: Path, store: DirectoryStore) -> None:
    whole = jpeg(300, 300)
    (tree / "cat" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "cat" / "empty.png").write_bytes(b"")
    (tree / "dog" / "text.gif").write_bytes(b"hello")
    (tree / "dog" / "large.png").write_bytes(png(1200, 1000))
    (tree / "dog" / "broken.png").write_bytes(png()[:100] + b"?" + png()[101:])
    (tree / "nowhere.jpg").write_bytes(whole)
    planned(store, tree, 100)
    run(store)
    found = part(store)
    turned_away = {entry.name: entry for entry in entries(store, found)}
    assert {name: entry.reason for name, entry in turned_away.items()} == {
        "cat/truncated.jpg": "truncated",
        "cat/empty.png": "empty",
        "dog/text.gif": "unsupported",
        "dog/large.png": "too many pixels",
        "dog/broken.png": "undecodable",
        "nowhere.jpg": "no label",
    }
    assert found.rejected == dict.fromkeys(sorted(entry.reason for entry in turned_away.values()), 1)
    assert sum(written.rows for written in found.shards) == 40
    assert turned_away["cat/truncated.jpg"].thumbnail is not None
    assert turned_away["dog/large.png"].thumbnail is None


def test_thumbnails_are_few(tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "THUMBNAILS", 3)
    folder = tmp_path / "tree" / "cat"
    folder.mkdir(parents=True)
    for number in range(10):
        content = jpeg(200, 200, number)
        (folder / f"{number}.jpg").write_bytes(content[: len(content) // 2])
    planned(store, tmp_path / "tree", 100)
    run(store)
    assert [entry.thumbnail is not None for entry in entries(store, part(store))] == [True] * 3 + [False] * 7


def test_a_quarantine_names_no_more_than_memory_may_hold_and_counts_all(
    tmp_path: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUARANTINE_BYTES", 4 * 250)
    folder = tmp_path / "tree" / "cat"
    folder.mkdir(parents=True)
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"")
    planned(store, tmp_path / "tree", 100)
    run(store)
    assert part(store).rejected == {"empty": 10}
    assert [entry.name for entry in entries(store, part(store))] == [f"cat/{number}.jpg" for number in range(4)]


def test_what_stands_for_many_entries_is_counted_as_many(tmp_path: Path, store: DirectoryStore) -> None:
    samples = [(f"{n:02}.{ending}", png() if ending == "png" else b"1") for n in range(20) for ending in ("png", "cls")]
    (tmp_path / "tree").mkdir()
    for name in ("a.tar", "b.tar"):
        (tmp_path / "tree" / name).write_bytes(tar(samples))
    (tmp_path / "tree" / "b.tar").write_bytes(tar(samples)[: len(png()) * 5])
    planned(store, tmp_path / "tree", 100)
    run(store)
    found = part(store)
    assert found.rejected["truncated"] > 10
    assert [entry.name for entry in entries(store, found)] == ["b.tar"]


def test_a_chunk_of_which_nothing_is_left_has_a_part(tmp_path: Path, store: DirectoryStore) -> None:
    folder = tmp_path / "tree" / "cat"
    folder.mkdir(parents=True)
    (folder / "1.jpg").write_bytes(b"")
    planned(store, tmp_path / "tree", 10)
    run(store)
    found = part(store)
    assert (found.shards, found.facts, found.rejected) == ((), None, {"empty": 1})
    assert found.sums == {"pixels": [0], "sum": [0, 0, 0], "squares": [0, 0, 0]}


# A parent


def test_what_the_parent_has_is_passed_over(tree: Path, store: DirectoryStore) -> None:
    planned(store, tree, 100)
    run(store)
    first = part(store)
    assert first.facts is not None
    digests = dict.fromkeys(SPLITS, "0" * 64)
    digest = content_digest(("cat", "dog"), "encoded", (None, None, 3), digests)
    parent: Manifest = dataclasses.replace(
        dataset(*first.shards), classes=("cat", "dog"), split_digests=digests, digest=digest, facts=(first.facts,)
    )
    store.write(manifest_key(digest), encode(parent))
    (tree / "cat" / "new.jpg").write_bytes(jpeg(40, 60, seed=99))
    relabelled = next(tree.glob("cat/*.jpg"))
    (tree / "dog" / "again.jpg").write_bytes(relabelled.read_bytes())
    (store.root / part_key(DIGEST, 0)).unlink()
    planned(store, tree, 100, parent=digest)
    run(store)
    found = part(store)
    assert found.known == 40
    # An image that is there under another label comes, so that the commit sees both.
    assert {row["name"] for row in rows(store, found)} == {"cat/new.jpg", "dog/again.jpg"}


def test_raw_images_that_the_parent_has_all_are_all_passed_over(store: DirectoryStore, idx_folder: Path) -> None:
    plan = planned(store, idx_folder, 1)
    run(store)
    parts = [part(store, number) for number in range(plan.chunks)]
    digests = dict.fromkeys(SPLITS, "0" * 64)
    classes = tuple("0123456789")
    parent = dataclasses.replace(
        dataset(*(written for found in parts for written in found.shards), shape=(28, 28, 1)),
        classes=classes,
        split_digests=digests,
        digest=content_digest(classes, "raw", (28, 28, 1), digests),
        facts=tuple(found.facts for found in parts if found.facts),
    )
    store.write(manifest_key(parent.digest), encode(parent))
    for number in range(plan.chunks):
        (store.root / part_key(DIGEST, number)).unlink()
    planned(store, idx_folder, 1, parent=parent.digest)
    run(store)
    again = [part(store, number) for number in range(plan.chunks)]
    assert sum(found.known for found in again) == 800
    assert all((found.shards, found.facts, found.sums["pixels"]) == ((), None, [0]) for found in again)


def test_a_parent_that_is_gone_is_named(tree: Path, store: DirectoryStore) -> None:
    planned(store, tree, 100, parent="0" * 64)
    with pytest.raises(StepError, match=r"the parent, datasets/0+.json, is gone"):
        run(store)


# Many workers, and again


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3, 8])
def test_any_number_of_workers_writes_the_same(tree: Path, tmp_path: Path, workers: int) -> None:
    stores = [DirectoryStore(tmp_path / name) for name in ("one", "many")]
    for store in stores:
        assert planned(store, tree, 7).chunks == 6
    run(stores[0])
    for worker in reversed(range(workers)):
        run(stores[1], worker, workers)
    assert contents(stores[0].uri) == contents(stores[1].uri)


def test_chunks_that_are_done_are_passed_over(
    tree: Path, store: DirectoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(store, tree, 7)
    run(store)
    before = {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()}
    for path in tree.rglob("*.*"):
        path.unlink()  # the source is not even looked at
    capsys.readouterr()
    run(store)
    assert capsys.readouterr().out.startswith("0 chunks done in")
    assert {path: path.stat().st_mtime_ns for path in store.root.rglob("*") if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost", ["datasets/shards/", "datasets/facts/", "ingest/quarantine/", f"ingest/{DIGEST}/parts/"]
)
def test_what_went_from_the_store_is_written_again(tree: Path, store: DirectoryStore, lost: str) -> None:
    (tree / "cat" / "00.jpg").write_bytes(b"")
    planned(store, tree, 7)
    run(store)
    before = contents(store.uri)
    for key in list(store.keys(lost)):
        (store.root / key).unlink()
        run(store)
        assert contents(store.uri) == before


@pytest.mark.slow
def test_a_worker_that_is_killed_at_any_moment_writes_the_same_when_it_starts_again(tree: Path, tmp_path: Path) -> None:
    expected = DirectoryStore(tmp_path / "expected")
    planned(expected, tree, 3)
    begin = time.monotonic()
    assert finish(start(expected.uri))[0] == 0
    duration = time.monotonic() - begin
    killed, moment, code = 0, 0.2 * duration, 1
    while code != 0:  # until one is done before it is killed
        store = DirectoryStore(tmp_path / f"store {killed}")
        planned(store, tree, 3)
        process = start(store.uri)
        time.sleep(moment)
        process.kill()
        moment, code = moment + 0.1 * duration, finish(process)[0]
        killed += code != 0
        for chunk in range(14):
            found = read_part(store, DIGEST, chunk)  # a part that can be found is whole
            for file in (*found.shards, found.facts, found.quarantine) if found else ():
                assert file is None or hashlib.sha256(store.read(file.key)).hexdigest() == file.sha256
        assert finish(start(store.uri))[0] == 0
        assert contents(store.uri) == contents(expected.uri)
    assert killed > 1


@pytest.mark.slow
def test_two_workers_at_the_same_chunks_write_the_same(tree: Path, tmp_path: Path) -> None:
    stores = [DirectoryStore(tmp_path / name) for name in ("alone", "together")]
    for store in stores:
        planned(store, tree, 3)
    run(stores[0])
    processes = [start(stores[1].uri) for _ in range(3)]
    assert [finish(process)[0] for process in processes] == [0, 0, 0]
    assert contents(stores[0].uri) == contents(stores[1].uri)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_that_is_ended_leaves_nothing_half_written(
    tree: Path, tmp_path: Path, store: DirectoryStore, number: signal.Signals
) -> None:
    planned(store, tree, 1)
    room = tmp_path / "room"
    room.mkdir()
    process = start(store.uri, env=os.environ | {"TMPDIR": str(room)})
    while not list(store.keys(f"ingest/{DIGEST}/parts/")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code in (130, 143)
    assert "Traceback" not in err
    assert list(room.iterdir()) == []
    run(store)
    assert sum(written.rows for chunk in range(40) for written in part(store, chunk).shards) == 40


# What goes wrong


def test_a_plan_that_is_gone_ends_the_step_with_one_sentence(store: DirectoryStore) -> None:
    code, out, err = finish(start(store.uri))
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: ingest/d+/plan.json is gone from store [^\n]+; run the pipeline again\n", err)


def test_a_source_that_is_gone_ends_the_step_with_one_sentence(
    tree: Path, tmp_path: Path, store: DirectoryStore
) -> None:
    planned(store, tree, 100)
    tree.rename(tmp_path / "elsewhere")
    code, out, err = finish(start(store.uri))
    assert (code, out) in ((1, ""), (2, ""))
    assert re.fullmatch(r"error: [^\n]+\n", err)


def test_images_that_changed_since_they_were_listed_are_turned_away(tree: Path, store: DirectoryStore) -> None:
    planned(store, tree, 100)
    (tree / "cat" / "01.jpg").write_bytes(jpeg(50, 50, seed=77))
    (tree / "cat" / "03.jpg").unlink()
    run(store)
    found = part(store)
    assert found.rejected == {"changed": 2}
    assert sum(written.rows for written in found.shards) == 38


@pytest.mark.parametrize("worker", [-1, 2])
def test_an_impossible_worker_is_refused(worker: int) -> None:
    with pytest.raises(UserError, match="worker must be 0 to 1"):
        Shard(store="store", plan=DIGEST, worker=worker, workers=2)


def test_how_far_it_is_is_shown(
    tree: Path, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETRAIN_PROGRESS_SECONDS", "0")
    planned(store, tree, 7)
    run(store)
    lines = capsys.readouterr().err.splitlines()
    shares = [
        int(match[1]) for line in lines if (match := re.match(r"progress: (\d+)%, [\d,]+ images/s, \d+ s left$", line))
    ]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(shares) >= 6


# Memory


PEAK = """
import sys
from components.shard.interface import Shard
from components.shard.shard import shard
from tests.memory import peak
shard(Shard(store=sys.argv[1], plan=sys.argv[2], worker=0, workers=1))
print(peak())
"""


def large_images(folder: Path) -> None:
    """JPEGs of 48 megapixels, also progressive ones: 8 files."""
    from PIL import Image

    image = Image.fromarray(np.kron(picture(600, 800), np.ones((10, 10, 1), np.uint8)))
    for number in range(2):
        content = save(image, "JPEG", quality=70 + number, progressive=bool(number))
        for copy in range(4):
            (folder / f"{number}{copy}.jpg").write_bytes(content + bytes([copy]))


def many_images(folder: Path) -> None:
    """A chunk's worth of small ones: 20,000."""
    content = jpeg(24, 24)
    for number in range(20_000):
        (folder / f"{number}.jpg").write_bytes(
            content[:-2] + b"\xff\xfe\0\6" + number.to_bytes(4, "big") + content[-2:]
        )


def many_bytes(folder: Path) -> None:
    """More than a batch: 160 MiB."""
    content = save_noise()
    for number in range(160 * 2**20 // len(content)):
        (folder / f"{number}.jpg").write_bytes(
            content[:-2] + b"\xff\xfe\0\6" + number.to_bytes(4, "big") + content[-2:]
        )


def save_noise() -> bytes:
    import simplejpeg

    return bytes(simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8), 90))


@pytest.mark.slow
@pytest.mark.parametrize("write", [large_images, many_images, many_bytes])
def test_the_memory_of_a_worker_is_bounded(tmp_path: Path, write: Callable[[Path], None]) -> None:
    folder = tmp_path / "tree" / "cat"
    folder.mkdir(parents=True)
    write(folder)
    store = DirectoryStore(tmp_path / "store")
    planned(store, tmp_path / "tree", 10**6, max_pixels=50_000_000)
    # Its peak as /proc tells it: getrusage's would be that of this process, if that was higher before.
    done = subprocess.run([sys.executable, "-c", PEAK, store.uri, DIGEST], capture_output=True, text=True, check=True)
    assert sum(written.rows for written in part(store).shards) == len(list(folder.iterdir()))
    peak = int(done.stdout.splitlines()[-1]) / 1024
    print(f"{write.__name__}: {peak:.0f} MiB")
    assert peak <= 512
