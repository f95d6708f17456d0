"""The ingestion through the compiled pipeline on this machine: the steps' own processes, but small chunks."""

import gc
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from pipelines import local
from pipelines.local import Run, RunFailed, StepRun
from pipelines.retrain import compile
from pipelines.settings import STOCK
from pipelines.terminal import Terminal
from tests.samples import drawn_images

SMALL = "import components.plan.plan as plan; plan.CHUNK_PIECES = 10"
RUN = "import runpy; runpy.run_module('components.{step}', run_name='__main__')"

BeforeStep = Callable[[str], str]
"""Is told which step begins; gives a script that runs in it first."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder of PNG files, 200 of ten classes."""
    for number, (image, label) in enumerate(zip(*drawn_images(20, seed=5), strict=True)):
        path = tmp_path / "tree" / str(label) / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return tmp_path / "tree"


@pytest.fixture
def start(tree: Path, tmp_path: Path) -> Callable[..., Run]:
    """Ingests the tree into a store of the given name; what comes after does not run."""

    def execute(
        before: BeforeStep, command: list[str], variables: Mapping[str, str], step: StepRun, terminal: Terminal
    ) -> None:
        name = command[2].rpartition(".")[2]
        script = "\n".join(["import sys", SMALL, before(step.name), RUN.format(step=name)])
        local.execute(["python3", "-c", script, *command[3:]], variables, step, terminal)
        if name == "ingest":
            (step.folder / "decision").write_text("stop")

    def run(store: str, workers: int, before: BeforeStep = lambda step: "", log: io.StringIO | None = None) -> Run:
        compile(tmp_path / "retrain.yaml", STOCK.without_retries())
        arguments = {"source": str(tree), "store": str(tmp_path / store), "ingest_workers": workers}
        terminal = Terminal(log or io.StringIO())
        return local.run(tmp_path / "retrain.yaml", arguments, tmp_path / "runs", terminal, partial(execute, before))

    return run


def digest(run: Run) -> str:
    found: str = run.metadata("ingest", "dataset")["digest"]
    return found


def counted(run: Run, name: str) -> int:
    return sum(step.name.split()[0] == name for step in run.steps)


@pytest.mark.slow
def test_one_worker_and_three_give_the_same_dataset(start: Callable[..., Run], tmp_path: Path) -> None:
    one, three = start("one", 1), start("three", 3)
    assert (counted(one, "shard"), counted(three, "shard")) == (1, 3)
    assert digest(one) == digest(three)
    shards = [
        {path.name for path in (tmp_path / store / "datasets" / "shards").iterdir()} for store in ("one", "three")
    ]
    assert shards[0] == shards[1]
    assert len(shards[0]) > 20


@pytest.mark.slow
def test_a_second_run_reads_nothing_again(start: Callable[..., Run]) -> None:
    first = start("store", 2)
    log = io.StringIO()
    second = start("store", 3, log=log)
    assert (digest(first), second.metadata("ingest", "dataset")["reused"]) == (digest(second), True)
    assert log.getvalue().count(" 0 chunks done in") == 3


@pytest.mark.slow
def test_a_worker_that_is_killed_goes_on_where_it_stopped(start: Callable[..., Run], tmp_path: Path) -> None:
    def kill(step: str) -> str:
        marker = tmp_path / "killed"
        if step != "shard 2/2" or marker.exists():
            return ""
        return f"""
import os, pathlib, components.shard.shard as shard
encode, parts = shard.encode, []
def dying(part):
    parts.append(part)
    if len(parts) == 3:
        pathlib.Path({str(marker)!r}).touch()
        os.kill(os.getpid(), 9)
    return encode(part)
shard.encode = dying
"""

    log = io.StringIO()
    killed = start("killed-store", 2, kill, log)
    assert "shard 2/2 was killed; started again" in log.getvalue()
    assert "shard 2/2 8 chunks done" in log.getvalue()
    assert "2 were done before" in log.getvalue()
    assert digest(killed) == digest(start("store", 2))


@pytest.mark.slow
def test_a_worker_that_fails_fails_the_run_and_leaves_no_dataset(start: Callable[..., Run], tmp_path: Path) -> None:
    def lose(step: str) -> str:
        for chunk in (tmp_path / "store" / "ingest").glob("*/chunks/000003.jsonl"):
            chunk.unlink(missing_ok=True)  # two workers begin at once
        return ""

    with pytest.raises(RunFailed, match=r"^shard 2/2: ingest/\w+/chunks/000003.jsonl is gone from store "):
        start("store", 2, lose)
    assert list((tmp_path / "store" / "datasets").glob("*.json")) == []


@pytest.mark.slow
def test_an_interrupt_at_whatever_moment_a_step_starts_leaves_no_process(tmp_path: Path) -> None:
    mark = str(tmp_path)

    def interrupt(seconds: float) -> None:
        time.sleep(seconds)
        interrupt_main_thread()

    def interrupted(seconds: float) -> None:
        threading.Thread(target=interrupt, args=[seconds]).start()
        command = ["python3", "-c", "import time; time.sleep(60)", mark]
        local.execute(command, {}, StepRun("probe", "", tmp_path), Terminal(io.StringIO()))

    gc.disable()  # in a finalizer an interrupt would be lost
    try:
        for number in range(200):
            with pytest.raises(KeyboardInterrupt):
                interrupted(number * 50e-6)
        assert living(mark) == []
    finally:
        gc.enable()
        for process in living(mark):
            os.kill(process, signal.SIGKILL)


@pytest.mark.slow
def test_a_second_interrupt_ends_a_step_that_does_not_end_by_itself(tmp_path: Path) -> None:
    script = """
import signal, sys, pathlib, time
signal.signal(signal.SIGTERM, lambda *_: pathlib.Path(sys.argv[1], "told").touch())
pathlib.Path(sys.argv[1], "ready").touch()
while True: time.sleep(60)
"""

    def interrupt() -> None:
        for name in ("ready", "told"):
            while not (tmp_path / name).exists():
                time.sleep(0.01)
            interrupt_main_thread()

    threading.Thread(target=interrupt).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        local.execute(
            ["python3", "-c", script, str(tmp_path)], {}, StepRun("probe", "", tmp_path), Terminal(io.StringIO())
        )
    assert time.monotonic() - begun < local.GRACE_SECONDS - 5
    assert living(str(tmp_path)) == []


def interrupt_main_thread() -> None:
    """As Ctrl-C does where it is the only thread: where another takes the signal, what the main one awaits goes on."""
    main = threading.main_thread().ident
    assert main
    signal.pthread_kill(main, signal.SIGINT)


def living(mark: str) -> list[int]:
    """The processes that have the mark among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
