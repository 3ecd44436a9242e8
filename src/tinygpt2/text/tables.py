"""Rows of CSV and Parquet files as documents."""

import csv
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from tinygpt2._internal.checks import brief
from tinygpt2.text.archives import COMPRESSED
from tinygpt2.text.reading import TextReader
from tinygpt2.text.rows import as_document, no_column, pieces_between

_LONGEST_FIELD = 2**31 - 1  # characters of a field of CSV
_ROWS = 1000  # of a Parquet table to convert at a time
_BUFFER = 1 << 20  # bytes of a column of it to read at a time


def table_rows(reader: TextReader, field: str, delimiter: str) -> Iterator[str]:
    """Yields the documents of a CSV file: the column of that name in its first row."""
    rows = csv.reader((f"{line}\n" for line in pieces_between(reader, "\n")), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    column = 0
    while True:
        place = f"{reader.name}, line {rows.line_num + 1:,}"
        try:
            with _LONG_FIELDS:
                row = next(rows, None)
        except csv.Error as error:
            raise ValueError(f"{place}: {_bad_row(error)}") from None
        if row is None:
            return
        if not row:
            continue
        if header is None:
            header, column = row, _column(reader.name, row, field)
        elif len(row) != len(header):
            raise ValueError(
                f"{place}: expected {len(header):,} fields, as in the header, got {len(row):,}; quote texts with "
                f'{"a tab" if delimiter == chr(9) else repr(delimiter)} or a line break in them: "..."'
            )
        else:
            yield as_document(f"{place}: {field!r}", row[column])


def _column(name: str, header: list[str], field: str) -> int:
    if header.count(field) > 1:
        raise ValueError(f"{name} has {header.count(field)} columns {field!r}; rename all but one of them")
    if field in header:
        return header.index(field)
    plain = ""
    if other := next((each for each in ";|\t," if field in header[0].split(each)), None):
        plain = f"; its columns are separated by {other!r}: save it with commas as .csv, or with tabs as .tsv"
    elif len(header) == 1:
        plain = (
            "; if it is a list without a header, read it as a plain text, from a name that ends in .txt or from "
            "standard input, with the separator '\\n'"
        )
    raise ValueError(f"{name}, line 1: the header {no_column(field, header)}{plain}")


def _bad_row(error: csv.Error) -> str:
    if str(error) == "unexpected end of data":
        return 'a quote that opens in this row is never closed; close it, or double a quote that belongs to a text: ""'
    if str(error).startswith("new-line character"):
        return "a carriage return without a line feed; convert the line ends: tr '\\r' '\\n' < old.csv > new.csv"
    return f'the row cannot be read ({error}); within quotes, double a quote that belongs to a text: ""'


class _LongFields:
    """Lifts `csv`'s limit of 131,072 characters for a field, which is one for the whole process, while it is entered.

    Several threads may have entered it; the last to leave restores the limit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entered = self._limit = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._entered:
                self._limit = csv.field_size_limit(_LONGEST_FIELD)
            self._entered += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._entered -= 1
            if not self._entered:
                csv.field_size_limit(self._limit)


_LONG_FIELDS = _LongFields()


def check_can_read_parquet(path: Path) -> None:
    """Raises an error if a Parquet file is compressed as a whole, is a pipe, or there is no module that reads it.

    Raises:
        ImportError: If pyarrow is not installed.
        ValueError: If it is no regular file, or compressed.
    """
    if path.suffix.lower() in COMPRESSED:
        raise ValueError(f"{path} is a compressed Parquet table, which cannot be read in parts; decompress it first")
    if not path.is_file():
        raise ValueError(f"{path} is a pipe, but a Parquet table is read from its end; pass a file")
    _import_pyarrow(path)


class ParquetRows:
    """The documents of a Parquet file, a part of a row group at a time.

    Attributes:
        position: Number of bytes of the file read so far, by the share of its rows.

    Args:
        path: The file.

    Raises:
        ImportError: If pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._pyarrow, self._parquet = _import_pyarrow(path)
        self._path = path
        self.position = 0

    def documents(self, field: str) -> Iterator[str]:
        """Yields the column of that name."""
        number, size = 0, self._path.stat().st_size
        with self._errors_named():
            file = self._parquet.ParquetFile(self._path, buffer_size=_BUFFER)
        with file:
            names = file.schema_arrow.names
            if field not in names:
                raise ValueError(f"{self._path}: the table {no_column(field, names)}")
            batches = file.iter_batches(batch_size=_ROWS, columns=[field])
            while (values := self._next(batches)) is not None:
                for value in values:
                    number += 1
                    yield as_document(f"{self._path}, row {number:,}: {field!r}", value)
                self.position = size * number // file.metadata.num_rows
        self.position = size

    def _next(self, batches: Iterator[Any]) -> list[object] | None:
        with self._errors_named():
            batch = next(batches, None)
            return None if batch is None else batch.column(0).to_pylist()

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except (self._pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{self._path} is no Parquet table, cut off or damaged ({brief(error)}); make or download it again"
            ) from None


def _import_pyarrow(path: Path) -> tuple[Any, Any]:
    """Returns the modules that read a Parquet file."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ImportError(f"reading {path} needs pyarrow: pip install 'tinygpt2[parquet]'") from error
