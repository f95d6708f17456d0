"""The versions of a model that were published, and which of them is the champion.

A version is a folder of files under the digest of them all, and a record that is created last, so that a version is
there as a whole or not at all. The champion is a pointer that moves by compare and swap. Standard library alone.

    models/mnist/4f2a…/model.onnx, weights.safetensors, …    the files
    models/mnist/versions/000003.json                        the record: digest, the files' keys and hashes, facts
    models/mnist/champion.json                               the pointer: {"version": 3}
"""

import hashlib
import json
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.step import StepError, UserError
from components.storage import NotFound, Store

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
RECORD = re.compile(r"([0-9]{6,})\.json")

DIGITS = 16
"""Hexadecimal digits of a digest: 64 bits tell a model's versions apart, and a person can still read its path."""

SCHEMA = 1
"""Version of the record's JSON; a newer one is refused."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A published model."""

    name: str
    number: int  # 1, 2, 3, …
    digest: str  # the start of the SHA-256 over the files' names and hashes
    files: dict[str, str]  # file name -> key in the store
    hashes: dict[str, str]  # file name -> SHA-256 of its bytes
    facts: dict[str, Any]  # accuracy, accepted, dataset, test_digest, classes, created, …


def check_name(name: str) -> None:
    """Raises UserError unless `name` can name a model."""
    if not NAME.fullmatch(name):
        raise UserError(
            "model_name must be 1 to 63 lowercase letters, digits, dots, hyphens or underscores "
            f"and start with a letter or digit, not {name!r}"
        )


def publish(store: Store, name: str, files: Mapping[str, Path], facts: Mapping[str, Any]) -> Version:
    """Publishes files as the next version. The same files again give the version that exists, with its own facts."""
    check_name(name)
    hashes = {file: _sha256(path) for file, path in sorted(files.items())}
    digest = hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:DIGITS]
    keys = {file: f"models/{name}/{digest}/{file}" for file in hashes}

    # Listed before anything is looked up or written: a version that another run adds from here on, perhaps of these
    # very files, is met on the way to the next free number.
    taken = numbers(store, name)
    if all(store.exists(key) for key in keys.values()):
        for version in (read_version(store, name, number) for number in reversed(taken)):
            if version.digest == digest:
                return version

    for file, key in keys.items():
        store.write(key, files[file])
    number = max(taken, default=0) + 1
    while True:
        draft = Version(name=name, number=number, digest=digest, files=keys, hashes=hashes, facts=dict(facts))
        store.create(_record(name, number), json.dumps({"schema": SCHEMA, **asdict(draft)}, indent=2).encode())
        version = read_version(store, name, number)  # ours, or that of a run that was faster
        if version.digest == digest:
            return version
        number += 1


def promote(store: Store, version: Version, over: int | None) -> bool:
    """Makes the version champion if the champion still is number `over` (None: if there is none), or is it already."""
    current = _read(store, _pointer(version.name))
    number = None if current is None else _parse_pointer(store, version.name, current)
    if number == version.number:
        return True
    # The swap compares once more: it fails if another run moved the pointer since it was read.
    pointer = json.dumps({"version": version.number}).encode()
    return number == over and store.swap(_pointer(version.name), current, pointer)


def champion(store: Store, name: str) -> Version | None:
    """The version that the champion pointer names; None where nothing was promoted yet."""
    current = _read(store, _pointer(name))
    return None if current is None else read_version(store, name, _parse_pointer(store, name, current))


def versions(store: Store, name: str) -> Iterator[Version]:
    """Every published version, the oldest first."""
    return (read_version(store, name, number) for number in numbers(store, name))


def numbers(store: Store, name: str) -> list[int]:
    """The numbers of the published versions, the oldest first. What else lies beside their records is passed over."""
    check_name(name)
    folder = f"models/{name}/versions/"
    found = (RECORD.fullmatch(key.removeprefix(folder)) for key in store.keys(folder))
    return sorted(int(record[1]) for record in found if record)


def read_version(store: Store, name: str, number: int) -> Version:
    """The record of one version. Raises UserError where there is none, StepError where it is damaged."""
    check_name(name)
    key = _record(name, number)
    content = _read(store, key)
    if content is None:
        raise UserError(f"store {store.uri} has no version {number} of model {name!r}")
    try:
        found = json.loads(content)
        schema = found.pop("schema")
        if schema == SCHEMA:
            return Version(**found)
    except (ValueError, TypeError, AttributeError, KeyError):
        raise StepError(f"{key} in store {store.uri} is damaged: it is no record of a version") from None
    raise StepError(f"{key} in store {store.uri} has schema {schema!r}, this version reads {SCHEMA}; update Retrain")


def read_file(store: Store, version: Version, file: str) -> bytes:
    """The bytes of one of a version's files. Raises StepError unless they are those that were published."""
    key = version.files[file]
    content = _read(store, key)
    if content is None or hashlib.sha256(content).hexdigest() != version.hashes[file]:
        what = "gone from" if content is None else "damaged in"
        raise StepError(f"{key} is {what} store {store.uri}; publish the model again with `retrain run`")
    return content


def _record(name: str, number: int) -> str:
    return f"models/{name}/versions/{number:06d}.json"


def _pointer(name: str) -> str:
    check_name(name)
    return f"models/{name}/champion.json"


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except NotFound:
        return None


def _parse_pointer(store: Store, name: str, content: bytes) -> int:
    try:
        return operator.index(json.loads(content)["version"])
    except (ValueError, TypeError, KeyError):
        raise StepError(f"{_pointer(name)} in store {store.uri} is damaged: it names no version") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
