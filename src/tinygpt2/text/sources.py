"""The files that paths, directories and patterns name, and what is in each by its name."""

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from tinygpt2._internal.checks import can_be_iterated, check_path, of_type
from tinygpt2._internal.files import PathLike
from tinygpt2.text.archives import COMPRESSED, check_can_decompress
from tinygpt2.text.recognition import check_input

STANDARD_INPUT = "-"
TEXT = "text"
_KINDS = {
    ".txt": TEXT,
    ".text": TEXT,
    ".md": TEXT,
    ".markdown": TEXT,
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
}
_KNOWN = f"{', '.join(_KINDS)}, each also with {', '.join(COMPRESSED)}"


@dataclass(frozen=True)
class Source:
    """One file.

    Attributes:
        path: Its path; ``None`` for standard input.
        kind: ``"text"``, ``"JSON lines"``, ``"JSON"``, ``"CSV"``, ``"TSV"`` or ``"Parquet"``.
        size: Its size in bytes as it lies on the disk; ``None`` for a pipe.
    """

    path: Path | None
    kind: str = TEXT
    size: int | None = None


@dataclass
class Found:
    """The files that paths name.

    Attributes:
        sources: The files, each once, in the order in which they are first named.
        repeated: How often one of them was named again.
        left_out: Number of files in directories that were left out, since their endings are unknown.
    """

    sources: list[Source]
    repeated: int = 0
    left_out: int = 0


def find_sources(paths: PathLike | Iterable[PathLike]) -> Found:
    """Returns the files that paths name.

    Args:
        paths: One or several: files; directories, for all files in them and below with a known ending, sorted by name,
            without hidden ones; patterns such as ``"data/**/*.jsonl"``, for the files that match, sorted; ``"-"`` for
            standard input.

    Raises:
        FileNotFoundError: If there is no such file, with the one that has a similar name; other ``OSError`` if it
            cannot be read.
        ImportError: If one is compressed with zstd, and there is no module for it.
        TypeError: If it is anything else.
        ValueError: If a pattern matches no file, a directory has none of a known ending, or there is no path.
    """
    found = Found([])
    identities: set[object] = set()
    for i, path in enumerate(_several(paths)):
        for source in _named(path, f"paths[{i}]", found):
            identity = _identity(source.path)
            if identity not in identities:
                found.sources.append(source)
            elif source.path is None:
                raise ValueError("standard input (-) can be read once; name it once")
            else:
                found.repeated += 1
            identities.add(identity)
    if not found.sources:
        raise ValueError("paths names no file; pass at least one")
    return found


def without_endings(name: str) -> str:
    """Returns the name of a file without the endings that tell what is in it.

    >>> without_endings("names.jsonl.gz")
    'names'
    """
    path = Path(name)
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSED else path.stem


def shared_files(first: Sequence[Path | None], second: Sequence[Path | None]) -> list[Path | None]:
    """Returns the files in the first list that are also in the second, whatever names they have there.

    Args:
        first: Files, such as `DocumentReader.files`; ``None`` is standard input.
        second: The same.
    """
    identities = {_identity(path) for path in second}
    return [path for path in first if _identity(path) in identities]


def _several(paths: object) -> Iterable[object]:
    if isinstance(paths, str | os.PathLike):
        return [paths]
    if isinstance(paths, bytes | Mapping | AbstractSet) or hasattr(paths, "read") or not can_be_iterated(paths):
        raise TypeError(f"paths must be a path or several, got {of_type(paths)}; pass a str, a pathlib.Path or a list")
    return paths


def _identity(path: Path | None) -> object:
    found = None if path is None else path.stat()
    return found and (found.st_dev, found.st_ino)


def _named(path: object, name: str, found: Found) -> Iterator[Source]:
    """Yields the files that a path names, and counts those that it leaves out."""
    if isinstance(path, str) and path == STANDARD_INPUT:
        yield Source(None)
        return
    place = check_path(name, path)
    files = [place]
    if os.path.isdir(place):  # noqa: PTH112 - Path.is_dir raises where nobody may look
        files, left_out = _in_directory(place)
        found.left_out += left_out
    elif not os.path.lexists(place) and glob.has_magic(str(place)):
        files = _matching(str(place))
    for file in files:
        status = check_input(file)
        check_can_decompress(file)
        yield Source(file, _kind(file) or TEXT, status.st_size if stat.S_ISREG(status.st_mode) else None)


def _kind(path: Path) -> str | None:
    """Returns what is in a file by the ending of its name, ``None`` if that is unknown."""
    name = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return _KINDS.get(name.suffix.lower())


def _in_directory(directory: Path) -> tuple[list[Path], int]:
    """Returns the files of a known ending in a directory and below, sorted, and the number of others."""

    def refuse(error: OSError) -> None:  # which os.walk would pass over
        raise error

    files, others = [], 0
    for place, folders, names in os.walk(directory, onerror=refuse):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            if not path.is_file():
                continue
            if _kind(path):
                files.append(path)
            else:
                others += 1
    if not files:
        among = f" among its {others:,}" if others else ""
        raise ValueError(
            f"the directory {directory} has no file of a known ending{among}; known are {_KNOWN}. Others are read as "
            f"text if they are named, or match a pattern: {directory / '**' / '*.html'}"
        )
    return sorted(files, key=lambda path: path.parts), others


def _matching(pattern: str) -> list[Path]:
    files = [path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file()]  # noqa: PTH207
    if not files:
        raise ValueError(
            f"no file matches {pattern}; * stands for any part of a name, ** for any directories" + _here(pattern)
        )
    return sorted(files, key=lambda path: path.parts)


def _here(pattern: str) -> str:
    return "" if os.path.isabs(pattern) else f"; searched in {Path.cwd()}"  # noqa: PTH117 - a pattern is no path
