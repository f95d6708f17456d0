"""What the launching step and its workers hand each other arrives whole, or not at all."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from components.step import StepError, UserError
from components.storage import DirectoryStore, NotFound, Store
from components.train.interface import Train
from components.train.trainjob.exchange import Damaged, collect, deliver, receive, send

ID = "0123456789abcdef"
DONE = f"training/{ID}/result/done.json"


def step(room: Path, store: Store, **changes: object) -> Train:
    room.mkdir(exist_ok=True)
    (room / "manifest").write_text('{"classes": []}')
    paths = {"model": room / "model", "metrics": room / "metrics", "curves": room / "curves"}
    return replace(Train(dataset=room / "manifest", store=store.uri, **paths), **changes)  # type: ignore[arg-type]


def written(room: Path, store: Store) -> Train:
    """A step whose outputs are there."""
    found = step(room, store)
    found.model.mkdir()
    (found.model / "weights.safetensors").write_bytes(b"weights")
    (found.model / "deep").mkdir()
    (found.model / "deep" / "curve.json").write_text("[]")
    found.metrics.write_text("{}")
    found.curves.write_text("<html>")
    return found


def test_a_worker_gets_the_step_as_it_was_launched(any_store: Store, tmp_path: Path) -> None:
    launched = step(tmp_path / "a", any_store, epochs=3, learning_rate=0.5, bias=False, nodes=4, gpus="8")
    send(launched, any_store, ID)
    room = tmp_path / "b"
    room.mkdir()
    got = receive(any_store, ID, room)
    model, metrics, curves = (room / name for name in ("model", "metrics", "curves"))
    assert got == replace(launched, dataset=room / "dataset", model=model, metrics=metrics, curves=curves)
    assert got.dataset.read_text() == launched.dataset.read_text()


def test_a_training_that_nobody_has_begun_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=f"there is no training '{ID}' in .*; a train step with nodes > 1 begins it"):
        receive(store, ID, tmp_path)


def test_a_result_comes_back_byte_for_byte(any_store: Store, tmp_path: Path) -> None:
    worker = written(tmp_path / "worker", any_store)
    deliver(worker, any_store, ID, {"model": {"epochs": 3}, "metrics": {"loss": 0.5}})
    launched = step(tmp_path / "launched", any_store)
    assert collect(launched, any_store, ID) == {"model": {"epochs": 3}, "metrics": {"loss": 0.5}}
    assert (launched.model / "weights.safetensors").read_bytes() == b"weights"
    assert (launched.model / "deep" / "curve.json").read_text() == "[]"
    assert (launched.metrics.read_text(), launched.curves.read_text()) == ("{}", "<html>")


def test_a_result_is_none_before_all_of_it_is_written(
    store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = written(tmp_path / "worker", store)
    worker.curves.unlink()  # a full disk, say
    with pytest.raises(FileNotFoundError):
        deliver(worker, store, ID, {})
    with pytest.raises(NotFound):
        collect(step(tmp_path / "launched", store), store, ID)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        (f"training/{ID}/result/model/weights.safetensors", b"weightz"),
        (f"training/{ID}/result/metrics", b""),
        (DONE, b"{"),
        (DONE, b"[]"),
        (DONE, json.dumps({"files": {"metrics": "0"}, "metadata": {}}).encode()),
    ],
)
def test_a_damaged_result_is_named_and_nothing_of_it_is_written(
    key: str, content: bytes, store: DirectoryStore, tmp_path: Path
) -> None:
    deliver(written(tmp_path / "worker", store), store, ID, {})
    store.write(key, content)
    launched = step(tmp_path / "launched", store)
    with pytest.raises(Damaged):
        collect(launched, store, ID)
    assert [path.name for path in (tmp_path / "launched").iterdir()] == ["manifest"]


def test_a_file_of_the_result_that_is_gone_is_named(store: DirectoryStore, tmp_path: Path) -> None:
    deliver(written(tmp_path / "worker", store), store, ID, {})
    (store.root / f"training/{ID}/result/metrics").unlink()
    with pytest.raises(Damaged, match=f"training/{ID}/result/metrics is gone from "):
        collect(step(tmp_path / "launched", store), store, ID)


def test_a_name_that_leads_out_of_the_outputs_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    deliver(written(tmp_path / "worker", store), store, ID, {})
    done = json.loads(store.read(DONE))
    done["files"]["model/../../../escaped"] = done["files"]["metrics"]
    store.write(DONE, json.dumps(done).encode())
    with pytest.raises(UserError, match="must be a relative path"):
        collect(step(tmp_path / "launched", store), store, ID)
    assert not list(tmp_path.rglob("escaped"))
