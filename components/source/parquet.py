"""Parquet files with the images in a column: those of Hugging Face `datasets`, partitioned ones, Retrain's own shards.

    image   a struct of `bytes` and `path`, or binary: image files; fixed-size binary with `shape` in the schema's
            metadata: raw pixels, uint8 [H, W, C]
    label   a string, or a whole number: an index into the names of a ClassLabel, where the metadata has them
    split, group   may be there, too

Folders like `label=cat` stand for a column, and so do names like `train-00000-of-00002.parquet` for a split.
"""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as parquet

from components.source.ahead import Blocks, ahead
from components.source.columns import UNREADABLE, Columns, first_line, read_columns
from components.source.example import Example, Piece, Rejected, Shape
from components.source.files import LARGEST, rejected, suffix, too_large
from components.source.idx import by
from components.source.split import read_split, split_of_path
from components.step import StepError, UserError
from components.storage import NotFound, Object, Store

BATCH_BYTES = 8 * 2**20
"""Of images that are unpacked at once, about."""
BATCH_ROWS = 64
"""Likewise, at most: an image that stands in a dictionary, 1 MiB of them by default, may come in every row."""
BUFFER = 2**20
"""Bytes of a column that are read at once, however large its row group is."""
LARGEST_PAGE = 96 * 2**20
"""Bytes of a page, unpacked: pyarrow reads it as a whole, and needs two or three times as much memory for that."""
FOOTER_BYTES = 2**20
"""About what it takes to plan a file."""


class Parquet:
    """A folder of files, or one of them; a row group is a piece."""

    kind = "parquet"
    by_file = False

    def __init__(self, store: Store, only: str = "") -> None:
        """Raises UserError where no file is whole, or the columns of the first that is are none that can be read."""
        self.store, self.only = store, only
        self.uri = f"{store.uri}/{only}" if only else store.uri
        self.splits: frozenset[str] = frozenset()
        self.passed_over: Counter[str] = Counter()
        self.shape: Shape | None = None
        self.sample = (0, 1)
        """Images and bytes of the first file that is whole."""
        self._look()
        self.passed_over.clear()

    def _look(self) -> None:
        damaged: UserError | None = None
        for found in self._files():
            try:
                with self.store.open(found.key, found.version) as stream:
                    file = parquet.ParquetFile(stream)
                    self.shape = self._columns(file, found.key).shape
                    self.sample = (file.metadata.num_rows, found.size)
                    return
            except UNREADABLE as error:
                damaged = damaged or UserError(f"{self._where(found.key)} is no Parquet file ({first_line(error)})")
        if damaged:
            raise damaged

    def _files(self) -> Iterator[Object]:
        for found in [self.store.stat(self.only)] if self.only else self.store.objects("", self.passed_over):
            if is_parquet(found.key):
                yield found
            else:
                self.passed_over[suffix(found.key)] += 1

    def _where(self, key: str) -> str:
        return f"{self.store.uri}/{key}"

    def _columns(self, file: parquet.ParquetFile, key: str) -> Columns:
        return read_columns(file.schema_arrow, key, self._where(key))

    # Planning

    def pieces(self) -> Iterator[Piece]:
        """The row groups, of which the footers and the column `split` are read.

        Raises UserError where the columns of a file are not what they are elsewhere, or a split is unknown.
        """
        images = size = 0
        for found, (pieces, splits) in ahead(self._plan, self._files(), lambda _: FOOTER_BYTES):
            self.splits |= {"validation", "test"} & splits
            if any("reason" in piece for piece in pieces):
                # Nobody knows how many images a damaged file holds: as many as those before it, by its size.
                rows, taken = (images, size) if images else self.sample
                pieces = [{**pieces[0], "images": max(1, found.size * rows // taken)}]
            else:
                images, size = images + sum(piece["images"] for piece in pieces), size + found.size
            for piece in pieces:
                yield {"key": found.key, "size": found.size, "version": found.version, **piece}

    def _plan(self, found: Object) -> tuple[list[Piece], set[str | None]]:
        """The row groups of a file, and the splits that there are in it."""
        try:
            with self.store.open(found.key, found.version) as stream:
                file = parquet.ParquetFile(stream, pre_buffer=False)
                columns = self._columns(file, found.key)
                self._require_shape(columns, found.key)
                return _row_groups(file), self._splits(file, columns, found.key)
        except NotFound:
            raise self._vanished(found.key) from None
        except UNREADABLE as error:
            return [rejected("undecodable", f"is no Parquet file ({first_line(error)})")], set()

    def _require_shape(self, columns: Columns, key: str) -> None:
        if columns.shape != self.shape:
            mine, others = (f"raw pixels {by(shape)}" if shape else "files" for shape in (columns.shape, self.shape))
            raise UserError(f"{self._where(key)} has images as {mine}, the first file as {others}; give one kind")

    def _splits(self, file: parquet.ParquetFile, columns: Columns, key: str) -> set[str | None]:
        if columns.split:
            batches = file.iter_batches(columns=[columns.split], use_threads=False)
            names = {name for batch in batches for name in batch[columns.split].unique().to_pylist()}
        else:
            names = {columns.folders.get("split")}
        return {self._split(name, key) for name in names}

    def _split(self, name: str | None, key: str) -> str | None:
        """The split of that name; without one, what the path of the file says."""
        return read_split(name, self._where(key)) if name else split_of_path(key)

    def _vanished(self, key: str) -> StepError:
        return StepError(f"{self._where(key)} vanished while it was read; run the pipeline again")

    # Reading

    def examples(self, pieces: Sequence[Piece]) -> Iterator[Example | Rejected]:
        for (key, version), run in groupby(pieces, lambda piece: (piece["key"], piece["version"])):
            row_groups = list(run)
            if "reason" in row_groups[0]:
                damaged = row_groups[0]
                yield Rejected(key, damaged["reason"], damaged["detail"], entries=damaged.get("images", 1))
                continue
            try:
                found = Object(key, row_groups[0]["size"], version)
                with _Pages(self._where(key), Blocks(self.store, found)) as stream:
                    yield from self._images(key, stream, row_groups)
            except NotFound:
                raise self._vanished(key) from None

    def _images(self, key: str, stream: "_Pages", pieces: Sequence[Piece]) -> Iterator[Example | Rejected]:
        """The images of some row groups of a file."""
        file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=BUFFER)
        columns = self._columns(file, key)
        stream.expect([file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups)])
        for piece in pieces:
            row, end = piece["row"], piece["row"] + piece["images"]
            # The footer does not say how large an image is that stands in a dictionary: it is seen by the first.
            batches = file.iter_batches(1, [piece["row_group"]], _read(file, columns), use_threads=False)
            try:
                for batch in batches:
                    yield from self._rows(batch, columns, key, row)
                    row += len(batch)
                    fitting = BATCH_BYTES * len(batch) // max(1, batch.nbytes)
                    file.reader.set_batch_size(max(1, min(2 * len(batch), fitting, BATCH_ROWS)))
            except UNREADABLE as error:
                detail = f"and the rest of its row group: {first_line(error)}"
                yield Rejected(f"{key}#{row}", "undecodable", detail, entries=max(1, end - row))

    def _rows(self, batch: pa.RecordBatch, columns: Columns, key: str, first: int) -> Iterator[Example | Rejected]:
        images = _contents(batch[columns.image]).to_pylist()
        texts = [columns.labels(batch), columns.texts(batch, "split"), columns.texts(batch, "group")]
        for row, (content, label, split, group) in enumerate(zip(images, *texts, strict=True), start=first):
            name = f"{key}#{row}"
            if content is None:
                yield Rejected(name, "empty", "has no bytes in its row")
            elif len(content) > LARGEST:
                yield too_large(name, len(content))
            elif label is None:
                yield Rejected(name, "no label", "has no label, or one that is no class's number", content)
            else:
                yield Example(name, label, content, self._split(split, key), group)


def is_parquet(key: str) -> bool:
    """Whether a file is one of Parquet by its name."""
    return key.lower().endswith(".parquet")


def _row_groups(file: parquet.ParquetFile) -> list[Piece]:
    """Asks nothing about the columns: where their metadata are damaged, pyarrow 26 ends the whole process."""
    pieces: list[Piece] = []
    row = 0
    for number in range(file.num_row_groups):
        group = file.metadata.row_group(number)
        if group.num_rows < 0 or group.total_byte_size < 0:
            raise ValueError("a row group has less than no rows")
        if group.num_rows:
            pieces.append({"row_group": number, "row": row, "images": group.num_rows, "bytes": group.total_byte_size})
        row += group.num_rows
    return pieces


class _Pages(io.BufferedReader):
    """A file that raises UserError when a page is wanted that has more than `LARGEST_PAGE` unpacked."""

    def __init__(self, name: str, blocks: Blocks) -> None:
        super().__init__(blocks)
        self.where, self.size = name, blocks.found.size
        self.grows = 1.0
        """How many times as large its pages are unpacked, about."""

    def expect(self, row_groups: Sequence[int]) -> None:
        """Takes note of how many bytes the row groups have unpacked."""
        self.grows = max(1.0, sum(row_groups) / self.size)
        # Of pages that are smaller packed nobody is asked by themselves.
        if BUFFER * self.grows > LARGEST_PAGE:
            self._require("row group", max(row_groups))

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > BUFFER:
            self._require("page", int(size * self.grows))
        return super().read(size)

    def _require(self, what: str, size: int) -> None:
        if size > LARGEST_PAGE:
            raise UserError(
                f"{self.where} has a {what} of {size >> 20} MiB, and up to {LARGEST_PAGE >> 20} MiB are read; "
                "write it anew with row groups of 100 images"
            )


def _read(file: parquet.ParquetFile, columns: Columns) -> list[str]:
    """The columns to read, of a struct the bytes alone."""
    struct = pa.types.is_struct(file.schema_arrow.field(columns.image).type)
    return [f"{name}.bytes" if struct and name == columns.image else name for name in columns.read]


def _contents(images: pa.Array) -> pa.Array:
    """The bytes of each image; null where the image is."""
    return images.flatten()[0] if pa.types.is_struct(images.type) else images
