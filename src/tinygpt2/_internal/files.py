"""Files that are never seen half-written, with text in UTF-8."""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from tinygpt2._internal.checks import MOST_LEVELS, has_more_levels, shown

PathLike = str | os.PathLike[str]

_PIECE = 8 << 20  # bytes to hash and write, or to read, at a time

_LONGEST_NAME = 255  # bytes, on most file systems
_MOST_LINKS = 40  # from one to the next, as on Linux
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # some network file systems: a directory

# A name of an open file, which may be a regular one: "tinygpt2 plot --out /dev/stdout > losses.png".
_DESCRIPTOR = re.compile(r"/(dev|proc/[^/]+)/fd/([0-9]{1,9})")

TOKEN = "[0-9a-f]{8}"  # noqa: S105 - a regular expression
"""How the name of something temporary ends."""
_MOST_DIGITS = 4300  # of an integer in JSON; Python's own limit, which a program may lift


@dataclass(frozen=True)
class Digest:
    """The size and hash of a file's content."""

    size: int
    sha256: str


def write_file(path: Path, chunks: Iterable[memoryview | bytes]) -> Digest:
    """Writes a file and returns the digest of its content once this has reached the disk."""
    with path.open("wb") as file:
        digest = write_chunks(file, chunks)
        os.fsync(file.fileno())
    return digest


def write_chunks(file: BinaryIO, chunks: Iterable[memoryview | bytes]) -> Digest:
    """Writes bytes to a file whose buffer is empty, without filling it, and returns their digest."""
    size, sha256 = 0, hashlib.sha256()
    for chunk in chunks:
        content = memoryview(chunk).cast("B")
        size += len(content)
        while content:
            written = os.write(file.fileno(), content[:_PIECE])
            sha256.update(content[:written])
            content = content[written:]
    return Digest(size, sha256.hexdigest())


def digest_file(path: Path) -> Digest:
    """Reads a file and returns the digest of its content.

    Raises:
        ValueError: If it is not a regular file: a link may lead anywhere, and a pipe never ends.
    """
    size, sha256 = 0, hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            sha256.update(piece)
    return Digest(size, sha256.hexdigest())


def check_regular(path: Path, *, links: bool = False) -> int:
    """Returns the size of a regular file; raises ``ValueError`` if it is anything else, for instance a link.

    Args:
        path: The file.
        links: Whether it may be a link to one instead.
    """
    found = path.stat() if links else path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise _irregular(path)
    return found.st_size


def open_regular(path: Path, *, links: bool = False) -> BinaryIO:
    """Opens a regular file for reading, unbuffered, without ever waiting; arguments and errors of `check_regular`."""
    check_regular(path, links=links)  # opening a device can have effects
    # In the meantime it may have become something else. Windows has none of the flags but the first.
    flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        descriptor = os.open(path, os.O_RDONLY | flags | (0 if links else getattr(os, "O_NOFOLLOW", 0)))
    except OSError as error:
        raise _irregular(path) if error.errno in (errno.ELOOP, errno.ENXIO) else error from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _irregular(path)
    return os.fdopen(descriptor, "rb", buffering=0)


def _irregular(path: Path) -> ValueError:
    return ValueError(f"{path.name} is not a regular file")


def read_bytes(path: Path, *, limit: int, links: bool = False) -> bytes:
    """Reads a file of at most ``limit`` bytes; arguments and errors of `read_json`."""
    content = bytearray()
    if check_regular(path, links=links) <= limit:
        with open_regular(path, links=links) as file:
            while len(content) <= limit and (piece := file.read(min(_PIECE, limit + 1 - len(content)))):
                content += piece
        if len(content) <= limit:
            return bytes(content)
    raise ValueError(f"{path.name} is larger than {limit:,} bytes")


def read_json(path: Path, *, limit: int, links: bool = False) -> dict[str, Any]:
    """Reads a JSON object without duplicate keys.

    Args:
        path: A regular file.
        limit: Maximum size in bytes.
        links: Whether it may be a link to one instead.

    Raises:
        ValueError: If it is anything else.
    """
    return parse_json(read_bytes(path, limit=limit, links=links), path.name)


def parse_json(content: bytes, name: str) -> dict[str, Any]:
    """Returns a JSON object without duplicate keys; ``name`` is that of its file, for the error of `read_json`."""
    too_deep = f"{name} is nested too deeply: it has more than {MOST_LEVELS} levels of lists and objects"
    try:
        parsed = json.loads(content.decode("utf-8"), object_pairs_hook=_object, parse_int=_integer)
    except RecursionError:
        raise ValueError(too_deep) from None
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None
    if has_more_levels(parsed, MOST_LEVELS):
        raise ValueError(too_deep)
    if not isinstance(parsed, dict):
        raise ValueError(f"{name} is not a JSON object")  # noqa: TRY004 - a wrong file, not a wrong argument
    return parsed


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {shown(twice)} occurs twice")
    return content


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has an integer of {len(digits):,} digits")
    return int(digits)


def write_text(path: PathLike, text: str) -> None:
    """Writes ``text`` as UTF-8 with unchanged newlines, as `atomic_write` does."""
    content = text.encode("utf-8")
    atomic_write(path, lambda file: file.write(content))


def atomic_write(path: PathLike, write: Callable[[BinaryIO], object], *, streams: bool = True) -> None:
    """Calls ``write`` with a new file beside ``path``, then atomically moves it to ``path``.

    If anything fails, an existing file at ``path`` stays intact, and nothing is left beside it. What a killed process
    left there is removed. The new file has the mode of the old one and, where that is permitted, its owner. A link
    stays; what it leads to is replaced. A device, a pipe or an open file such as ``/dev/stdout`` is written to.

    Args:
        path: The file to write.
        write: Function that writes the content to a file open for writing bytes.
        streams: Whether ``path`` may be a device, a pipe or an open file; ``write`` must not seek then.

    Raises:
        IsADirectoryError: If ``path`` is a directory.
        OSError: If it cannot be written, with ``path`` as its filename.
    """
    path = Path(path)
    target = _followed(path)
    try:
        found = target.stat()
    except FileNotFoundError:
        found = None
    if found is not None and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory; expected the name of a file", str(path))
    if not _is_stream(target, found):
        remove_abandoned(target)
        _replace(path, target, found, write)
    elif streams:
        with _naming(path), _open_stream(target) as file:
            write(file)
    else:
        raise OSError(errno.ESPIPE, "is not a regular file; expected the name of a new or a regular file", str(path))


def is_stream(path: PathLike) -> bool:
    """Returns whether `atomic_write` would write to a device, a pipe or an open file instead of replacing a file."""
    target = _followed(Path(path))
    return target.exists() and _is_stream(target, target.stat())


def _is_stream(target: Path, found: os.stat_result | None) -> bool:
    return found is not None and (not stat.S_ISREG(found.st_mode) or bool(_DESCRIPTOR.fullmatch(_absolute(target))))


def _followed(path: Path) -> Path:
    """Returns what a link leads to, whether there is such a file or not."""
    target = path
    for _ in range(_MOST_LINKS):
        if _DESCRIPTOR.fullmatch(_absolute(target)) or not target.is_symlink():
            return target
        target = target.parent / target.readlink()
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links, to an open file as well


def _open_stream(path: Path) -> BinaryIO:
    """Opens a device or a pipe; an open file of this process is written where it stands, not from its beginning."""
    match = _DESCRIPTOR.fullmatch(_absolute(path))
    if match and match[1] in {"dev", "proc/self", "proc/thread-self", f"proc/{os.getpid()}"}:
        return os.fdopen(os.dup(int(match[2])), "wb")
    return open(path, "wb", opener=lambda name, flags: os.open(name, flags & ~os.O_CREAT))


def _replace(path: Path, target: Path, found: os.stat_result | None, write: Callable[[BinaryIO], object]) -> None:
    with _naming(path, f"cannot create a file in {target.parent}: "):
        temporary, file = _create(target, found)
    try:
        with _naming(path, temporary=temporary):
            write(file)
            file.flush()
            if found is not None:
                _keep_access(file.fileno(), found)
            os.fsync(file.fileno())
            if os.name == "nt":  # which gives no other name to an open file
                file.close()
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):  # from writing what is left in the buffer
            file.close()
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    file.close()
    sync_directory(target.parent)


def _create(target: Path, found: os.stat_result | None) -> tuple[Path, BinaryIO]:
    """Creates a file beside ``target``, locked for as long as it is open, and readable by nobody who may not read that.

    Its owner may write it until it is whole, as some network file systems lock no other files.
    """
    mode = 0o666 if found is None else stat.S_IMODE(found.st_mode) & 0o777 | 0o600
    while True:
        temporary = hidden_beside(target, secrets.token_hex(4))
        file = open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        if _claim(file.fileno(), temporary):
            return temporary, file
        file.close()


def _keep_access(descriptor: int, found: os.stat_result) -> None:
    """Gives a file the mode of an older one, and its owner and group where that is permitted; not on Windows."""
    if sys.platform == "win32":
        return
    made = os.fstat(descriptor)
    if made.st_gid != found.st_gid:
        with suppress(OSError):
            os.fchown(descriptor, -1, found.st_gid)
    if made.st_uid != found.st_uid:
        with suppress(OSError):
            os.fchown(descriptor, found.st_uid, -1)
    with suppress(OSError):  # a file system without modes
        os.fchmod(descriptor, stat.S_IMODE(found.st_mode))


@contextmanager
def _naming(path: Path, doing: str = "", *, temporary: Path | None = None) -> Iterator[None]:
    """Makes the errors of the block name a file, and never the temporary one that was to take its place."""
    try:
        yield
    except OSError as error:
        if doing:
            raise OSError(error.errno, f"{doing}{error.strerror}", str(path)) from None
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename = str(path)
            del error.filename2
        raise


def hidden_beside(path: Path, ending: str) -> Path:
    """Returns a path beside another: its name is a dot, the other's name (shortened if needed), a dot, an ending."""
    name = path.name
    while len(os.fsencode(f".{name}.{ending}")) > _LONGEST_NAME:
        name = name[:-1]
    return path.with_name(f".{name}.{ending}")


def remove_abandoned(path: Path) -> None:
    """Removes the temporary files of processes that were killed in `atomic_write`, and of nobody who is still there.

    A process that is writing holds a lock on its file, which ends with it. Neither a process id nor an age would tell
    as much: ids are other ones in another container, and a large file is written for hours.
    """
    begin, _, _ = hidden_beside(path, "0" * 8).name.rpartition(".")
    name = re.compile(rf"{re.escape(begin)}\.{TOKEN}")
    with suppress(OSError):  # from a directory that may not be read
        for entry in filter(name.fullmatch, os.listdir(path.parent)):  # noqa: PTH208 - of many, no path is made
            with suppress(OSError):
                if stat.S_ISREG(path.with_name(entry).lstat().st_mode):
                    _remove_unless_claimed(path.with_name(entry))


if sys.platform == "win32":

    def _claim(_: int, __: Path) -> bool:
        return True

    def _remove_unless_claimed(path: Path) -> None:
        # Nobody can remove an open file there. One that was closed to get its name is younger than this.
        if time.time() - path.stat().st_mtime > 60:
            path.unlink()

else:
    import fcntl

    def _claim(descriptor: int, path: Path) -> bool:
        """Locks a new file; returns ``False`` if another process took it for an abandoned one before that."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # from a file system that locks nothing: then nobody removes it
            return True
        return path.exists()

    def _remove_unless_claimed(path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(descriptor)


def sync_directory(path: Path) -> None:
    """Returns once the names in a directory have reached the disk, where the system can tell and lets this user ask."""
    if os.name == "nt":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # a directory that may be written and not be read
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_directories(path: Path) -> tuple[Path, ...]:
    """Creates a directory and its parents, on the disk too, and returns those that did not exist, innermost first."""
    missing = tuple(takewhile(lambda each: not each.exists(), (path, *path.parents)))
    path.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_directory(made.parent)
    return missing
