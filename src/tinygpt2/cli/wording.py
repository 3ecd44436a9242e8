"""The words of the command line, which has flags where the library has arguments."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_ARGUMENT = re.compile(r"(?<![\w./\\-])(\w++)(=True|=)?+(?![/\\-]|\.\w)")  # not in the name of a file


def in_flags(message: str, flags: Mapping[str, str]) -> str:
    """Returns a message of the library with flags in place of the names of arguments.

    A name that is also a word of English, such as ``seed``, is one of an argument only before ``=``.

    >>> flags = {"seed": "--seed", "batch_size": "--batch-size"}
    >>> in_flags("the seed is 1; pass batch_size=2", flags)
    'the seed is 1; pass --batch-size 2'
    """

    def replaced(found: re.Match[str]) -> str:
        name, value = found[1], found[2]
        if name not in flags or not (value or "_" in name):
            return found[0]
        return f"{flags[name]} " if value == "=" else flags[name]

    return _ARGUMENT.sub(replaced, message)


@contextmanager
def speaking_in_flags(flags: Mapping[str, str]) -> Iterator[None]:
    """Rewords an error of the library from the block, which speaks in arguments, for the command line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError):
            error.strerror = in_flags(error.strerror or "", flags) or None
        elif isinstance(error, ValueError | ArithmeticError):
            error.args = tuple(in_flags(part, flags) if isinstance(part, str) else part for part in error.args)
        notes: list[str] = getattr(error, "__notes__", [])
        notes[:] = [in_flags(note, flags) for note in notes]
        raise
