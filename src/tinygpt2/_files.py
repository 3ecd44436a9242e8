"""Reading and writing files so that text is UTF-8 everywhere and a half-written file is never seen."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

PathLike = str | os.PathLike[str]


def atomic_write(path: PathLike, write: Callable[[Path], object]) -> None:
    """Calls ``write`` with a new path beside ``path``, then moves what it wrote there in one step.

    If anything fails, the file that was at ``path`` is still there, whole, and nothing is left beside it.
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


def write_text(path: PathLike, text: str) -> None:
    """Writes ``text`` as UTF-8 with newlines as they are, in one step."""
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline=""))
