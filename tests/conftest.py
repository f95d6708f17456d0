"""What many tests start from."""

import inspect
import os
import shutil
import signal
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest

from components.storage import DirectoryStore
from tests.samples import write_folder

# A shell that starts the tests in the background has SIGINT ignored, and nohup SIGHUP; every process that a test starts
# would ignore them, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# kfp asks for the whole stack at every property of a task, and of a frame whose file is no module's, as runpy's and
# xdist's are, inspect looks through all modules, each time: to compile the pipeline took eight times as long.
for frame, _ in traceback.walk_stack(None):
    inspect.modulesbyfile.setdefault(frame.f_code.co_filename, frame.f_globals["__name__"])

# An example may take as long as the machine makes it; how fast things are is for the benchmarks to say.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """A folder of IDX files: 600 training and 200 test images, 28x28, of ten classes that can be learned."""
    return write_folder(tmp_path / "idx")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """An empty store in a directory."""
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def tiny_dataset(idx_folder: Path, store: DirectoryStore, tmp_path: Path) -> Path:
    """The manifest of `idx_folder`, ingested into `store`."""
    from tests.ingestion import make_dataset

    return make_dataset(idx_folder, store.uri, tmp_path)


class Ingested(NamedTuple):
    """A dataset and where it lies."""

    manifest: Path
    store: DirectoryStore


@pytest.fixture(scope="session")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Ingested:
    """The real MNIST, downloaded unless it is in the cache."""
    from tests.ingestion import make_dataset

    room = tmp_path_factory.mktemp("mnist")
    store = DirectoryStore(room / "store")
    return Ingested(make_dataset("mnist", store.uri, room), store)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from components.train.interface import Train
    from components.train.train import train
    from tests.ingestion import make_dataset

    room = tmp_path_factory.mktemp("trained")
    store = str(room / "store")
    dataset = make_dataset(write_folder(room / "idx"), store, room)
    outputs: dict[str, Any] = {name: room / name for name in ("model", "metrics", "curves")}
    train(Train(dataset=dataset, store=store, epochs=2, batch_size=32, **outputs))
    return room / "model"


@pytest.fixture
def tiny_model(_trained: Path, tmp_path: Path) -> Path:
    """The directory of a model that was trained a little on `tiny_dataset`; each test has a copy of its own."""
    return shutil.copytree(_trained, tmp_path / "tiny_model")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where nothing may be skipped, as in CI, a test that was skipped is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "RETRAIN_NO_SKIPS" in os.environ and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
