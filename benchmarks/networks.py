"""Networks on image files: the training loop against timm's train script and torchvision's reference, both as their
documentation has them, and against forward and backward alone.

All contestants train the same network of the same library with the same settings on the same JPEG files: batches of 64,
random resized crops that are flipped at random, SGD with Nesterov's momentum, smoothed labels. A turn is an epoch; the
contestants take turns, and ratios are medians of the turns' own. Where there is a GPU, ResNet-50 is measured on it.

    python -m benchmarks.networks
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.loss.cross_entropy import LabelSmoothingCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.flop_counter import FlopCounterMode
from torchvision import datasets, transforms

from benchmarks.loading import MEAN, STD, Contestant, canvas, photograph, rate, show, tell, write_dataset
from benchmarks.training import EPOCHS, alone, make_loop, ours
from components.dataset.manifest import Manifest
from components.loader.batches import UNCHANGED, TrainingBatches
from components.memory import keep_freed_memory
from components.models.artifact import Classifier, ModelConfig, build
from components.storage import DirectoryStore
from components.train.loop import Loop
from components.train.probe import compile_where_it_pays
from components.train.recipe import Recipe

NETWORKS = (("resnet18", 64), ("mobilenet_v2", 96))
"""And the side of the square images that they are given."""
IMAGES = 512
CLASSES = 10
SIDE = 256
"""Of the files."""
TURNS = 7
BATCH_SIZE = 64
WORKERS = 2
LEARNING_RATE = 0.01
RECIPE = Recipe(
    optimizer="sgd", momentum=0.9, weight_decay=1e-4, label_smoothing=0.1, schedule="cosine", precision="fp32"
)

GPU_IMAGES = 8192
GPU_BATCH_SIZE = 256
PEAKS = {"A100": 312e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "L40S": 362e12, "L4": 121e12}
"""Products and sums of bf16 a second, dense, by the makers' data sheets."""

OURS = "retrain"
TIMM = f"timm's train script, {WORKERS} workers"
TORCHVISION = f"torchvision's reference, {WORKERS} workers"
ALONE = "forward + backward alone"
RESIDENT = "the same step on a batch that is on the GPU"


def main() -> None:
    keep_freed_memory()  # as the step does
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        manifest = write_dataset(DirectoryStore(room / "store"), write_files(room / "tree", IMAGES))
        for name, side in NETWORKS:
            compare(name, side, room, manifest)
    if torch.cuda.is_available():
        on_gpu()
    else:
        print("\nresnet50 at 224x224 on a GPU: unmeasured, there is none here")


def write_files(tree: Path, count: int) -> list[Path]:
    """So many JPEG files as class/file, none the same."""
    random = np.random.default_rng(0)
    canvases = [canvas(random, 2048) for _ in range(2)]
    paths = [tree / str(number % CLASSES) / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(random, canvases[number % 2], SIDE, SIDE))
    return paths


# On a processor


def compare(name: str, side: int, room: Path, manifest: Manifest) -> None:
    """Prints images/s and the promised ratios."""
    threads = torch.get_num_threads()
    print(f"\n{name} at {side}x{side} from {IMAGES} JPEG files of {SIDE}x{SIDE}, {threads} threads", flush=True)
    shape = (side, side, 3)

    def fresh() -> Classifier:
        return make(name, shape)

    batches = TrainingBatches(DirectoryStore(room / "store"), manifest, shape, BATCH_SIZE, 0, UNCHANGED)
    contestants: dict[str, Contestant] = {
        OURS: ours(make_loop(room, fresh(), RECIPE, LEARNING_RATE, batches), IMAGES),
        TIMM: timm_script(fresh().network, room / "tree", side),
        TORCHVISION: torchvision_reference(fresh().network, room / "tree", side),
        ALONE: alone(fresh(), next(batches.epoch(0)), IMAGES),
    }
    first, *later = [{name: rate(turn) for name, turn in contestants.items()} for _ in range(TURNS + 1)]
    show(later, contestants)
    tell(later, OURS, TIMM, 1.2)
    tell(later, OURS, TORCHVISION, 1.2)
    tell(later, OURS, ALONE, 0.9)
    ratios = ", ".join(f"{first[OURS] / first[other]:.2f} times {other!r}" for other in (TIMM, TORCHVISION, ALONE))
    print(f"in the first epoch, in which nothing is decoded yet: {ratios}")


def make(name: str, shape: tuple[int, int, int]) -> Classifier:
    """A network with fresh weights, its images normalised."""
    classes = tuple(map(str, range(CLASSES)))
    return build(ModelConfig(name, {}, classes, shape, MEAN, STD, dataset="", training={}))


def timm_script(network: nn.Module, tree: Path, side: int) -> Contestant:
    """As timm's train.py goes without a GPU: its data set, loader, loss and optimizer, and its loop's work a batch.

    Source: huggingface/pytorch-image-models, train.py; its colour jitter and random interpolation are turned off, so
    that all do the same.
    """
    dataset = create_dataset("", root=str(tree), split="train", is_training=True, batch_size=BATCH_SIZE)
    loader = create_loader(
        dataset,
        input_size=(3, side, side),
        batch_size=BATCH_SIZE,
        is_training=True,
        color_jitter=None,  # type: ignore[arg-type]
        interpolation="bilinear",
        num_workers=WORKERS,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )
    weight_decay, momentum = RECIPE.weight_decay, RECIPE.momentum
    optimizer = create_optimizer_v2(network, opt="sgd", lr=LEARNING_RATE, weight_decay=weight_decay, momentum=momentum)
    criterion = LabelSmoothingCrossEntropy(RECIPE.label_smoothing)  # type: ignore[no-untyped-call]

    def turn() -> int:
        network.train()
        count, total = 0, 0.0
        for images, labels in loader:
            loss = criterion(network(images), labels)
            total += loss.item() * len(labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(labels)
        return count

    return turn


def torchvision_reference(network: nn.Module, tree: Path, side: int) -> Contestant:
    """As the reference training for classification goes: ImageFolder, its preset's transforms, accuracy at 1 and 5.

    Source: pytorch/vision, references/classification, train.py and presets.py.
    """
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(side, interpolation=transforms.InterpolationMode.BILINEAR, antialias=True),
            transforms.RandomHorizontalFlip(0.5),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(MEAN, STD),
        ]
    )
    dataset = datasets.ImageFolder(tree, transform)
    loader = DataLoader(dataset, BATCH_SIZE, sampler=RandomSampler(dataset), num_workers=WORKERS)
    momentum, weight_decay = RECIPE.momentum, RECIPE.weight_decay
    optimizer = SGD(network.parameters(), LEARNING_RATE, momentum, weight_decay=weight_decay, nesterov=True)
    criterion = nn.CrossEntropyLoss(label_smoothing=RECIPE.label_smoothing)

    def turn() -> int:
        network.train()
        count, right, total = 0, [0.0, 0.0], 0.0
        for images, labels in loader:
            logits = network(images)
            loss = criterion(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            found = hits(logits, labels)
            right = [before + now.item() for before, now in zip(right, found, strict=True)]
            total += loss.item() * len(labels)
            count += len(labels)
        return count

    return turn


@torch.inference_mode()
def hits(logits: Tensor, labels: Tensor) -> list[Tensor]:
    """How many labels are the first, and among the first five, of what the network says."""
    among = logits.topk(5).indices == labels.unsqueeze(1)
    return [among[:, :count].sum() for count in (1, 5)]


# On a GPU


def on_gpu() -> None:
    """Prints images/s of ResNet-50, the share of the card's peak, and that of what it does without the loader."""
    device, shape = torch.device("cuda"), (224, 224, 3)
    print(f"\nresnet50 at 224x224 on {torch.cuda.get_device_name(device)}, bf16, batch {GPU_BATCH_SIZE}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        store = DirectoryStore(room / "store")
        manifest = write_dataset(store, write_files(room / "tree", GPU_IMAGES))
        batches = TrainingBatches(store, manifest, shape, GPU_BATCH_SIZE, 0, UNCHANGED, device=device)
        loop = make_loop(room, make("resnet50", shape).to(device), RECIPE, LEARNING_RATE, batches, precision="bf16")
        images, labels = next(batches.epoch(0))
        operations = count_operations(loop, images[:8], labels[:8]) / 8
        contestants = {OURS: awaited(ours(loop, GPU_IMAGES)), RESIDENT: awaited(resident(loop, images, labels))}
        for wanted in ("off", "on"):
            print(compile_where_it_pays(loop.learner, wanted, shape, GPU_BATCH_SIZE, EPOCHS)[1] or "not compiled:")
            _, *later = [{name: rate(turn) for name, turn in contestants.items()} for _ in range(TURNS + 1)]
            show(later, contestants)
            tell(later, OURS, RESIDENT, 0.9)
            tell_share(statistics.median(turn[OURS] for turn in later) * operations)


def tell_share(operations: float) -> None:
    """Prints what part of the card's peak so many operations a second are."""
    card = torch.cuda.get_device_name()
    peak = next((peak for name, peak in PEAKS.items() if name in card), None)
    share = f"{operations / peak:.1%} of the card's peak" if peak else "the card's peak is not known here"
    print(f"{operations / 1e12:.1f} TFLOP/s, {share}")


def count_operations(loop: Loop, images: Tensor, labels: Tensor) -> int:
    """Products and sums of a step on these images."""
    with FlopCounterMode(display=False) as counter:
        loop.learner.learn(images, loop.learner.targets(labels), len(labels))
    return int(counter.get_total_flops())


def resident(loop: Loop, images: Tensor, labels: Tensor) -> Contestant:
    """Steps on the same batch, as many as an epoch has."""

    def turn() -> int:
        for _ in range(GPU_IMAGES // GPU_BATCH_SIZE):
            loop.learner.learn(images, loop.learner.targets(labels), len(labels))
        return GPU_IMAGES

    return turn


def awaited(turn: Contestant) -> Contestant:
    """The same, until the GPU has done it."""

    def whole() -> int:
        count = turn()
        torch.cuda.synchronize()
        return count

    return whole


if __name__ == "__main__":
    main()
