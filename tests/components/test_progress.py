"""Lines of progress."""

import pytest

from components.progress import FORMAT, MARK, Figure, Progress, logfmt, say, shown
from components.step import UserError


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


def test_a_pause_that_is_no_number_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIN_PROGRESS_SECONDS", "10s")
    with pytest.raises(UserError, match="RETRAIN_PROGRESS_SECONDS must be a number of seconds, not '10s'"):
        Progress("read", 3, "images")


def test_for_programs_the_same_stands_in_logfmt() -> None:
    figures = [Figure("epoch", "3/12"), Figure("GPU memory", "1,812", "MiB"), Figure("data wait", "1%")]
    progress = Progress("", 400, "images", figures=lambda: figures)
    progress.done = 100
    assert progress.fields(now=progress.start + 2.0) == (
        "progress done=25% images_per_second=50 eta_seconds=6 epoch=3/12 gpu_memory_mib=1812 data_wait=1%"
    )


def test_what_is_counted_without_a_total_has_its_own_field() -> None:
    progress = Progress("read the list", None, "MB")
    progress.done = 70
    assert progress.fields(now=progress.start + 2.0) == 'progress what="read the list" mb=70 mb_per_second=35'


def test_the_environment_says_who_reads_the_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT, "logfmt")
    Progress("read", 3, "images").advance(3)
    say("note", "batch size 256")
    say("epoch", "epoch 1/2: fine", {"epoch": "1/2"})
    monkeypatch.delenv(FORMAT)
    say("note", "batch size 256")
    out, err = capsys.readouterr()
    assert err.startswith("progress what=read done=100% images_per_second=")
    assert out == 'note text="batch size 256"\nepoch epoch=1/2\nbatch size 256\n'


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("21%", "21%"),
        ("3/12", "3/12"),
        ("", '""'),
        ("two words", '"two words"'),
        ('say "no"', r'"say \"no\""'),
        ("a\nb", r'"a\nb"'),
        ("a=b", '"a=b"'),
        ("C:\\", r'"C:\\"'),
    ],
)
def test_values_that_would_break_a_line_are_quoted(value: str, written: str) -> None:
    assert logfmt("note", {"text": value}) == f"note text={written}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (MARK + "read 25%", "read 25%"),
        ("progress done=25% images_per_second=50", "done=25% images_per_second=50"),
        ("progress is slow today", None),
        ("epoch epoch=1/2", None),
        ("", None),
    ],
)
def test_lines_of_progress_are_told_from_others(line: str, said: str | None) -> None:
    assert shown(line) == said


def test_what_an_earlier_process_has_done_says_nothing_of_the_speed() -> None:
    progress = Progress("read", 400, "images", done=200)
    assert progress.line(now=progress.start + 2.0) == "read 50%, 0 images/s"
    progress.done = 300
    assert progress.line(now=progress.start + 2.0) == "read 75%, 50 images/s, 2 s left"


def test_figures_are_asked_for_only_when_a_line_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[int] = []

    def figures() -> list[Figure]:
        asked.append(progress.done)
        return []

    progress = Progress("read", 1000, "images", figures=figures)
    for _ in range(1000):
        progress.advance(1)
    assert asked == [1000]
