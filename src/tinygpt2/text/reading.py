"""Reading, cleaning and splitting of texts."""

import codecs
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import IO, NoReturn

from tinygpt2._internal.checks import check_path
from tinygpt2._internal.files import PathLike
from tinygpt2._internal.texts import check_text
from tinygpt2.text.archives import Decompressed, decompressed
from tinygpt2.text.recognition import SAMPLE, advice_on_bytes, nul_bytes, open_file, unlike_text

_PIECE = 1 << 18  # bytes to read at a time: few enough for a processor's cache
_PLACEHOLDERS = {"file": "FILE", "path": "path"}


def sample_text() -> str:
    """Returns the built-in sample text: an article on the First World War, of about 90,000 characters.

    It was written for tinygpt2 and has the package's licence.

    >>> sample_text().splitlines()[0]
    'The First World War'
    """
    return files("tinygpt2").joinpath("assets/sample_text.txt").read_text(encoding="utf-8")


def read_text(path: str | os.PathLike[str]) -> str:
    r"""Returns the text of a UTF-8 file or pipe, without a byte order mark and with ``\r\n`` turned into ``\n``.

    A file whose name ends in .gz, .bz2, .xz or .zst is decompressed.

    Raises:
        FileNotFoundError: If there is no such file, with the one that has a similar name; other ``OSError`` if it
            cannot be read.
        ImportError: If it is compressed with zstd, and Python is older than 3.14 and has no ``backports.zstd``.
        TypeError: If it is not a path.
        ValueError: If the file is not UTF-8, with what it is instead or the offset of the first invalid byte, or is
            damaged, and what to do about it.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory, "from-windows.txt")
    ...     _ = path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    ...     read_text(path)
    'one\ntwo\n'
    """
    with open_text(path) as reader:
        return "".join(reader)


def clean_text(text: str) -> str:
    r"""Strips whitespace from both ends of every line and drops lines that are then empty.

    Raises:
        TypeError: If it is not a ``str``; join several: ``"\n".join(texts)``.

    >>> clean_text("  one \n\n\t two\n")
    'one\ntwo'
    """
    check_text("text", text)
    stripped = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in stripped if line)


class TextReader:
    r"""The text of a file or a pipe, which is read once, in pieces.

    A byte order mark is dropped, and ``\r\n`` becomes ``\n``.

    Attributes:
        name: What messages call it.
        bytes_read: Number of bytes of the text read so far.

    Args:
        file: The open file, decompressed; `open_text` opens one.
        path: Its path, or ``None`` for standard input.

    Raises:
        ValueError: During iteration, if it is not a text in UTF-8, with what it is and what to do.
    """

    def __init__(self, file: IO[bytes] | Decompressed, path: Path | None = None) -> None:
        self.name = "standard input" if path is None else str(path)
        self._file, self._path = file, path
        self.bytes_read = 0
        self._start = self._read(SAMPLE)

    @property
    def position(self) -> int:
        """Number of bytes of the file read so far, compressed if it is."""
        return self._file.position if isinstance(self._file, Decompressed) else self.bytes_read

    def __iter__(self) -> Iterator[str]:
        """Yields the text."""
        if reason := unlike_text(self._start, self.name):
            again = self._path is not None and self._path.is_file()  # unlike a pipe
            names = {"file": shlex.quote(self.name), "path": repr(self.name)} if again else _PLACEHOLDERS
            raise ValueError(f"{self.name} {reason.format(**names)}")
        held, begun = "", False  # a carriage return at the end of a piece waits for the next piece
        for piece in self._decoded():
            text = held + (piece if begun else piece.removeprefix("\ufeff"))
            begun = begun or bool(piece)
            held = "\r" if text.endswith("\r") else ""
            yield text.removesuffix(held).replace("\r\n", "\n") if "\r" in text else text
        yield held

    def _decoded(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        offset, content = 0, self._start
        while True:
            pending = decoder.getstate()[0]
            if (nul := content.find(0)) >= 0:
                raise ValueError(f"{self.name} {nul_bytes(offset + nul)}")
            try:
                yield decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                self._refuse(error, offset - len(pending))
            offset += len(content)
            if not content:
                return
            content = self._read(_PIECE)

    def _read(self, size: int) -> bytes:
        """Returns the next bytes; an error names the file, which whoever reads may be copying into another."""
        try:
            content = self._file.read(size)
        except OSError as error:
            if error.filename is None:
                error.filename = self.name
            raise
        self.bytes_read += len(content)
        return content

    def _refuse(self, error: UnicodeDecodeError, offset: int) -> NoReturn:
        raise ValueError(
            f"{self.name} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {offset + error.start}; "
            f"{advice_on_bytes(error.object, error.start)}"
        ) from None


@contextmanager
def open_text(path: PathLike) -> Iterator[TextReader]:
    """Opens a text, or a pipe that brings one, for the one time that it can be opened.

    Whether it is compressed is known from its name alone; in a pipe without such a name it is not.

    Raises:
        OSError: If it cannot be opened, with what to do about it.
    """
    path = check_path("path", path)
    with open_file(path) as file:
        yield TextReader(decompressed(file, path), path)


@contextmanager
def open_standard_input() -> Iterator[TextReader]:
    """Opens the text that standard input brings, which is never compressed.

    Raises:
        ValueError: If there is none.
    """
    if sys.stdin is None:
        raise ValueError("there is no standard input; pass a file")
    yield TextReader(sys.stdin.buffer)
