"""The summary of a run, beside the champion."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.registry import Version, promote, publish
from components.storage import DirectoryStore
from pipelines.comparison import compared, main, summarize
from tests.pipelines.published import STEPS

FACTS = {
    "accepted": True,
    "accuracy": 0.98,
    "macro_f1": 0.97,
    "onnx_bytes": 1000,
    "milliseconds_per_image": 0.5,
    "test_digest": "t",
    "dataset": "d",
    "run": "the-run",
    "created": "2026-11-23T00:00:00+00:00",
}


def version(store: DirectoryStore, tmp_path: Path, name: str, **facts: Any) -> Version:
    """A published version."""
    (tmp_path / "verdict.json").write_text(json.dumps({"reasons": ["it is good"], **facts}))
    return publish(store, name, {"verdict.json": tmp_path / "verdict.json"}, FACTS | facts)


def parameters(store: DirectoryStore, tmp_path: Path, **others: Any) -> str:
    """The file that the run for good is given."""
    path = tmp_path / "parameters.json"
    path.write_text(json.dumps({"store": store.uri} | others))
    return str(path)


def report(store: DirectoryStore, **changes: Any) -> dict[str, Any]:
    """What `retrain submit --wait --json` prints of a run that succeeded."""
    steps = {name: {"state": "SUCCEEDED", "seconds": 61.4} for name in STEPS}
    parameters = {"store": store.uri, "model_name": "canary"}
    known = {
        "run_id": "the-run",
        "url": None,
        "state": "SUCCEEDED",
        "pipeline_version": "v1",
        "release": {"version": 1},
    }
    return known | {"steps": steps, "parameters": parameters} | changes


def test_a_run_without_an_address_is_named_by_its_id(store: DirectoryStore, tmp_path: Path) -> None:
    version(store, tmp_path, "canary")
    assert summarize(report(store), parameters(store, tmp_path), "").startswith(
        "## Run `the-run`: succeeded\n\nPipeline version `v1`\n"
    )


def test_the_figures_stand_beside_the_champions(store: DirectoryStore, tmp_path: Path) -> None:
    champion = version(store, tmp_path, "mnist", accuracy=0.99, milliseconds_per_image=1.0)
    mine = version(store, tmp_path, "canary")
    assert compared(mine, champion, "mnist").splitlines()[2:] == [
        "| accuracy | 98.00% | 99.00% | -1.00 points |",
        "| macro F1 | 97.00% | 97.00% | +0.00 points |",
        "| ONNX file, bytes | 1,000 | 1,000 | +0.0% |",
        "| ms an image | 0.5 | 1 | -50.0% |",
    ]


def test_figures_of_other_test_images_are_said_not_to_compare(store: DirectoryStore, tmp_path: Path) -> None:
    mine = version(store, tmp_path, "canary")
    rival = replace(mine, name="mnist", facts=FACTS | {"test_digest": "another"})
    assert compared(mine, rival, "mnist").endswith("do not compare.")


def test_a_champion_is_not_compared_with_itself(store: DirectoryStore, tmp_path: Path) -> None:
    mine = version(store, tmp_path, "mnist")
    promote(store, mine, over=None)
    given = {"store": store.uri, "model_name": "mnist"}
    text = summarize(report(store, parameters=given), parameters(store, tmp_path), "")
    assert "**mnist version 1: champion**" in text
    assert "difference" not in text


@pytest.mark.parametrize(("own", "model"), [("mine", ""), ("mine", "mine"), ("theirs", "mine")])
def test_the_champion_is_looked_for_in_the_store_of_the_run_for_good(
    own: str, model: str, store: DirectoryStore, tmp_path: Path
) -> None:
    real = DirectoryStore(tmp_path / "real")
    promote(real, version(real, tmp_path, "mine", accuracy=0.99), over=None)
    version(store, tmp_path, "canary")
    text = summarize(report(store), parameters(real, tmp_path, model_name=own), model)
    assert "**canary version 1: accepted**" in text
    assert "| | this run | champion: mine version 1 | difference |" in text


def test_a_canary_is_no_champion_of_the_same_name_and_number_in_another_store(
    store: DirectoryStore, tmp_path: Path
) -> None:
    real = DirectoryStore(tmp_path / "real")
    promote(real, version(real, tmp_path, "mnist", run="another"), over=None)
    version(store, tmp_path, "mnist")
    given = {"store": store.uri, "model_name": "mnist"}
    text = summarize(report(store, parameters=given), parameters(real, tmp_path), "")
    assert "| | this run | champion: mnist version 1 | difference |" in text


def test_where_there_is_no_champion_yet_the_summary_says_so(store: DirectoryStore, tmp_path: Path) -> None:
    version(store, tmp_path, "canary")
    text = summarize(report(store), parameters(store, tmp_path), "")
    assert text.endswith("\n\nModel `mnist` has no champion yet.\n")


def test_a_champion_that_cannot_be_read_hides_no_verdict(store: DirectoryStore, tmp_path: Path) -> None:
    version(store, tmp_path, "canary")
    gone = parameters(DirectoryStore(tmp_path / "gone"), tmp_path)
    missing = str(tmp_path / "missing.yaml")
    for given, why in {
        gone: f"store {tmp_path / 'gone'} is no directory of this machine",
        missing: f"parameters {missing!r} cannot be read: No such file or directory",
    }.items():
        text = summarize(report(store), given, "")
        assert "**canary version 1: accepted**\n\n- it is good\n" in text
        assert text.endswith(f"\n\n**The champion cannot be read from here**: {why}\n")


@pytest.mark.parametrize("state", ["FAILED", "RUNNING", None])
def test_a_run_that_did_not_succeed_has_no_verdict(state: str | None, store: DirectoryStore) -> None:
    text = summarize(report(store, state=state, release=None, steps=None), "", "")
    assert text == f"## Run `the-run`: {(state or 'started').lower()}\n\nPipeline version `v1`\n"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({}, 0), ({"release": None}, 1), ({"state": "FAILED", "release": None}, 0), ({"state": None, "release": None}, 0)],
)
def test_only_a_success_whose_verdict_is_unknown_is_refused(
    changes: dict[str, Any], code: int, store: DirectoryStore, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text(json.dumps(report(store, **changes)))
    assert main(tmp_path / "report.json", parameters(store, tmp_path), "") == code


def test_where_nothing_was_submitted_the_summary_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("")
    assert main(tmp_path / "report.json", "", "") == 0
    assert capsys.readouterr().out.startswith("## No run was started\n")
