"""What a directory has besides: links, other people's file systems, power cuts."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.step import StepError, UserError
from components.storage import LINK, NO_KEY, DirectoryStore, NotFound


def test_links_that_lead_out_are_counted_and_neither_listed_nor_read(store: DirectoryStore, tmp_path: Path) -> None:
    store.write("data/image", b"content")
    (tmp_path / "secret").write_bytes(b"hidden")
    (store.root / "data" / "inner").symlink_to("image")
    (store.root / "data" / "outer").symlink_to(tmp_path / "secret")
    (store.root / "data" / "broken").symlink_to("nowhere")
    (store.root / "data" / "loop").symlink_to(store.root / "data")
    (store.root / "away").symlink_to(tmp_path)
    (store.root / "data" / "circle").symlink_to("circle")
    passed_over: Counter[str] = Counter()
    assert [found.key for found in store.objects("", passed_over)] == ["data/image", "data/inner"]
    assert passed_over == {LINK: 5}
    assert store.read("data/inner") == b"content"
    for key in ("data/outer", "away/secret"):
        for use in (store.read, store.open, store.exists, lambda key: store.write(key, b"")):
            with pytest.raises(UserError, match=f"{key} in .* leads out of it by a symbolic link"):
                use(key)
    with pytest.raises(UserError, match="leads out of it"):
        list(store.keys("away/"))


def test_a_store_may_lie_behind_a_link(store: DirectoryStore, tmp_path: Path) -> None:
    store.write("key", b"content")
    (tmp_path / "link").symlink_to(store.root)
    linked = DirectoryStore(tmp_path / "link")
    assert linked.read("key") == b"content"
    assert list(linked.keys("")) == ["key"]


def test_names_that_are_hidden_or_not_utf8_are_counted_and_not_listed(store: DirectoryStore) -> None:
    store.write("images/good", b"")
    for name in (b"caf\xe9.txt", b".DS_Store"):
        (store.root / "images" / os.fsdecode(name)).touch()
    (store.root / os.fsdecode(b"caf\xe9")).symlink_to("images")
    passed_over: Counter[str] = Counter()
    assert [found.key for found in store.objects("", passed_over)] == ["images/good"]
    assert passed_over == {NO_KEY: 3}


def test_nothing_lies_where_no_file_can(store: DirectoryStore, tmp_path: Path) -> None:
    store.write("file", b"")
    (store.root / "circle").symlink_to("circle")
    for key in ("x" * 300, "x" * 300 + "/image", "x/" * 3000 + "image", "circle", "file/image"):
        assert not store.exists(key)
        assert list(store.keys(key + "/")) == []
        for use in (store.read, store.open, store.stat, lambda key: store.fetch(key, tmp_path / "copy")):
            with pytest.raises(NotFound, match=key):
                use(key)
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\); give another --store"):
        store.write("x" * 300, b"")


def test_pipes_and_sockets_are_no_objects(store: DirectoryStore) -> None:
    store.write("key", b"")
    os.mkfifo(store.root / "pipe")
    assert list(store.keys("")) == ["key"]


def test_a_file_that_is_written_to_while_it_is_read_is_noticed(store: DirectoryStore) -> None:
    store.write("key", b"a" * 100_000)
    with store.open("key") as file:
        assert file.read(10) == b"a" * 10
        with (store.root / "key").open("r+b") as other:
            other.write(b"b")
        with pytest.raises(StepError, match=r"key in .* has changed while it was read"):
            file.read()


def test_a_folder_that_vanishes_while_it_is_listed_is_told(store: DirectoryStore) -> None:
    for number in range(3):
        store.write(f"{number}/key", b"")
        store.write(f"a{number}", b"")
    for gone in ("1", "."):
        listing = store.keys("")
        next(listing)
        shutil.rmtree(store.root / gone)
        with pytest.raises(StepError, match="changed while it was listed"):
            list(listing)
    assert list(store.keys("")) == []


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anybody may enter, as pytest's own is not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


# Root may do everything; the child is somebody else then.
AS_NOBODY = """
import os, sys
from pathlib import Path
from components.step import UserError
from components.storage import DirectoryStore
if os.geteuid() == 0:
    os.setuid(65534)
store = DirectoryStore(Path(sys.argv[1]))
for use in (
    lambda: store.read("closed/key"),
    lambda: store.exists("closed/key"),
    lambda: list(store.keys("")),
    lambda: list(store.keys("closed/folder/")),
    lambda: store.write("closed/other", b""),
    lambda: store.create("key", b""),
):
    try:
        use()
    except UserError as error:
        print(error)
"""


def test_a_permission_that_was_taken_away_is_one_sentence(open_folder: Path) -> None:
    store = DirectoryStore(open_folder / "store")
    store.write("closed/key", b"")
    (store.root / "closed").chmod(0)
    store.root.chmod(0o555)
    child = subprocess.run([sys.executable, "-c", AS_NOBODY, store.uri], capture_output=True, text=True, check=True)
    (store.root / "closed").chmod(0o700)
    told = child.stdout.splitlines()
    assert len(told) == 6
    assert all("(Permission denied)" in line and store.uri in line for line in told)


# The limit is what a full disk is: the write itself fails, in the middle.
ON_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from components.step import StepError
from components.storage import open_store
store = open_store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for use in (
    lambda: store.write("key", b"n" * 5000),
    lambda: store.swap("key", b"before" * 1000, b"n" * 5000),
    lambda: store.fetch("key", Path(sys.argv[2])),
):
    try:
        use()
    except StepError as error:
        print(error)
"""


def test_a_disk_that_is_full_is_one_sentence_and_leaves_the_object_as_it_was(
    store: DirectoryStore, tmp_path: Path
) -> None:
    store.write("key", b"before" * 1000)
    copy = tmp_path / "copy"
    child = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, store.uri, str(copy)], capture_output=True, text=True, check=True
    )
    written, swapped, fetched = child.stdout.splitlines()
    assert written == swapped
    assert written.startswith(f"store '{store.uri}' cannot be written (File too large); make room")
    assert fetched.startswith(f"'{copy}' cannot be written (File too large)")
    assert store.read("key") == b"before" * 1000
    assert not copy.exists()


def test_what_a_killed_writer_has_left_behind_is_removed_a_day_later(store: DirectoryStore) -> None:
    store.write("training/checkpoint", b"content")
    old, new = (store.root / "training" / f".aside-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "checkpoint").write_bytes(b"half")
    yesterday = time.time() - 25 * 3600
    for path in (old, store.root / "training" / "checkpoint"):
        os.utime(path, (yesterday, yesterday))
    store.require_writable()
    assert {path.name for path in (store.root / "training").iterdir()} == {"checkpoint", ".aside-new"}


def test_a_store_that_is_gone_is_not_found(store: DirectoryStore, tmp_path: Path) -> None:
    store.write("key", b"")
    shutil.rmtree(store.root)
    for use in (store.read, store.open, lambda key: store.fetch(key, tmp_path / "copy")):
        with pytest.raises(NotFound, match="key"):
            use("key")
    store.root.touch()  # a file in its place
    with pytest.raises(UserError, match=r"cannot be written \((Not a directory|File exists)\)"):
        store.write("key", b"")


# What a power cut leaves is what was synced; the calls tell whether that is enough, in which order.
SYNCED = """
import os, sys
from pathlib import Path
from components.storage import DirectoryStore
log, fsync, replace = [], os.fsync, os.replace
names = lambda fd: os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
sys.addaudithook(lambda event, given: event == "os.rename" and log.append("rename"))
def logged(fd):
    log.append(names(fd))
    fsync(fd)
os.fsync = logged
DirectoryStore(Path(sys.argv[1])).write("new/key", b"content")
print(*log)
"""


def test_content_outlives_a_power_cut_before_its_name_is_given(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", SYNCED, str(tmp_path / "store")], capture_output=True, text=True)
    content, renamed, *folders = child.stdout.split()
    assert (content, renamed) == ("key", "rename")
    assert set(folders) == {"new", "store", tmp_path.name}
