"""A table, CSV or Parquet, of image files and their labels: `uri` and `label`, and if need be `split` and `group`.

A URI is a path from the folder of the table on, or begins with s3://.
"""

import csv
import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from posixpath import normpath
from typing import BinaryIO, NamedTuple

import pyarrow.parquet as parquet

from components.source.ahead import ahead, growing
from components.source.columns import UNREADABLE, first_line, listed, require_type
from components.source.example import Example, Piece, Rejected, Shape
from components.source.files import Wanted, read_files, rejected
from components.source.parquet import BUFFER, is_parquet
from components.source.split import read_split
from components.step import StepError, UserError
from components.storage import LeadsOut, NotFound, Store, check_key, open_store

COLUMNS = ("uri", "label", "split", "group")
REQUIRED = COLUMNS[:2]

LONGEST = 2**20
"""Bytes of a line of CSV."""
ROWS = 64
"""Whose files are looked up one after another by a thread."""


class Row(NamedTuple):
    """A row of a table; what is empty is None."""

    number: int
    """Of the line in the file, or from 0 on in Parquet."""
    uri: str | None
    label: str | None
    split: str | None
    group: str | None


class Table:
    """A table in a file; a row is a piece."""

    kind = "table"
    by_file = True
    shape: Shape | None = None

    def __init__(self, store: Store, only: str) -> None:
        """Raises UserError where a column is missing."""
        self.store, self.only = store, only
        self.uri = f"{store.uri}/{only}"
        self.splits: frozenset[str] = frozenset()
        self.passed_over: Counter[str] = Counter()
        self.folder = only[: only.rfind("/") + 1]
        self.buckets = cache(open_store)
        next(iter(self._rows()), None)

    def pieces(self) -> Iterator[Piece]:
        """The rows with the versions of their files, which are looked up.

        Raises UserError, which names the row, where the table is damaged or the name of a split unknown.
        """
        for _, pieces in ahead(self._look_up, _batches(self._rows()), lambda _: 0):
            for piece in pieces:
                self.splits |= {"validation", "test"} & {piece.get("split")}
                yield piece

    def examples(self, pieces: Sequence[Piece]) -> Iterator[Example | Rejected]:
        return read_files(map(self._wanted, pieces))

    def _wanted(self, piece: Piece) -> Wanted:
        store, key = (self.store, "") if "reason" in piece else self._place(piece["uri"])
        return Wanted(store, key, f"{self.only}#{piece['row']} {piece['uri'] or ''}".rstrip(), piece)

    # Looking up

    def _look_up(self, rows: list[Row]) -> list[Piece]:
        return [{"row": row.number, "uri": row.uri} | self._facts(row) for row in rows]

    def _facts(self, row: Row) -> dict[str, object]:
        split = read_split(row.split, f"{self.uri}, row {row.number},")
        if not row.uri:
            return rejected("unreadable", "has no uri in its row")
        try:
            check_key(self._path(row.uri))
        except UserError:
            return rejected("unsafe name", "is no path below the folder of the table, and no s3:// URI")
        if not row.label:
            return rejected("no label", "has no label in its row")
        store, key = self._place(row.uri)
        try:
            found = store.stat(key)
        except NotFound:
            return rejected("unreadable", "does not exist")
        except LeadsOut:
            return rejected("unsafe name", "leads out of the folder of the table by a symbolic link")
        facts = {"label": row.label, "split": split, "group": row.group, "bytes": found.size, "version": found.version}
        return {name: value for name, value in facts.items() if value is not None}

    def _path(self, uri: str) -> str:
        """Where an image lies in the store of the table; or, with s3://, its bucket and its key there."""
        if uri.startswith("s3://"):
            bucket, _, key = uri.removeprefix("s3://").partition("/")
            return f"{bucket}/{key}"
        return self.folder + (uri if "://" in uri else normpath(uri))

    def _place(self, uri: str) -> tuple[Store, str]:
        """The store and the key of an image."""
        if not uri.startswith("s3://"):
            return self.store, self._path(uri)
        bucket, _, key = self._path(uri).partition("/")
        return self.buckets(f"s3://{bucket}"), key

    # Reading

    def _rows(self) -> Iterator[Row]:
        try:
            with self.store.open(self.only) as file:
                yield from parquet_rows(file, self.uri) if is_parquet(self.only) else csv_rows(file, self.uri)
        except NotFound:
            raise StepError(f"{self.uri} vanished while it was read; run the pipeline again") from None


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    for most in growing(ROWS):
        if not (batch := list(islice(rows, most))):
            return
        yield batch


def parquet_rows(file: BinaryIO, where: str) -> Iterator[Row]:
    """The rows of a table in Parquet. Raises UserError where it is damaged or has other columns or types."""
    try:
        table = parquet.ParquetFile(file, pre_buffer=False, buffer_size=BUFFER)
        schema = table.schema_arrow
        given = choose_columns(schema.names, where, listed(schema))
        for name in given:
            require_type(schema, name, where)
        number = 0
        for batch in table.iter_batches(4096, columns=given, use_threads=False):
            columns = [batch[name].to_pylist() if name in given else [None] * len(batch) for name in COLUMNS]
            for cells in zip(*columns, strict=True):
                yield Row(number, *(None if cell in (None, "") else str(cell) for cell in cells))
                number += 1
    except UNREADABLE as error:
        raise UserError(f"{where} is a damaged Parquet file ({first_line(error)})") from None


def is_table(file: BinaryIO) -> bool:
    """Whether a Parquet file is a table of URIs, and has no images in it."""
    try:
        return "uri" in parquet.ParquetFile(file).schema_arrow.names
    except UNREADABLE:
        return False


def csv_rows(file: BinaryIO, where: str) -> Iterator[Row]:
    """The rows of a table in CSV, with their lines. Raises UserError, which names the line, where it is damaged."""
    reader = csv.reader(_lines(file, where), strict=True)
    try:
        header = next(reader, [])
        given = choose_columns(header, where, f"its first line has {', '.join(header[:8]) or 'none'}")
        places = [header.index(name) if name in given else None for name in COLUMNS]
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise UserError(f"{where}, line {reader.line_num}, has {len(cells)} values, not {len(header)}")
            yield Row(reader.line_num, *(None if place is None else cells[place] or None for place in places))
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num}, is no CSV ({error})") from None


def _lines(file: BinaryIO, where: str) -> Iterator[str]:
    number = 0
    while line := file.readline(LONGEST + 1):
        number += 1
        if len(line) > LONGEST:
            raise UserError(f"{where}, line {number}, is longer than {LONGEST} bytes")
        try:
            # Excel begins its files with a mark of three bytes.
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{where}, line {number}, is no UTF-8 ({error.reason}); save it as UTF-8") from None


def choose_columns(names: Sequence[str], where: str, seen: str) -> list[str]:
    """Those of COLUMNS that are there. Raises UserError where one is missing or probably misspelt."""
    given = [name for name in COLUMNS if name in names]
    others = {name.strip().lower(): name for name in names if name not in COLUMNS}
    for name in COLUMNS:
        if name in given:
            if list(names).count(name) > 1:
                raise UserError(f"{where} has more than one column {name!r}")
            continue
        near = difflib.get_close_matches(name, others, n=1, cutoff=0.8)
        if near or name in REQUIRED:
            hint = f"; did {others[near[0]]!r} mean {name!r}?" if near else ""
            raise UserError(f"{where} must have the columns uri and label, and may have split and group; {seen}{hint}")
    return given
