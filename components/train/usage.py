"""What a training uses of its machine: memory, and of a GPU also its time."""

import os
from pathlib import Path

import torch

from components.progress import Figure


def memory() -> list[Figure]:
    """That of this process, and of the GPU where one is used; what nobody tells is left out."""
    found = (("memory", resident_mib()), ("GPU memory", gpu_mib()))
    return [Figure(name, f"{value:,}", "MiB") for name, value in found if value is not None]


def resident_mib() -> int | None:
    """The memory that this process holds now, in MiB; None where the kernel does not tell (Linux does, in proc(5))."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def gpu_mib() -> int | None:
    """What PyTorch holds of the GPU's memory, in MiB; None without a GPU."""
    return torch.cuda.memory_reserved() // 2**20 if _gpu() else None


def gpu_percent() -> int | None:
    """The share of the last moments in which the GPU computed, in percent; None where NVML does not tell."""
    if not _gpu():
        return None
    from pynvml import NVMLError

    try:
        return int(torch.cuda.utilization())
    except (NVMLError, RuntimeError):  # no right, no library of the driver, or a driver that does not answer
        return None


def _gpu() -> bool:
    """Whether this process uses one; to ask whether there is one would start it."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
