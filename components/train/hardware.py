"""What this machine has, and what is chosen for it where nothing was asked for."""

import math
from pathlib import Path

import torch

from components.dataset.manifest import Manifest
from components.loader.batches import SHARE
from components.loader.stream import Shape, decoding_threads
from components.models.artifact import Classifier, ModelConfig
from components.step import StepError
from components.train.checkpoint import State
from components.train.interface import FEWEST_IMAGES, Train
from components.train.learner import Learner
from components.train.probe import MOST_IMAGES, largest_batch
from components.train.ranks import Ranks
from components.train.recipe import Recipe, read_recipe

BATCH_SIZES = {"lenet5": 256}
"""Of networks whose recipe was found here."""
CPU_BATCH_SIZE = 64
"""Of the others: on a processor larger ones are no faster."""
SHARDED_BATCH_SIZE = 16
"""Of networks that are dealt to GPUs: whether they fit could be tried on all of them alone."""
LEAST_BATCHES = 10
"""In an epoch, however many images fit at once."""
RATES = {"adamw": 0.001, "sgd": 0.1}
"""The usual highest learning rates for batches of RATE_IMAGES; other optimizers have that of adamw."""
RATE_IMAGES = 256
LENET5_RATE = 0.006
"""Of LeNet-5 with adamw, chosen by the validation accuracy on MNIST."""


def choose(
    step: Train, recipe: Recipe, classifier: Classifier, config: ModelConfig, manifest: Manifest, ranks: Ranks
) -> State:
    """Precision, batch size and learning rate; `notes` says in sentences what is chosen, here and elsewhere."""
    device = classifier.scale.device
    precision = choose_precision(recipe, device)
    batch_size, notes = choose_batch_size(step, recipe, classifier, config, manifest, precision, ranks)
    rate = choose_rate(step, recipe, batch_size)
    height, width, _ = config.shape
    notes.append(
        f"batch size {batch_size}, images of {height}x{width}, learning rate {rate:.3g}, precision {precision}, "
        f"on {device}, decoding threads {decoding_threads(manifest)}"
    )
    chosen = {"batch_size": batch_size, "learning_rate": rate, "precision": precision, "compile": False}
    return chosen | {"processes": ranks.ranks, "notes": notes}


def choose_batch_size(
    step: Train,
    recipe: Recipe,
    classifier: Classifier,
    config: ModelConfig,
    manifest: Manifest,
    precision: str,
    ranks: Ranks,
) -> tuple[int, list[str]]:
    """Images a step on all ranks together; on GPUs as many as fit on each of them, which is said."""
    device, processes = classifier.scale.device, ranks.ranks
    if step.batch_size:
        return step.batch_size, []
    if step.architecture in BATCH_SIZES:
        return max(FEWEST_IMAGES, BATCH_SIZES[step.architecture] // processes) * processes, []
    if device.type == "cpu":
        return CPU_BATCH_SIZE * processes, []
    if processes > 1 and recipe.parallel == "fsdp":
        return SHARDED_BATCH_SIZE * processes, []

    def make() -> Learner:
        classes = len(config.classes)
        return Learner(
            classifier, recipe, classes=classes, batches=2, epochs=1, learning_rate=1e-9, precision=precision
        )

    most = max(FEWEST_IMAGES, min(MOST_IMAGES, manifest.images("train") // (LEAST_BATCHES * processes)))
    reserved = resident(manifest, config.shape, torch.cuda.mem_get_info(device)[0])
    fitting = ranks.least(largest_batch(classifier, make, config.shape, most, reserved))
    return fitting * processes, [f"{fitting} images fit into the memory of a GPU; no more than {most} were tried"]


def resident(manifest: Manifest, shape: Shape, room: int) -> int:
    """The bytes of images that will stay on a GPU on which so many are free."""
    splits = (
        ("train", "validation") if manifest.shape == shape else ("validation",)
    )  # others are cropped anew each time
    sizes = (manifest.images(split) * math.prod(shape) for split in splits)
    return sum(size for size in sizes if size <= room // SHARE)


def unused(device: torch.device) -> str:
    """Says that a GPU is here and not trained on; empty where that is not so."""
    if device.type != "cpu" or not torch.cuda.device_count():
        return ""
    return "trains on the processor, although a GPU is here; --gpus 1 trains on it"


def undivided(recipe: Recipe, ranks: Ranks) -> str:
    """Says that there is nobody to deal the weights out to; empty where that is not so."""
    return "parallel=fsdp does nothing in a single process" if recipe.parallel == "fsdp" and ranks.ranks == 1 else ""


def choose_device(step: Train, local_rank: int) -> torch.device:
    """Where to train. Raises StepError where a GPU was asked for and is not there: never silently on the CPU."""
    if step.gpus == "0":
        return torch.device("cpu")
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found < int(step.gpus):
        raise StepError(
            f"train asked for {step.gpus} {step.gpu_type} and PyTorch {torch.__version__} sees {found or 'none'}; "
            "check the node's driver and the image's torch, or ask for --gpus 0"
        )
    # Who asks for fp32 gets all of its digits; PyTorch's own default for convolutions has fewer.
    digits = "ieee" if read_recipe(step.recipe).precision == "fp32" else "tf32"
    torch.backends.cuda.matmul.fp32_precision = digits
    torch.backends.cudnn.conv.fp32_precision = digits  # type: ignore[attr-defined]
    return torch.device("cuda", local_rank)


def choose_precision(recipe: Recipe, device: torch.device) -> str:
    """bf16 where the hardware multiplies it faster than fp32, fp16 on older GPUs, unless the recipe says it."""
    if recipe.precision != "auto":
        return recipe.precision
    if device.type == "cpu":
        return "bf16" if _has_amx() else "fp32"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16"
    return "fp16" if torch.cuda.get_device_capability(device) >= (7, 0) else "fp32"


def choose_rate(step: Train, recipe: Recipe, batch_size: int) -> float:
    """The highest learning rate; SGD's grows with the batch (Goyal et al., 2017), Adam's with its root."""
    if step.learning_rate:
        return step.learning_rate
    if step.architecture == "lenet5" and recipe.optimizer == "adamw":
        return LENET5_RATE
    larger = batch_size / RATE_IMAGES
    return RATES.get(recipe.optimizer, RATES["adamw"]) * (larger if recipe.optimizer == "sgd" else larger**0.5)


def _has_amx() -> bool:
    """Whether the processor multiplies matrices of bf16 in tiles; without that bf16 is slower than fp32."""
    try:
        return " amx_bf16 " in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
