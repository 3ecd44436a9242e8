"""Directories that are replaced whole, beside processes that read them."""

import functools
import logging
import os
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from tinygpt2._internal.files import TOKEN, PathLike, hidden_beside, sync_directory

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

_READS = 20  # of a directory that was replaced during each


class InUseError(OSError):
    """What is in the place of a directory cannot be moved away: it is open (on Windows), protected or a mount point."""


def write_directory(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a new directory beside ``path``, then renames it to ``path``.

    ``write`` must sync its files to the disk. If anything fails, an existing directory at ``path`` stays intact, and
    nothing is left beside it. That directory has another name for an instant, because no portable call exchanges two:
    `rereading` finds it there, and `recover_directories` restores it if the process is killed just then. A link or a
    file at ``path`` is replaced, too; what a link leads to stays.

    Raises:
        InUseError: If what is at ``path`` cannot be replaced.
        OSError: If the new directory cannot be written.
    """
    draft, old = hidden_beside(path, secrets.token_hex(4)), _old(path)
    draft.mkdir()
    try:
        write(draft)
        sync_directory(draft)
        if os.path.lexists(path):
            _remove_as(path, old)
            _move_away(path, old)
        draft.rename(path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            old.rename(path)
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_directory(path.parent)
    _remove_as(path, old)


def _move_away(path: Path, old: Path) -> None:
    try:
        path.rename(old)
    except OSError as error:
        raise InUseError(error.errno, f"cannot be replaced: {error.strerror}", str(path)) from error


def remove_directory(path: Path) -> None:
    """Removes a directory, or a link or a file in its place; if the process is killed, nothing is left of that name.

    If it cannot be removed, for instance because it is open on Windows, a warning is logged.
    """
    _remove_as(path, path)


def _remove_as(path: Path, entry: Path) -> None:
    """Removes ``entry``, which is there in place of ``path`` or was, under a name that tells as much."""
    hidden = hidden_beside(path, secrets.token_hex(4))
    try:
        entry.rename(hidden)
    except FileNotFoundError:
        return
    except OSError as error:
        logger.warning("cannot remove %s: %s", entry, error.strerror)
        return
    _remove(hidden)


def _remove(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        logger.warning("cannot remove %s, which is not used any more; remove it by hand", path)


def recover_directories(parent: Path, names: str) -> None:
    """Cleans up after a process that was killed in `write_directory` or `remove_directory`.

    Args:
        parent: The parent of the directories.
        names: Regular expression for their intended names.
    """
    for entry in list(parent.iterdir()):
        if match := re.fullmatch(rf"\.({names})\.({TOKEN}|old)", entry.name):
            path = parent / match[1]
            if match[2] == "old" and not os.path.lexists(path):
                with suppress(OSError):
                    entry.rename(path)
            elif match[2] == "old":
                _remove_as(path, entry)
            else:
                _remove(entry)


def rereading(read: F) -> F:
    """Makes a function that reads a directory read it again if `write_directory` replaced it meanwhile.

    Otherwise it could find no directory, or files of two, and call them damaged. The directory is the function's first
    argument.
    """

    @functools.wraps(read)
    def wrapper(directory: PathLike, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - those of the function
        for _ in range(_READS - 1):
            before = _identities(directory)
            try:
                return read(_current(directory), *arguments, **options)
            except (OSError, ValueError):
                if _identities(directory) == before:
                    raise
        return read(_current(directory), *arguments, **options)

    return cast("F", wrapper)


def _current(directory: PathLike) -> PathLike:
    """Returns where a directory is: under its own name or, while it is being replaced, under another."""
    path = Path(directory)
    return _old(path) if path.name and not path.exists() and _old(path).exists() else directory


def _identities(directory: PathLike) -> list[tuple[int, int, int] | None]:
    """Returns what differs once a directory was replaced: an inode alone can be that of an earlier one."""
    path = Path(directory)
    found: list[tuple[int, int, int] | None] = []
    for place in [path, *([_old(path)] if path.name else [])]:
        try:
            status = place.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_dev, status.st_ino, status.st_ctime_ns))
    return found


def _old(path: Path) -> Path:
    return hidden_beside(path, "old")
