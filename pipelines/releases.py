"""What runs published, as far as the store can be read from where the user stands."""

import json
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from components.registry import Version, champion, numbers, read_file, read_version
from components.step import StepError, UserError
from components.storage import DirectoryStore, Store, open_store
from pipelines.parameters import parameters

T = TypeVar("T")

SECONDS = 5.0
"""How long the store may take to answer. A cluster's own store often cannot be reached from a laptop."""

SKEW = timedelta(hours=1)
"""How far the clocks of the cluster's machines may be apart."""


class Unreadable(Exception):
    """The store cannot be read from here; the sentence says why."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version and its place in the registry."""

    version: Version
    champion: bool

    @property
    def accepted(self) -> bool:
        return bool(self.version.facts["accepted"])

    def facts(self) -> dict[str, Any]:
        """What programs want to know of it."""
        keys = ("accepted", "accuracy", "macro_f1", "dataset", "created")
        found = {key: self.version.facts.get(key) for key in keys}
        return {"model": self.version.name, "version": self.version.number, "champion": self.champion, **found}


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A model's champion and what some runs published, by run ID."""

    champion: Version | None
    runs: Mapping[str, Release]


def place(given: Mapping[str, Any]) -> tuple[str, str]:
    """The store and the model's name that a run with these parameters uses; what is not given has its default."""
    defaults = {field.name: field.default for field in parameters()} | dict(given)
    return str(defaults["store"]), str(defaults["model_name"])


def look(store: str, model: str, runs: Collection[str], since: datetime | None) -> Shelf:
    """The champion, and the versions that these runs published after `since`. Raises Unreadable."""
    return _patiently(lambda: _look(_open(store), model, set(runs), since))


def verdict(store: str, version: Version) -> dict[str, Any]:
    """The verdict on a version: every figure, and the reasons as sentences. Raises Unreadable."""
    found: dict[str, Any] = _patiently(lambda: json.loads(read_file(_open(store), version, "verdict.json")))
    return found


def _open(uri: str) -> Store:
    store = open_store(uri)
    if isinstance(store, DirectoryStore) and not store.root.is_dir():
        raise UserError(f"store {store.uri} is no directory of this machine")
    return store


def _look(store: Store, model: str, wanted: set[str], since: datetime | None) -> Shelf:
    best = champion(store, model)
    found: dict[str, Release] = {}
    for number in reversed(numbers(store, model)) if wanted else ():
        version = read_version(store, model, number)
        if (run := version.facts.get("run")) in wanted:
            found[run] = Release(version=version, champion=best is not None and best.number == number)
        if len(found) == len(wanted) or (since and _created(version) < since - SKEW):
            break
    return Shelf(champion=best, runs=found)


def _created(version: Version) -> datetime:
    return datetime.fromisoformat(version.facts["created"])


def _patiently(work: Callable[[], T]) -> T:
    """What `work` gives, if it does within SECONDS: the clients of stores try for minutes."""
    results: list[T] = []
    problems: list[Exception] = []

    def attempt() -> None:
        try:
            results.append(work())
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=attempt, daemon=True)  # not waited for when the command ends
    thread.start()
    thread.join(SECONDS)
    if results:
        return results[0]
    if problems and not isinstance(problems[0], UserError | StepError):
        raise problems[0]
    raise Unreadable(str(problems[0]) if problems else f"the store did not answer within {SECONDS:g} s")
