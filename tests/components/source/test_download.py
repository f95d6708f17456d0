import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.source import download
from components.source.download import Unusable, complete
from tests.mirror import Mirror, serving

CONTENT = random.Random(0).randbytes(1_000_000)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving({"/file": CONTENT}) as mirror:
        yield mirror


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "part"


def test_a_file_arrives_whole_and_its_progress_is_shown(
    mirror: Mirror, part: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    complete(f"{mirror.url}/file", part)
    assert part.read_bytes() == CONTENT
    assert "progress: download file 100%" in capfd.readouterr().err


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(mirror: Mirror, part: Path) -> None:
    mirror.breaks = [300_000, 200_000]
    complete(f"{mirror.url}/file", part)
    assert part.read_bytes() == CONTENT
    assert mirror.asked == [("/file", 0), ("/file", 300_000), ("/file", 500_000)]


def test_a_part_of_an_earlier_run_is_not_loaded_again(mirror: Mirror, part: Path) -> None:
    part.write_bytes(CONTENT[:999_000])
    complete(f"{mirror.url}/file", part)
    assert part.read_bytes() == CONTENT
    assert mirror.asked == [("/file", 999_000)]


def test_a_part_that_is_whole_is_left_as_it_is(mirror: Mirror, part: Path) -> None:
    part.write_bytes(CONTENT)
    complete(f"{mirror.url}/file", part)
    assert part.read_bytes() == CONTENT


def test_a_server_that_knows_no_ranges_sends_all_of_it_again(mirror: Mirror, part: Path) -> None:
    mirror.ranges = False
    part.write_bytes(CONTENT[:10])
    complete(f"{mirror.url}/file", part)
    assert part.read_bytes() == CONTENT


def test_a_transfer_that_gets_no_further_is_given_up_and_its_part_kept(mirror: Mirror, part: Path) -> None:
    mirror.breaks = [300_000, 0]
    with pytest.raises(Unusable, match="broke off"):
        complete(f"{mirror.url}/file", part)
    assert part.read_bytes() == CONTENT[:300_000]


def test_a_file_that_is_not_there_is_said_so(mirror: Mirror, part: Path) -> None:
    with pytest.raises(Unusable, match="HTTP 404"):
        complete(f"{mirror.url}/other", part)
    assert not part.exists()


def test_a_host_without_a_name_costs_no_time(part: Path) -> None:
    start = time.monotonic()
    with pytest.raises(Unusable, match=r"\w"):
        complete("http://mirror.invalid/file", part)
    assert time.monotonic() - start < download.ANSWER_SECONDS + 1


def test_a_closed_port_is_said_so(part: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unusable, match="Connection refused"):
        complete(f"http://127.0.0.1:{port}/file", part)


@pytest.mark.slow
def test_a_server_that_does_not_answer_costs_a_few_seconds(mirror: Mirror, part: Path) -> None:
    mirror.seconds_to_answer = download.ANSWER_SECONDS + 1
    start = time.monotonic()
    with pytest.raises(Unusable, match="no answer in 5 s"):
        complete(f"{mirror.url}/file", part)
    assert time.monotonic() - start < download.ANSWER_SECONDS + 1
