"""What a control group allows counts, not what the machine has."""

import os
from pathlib import Path

import pytest

from components.loader import machine
from components.loader.machine import cores, memory


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the control groups; this process is in one of them, whose files a test may write."""
    own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    (tmp_path / own).mkdir(parents=True, exist_ok=True)
    return tmp_path


def test_without_control_groups_all_of_the_machine_counts(groups: Path) -> None:
    assert memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert cores() == len(os.sched_getaffinity(0))


def test_the_least_that_a_group_allows_counts(groups: Path) -> None:
    (groups / "memory.max").write_text("1000000\n")
    (groups / "cpu.max").write_text("50000 100000\n")
    assert memory() == 1_000_000
    assert cores() == 1


def test_the_groups_of_version_1_count_too(groups: Path) -> None:
    (groups / "memory").mkdir()
    (groups / "memory" / "memory.limit_in_bytes").write_text("2000000\n")
    assert memory() == 2_000_000


def test_a_group_without_limits_allows_everything(groups: Path) -> None:
    (groups / "memory.max").write_text("max\n")
    (groups / "cpu.max").write_text("max 100000\n")
    assert memory() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert cores() == len(os.sched_getaffinity(0))


def test_ranks_on_one_machine_share_it(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (groups / "memory.max").write_text("1000\n")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert memory() == 250
    assert cores() == 1
