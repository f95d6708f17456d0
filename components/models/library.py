"""The networks of timm and of torchvision by their names there; each library is imported when it is asked for."""

import difflib
from collections import defaultdict
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path

import torch
from torch import Tensor, nn

from components.step import UserError

MAIN_HEAD_ALONE: dict[str, dict[str, bool]] = {
    name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")
}
"""How torchvision makes these without the heads that would be trained beside the main one."""

WEIGHTS = "model.safetensors"
"""The file of a repository of the Hugging Face Hub that holds a network's weights."""


def make(source: str, classes: int, channels: int) -> nn.Module:
    """The network `source`, such as "timm/resnet26", with fresh weights: float32 [N, C, H, W] to [N, classes].

    Raises UserError, with the nearest name, where the library has no such network.
    """
    check(source)
    library, _, name = source.partition("/")
    if library == "timm":
        import timm

        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=channels)
        return network
    from torchvision import models

    network = models.get_model(name, weights=None, num_classes=classes, **MAIN_HEAD_ALONE.get(name, {}))
    return network


def check(source: str) -> None:
    """Raises UserError, with the nearest name, unless the library has a network of this name."""
    library, _, name = source.partition("/")
    names = _names(library, tagged="." in name)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        meant = f"; did you mean '{library}/{near[0]}'?" if near else ""
        raise UserError(f"unknown architecture {source!r}: {library} {_version(library)} has no {name!r}{meant}")


def native_size(source: str) -> tuple[int, int]:
    """Height and width, in pixels, of the images that the network was made for."""
    check(source)
    library, _, name = source.partition("/")
    if library == "timm":
        import timm

        config = timm.get_pretrained_cfg(name)
        height, width = config.input_size[1:] if config else (224, 224)
        return height, width
    from torchvision import models

    # Some weights are for larger images than the network takes by default.
    side = min(int(weights.transforms().crop_size[0]) for weights in models.get_model_weights(name))
    return side, side


@dataclass(frozen=True)
class Weights:
    """Pretrained weights that are published on the Hugging Face Hub."""

    repository: str
    licence: str | None
    papers: tuple[str, ...]
    """Those that timm names with them, as in "arXiv:2110.00476"."""


def weights(source: str) -> Weights | None:
    """The pretrained weights of a network, those that it is known by; None where timm publishes none."""
    library, _, name = source.partition("/")
    if library != "timm":
        return None
    import timm

    config = timm.get_pretrained_cfg(name)
    if not config or not config.hf_hub_id:
        return None
    named = config.paper_ids or ()
    return Weights(config.hf_hub_id, config.license, (named,) if isinstance(named, str) else tuple(named))


def licence(source: str) -> str | None:
    """Of the code of a network's library, as its package says it; None where that does not."""
    said = metadata(source.partition("/")[0]).json
    found = said.get("license_expression") or said.get("license")
    return str(found) if found else None


def cached(repository: str) -> Path | None:
    """The weights of a repository where they are on this machine already: looked up, never fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, WEIGHTS)
    return Path(found) if isinstance(found, str) else None


def fetch_command(source: str) -> str | None:
    """What a person runs to have a network's published weights as a safetensors file."""
    library, _, name = source.partition("/")
    if published := weights(source):
        return f"hf download {published.repository} {WEIGHTS}"
    made = {
        "timm": f'timm.create_model("{name}", pretrained=True)',
        "torchvision": f'torchvision.models.get_model("{name}", weights="DEFAULT")',
    }
    if library not in made:
        return None
    save = f'safetensors.torch.save_file({made[library]}.state_dict(), "{WEIGHTS}")'
    return f"python -c 'import safetensors.torch, {library}; {save}'"


def adapt(source: str, found: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Published weights as `make` wants them, but for the head, whose classes remain those that it was trained on.

    Raises RuntimeError or KeyError where they are another network's.
    """
    library, _, name = source.partition("/")
    if library != "timm":
        return {key: tensor for key, tensor in found.items() if not key.startswith(("AuxLogits.", "aux1.", "aux2."))}
    import timm

    config = timm.get_pretrained_cfg(name)
    network = timm.create_model(
        name,
        pretrained=True,
        pretrained_cfg_overlay={"state_dict": found},
        num_classes=config.num_classes if config else 1000,
        in_chans=channels,
    )
    adapted: dict[str, Tensor] = network.state_dict()
    if not _share_a_tensor(adapted, found):  # some networks leave out what they do not know, and timm does not mind
        raise RuntimeError("none of its tensors is one of this network's")
    return adapted


def _share_a_tensor(these: dict[str, Tensor], those: dict[str, Tensor]) -> bool:
    """Whether two sets of weights have a matrix, or a kernel, in common, whatever its name."""
    by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
    for tensor in those.values():
        by_shape[tensor.shape].append(tensor)
    return any(
        torch.equal(tensor, other.to(tensor.dtype))
        for tensor in these.values()
        if tensor.ndim > 1
        for other in by_shape[tensor.shape]
    )


def _names(library: str, tagged: bool) -> list[str]:
    if library == "timm":
        import timm

        names: list[str] = timm.list_models(pretrained=tagged)
        return names
    from torchvision import models

    listed: list[str] = models.list_models(module=models)
    return listed


def _version(library: str) -> str:
    return str(import_module(library).__version__)
