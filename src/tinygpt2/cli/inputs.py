"""The files that a command line names: texts, pipes, and standard input."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tinygpt2.data.token_file import TokenFile
from tinygpt2.text.reading import TextReader, open_text
from tinygpt2.text.recognition import check_input

STANDARD_INPUT = "-"


def check_inputs(files: Sequence[str]) -> list[int | None]:
    """Returns the sizes of files in bytes, ``None`` for a pipe, without opening any.

    Raises:
        OSError: If there is no such file, or it cannot be read.
        ValueError: If standard input is named twice.
    """
    if files.count(STANDARD_INPUT) > 1:
        raise ValueError("standard input (-) can be read once; name it once")
    return [_size(file) for file in files]


def _size(file: str) -> int | None:
    found = None if file == STANDARD_INPUT else check_input(Path(file))
    return found.st_size if found is not None and can_be_read_again(file) else None


def can_be_read_again(file: str) -> bool:
    """Returns whether a file is there for another process: it is no pipe, and no name for one of this process."""
    if file == STANDARD_INPUT:
        return False
    path = os.path.realpath(file)
    return os.path.isfile(path) and not path.startswith(("/dev/fd/", "/proc/"))  # noqa: PTH113


@contextmanager
def open_input(file: str) -> Iterator[TextReader]:
    """Opens a file, or standard input, for the one time that it can be opened."""
    if file != STANDARD_INPUT:
        with open_text(file) as reader:
            yield reader
    elif sys.stdin is None:
        raise ValueError("there is no standard input; pass a file")
    else:
        yield TextReader(sys.stdin.buffer)


def token_file(file: str, reader: TextReader) -> TokenFile:
    """Opens a file of tokens.

    Raises:
        ValueError: If it comes through a pipe.
    """
    if not can_be_read_again(file):
        raise ValueError(f"{reader.name} brings a file of tokens, which is memory-mapped: pass its path, not a pipe")
    return TokenFile(file)


def is_blank(text: str) -> bool:
    """Returns whether a text is empty, or only whitespace."""
    return not text or text.isspace()


def check_not_blank(names: Sequence[str], size: int, *, blank: bool) -> None:
    """Raises ``ValueError`` if files that were read to their ends have no text."""
    if blank:
        raise ValueError(f"{', '.join(names)}: the text is {f'only whitespace ({size:,} bytes)' if size else 'empty'}")
