"""What the columns of a Parquet file mean."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as datasets

from components.source.example import Shape
from components.step import UserError

UNREADABLE = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError)
"""What pyarrow raises where a file is damaged."""

FOLDERS = datasets.partitioning(pa.schema([(name, pa.string()) for name in ("label", "split", "group")]), flavor="hive")
"""What folders like `label=cat` say."""


@dataclass(frozen=True)
class Columns:
    """The names of columns; empty where there is no such column."""

    image: str
    shape: Shape | None
    """Where the images are raw pixels."""
    label: str
    names: tuple[str, ...]
    """Of the classes, where the labels are indices into them; empty for one that has none."""
    split: str
    group: str
    folders: Mapping[str, str]
    """In place of columns: what the folders of the file say."""

    @property
    def read(self) -> list[str]:
        """Of the columns that there are."""
        return [name for name in (self.image, self.label, self.split, self.group) if name]

    def labels(self, batch: pa.RecordBatch) -> list[str | None]:
        """The names of the classes; None where there is none."""
        if "label" in self.folders:
            return [self.folders["label"]] * len(batch)
        values = batch[self.label].to_pylist()
        if not self.names:
            return [None if value in (None, "") else str(value) for value in values]
        known = range(len(self.names))
        return [self.names[value] or None if value in known else None for value in values]

    def texts(self, batch: pa.RecordBatch, name: str) -> list[str | None]:
        """The values of the column `split` or `group`, wherever they stand; None where there are none."""
        if name in self.folders:
            return [self.folders[name]] * len(batch)
        if not getattr(self, name):
            return [None] * len(batch)
        return [None if value in (None, "") else str(value) for value in batch[name].to_pylist()]


def read_columns(schema: pa.Schema, path: str, where: str) -> Columns:
    """What the columns of a file with images in it are. Raises UserError, which says `where`, unless that is clear."""
    features = read_features(schema)
    image = find_image(schema, where)
    folders = read_folders(path, where)
    label = "" if "label" in folders else find_label(schema, features, where)
    return Columns(
        image=image,
        shape=read_shape(schema, image, where),
        label=label,
        names=tuple(features.get(label, ())),
        split=find_text(schema, "split", where) if "split" not in folders else "",
        group=find_text(schema, "group", where) if "group" not in folders else "",
        folders=folders,
    )


def read_folders(path: str, where: str) -> dict[str, str]:
    """What folders like `label=cat` in a path say."""
    try:
        found = datasets.get_partition_keys(FOLDERS.parse(path))
    except UNREADABLE as error:
        raise UserError(f"{where} lies in folders that cannot be read ({first_line(error)})") from None
    return {name: value for name, value in found.items() if value}


def read_features(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of the classes by column, as Hugging Face `datasets` notes them in the metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: feature["names"] for name, feature in features.items() if feature["_type"] == "ClassLabel"}
        return {name: list(map(_text, names)) for name, names in found.items() if isinstance(names, list)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _text(name: object) -> str:
    """The name of a class; empty for half of a letter, which JSON may hold, and of which no UTF-8 can be made."""
    try:
        return str(name).encode().decode()
    except UnicodeEncodeError:
        return ""


def find_image(schema: pa.Schema, where: str) -> str:
    """The column `image`, or the only one that holds images."""
    candidates = [field.name for field in schema if is_image(field.type)]
    if "image" in candidates:
        return "image"
    if "image" not in schema.names and len(candidates) == 1:
        return str(candidates[0])
    raise UserError(f"{where} must have a column 'image' of bytes, or a single one of that type; {listed(schema)}")


def is_image(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, as they are or in a struct as Hugging Face `datasets` has them."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and is_bytes(field.type) for field in kind)
    return bool(is_bytes(kind) or pa.types.is_fixed_size_binary(kind))


def is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def read_shape(schema: pa.Schema, image: str, where: str) -> Shape | None:
    """Height, width and channels, if the images are raw pixels: then they have a fixed size."""
    kind = schema.field(image).type
    if not pa.types.is_fixed_size_binary(kind):
        return None
    try:
        height, width, channels = map(int, json.loads((schema.metadata or {})[b"shape"]))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        height = width = channels = 0
    if min(height, width) < 1 or channels not in (1, 3) or height * width * channels != kind.byte_width:
        raise UserError(
            f"{where} has images of {kind.byte_width} bytes each, but no 'shape' in its metadata that fits: "
            "[height, width, channels] as JSON, with 1 or 3 channels"
        )
    return height, width, channels


def find_label(schema: pa.Schema, features: Mapping[str, list[str]], where: str) -> str:
    """The column `label`, or the only one that the metadata call so."""
    classes = [name for name in features if name in schema.names]
    name = classes[0] if "label" not in schema.names and len(classes) == 1 else "label"
    if name not in schema.names:
        raise UserError(f"{where} must have a column 'label'; {listed(schema)}")
    require_type(schema, name, where)
    if name in features and is_text(schema.field(name).type):
        raise UserError(f"{where} has names for the numbers in column {name!r}, but its values are text")
    return name


def find_text(schema: pa.Schema, name: str, where: str) -> str:
    """The column of that name; empty where there is none."""
    if name not in schema.names:
        return ""
    require_type(schema, name, where)
    return name


def require_type(schema: pa.Schema, name: str, where: str) -> None:
    """Raises UserError unless a column holds strings or whole numbers, and there is only one of that name."""
    if schema.names.count(name) > 1:
        raise UserError(f"{where} has more than one column {name!r}")
    kind = schema.field(name).type
    if not is_text(kind) and not pa.types.is_integer(kind):
        raise UserError(f"{where} has a column {name!r} of type {kind}; it must hold strings or whole numbers")


def is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def listed(schema: pa.Schema) -> str:
    """The columns, for people."""
    columns = [f"{field.name} ({field.type})" for field in schema]
    return f"it has {', '.join(columns[:8]) or 'none'}{', …' if len(columns) > 8 else ''}"


def first_line(error: BaseException) -> str:
    """What an error of pyarrow says first; further lines are its own."""
    return (str(error) or type(error).__name__).splitlines()[0]
