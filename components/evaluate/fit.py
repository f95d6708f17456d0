"""Whether a model can be judged on a dataset."""

from components.dataset.manifest import Manifest
from components.models.config import ModelConfig


def misfit(config: ModelConfig, manifest: Manifest) -> str:
    """What keeps the model from being judged on the dataset, worded to follow 'because'; '' where nothing does."""
    # Image files are fitted to the size that the model takes; raw pixels are taken as they are.
    if config.shape[2] != manifest.shape[2] or (manifest.encoding == "raw" and config.shape != manifest.shape):
        return f"it takes images of {size(config.shape)} and those of the dataset are {size(manifest.shape)}"
    if config.classes == manifest.classes:
        return ""
    lacks = _names(set(manifest.classes) - set(config.classes))
    adds = _names(set(config.classes) - set(manifest.classes))
    if not lacks and not adds:
        return "it has the classes of the dataset in another order"
    clauses = [f"it does not know {lacks}"] * bool(lacks) + [f"it knows {adds}, which the dataset lacks"] * bool(adds)
    return " and ".join(clauses)


def size(shape: tuple[int | None, ...]) -> str:
    """Height, width and channels as people write them: '28 x 28 x 1', 'any x any x 3'."""
    return " x ".join("any" if extent is None else str(extent) for extent in shape)


def _names(classes: set[str]) -> str:
    shown = sorted(classes)[:5]
    more = len(classes) - len(shown)
    return ", ".join(map(repr, shown)) + (f" and {more} more" if more else "")
