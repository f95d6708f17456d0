"""What the steps of the ingestion hand to each other."""

import json
from typing import Any

import pytest

from components.dataset.plan import Part, Plan, encode, part_key, plan_key, read_part, read_plan
from components.dataset.splits import Cuts
from components.step import StepError
from components.storage import DirectoryStore

DIGEST = "ab" * 32
PLAN = Plan(
    digest=DIGEST,
    source="/data",
    kind="idx",
    shape=(28, 28, 1),
    chunks=1,
    images=10,
    bytes=7840,
    cuts=Cuts(0.1, 0.2, {"cat": (0.1, 0.3)}),
    parent=None,
    max_pixels=1000,
)
PART = Part(shards=(), facts=None, quarantine=None, rejected={"empty": 2}, known=0, sums={}, seconds=0.1)


def test_a_plan_and_a_part_are_read_as_they_were_written(store: DirectoryStore) -> None:
    store.write(plan_key(DIGEST), encode(PLAN))
    store.write(part_key(DIGEST, 0), encode(PART))
    assert read_plan(store, DIGEST) == PLAN
    assert read_part(store, DIGEST, 0) == PART
    assert read_part(store, DIGEST, 1) is None


def changed(record: Plan | Part, **fields: Any) -> bytes:
    return json.dumps(json.loads(encode(record)) | fields).encode()


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b"{}", b"\xff", b'{"schema": 1}'])
def test_a_damaged_record_is_said_so(store: DirectoryStore, content: bytes) -> None:
    store.write(plan_key(DIGEST), content)
    store.write(part_key(DIGEST, 0), content)
    with pytest.raises(
        StepError, match=r"plan\.json in store .* is damaged or of another version of Retrain; remove it"
    ):
        read_plan(store, DIGEST)
    with pytest.raises(StepError, match=r"000000\.json in store .* is damaged or of another version of Retrain"):
        read_part(store, DIGEST, 0)


@pytest.mark.parametrize("fields", [{"newer": 1}, {"cuts": [1]}, {"cuts": {"newer": 1}}, {"shape": 7}, {"schema": 2}])
def test_a_plan_of_another_version_is_said_so(store: DirectoryStore, fields: dict[str, Any]) -> None:
    store.write(plan_key(DIGEST), changed(PLAN, **fields))
    with pytest.raises(StepError, match="is damaged or of another version of Retrain"):
        read_plan(store, DIGEST)


@pytest.mark.parametrize("fields", [{"newer": 1}, {"shards": [7]}, {"shards": [{"key": 1}]}, {"facts": {"newer": 1}}])
def test_a_part_of_another_version_is_said_so(store: DirectoryStore, fields: dict[str, Any]) -> None:
    store.write(part_key(DIGEST, 0), changed(PART, **fields))
    with pytest.raises(StepError, match="is damaged or of another version of Retrain"):
        read_part(store, DIGEST, 0)
