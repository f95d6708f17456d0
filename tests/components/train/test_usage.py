"""What a training uses of its machine."""

from pathlib import Path

import numpy as np
import pytest

from components.train import usage


def test_memory_is_what_this_process_holds_now() -> None:
    before = usage.resident_mib()
    held = np.ones(100 * 2**20, np.uint8)
    during = usage.resident_mib()
    del held
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
