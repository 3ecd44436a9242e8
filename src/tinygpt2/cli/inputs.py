"""The files that a command line names: texts, documents, tokens, pipes, and standard input."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypeIs

from tinygpt2.data.shards import check_complete
from tinygpt2.data.token_file import TokenFile
from tinygpt2.text.documents import DocumentReader
from tinygpt2.text.recognition import TOKENS_MAGIC, open_file
from tinygpt2.text.sources import STANDARD_INPUT
from tinygpt2.tokenizers.protocol import END_OF_TEXT

Part = str | list[str] | list[TokenFile]
"""A continuous text, documents, or files of tokens."""


def is_of_tokens(part: Part) -> TypeIs[list[TokenFile]]:
    """Returns whether these are files of tokens."""
    return isinstance(part, list) and isinstance(part[0], TokenFile)


def is_stream(file: str) -> bool:
    """Returns whether a name is one of a pipe, or of something that only this process has."""
    if file == STANDARD_INPUT:
        return True
    path = Path(os.path.realpath(file))
    return str(path).startswith(("/dev/fd/", "/proc/")) or (path.exists() and not (path.is_file() or path.is_dir()))


@dataclass(frozen=True)
class Read:
    """What files hold.

    Attributes:
        part: Their text, documents, or tokens.
        files: Their paths, with those in directories; ``None`` is standard input.
        notes: What to say about them.
    """

    part: Part
    files: list[Path | None]
    notes: list[str]


def read_files(files: Sequence[str], field: str, separator: str | None) -> Read:
    """Returns what files hold.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If there is no text, or a file is something else.
    """
    tokens = token_files(files)
    if tokens:
        return Read(tokens, [file.path for file in tokens], [])
    reader = DocumentReader(list(files), field=field, separator=separator)
    source = text_or_documents(reader)
    part = source if isinstance(source, str) else list(source)
    return Read(part, reader.files, notes_on(reader))


def text_or_documents(reader: DocumentReader) -> str | DocumentReader:
    """Returns a continuous text, or what yields documents."""
    return "".join(reader.pieces()) if reader.single_text else reader


def token_files(files: Sequence[str]) -> list[TokenFile]:
    """Returns files of tokens, also those in directories, opened; nothing if they are texts.

    Raises:
        ValueError: If they are both.
    """
    paths = [path for file in files for path in _with_shards(file)]
    of_tokens = [path for path in paths if not is_stream(path) and _holds_tokens(Path(path))]
    if of_tokens and len(of_tokens) < len(paths):
        other = next(path for path in paths if path not in of_tokens)
        raise ValueError(
            f"{of_tokens[0]} is a file of tokens, but {other} is not; tokenize all texts, or pass all of them as texts"
        )
    for directory in filter(os.path.isdir, files):
        check_complete([TokenFile(path) for path in _with_shards(directory) if path in of_tokens])
    return [TokenFile(file) for file in of_tokens]


def _with_shards(file: str) -> list[str]:
    """Returns the files of tokens in a directory, or the name of anything else."""
    shards = sorted(map(str, Path(file).glob("*.tokens"))) if Path(file).is_dir() else []
    return shards or [file]


def _holds_tokens(path: Path) -> bool:
    if not path.is_file():
        return False
    with open_file(path) as file:
        return file.read(len(TOKENS_MAGIC)) == TOKENS_MAGIC


def notes_on(reader: DocumentReader) -> list[str]:
    """Returns what to say about documents that were read."""
    notes = []
    if reader.left_out:
        notes.append(f"note: {_files(reader.left_out)} of other kinds left out of directories")
    if reader.repeated:
        notes.append(f"note: {_files(reader.repeated)} named twice and read once")
    if reader.empty:
        notes.append(f"note: {reader.empty:,} empty {'document' if reader.empty == 1 else 'documents'} left out")
    if reader.has_end_of_text:
        notes.append(
            f"note: {END_OF_TEXT} in the text is ordinary text; if it ends documents, pass --separator '{END_OF_TEXT}'"
        )
    return notes


def _files(count: int) -> str:
    return f"{count:,} {'file' if count == 1 else 'files'}"
