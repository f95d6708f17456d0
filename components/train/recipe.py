"""How a network is trained: the parameter `recipe`, such as 'optimizer=sgd schedule=cosine mixup=0.2'."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from components.step import UserError, check_choices, choose, fields, read_pairs, require

OPTIMIZERS = (
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamc", "adamp", "adamuon", "adamw",
    "adamwlegacy", "adan", "adanw", "adopt", "adoptc", "adoptw", "cadafactor", "cadamc", "cadamp", "cadamw",
    "cadan", "cadanw", "cadopt", "cadoptc", "cadoptw", "clamb", "clambw", "claprop", "clion", "clionc", "cmars",
    "cnadamc", "cnadamw", "crmsproptf", "csgdc", "csgdp", "csgdw", "lamb", "lambc", "lambcd", "lambcw", "lambw",
    "laprop", "lapropc", "larc", "lars", "lion", "lionc", "madgrad", "madgradw", "mars", "momentum", "muon",
    "nadam", "nadamc", "nadamlegacy", "nadamuon", "nadamw", "nesterov", "nesterovw", "nlarc", "nlars", "nmuon",
    "novograd", "novogradc", "novogradw", "radabelief", "radam", "radamlegacy", "radamw", "rmsprop", "rmsproptf",
    "rmsproptfc", "rmsproptfw", "sgd", "sgdc", "sgdp", "sgdw",
)  # fmt: skip
"""adamw, sgd and those of timm that train here: listed, so that a wrong name is refused where there is no timm.

Not adahessian, which needs the gradient's gradient; adafactorbv and kron, of whose state no checkpoint can be made;
those of APEX and bitsandbytes, which are not installed.
"""
SHARDED = ("adamw", "sgd")
"""Those that take parameters which are dealt to processes."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that a recipe may say; what it leaves out has these defaults."""

    optimizer: Annotated[
        str,
        "adamw, sgd (with Nesterov's momentum), or another one of timm's by its name there, but for adahessian, "
        "adafactorbv, kron, and those of APEX and bitsandbytes.",
    ] = "adamw"
    weight_decay: Annotated[float, "How strongly weights are drawn to zero."] = 0.01
    momentum: Annotated[float, "Of sgd."] = 0.9
    schedule: Annotated[
        Literal["one_cycle", "cosine", "step", "constant"],
        "How the learning rate goes: up and down (Smith and Topin, 2018), down a half cosine (Loshchilov and Hutter, "
        "2017), a tenth after each third, or as it is.",
    ] = "one_cycle"
    warmup: Annotated[
        float, "Epochs in which the learning rate rises from zero; not with one_cycle, which has a rise of its own."
    ] = 0
    label_smoothing: Annotated[float, "Share of each label that is spread over all classes (Szegedy et al., 2016)."] = (
        0.05
    )
    augment: Annotated[
        Literal["auto", "none", "trivial", "rand"],
        "How images are changed beyond that crops are taken of files and raw pixels are distorted: auto, not at all; "
        "none, raw pixels neither; trivial, by TrivialAugment; rand, by RandAugment.",
    ] = "auto"
    mixup: Annotated[float, "Concentration of the Beta distribution by which two images are blended; 0: none are."] = 0
    cutmix: Annotated[float, "The same, where a box of one is cut into the other."] = 0
    class_weights: Annotated[
        Literal["none", "balanced"], "Whether rare classes weigh more in the loss: inversely to their images."
    ] = "none"
    ema: Annotated[float, "Decay a batch of an average of the weights, which is judged and saved; 0: no average."] = 0
    clip: Annotated[float, "The largest norm of the gradient; 0: any."] = 0
    accumulate: Annotated[
        int, "Parts, of two images or more, in which a batch goes through the network, to need less memory."
    ] = 1
    patience: Annotated[
        int, "Epochs without a better validation accuracy after which training ends, with the best weights; 0: never."
    ] = 0
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"], "What is multiplied; auto: bf16 where the hardware is made for it."
    ] = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"], "Whether torch.compile is used; auto: where measuring shows that it pays."
    ] = "auto"
    parallel: Annotated[
        Literal["ddp", "fsdp"], "Whether each process holds all weights, or a part where a GPU cannot hold them all."
    ] = "ddp"
    freeze: Annotated[int, "Stages, counted from the images, that stay as they start."] = 0
    layer_decay: Annotated[float, "Learning rate of a stage as a share of that of the stage after it."] = 1.0

    def __post_init__(self) -> None:
        check_choices(self)
        choose("optimizer", self.optimizer, OPTIMIZERS)
        for name, least, most in BOUNDS:
            value = getattr(self, name)
            must = f"be from {least} to {most:g}" if most < float("inf") else f"be at least {least}"
            require(least <= value <= most, f"recipe: {name}", value, must)
        require(self.layer_decay > 0, "recipe: layer_decay", self.layer_decay, "be above 0")
        require(self.ema < 1, "recipe: ema", self.ema, "be below 1")
        warm = not self.warmup or self.schedule != "one_cycle"
        must = "be 0 with schedule=one_cycle, which has a rise of its own (cosine, step and constant take it)"
        require(warm, "recipe: warmup", self.warmup, must)
        divisible = self.parallel != "fsdp" or self.optimizer in SHARDED
        must = f"be {' or '.join(SHARDED)} with parallel=fsdp"
        require(divisible, "recipe: optimizer", self.optimizer, must)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others."""
        return self.mixup > 0 or self.cutmix > 0


BOUNDS = (
    *((name, 0, float("inf")) for name in ("weight_decay", "warmup", "clip", "patience", "freeze")),
    *((name, 0, 1) for name in ("momentum", "label_smoothing", "ema", "layer_decay")),
    *((name, 0, 1000) for name in ("mixup", "cutmix")),
    ("accumulate", 1, float("inf")),
)


def read_recipe(text: str) -> Recipe:
    """The recipe that a text of pairs describes.

    Raises UserError, with the nearest name or the bounds, where a pair is unknown, of the wrong type, or given twice.
    """
    known = {field.name: field for field in fields(Recipe)}
    given = read_pairs("recipe", "part of a recipe", text, list(known), "optimizer=sgd mixup=0.2")
    return Recipe(**{name: _typed(name, value, known[name].type) for name, value in given.items()})


def _typed(name: str, value: str, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        number = "a whole number" if kind is int else "a number"
        raise UserError(f"recipe: {name} must be {number}, not {value!r}") from None
