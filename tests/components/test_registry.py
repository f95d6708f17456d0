"""The claims of the registry, in both kinds of store."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from components.registry import Version, champion, check_name, promote, publish, read_file, read_version, versions
from components.step import StepError, UserError
from components.storage import Store


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Two files to publish."""
    found = {name: tmp_path / name for name in ("model.onnx", "config.json")}
    for name, path in found.items():
        path.write_text(f"content of {name}")
    return found


def publish_text(store: Store, folder: Path, text: str) -> Version:
    """Publishes a model whose only file has this text."""
    (folder / "text").write_text(text)
    return publish(store, "mnist", {"model.onnx": folder / "text"}, {"accuracy": 0.5})


def test_a_published_version_has_its_files_hashes_and_facts(any_store: Store, files: dict[str, Path]) -> None:
    version = publish(any_store, "mnist", files, {"accuracy": 0.99, "classes": ["0", "1"]})
    assert (version.name, version.number) == ("mnist", 1)
    assert version.facts == {"accuracy": 0.99, "classes": ["0", "1"]}
    for name, path in files.items():
        assert any_store.read(version.files[name]) == path.read_bytes()
        assert version.hashes[name] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert read_file(any_store, version, name) == path.read_bytes()
    assert read_version(any_store, "mnist", 1) == version


def test_the_same_files_are_the_same_version(any_store: Store, files: dict[str, Path], tmp_path: Path) -> None:
    first = publish(any_store, "mnist", files, {"created": "first"})
    publish_text(any_store, tmp_path, "another")
    again = publish(any_store, "mnist", dict(reversed(files.items())), {"created": "second"})
    assert again == first
    assert [version.number for version in versions(any_store, "mnist")] == [1, 2]


def test_one_other_byte_or_name_is_another_version(any_store: Store, files: dict[str, Path]) -> None:
    first = publish(any_store, "mnist", files, {})
    renamed = publish(any_store, "mnist", {"other.onnx": files["model.onnx"], "config.json": files["config.json"]}, {})
    files["config.json"].write_text("content of config.jsoN")
    changed = publish(any_store, "mnist", files, {})
    assert len({first.digest, renamed.digest, changed.digest}) == 3
    assert [first.number, renamed.number, changed.number] == [1, 2, 3]


def test_what_is_no_record_of_a_version_is_passed_over(any_store: Store, tmp_path: Path) -> None:
    for name in ("notes.txt", "readme", "old/000007.json", "000008.json.bak", "8.json"):
        any_store.write(f"models/mnist/versions/{name}", b"")
    assert publish_text(any_store, tmp_path, "first").number == 1
    assert [version.number for version in versions(any_store, "mnist")] == [1]


def test_models_of_other_names_do_not_mix(any_store: Store, files: dict[str, Path]) -> None:
    assert promote(any_store, publish(any_store, "mnist", files, {}), over=None)
    assert publish(any_store, "mnist-2", files, {}).number == 1
    assert champion(any_store, "mnist-2") is None
    assert list(versions(any_store, "mnis")) == []


@pytest.mark.slow
def test_the_tenth_version_follows_the_ninth(any_store: Store, tmp_path: Path) -> None:
    assert [publish_text(any_store, tmp_path, str(number)).number for number in range(12)] == list(range(1, 13))
    assert [version.number for version in versions(any_store, "mnist")] == list(range(1, 13))


def test_the_champion_moves_only_from_the_one_it_was_compared_with(any_store: Store, tmp_path: Path) -> None:
    first, second, third = (publish_text(any_store, tmp_path, text) for text in "abc")
    assert champion(any_store, "mnist") is None
    assert not promote(any_store, first, over=2)
    assert promote(any_store, first, over=None)
    assert not promote(any_store, second, over=None)
    assert promote(any_store, second, over=1)
    assert not promote(any_store, third, over=1)
    assert champion(any_store, "mnist") == second


@pytest.mark.slow
def test_promoting_the_champion_again_changes_nothing(any_store: Store, tmp_path: Path) -> None:
    first, second = (publish_text(any_store, tmp_path, text) for text in "ab")
    assert promote(any_store, first, over=None)
    assert promote(any_store, second, over=1)
    assert promote(any_store, second, over=1)
    assert champion(any_store, "mnist") == second


@pytest.mark.parametrize("name", ["", "MNIST", "-a", ".a", "a/b", "../a", "a b", "ä", "a" * 64, "a\n"])
def test_a_bad_name_is_refused(any_store: Store, files: dict[str, Path], name: str) -> None:
    for use in (
        lambda: check_name(name),
        lambda: publish(any_store, name, files, {}),
        lambda: champion(any_store, name),
        lambda: read_version(any_store, name, 1),
        lambda: list(versions(any_store, name)),
    ):
        with pytest.raises(UserError, match=r"model_name must be .*, not "):
            use()
    assert list(any_store.keys("")) == []


@pytest.mark.parametrize("name", ["a", "0", "mnist", "a.b_c-d", "a" * 63])
def test_a_good_name_is_taken(name: str) -> None:
    check_name(name)


def test_a_version_that_does_not_exist_is_named(any_store: Store) -> None:
    with pytest.raises(UserError, match="has no version 7 of model 'mnist'"):
        read_version(any_store, "mnist", 7)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"schema": 1}', b'{"schema": 2}', b"\xff", b"1"])
def test_a_damaged_record_is_named(any_store: Store, tmp_path: Path, content: bytes) -> None:
    promote(any_store, publish_text(any_store, tmp_path, "a"), over=None)
    any_store.write("models/mnist/versions/000001.json", content)
    with pytest.raises(StepError, match=r"models/mnist/versions/000001\.json"):
        champion(any_store, "mnist")


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"version": "1"}'])
def test_a_damaged_pointer_is_named(any_store: Store, tmp_path: Path, content: bytes) -> None:
    version = publish_text(any_store, tmp_path, "a")
    any_store.write("models/mnist/champion.json", content)
    for use in (lambda: champion(any_store, "mnist"), lambda: promote(any_store, version, over=None)):
        with pytest.raises(StepError, match=r"models/mnist/champion\.json"):
            use()


def test_a_damaged_file_is_found_by_its_hash(any_store: Store, files: dict[str, Path]) -> None:
    version = publish(any_store, "mnist", files, {})
    any_store.write(version.files["model.onnx"], b"something else")
    with pytest.raises(StepError, match=r"model\.onnx is damaged in store"):
        read_file(any_store, version, "model.onnx")


PUBLISH_AND_PROMOTE = """
import json, sys
from pathlib import Path
from components.registry import champion, promote, publish
from components.storage import open_store

store, folder, rounds = open_store(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
folder.mkdir()
for number in range(rounds):
    (folder / "model").write_text(f"{folder.name} {number}")
    own = publish(store, "mnist", {"own": folder / "model"}, {})
    (folder / "model").write_text(str(number))
    shared = publish(store, "mnist", {"shared": folder / "model"}, {})
    while True:
        current = champion(store, "mnist")
        over = current.number if current else None
        if promote(store, own, over):
            break
    print(json.dumps({"own": own.number, "shared": shared.number, "over": over}))
"""


@pytest.mark.slow
def test_two_processes_that_publish_and_promote_at_once_lose_nothing(any_store: Store, tmp_path: Path) -> None:
    rounds = 15
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH_AND_PROMOTE, any_store.uri, tmp_path / name, str(rounds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "AB"
    ]
    first, second = (
        [json.loads(line) for line in process.communicate(timeout=120)[0].splitlines()] for process in processes
    )
    assert [process.returncode for process in processes] == [0, 0]

    # What both published is one version; what each published is its own; no number is left out.
    assert [row["shared"] for row in first] == [row["shared"] for row in second]
    numbers = [row["shared"] for row in first] + [row["own"] for row in first + second]
    assert sorted(numbers) == list(range(1, 3 * rounds + 1))
    for version in versions(any_store, "mnist"):
        (file,) = version.files
        read_file(any_store, version, file)

    # The promotions are one chain from no champion to the last: none was overwritten unseen.
    successors = {row["over"]: row["own"] for row in first + second}
    assert len(successors) == 2 * rounds
    last = None
    for _ in range(2 * rounds):
        last = successors[last]
    last_champion = champion(any_store, "mnist")
    assert last_champion is not None
    assert last == last_champion.number


DIE_AT_CALL = """
import os, signal, sys
from pathlib import Path
from components.registry import promote, publish
from components.storage import open_store

class Dying:
    def __init__(self, store, calls):
        self.store, self.calls = store, calls

    def __getattr__(self, name):
        if self.calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.calls -= 1
        return getattr(self.store, name)

store = Dying(open_store(sys.argv[1]), int(sys.argv[2]))
files = {file: Path(sys.argv[3]) / file for file in ("model.onnx", "config.json")}
promote(store, publish(store, "mnist", files, {}), over=None)
"""


@pytest.mark.slow
def test_a_process_killed_between_any_two_calls_leaves_nothing_half_visible(
    any_store: Store, files: dict[str, Path], tmp_path: Path
) -> None:
    calls = 0
    while subprocess.run([sys.executable, "-c", DIE_AT_CALL, any_store.uri, str(calls), tmp_path]).returncode != 0:
        calls += 1
        found = list(versions(any_store, "mnist"))
        assert [version.number for version in found] in ([], [1])
        for version in found:
            assert {name: read_file(any_store, version, name) for name in files} == {
                name: path.read_bytes() for name, path in files.items()
            }
        assert champion(any_store, "mnist") is None
    assert calls >= 7  # list, look up, two files, record, pointer read and moved
    assert [version.number for version in versions(any_store, "mnist")] == [1]
    assert champion(any_store, "mnist") == read_version(any_store, "mnist", 1)
