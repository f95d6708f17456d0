"""docs/watching.md tells of what is to be seen as it is."""

import re
import shlex
from pathlib import Path

import pytest

from components.progress import FORMAT
from components.storage import DirectoryStore
from components.train import board, hints, journal, pace, usage
from tests.components.train import course
from tests.components.train.course import PREFIX

PAGE = Path(__file__).parent.parent / "docs" / "watching.md"
TEXT = PAGE.read_text()
SHOWN = dict(re.findall(r"^    (progress:?|epoch|note) (.*)$", TEXT, re.M))


def said(store: DirectoryStore, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a training says."""
    with course.journal(store) as told:
        told.note("precision is bf16: the processor has AMX")
        course.learn(told, range(1, 41))
    out, err = capsys.readouterr()
    return f"{out}{err}".splitlines()


def keys(line: str) -> list[str]:
    return [pair.partition("=")[0] for pair in shlex.split(line)]


def test_the_lines_for_programs_have_the_fields_that_it_shows(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FORMAT, "logfmt")
    lines = dict(line.split(" ", 1) for line in said(store, capsys))
    assert keys(lines["progress"]) == keys(SHOWN["progress"])
    assert keys(lines["epoch"]) == keys(SHOWN["epoch"])
    assert lines["note"] == SHOWN["note"]


def test_the_line_for_people_has_the_figures_that_it_shows(
    store: DirectoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = [line for line in said(store, capsys) if line.startswith("progress: ")]

    def words(text: str) -> list[str]:
        return re.findall(r"[a-z]+", text, re.I)

    assert words(line.removeprefix("progress: ")) == words(SHOWN["progress:"])


def test_the_curves_have_the_names_that_it_gives(store: DirectoryStore, capsys: pytest.CaptureFixture[str]) -> None:
    said(store, capsys)
    written = b"".join(store.read(key) for key in store.keys(f"{PREFIX}/tensorboard/"))
    tags = set(re.findall(rb"(?:train|validation)/[a-z_]+", written))
    assert tags == {tag.encode() for tag in re.findall(r"`((?:train|validation)/[a-z_]+)`", TEXT)}
    assert store.exists(f"{PREFIX}/live.html")
    assert "`training/IDENTITY/live.html`" in TEXT


def test_the_hints_are_those_that_it_lists() -> None:
    rising = [course.row(n, validation_loss=float(n), train_loss=1.0 / n, validation_accuracy=0.1) for n in range(1, 6)]
    named = {name for name, _ in hints.of_curve(rising, {"a": 50, "b": 50})} | {"waiting", "idle"}
    (table,) = re.findall(r"\| hint \| when \|\n(.*?)\n\n", TEXT, re.S)
    assert set(re.findall(r"^\| ([a-z ]+) \|", table, re.M)) == named


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"every {board.PAGE_SECONDS:.0f} s and after each epoch" in TEXT
    assert f"every {board.EVENTS_SECONDS:.0f} s at first" in TEXT
    assert board.LONGEST_SECONDS == 3600
    assert f"for {board.CLOSING_SECONDS:.0f} s at most" in TEXT
    assert f"about {pace.POINTS} in a whole training" in TEXT
    assert f"more than {100 * hints.WAITING:.0f} % of the time" in TEXT
    assert f"less than {hints.BUSY} % of the time" in TEXT
    assert hints.RISING == 3
    assert journal.SETTLED_SECONDS == 60
    assert usage.gpu_percent() is None  # where it is not, nothing of it is shown
