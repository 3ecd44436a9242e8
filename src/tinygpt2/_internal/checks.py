"""Checks of arguments, whose messages say what was expected, what was given, and how to fix it."""

import json
import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

LARGEST_INT = 2**63 - 1
"""The largest integer that PyTorch and NumPy hold."""

LARGEST_SEED = 2**64 - 1
"""The largest seed that PyTorch's generators accept."""

MOST_LEVELS = 100  # of lists and objects within each other in JSON; Python's own limit is that of the caller's stack

_MOST_CHARACTERS = 100  # of a value in a message
_LONGEST_MESSAGE = 300  # characters


class _Shown(reprlib.Repr):
    """``repr``, of bounded length and cost."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother, self.maxstring = 3, _MOST_CHARACTERS, _MOST_CHARACTERS
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = 20

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - its signature
        """Returns the digits if they are few; Python itself refuses to print more than 4,300."""
        if x.bit_length() <= 128:
            return repr(x)
        return f"about {'-' if x < 0 else ''}10**{round(x.bit_length() * math.log10(2))}"


_SHOWN = _Shown()


def shown(value: object) -> str:
    """Returns ``repr(value)`` for a message: on one line, and without the middle of a long one.

    >>> shown("no"), shown(10**400), len(shown("x" * 1000))
    ("'no'", 'about 10**400', 100)
    """
    text = " ".join(_SHOWN.repr(value).splitlines())
    half = _MOST_CHARACTERS // 2 - 2
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:half]}...{text[-half:]}"


def brief(message: object) -> str:
    """Returns a message that may quote what a hostile file holds, without the middle if it is long."""
    text = str(message)
    return (
        text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE // 2]}...{text[-_LONGEST_MESSAGE // 2 :]}"
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not empty, or the name of its type if there is none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def of_type(value: object) -> str:
    """Returns `shown` of a value, and its type."""
    return f"{shown(value)} ({type(value).__name__})"


def check_int(name: str, value: object, *, minimum: int = 1, maximum: int = LARGEST_INT) -> int:
    """Returns ``value`` as an ``int`` if it is an integer, including NumPy's, in the range; a bool is rejected."""
    try:
        number = operator.index(_scalar(value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {of_type(value)}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {shown(number)}")
    if number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {shown(number)}")
    return number


def _scalar(value: Any) -> Any:  # noqa: ANN401 - so that what is no number fails where it is used as one
    """Returns the Python number in a scalar of NumPy or PyTorch, ``None`` for a bool or an array, else the value."""
    if hasattr(value, "ndim") and hasattr(value, "item"):
        try:
            value = None if value.ndim else value.item()
        except (RuntimeError, TypeError, ValueError):  # a tensor without values, for instance on the meta device
            value = None
    return None if isinstance(value, bool | type) else value  # a class has the methods of its numbers


def check_bool(name: str, value: object) -> bool:
    """Returns ``value`` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {of_type(value)}")
    return value


def check_number(
    name: str,
    value: object,
    *,
    minimum: float = 0.0,
    maximum: float = math.inf,
    above_minimum: bool = False,
    below_maximum: bool = False,
) -> float:
    """Returns ``value`` as a ``float`` if it is a finite number in the range; either end can be excluded."""
    plain = _scalar(value)
    if not (hasattr(plain, "__float__") or hasattr(plain, "__index__")):  # float() reads strings, too
        raise TypeError(f"{name} must be a number, got {of_type(value)}")
    try:
        number = float(plain) + 0.0  # not -0.0, whose sign a division would show
    except (OverflowError, ValueError):  # an integer with hundreds of digits, or a Decimal that signals
        number = math.nan
    low = number > minimum if above_minimum else number >= minimum
    high = number < maximum if below_maximum else number <= maximum
    if not (math.isfinite(number) and low and high):
        expected = interval(minimum, maximum, above_minimum=above_minimum, below_maximum=below_maximum)
        raise ValueError(f"{name} must be a finite number {expected}, got {shown(value)}")
    return number


def interval(minimum: float, maximum: float, *, above_minimum: bool, below_maximum: bool) -> str:
    """Returns a range of numbers in words: ``"at least 0 and less than 1"``."""
    if minimum == -math.inf:
        return "of any size"
    lower = f"greater than {minimum:g}" if above_minimum else f"at least {minimum:g}"
    upper = "" if maximum == math.inf else f" and {'less than' if below_maximum else 'at most'} {maximum:g}"
    return f"{lower}{upper}"


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    """Returns ``value`` if it is one of ``choices``."""
    if not isinstance(value, str) or value not in choices:  # an array would be compared item by item
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")
    return value


def check_instance(name: str, value: object, expected: type, description: str) -> None:
    """Raises ``TypeError`` if ``value`` is not an instance of ``expected``, which ``description`` names."""
    if not isinstance(value, expected):
        raise TypeError(f"{name} must be {description}, got {of_type(value)}")


def can_be_iterated(value: object) -> TypeGuard[Iterable[Any]]:
    """Returns whether a value has items, without beginning to iterate; a scalar of NumPy or PyTorch has none."""
    has_items = isinstance(value, Iterable) or hasattr(type(value), "__getitem__")
    return has_items and getattr(value, "ndim", 1) != 0


def check_iterable(name: str, value: object, description: str) -> None:
    """Raises ``TypeError`` if ``value`` has no items, or only characters or keys; ``description`` names others."""
    if isinstance(value, str | bytes | Mapping) or not can_be_iterated(value):
        raise TypeError(f"{name} must be {description}, got {of_type(value)}")


def check_path(name: str, value: object) -> Path:
    """Returns ``value`` as a path if it is a ``str`` or a path object of one, and names something."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a path, a str or a pathlib.Path, got {of_type(value)}")
    if not text or "\0" in text:
        raise ValueError(f"{name} must be the path of a file or a directory, got {text!r}")
    return Path(text)


def check_json(name: str, value: object) -> Any:  # noqa: ANN401 - of any kind that JSON has
    """Returns ``value`` as it is read back from a checkpoint, a tuple as a list, or raises ``TypeError``."""
    cannot = f"{name} is saved in checkpoints as JSON, which cannot hold it"
    try:
        content = json.loads(json.dumps(value))
    except (RecursionError, TypeError, ValueError) as error:
        raise TypeError(f"{cannot}: {error}") from error
    if has_more_levels(content, MOST_LEVELS // 2):  # the rest of a checkpoint has some, too
        raise TypeError(f"{cannot}: it has more than {MOST_LEVELS // 2} levels of lists and dicts")
    return content


def has_more_levels(content: object, levels: int) -> bool:
    """Returns whether what ``json.loads`` returned has more levels of lists and dicts than that, without recursion."""
    level = [content]
    for _ in range(levels + 1):
        containers: list[Any] = [each for each in level if type(each) is list or type(each) is dict]
        if not containers:
            return False
        level = [child for each in containers if each for child in (each.values() if type(each) is dict else each)]
    return True
