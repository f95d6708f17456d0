"""All that a source has."""

from components.source.example import Example, Rejected, Source
from components.storage import Store


def read_all(source: Source) -> list[Example | Rejected]:
    """What is in all of its pieces."""
    return list(source.examples(list(source.pieces())))


def examples(source: Source) -> list[Example]:
    """The same, where nothing is rejected."""
    found = read_all(source)
    assert not [entry for entry in found if isinstance(entry, Rejected)]
    return [entry for entry in found if isinstance(entry, Example)]


def rejections(source: Source) -> dict[str, tuple[str, str]]:
    """Reason and detail of what is rejected, by name."""
    return {entry.name: (entry.reason, entry.detail) for entry in read_all(source) if isinstance(entry, Rejected)}


def fill(store: Store, files: dict[str, bytes]) -> str:
    """Writes files; gives the URI of the store."""
    for key, content in files.items():
        store.write(key, content)
    return store.uri
