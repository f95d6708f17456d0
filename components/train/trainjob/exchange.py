"""What the launching step and its workers hand each other through the store, below `training/<identity>/`.

`step.json` and `manifest.json` go to the workers; `result/` comes back, of which `done.json` is written last.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from components.step import Field, Metadata, Out, StepError, fields
from components.storage import NotFound, Store, aside, check_key
from components.train.interface import Train

OUTPUTS = [field for field in fields(Train) if isinstance(field.artifact, Out)]


class Damaged(StepError):
    """The result is not, byte for byte, what the workers wrote."""


def send(step: Train, store: Store, identity: str) -> None:
    """Writes what the workers need: the step's parameters, among which is no secret, and the dataset's manifest."""
    parameters = {field.name: getattr(step, field.name) for field in fields(Train) if field.artifact is None}
    store.write(f"training/{identity}/manifest.json", step.dataset)
    store.write(f"training/{identity}/step.json", json.dumps(parameters, indent=2).encode())


def receive(store: Store, identity: str, room: Path) -> Train:
    """The step as a worker runs it, its paths in `room`. Raises StepError where the store has no such training."""
    try:
        parameters = json.loads(store.read(f"training/{identity}/step.json"))
        store.fetch(f"training/{identity}/manifest.json", room / "dataset")
    except NotFound:
        raise StepError(
            f"there is no training {identity!r} in {store.uri}; a train step with nodes > 1 begins it"
        ) from None
    outputs: dict[str, Any] = {field.name: room / field.name for field in OUTPUTS}
    return Train(dataset=room / "dataset", **outputs, **parameters)


def deliver(step: Train, store: Store, identity: str, metadata: Metadata) -> None:
    """Writes what the training has written, with the SHA-256 of each file and what `train` said of it."""
    digests = {}
    for name, path in _written(step):
        store.write(f"training/{identity}/result/{name}", path)
        digests[name] = _digest(path)
    done = {"files": digests, "metadata": {name: dict(of) for name, of in metadata.items()}}
    store.write(f"training/{identity}/result/done.json", json.dumps(done, indent=2).encode())


def collect(step: Train, store: Store, identity: str) -> Metadata:
    """Copies the result to the step's outputs, all of them or none. Raises NotFound where there is none, or Damaged."""
    files, metadata = _done(store, f"training/{identity}/result/done.json")
    with ExitStack() as ready:
        for field in OUTPUTS:
            copy = ready.enter_context(aside(getattr(step, field.name)))
            for name, digest in _files_of(field, files):
                check_key(name)
                _fetch(store, f"training/{identity}/result/{name}", copy / name.partition("/")[2], digest)
    return metadata


def _done(store: Store, key: str) -> tuple[dict[str, str], Metadata]:
    """The digests of the files by name, and what `train` said of them."""
    content = store.read(key)
    try:
        done = json.loads(content)
        return dict(done["files"]), dict(done["metadata"])
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{key} in {store.uri} is not what the workers wrote; it was damaged or replaced") from None


def _written(step: Train) -> Iterator[tuple[str, Path]]:
    """Each file of the outputs, with its name there: `metrics`, or `model/config.json` where the output is a folder."""
    for field in OUTPUTS:
        path: Path = getattr(step, field.name)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            yield from ((f"{field.name}/{file.relative_to(path).as_posix()}", file) for file in files)
        else:
            yield field.name, path


def _files_of(field: Field, files: dict[str, str]) -> list[tuple[str, str]]:
    found = [(name, digest) for name, digest in files.items() if name.partition("/")[0] == field.name]
    if not found:
        raise Damaged(f"the workers' result has no {field.name}; it was made by another version of this step")
    return found


def _fetch(store: Store, key: str, path: Path, digest: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        store.fetch(key, path)
    except NotFound:
        raise Damaged(f"{key} is gone from {store.uri}") from None
    if _digest(path) != digest:
        raise Damaged(f"{key} in {store.uri} is not what the workers wrote; it was damaged or replaced")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
