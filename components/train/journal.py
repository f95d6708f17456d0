"""What people see of a training: lines, TensorBoard's curves, a page, and hints where something seems wrong."""

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from components.progress import Figure, Progress, say
from components.step import StepError, UserError
from components.storage import Store
from components.train import hints, usage
from components.train.board import Board
from components.train.events import Scalars
from components.train.live import Status, render
from components.train.pace import Pace

if TYPE_CHECKING:
    from torch import Tensor

SETTLED_SECONDS = 60.0
"""Of training, before it is judged whether it uses the machine well."""

Row = Mapping[str, Any]
"""An epoch of the learning curve, as train.py makes it."""


class Journal:
    """Tells of a training, on the rank that speaks; whatever the store does costs a warning at most.

        with Journal(store, "training/4f2a", title="lenet5", epochs=12, batches=211, images=54_000, ...) as journal:
            journal.note("precision is bf16: the processor has AMX")
            journal.batch(1, 1, 256, loss, learning_rate, batches.waited_seconds)
            journal.epoch(row)
        page = journal.page()

    Where the block ends with an error, the page says that the training failed, and why.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        title: str,
        epochs: int,
        batches: int,
        images: int,
        validation: Mapping[str, int],
        curve: Sequence[Row] = (),
        done: int = 0,
    ) -> None:
        """`batches` and `images`, of all ranks together, are those of an epoch; `validation` counts images by class.

        A training that is taken up again brings its `curve` so far, and how many batches are `done` in all.
        """
        self.title, self.epochs, self.batches, self.validation = title, epochs, batches, validation
        self.curve, self.notes = list(curve), list[str]()
        self.hints = dict(hints.of_curve(self.curve, validation))
        self.state, self.sentence = "running", ""
        self.figures: list[Figure] = []
        """As the last line of progress had them."""
        self.pace = Pace(epochs * batches, done)
        self.progress = Progress("", epochs * images, "images", done=done * images // batches, figures=self._figures)
        self._gpu: list[int] = []  # percent
        self.board = Board(store, prefix, self.page, done, [validated(row, batches) for row in self.curve])
        self.board.start()
        say("page", f"the curves as they grow: {self.board.location}", {"location": self.board.location})

    def batch(
        self, epoch: int, number: int, images: int, loss: "float | Tensor", learning_rate: float, waited_seconds: float
    ) -> None:
        """Tells of a batch; epochs, and the batches in each, are counted from 1; `images` are those of all ranks.

        `loss`, the mean over the batch, may lie on a GPU: it is fetched only when it is shown. `waited_seconds` are all
        since this process began, as the loader counts them.
        """
        if self.pace.advance((epoch - 1) * self.batches + number, images, loss, learning_rate, waited_seconds):
            self._point()
        if number == self.batches:
            self.pace.stop()
        self.progress.advance(images)

    def epoch(self, row: Row) -> None:
        """Tells of an epoch that is over and validated."""
        self.pace.go_on()
        self.curve.append(row)
        say("epoch", told(row, self.epochs), fields(row, self.epochs))
        self.board.add(validated(row, self.batches))
        for name, sentence in hints.of_curve(self.curve, self.validation):
            self._hint(name, sentence)
        self.board.wake()

    def note(self, sentence: str) -> None:
        """Says once what was chosen or found; the page lists it."""
        if sentence not in self.notes:
            self.notes.append(sentence)
            say("note", sentence)

    def page(self) -> str:
        """The page as it is now, HTML."""
        now = time.monotonic()
        return render(
            Status(
                title=self.title,
                state=self.state,
                sentence=self.sentence,
                epoch=self._epoch,
                epochs=self.epochs,
                batches=self.batches,
                share=self.progress.share(),
                seconds_left=self.progress.seconds_left(now),
                images_per_second=self.progress.speed(now),
                figures=tuple(self.figures),
                curve=tuple(self.curve),
                points=tuple(self.board.points),
                notes=tuple(self.notes),
                hints=tuple(self.hints.values()),
            )
        )

    def close(self, error: BaseException | None = None) -> None:
        """Has the last of it written; `error` is what the training ended with."""
        if error is None:  # after one, a loss that lies on a GPU may be out of reach
            self._point()
        self.state, self.sentence = ended(error)
        self.board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(error)

    @property
    def _epoch(self) -> int:
        """That of the newest batch."""
        return max(1, -(-self.pace.step // self.batches))

    def _point(self) -> None:
        if point := self.pace.point():
            self.board.add(point)
        if self.pace.seconds >= SETTLED_SECONDS:
            self._hint("waiting", hints.waiting(self.pace.waited_seconds / self.pace.seconds))

    def _figures(self) -> list[Figure]:
        """What a line of progress says besides how far and how fast it is."""
        self.figures = [
            Figure("epoch", f"{self._epoch}/{self.epochs}"),
            Figure("loss", f"{float(self.pace.loss):.4f}"),
            Figure("learning rate", f"{self.pace.learning_rate:.2g}"),
            Figure("data wait", f"{self.pace.data_wait:.0%}"),
            *usage.memory(),
        ]
        if (busy := usage.gpu_percent()) is not None:
            self.figures.append(Figure("GPU", f"{busy}%"))
            self._gpu.append(busy)
            if self.pace.seconds >= SETTLED_SECONDS and "waiting" not in self.hints:
                self._hint("idle", hints.idle(self._gpu))
        return self.figures

    def _hint(self, name: str, sentence: str | None) -> None:
        """Says once what seems wrong; None where nothing does."""
        if sentence and name not in self.hints:
            self.hints[name] = sentence
            say("hint", f"hint: {sentence}", {"about": name, "text": sentence})


def told(row: Row, epochs: int) -> str:
    """An epoch as people read it."""
    return (
        f"epoch {row['epoch']}/{epochs}: train loss {row['train_loss']:.4f}, "
        f"validation accuracy {row['validation_accuracy']:.2%}, learning rate {row['learning_rate']:.2g}, "
        f"{row['seconds']:.1f} s, {row['data_wait']:.0%} of it waiting for data"
    )


def fields(row: Row, epochs: int) -> dict[str, str]:
    """The same for logfmt."""
    return {name: f"{value:.5g}" for name, value in row.items()} | {"epoch": f"{row['epoch']}/{epochs}"}


def validated(row: Row, batches: int) -> Scalars:
    """What an epoch adds to the curves of TensorBoard."""
    values = {f"validation/{name}": row[f"validation_{name}"] for name in ("loss", "accuracy")}
    return Scalars(row["epoch"] * batches, values, time.time())


def ended(error: BaseException | None) -> tuple[str, str]:
    """The state after the training, and what there is to say of it."""
    if error is None:
        return "finished", ""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "stopped", "It was told to stop. Started again, it goes on from its last checkpoint."
    return "failed", str(error) if isinstance(error, UserError | StepError) else f"{type(error).__name__}: {error}"
