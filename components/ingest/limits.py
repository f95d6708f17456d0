"""How much of each fault a dataset may have: the parameter `limits`, such as 'damaged=0.05 leaks=0'."""

from dataclasses import dataclass

from components.step import UserError, read_pairs


@dataclass(frozen=True)
class Limit:
    """What a check compares with what it measures: a share from 0 to 1, or a number of images where `whole`."""

    default: float
    meaning: str
    whole: bool = False


LIMITS = {
    "damaged": Limit(0.01, "share of the source's entries that are quarantined, at most"),
    "conflicts": Limit(0.01, "share of the images that have two labels, at most; all copies of them are excluded"),
    "leaks": Limit(
        0.01,
        "share of the validation and test images that another split has byte for byte, at most; "
        "the copy that is judged stays: test before validation before train",
    ),
    "near_leaks": Limit(1, "share of the validation and test images that look like an image of another split, at most"),
    "torn_groups": Limit(
        0,
        "share of the groups that have images in more than one split, as the source names splits itself, at most",
    ),
    "duplicates": Limit(1, "share of the images that their own split has already, byte for byte, at most"),
    "near_duplicates": Limit(1, "share of the images that look like another one of their split, at most"),
    "drift": Limit(
        1, "total variation distance of the appended images' class shares from those of the parent, at most"
    ),
    "min_images": Limit(1, "images that every class has in every split, at least", whole=True),
}


def read_limits(text: str) -> dict[str, float]:
    """Every limit by name, those of `text` in place of the defaults.

    Raises UserError, with the nearest name or the bounds, where a limit is unknown, not a number, or given twice.
    """
    given = read_pairs("limits", "limit", text, list(LIMITS), "damaged=0.05 leaks=0")
    defaults = {name: limit.default for name, limit in LIMITS.items()}
    return defaults | {name: _number(name, value) for name, value in given.items()}


def _number(name: str, value: str) -> float:
    whole = LIMITS[name].whole
    try:
        number = int(value) if whole else float(value)
        if number >= 0 if whole else 0 <= number <= 1:
            return number
    except ValueError:
        pass
    bounds = "a whole number of images, 0 or more" if whole else "a share from 0 to 1"
    raise UserError(f"limit {name} must be {bounds}, not {value!r}")
