"""Whether there is a reason to retrain."""

import pytest

from components.ingest.decision import RETRAIN, STOP, decide
from components.registry import Version

CHAMPION = Version(name="mnist", number=3, digest="d", files={}, hashes={}, facts={"dataset": "data", "code": "code"})


def test_nothing_changed_since_the_champion_is_no_reason() -> None:
    decision, why = decide("changed", CHAMPION, "data", "code")
    assert decision == STOP
    assert why == (
        "Nothing to do: dataset and code are those of the champion, version 3. "
        "Parameters are not compared; the condition 'always' retrains."
    )


@pytest.mark.parametrize(
    ("dataset", "code", "what"),
    [("new", "code", "the dataset"), ("data", "new", "the code"), ("new", "new", "the dataset and the code")],
)
def test_new_data_or_new_code_is_a_reason_and_is_named(dataset: str, code: str, what: str) -> None:
    decision, why = decide("changed", CHAMPION, dataset, code)
    assert decision == RETRAIN
    assert why == f"Retraining, because {what} changed since version 3."


def test_a_champion_that_noted_no_code_is_replaced() -> None:
    old = Version(name="mnist", number=1, digest="d", files={}, hashes={}, facts={"dataset": "data"})
    assert decide("changed", old, "data", "code")[0] == RETRAIN


def test_without_a_champion_there_is_a_reason() -> None:
    assert decide("changed", None, "data", "code") == (RETRAIN, "Retraining, because there is no champion yet.")


def test_always_is_a_reason() -> None:
    assert decide("always", CHAMPION, "data", "code")[0] == RETRAIN
