"""The `retrain` command: a thin layer over the library; its errors become sentences and exit codes here.

One module a command, or a family of them. What they need beyond click is imported when they run, so that `--help`
answers at once.
"""

import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from components.step import StepError, UserError
from pipelines.cli.compile import compile
from pipelines.cli.data import data
from pipelines.cli.doctor import doctor
from pipelines.cli.logs import logs
from pipelines.cli.lr_find import lr_find
from pipelines.cli.models import models
from pipelines.cli.predict import predict
from pipelines.cli.run import run
from pipelines.cli.schedule import schedule
from pipelines.cli.status import status
from pipelines.cli.submit import submit
from pipelines.cli.upload import upload


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""

    number = signal.SIGTERM


class HungUp(KeyboardInterrupt):
    """SIGHUP came: the terminal was closed."""

    number = signal.SIGHUP


def terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise HungUp if number == signal.SIGHUP else Terminated


class OneSentence(click.Group):
    """Turns the library's errors into one sentence on stderr and their exit code."""

    def invoke(self, context: click.Context) -> Any:
        signal.signal(signal.SIGTERM, terminate)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(signal.SIGHUP, terminate)  # kubectl and the steps would go on unseen
        try:
            return super().invoke(context)
        except (UserError, StepError) as error:
            fail(error, error.code)
        except KeyboardInterrupt as interrupt:
            number = getattr(interrupt, "number", signal.SIGINT)
            fail(str(interrupt) or "interrupted; nothing half-written was left in the store", 128 + number)


def fail(reason: object, code: int) -> NoReturn:
    click.echo(f"error: {reason}", err=True)
    sys.exit(code)


@click.group(cls=OneSentence, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="retrain")
def main() -> None:
    """Retrains image classifiers, again and again: on this machine, or on Kubeflow Pipelines."""


for command in (run, predict, data, models, lr_find, compile, upload, submit, status, logs, schedule, doctor):
    main.add_command(command)
