"""Runs the compiled pipeline on this machine, each step a process of its own or, with containers.py, a container.

kfp.local does the work: it reads the YAML, orders the tasks, hands artifacts on. Its SubprocessRunner refuses container
components, so its task handler, private API of the pinned kfp, is replaced here and nowhere else; loop.py has loops.
"""

import contextlib
import functools
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import components, local
from kfp.local import logging_utils, status, subprocess_task_handler
from kfp.local.io import IOStore
from kfp.local.orchestrator import enhanced_dag_orchestrator

from pipelines.interrupts import held_back
from pipelines.loop import iterate
from pipelines.terminal import ERROR, Terminal

GRACE_SECONDS = 30
"""How long a step may clean up, and a training write a checkpoint, after it was told to stop: as in a pod."""

KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""How a process and a container end that the system killed, for want of memory for example."""


@dataclass
class StepRun:
    """One step's process or container."""

    name: str
    image: str
    folder: Path
    """Where its artifacts go."""
    start: float = field(default_factory=time.monotonic)
    end: float = 0.0
    code: int | None = None
    error: str = ""
    stop: Callable[[], None] | None = None
    """Ends it, and returns when it has ended; None while there is nothing to end."""
    stopped: bool = False
    """Whether it was ended for another's sake."""

    @property
    def seconds(self) -> float:
        return self.end - self.start


Execute = Callable[[list[str], Mapping[str, str], StepRun, Terminal], None]
"""Runs a step's command to its end, with the variables that the pipeline sets; leaves code, error and a way to stop."""


class RunFailed(Exception):
    """A step ended with another exit code than 0; `step` says which and why."""

    def __init__(self, step: StepRun) -> None:
        super().__init__(f"{step.name}: {step.error or f'ended with exit code {step.code}'}")
        self.step = step


@dataclass
class Run:
    """A run's steps and the directory that holds their artifacts, `root/<step>/<output>`."""

    root: Path
    steps: list[StepRun] = field(default_factory=list)

    def metadata(self, step: str, output: str) -> dict[str, Any]:
        """What the step said of an output artifact."""
        said = json.loads((self.root / step / "executor_output.json").read_text())
        metadata: dict[str, Any] = said["artifacts"][output]["artifacts"][0]["metadata"]
        return metadata

    def read(self, step: str, output: str) -> dict[str, Any]:
        """An output artifact that is a JSON file."""
        content: dict[str, Any] = json.loads((self.root / step / output).read_text())
        return content


def run(package: Path, arguments: Mapping[str, Any], root: Path, terminal: Terminal, execute: Execute) -> Run:
    """Runs a compiled pipeline; artifacts go below `root`. Raises RunFailed with the step that failed."""
    steps: list[StepRun] = []  # in the order in which they began
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    pipeline = components.load_component_from_file(str(package))
    narration = io.StringIO()
    try:
        with _handling(steps, terminal, execute), _heard(narration), warnings.catch_warnings():
            # It warns of what means something only on a cluster, such as the tasks' display names.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"kfp\.local\.")
            pipeline(**arguments)
    except RuntimeError as error:
        failed = [step for step in steps if step.code and not step.stopped]
        if failed:
            raise RunFailed(min(failed, key=lambda step: step.end)) from None
        raise RuntimeError(f"{error}\n{narration.getvalue()}") from error
    return Run(steps[0].folder.parent, steps)


@contextlib.contextmanager
def _handling(steps: list[StepRun], terminal: Terminal, execute: Execute) -> Iterator[None]:
    """Makes kfp.local run container components by `execute`, recorded in `steps`."""

    class Handler(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]
        def run(self) -> Any:
            command, folder = self.full_command, step_folder(self.full_command)
            step = StepRun(step_name(command, folder), self.image, folder)
            steps.append(step)
            terminal.line(step.name, "started")
            execute(command, self.env_vars, step, terminal)
            if step.code in KILLED and not step.stopped and PLACE.search(folder.parent.name):
                terminal.line(step.name, "was killed; started again")
                step.stop = None  # before the code: `halt` would take the dead process for one that runs
                step.code = None
                execute(command, self.env_vars, step, terminal)
            step.end = time.monotonic()
            terminal.line(step.name, ended(step))
            return status.Status.FAILURE if step.code else status.Status.SUCCESS

        def validate_image(self, image: str) -> None: ...

        def validate_not_container_component(self, full_command: list[str]) -> None: ...

        def validate_not_containerized_python_component(self, full_command: list[str]) -> None: ...

    orchestrator = enhanced_dag_orchestrator
    with (
        _replaced(subprocess_task_handler, "SubprocessTaskHandler", Handler),
        _replaced(orchestrator.ConditionEvaluator, "_resolve_pipeline_channel", staticmethod(channel_value)),
        _replaced(orchestrator, "_run_parallel_for_task", functools.partial(iterate, steps)),
    ):
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextlib.contextmanager
def _heard(narration: io.StringIO) -> Iterator[None]:
    """Keeps what kfp.local says of itself from the terminal.

    For that it exchanges `print` and the logger's handlers itself, but task by task, and tasks that run at once then
    put each other's back.
    """
    handler = logging.StreamHandler(narration)
    logging.getLogger().addHandler(handler)
    # A worker's thread may end after an interrupt and its sentence; without any handler logging would print its word.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        with (
            _replaced(logging_utils, "local_logger_context", contextlib.nullcontext),
            _replaced(logging_utils, "indented_print", contextlib.nullcontext),
            contextlib.redirect_stdout(narration),
        ):
            yield
    finally:
        logging.getLogger().removeHandler(handler)


def channel_value(channel: str, store: IOStore) -> Any:
    """What a condition compares: the output `decision` of the task `ingest` in `pipelinechannel--ingest-decision`.

    kfp.local looks for it among the pipeline's parameters, does not find it, and silently skips what depends on it.
    """
    name = channel.removeprefix("pipelinechannel--")
    for cut in (index for index, letter in enumerate(name) if letter == "-"):
        with contextlib.suppress(ValueError, KeyError):
            return store.get_task_output(name[:cut], name[cut + 1 :])
    return store.get_parent_input(name)


def ended(step: StepRun) -> str:
    """How a step ended, in a few words."""
    how = "stopped after" if step.stopped else "failed after" if step.code else "done in"
    return f"{how} {step.seconds:.1f} s"


PLACE = re.compile(r"-iteration-(\d+)-of-(\d+)$")
"""Ends the name of the folder of one of several iterations."""


def step_name(command: list[str], folder: Path) -> str:
    """`train` of `python3 -m components.train ...`; `shard 3/8` where it is one of several in a loop."""
    place = PLACE.search(folder.parent.name)
    return command[2].rpartition(".")[2] + (f" {place[1]}/{place[2]}" if place else "")


def step_folder(command: list[str]) -> Path:
    """Where kfp.local lets the step write: the run's directory, and the task's in it."""
    executor_input = json.loads(command[command.index("--executor-input") + 1])
    return Path(executor_input["outputs"]["outputFile"]).parent


def execute(command: list[str], variables: Mapping[str, str], step: StepRun, terminal: Terminal) -> None:
    """Runs a step's process to its end and shows what it prints; stops it when this process is told to stop."""
    # Not the pipeline's variables: they tell of the cluster's store and of its pods' cores.
    # PYTHONSAFEPATH: a folder named `components` where the user happens to stand must not be taken for ours.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    environment.setdefault("RETRAIN_PROGRESS_SECONDS", "0.5" if terminal.live else "5")
    with contextlib.ExitStack() as ending:
        with held_back():
            process = subprocess.Popen(
                [sys.executable, *command[1:]],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
            )
            ending.enter_context(process)
            ending.callback(stop, process)
        step.stop = functools.partial(stop, process)
        assert process.stdout
        for line in process.stdout:
            hear(line.rstrip("\n"), step, terminal)
        step.code = process.wait()


def hear(line: str, step: StepRun, terminal: Terminal) -> None:
    """Shows a line that a step printed; its error sentence is kept for the end."""
    if line.startswith(ERROR):
        step.error = line.removeprefix(ERROR).strip()
    else:
        terminal.line(step.name, line)


def stop(process: "subprocess.Popen[str]") -> None:
    """Ends a process that still runs: by SIGTERM, so that it leaves nothing half-written, or else by SIGKILL."""
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            try:
                process.terminate()
                process.wait(GRACE_SECONDS)
            finally:  # at a second Ctrl-C, too
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
