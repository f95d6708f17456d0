"""What differs from cluster to cluster: images, resources, credentials. One small TOML file overrides the defaults.

endpoint = "https://s3.eu-central-1.amazonaws.com"   # for every environment
[steps.train]
memory = "16Gi"
[environments.production]                            # on top, with --environment production
secret = ""                                          # web identity in place of a secret
[environments.production.steps.train]
node_selector = {pool = "gpu"}
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

from components.step import UserError, choose, require

SMALL_IMAGE = "ghcr.io/retrain/retrain-small:0.1.0"
TRAIN_IMAGE = "ghcr.io/retrain/retrain-train:0.1.0"

CPU = re.compile(r"(?=.*[1-9])(\d+(\.\d+)?|\d+m)")  # more than 0
MEMORY = re.compile(r"(?=.*[1-9])\d+(\.\d+)?(Ki|Mi|Gi|Ti|k|M|G|T)?")
INGESTING = ("plan", "shard", "ingest")
"""The steps whose placement is that of `ingest`: one core and little memory do for each of them."""


class Toleration(TypedDict, total=False):
    """A taint of nodes that does not keep a step away, in the words of kfp.kubernetes.add_toleration."""

    key: str
    operator: Literal["Equal", "Exists"]
    value: str
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    toleration_seconds: int


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where and how a step runs. Quantities are Kubernetes'."""

    image: str = TRAIN_IMAGE
    cpu: str = "2"
    memory: str = "4Gi"
    shm: str = "1Gi"  # of the memory; empty: the 64 MB of every pod
    timeout_minutes: int = 60  # of one attempt
    retries: int = 2
    backoff_seconds: int = 30  # before the first retry; it doubles with each
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[Toleration] = field(default_factory=list)

    @property
    def cores(self) -> int:
        """Whole cores, at least 1: '2' and '2500m' are 2."""
        cores = float(self.cpu[:-1]) / 1000 if self.cpu.endswith("m") else float(self.cpu)
        return max(1, int(cores))

    def __post_init__(self) -> None:
        require(bool(re.fullmatch(r"\S+", self.image)), "image", self.image, f"be a name such as {TRAIN_IMAGE!r}")
        require(bool(CPU.fullmatch(self.cpu)), "cpu", self.cpu, "be a number of cores such as '2' or '500m'")
        require(bool(MEMORY.fullmatch(self.memory)), "memory", self.memory, "be a quantity such as '4Gi'")
        sized = not self.shm or bool(MEMORY.fullmatch(self.shm))
        require(sized, "shm", self.shm, "be a quantity such as '1Gi', or '' for the 64 MB of every pod")
        require(self.timeout_minutes >= 1, "timeout_minutes", self.timeout_minutes, "be at least 1")
        require(self.retries >= 0, "retries", self.retries, "be at least 0")
        require(self.backoff_seconds >= 1, "backoff_seconds", self.backoff_seconds, "be at least 1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The facts of a cluster. The defaults are those of a Kubeflow Pipelines installation as it ships."""

    endpoint: str = "http://seaweedfs.kubeflow:9000"  # of the S3 store; empty: AWS
    region: str = "us-east-1"
    secret: str = "mlpipeline-minio-artifact"  # with the store's credentials; empty: web identity
    access_key: str = "accesskey"  # the secret's keys
    secret_key: str = "secretkey"
    deadline_hours: int = 24  # of a whole run
    ttl_hours: int = 24  # how long a finished run's pods are kept
    autoscaled_gpus: bool = False  # whether nodes with GPUs are added when a run asks for them
    steps: dict[str, Placement] = field(
        default_factory=lambda: {
            "ingest": Placement(image=SMALL_IMAGE, cpu="1", memory="1Gi", shm="", timeout_minutes=12 * 60),
            "train": Placement(timeout_minutes=12 * 60),
            "evaluate": Placement(),
            "export": Placement(),
        }
    )

    def __post_init__(self) -> None:
        require(self.deadline_hours >= 1, "deadline_hours", self.deadline_hours, "be at least 1")
        require(self.ttl_hours >= 1, "ttl_hours", self.ttl_hours, "be at least 1")

    def placement(self, step: str) -> Placement:
        """Of a step, by name."""
        return self.steps["ingest" if step in INGESTING else step]

    def without_retries(self) -> "Settings":
        """For this machine, where a failure is for a person to see."""
        return replace(self, steps={name: replace(step, retries=0) for name, step in self.steps.items()})


Whole = TypeVar("Whole", Settings, Placement)

STOCK = Settings()
"""Kubeflow Pipelines as it ships; what the committed pipelines/retrain.yaml is compiled for."""


def read_settings(path: Path | None, environment: str) -> Settings:
    """The defaults, overridden by the file and then by its section of the environment; '' is no environment.

    Raises UserError, which names the file and the key, where a key is unknown or its value of another type.
    """
    content = _load(path) if path else {}
    environments = _table(content.pop("environments", {}), f"{path}: environments")
    settings = _override(STOCK, content, str(path))
    if not environment:
        return settings
    if environment not in environments:
        listed = f"choices: {', '.join(environments)}" if environments else "give a file that has one with --settings"
        raise UserError(f"unknown environment {environment!r}; {listed}")
    changes = _table(environments[environment], f"{path}: environments.{environment}")
    return _override(settings, changes, f"{path}, environments.{environment}")


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UserError(f"settings {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"settings {str(path)!r} is not TOML: {error}") from None


def _override(settings: Settings, changes: Mapping[str, Any], where: str) -> Settings:
    """The settings with some of them changed."""
    steps = dict(settings.steps)
    for name, step_changes in _table(changes.get("steps", {}), f"{where}: steps").items():
        known = _known("step", name, list(steps), where)
        steps[known] = _changed(steps[known], _table(step_changes, f"{where}: steps.{name}"), f"{where}: steps.{name}")
    return replace(_changed(settings, {k: v for k, v in changes.items() if k != "steps"}, where), steps=steps)


def _changed(whole: Whole, changes: Mapping[str, Any], where: str) -> Whole:
    types = get_type_hints(type(whole))
    for key, value in changes.items():
        _require_type(value, types[_known("setting", key, list(types), where)], f"{where}: {key}")
    try:
        return replace(whole, **changes)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


_NAMES = {str: "a string", int: "a whole number", bool: "true or false"}


def _require_type(value: Any, hint: Any, where: str) -> None:
    """Raises UserError unless the value is of the type that a field declares, and all that it holds, too."""
    kind, inside = get_origin(hint), get_args(hint)
    if is_typeddict(hint):
        types = get_type_hints(hint)
        for key, held in _table(value, where).items():
            _require_type(held, types[_known("key", key, list(types), where)], f"{where}: {key}")
    elif kind is dict:
        for key, held in _table(value, where).items():
            _require_type(held, inside[1], f"{where}: {key}")
    elif kind is list:
        require(type(value) is list, where, value, "be a list")
        for number, held in enumerate(value, start=1):
            _require_type(held, inside[0], f"{where}, number {number}")
    elif kind is Literal:
        require(value in inside, where, value, f"be {' or '.join(map(repr, inside))}")
    else:
        require(type(value) is hint, where, value, f"be {_NAMES[hint]}")


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where} must be a table, not {value!r}")
    return value


def _known(kind: str, name: str, choices: list[str], where: str) -> str:
    try:
        return choose(kind, name, choices)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
