"""Lines of progress."""

import pytest

from components.progress import MARK, Figure, Progress


def test_the_last_unit_is_always_said(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("read", 3, "images")
    for _ in range(3):
        progress.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1  # the default pause of ten seconds swallows the others
    assert lines[0].startswith(MARK + "read 100%")


def test_a_line_says_how_far_how_fast_and_how_long_still() -> None:
    progress = Progress("read", 400, "images", figures=lambda: [Figure("loss", "0.5")])
    progress.done = 100
    assert progress.line(now=progress.start + 2.0) == "read 25%, 50 images/s, 6 s left, loss 0.5"


def test_where_nobody_knows_the_total_a_line_says_how_many_and_how_fast() -> None:
    progress = Progress("list", None, "files")
    progress.done = 1_000_000
    assert progress.line(now=progress.start + 20.0) == "list 1,000,000 files, 50,000 files/s"


def test_nothing_to_do_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("read", 0, "images").advance(0)
    assert "100%" in capsys.readouterr().err


def test_the_pause_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RETRAIN_PROGRESS_SECONDS", "0")
    progress = Progress("read", 3, "images")
    for _ in range(3):
        progress.advance(1)
    assert len(capsys.readouterr().err.splitlines()) == 3
