"""What is told of a training: in lines, in the store, and when it goes wrong."""

import math
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.progress import FORMAT
from components.step import StepError, UserError
from components.storage import DirectoryStore, S3Store, Store
from components.train import board, journal, pace, usage
from components.train.events import Events
from tests.components.train import course
from tests.components.train.course import BATCHES, EPOCHS, PREFIX, learn, row
from tests.components.train.test_live import text
from tests.servers.s3 import FaultyS3

PAGE = f"{PREFIX}/live.html"
WHOLE = range(1, EPOCHS * BATCHES + 1)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "PAGE_SECONDS", 0.01)
    monkeypatch.setattr(pace, "SHORTEST_SECONDS", 0.0)


def page(store: Store) -> str:
    return text(store.read(PAGE).decode())


def scalars(store: Store, tag: str) -> dict[int, Any]:
    """What TensorBoard reads: values by step; none is there twice."""
    events = EventAccumulator(f"{store.uri}/{PREFIX}/tensorboard")
    events.Reload()
    found = events.Scalars(tag)
    assert len(found) == len({one.step for one in found})
    return {one.step: pytest.approx(one.value) for one in found}


def test_a_training_leaves_a_page_and_tensorboards_curves(any_store: Store) -> None:
    with course.journal(any_store) as told:
        told.note("batch size 32, as asked for")
        learn(told, WHOLE)
    assert "Finished: epoch 4 of 4" in page(any_store)
    assert "Best accuracy 92.50 % after epoch 4" in page(any_store)
    assert "batch size 32, as asked for" in page(any_store)
    assert "Finished: epoch 4 of 4" in text(told.page())
    if isinstance(any_store, DirectoryStore):  # from S3: test_events
        assert scalars(any_store, "train/loss") == {step: 2 / step for step in WHOLE}
        assert scalars(any_store, "train/learning_rate") == dict.fromkeys(WHOLE, 0.01)
        assert scalars(any_store, "train/images_per_second").keys() == {*WHOLE}
        assert scalars(any_store, "train/data_wait").keys() == {*WHOLE}
        ends = {epoch * BATCHES: epoch for epoch in range(1, EPOCHS + 1)}
        assert scalars(any_store, "validation/loss") == {step: 1.2 / epoch for step, epoch in ends.items()}
        assert scalars(any_store, "validation/accuracy") == {step: 1 - 0.3 / epoch for step, epoch in ends.items()}


def test_the_page_is_there_while_the_training_runs(store: DirectoryStore) -> None:
    with course.journal(store) as told:
        learn(told, range(1, 16))
        while "Running: epoch 2 of 4, 38%" not in (page(store) if store.exists(PAGE) else ""):
            told.board.wake()
        assert 'http-equiv="refresh"' in store.read(PAGE).decode()
    assert 'http-equiv="refresh"' not in store.read(PAGE).decode()


@pytest.mark.parametrize("killed", [True, False])
def test_a_training_that_is_taken_up_again_is_told_as_one(store: DirectoryStore, killed: bool) -> None:
    """Its last checkpoint was written after batch 17; the killed one told nothing of its end."""
    before = course.journal(store)
    learn(before, range(1, 27))
    if not killed:
        before.close(SystemExit(143))
        assert "Stopped: epoch 3 of 4, 65% It was told to stop. Started again, it goes on" in page(store)
    before.board.close()  # as far as it had come when it was killed
    with course.journal(store, curve=[row(1)], done=17) as after:
        learn(after, range(18, EPOCHS * BATCHES + 1))
    assert scalars(store, "train/loss") == {step: 2 / step for step in WHOLE}
    assert scalars(store, "validation/accuracy").keys() == {10, 20, 30, 40}
    assert [point.step for point in after.board.points] == [*WHOLE]
    everything = Events(store, f"{PREFIX}/tensorboard").resume(EPOCHS * BATCHES, lambda told: True)
    assert len(everything) == EPOCHS * BATCHES + EPOCHS  # also for who does not know TensorBoard's marks of a restart
    assert "Finished: epoch 4 of 4" in page(store)


def test_epochs_that_were_not_yet_in_the_store_are_told_by_who_goes_on(store: DirectoryStore) -> None:
    with course.journal(store, curve=[row(1), row(2)], done=20) as told:
        learn(told, range(21, 41))
    assert scalars(store, "validation/accuracy").keys() == {10, 20, 30, 40}
    assert "Best accuracy 92.50 %" in page(store)


def test_what_is_left_is_told_from_where_the_training_goes_on(store: DirectoryStore) -> None:
    with course.journal(store, curve=[row(1), row(2)], done=20) as told:
        assert told.progress.share() == 0.5
        assert "Running: epoch 2 of 4, 50%" in text(told.page())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StepError("loss is nan in epoch 2/4, batch 5, at learning rate 0.01"), "Failed: {} loss is nan in epoch 2/4,"),
        (UserError("batch_size must be at least 1, not 0"), "Failed: {} batch_size must be at least 1, not 0"),
        (MemoryError("no room"), "Failed: {} MemoryError: no room"),
        (KeyboardInterrupt(), "Stopped: {} It was told to stop."),
        (SystemExit(143), "Stopped: {} It was told to stop."),
    ],
)
def test_the_page_says_what_a_training_ended_with(store: DirectoryStore, error: BaseException, said: str) -> None:
    def end() -> None:
        with course.journal(store) as told:
            learn(told, range(1, 16))
            raise error

    with pytest.raises(type(error)):
        end()
    assert said.format("epoch 2 of 4, 38%") in page(store)


def test_lines_for_people(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(usage, "resident_mib", lambda: 1812)
    with course.journal(store) as told:
        told.note("batch size 32, as asked for")
        told.note("batch size 32, as asked for")
        learn(told, WHOLE)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"the curves as they grow: {store.uri}/{PAGE}",
        "batch size 32, as asked for",
        *(
            f"epoch {epoch}/4: train loss {1 / epoch:.4f}, validation accuracy {1 - 0.3 / epoch:.2%}, "
            f"learning rate {0.01 / epoch:.2g}, 12.5 s, 2% of it waiting for data"
            for epoch in range(1, 5)
        ),
    ]
    (line,) = err.splitlines()
    assert line.startswith("progress: 100%, ")
    assert ", 0 s left, epoch 4/4, loss 0.0500, learning rate 0.01, data wait " in line
    assert line.endswith(", memory 1,812 MiB")


def test_lines_for_programs(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv(FORMAT, "logfmt")
    with course.journal(store) as told:
        told.note("batch size 32, as asked for")
        learn(told, WHOLE)
    out, err = capsys.readouterr()
    assert out.splitlines()[:3] == [
        f"page location={store.uri}/{PAGE}",
        'note text="batch size 32, as asked for"',
        "epoch epoch=1/4 train_loss=1 validation_loss=1.2 validation_accuracy=0.7 learning_rate=0.01 data_wait=0.02 "
        "seconds=12.5",
    ]
    assert err.startswith("progress done=100% images_per_second=")
    assert " eta_seconds=0 epoch=4/4 loss=0.0500 learning_rate=0.01 data_wait=" in err


def test_hints_are_said_once(store: DirectoryStore, capsys: Any) -> None:
    with course.journal(store) as told:
        for epoch in (1, 2, 3):
            told.epoch(row(epoch, validation_accuracy=0.5))
    assert capsys.readouterr().out.count("hint: after epoch") == 1
    assert page(store).count("after epoch 1 the validation accuracy, 50.0%, is no better") == 1
    with course.journal(store, curve=[row(1, validation_accuracy=0.5)], done=10) as again:
        again.epoch(row(2, validation_accuracy=0.5))
    assert "hint:" not in capsys.readouterr().out
    assert "after epoch 1 the validation accuracy" in page(store)


def test_a_loader_that_limits_is_noticed_when_things_have_settled(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with course.journal(store) as told:
        for step in range(1, 31):
            now[0] += 3
            told.batch((step - 1) // BATCHES + 1, (step - 1) % BATCHES + 1, 32, 0.5, 0.01, 1.2 * step)
            assert bool(told.hints) == (3 * step >= journal.SETTLED_SECONDS)
    assert "hint: 40% of the time is spent waiting for images" in capsys.readouterr().out


def test_an_idle_gpu_is_noticed(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(usage, "gpu_percent", lambda: 17)
    monkeypatch.setattr(journal, "SETTLED_SECONDS", 0.0)
    monkeypatch.setenv("RETRAIN_PROGRESS_SECONDS", "0")
    with course.journal(store) as told:
        told.pace.waited_seconds = 0.0
        for step in range(1, 9):
            told.batch(1, step, 32, 0.5, 0.01, 0.0)
    out, err = capsys.readouterr()
    assert out.count("hint: the GPU computes only 17 % of the time") == 1
    assert err.splitlines()[0].endswith("GPU 17%")


def test_a_loss_that_is_no_number_breaks_no_curve(store: DirectoryStore) -> None:
    with course.journal(store) as told:
        course.batch(told, 1)
        told.batch(1, 2, 32, math.nan, 0.01, 0.0)
        course.batch(told, 3)
    assert "Finished" in page(store)


def test_the_page_is_there_from_the_beginning(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "PAGE_SECONDS", 3600.0)
    told = course.journal(store)
    for _ in range(1000):
        if store.exists(PAGE):
            break
        time.sleep(0.01)
    assert "Running: epoch 1 of 4, 0%" in page(store)
    told.close()


def test_a_loss_that_cannot_be_fetched_hides_no_error(store: DirectoryStore) -> None:
    class Lost:
        """As on a GPU that has failed."""

        def __radd__(self, other: float) -> float:
            raise RuntimeError("CUDA error: device-side assert triggered")

    def end() -> None:
        with course.journal(store) as told:
            lost: Any = Lost()
            told.batch(1, 1, 32, 0.5, 0.01, 0.0)
            told.pace._enough = 100
            told.batch(1, 2, 32, lost, 0.01, 0.0)
            raise StepError("a shard is damaged")

    with pytest.raises(StepError, match="a shard is damaged"):
        end()
    assert "Failed: epoch 1 of 4, 5% a shard is damaged" in page(store)


# A store that fails.


def test_a_store_that_cannot_be_written_costs_a_line(tmp_path: Path, capsys: Any) -> None:
    in_the_way = tmp_path / "store"
    in_the_way.touch()
    with course.journal(DirectoryStore(in_the_way)) as told:
        learn(told, WHOLE)
    assert len(told.board.points) == len(WHOLE)
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert warning.startswith("warning: what there is to see of the training cannot be written; it goes on. store ")


@pytest.fixture
def faulty(s3_server: str, s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("components.storage.connection.ATTEMPTS", 1)
    with FaultyS3(s3_server) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


def bucket() -> S3Store:
    made = S3Store("s3://live/prefix")
    if not made.client.bucket_exists("live"):
        made.client.make_bucket("live")
    return made


@pytest.mark.slow
def test_what_a_store_missed_it_gets_when_it_is_back(faulty: FaultyS3, capsys: Any) -> None:
    store = bucket()
    faulty.fail(403, "AccessDenied", times=10**9)
    told = course.journal(store)
    learn(told, range(1, 31))
    while not told.board._warned:
        told.board.wake()
    faulty.faults.clear()
    learn(told, range(31, 41))
    told.close()
    assert scalars(store, "train/loss") == {step: 2 / step for step in WHOLE}
    assert "Finished: epoch 4 of 4" in page(store)
    out = capsys.readouterr().out
    assert out.count("warning: what there is to see of the training cannot be written") == 1
    assert "AccessDenied" in out


@pytest.mark.slow
def test_a_store_that_does_not_answer_is_not_waited_for_long(
    faulty: FaultyS3, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    store = bucket()
    monkeypatch.setattr(board, "CLOSING_SECONDS", 0.2)
    faulty.stall(1.0, times=10**9)
    with course.journal(store) as told:
        learn(told, WHOLE)
    assert told.board._thread.is_alive()
    assert "did not answer for 0 s" in capsys.readouterr().out
    faulty.faults.clear()
    told.board._thread.join()
