"""Runs the compiled pipeline on this machine, each step a process of its own.

kfp.local does the work: it reads the YAML, orders the tasks, hands artifacts on. Its SubprocessRunner refuses container
components, so its task handler, private API of the pinned kfp, is replaced here and nowhere else.
"""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kfp import components, local
from kfp.local import status, subprocess_task_handler

from pipelines.terminal import ERROR, Terminal

GRACE_SECONDS = 10
"""How long a step may clean up after it was told to stop."""


@dataclass
class StepRun:
    """One step's process."""

    name: str
    seconds: float = 0.0
    code: int | None = None
    error: str = ""


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


def run(package: Path, arguments: Mapping[str, Any], root: Path, terminal: Terminal) -> Run:
    """Runs a compiled pipeline; artifacts go below `root`. Raises RunFailed with the step that failed."""
    steps: list[StepRun] = []
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    pipeline = components.load_component_from_file(str(package))
    narration = io.StringIO()
    try:
        with _handling(steps, terminal), contextlib.redirect_stdout(narration), warnings.catch_warnings():
            # It warns of what means something only on a cluster, such as the tasks' display names.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"kfp\.local\.")
            pipeline(**arguments)
    except RuntimeError as error:
        if steps and steps[-1].code:
            raise RunFailed(steps[-1]) from None
        raise RuntimeError(f"{error}\n{narration.getvalue()}") from error
    return Run(newest(root, pipeline.name), steps)


def newest(root: Path, name: str) -> Path:
    """The directory of the newest run of a pipeline; kfp.local ends its name with the time."""
    return max(root.glob(f"{name}-*"))


@contextlib.contextmanager
def _handling(steps: list[StepRun], terminal: Terminal) -> Iterator[None]:
    """Makes kfp.local run container components as processes, recorded in `steps`."""

    class Handler(subprocess_task_handler.SubprocessTaskHandler):  # type: ignore[misc]
        def run(self) -> Any:
            steps.append(StepRun(step_name(self.full_command)))
            terminal.line(steps[-1].name, "started")
            execute([sys.executable, *self.full_command[1:]], self.env_vars, steps[-1], terminal)
            terminal.line(steps[-1].name, ended(steps[-1]))
            return status.Status.FAILURE if steps[-1].code else status.Status.SUCCESS

        def validate_image(self, image: str) -> None: ...

        def validate_not_container_component(self, full_command: list[str]) -> None: ...

        def validate_not_containerized_python_component(self, full_command: list[str]) -> None: ...

    original = subprocess_task_handler.SubprocessTaskHandler
    subprocess_task_handler.SubprocessTaskHandler = Handler
    try:
        yield
    finally:
        subprocess_task_handler.SubprocessTaskHandler = original


def ended(step: StepRun) -> str:
    """How a step ended, in a few words."""
    return f"failed after {step.seconds:.1f} s" if step.code else f"done in {step.seconds:.1f} s"


def step_name(command: list[str]) -> str:
    """`train` of `python3 -m components.train ...`."""
    return command[2].rpartition(".")[2]


def execute(command: list[str], variables: Mapping[str, str], step: StepRun, terminal: Terminal) -> None:
    """Runs a step's process to its end and shows what it prints; stops it when this process is told to stop."""
    # PYTHONSAFEPATH: a folder named `components` where the user happens to stand must not be taken for ours.
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1", **variables}
    environment.setdefault("RETRAIN_PROGRESS_SECONDS", "0.5" if terminal.live else "5")
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
    )
    try:
        assert process.stdout
        for line in process.stdout:
            if line.startswith(ERROR):
                step.error = line.removeprefix(ERROR).strip()
            else:
                terminal.line(step.name, line.rstrip("\n"))
        step.code = process.wait()
    finally:
        stop(process)
        step.seconds = time.monotonic() - start


def stop(process: "subprocess.Popen[str]") -> None:
    """Ends a process that still runs: by SIGINT, so that it removes what is half-written, or else by SIGKILL."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
