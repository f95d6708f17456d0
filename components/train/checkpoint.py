"""What a training needs to go on after it was ended, kept in the store while it runs.

    training/IDENTITY/checkpoints/00001200-9f86d081884c7d65.safetensors

The number is that of batches done; the digits start the SHA-256 of the file, so that a damaged one is known without
another file beside it. Tensors are safetensors', everything else is JSON in their header: no pickle.
"""

import hashlib
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from components.step import StepError, UserError
from components.storage import NotFound, Store

KEPT = 3
"""Checkpoints; older ones are removed."""
DIGITS = 16
NAME = re.compile(rf"(\d+)-([0-9a-f]{{{DIGITS}}})\.safetensors")

State = dict[str, Any]
"""Nested dicts and lists of tensors, numbers, strings, booleans and None; the keys of dicts may be whole numbers."""


class Checkpoints:
    """The checkpoints of a training, each written while it goes on, and there as a whole or not at all."""

    def __init__(self, store: Store, prefix: str, minutes: float) -> None:
        """`minutes` lie between two of them, at least; `prefix` ends with a slash."""
        self.store, self.prefix, self.seconds = store, prefix, 60 * minutes
        self._last = time.monotonic()
        self._writing: threading.Thread | None = None
        self._written = False
        self._damaged: set[str] = set()

    @property
    def due(self) -> bool:
        """Whether it is time for one, and the one before is written."""
        return time.monotonic() - self._last >= self.seconds and not (self._writing and self._writing.is_alive())

    def save(self, batches: int, state: State) -> None:
        """Copies the state as it is now, and writes it in a thread of its own; where the store fails, that is said."""
        self.wait()
        self._last = time.monotonic()
        tensors, form = _take_apart(state)
        self._writing = threading.Thread(target=self._write, args=(batches, tensors, form), name="checkpoint")
        self._writing.start()

    def wait(self) -> bool:
        """Until the last one is written; whether the store has it."""
        if self._writing:
            self._writing.join()
        return self._written

    def latest(self) -> State | None:
        """The newest that is whole; None where there is none. Damaged ones are named and passed over.

        Raises StepError or UserError where the store cannot be read: what it holds may be whole.
        """
        for key, digest in reversed(list(self._listed())):
            try:
                return self._read(key, digest)
            except (NotFound, SafetensorError, ValueError, KeyError) as error:
                _say(f"warning: checkpoint {key} is damaged or gone ({error}); the one before is taken")
                self._damaged.add(key)
        return None

    def clear(self) -> None:
        """Removes them all: the training is done."""
        self.wait()
        self._remove(kept=0)

    def _write(self, batches: int, tensors: dict[str, Tensor], form: str) -> None:
        self._written = False
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "state.safetensors")
                safetensors.torch.save_file(tensors, path, {"form": form})
                self.store.write(f"{self.prefix}{batches:08d}-{_sha256(path)}.safetensors", path)
        except (StepError, UserError, OSError, SafetensorError) as error:  # the last where the disk is full
            _say(f"warning: no checkpoint after {batches:,} batches ({error}); the training goes on")
        else:
            self._written = True
            self._remove(KEPT)

    def _remove(self, kept: int) -> None:
        """All but the newest, and the damaged ones, which would be taken for the newest of all."""
        try:
            keys = sorted((key for key, _ in self._listed()), key=lambda key: key not in self._damaged)
            whole = len(keys) - len(self._damaged & set(keys))
            for key in keys[: len(keys) - min(kept, whole)]:
                self.store.remove(key)
        except (StepError, UserError, OSError) as error:
            _say(f"warning: old checkpoints below {self.prefix} were not removed ({error})")

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Keys, in the order of batches, and what their SHA-256 starts with."""
        for key in self.store.keys(self.prefix):
            if found := NAME.fullmatch(key.removeprefix(self.prefix)):
                yield key, found[2]

    def _read(self, key: str, digest: str) -> State:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "state.safetensors")
            self.store.fetch(key, path)
            if _sha256(path) != digest:
                raise ValueError("not the SHA-256 in its name")
            with safe_open(path, framework="pt") as file:
                form = json.loads(file.metadata()["form"])
            state: State = _put_together(form, safetensors.torch.load_file(path))
            return state


def _take_apart(state: State) -> tuple[dict[str, Tensor], str]:
    """Copies of the tensors, and as JSON the form in which they were found."""
    tensors: dict[str, Tensor] = {}

    def walk(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            tensors[name] = value.detach().to("cpu", copy=True).contiguous()
            return {"tensor": name}
        if isinstance(value, dict):
            return {"items": [[key, walk(item)] for key, item in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [walk(item) for item in value]}
        return value

    return tensors, json.dumps(walk(state))


def _put_together(form: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(form, dict):
        return form
    if "tensor" in form:
        return tensors[form["tensor"]]
    if "list" in form:
        return [_put_together(item, tensors) for item in form["list"]]
    return {key: _put_together(item, tensors) for key, item in form["items"]}


def random_state(device: torch.device) -> State:
    """Of PyTorch's global generators, from which dropout and the like draw on this device."""
    state: State = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def restore_random_state(state: State, device: torch.device) -> None:
    """Takes on what `random_state` gave, on whatever device."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
