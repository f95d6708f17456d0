"""The datasets of a store."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from components.dataset.catalogue import digests, find
from components.dataset.manifest import content_digest, encode, manifest_key
from components.step import UserError
from components.storage import Store
from tests.components.evaluate import example


def publish(store: Store, *names: str) -> None:
    """Puts something that could be a manifest under each of these digests, and what lies beside manifests."""
    for name in names:
        store.write(manifest_key(name), b"{}")
    for key in ("datasets/facts/f.parquet", "datasets/shards/0.parquet", "datasets/fac.json", "datasets/x.json"):
        store.write(key, b"")


@pytest.mark.slow
def test_every_dataset_is_found_and_nothing_else(any_store: Store) -> None:
    names = ["f" * 64, "fac" + "7" * 61, "fa" + "0" * 62, "0" * 64, "abc" + "0" * 61, "facf" + "0" * 60]
    publish(any_store, *names)
    assert list(digests(any_store)) == sorted(names)


def test_the_first_digits_are_enough(store: Store) -> None:
    manifest = example.manifest()
    digest = content_digest(manifest.classes, manifest.encoding, manifest.shape, manifest.split_digests)
    manifest = replace(manifest, digest=digest)
    store.write(manifest_key(manifest.digest), encode(manifest))
    for name in (manifest.digest, manifest.digest[:12], manifest.digest[:4].upper(), f" {manifest.digest[:5]} "):
        assert find(store, name).digest == manifest.digest


@pytest.mark.parametrize("name", ["", "abc", "zzzz", "../../etc", "a" * 65, "ab cd", "abcd/"])
def test_what_is_no_digest_is_refused(store: Store, name: str) -> None:
    with pytest.raises(UserError, match=r"a dataset is named by 4 to 64 hexadecimal digits, not .*; see `retrain data"):
        find(store, name)


def test_an_unknown_one_is_answered_with_the_nearest(store: Store) -> None:
    publish(store, "abcd" + "0" * 60, "ffff" + "0" * 60)
    with pytest.raises(UserError, match=re.escape("has no dataset 'abce'; did you mean 'abcd00000000'?")):
        find(store, "abce")


def test_an_empty_store_is_said_to_be(store: Store) -> None:
    with pytest.raises(UserError, match="has no dataset 'abcd'; it has none yet"):
        find(store, "abcd")


def test_digits_with_which_several_begin_are_too_few(store: Store) -> None:
    publish(store, "abcd0" + "0" * 59, "abcd1" + "0" * 59)
    with pytest.raises(UserError, match=r"2 datasets begin with 'abcd', among them abcd00\w+ and abcd10\w+; give more"):
        find(store, "abcd")


def test_a_damaged_manifest_is_named(store: Store, tmp_path: Path) -> None:
    publish(store, "abcd" + "0" * 60)
    with pytest.raises(UserError, match=r"datasets/abcd0+\.json in store .* is not a dataset manifest"):
        find(store, "abcd")
