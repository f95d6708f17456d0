"""A tree of images: `class/file`, or `split/class/file`; below the folder of its class an image may lie at any depth.

The same as torchvision's ImageFolder reads, which knows no splits.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from components.source.example import Example, Piece, Rejected, Shape
from components.source.files import Wanted, is_image, read_files, rejected, suffix
from components.source.split import SPLITS
from components.step import UserError
from components.storage import Store


class Tree:
    """A folder of folders of images; other files are passed over."""

    kind = "tree"
    by_file = True
    shape: Shape | None = None

    def __init__(self, store: Store) -> None:
        self.store = store
        self.uri = store.uri
        self.splits: frozenset[str] = frozenset()
        self.passed_over: Counter[str] = Counter()

    def pieces(self) -> Iterator[Piece]:
        """The images. Raises UserError where folders of splits and of classes lie side by side."""
        tops = _Tops(self.uri)
        for found in self.store.objects("", self.passed_over):
            if not is_image(found.key):
                self.passed_over[suffix(found.key)] += 1
                continue
            *folders, _ = found.key.split("/")
            split = tops.split(folders)
            names = folders[1:] if split else folders
            if not names:
                detail = "lies in no folder that names its class"
                yield {"key": found.key} | rejected("no label", detail)
                continue
            piece = {"key": found.key, "label": names[0], "bytes": found.size, "version": found.version}
            if split:
                piece["split"] = split
                self.splits |= {split} - {"train"}
            yield piece

    def examples(self, pieces: Sequence[Piece]) -> Iterator[Example | Rejected]:
        return read_files(Wanted(self.store, piece["key"], piece["key"], piece) for piece in pieces)


class _Tops:
    """What the folders at the top are: splits, each with folders of classes in it, or classes."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.a_split = self.a_class = ""

    def split(self, folders: Sequence[str]) -> str | None:
        """The split of an image in these folders, if the top ones are splits."""
        if not folders:
            return None
        split = SPLITS.get(folders[0].lower())
        if split and len(folders) > 1:
            self.a_split = folders[0]
        elif not (split and self.a_split):  # an image beside the classes of a split has no label
            self.a_class = folders[0]
        if self.a_split and self.a_class:
            raise UserError(
                f"source {self.uri!r} has at its top {self.a_split!r}, which is a split with folders in it, beside "
                f"{self.a_class!r}, which is a class; give a folder where all are the one or the other"
            )
        return split if self.a_split else None
