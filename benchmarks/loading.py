"""Reading images for training: JPEG against torchvision's ImageFolder, shards from S3 against one GET an image.

The photographs are synthetic: their spectrum falls as that of real ones does, so that they compress alike (a JPEG of
quality 90 has some two bits a pixel). The contestants take turns, so that whatever else the machine does hits all of
them alike; ratios are medians of the turns' own.

    python -m benchmarks.loading
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from minio import Minio
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from components.dataset.manifest import Manifest, Shard
from components.dataset.shards import write_shard
from components.dataset.splits import Cuts
from components.loader.batches import UNCHANGED, TrainingBatches
from components.loader.cache import Cache
from components.loader.crops import Crops
from components.loader.machine import cores
from components.memory import keep_freed_memory
from components.models.artifact import Classifier
from components.storage import DirectoryStore, Store, open_store

IMAGES = 5000
CLASSES = 10
SHARD_BYTES = 64 * 2**20
TURNS = 3
SIZES = ((256, 256, 2.0), (768, 1024, 3.0))
"""Height, width, and how many times as fast as ImageFolder we are to be."""
BATCH_SIZE = 64
WORKERS = 2
DECODED = 500
"""Images of a turn that only decodes."""
FALL = 1.35
"""How fast the amplitude of a photograph falls with frequency."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GETS = 20.0
"""How many times as fast as one GET an image shards are to come from S3."""

FOLDER = f"ImageFolder, DataLoader of {WORKERS} workers"
OURS = "retrain"
UNKEPT = "retrain, of data that no memory holds"
LIMIT = "decoding alone, from memory"
GET = "one GET an image"
SHARDS = "shards through the cache"

Contestant = Callable[[], int]
"""Reads images, once each, and returns how many."""


def main() -> None:
    keep_freed_memory()  # as the step does
    with tempfile.TemporaryDirectory() as folder:
        for height, width, goal in SIZES:
            room = Path(folder, f"{width}x{height}")
            paths = write_tree(room / "tree", height, width)
            manifest = write_dataset(DirectoryStore(room / "store"), paths)
            train(room, manifest, f"{width}x{height}", goal)
            if height == SIZES[0][0]:
                fetch(paths)
            shutil.rmtree(room)


# Training input


def train(room: Path, manifest: Manifest, size: str, goal: float) -> None:
    """JPEG files to normalised batches of crops, float32 [N, 3, 224, 224]."""
    paths = list((room / "tree").rglob("*.jpg"))
    print(f"\n{IMAGES} JPEG files of {size}, {sum(path.stat().st_size for path in paths) / IMAGES / 1000:.0f} kB each")
    contestants = {
        FOLDER: image_folder(room / "tree"),
        OURS: ours(room / "store", manifest),
        UNKEPT: ours(room / "store", manifest, kept=False),
        LIMIT: decode(paths),
    }
    first, *later = [{name: rate(turn) for name, turn in contestants.items()} for _ in range(TURNS + 1)]
    show(later, contestants)
    tell(later, OURS, FOLDER, goal)
    tell(later, UNKEPT, FOLDER, goal)
    print(f"{first[OURS] / first[FOLDER]:.2f} times in the first epoch, in which nothing is decoded yet")


def image_folder(tree: Path) -> Contestant:
    """As torchvision's documentation shows it."""
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    loader = DataLoader(datasets.ImageFolder(tree, transform), batch_size=BATCH_SIZE, shuffle=True, num_workers=WORKERS)
    return lambda: sum(len(labels) for _, labels in loader)


def ours(store: Path, manifest: Manifest, kept: bool = True) -> Contestant:
    """The loader, and the part of the network that normalises; unless `kept`, nothing that was decoded is kept."""
    batches = TrainingBatches(DirectoryStore(store), manifest, (224, 224, 3), BATCH_SIZE, 0, UNCHANGED)
    if not kept:
        batches._crops = Crops(0)
    normalise = Classifier(torch.nn.Identity(), MEAN, STD, width=224)
    epochs = iter(range(1000))
    return lambda: sum(len(normalise(images)) for images, _ in batches.epoch(next(epochs)))


def decode(paths: list[Path]) -> Contestant:
    """Nothing but decoding, all of each image, from memory, in threads."""
    contents = [path.read_bytes() for path in paths[:DECODED]]

    def turn() -> int:
        with ThreadPoolExecutor(cores()) as pool:
            return len(list(pool.map(simplejpeg.decode_jpeg, contents)))

    return turn


# Fetching


def fetch(paths: list[Path]) -> None:
    """Files of the smaller size from S3 to memory, by one thread an image and by the cache."""
    print(f"\n{IMAGES} of them from S3 on loopback")
    with s3_server() as client, tempfile.TemporaryDirectory() as folder:
        store = open_store("s3://images/store")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda path: client.fput_object("images", f"tree/{path.name}", str(path)), paths))
        manifest = write_dataset(store, paths, shard_bytes=16 * 2**20)
        print(f"{len(manifest.shards)} shards")
        some = [path.name for path in paths[:: IMAGES // 500]]

        def get() -> int:
            for name in some:
                response = client.get_object("images", f"tree/{name}")
                response.read()
                response.close()
                response.release_conn()
            return len(some)

        def shards() -> int:
            room = Path(tempfile.mkdtemp(dir=folder))
            cache = Cache(store, room)
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(cache.map, manifest.shards))
            cache.close()
            shutil.rmtree(room)
            return IMAGES

        contestants = {GET: get, SHARDS: shards}
        turns = [{name: rate(turn) for name, turn in contestants.items()} for _ in range(TURNS)]
        show(turns, contestants)
        tell(turns, SHARDS, GET, GETS)


@contextmanager
def s3_server() -> Iterator[Minio]:
    """A client of an S3 server in a process of its own, which the environment names, with a bucket `images`."""
    command = [sys.executable, "-c", S3_SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().strip()
            os.environ.update(
                AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
                AWS_REGION="us-east-1",
                AWS_ACCESS_KEY_ID="benchmark",
                AWS_SECRET_ACCESS_KEY="benchmark",
            )
            client = Minio(f"127.0.0.1:{port}", "benchmark", "benchmark", secure=False, region="us-east-1")
            client.make_bucket("images")
            yield client
        finally:
            server.terminate()


S3_SERVER = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
while True:
    time.sleep(1)
"""


# Turns


def rate(turn: Contestant) -> float:
    """Images a second of a turn."""
    start = time.perf_counter()
    count = turn()
    return count / (time.perf_counter() - start)


def show(turns: list[dict[str, float]], names: Iterable[str]) -> None:
    """Prints the medians."""
    for name in names:
        print(f"{name:<38} {statistics.median(turn[name] for turn in turns):8,.0f} images/s")


def tell(turns: list[dict[str, float]], name: str, other: str, goal: float) -> None:
    """Prints a promised ratio."""
    ratio = statistics.median(turn[name] / turn[other] for turn in turns)
    print(f"{ratio:.2f} times {other!r}: {name!r} (goal: at least {goal:g})")


# The images


def write_tree(folder: Path, height: int, width: int) -> list[Path]:
    """Writes JPEG files as class/file."""
    random = np.random.default_rng(0)
    canvases = [canvas(random, max(2048, 2 * width)) for _ in range(2)]
    paths = [folder / str(number % CLASSES) / f"{number:05d}.jpg" for number in range(IMAGES)]
    for number in range(CLASSES):
        (folder / str(number)).mkdir(parents=True)
    for path in paths:
        path.write_bytes(photograph(random, canvases[random.integers(2)], height, width))
    return paths


def canvas(random: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """A landscape of many colours, uint8 [size, size, 3]."""
    brightness, warmth, tint = (texture(random, size) for _ in range(3))
    colours = np.stack([brightness + 0.35 * warmth, brightness, brightness + 0.35 * tint], axis=2)
    return (45 * colours + 120).clip(0, 255).astype(np.uint8)


def texture(random: np.random.Generator, size: int) -> NDArray[np.float32]:
    """Noise whose amplitude falls with frequency, a little faster than that of scenes (Field, 1987), as lenses blur."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    frequency[0, 0] = 1
    waves = frequency**-FALL * np.exp(2j * np.pi * random.random(frequency.shape))
    values = np.fft.irfft2(waves, s=(size, size))
    normalised: NDArray[np.float32] = ((values - values.mean()) / values.std()).astype(np.float32)
    return normalised


def photograph(random: np.random.Generator, canvas: NDArray[np.uint8], height: int, width: int) -> bytes:
    """A JPEG of a part of the canvas."""
    top, left = random.integers(canvas.shape[0] - height), random.integers(canvas.shape[1] - width)
    part = np.ascontiguousarray(canvas[top : top + height, left : left + width])
    return bytes(simplejpeg.encode_jpeg(part, quality=90, colorsubsampling="420"))


def write_dataset(store: Store, paths: list[Path], shard_bytes: int = SHARD_BYTES) -> Manifest:
    """The files in shards, all of them for training."""
    shards: list[Shard] = []
    some: list[Path] = []
    for path in [*paths, None]:
        if path is None or sum(each.stat().st_size for each in some) > shard_bytes:
            contents, labels = [each.read_bytes() for each in some], [each.parent.name for each in some]
            shards.append(write_shard(store, "train", contents, labels, None))
            some = []
        if path:
            some.append(path)
    classes = tuple(map(str, range(CLASSES)))
    return Manifest(
        classes=classes,
        encoding="encoded",
        shape=(None, None, 3),
        counts={"train": dict.fromkeys(classes, IMAGES // CLASSES)},
        mean=MEAN,
        std=STD,
        split_digests={},
        digest="",
        shards=tuple(shards),
        facts=(),
        cuts=Cuts(test=0, validation=0, by_class={}),
        parent=None,
        provenance={},
    )


if __name__ == "__main__":
    main()
