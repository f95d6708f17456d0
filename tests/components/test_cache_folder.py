"""The claims of the cache's place."""

import os
from pathlib import Path

import pytest

from components.cache_folder import cache_folder
from components.step import StepError


def test_the_cache_lies_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("shards", "they need room") == tmp_path / "xdg" / "retrain" / "shards"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("shards", "they need room") == tmp_path / "home" / ".cache" / "retrain" / "shards"


def test_the_temporary_folder_serves_where_the_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder("mnist", "MNIST needs 66 MB") == tmp_path / f"retrain-{os.getuid()}" / "mnist"
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    with pytest.raises(StepError, match="MNIST needs 66 MB in /dev/null or /dev/null, and neither can be written to"):
        cache_folder("mnist", "MNIST needs 66 MB")
