import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.step import UserError
from components.verdict import Verdict, read_verdict, write_verdict

VERDICT = Verdict(
    accepted=False,
    reasons=("The test accuracy of 75 % is below min_accuracy, 90 %.", "There is no champion yet."),
    accuracy=0.75,
    macro_precision=0.8,
    macro_recall=0.75,
    macro_f1=0.7333,
    per_class=(
        {"class": "cat", "precision": 0.6, "recall": 1.0, "f1": 0.75, "images": 2},
        {"class": "hønë <b>", "precision": 1.0, "recall": 0.5, "f1": 0.6667, "images": 2},
    ),
    confusion=((2, 0), (1, 1)),
    test_images=4,
    dataset="ab" * 32,
    test_digest="cd" * 32,
    champion={"version": 3, "accuracy": 0.7},
    seconds=1.5,
)


@pytest.mark.parametrize("champion", [None, {"version": 3, "accuracy": 0.7}, {"version": 3, "accuracy": None}])
def test_a_verdict_is_read_as_it_was_written(tmp_path: Path, champion: dict[str, float | None] | None) -> None:
    verdict = replace(VERDICT, champion=champion)
    write_verdict(tmp_path / "verdict", verdict)
    assert read_verdict(tmp_path / "verdict") == verdict


def test_a_verdict_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_verdict(tmp_path / "verdict", VERDICT)
    write_verdict(tmp_path / "verdict", replace(VERDICT, accepted=True))
    assert read_verdict(tmp_path / "verdict").accepted
    assert [path.name for path in tmp_path.iterdir()] == ["verdict"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b'"schema"'])
def test_a_file_that_is_no_verdict_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "verdict").write_bytes(content)
    with pytest.raises(UserError, match=r"verdict is not a verdict; give the file that evaluate wrote"):
        read_verdict(tmp_path / "verdict")


def test_a_verdict_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent is not a verdict"):
        read_verdict(tmp_path / "absent")


def test_a_verdict_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    (tmp_path / "verdict").write_text('{"schema": 2}')
    with pytest.raises(UserError, match=r"is a verdict of schema 2, this version reads schema 1; update Retrain"):
        read_verdict(tmp_path / "verdict")


def test_a_verdict_without_some_of_its_fields_is_refused_with_their_names(tmp_path: Path) -> None:
    write_verdict(tmp_path / "verdict", VERDICT)
    content = json.loads((tmp_path / "verdict").read_text())
    del content["accepted"], content["confusion"]
    (tmp_path / "verdict").write_text(json.dumps(content))
    with pytest.raises(UserError, match="lacks accepted, confusion; run evaluate again"):
        read_verdict(tmp_path / "verdict")
