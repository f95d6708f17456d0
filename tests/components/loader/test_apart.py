import errno
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from components.dataset.manifest import Manifest
from components.loader.apart import PLACES, Apart
from components.loader.batches import UNCHANGED, Policy, TrainingBatches, reader
from components.loader.stream import Batch
from components.step import StepError, UserError
from components.storage import DirectoryStore
from components.train.augmentation import policy
from tests.components.loader.test_batches import make

pytestmark = pytest.mark.slow  # a process takes a second to begin

SIZE = 4
KINDS = ["raw", "cropped"]
BUG = ValueError("a bug")


@pytest.fixture
def apart(store: DirectoryStore) -> Iterator[Callable[..., Apart]]:
    """Makes processes that read what training batches of a kind of data would."""
    begun: list[Apart] = []

    def begin(
        manifest: Manifest,
        shape: tuple[int, int, int],
        change: Policy | None = None,
        ahead: bool = True,
        ranks: tuple[int, int] = (0, 1),
    ) -> Apart:
        make = partial(reader, store.uri, manifest, shape, SIZE * ranks[1], 0, change, *ranks)
        found = Apart(make, SIZE, shape, ahead)
        begun.append(found)
        return found

    yield begin
    for found in begun:
        found.close()


def alive(process: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("augment", ["none", "trivial"])
@pytest.mark.parametrize("ahead", [True, False])
def test_another_process_reads_what_this_one_would(
    kind: str, augment: str, ahead: bool, store: DirectoryStore, apart: Callable[..., Apart]
) -> None:
    manifest, shape = make(store, kind)
    here = TrainingBatches(store, manifest, shape, SIZE, 0, UNCHANGED, policy(augment))
    there = apart(manifest, shape, policy(augment), ahead)
    assert len(here) > PLACES
    for epoch, start in [(1, 3), (2, 0), (3, 0), (5, 2)]:  # from one to the next, and not
        same(here.read(epoch, start), there.epoch(epoch, start))


@pytest.mark.parametrize("rank", [0, 1])
def test_every_rank_has_a_process_for_its_own_part(
    rank: int, store: DirectoryStore, apart: Callable[..., Apart]
) -> None:
    manifest, shape = make(store, "cropped")
    here = TrainingBatches(store, manifest, shape, 2 * SIZE, 0, UNCHANGED, rank=rank, ranks=2)
    same(here.read(1, 0), apart(manifest, shape, ranks=(rank, 2)).epoch(1, 0))


def same(wanted: Iterator[Batch], found: Iterator[Batch]) -> None:
    """Asserts that two epochs are."""
    for one, other in zip(wanted, found, strict=True):
        assert all(torch.equal(*each) for each in zip(one, other, strict=True))


@pytest.mark.parametrize("ahead", [True, False])
def test_the_next_epoch_begins_unasked_where_that_is_wanted(
    ahead: bool, store: DirectoryStore, apart: Callable[..., Apart]
) -> None:
    found = apart(*make(store, "cropped"), ahead=ahead)
    list(found.epoch(1, 0))
    assert found._connection.poll(60 if ahead else 1) == ahead


def test_an_epoch_that_is_broken_off_is_followed_by_any(store: DirectoryStore, apart: Callable[..., Apart]) -> None:
    manifest, shape = make(store, "cropped")
    found, first = apart(manifest, shape), TrainingBatches(store, manifest, shape, SIZE, 0, UNCHANGED)
    next(found.epoch(1, 0))
    for epoch in (1, 2):
        wanted, _ = next(first.read(epoch, 0))
        images, _ = next(found.epoch(epoch, 0))
        assert torch.equal(images, wanted)


def test_a_damaged_shard_is_named(store: DirectoryStore, apart: Callable[..., Apart]) -> None:
    manifest, shape = make(store, "cropped")
    shard = manifest.shards[0]
    path = store.root / shard.key
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(StepError, match=shard.key):
        list(apart(manifest, shape).epoch(1, 0))


def test_a_process_that_is_killed_ends_the_epoch_with_a_sentence(
    store: DirectoryStore, apart: Callable[..., Apart]
) -> None:
    found = apart(*make(store, "cropped"))
    epoch = found.epoch(1, 0)
    next(epoch)
    os.kill(found._process.pid, signal.SIGKILL)
    told = "^the process that decodes images was ended by SIGKILL; perhaps the memory did not suffice$"
    with pytest.raises(StepError, match=told):
        list(epoch)
    assert len(list(found.epoch(1, 0))) == 10


def fail(error: Exception, take: object) -> None:
    raise error


@pytest.mark.parametrize(
    "error", [UserError("the token is wrong"), StepError("gone"), OSError(errno.ENOSPC, "No space left on device")]
)
def test_what_the_process_raises_is_raised_here(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    found = Apart(partial(fail, error), SIZE, (2, 2, 3), True)  # type: ignore[arg-type]
    with pytest.raises(type(error), match=re.escape(str(error))):
        next(found.epoch(1, 0))
    assert capfd.readouterr().err == ""


def test_a_bug_in_the_process_is_shown_and_ends_the_epoch(capfd: pytest.CaptureFixture[str]) -> None:
    found = Apart(partial(fail, BUG), SIZE, (2, 2, 3), True)  # type: ignore[arg-type]
    with pytest.raises(StepError, match=r"^the process that decodes images ended with exit code 1$"):
        next(found.epoch(1, 0))
    found.close()
    assert "ValueError: a bug" in capfd.readouterr().err


def test_no_process_is_left_behind(store: DirectoryStore, apart: Callable[..., Apart]) -> None:
    manifest, shape = make(store, "cropped")
    closed, dropped = apart(manifest, shape), Apart(partial(fail, BUG), SIZE, shape, True)  # type: ignore[arg-type]
    list(closed.epoch(1, 0))
    processes = [closed._process.pid, dropped._process.pid]
    assert all(map(alive, processes))
    closed.close()
    del dropped
    assert not any(map(alive, processes))


def sleep(take: object) -> None:
    print(os.getpid(), flush=True)
    time.sleep(600)


LOOP = """
from tests.components.loader.test_apart import SIZE, Apart, sleep
next(Apart(sleep, SIZE, (2, 2, 3), True).epoch(1, 0))
"""


def test_a_process_ends_with_the_loop_whatever_it_is_doing_even_if_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, text=True) as loop:
        assert loop.stdout
        process = int(loop.stdout.readline())
        assert os.getsid(process) == process  # so that Ctrl-C and its like do not reach it
        loop.kill()
    until = time.monotonic() + 60
    while alive(process):
        assert time.monotonic() < until
        time.sleep(0.05)
