"""Locks that admit one thread of one process to a directory at a time."""

import errno
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_IN_USE = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}  # the last two are from Windows
_CANNOT_LOCK = {
    errno.ENOLCK,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EBADF,  # from NFS, which locks only files open for writing, as no directory can be
}


@dataclass
class _Hold:
    """A directory that a thread of this process has locked."""

    thread: int
    depth: int
    descriptor: int | None  # of what is locked; ``None`` if the file system cannot lock


_holds: dict[object, _Hold] = {}
_registry = threading.Lock()  # for _holds


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes and threads out of a directory, if they lock it in the same way.

    The thread that has locked a directory may lock it again. If the process is killed, its lock is released.

    Raises:
        BlockingIOError: If another process or thread has locked the directory.
        FileNotFoundError: If there is no such directory.
    """
    key = _identity(directory)
    _acquire(key, directory)
    try:
        yield
    finally:
        _release(key, directory)


def is_locked(directory: Path) -> bool:
    """Returns whether a process or a thread has locked a directory, as far as can be known without waiting."""
    try:
        with _registry:
            if _identity(directory) in _holds:
                return True
        descriptor = _open(directory)
    except OSError:
        return False
    try:
        _lock(descriptor, shared=True)  # two that ask at the same time do not take each other for one that trains
    except OSError as error:
        os.close(descriptor)
        return error.errno in _IN_USE
    _unlock(descriptor, directory)
    return False


def _identity(directory: Path) -> object:
    """Returns an identity that is the same for all paths to a directory, including relative ones and links."""
    found = directory.stat()
    return (found.st_dev, found.st_ino) if found.st_ino else directory.resolve()  # some Windows shares have no inodes


def _acquire(key: object, directory: Path) -> None:
    with _registry:
        hold = _holds.get(key)
        if hold is None:
            _holds[key] = _Hold(threading.get_ident(), 1, _try_lock(directory))
        elif hold.thread == threading.get_ident():
            hold.depth += 1
        else:
            raise _refusal("another thread", directory)


def _release(key: object, directory: Path) -> None:
    with _registry:
        hold = _holds.get(key)
        if hold is None:  # in a process that was forked within the block
            return
        hold.depth -= 1
        if hold.depth == 0:
            del _holds[key]
            if hold.descriptor is not None:
                _unlock(hold.descriptor, directory)


def _try_lock(directory: Path) -> int | None:
    """Returns the descriptor of what it has locked, or ``None`` if the file system cannot lock."""
    descriptor = _open(directory)
    try:
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        if error.errno in _IN_USE:
            raise _refusal("another process", directory) from None
        if error.errno not in _CANNOT_LOCK:
            raise
        logger.warning(
            "nothing keeps a second process out of %s: its file system cannot lock it (%s)", directory, error.strerror
        )
        return None
    return descriptor


def _refusal(who: str, directory: Path) -> BlockingIOError:
    return BlockingIOError(f"{who} is training in {directory}: wait until it ends, or choose another directory")


if sys.platform == "win32":
    import msvcrt

    # Windows does not lock directories. The lock file is beside the directory, so that it can be removed while locked.
    def _lock_file(directory: Path) -> Path:
        path = directory.resolve()
        return path.with_name(f".{path.name}.lock")

    def _open(directory: Path) -> int:
        return os.open(_lock_file(directory), os.O_RDWR | os.O_CREAT)

    def _lock(descriptor: int, *, shared: bool = False) -> None:  # noqa: ARG001 - there are no shared locks
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int, directory: Path) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        os.close(descriptor)
        with suppress(OSError):  # another process has opened it since
            _lock_file(directory).unlink()

else:
    import fcntl

    def _open(directory: Path) -> int:
        return os.open(directory, os.O_RDONLY)

    def _lock(descriptor: int, *, shared: bool = False) -> None:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)

    def _unlock(descriptor: int, _: Path) -> None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough while another process has a copy
        os.close(descriptor)

    def _forget() -> None:
        """Leaves the locks to the parent of a process that was just forked, for instance a worker of a DataLoader.

        A lock ends with the last copy of its descriptor: the workers of a killed run would keep the next one out.
        """
        global _registry  # noqa: PLW0603 - another thread, absent here, may have held it at the fork
        _registry = threading.Lock()
        for hold in _holds.values():
            if hold.descriptor is not None:
                with suppress(OSError):
                    os.close(hold.descriptor)
        _holds.clear()

    os.register_at_fork(after_in_child=_forget)
