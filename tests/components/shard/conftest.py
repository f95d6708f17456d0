"""Trees of images, and plans for them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.dataset.plan import Plan, chunk_key, encode, plan_key
from components.dataset.splits import Cuts
from components.source import open_source
from components.storage import Store, open_store
from tests.components.dataset.pictures import jpeg, png

CUTS = Cuts(0.2, 0.4, {})
DIGEST = "d" * 64

Planned = Callable[..., Plan]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Forty images of two classes, none the same, all small."""
    root = tmp_path / "tree"
    for number in range(40):
        path = (
            root / ("cat" if number % 2 else "dog") / (f"{number:02d}.png" if number % 5 == 0 else f"{number:02d}.jpg")
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((png if number % 5 == 0 else jpeg)(40, 60, seed=number))
    return root


def planned(store: Store, source: Path, per_chunk: int, parent: str | None = None, max_pixels: int = 10**6) -> Plan:
    """Writes a plan whose chunks are of so many pieces."""
    opened = open_source(str(source))
    pieces = list(opened.pieces())
    chunks = [pieces[start : start + per_chunk] for start in range(0, len(pieces), per_chunk)]
    plan = Plan(
        digest=DIGEST,
        source=str(source),
        kind=opened.kind,
        shape=opened.shape,
        chunks=len(chunks),
        images=len(pieces) if opened.shape is None else None,
        bytes=sum(piece["bytes"] for piece in pieces),
        cuts=CUTS,
        parent=parent,
        max_pixels=max_pixels,
    )
    for number, chunk in enumerate(chunks):
        store.write(chunk_key(DIGEST, number), b"".join(json.dumps(piece).encode() + b"\n" for piece in chunk))
    store.write(plan_key(DIGEST), encode(plan))
    return plan


def contents(uri: str) -> dict[str, bytes]:
    """Everything in a store but plans and chunks; parts without the time they took."""
    store = open_store(uri)
    found = {key: store.read(key) for key in store.keys("") if "/plan.json" not in key and "/chunks/" not in key}
    return {key: _without_seconds(value) if "/parts/" in key else value for key, value in found.items()}


def _without_seconds(part: bytes) -> bytes:
    return json.dumps(json.loads(part) | {"seconds": 0}).encode()
