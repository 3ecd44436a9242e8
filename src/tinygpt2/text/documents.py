"""Documents: the texts that files, tables and data sets hold, one at a time."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from tinygpt2._internal.checks import can_be_iterated, of_type
from tinygpt2._internal.files import PathLike
from tinygpt2._internal.texts import check_text, check_texts, is_table, utf8_size
from tinygpt2.text.reading import TextReader, open_standard_input, open_text
from tinygpt2.text.rows import json_lines, json_values, no_column, pieces_between
from tinygpt2.text.sources import TEXT, Source, find_sources
from tinygpt2.text.tables import ParquetRows, check_can_read_parquet, table_rows

END_OF_TEXT = "<|endoftext|>"
"""How the end of a text is often typed in a file; it is text unless it is the separator."""

_ROWS = 1000  # of a data set to read at a time
_NAMED = 3  # files in a message

_READERS: dict[str, Callable[[TextReader, str], Iterator[str]]] = {
    "JSON lines": json_lines,
    "JSON": json_values,
    "CSV": partial(table_rows, delimiter=","),
    "TSV": partial(table_rows, delimiter="\t"),
}


def read_documents(
    paths: PathLike | Iterable[PathLike], *, field: str = "text", separator: str | None = None
) -> Iterator[str]:
    r"""Yields the documents in files, one after another, so that files may be larger than memory.

    The ending of a file's name says what is in it:

    - ``.txt``, ``.text``, ``.md``, ``.markdown`` and any other: one text, or several between separators.
    - ``.jsonl``, ``.ndjson``: on each line a string, or an object with the field.
    - ``.json``: a list of those, or the same as ``.jsonl``.
    - ``.csv``, ``.tsv``: the column of that name in the first row.
    - ``.parquet``: the column of that name; needs the extra ``parquet``.

    Each but the last may be compressed: ``.gz``, ``.bz2``, ``.xz``, ``.zst`` (before Python 3.14: the extra ``zstd``).
    All are UTF-8; a byte order mark is dropped, and ``\r\n`` becomes ``\n`` everywhere. Documents that are empty or
    only whitespace are left out.

    Args:
        paths: One or several: files; directories, for all files in them and below that have one of those endings,
            sorted by name, without hidden ones; patterns such as ``"data/**/*.jsonl"``, for the files that match,
            sorted; ``"-"`` for standard input, which is a text. A file that is named twice is read once.
        field: Name of the field or column with the texts, where there are rows.
        separator: What is between two documents in a text, for instance ``"\n"`` if each line is one, or
            ``"<|endoftext|>"``; it belongs to neither. By default, a text is one document.

    Raises:
        FileNotFoundError: If there is no such file, with the one that has a similar name; other ``OSError`` if it
            cannot be read.
        ImportError: If an extra is missing, with how to install it.
        TypeError: If an argument is of the wrong type.
        ValueError: If a pattern matches no file or a directory has none with a known ending; while reading, with the
            file and the line: if the field is missing or is no text, or a file is not what its name says, is cut off or
            damaged; and at the end, if the separator never occurred, or there was no document.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     names, rows = (Path(directory, name) for name in ("a.txt", "b.jsonl"))
    ...     _ = names.write_text("Emma\nOlivia\n")
    ...     _ = rows.write_text('{"id": 1, "text": "The fog comes"}\n')
    ...     list(read_documents(directory, separator="\n"))
    ['Emma', 'Olivia', 'The fog comes']
    """
    return iter(DocumentReader(paths, field=field, separator=separator))


class DocumentReader:
    """The documents in files, and what is known about them; arguments and errors of `read_documents`.

    Iterating again begins anew, unless there is a pipe.

    Attributes:
        files: The files in their order; ``None`` is standard input.
        names: What messages call them.
        repeated: How often one of them was named again.
        left_out: Number of files in directories that were left out, since their endings are unknown.
        total_bytes: Size of all files in bytes, as they lie on the disk; ``None`` if there is a pipe.
        bytes_read: Number of those bytes read so far.
        text_bytes: Number of bytes of the documents so far, in UTF-8.
        documents: Number of documents so far.
        empty: Number of documents left out so far, as they were empty or only whitespace.
        has_end_of_text: Whether a document so far has ``<|endoftext|>`` in it, where a separator may be meant.
        single_text: Whether it is one continuous text: a single plain file, without a separator. Then `pieces` has it.
    """

    def __init__(
        self, paths: PathLike | Iterable[PathLike], *, field: str = "text", separator: str | None = None
    ) -> None:
        self._field = _check_str("field", field)
        self._separator = None if separator is None else _check_str("separator", separator).replace("\r\n", "\n")
        found = find_sources(paths)
        self._sources, self.repeated, self.left_out = found.sources, found.repeated, found.left_out
        sizes = [source.size for source in self._sources]
        self.files = [source.path for source in self._sources]
        self.names = ["standard input" if path is None else str(path) for path in self.files]
        self.total_bytes = None if None in sizes else sum(filter(None, sizes))
        texts = [source.kind == TEXT for source in self._sources]
        self.single_text = texts == [True] and separator is None
        if separator is not None and not any(texts):
            raise ValueError(
                f"separator {separator!r} is for plain texts, but there are only rows in {_listed(self.names)}; leave "
                "it out"
            )
        for source in self._sources:
            if source.kind == "Parquet" and source.path is not None:
                check_can_read_parquet(source.path)
        self._iterated = False
        self._begin()

    def _begin(self) -> None:
        if self._iterated and self.total_bytes is None:
            raise ValueError(f"{_listed(self.names)}: a pipe can be read once; keep its documents: list(documents)")
        self.documents = self.empty = self.text_bytes = self._done = 0
        self.has_end_of_text = self._separated = False
        self._current: TextReader | ParquetRows | None = None

    @property
    def bytes_read(self) -> int:
        """Number of bytes of the files read so far."""
        return self._done + (0 if self._current is None else self._current.position)

    def __iter__(self) -> Iterator[str]:
        self._begin()
        return self._documents()

    def _documents(self) -> Iterator[str]:
        self._iterated = True
        for source in self._sources:
            for text in self._texts(source):
                if not text or text.isspace():
                    self.empty += 1
                    continue
                self.documents += 1
                self._note(text)
                yield text
        self._check_not_empty()
        if self._separator is not None and not self._separated:
            raise ValueError(
                f"the separator {self._separator!r} is not in {_listed(self.names)}; pass one that is, or none to take "
                "each file as one document"
            )

    def pieces(self) -> Iterator[str]:
        """Yields the text of a `single_text` in pieces, so that it may be larger than memory; it is one document."""
        if not self.single_text:
            raise ValueError(f"{_listed(self.names)}: only a single plain text without a separator has pieces")
        self._begin()
        return self._pieces()

    def _pieces(self) -> Iterator[str]:
        self._iterated = True
        end = ""  # of the last piece, where END_OF_TEXT may begin
        with self._open_text(self._sources[0]) as reader:
            for piece in reader:
                if not self.documents and piece and not piece.isspace():
                    self.documents = 1
                self._note(piece, after=end)
                end = (end + piece)[1 - len(END_OF_TEXT) :]
                yield piece
        self.empty = 1 - self.documents
        self._check_not_empty()

    def _note(self, text: str, *, after: str = "") -> None:
        self.text_bytes += utf8_size(text)
        self.has_end_of_text = self.has_end_of_text or END_OF_TEXT in after + text

    def _texts(self, source: Source) -> Iterator[str]:
        if source.kind == "Parquet" and source.path is not None:
            self._current = table = ParquetRows(source.path)
            yield from table.documents(self._field)
            self._finish()
            return
        with self._open_text(source) as reader:
            if source.kind != TEXT:
                yield from _READERS[source.kind](reader, self._field)
            elif self._separator is None:
                yield "".join(reader)
            else:
                yield from self._between(reader, self._separator)

    def _between(self, reader: TextReader, separator: str) -> Iterator[str]:
        last: str | None = None
        for text in pieces_between(reader, separator):
            if last is not None:
                self._separated = True
                yield last
            last = text
        if last:  # after a separator at the end there is no document
            yield last

    @contextmanager
    def _open_text(self, source: Source) -> Iterator[TextReader]:
        with open_standard_input() if source.path is None else open_text(source.path) as reader:
            self._current = reader
            yield reader
            self._finish()

    def _finish(self) -> None:
        self._done = self.bytes_read
        self._current = None

    def _check_not_empty(self) -> None:
        if self.documents:
            return
        if self.single_text:
            what = f"the text is {f'only whitespace ({self.bytes_read:,} bytes)' if self.bytes_read else 'empty'}"
        else:
            what = "there are no documents" + (f"; left out as empty: {self.empty:,}" if self.empty else "")
        raise ValueError(f"{_listed(self.names)}: {what}")


def _check_str(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {of_type(value)}")
    if not value:
        raise ValueError(f"{name} must be at least one character, got {value!r}")
    return value


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= _NAMED else f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED:,} more"


# --- other libraries' ---


def documents_of(name: str, source: object, field: str = "text") -> Iterable[str]:
    """Returns the documents that a value holds, lazily and in its order.

    Args:
        name: Name of the value in error messages.
        source: Several ``str``, or rows with a field (``{"text": "..."}``): a list, an iterator, a column of a table or
            of a data set, any other iterable; or a table of pandas, polars or pyarrow, or a data set of Hugging Face,
            with a column of texts. Data sets are read a thousand rows at a time.
        field: Name of that field or column.

    Raises:
        TypeError: If it is anything else; during iteration, if an item is no ``str``.
        ValueError: If there is no column of that name, with those that there are; during iteration, if a row has no
            such field or an item has a lone surrogate.
    """
    table = getattr(source, "source", None)
    if is_table(table) and isinstance(column := getattr(source, "column_name", None), str):
        source, field = table, column  # of a column of a data set, which itself reads row by row
    if is_table(source):
        return _checked(name, _column(name, source, field), field)
    return _checked(name, check_texts(name, source), field)


def _column(name: str, table: Any, field: str) -> Iterable[object]:  # noqa: ANN401 - of any library
    """Returns the items in a column of a table or a data set."""
    names = table.column_names if hasattr(table, "column_names") else table.columns
    if isinstance(names, Mapping):
        splits = ", ".join(f"{name}[{split!r}]" for split in names)
        raise TypeError(f"{name} must be one data set, got a {type(table).__name__} of several; pass one: {splits}")
    if names is not None and not _is_transformed(table) and (count := list(names).count(field)) != 1:
        problem = f"has {count} columns {field!r}; rename all but one of them" if count else no_column(field, names)
        raise ValueError(f"{name} {problem}")
    return _batches(table, field) if hasattr(table, "iter") else table[field]


def _is_transformed(table: Any) -> bool:  # noqa: ANN401 - of any library
    """Returns whether it is a data set whose columns a function makes, maybe from all columns."""
    form = getattr(table, "format", None)
    return isinstance(form, Mapping) and form.get("type") == "custom"


def _batches(data_set: Any, field: str) -> Iterator[object]:  # noqa: ANN401 - of Hugging Face
    """Yields the items of a column of a data set, in which reading one row at a time is slow."""
    if data_set.column_names is not None and not _is_transformed(data_set):
        data_set = data_set.select_columns([field])
    for batch in data_set.iter(_ROWS):
        if field not in batch:
            raise ValueError(f"the data set {no_column(field, batch)}")
        yield from batch[field]


def _checked(name: str, items: Iterable[object], field: str) -> Iterator[str]:
    for i, item in enumerate(items):
        place = f"{name}[{i}]"
        if isinstance(item, Mapping):
            if field not in item:
                raise ValueError(f"{place} {no_column(field, item)}")
            place, item = f"{place}[{field!r}]", item[field]  # noqa: PLW2901
        if not isinstance(item, str):
            item = _plain(item)  # noqa: PLW2901
        if not isinstance(item, str):
            raise TypeError(f"{place} must be a str, got {of_type(item)}{_missing(item)}")
        yield check_text(place, item)


def _plain(item: Any) -> object:  # noqa: ANN401 - of any library
    """Returns the value of a scalar of pyarrow, and any other as it is."""
    return item.as_py() if hasattr(item, "as_py") else item


def _missing(item: object) -> str:
    missing = item is None or (isinstance(item, float) and math.isnan(item)) or type(item).__name__ == "NAType"
    return "; drop the rows without a text: in pandas, .dropna()" if missing else ""


def texts_of(name: str, source: object) -> Iterable[str]:
    """Returns the only text that a ``str`` is, or the documents that another value holds, as `documents_of` does.

    Raises:
        TypeError: If it is neither.
        ValueError: If it has a lone surrogate; with documents, during iteration.
    """
    several = can_be_iterated(source) and not isinstance(source, str | bytes | bytearray)
    return documents_of(name, source) if several else [check_text(name, source)]
