import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from components.dataset import facts
from components.dataset.manifest import File
from components.step import StepError
from components.storage import DirectoryStore


def rows(count: int, seed: int = 0) -> pa.Table:
    """Facts of images in no order."""
    random = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "sha256": [hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(count)],
        "label": [f"class {number % 7}" for number in range(count)],
        "split": [("train", "validation", "test")[number % 3] for number in range(count)],
        "group": [None if number % 2 else f"group {number % 5}" for number in range(count)],
        "name": [f"class {number % 7}/{seed}/{number}.jpg" for number in range(count)],
        "width": random.integers(1, 9999, count),
        "height": random.integers(1, 9999, count),
        "channels": random.choice([1, 3], count),
        "bytes": random.integers(1, 2**40, count),
        "phash": random.integers(0, 2**64, count, np.uint64),
        "shard": [f"{number % 3:064x}" for number in range(count)],
        "row": np.arange(count),
    }
    return pa.table(columns, schema=facts.SCHEMA)


def written(store: DirectoryStore, *tables: pa.Table) -> tuple[File, list[dict[str, Any]]]:
    folder = store.root.parent / "facts"
    writer = facts.Writer(folder)
    for table in tables:
        writer.add(table)
    file = writer.close(store)
    assert file is not None
    assert not folder.exists()
    return file, [row for group in facts.read(store, file) for row in group.to_pylist()]


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 2, 5])
def test_facts_are_read_as_they_were_written_in_the_order_of_their_hashes(store: DirectoryStore, runs: int) -> None:
    tables = [rows(1000, seed) for seed in range(runs)]
    _, found = written(store, *tables)
    expected = [row for table in tables for row in table.to_pylist()]
    assert found == sorted(expected, key=lambda row: row["sha256"])


@pytest.mark.slow
def test_runs_in_another_order_give_the_same_file(store: DirectoryStore) -> None:
    tables = [rows(1000, seed) for seed in range(3)]
    assert written(store, *tables)[0] == written(store, *tables[::-1])[0]


def test_twins_come_in_an_order_that_hangs_on_what_they_are(store: DirectoryStore) -> None:
    table = rows(4).to_pylist()
    for row in table:
        row["sha256"] = bytes(32)
    forth, back = (pa.Table.from_pylist(order, schema=facts.SCHEMA) for order in (table, table[::-1]))
    assert written(store, forth)[0] == written(store, back)[0]
    assert written(store, forth.slice(0, 2), forth.slice(2))[0] == written(store, back.slice(0, 1), back.slice(1))[0]


def test_a_file_lies_under_its_hash(store: DirectoryStore) -> None:
    file, _ = written(store, rows(10))
    content = store.read(file.key)
    assert file.key == f"datasets/facts/{hashlib.sha256(content).hexdigest()}.parquet"
    assert (file.sha256, file.bytes) == (hashlib.sha256(content).hexdigest(), len(content))


def test_without_facts_there_is_no_file(store: DirectoryStore, tmp_path: Path) -> None:
    assert facts.Writer(tmp_path / "facts").close(store) is None
    assert list(store.keys("")) == []


@pytest.mark.slow
def test_many_facts_are_read_in_groups(store: DirectoryStore) -> None:
    table = rows(facts.GROUP_ROWS + 10)
    file, found = written(store, table)
    assert len(found) == len(table)
    assert [len(group) for group in facts.read(store, file)] == [facts.GROUP_ROWS, 10]


def test_columns_can_be_chosen(store: DirectoryStore) -> None:
    file, _ = written(store, rows(10))
    (group,) = facts.read(store, file, ["phash", "label"])
    assert group.schema.names == ["phash", "label"]
    assert pa.types.is_dictionary(group.schema.field("label").type)


def test_hashes_come_as_bytes_also_from_a_slice(store: DirectoryStore) -> None:
    table = rows(20)
    expected = table["sha256"].to_pylist()
    assert [bytes(row) for row in facts.hashes(table)] == expected
    assert [bytes(row) for row in facts.hashes(table.slice(5, 7))] == expected[5:12]
    both = pa.concat_tables([table, table.slice(3, 2)])
    assert [bytes(row) for row in facts.hashes(both)] == expected + expected[3:5]
    assert facts.hashes(table.slice(0, 0)).shape == (0, 32)


def test_facts_that_are_damaged_or_gone_are_named(store: DirectoryStore) -> None:
    file, _ = written(store, rows(10))
    store.write(file.key, store.read(file.key)[:-1] + b"?")
    with pytest.raises(StepError, match=f"{file.key} in store .* is damaged; remove it"):
        list(facts.read(store, file))
    (store.root / file.key).unlink()
    with pytest.raises(StepError, match=f"{file.key} is gone from store"):
        list(facts.read(store, file))
