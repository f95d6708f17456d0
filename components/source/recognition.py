"""Which layout a source has."""

from collections import Counter
from pathlib import Path

from components.source.example import Source
from components.source.files import is_image, suffix
from components.source.idx import NAME, Idx
from components.source.tree import Tree
from components.source.webdataset import WebDataset, is_archive
from components.step import UserError
from components.storage import LINK, DirectoryStore, Store, open_store

SUPPORTED = (
    "a folder of images by class (class/file or split/class/file, of JPEG, PNG, WebP, BMP, TIFF and GIF), "
    "a .csv or .parquet table of uri and label, .parquet files with the images in them, WebDataset's .tar files, "
    "and four IDX files like MNIST's; see docs/data.md"
)

LOOKED_AT = 1000
"""Files by which a folder is recognised, if there is one among them that belongs to a layout."""


def open_source(uri: str, kind: str | None = None) -> Source:
    """The source at a URI; `kind` is its layout where that is known already.

    Raises UserError, which says what was seen and what is supported, where there is nothing, or nothing known.
    """
    if uri == "mnist":
        from components.source import mnist  # here, because it takes time to import what speaks to the network

        folder = mnist.download(mnist.cache(), mnist.mirrors(), mnist.FILES)
        return Idx(DirectoryStore(folder), mnist.FILES, uri)
    store, only = locate(uri)
    kind = kind or (recognise_file(store, only) if only else recognise_folder(store))
    if kind == "idx":
        return Idx(store)
    if kind == "tree":
        return Tree(store)
    if kind == "webdataset":
        return WebDataset(store, only)
    # Likewise pyarrow.
    if kind == "table":
        from components.source.table import Table

        return Table(store, only)
    from components.source.parquet import Parquet

    return Parquet(store, only)


def locate(uri: str) -> tuple[Store, str]:
    """The folder of a source as a store, and the name of the file where the source is one."""
    folder, _, name = uri.rstrip("/").rpartition("/")
    if not uri.startswith("s3://"):
        store = open_store(uri)
        path = Path(store.uri)
        if path.is_file():
            return open_store(str(path.parent)), path.name
        if not path.is_dir():
            raise UserError(f"source {uri!r} does not exist")
        return store, ""
    # A folder may be called data.parquet: Spark does that.
    if is_whole(name) and folder != "s3:/" and open_store(folder).exists(name):
        return open_store(folder), name
    return open_store(uri), ""


def is_whole(name: str) -> bool:
    """Whether a file can be a source by itself."""
    return is_archive(name) or name.lower().endswith((".csv", ".parquet"))


def recognise_file(store: Store, name: str) -> str:
    """The layout of a file."""
    if is_archive(name):
        return "webdataset"
    if name.lower().endswith(".csv"):
        return "table"
    if not name.lower().endswith(".parquet"):
        raise UserError(f"source {store.uri}/{name} is a {suffix(name)} file; supported are {SUPPORTED}")
    from components.source.table import is_table

    with store.open(name) as file:
        return "table" if is_table(file) else "parquet"


def recognise_folder(store: Store) -> str:
    """The layout that some of the first files in a folder belong to, others not."""
    kinds: Counter[str] = Counter()
    suffixes: Counter[str] = Counter()
    names: list[str] = []
    passed_over: Counter[str] = Counter()
    for found in store.objects("", passed_over):
        kinds.update(kind for kind in [kind_of(found.key)] if kind)
        suffixes[suffix(found.key)] += 1
        names += [repr(found.key)] if len(names) < 3 else []
        if suffixes.total() >= LOOKED_AT and kinds:
            break
    if len(kinds) == 1:
        return next(iter(kinds))
    if not names and passed_over[LINK]:
        raise UserError(
            f"source {store.uri!r} has nothing but {passed_over[LINK]:,} symbolic links that lead out of it or to "
            "folders, which are not followed; put the files themselves there"
        )
    if not names and passed_over:
        hidden = passed_over.total()
        raise UserError(f"source {store.uri!r} has nothing but {hidden:,} hidden or unusable names; rename them")
    if not names:
        raise UserError(f"source {store.uri!r} is empty, or does not exist; supported are {SUPPORTED}")
    what = f"has files of several layouts ({', '.join(sorted(kinds))})" if kinds else "has no layout that is known"
    counted = ", ".join(f"{count} {ending}" for ending, count in suffixes.most_common(5))
    raise UserError(
        f"source {store.uri!r} {what}: its first {suffixes.total()} files are {counted}, such as {', '.join(names)}; "
        f"supported are {SUPPORTED}"
    )


def kind_of(key: str) -> str:
    """The layout that a file in a folder belongs to; empty for none."""
    if NAME.fullmatch(key):
        return "idx"
    if is_image(key):
        return "tree"
    if is_archive(key):
        return "webdataset"
    return "parquet" if key.lower().endswith(".parquet") else ""
