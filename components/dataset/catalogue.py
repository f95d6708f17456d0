"""The datasets that a store has."""

import difflib
import re
from collections.abc import Iterator

from components.dataset.manifest import Manifest, decode, manifest_key
from components.step import UserError
from components.storage import NotFound, Store

DIGEST = re.compile(r"datasets/([0-9a-f]{64})\.json")

SHORTEST = 4
"""Digits of a digest that are asked for, at least."""


def digests(store: Store) -> Iterator[str]:
    """The digests of all datasets, ascending."""
    # A listing of all that lies beside the manifests, shards and facts, would be a thousand times as long.
    for prefix in _prefixes(""):
        yield from _digests(store, prefix)


def find(store: Store, digest: str) -> Manifest:
    """The dataset with this digest, of which the first digits are enough.

    Raises UserError where there is none, with the nearest, and where several begin like that.
    """
    wanted = digest.strip().lower()
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", wanted):
        raise UserError(
            f"a dataset is named by {SHORTEST} to 64 hexadecimal digits, not {digest!r}; see `retrain data list`"
        )
    found = list(_digests(store, wanted))
    if not found:
        near = difflib.get_close_matches(wanted, [one[: max(12, len(wanted))] for one in digests(store)], 1, cutoff=0)
        hint = f"did you mean {near[0]!r}? (`retrain data list` has all)" if near else "it has none yet"
        raise UserError(f"store {store.uri} has no dataset {digest!r}; {hint}")
    if len(found) > 1:
        raise UserError(
            f"{len(found)} datasets begin with {digest!r}, among them {found[0]} and {found[1]}; give more digits"
        )
    return read(store, found[0])


def read(store: Store, digest: str) -> Manifest:
    """The manifest of the dataset with this whole digest. Raises UserError where it is gone or damaged."""
    key = manifest_key(digest)
    try:
        return decode(store.read(key), f"{key} in store {store.uri}")
    except NotFound:
        raise UserError(f"store {store.uri} has no dataset {digest}; see `retrain data list`") from None


def _prefixes(prefix: str) -> Iterator[str]:
    for digit in "0123456789abcdef":
        longer = prefix + digit
        if "facts".startswith(longer):
            yield from _prefixes(longer)
        else:
            yield longer


def _digests(store: Store, prefix: str) -> Iterator[str]:
    for key in store.keys(f"datasets/{prefix}"):
        if match := DIGEST.fullmatch(key):
            yield match[1]
