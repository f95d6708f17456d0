import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from components.step import StepError, UserError
from components.storage import DirectoryStore
from components.train.checkpoint import Checkpoints, random_state, restore_random_state

PREFIX = "training/abc/checkpoints/"
CPU = torch.device("cpu")


def checkpoints(store: DirectoryStore, minutes: float = 5.0) -> Checkpoints:
    return Checkpoints(store, PREFIX, minutes)


def state(number: int = 0) -> dict[str, Any]:
    return {
        "optimizer": {"state": {0: {"step": torch.tensor(float(number)), "mean": torch.ones(2, 3)}}, "groups": [1e-3]},
        "course": {"epoch": number, "curve": [{"loss": 0.5}], "best": None},
        "flag": True,
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def saved(store: DirectoryStore, *numbers: int) -> list[str]:
    """Checkpoints with these numbers; returns all keys."""
    found = checkpoints(store)
    for number in numbers:
        found.save(number, state(number))
    found.wait()
    return list(store.keys(PREFIX))


def test_what_was_saved_comes_back_as_it_was(store: DirectoryStore) -> None:
    saved(store, 7)
    assert same(checkpoints(store).latest(), state(7))


def test_there_is_none_in_the_beginning(store: DirectoryStore) -> None:
    assert checkpoints(store).latest() is None


def test_the_newest_is_taken_and_the_last_three_are_kept(store: DirectoryStore) -> None:
    keys = saved(store, 1, 2, 30, 100, 2000)
    assert [key.removeprefix(PREFIX)[:8] for key in keys] == ["00000030", "00000100", "00002000"]
    found = checkpoints(store).latest()
    assert found is not None
    assert found["course"]["epoch"] == 2000


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), Path.unlink])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    store: DirectoryStore, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    *_, last = saved(store, 1, 2)
    damage(store.root / last)
    found = checkpoints(store).latest()
    assert found is not None
    assert found["course"]["epoch"] == 1
    told = capsys.readouterr().err
    assert ("is damaged or gone" in told) == (store.root / last).exists()


def test_where_all_are_damaged_there_is_none(store: DirectoryStore) -> None:
    for key in saved(store, 1, 2):
        (store.root / key).write_bytes(b"")
    assert checkpoints(store).latest() is None


def test_what_is_written_after_damaged_ones_takes_their_place(store: DirectoryStore) -> None:
    for key in saved(store, 100, 200, 300):
        (store.root / key).write_bytes(b"")
    found = checkpoints(store)
    assert found.latest() is None
    found.save(1, state(1))
    found.wait()
    assert [key.removeprefix(PREFIX)[:8] for key in store.keys(PREFIX)] == ["00000001"]
    assert same(checkpoints(store).latest(), state(1))


def test_a_store_that_is_away_is_not_taken_for_damage(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(store, 1, 2)

    def fail(key: str, path: Path) -> None:
        raise StepError("the store is away")

    monkeypatch.setattr(store, "fetch", fail)
    with pytest.raises(StepError, match="the store is away"):
        checkpoints(store).latest()


def test_what_changes_while_it_is_written_is_saved_as_it_was(store: DirectoryStore) -> None:
    changing = {"weights": torch.zeros(1000)}
    found = checkpoints(store)
    found.save(1, changing)
    changing["weights"].fill_(1)
    found.wait()
    assert same(checkpoints(store).latest(), {"weights": torch.zeros(1000)})


def test_saving_does_not_wait_for_the_store(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    let, write = threading.Event(), store.write

    def slow(key: str, content: bytes | Path) -> None:
        assert let.wait(60)
        write(key, content)

    monkeypatch.setattr(store, "write", slow)
    found = checkpoints(store, minutes=0)
    found.save(1, state(1))
    assert not found.due  # the one before is not written
    let.set()
    found.wait()
    assert found.due
    assert same(found.latest(), state(1))


def test_a_store_that_fails_costs_a_warning_and_not_the_training(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(key: str, content: bytes | Path) -> None:
        raise StepError("the store is away")

    monkeypatch.setattr(store, "write", fail)
    found = checkpoints(store)
    found.save(5, state())
    found.wait()
    assert capsys.readouterr().err == (
        "warning: no checkpoint after 5 batches (the store is away); the training goes on\n"
    )


FULL = f"""
import resource, sys, torch
from components.storage import open_store
from components.train.checkpoint import Checkpoints

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
found = Checkpoints(open_store(sys.argv[1]), {PREFIX!r}, 5)
found.save(5, {{"weights": torch.ones(100_000)}})
print(found.wait())
"""


@pytest.mark.slow
def test_a_disk_that_is_full_costs_a_warning_and_not_the_training(store: DirectoryStore) -> None:
    ended = subprocess.run([sys.executable, "-c", FULL, store.uri], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "False\n"
    assert re.fullmatch(
        r"warning: no checkpoint after 5 batches \(.*File too large.*\); the training goes on\n", ended.stderr
    )
    assert list(store.keys("")) == []


def test_it_is_known_whether_the_store_has_the_last_one(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(key: str) -> None:
        raise UserError("no right to delete")

    monkeypatch.setattr(store, "remove", fail)
    found = checkpoints(store)
    for number in range(1, 5):
        found.save(number, state())
        assert found.wait()
    assert capsys.readouterr().err == (
        f"warning: old checkpoints below {PREFIX} were not removed (no right to delete)\n"
    )
    monkeypatch.setattr(store, "write", lambda key, content: fail(key))
    found.save(5, state())
    assert not found.wait()


def test_nothing_but_checkpoints_is_read_or_removed(store: DirectoryStore) -> None:
    saved(store, 1)
    store.write(f"{PREFIX}notes.txt", b"mine")
    checkpoints(store).clear()
    assert list(store.keys("")) == [f"{PREFIX}notes.txt"]
    assert checkpoints(store).latest() is None


def test_a_checkpoint_is_no_pickle(store: DirectoryStore) -> None:
    (key,) = saved(store, 1)
    content = (store.root / key).read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert "form" in json.loads(content[8 : 8 + length])["__metadata__"]


def test_random_numbers_go_on_where_they_were() -> None:
    before = random_state(CPU)
    drawn = torch.rand(4)
    restore_random_state(before, CPU)
    assert torch.equal(torch.rand(4), drawn)


def test_they_are_due_by_time(store: DirectoryStore) -> None:
    assert checkpoints(store, minutes=0).due
    assert not checkpoints(store, minutes=1).due
