"""The loop over the shards on this machine; the steps are small scripts here."""

import io
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines import local
from pipelines.local import Run, RunFailed, StepRun
from pipelines.retrain import compile
from pipelines.settings import STOCK
from pipelines.terminal import Terminal

PLAY = """
import json, os, pathlib, sys, time
given = sys.argv[sys.argv.index("--executor-input") + 1]
said = json.loads(given)
step, outputs = sys.argv[1], said["outputs"]
values = said["inputs"]["parameterValues"]
workers = list(range(int(values.get("ingest_workers", 0))))
for name, value in (("plan", "the-plan"), ("workers", workers), ("decision", "stop")):
    if name in outputs.get("parameters", {}):
        path = pathlib.Path(outputs["parameters"][name]["outputFile"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else json.dumps(value))
"""


def play(
    folder: Path, script: str, command: list[str], variables: Mapping[str, str], step: StepRun, terminal: Terminal
) -> None:
    """A step that writes its output parameters; in a shard `script` runs first, with its `worker` and the `folder`."""
    name = step.name.split()[0]
    flags = dict(zip(command[3::2], command[4::2], strict=True))
    worker = f"worker, folder = {flags.get('--worker')}, pathlib.Path({str(folder)!r})"
    lines = f"import pathlib, os, signal, sys, time, itertools\n{worker}\n{script if name == 'shard' else ''}\n{PLAY}"
    local.execute(["python3", "-c", lines, name, *command[3:]], variables, step, terminal)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Runs the pipeline with so many workers, each of which runs a script, on so many cores."""
    monkeypatch.setattr("pipelines.loop.cores", lambda: 2)

    def run(workers: int, script: str = "", log: io.StringIO | None = None) -> Run:
        compile(tmp_path / "retrain.yaml", STOCK.without_retries())
        execute = partial(play, tmp_path, script)
        arguments = {"ingest_workers": workers}
        return local.run(
            tmp_path / "retrain.yaml", arguments, tmp_path / "runs", Terminal(log or io.StringIO()), execute
        )

    return run


def test_every_worker_runs_once_and_is_named(start: Callable[..., Run]) -> None:
    run = start(3)
    assert sorted(step.name for step in run.steps) == ["ingest", "plan", "shard 1/3", "shard 2/3", "shard 3/3"]
    assert (run.steps[0].name, run.steps[-1].name) == ("plan", "ingest")
    assert len({step.folder for step in run.steps}) == 5
    assert {step.folder.parent for step in (run.steps[0], run.steps[-1])} == {run.root}


def test_a_single_worker_is_the_shard_step(start: Callable[..., Run]) -> None:
    assert [step.name for step in start(1).steps] == ["plan", "shard", "ingest"]


def test_a_worker_gets_its_number_how_many_there_are_and_the_plan(start: Callable[..., Run], tmp_path: Path) -> None:
    start(3, "(folder / str(worker)).write_text(' '.join(sys.argv))")
    for worker in range(3):
        told = (tmp_path / str(worker)).read_text()
        assert f"--plan the-plan --worker {worker} --workers 3" in told


@pytest.mark.slow
def test_as_many_run_at_once_as_there_are_cores(start: Callable[..., Run], tmp_path: Path) -> None:
    script = """
mine = folder / f'running-{worker}'
mine.touch()
(folder / f'begun-{worker}').touch()
for _ in range(6_000):  # the first two meet
    if len(list(folder.glob('begun-*'))) >= 2: break
    time.sleep(0.01)
time.sleep(0.3)  # in which a third one would be seen
(folder / f'saw-{worker}').write_text(str(len(list(folder.glob('running-*')))))
mine.unlink()
"""
    start(4, script)
    saw = {int(path.read_text()) for path in tmp_path.glob("saw-*")}
    assert max(saw) == 2


@pytest.mark.slow
def test_a_worker_that_fails_stops_the_others_and_fails_the_run_with_its_sentence(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    script = "if worker == 1: sys.exit('error: source changed while it was read')\ntime.sleep(60)"
    log, begun = io.StringIO(), time.monotonic()
    with pytest.raises(RunFailed) as failed:
        start(4, script, log)
    assert str(failed.value) == "shard 2/4: source changed while it was read"
    assert time.monotonic() - begun < 50
    assert "shard 1/4 stopped after" in log.getvalue()
    assert "shard 4/4 " not in log.getvalue()
    assert "ingest" not in log.getvalue()


def test_a_worker_that_is_killed_is_started_again(start: Callable[..., Run]) -> None:
    script = (
        "mine = folder / str(worker)\nif worker == 1 and not mine.exists():\n  mine.touch(); os.kill(os.getpid(), 9)"
    )
    log = io.StringIO()
    assert [step.code for step in start(2, script, log).steps] == [0, 0, 0, 0]
    assert "shard 2/2 was killed; started again" in log.getvalue()


def test_a_worker_that_is_killed_again_fails_the_run(start: Callable[..., Run]) -> None:
    with pytest.raises(RunFailed, match="shard 1/2: ended with exit code -9"):
        start(2, "if worker == 0: os.kill(os.getpid(), 9)")


@pytest.mark.slow
def test_an_interrupt_stops_every_worker_and_then_goes_on(start: Callable[..., Run], tmp_path: Path) -> None:
    script = "aside = folder / str(worker); aside.write_text(str(os.getpid())); "
    script += "aside.rename(folder / f'running-{worker}'); time.sleep(60)"
    threads = set(threading.enumerate())

    def interrupt() -> None:
        while len(list(tmp_path.glob("running-*"))) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        start(3, script)
    thread.join()
    assert time.monotonic() - begun < 50
    for path in tmp_path.glob("running-*"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
    assert set(threading.enumerate()) <= threads


@pytest.mark.slow
def test_an_interrupt_while_the_workers_are_being_started_stops_them_all(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(ThreadPoolExecutor):
        def submit(self, *task: Any, **arguments: Any) -> Future[Any]:
            future = super().submit(*task, **arguments)
            if "task_spec" in arguments:
                signal.raise_signal(signal.SIGINT)
            return future

    monkeypatch.setattr("pipelines.loop.ThreadPoolExecutor", Interrupted)
    log = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        start(2, "time.sleep(5)", log)
    assert not re.search(r"^shard ./2 done", log.getvalue(), re.M)


def test_print_and_the_logger_are_as_before(start: Callable[..., Run], capfd: pytest.CaptureFixture[str]) -> None:
    before = print
    start(4)
    assert print is before
    assert capfd.readouterr() == ("", "")
