"""Reading, cleaning and splitting of texts."""

import codecs
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

from tinygpt2._internal.checks import check_number
from tinygpt2._internal.files import PathLike

_PIECE = 8 << 20  # bytes to read at a time


def sample_text() -> str:
    """Returns the built-in sample text: an article on the First World War, of about 90,000 characters.

    It was written for tinygpt2 and has the package's licence.

    >>> sample_text().splitlines()[0]
    'The First World War'
    """
    return files("tinygpt2").joinpath("assets/sample_text.txt").read_text(encoding="utf-8")


def read_text(path: str | os.PathLike[str]) -> str:
    r"""Returns a UTF-8 text file, whatever the locale; drops a byte order mark and turns ``\r\n`` into ``\n``.

    Raises:
        FileNotFoundError: If there is no such file; other ``OSError`` if it cannot be read.
        ValueError: If the file is not UTF-8, with the offset of the first invalid byte.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory, "from-windows.txt")
    ...     _ = path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    ...     read_text(path)
    'one\ntwo\n'
    """
    return "".join(Utf8Reader(path))


def clean_text(text: str) -> str:
    r"""Strips whitespace from both ends of every line and drops lines that are then empty.

    >>> clean_text("  one \n\n\t two\n")
    'one\ntwo'
    """
    stripped = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in stripped if line)


def split_text(text: str, train_ratio: float = 0.8) -> tuple[str, str]:
    """Splits a text at a character into a first part to train on and the rest to validate on.

    Args:
        text: Any text of at least two characters.
        train_ratio: Share of the characters in the first part, greater than 0 and less than 1.

    Raises:
        ValueError: If the ratio is out of range, or a part would be empty.

    >>> split_text("abcdefghij", train_ratio=0.8)
    ('abcdefgh', 'ij')
    """
    check_number("train_ratio", train_ratio, maximum=1, above_minimum=True, below_maximum=True)
    cut = int(train_ratio * len(text))
    if cut == 0 or cut == len(text):
        raise ValueError(
            f"a text of {len(text)} characters cannot be split at train_ratio={train_ratio}: one part would be empty; "
            "pass a longer text"
        )
    return text[:cut], text[cut:]


class Utf8Reader:
    r"""A UTF-8 file as pieces of text, without a byte order mark and with ``\r\n`` turned into ``\n``.

    Raises:
        ValueError: During iteration, if the file is not UTF-8, with the offset of the first invalid byte.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def __iter__(self) -> Iterator[str]:
        """Yields the text."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        read, begun = 0, False
        held = ""  # a carriage return at the end of a piece waits for the next piece
        with self.path.open("rb") as file:
            while True:
                content = file.read(_PIECE)
                pending = len(decoder.getstate()[0])
                try:
                    text = decoder.decode(content, final=not content)
                except UnicodeDecodeError as error:
                    self._refuse(read - pending + error.start, error.object[error.start])
                begins, begun = bool(text) and not begun, begun or bool(text)
                text = held + (text.removeprefix("\ufeff") if begins else text)
                held = "\r" if content and text.endswith("\r") else ""
                yield text.removesuffix(held).replace("\r\n", "\n")
                read += len(content)
                if not content:
                    return

    def _refuse(self, offset: int, byte: int) -> NoReturn:
        raise ValueError(
            f"{self.path} is not UTF-8: byte 0x{byte:02x} at offset {offset}; "
            "save it as UTF-8 in your editor, or convert it: iconv -f GB18030 -t UTF-8 old.txt > new.txt "
            "(with its actual encoding after -f)"
        ) from None
