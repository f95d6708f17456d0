"""The peak of a process's memory."""

from pathlib import Path


def peak() -> int:
    """The most that this process has had resident, in KiB.

    From /proc/self/status, because a process takes ru_maxrss over from the one that started it: proc(5), getrusage(2).
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
