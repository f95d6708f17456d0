"""The claims of the store's protocol, for a directory and for S3."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.step import StepError, UserError
from components.storage import DirectoryStore, NotFound, Store, aside, connection, open_store


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process that runs a script with these arguments."""
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def output(process: subprocess.Popen[str]) -> str:
    """What a process printed, after it ended well."""
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return printed


def test_what_was_written_is_read_back(any_store: Store) -> None:
    any_store.write("a/b.bin", b"\x00\xff one")
    assert any_store.read("a/b.bin") == b"\x00\xff one"
    any_store.write("a/b.bin", b"two")
    assert any_store.read("a/b.bin") == b"two"


def test_an_empty_object_is_an_object(any_store: Store) -> None:
    any_store.write("empty", b"")
    assert any_store.exists("empty")
    assert any_store.read("empty") == b""


def test_a_file_is_written_and_fetched_whole(any_store: Store, tmp_path: Path) -> None:
    content = os.urandom(6 << 20)  # on S3 more than one part
    (tmp_path / "source").write_bytes(content)
    any_store.write("large", tmp_path / "source")
    any_store.fetch("large", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == content


def test_fetching_replaces_a_file_only_by_a_whole_one(any_store: Store, tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"before")
    with pytest.raises(NotFound):
        any_store.fetch("missing", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"before"
    assert list(tmp_path.glob(".aside-*")) == []


def test_writing_a_missing_file_leaves_the_object_as_it_was(any_store: Store, tmp_path: Path) -> None:
    any_store.write("key", b"before")
    with pytest.raises(FileNotFoundError):
        any_store.write("key", tmp_path / "missing")
    assert any_store.read("key") == b"before"


def test_what_was_never_written_is_not_found(any_store: Store) -> None:
    any_store.write("folder/object", b"")
    for key in ("missing", "folder", "folder/object/below", "no/such/folder"):
        assert not any_store.exists(key)
        with pytest.raises(NotFound, match=key):
            any_store.read(key)


def test_what_is_removed_is_gone_and_may_be_removed_again(any_store: Store) -> None:
    any_store.write("folder/key", b"content")
    any_store.write("folder/other", b"content")
    for _ in range(2):
        any_store.remove("folder/key")
    assert list(any_store.keys("")) == ["folder/other"]
    with pytest.raises(UserError, match="must be a relative path"):
        any_store.remove("../key")


def test_create_never_replaces(any_store: Store) -> None:
    assert any_store.create("key", b"first")
    assert not any_store.create("key", b"second")
    assert any_store.read("key") == b"first"


def test_swap_replaces_only_what_it_expects(any_store: Store) -> None:
    assert not any_store.swap("key", b"old", b"new")
    assert not any_store.exists("key")
    assert any_store.swap("key", None, b"old")
    assert not any_store.swap("key", None, b"new")
    assert not any_store.swap("key", b"other", b"new")
    assert any_store.read("key") == b"old"
    assert any_store.swap("key", b"old", b"new")
    assert any_store.read("key") == b"new"


def test_keys_lists_exactly_what_starts_with_the_prefix(any_store: Store) -> None:
    keys = {"a", "ab/c", "ab/d/e", "abc", "b/a", "with space/ä+%20"}
    for key in keys:
        any_store.write(key, b"")
    for prefix in ("", "a", "ab", "ab/", "ab/d", "abc", "b", "missing", "missing/folder/", "with space/ä"):
        assert sorted(any_store.keys(prefix)) == sorted(key for key in keys if key.startswith(prefix))


AWKWARD = ("a-b", "a.b", "a/b", "a/c/d", "a/c-d", "a0", "B", "z", "\u00e4", "\uffee", "\U0001f600")


def test_objects_are_listed_in_the_order_of_their_keys_bytes(any_store: Store) -> None:
    for key in AWKWARD:
        any_store.write(key, key.encode())
    found = list(any_store.objects(""))
    assert [each.key for each in found] == sorted(AWKWARD, key=str.encode)
    assert [each.size for each in found] == [len(each.key.encode()) for each in found]
    assert list(any_store.keys("a/c")) == ["a/c-d", "a/c/d"]


def test_the_version_of_an_object_changes_with_it(any_store: Store) -> None:
    any_store.write("key", b"before")
    (before,) = any_store.objects("")
    assert any_store.read("key", version=before.version) == b"before"
    with any_store.open("key", before.version) as file:
        assert file.read() == b"before"
    any_store.write("key", b"behind")
    (after,) = any_store.objects("")
    assert before.version != after.version
    for use in (any_store.read, any_store.open):
        with pytest.raises(StepError, match=r"key in .* has changed"):
            use("key", version=before.version)


def test_a_part_of_an_object_is_read_exactly(any_store: Store) -> None:
    any_store.write("key", b"0123456789")
    assert any_store.read("key", 3) == b"3456789"
    assert any_store.read("key", 3, 4) == b"3456"
    assert any_store.read("key", 0, 10) == b"0123456789"
    assert any_store.read("key", 4, 0) == b""
    for start, length in ((3, 8), (10, 1), (99, None)):
        with pytest.raises(StepError, match=r"key in .* is shorter than expected"):
            any_store.read("key", start, length)


def test_an_open_object_is_a_file_to_seek_in(any_store: Store) -> None:
    content = bytes(range(256)) * 10_000  # more than is read ahead
    any_store.write("key", content)
    with any_store.open("key") as file:
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        for start, length in ((0, 10), (2_000_000, 300), (5, 2_000_000), (2_559_990, 100), (3_000_000, 1)):
            assert file.seek(start) == start
            assert file.read(length) == content[start : start + length]
        assert file.seek(-10, os.SEEK_END) == len(content) - 10
        assert file.read() == content[-10:]
        assert file.tell() == len(content)
    with pytest.raises(NotFound, match="missing"):
        any_store.open("missing")


def test_a_missing_object_has_no_parts(any_store: Store) -> None:
    with pytest.raises(NotFound, match="missing"):
        any_store.read("missing", 1, 2)


@pytest.mark.slow
def test_keys_lists_more_objects_than_one_answer_of_s3_holds(any_store: Store) -> None:
    for number in range(1001):
        any_store.write(f"many/{number}", b"")
    assert len(set(any_store.keys("many/"))) == 1001


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    ["", "/absolute", "../outside", "a/../../outside", "a//b", "a/", "./a", ".lock", "a/.b", "a\0b", "caf\udce9"],
)
def test_a_key_that_is_no_plain_relative_path_is_refused(any_store: Store, key: str, tmp_path: Path) -> None:
    for use in (
        any_store.read,
        any_store.exists,
        lambda key: any_store.write(key, b""),
        lambda key: any_store.create(key, b""),
    ):
        with pytest.raises(UserError, match="must be a relative path"):
            use(key)
    assert list(any_store.keys("")) == []


def test_a_prefix_that_leaves_the_store_is_refused(any_store: Store) -> None:
    with pytest.raises(UserError, match="must be a relative path"):
        list(any_store.keys("../"))


ADD_ONES = """
import sys
from components.storage import open_store
store, added = open_store(sys.argv[1]), 0
while added < int(sys.argv[2]):
    old = store.read("counter")
    added += store.swap("counter", old, b"%d" % (int(old) + 1))
"""


@pytest.mark.slow
def test_no_swap_of_two_processes_is_lost(any_store: Store) -> None:
    any_store.write("counter", b"0")
    for process in [start(ADD_ONES, any_store.uri, "50") for _ in range(2)]:
        output(process)
    assert any_store.read("counter") == b"100"


CREATE_ALL = """
import sys
from components.storage import open_store
store = open_store(sys.argv[1])
print(sum(store.create(f"object-{number}", sys.argv[2].encode()) for number in range(100)))
"""


@pytest.mark.slow
def test_of_two_processes_that_create_one_object_one_succeeds(any_store: Store) -> None:
    created = [int(output(process)) for process in [start(CREATE_ALL, any_store.uri, name) for name in "AB"]]
    owners = [any_store.read(f"object-{number}").decode() for number in range(100)]
    assert created == [owners.count("A"), owners.count("B")]
    assert sum(created) == 100


WRITE_FOR_EVER = """
import sys
from components.storage import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
while True:
    store.write("object", sys.argv[2].encode() * (1 << 20))
"""


@pytest.mark.slow
def test_a_reader_among_writers_sees_whole_objects_only(any_store: Store) -> None:
    seen: set[bytes] = set()
    writers = [start(WRITE_FOR_EVER, any_store.uri, name) for name in "AB"]
    try:
        assert all(writer.stdout is not None and writer.stdout.readline() for writer in writers)
        end = time.monotonic() + 1
        while time.monotonic() < end or not seen:
            if any_store.exists("object"):
                seen.add(any_store.read("object"))
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()
    assert seen <= {b"A" * (1 << 20), b"B" * (1 << 20)}


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_leaves_whole_objects_only(any_store: Store) -> None:
    for number in range(8):
        writer = start(WRITE_FOR_EVER, any_store.uri, str(number))
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.007 * number)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        content = any_store.read("object") if any_store.exists("object") else b""
        assert content in {str(name).encode() * (1 << 20) for name in range(number + 1)} | {b""}
        assert set(any_store.keys("")) <= {"object"}
    assert any_store.create("another", b"")  # no lock was left behind


INTERRUPTED = """
import signal, sys
from contextlib import suppress
from pathlib import Path
from components.storage import aside

def write(path):
    while True:
        with aside(path) as copy:
            copy.write_text("whole")

signal.signal(signal.SIGPROF, signal.default_int_handler)
folder = Path(sys.argv[1])
for number in range(20):
    with suppress(KeyboardInterrupt):  # in a system call of aside() one time of four
        signal.setitimer(signal.ITIMER_PROF, 1e-3 * (1 + number % 8))
        write(folder / "file")
print(*sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.slow
def test_an_interrupt_at_any_moment_leaves_nothing_aside(tmp_path: Path) -> None:
    assert output(start(INTERRUPTED, str(tmp_path))) == "file\n"


def test_a_directory_written_aside_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    for name in ("first", "second"):
        with aside(tmp_path / "folder") as room:
            room.mkdir()
            (room / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "second"]


@pytest.mark.parametrize("uri", ["relative/store", "{}/absolute", "file://{}/with%20space"])
def test_a_path_or_a_file_uri_is_a_directory(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(uri.format(tmp_path))
    store.write("key", b"")
    assert store.uri == str(tmp_path / uri.format("").removeprefix("file://").replace("%20", " ").lstrip("/"))
    assert (Path(store.uri) / "key").exists()


@pytest.mark.parametrize("uri", ["", "http://host/store", "gs://bucket", "file://data/store", "s3://", "s3:///prefix"])
def test_a_uri_of_no_store_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"store must be .*s3://bucket/prefix, not"):
        open_store(uri)


def test_a_store_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"/file/store' cannot be written \(Not a directory\)"):
        DirectoryStore(tmp_path / "file" / "store").require_writable()


def test_opening_a_store_makes_no_directory(tmp_path: Path) -> None:
    assert not open_store(str(tmp_path / "store")).exists("key")
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("s3_environment")
@pytest.mark.parametrize("bucket", ["no-such-bucket", "Not_A_Bucket", "[x"])
def test_a_bucket_that_is_missing_or_impossible_is_named(bucket: str) -> None:
    store = open_store(f"s3://{bucket}/prefix")
    for use in (
        lambda: store.read("key"),
        lambda: store.write("key", b""),
        lambda: store.create("key", b""),
        lambda: list(store.keys("")),
    ):
        with pytest.raises(UserError, match=f"store s3://{bucket[0]}.* is not usable".replace("[", r"\[")):
            use()


@pytest.mark.usefixtures("s3_environment")
def test_missing_credentials_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"is not usable: .*credentials; see AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket").read("key")


@pytest.mark.usefixtures("s3_environment")
@pytest.mark.parametrize("endpoint", ["localhost:9000", "ftp://localhost", ""])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL must be"):
        open_store("s3://bucket")


@pytest.mark.usefixtures("s3_environment")
def test_an_unreachable_endpoint_is_named_without_a_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.001)
    store = open_store("s3://bucket")
    for use in (lambda: store.read("key"), lambda: store.create("key", b"")):
        with pytest.raises(StepError, match=r"cannot be reached .*Connection refused.*AWS_ENDPOINT_URL") as caught:
            use()
        assert "Signature" not in str(caught.value)


@pytest.mark.usefixtures("s3_environment")
def test_a_bucket_that_is_missing_is_told_before_any_work() -> None:
    with pytest.raises(UserError, match=r"bucket 'no-such-bucket' does not exist; create it"):
        open_store("s3://no-such-bucket/prefix").require_writable()
