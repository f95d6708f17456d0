"""Trains a classifier; read it from top to bottom."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components import registry
from components.code import code_digest
from components.dataset.manifest import Manifest, read_manifest
from components.loader.batches import UNCHANGED, OrderedBatches, TrainingBatches
from components.loader.stream import decoding_threads
from components.memory import keep_freed_memory
from components.models.artifact import Classifier, ModelConfig, adaptations, build, save
from components.models.networks import fitted_side
from components.step import Metadata, StepError, UserError, require
from components.storage import Store, aside, open_store
from components.train.augmentation import DISTORT, chain, policy
from components.train.checkpoint import Checkpoints, State, restore_random_state
from components.train.course import Course, Row
from components.train.hardware import choose, choose_device, undivided, unused
from components.train.interface import Train, check_batch_size
from components.train.journal import Journal
from components.train.learner import Learner, judge
from components.train.loop import Loop, check_loss
from components.train.probe import compile_where_it_pays
from components.train.ranks import Ranks, here, joined
from components.train.recipe import Recipe, read_recipe


def train(step: Train, deliver: Callable[[Metadata], None] = lambda metadata: None) -> Metadata:
    """Trains on the training split, judges on the validation split after each epoch, and writes the model.

    `deliver` takes it from there while a training that is ended can still go on from its checkpoints.

    On a processor the same seed, data and machine give bitwise the same weights, also where the training was ended and
    goes on from a checkpoint, unless `compile=auto` measures. Raises StepError, and writes no model, where the loss
    ceases to be a number or a shard is damaged.
    """
    keep_freed_memory()
    recipe = read_recipe(step.recipe)
    ranks = here()
    device = choose_device(step, ranks.local_rank)
    with joined(ranks, device):
        # data
        manifest = read_manifest(step.dataset)
        check_splits(manifest, ranks.ranks)
        store = open_store(step.store)
        config = describe(step, manifest)

        # what an attempt before this one has left
        folder = f"training/{identity(step, config, store)}/"
        checkpoints = Checkpoints(store, f"{folder}checkpoints/", step.checkpoint_minutes)
        state = latest(checkpoints, ranks)

        # model
        torch.manual_seed(step.seed)
        classifier = build(config)
        notes = [*adaptations(config, classifier), unused(device), undivided(recipe, ranks)]
        if state is None:
            notes.append(begin(step, classifier, config, store))
        with enough_memory(device, "the network and its optimizer"):
            classifier.to(device).to(memory_format=torch.channels_last)
            choices = state["choices"] if state else choose(step, recipe, classifier, config, manifest, ranks)
            check_share(step, choices, ranks)
            batches, validation = load(step, recipe, store, manifest, config, choices["batch_size"], device, ranks)
            learner = make_learner(step, recipe, classifier, manifest, len(batches), choices, ranks)
            course = resume(learner, state, step.seed)
        wanted = recipe.compile if state is None else "on" if choices["compile"] else "off"
        steps, count = step.epochs * len(batches), batches.count(0)
        with enough_memory(device, f"a batch of {choices['batch_size']}"):
            choices["compile"], note = compile_where_it_pays(learner, wanted, config.shape, count, steps)
        notes.append(note)

        # epochs
        told = journal(step, store, folder, manifest, batches, course, ranks)
        with told or nullcontext():
            announce(told, [*notes, *choices["notes"]], course)
            loop = Loop(learner, batches, course, step.epochs, told, checkpoints, choices)
            with loop.interruption:
                while not course.is_over(step.epochs, recipe.patience):
                    run_epoch(loop, validation)

        # results
        results = course.results(batches.images)
        training = facts(step, recipe, choices, classifier, manifest, ranks) | results
        config = dataclasses.replace(config, training=training)
        weights = course.best or learner.judged_state()
        said = metadata(config, results)
        if told:
            classifier = build(config)
            classifier.load_state_dict(weights)
            save(step.model, classifier, config, course.curve)
            write(step.metrics, json.dumps(results, indent=2) + "\n")
            write(step.curves, told.page())
            deliver(said)
            checkpoints.clear()
    return said


def describe(step: Train, manifest: Manifest) -> ModelConfig:
    """The config of the model to train; `training` is filled in when it is done."""
    lenet5 = {"activation": step.activation, "pooling": step.pooling, "bias": step.bias}
    return ModelConfig(
        architecture=step.architecture,
        options=lenet5 if step.architecture == "lenet5" else {},
        classes=manifest.classes,
        shape=input_shape(step, manifest),
        mean=manifest.mean,
        std=manifest.std,
        dataset=manifest.digest,
        training={},
    )


def check_splits(manifest: Manifest, processes: int) -> None:
    """Raises UserError where a process has less than two images to learn from, or none is there to judge by."""
    for split, least in (("train", 2 * processes), ("validation", 1)):
        if (found := manifest.images(split)) < least:
            raise UserError(
                f"the dataset has {found} images in its {split} split, and this training needs {least} at least; "
                "ingest more images, or cut the splits otherwise"
            )


def input_shape(step: Train, manifest: Manifest) -> tuple[int, int, int]:
    """Height, width and channels that the network is given. Raises UserError where raw pixels are to have another size.

    Image files are fitted to a square; raw pixels are taken as they are.
    """
    height, width, channels = manifest.shape
    if height and width and manifest.encoding == "raw":
        must = f"be 0 or {height}: the dataset holds raw pixels of {height}x{width}"
        require(step.image_size in (0, height), "image_size", step.image_size, must)
        return height, width, channels
    side = fitted_side(step.architecture, height, width, step.image_size)
    return side, side, channels


def begin(step: Train, classifier: Classifier, config: ModelConfig, store: Store) -> str:
    """Has the weights start as the step says, and says in a sentence what was found."""
    if step.start == "scratch":
        return ""
    from components.models.start import start

    return start(classifier, config, step.start, store, step.model_name)


def identity(step: Train, config: ModelConfig, store: Store) -> str:
    """What tells a training from others: 16 hexadecimal digits of the SHA-256 of all that decides its outcome.

    Not of how many processes it has: a training may go on with more or fewer of them.
    """
    names = ("epochs", "batch_size", "learning_rate", "recipe", "seed", "start")
    decisive = dataclasses.asdict(config) | {name: getattr(step, name) for name in names}
    decisive["code"] = code_digest()
    if step.start == "champion" and (champion := registry.champion(store, step.model_name)):
        decisive["champion"] = champion.digest
    if step.start == "pretrained":
        from components.models.start import pretrained_version

        decisive["pretrained"] = pretrained_version(step.architecture, store)
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def latest(checkpoints: Checkpoints, ranks: Ranks) -> State | None:
    """The newest checkpoint; None where there is none. Raises StepError where not all ranks have found the same."""
    state = checkpoints.latest()
    place = (state["course"]["epoch"], state["course"]["batch"]) if state else None
    if not ranks.everywhere(place == ranks.tell(place)):
        raise StepError("the processes have not found the same checkpoint in the store; start the training once more")
    return state


def check_share(step: Train, choices: State, ranks: Ranks) -> None:
    """Raises UserError where the ranks cannot share a batch, and says who chose its size if nobody asked for it."""
    try:
        check_batch_size(choices["batch_size"], ranks.ranks)
    except UserError as error:
        if step.batch_size:
            raise
        raise UserError(
            f"{error}: that was chosen when the number of processes was {choices['processes']}, and stands in the "
            "checkpoint of this training; go back to that number, or give a --batch-size, which begins another training"
        ) from None


def load(
    step: Train,
    recipe: Recipe,
    store: Store,
    manifest: Manifest,
    config: ModelConfig,
    batch_size: int,
    device: torch.device,
    ranks: Ranks,
) -> tuple[TrainingBatches, OrderedBatches]:
    """The training and the validation split."""
    changes = policy(recipe.augment if recipe.augment in ("trivial", "rand") else "none")
    here: dict[str, Any] = {"rank": ranks.rank, "ranks": ranks.ranks, "device": device}
    batches = TrainingBatches(
        *(store, manifest, config.shape, batch_size, step.seed),
        augment=UNCHANGED if recipe.augment == "none" else chain(DISTORT, changes),
        policy=changes,
        everywhere=ranks.everywhere,
        **here,
    )
    # What needs no gradient needs less memory, but 256 at once could still be too many where few fit in training.
    size = min(256, 2 * batch_size // ranks.ranks)
    return batches, OrderedBatches(store, manifest, "validation", config.shape, size, **here)


def make_learner(
    step: Train,
    recipe: Recipe,
    classifier: Classifier,
    manifest: Manifest,
    batches: int,
    choices: State,
    ranks: Ranks,
) -> Learner:
    """The learner for all epochs of so many batches."""
    weights = class_weights(manifest).to(classifier.scale.device) if recipe.class_weights == "balanced" else None
    return Learner(
        classifier,
        recipe,
        classes=len(manifest.classes),
        batches=step.epochs * batches,
        epochs=step.epochs,
        learning_rate=choices["learning_rate"],
        precision=choices["precision"],
        weights=weights,
        ranks=ranks,
    )


def class_weights(manifest: Manifest) -> Tensor:
    """How much each class weighs, float32 [K]: inversely to its images, and 1 in the mean over all images."""
    counts = torch.tensor([manifest.counts["train"][name] for name in manifest.classes], dtype=torch.float32)
    # A class without images does not count; its weight must be a number all the same: 0 times infinity is none.
    return counts.sum() / (counts.count_nonzero() * counts.clamp(min=1))


def resume(learner: Learner, state: State | None, seed: int) -> Course:
    """Where to begin: at the start, or where the checkpoint was written."""
    if state is None:
        # Ranks drop out other units; their weights were made alike.
        torch.manual_seed(seed + learner.ranks.rank)
        return Course()
    learner.restore(state["learner"])
    if learner.ranks.first:
        restore_random_state(state["random"], learner.device)
    else:
        torch.manual_seed(seed + learner.ranks.rank)
    return Course(**state["course"])


def journal(
    step: Train,
    store: Store,
    folder: str,
    manifest: Manifest,
    batches: TrainingBatches,
    course: Course,
    ranks: Ranks,
) -> Journal | None:
    """What tells of the training, on the rank that speaks."""
    if not ranks.first:
        return None
    return Journal(
        store,
        folder.rstrip("/"),
        title=f"{step.model_name}: {step.architecture}",
        epochs=step.epochs,
        batches=len(batches),
        images=batches.images,
        validation=manifest.counts["validation"],
        curve=course.curve,
        done=(course.epoch - 1) * len(batches) + course.batch,
    )


def announce(told: Journal | None, notes: list[str], course: Course) -> None:
    """Says once what was chosen and where the training begins."""
    if course.epoch > 1 or course.batch:
        notes = [*notes, f"goes on from a checkpoint after batch {course.batch} of epoch {course.epoch}"]
    for note in filter(None, notes):
        if told:
            told.note(note)


def run_epoch(loop: Loop, validation: OrderedBatches) -> None:
    """What is left of an epoch, and its validation."""
    learner, course = loop.learner, loop.course
    with enough_memory(learner.device, f"a batch of {loop.batches.batch_size}"):
        loop.run_epoch()
        learner.share_statistics()
        loss, accuracy = judge(learner.judged, loop.watched(validation), learner.ranks)
    check_loss(loss, f"after epoch {course.epoch}/{loop.epochs}", learner.learning_rate)
    loop.tick()
    row = course.finish_epoch(loss, accuracy, learner.learning_rate)
    if learner.recipe.patience and course.best_epoch == row["epoch"]:
        course.best = learner.judged_state()
    if loop.journal:
        loop.journal.epoch(row)


@contextmanager
def enough_memory(device: torch.device, what: str) -> Iterator[None]:
    """In which it is a StepError where the memory does not suffice for `what`."""
    try:
        yield
    except RuntimeError as error:
        # Of a processor's memory PyTorch has no class of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise StepError(
            f"the memory of {device} does not hold {what}; try a smaller --batch-size or --image-size, "
            "--recipe accumulate=2, or another --architecture"
        ) from None


def facts(step: Train, recipe: Recipe, choices: State, classifier: Classifier, manifest: Manifest, ranks: Ranks) -> Row:
    """What the model's config says of how it was trained, besides the results."""
    parameters = sum(parameter.numel() for parameter in classifier.parameters())
    chosen = {name: choices[name] for name in ("batch_size", "learning_rate", "precision", "compile")}
    device = classifier.scale.device
    threads = {"threads": torch.get_num_threads(), "decoding_threads": decoding_threads(manifest)}
    machine = {"torch": torch.__version__, "device": str(device), **threads}
    given = {"epochs": step.epochs, "seed": step.seed, "start": step.start, "parameters": parameters}
    told = {"recipe": step.recipe or "default", "recipe_in_full": dataclasses.asdict(recipe)}
    return given | chosen | told | {"processes": ranks.ranks} | machine


def metadata(config: ModelConfig, results: Row) -> Metadata:
    """What the UI shows of the artifacts."""
    names = ("epochs", "batch_size", "learning_rate", "seed", "parameters")
    trained = {name: config.training[name] for name in names}
    model = {"architecture": config.architecture, **config.options, "dataset": config.dataset}
    return {"model": model | trained, "metrics": results}


def write(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with aside(path) as copy:
        copy.write_text(text, encoding="utf-8")
