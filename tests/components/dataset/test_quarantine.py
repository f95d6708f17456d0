import hashlib

import pytest

from components.dataset import quarantine
from components.dataset.quarantine import Entry
from components.step import StepError
from components.storage import DirectoryStore

ENTRIES = [
    Entry("cat/2.jpg", "truncated", "Premature end of JPEG file", b"\xff\xd8\xff"),
    Entry("cat/1.jpg", "empty", "has no bytes"),
    Entry("dog/1.jpg", "no label", "lies in no folder"),
]


def test_entries_are_read_as_they_were_written_in_the_order_of_their_names(store: DirectoryStore) -> None:
    file = quarantine.write(store, ENTRIES)
    assert quarantine.read(store, file) == [ENTRIES[1], ENTRIES[0], ENTRIES[2]]


def test_the_same_entries_give_the_same_file(store: DirectoryStore) -> None:
    assert quarantine.write(store, ENTRIES) == quarantine.write(store, ENTRIES[::-1])


def test_a_file_lies_under_its_hash(store: DirectoryStore) -> None:
    file = quarantine.write(store, ENTRIES)
    assert file.key == f"ingest/quarantine/{hashlib.sha256(store.read(file.key)).hexdigest()}.parquet"


def test_a_quarantine_that_is_gone_is_named(store: DirectoryStore) -> None:
    file = quarantine.write(store, ENTRIES)
    (store.root / file.key).unlink()
    with pytest.raises(StepError, match=f"{file.key} is gone"):
        quarantine.read(store, file)
