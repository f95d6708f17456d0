"""What a training uses of its machine."""

import mmap
from pathlib import Path

import pytest

from components.train import usage


def test_memory_is_what_this_process_holds_now() -> None:
    before = usage.resident_mib()
    held = mmap.mmap(-1, 100 * 2**20)  # from the kernel itself: malloc may have kept as much from before
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    during = usage.resident_mib()
    held.close()
    after = usage.resident_mib()
    assert before
    assert during
    assert after
    assert 95 <= during - before <= 110
    assert during - after >= 90


def test_where_the_kernel_does_not_tell_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "Path", lambda path: Path("/nowhere"))
    assert usage.memory() == []


def test_without_a_gpu_nothing_is_said_of_it() -> None:
    assert [figure.name for figure in usage.memory()] == ["memory"]
    assert usage.gpu_percent() is None
