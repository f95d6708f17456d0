"""`retrain data` as a user types it."""

import json
import re
from pathlib import Path

import pytest

from components.dataset.manifest import Manifest, manifest_key
from components.storage import DirectoryStore
from tests.commands import retrain
from tests.components.ingest.trees import classes, make, plant


@pytest.fixture
def pair(store: DirectoryStore, tmp_path: Path) -> tuple[Manifest, Manifest]:
    """A dataset, and one that was appended to it; the name of one of its images would ring a terminal's bell."""
    old = make(plant(tmp_path / "old", classes(12)), store, tmp_path / "made old")
    files = classes(6, ("cat",), seed=70_000)
    files["cat/bell\a.png"] = files.pop("cat/0.png")
    return old, make(plant(tmp_path / "new", files), store, tmp_path / "made new", parent=old.digest)


def test_list_shows_every_dataset_with_its_parent(
    pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path
) -> None:
    old, new = pair
    shown = retrain("data", "list", "--store", store.uri, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    head, *rows = shown.stdout.splitlines()
    assert head.split() == ["DATASET", "CREATED", "IMAGES", "CLASSES", "PARENT", "SOURCE"]
    cells = {row.split()[0]: row.split()[2:] for row in rows}
    assert set(cells) == {old.digest[:12], new.digest[:12]}
    assert cells[old.digest[:12]][:2] == ["24", "2"]
    assert cells[new.digest[:12]][:3] == ["30", "2", old.digest[:12]]
    assert cells[new.digest[:12]][3].endswith("/new")


def test_list_as_json_is_for_programs(pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path) -> None:
    found = json.loads(retrain("data", "list", "--store", store.uri, "--json", folder=tmp_path).stdout)
    assert {one["digest"]: (one["images"], one["parent"]) for one in found} == {
        pair[0].digest: (24, None),
        pair[1].digest: (30, pair[0].digest),
    }


def test_list_shows_what_it_cannot_read_beside_what_it_can(
    pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path
) -> None:
    store.write(manifest_key("0" * 64), b'{"schema": 1}')
    shown = retrain("data", "list", "--store", store.uri, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert len(shown.stdout.splitlines()) == 4
    assert "has schema 1" in shown.stdout


def test_list_of_a_store_without_datasets_says_how_to_make_one(tmp_path: Path) -> None:
    shown = retrain("data", "list", folder=tmp_path)
    assert (shown.returncode, shown.stdout) == (
        0,
        "no datasets yet in retrain-store; make one with `retrain run`\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_describe_shows_all_that_is_known(
    pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path
) -> None:
    old, new = pair
    shown = retrain("data", "describe", new.digest[:8], "--store", store.uri, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for line in (
        f"dataset: {new.digest}",
        f"parent: {old.digest}",
        "encoding: encoded, 16 x 16 x 3",
        "quarantined: nothing",
        f"test digest: {new.split_digests['test']}",
        "damaged: 0 of 6 entries were quarantined",
    ):
        assert line in shown.stdout.splitlines()
    assert re.search(r"^CLASS  TRAIN  VALIDATION  TEST$", shown.stdout, re.M)
    assert re.search(rf"^cat    {new.counts['train']['cat']} ", shown.stdout, re.M)


def test_describe_as_json_is_the_manifest(
    pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path
) -> None:
    digest = pair[1].digest
    shown = retrain("data", "describe", digest, "--store", store.uri, "--json", folder=tmp_path)
    assert json.loads(shown.stdout) == json.loads(store.read(manifest_key(digest)))


@pytest.mark.slow
def test_diff_says_what_was_added_and_how_the_balance_moved(
    pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path
) -> None:
    old, new = pair
    shown = retrain("data", "diff", old.digest[:12], new.digest[:12], "--store", store.uri, folder=tmp_path)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[0] == f"{old.digest[:12]} → {new.digest[:12]}, which was appended to it"
    assert lines[1].startswith("added: 6, for example ")
    assert lines[2:6] == ["removed: 0", "relabelled: 0", "moved: 0", "same: 24"]
    assert lines[7].split() == ["CLASS", "ADDED", "REMOVED", "SHARE", "BEFORE", "AFTER", "POINTS"]
    assert lines[8].split() == ["cat", "+6", "-0", "50.00", "%", "60.00", "%", "+10.00"]
    assert "\a" not in shown.stdout


@pytest.mark.slow
def test_diff_as_json_is_for_programs(pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path) -> None:
    old, new = (manifest.digest for manifest in pair)
    found = json.loads(retrain("data", "diff", new, old, "--store", store.uri, "--json", folder=tmp_path).stdout)
    assert (found["added"], found["removed"], found["moved"], found["same"]) == (0, 6, 0, 24)
    assert found["removed_by_class"] == {"cat": 6}
    assert len(found["examples"]["removed"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["describe", "abc"],
            "error: a dataset is named by 4 to 64 hexadecimal digits, not 'abc'; see `retrain data list`",
        ),
        (["describe", "abcd"], "error: store .* has no dataset 'abcd'; it has none yet"),
        (["diff", "abcd", "0123"], "error: store .* has no dataset 'abcd'; it has none yet"),
        (["list", "--store", "gs://bucket"], "error: store must be a directory, .* not 'gs://bucket'"),
    ],
)
def test_a_users_mistake_is_one_sentence(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    ended = retrain("data", *arguments, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(sentence + "\n", ended.stderr)


@pytest.mark.slow
def test_facts_that_are_gone_fail_the_comparison_with_one_sentence(
    pair: tuple[Manifest, Manifest], store: DirectoryStore, tmp_path: Path
) -> None:
    old, new = pair
    (store.root / old.facts[0].key).unlink()
    ended = retrain("data", "diff", old.digest, new.digest, "--store", store.uri, folder=tmp_path)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(rf"error: {old.facts[0].key} is gone from store [^\n]+\n", ended.stderr)
