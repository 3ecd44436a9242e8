"""Files that are never seen half-written, with text in UTF-8."""

import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PathLike = str | os.PathLike[str]

_PIECE = 8 << 20  # bytes to hash and write, or to read, at a time


@dataclass(frozen=True)
class Digest:
    """The size and hash of a file's content."""

    size: int
    sha256: str


def write_file(path: Path, chunks: Iterable[memoryview | bytes]) -> Digest:
    """Writes a file and returns the digest of its content once this has reached the disk."""
    size, sha256 = 0, hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        for chunk in chunks:
            content = memoryview(chunk).cast("B")
            size += len(content)
            while content:
                written = os.write(file.fileno(), content[:_PIECE])
                sha256.update(content[:written])
                content = content[written:]
        os.fsync(file.fileno())
    return Digest(size, sha256.hexdigest())


def digest_file(path: Path) -> Digest:
    """Reads a file and returns the digest of its content.

    Raises:
        ValueError: If it is not a regular file: a link may lead anywhere, and a pipe never ends.
    """
    check_regular(path)
    size, sha256 = 0, hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            sha256.update(piece)
    return Digest(size, sha256.hexdigest())


def check_regular(path: Path) -> int:
    """Returns the size of a regular file; raises ``ValueError`` if it is anything else, for instance a link."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    return found.st_size


def read_json(path: Path, *, limit: int, links: bool = False) -> dict[str, Any]:
    """Reads a JSON object without duplicate keys.

    Args:
        path: A regular file.
        limit: Maximum size in bytes.
        links: Whether it may be a link to one instead.

    Raises:
        ValueError: If it is anything else.
    """
    size = path.stat().st_size if links else check_regular(path)
    if size > limit:
        raise ValueError(f"{path.name} is larger than {limit:,} bytes")
    with path.open("rb") as file:
        content = file.read(limit)
    try:
        parsed = json.loads(content.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise ValueError(f"{path.name} is not a JSON object")  # noqa: TRY004 - a wrong file, not a wrong argument
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key occurs twice")
    return content


def sync_directory(path: Path) -> None:
    """Returns once the names in a directory have reached the disk; does nothing on Windows, which has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: PathLike, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a new path beside ``path``, then atomically moves the result to ``path``.

    If anything fails, an existing file at ``path`` stays intact, and nothing is left beside it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.touch(exist_ok=False)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def write_text(path: PathLike, text: str) -> None:
    """Writes ``text`` as UTF-8 with unchanged newlines, atomically."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))


def write_directory(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a new directory beside ``path``, then renames it to ``path``.

    ``write`` must sync its files to the disk. If anything fails, an existing directory at ``path`` stays intact, and
    nothing is left beside it. That directory has another name for an instant, because no portable call exchanges two:
    `recover_directories` restores it if the process is killed just then.
    """
    draft, old = path.with_name(f".{path.name}.{secrets.token_hex(4)}"), _old(path)
    draft.mkdir()
    try:
        write(draft)
        sync_directory(draft)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        draft.rename(path)
        sync_directory(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Removes a directory; if the process is killed midway, nothing is left under that name."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def recover_directories(parent: Path, names: str) -> None:
    """Cleans up after a process that was killed in `write_directory` or `remove_directory`.

    Args:
        parent: The parent of the directories.
        names: Regular expression for their intended names.
    """
    for entry in list(parent.iterdir()):
        if match := re.fullmatch(rf"\.({names})\.([0-9a-f]{{8}}|old)", entry.name):
            path = parent / match[1]
            if match[2] == "old" and not path.exists():
                with suppress(OSError):
                    entry.rename(path)
            else:
                shutil.rmtree(entry, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
