"""How much of this machine is for this process: a container may have a small part of what the kernel tells."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def memory() -> int:
    """The bytes of memory that this process and its like in the container may use together."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limits += [int(limit) for limit in _limits("memory.max", "memory/memory.limit_in_bytes") if limit.isdecimal()]
    return min(limits) // _processes()


def cores() -> int:
    """The cores that this process may use, at least 1."""
    count = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for limit in _limits("cpu.max"):
        quota, _, period = limit.partition(" ")
        if quota.isdecimal():
            count = min(count, int(quota) / int(period))
    return max(1, math.ceil(count) // _processes())


def _processes() -> int:
    """How many processes of one training share this container; torchrun says it."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _limits(name: str, old_name: str = "") -> Iterator[str]:
    """What the control group of this process and those above it say in their files of this name.

    Source: the kernel's Documentation/admin-guide/cgroup-v2.rst; `old_name` is the file of version 1, as a container
    sees it.
    """
    try:
        own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    except OSError:
        own = ""
    folders = [CGROUPS / own, *(CGROUPS / own).parents]
    files = [folder / name for folder in folders if folder.is_relative_to(CGROUPS)]
    for file in [*files, CGROUPS / old_name] if old_name else files:
        try:
            yield file.read_text().strip()
        except OSError:
            continue
