"""What a training uses of its machine."""

import mmap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
import torch

from components.train import usage

Ask = Callable[[Callable[[], None]], int | None]


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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks for the share of time that a GPU computes, 17 %, where there is one; the argument starts NVML."""
    monkeypatch.setattr(usage, "_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "_get_nvml_device_index", lambda device: 0)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: index)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=17))

    def ask(init: Callable[[], None]) -> int | None:
        monkeypatch.setattr(pynvml, "nvmlInit", init)
        return usage.gpu_percent()

    return ask


def test_nvml_tells_how_much_a_gpu_computes(asked: Ask) -> None:
    assert asked(lambda: None) == 17


@pytest.mark.parametrize(
    "number",
    [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED, pynvml.NVML_ERROR_NO_PERMISSION],
)
def test_where_the_driver_does_not_answer_nothing_is_said(number: int, asked: Ask) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(number)

    assert asked(fail) is None


def test_without_a_gpu_nothing_is_said_of_it() -> None:
    assert [figure.name for figure in usage.memory()] == ["memory"]
    assert usage.gpu_percent() is None
