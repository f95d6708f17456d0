"""What the workers brought in: the parts of all the chunks together."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from components.dataset.manifest import File, Shard
from components.dataset.plan import Plan, part_key, read_part
from components.progress import Progress
from components.source.ahead import ahead
from components.step import StepError
from components.storage import Store

PART = 4096
"""Bytes of a part, about."""

FEW = 1000
"""Files that are looked for one by one; of more, the whole folder is listed, 1,000 a request."""

Sums = dict[str, list[int]]
"""Of the training split's images, by channel: `pixels` (a list of one), `sum` and `squares` of their values."""


@dataclass
class Intake:
    """The parts of all chunks, in the order of the chunks."""

    shards: list[Shard] = field(default_factory=list)
    facts: list[File] = field(default_factory=list)
    quarantine: list[File] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    """Entries in quarantine, by reason."""
    known: int = 0
    """Images that the parent has, and that the workers passed over."""
    sums: Sums = field(default_factory=lambda: {"pixels": [0], "sum": [], "squares": []})

    @property
    def rows(self) -> int:
        """Images that were written."""
        return sum(shard.rows for shard in self.shards)

    @property
    def entries(self) -> int:
        """All that the source holds."""
        return self.rows + self.known + self.rejected.total()


def collect(store: Store, plan: Plan) -> Intake:
    """Reads every part. Raises StepError, which names the chunk, where one is missing."""
    intake = Intake()
    progress = Progress("parts", plan.chunks, "chunks")
    for number, part in ahead(partial(read_part, store, plan.digest), range(plan.chunks), lambda _: PART):
        if part is None:
            raise StepError(
                f"chunk {number} of {plan.chunks} is not done: store {store.uri} has no "
                f"{part_key(plan.digest, number)}; run the pipeline again, it goes on from there"
            )
        intake.shards += part.shards
        intake.facts += [part.facts] if part.facts else []
        intake.quarantine += [part.quarantine] if part.quarantine else []
        intake.rejected.update(part.rejected)
        intake.known += part.known
        intake.sums = add(intake.sums, part.sums)
        progress.advance(1)
    return intake


def add(one: Sums, other: Sums) -> Sums:
    """The sums of both; what has one channel counts for each of the other's."""
    channels = max(len(one["sum"]), len(other["sum"]))

    def wide(values: list[int]) -> list[int]:
        return (values or [0]) * channels if len(values) < channels else values

    together = {
        name: [a + b for a, b in zip(wide(one[name]), wide(other[name]), strict=True)] for name in ("sum", "squares")
    }
    return {"pixels": [one["pixels"][0] + other["pixels"][0]]} | together


def lost(store: Store, files: Iterable[File]) -> str | None:
    """The key of a file that is gone from the store; None where all of them are there."""
    keys = {file.key for file in files}
    if len(keys) <= FEW:
        return next((key for key, exists in ahead(store.exists, sorted(keys), len) if not exists), None)
    for folder in {key.rpartition("/")[0] for key in keys}:
        for key in store.keys(f"{folder}/"):
            keys.discard(key)
    return min(keys, default=None)
