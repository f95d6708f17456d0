"""Small trees of images, and the steps that make datasets of them."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.dataset.manifest import Manifest, read_manifest
from components.ingest.ingest import ingest
from components.ingest.interface import Ingest
from components.plan.interface import Plan
from components.plan.plan import plan
from components.shard.interface import Shard
from components.shard.shard import shard
from components.storage import Store


def noise(seed: int, side: int = 16) -> bytes:
    """A PNG file that looks like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return png(pixels)


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def plant(root: Path, files: dict[str, bytes]) -> Path:
    """Writes files by path below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def classes(count: int = 12, names: tuple[str, ...] = ("cat", "dog"), seed: int = 0) -> dict[str, bytes]:
    """So many images of each class, without a split."""
    return {
        f"{name}/{index}.png": noise(seed + 1000 * number + index)
        for number, name in enumerate(names)
        for index in range(count)
    }


def split_classes(names: tuple[str, ...] = ("cat", "dog"), count: int = 4) -> dict[str, bytes]:
    """So many images of each class in each split."""
    return {
        f"{split}/{name}/{index}.png": noise(10_000 * place + 1000 * number + index)
        for place, split in enumerate(("train", "validation", "test"))
        for number, name in enumerate(names)
        for index in range(count)
    }


def prepare(source: Path, store: Store, folder: Path, workers: int = 1, **options: Any) -> str:
    """Plans and shards a source; returns the digest of the plan."""
    folder.mkdir(exist_ok=True)
    outputs: dict[str, Any] = {"plan": folder / "plan", "workers": folder / "workers"}
    plan(Plan(source=str(source), store=store.uri, ingest_workers=workers, **outputs, **options))
    digest = (folder / "plan").read_text()
    for worker in json.loads((folder / "workers").read_text()):
        shard(Shard(store=store.uri, plan=digest, worker=worker, workers=workers))
    return digest


def commit(plan: str, store: Store, folder: Path, **options: Any) -> dict[str, Any]:
    """Commits what was planned and sharded; returns what is said of the dataset, whose manifest is `folder`/dataset."""
    outputs: dict[str, Any] = {name: folder / name for name in ("dataset", "report", "decision")}
    return dict(ingest(Ingest(store=store.uri, plan=plan, **outputs, **options))["dataset"])


def make(source: Path, store: Store, folder: Path, limits: str = "", **options: Any) -> Manifest:
    """All the three steps; returns the manifest."""
    commit(prepare(source, store, folder, **options), store, folder, limits=limits)
    return read_manifest(folder / "dataset")
