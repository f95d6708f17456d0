"""How sources name the splits."""

import re

from components.step import UserError

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""What each name means, in small letters."""

WORD = re.compile(rf"(?:(?<=^)|(?<=[-._ 0-9/]))({'|'.join(SPLITS)})(?=[-._ 0-9/]|$)", re.IGNORECASE)
"""A name that stands by itself in a path, as in `data/train-00000-of-00002.parquet`. Source: Hugging Face, "Structure
your repository", on splits in file names."""


def read_split(value: object, where: str) -> str | None:
    """The split of that name; None where there is none. Raises UserError, which says where, if the name is unknown."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.lower() in SPLITS:
        return SPLITS[value.lower()]
    raise UserError(f"{where} has the split {value!r}; it must be one of {', '.join(SPLITS)}, or empty")


def split_of_path(path: str) -> str | None:
    """The split that the name of a file or of its folders says; the last one where several do."""
    words = WORD.findall(path)
    return SPLITS[words[-1].lower()] if words else None
