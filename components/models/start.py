"""Where a training starts from: fresh weights, the champion's, or pretrained ones that are here already."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from components import registry
from components.models import artifact, library, networks
from components.models.artifact import Classifier
from components.models.config import ModelConfig
from components.step import UserError, choose
from components.storage import NotFound, Store

NAMED = 5
"""How many classes a sentence names at most."""


def start(classifier: Classifier, config: ModelConfig, start: str, store: Store, model_name: str) -> str:
    """Gives a fresh classifier the weights to start from: "scratch", "champion" or "pretrained". Says what was done.

    Raises UserError where the champion is another network, or there are no fitting pretrained weights; StepError where
    the champion's files are damaged.
    """
    choose("start", start, ("scratch", "champion", "pretrained"))
    if start == "champion":
        return from_champion(classifier, config, store, model_name)
    if start == "pretrained":
        return from_pretrained(classifier, config, store)
    return "starts from scratch"


def from_champion(classifier: Classifier, config: ModelConfig, store: Store, model_name: str) -> str:
    """The champion's weights, each row of the head by the name of its class; new classes keep their fresh rows.

    Without a champion it starts from scratch, so that one schedule serves the first run and all that follow.
    """
    version = registry.champion(store, model_name)
    if version is None:
        return f"starts from scratch: {model_name} has no champion in store {store.uri} yet"
    champion, learnt = artifact.load_version(store, version)
    _require_same_network(config, learnt, f"{model_name} version {version.number}")
    weights, fresh = champion.network.state_dict(), classifier.network.state_dict()
    known = [name for name in config.classes if name in learnt.classes]
    to, of = ([classes.index(name) for name in known] for classes in (config.classes, learnt.classes))
    for name in _head(config):
        rows = fresh[name].clone()
        rows[to] = weights[name][of]
        weights[name] = rows
    classifier.network.load_state_dict(weights)
    return f"starts from {model_name} version {version.number}, the champion" + _changes(config.classes, learnt.classes)


def _require_same_network(config: ModelConfig, learnt: ModelConfig, champion: str) -> None:
    def words(config: ModelConfig) -> str:
        options = "".join(f" {name}={value}" for name, value in sorted(config.options.items()))
        return f"{config.architecture}{options} on images of {'x'.join(map(str, config.shape))}"

    if words(config) != words(learnt):
        raise UserError(
            f"start 'champion' needs the champion's own network: {champion} is {words(learnt)}, and this training has "
            f"{words(config)}; train as the champion was trained, or with --start scratch or pretrained"
        )


def _changes(classes: Sequence[str], learnt: Sequence[str]) -> str:
    """What happened to the classes since, as the end of a sentence."""
    new, gone = (
        [name for name in ours if name not in theirs] for ours, theirs in ((classes, learnt), (learnt, classes))
    )
    told = [f"{kind}: {_some(names)}" for kind, names in (("new classes", new), ("classes gone", gone)) if names]
    return "".join(f"; {each}" for each in told) or f"; its {len(classes)} classes keep their weights"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def from_pretrained(classifier: Classifier, config: ModelConfig, store: Store) -> str:
    """The weights in the store's pretrained/NAME.safetensors, else those in the Hugging Face cache of this machine.

    Nothing is downloaded, and nothing but safetensors is read. The head stays fresh where the number of classes is
    another. Raises UserError where there are none, or they are damaged or another network's.
    """
    weights, place = _find_weights(config.architecture, store)
    fresh = classifier.network.state_dict()
    channels = config.shape[2] * classifier.repeats
    try:
        weights = library.adapt(networks.source(config.architecture), weights, channels)
        head = [name for name in _head(config) if name not in weights or weights[name].shape != fresh[name].shape]
        classifier.network.load_state_dict(weights | {name: fresh[name] for name in head})
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{place} does not fit {config.architecture} as its library has it: {reason}") from None
    return f"starts from the pretrained weights {place}; " + (
        f"the head for {len(config.classes)} classes is fresh" if head else "their head is kept, for as many classes"
    )


def pretrained_version(name: str, store: Store) -> str:
    """Changes whenever the store's pretrained weights of an architecture do; '' where it has none."""
    try:
        return store.stat(_pretrained(name)).version
    except NotFound:
        return ""


def _pretrained(name: str) -> str:
    return f"pretrained/{name}.safetensors"


def _find_weights(name: str, store: Store) -> tuple[dict[str, Tensor], str]:
    """The pretrained weights of an architecture, and where they were found. Raises UserError."""
    key = _pretrained(name)
    published = library.weights(networks.source(name))
    repository = published.repository if published else None
    cached = library.cached(repository) if repository else None
    with tempfile.TemporaryDirectory(prefix="pretrained-") as folder:
        path, place = Path(folder) / "weights.safetensors", f"{key} in store {store.uri}"
        try:
            store.fetch(key, path)
        except NotFound:
            if not cached:
                raise UserError(_nothing_found(name, place, repository)) from None
            path, place = cached, f"{repository} in the Hugging Face cache of this machine"
        try:
            return load_file(path), place
        except SafetensorError as error:
            raise UserError(f"{place} is damaged, or no safetensors file ({error}); fetch it anew") from None


def _nothing_found(name: str, place: str, repository: str | None) -> str:
    source = networks.source(name)
    sought = (
        f"neither {place} nor {repository} in the Hugging Face cache of this machine" if repository else f"no {place}"
    )
    command = library.fetch_command(source)
    way_out = f"fetch them with `{command}` and put the file there" if command else "put them there"
    return f"start 'pretrained' finds no weights of {name}, and downloads none: {sought}; {way_out}"


def _head(config: ModelConfig) -> list[str]:
    return networks.head(config.architecture, config.options, config.shape, len(config.classes))
