"""This machine and the store: whether `retrain run` can work here."""

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

from components.loader import machine
from components.step import UserError
from components.storage import DirectoryStore, S3Store, Store, open_store
from pipelines.doctor import clock
from pipelines.doctor.finding import Check, Finding, failed, mistaken, ok, warning

GIB = 2**30

MEMORY_WANTED = 2 * GIB
"""Bytes with which a run on MNIST does not swap."""

DISK_WANTED = 2 * GIB
DISK_NEEDED = GIB // 4

CONNECT_SECONDS = 5

WRITERS = 8
"""How many create one object at once in a directory."""

# In a process of its own, because the pipelines never import torch and a broken one may end its process.
TORCH = """
from importlib.util import find_spec
if not find_spec("torch"):
    raise SystemExit("not installed")
import torch
seen = f"torch {torch.__version__}"
if find_spec("torchvision"):
    import torchvision
    seen += f" fits torchvision {torchvision.__version__}"
gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
print(seen + ", " + (", ".join(gpus) or "no GPU"))
"""


def checks(store: str, folder: Path) -> list[Check]:
    """What to look at for a run from `folder` into a store."""
    return [
        Check("python", python),
        Check("torch", torch),
        Check("cores", cores),
        Check("memory", memory),
        Check("disk", lambda: disk(Path(store) if is_directory(store) else folder)),
        Check("store", lambda: stored(store)),
    ]


def is_directory(uri: str) -> bool:
    """Whether a store's URI means a directory."""
    return not uri.startswith("s3://")


def python() -> Sequence[Finding]:
    """The interpreter that runs this."""
    return [ok("python", f"{platform.python_version()} in {sys.prefix}")]


def torch() -> Sequence[Finding]:
    """Whether torch can be imported, fits torchvision, and sees a GPU."""
    child = subprocess.run([sys.executable, "-c", TORCH], capture_output=True, text=True)
    said = (child.stdout if child.returncode == 0 else child.stderr).strip() or f"exit code {child.returncode}"
    last = said.splitlines()[-1]
    if child.returncode == 0:
        return [ok("torch", last)]
    if last == "not installed":
        return [warning("torch", last, "needed by `retrain run` alone: pip install 'retrain[local]'")]
    return [failed("torch", last, "install torch and torchvision as the pair that constraints.txt pins")]


def cores() -> Sequence[Finding]:
    """The cores that this process may use."""
    count = machine.cores()
    if count == 1:
        return [warning("cores", "1", "a run takes long here; give it more, or submit it to a cluster")]
    return [ok("cores", str(count))]


def memory(meminfo: Path = Path("/proc/meminfo")) -> Sequence[Finding]:
    """What Linux says is available without swapping, as far as a container may use it."""
    if not meminfo.exists():
        return [ok("memory", f"{machine.memory() / GIB:.1f} GiB")]
    kibibytes = dict(line.split(":") for line in meminfo.read_text().splitlines())["MemAvailable"].split()[0]
    free = min(int(kibibytes) * 1024, machine.memory())
    seen = f"{free / GIB:.1f} GiB available"
    if free < MEMORY_WANTED:
        return [warning("memory", seen, f"a run needs about {MEMORY_WANTED / GIB:.0f} GiB; end other programs")]
    return [ok("memory", seen)]


def disk(folder: Path) -> Sequence[Finding]:
    """The room that is left where a directory is or would be made."""
    place = existing(folder)
    free = shutil.disk_usage(place).free
    seen = f"{free / GIB:.1f} GiB free at {place}"
    if free < DISK_NEEDED:
        return [failed("disk", seen, "make room, or give another --store")]
    if free < DISK_WANTED:
        return [warning("disk", seen, "datasets, models and runs are kept there; make room before they grow")]
    return [ok("disk", seen)]


def existing(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    folder = folder.expanduser().absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def stored(uri: str) -> Sequence[Finding]:
    """Whether the store can be written, honours a condition, and has the same time. Leaves no object behind."""
    store = open_store(uri)
    if isinstance(store, S3Store):
        return in_bucket(store)
    assert isinstance(store, DirectoryStore)
    return in_directory(store)


def in_directory(store: DirectoryStore) -> Sequence[Finding]:
    """The same of a directory, which need not exist yet; and is not made."""
    probe = f"doctor-{uuid4()}"
    try:
        with tempfile.TemporaryDirectory(prefix=".doctor-", dir=existing(store.root)) as room:
            condition = conditional(DirectoryStore(Path(room)), probe)
            seconds = time.time() - (Path(room) / probe).stat().st_mtime
    except OSError as error:
        return [failed("store", f"{store.uri} cannot be written ({error.strerror})", "give another --store")]
    return [ok("store", f"{store.uri} can be written"), condition, clock.judge("clock", seconds, "the store's disk")]


def in_bucket(store: S3Store) -> Sequence[Finding]:
    """The same of a bucket."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")
    require_listener(endpoint)
    skewed = clock.judge("clock", clock.skew(date(store, endpoint)), endpoint)
    try:
        store.require_writable()
        honoured = store.honours_conditions()
    except UserError as error:
        return [mistaken("store", error), skewed]
    return [ok("store", f"{store.uri} at {endpoint} can be written"), in_turn(honoured), skewed]


def in_turn(honoured: bool) -> Finding:
    """Whether the store itself lets one of many writers win; without that they settle it among themselves."""
    if honoured:
        return ok("conditional PUT", "honoured: of several writers at once one succeeds")
    seen = "ignored, or not applied at once; writers settle by claims which of them succeeds, in ten requests"
    return warning("conditional PUT", seen, "quicker: AWS, MinIO, SeaweedFS from 4.17 on; see docs/storage.md")


def date(store: S3Store, endpoint: str) -> str:
    """The `Date` header of an answer of the store's server; whom it takes us for does not matter."""
    from urllib3.exceptions import HTTPError

    try:
        answer = store.http.request("HEAD", endpoint, retries=False, redirect=False, timeout=CONNECT_SECONDS)
        return str(answer.headers["Date"])
    except (HTTPError, KeyError) as error:
        raise UserError(f"{endpoint} does not answer like an S3 server ({error}); see AWS_ENDPOINT_URL") from None


def require_listener(url: str) -> None:
    """Raises UserError where nobody listens: the client itself would try for minutes."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise UserError(f"nobody answers at {url} ({error}); see AWS_ENDPOINT_URL") from None


def conditional(store: Store, key: str) -> Finding:
    """Whether of many who create one object at once one succeeds; without that two runs could lose a champion."""
    with ThreadPoolExecutor(WRITERS) as writers:
        created = sum(writers.map(lambda writer: store.create(key, str(writer).encode()), range(WRITERS)))
    if created == 1 and not store.create(key, b"later"):
        return ok("conditional PUT", f"honoured: of {WRITERS} writers at once one succeeded")
    seen = f"ignored: {created} of {WRITERS} writers at once created the same object"
    return failed("conditional PUT", seen, "use a directory on a file system with locks (flock)")
