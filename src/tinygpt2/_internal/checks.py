"""Checks of arguments, whose messages say what was expected, what was given, and how to fix it.

A function checks one argument. An object is a range that is defined once and used everywhere: it checks a value, parses
one from the command line, and describes itself.
"""

import json
import math
import operator
import os
import reprlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, TypeVar

T = TypeVar("T")

_PIECE = 1 << 20  # characters to check at a time


def check_int(name: str, value: object, *, minimum: int = 1, maximum: int | None = None) -> int:
    """Returns ``value`` as an ``int`` if it is an integer, including NumPy's, in the range; a bool is rejected."""
    try:
        number = _as_int(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    if maximum is not None and number > maximum:
        raise ValueError(f"{name} must be at most {maximum}, got {number}")
    return number


def _as_int(value: object) -> int:
    if not isinstance(value, SupportsIndex) or _is_bool(value):
        raise TypeError
    return operator.index(value)


def _is_bool(value: object) -> bool:
    """Returns whether a value is a bool of Python, NumPy or PyTorch, which could pass as an integer."""
    return isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")


def check_bool(name: str, value: object) -> bool:
    """Returns ``value`` if it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")
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
    if not isinstance(value, Real) or _is_bool(value):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:  # an integer with hundreds of digits
        number = math.inf
    low = number > minimum if above_minimum else number >= minimum
    high = number < maximum if below_maximum else number <= maximum
    if not (math.isfinite(number) and low and high):
        expected = _interval(minimum, maximum, above_minimum=above_minimum, below_maximum=below_maximum)
        raise ValueError(f"{name} must be a finite number {expected}, got {value}")
    return number


def _interval(minimum: float, maximum: float, *, above_minimum: bool, below_maximum: bool) -> str:
    lower = f"greater than {minimum:g}" if above_minimum else f"at least {minimum:g}"
    upper = "" if maximum == math.inf else f" and {'less than' if below_maximum else 'at most'} {maximum:g}"
    return f"{lower}{upper}"


def check_choice(name: str, value: T, choices: tuple[T, ...]) -> T:
    """Returns ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_instance(name: str, value: object, expected: type, description: str) -> None:
    """Raises ``TypeError`` if ``value`` is not an instance of ``expected``, which ``description`` names."""
    if not isinstance(value, expected):
        raise TypeError(f"{name} must be {description}, got {_of_type(value)}")


def check_path(name: str, value: object) -> Path:
    """Returns ``value`` as a path if it is a ``str`` or a path object of one, and names something."""
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a path, a str or a pathlib.Path, got {_of_type(value)}")
    if not text or "\0" in text:
        raise ValueError(f"{name} must be the path of a file or a directory, got {text!r}")
    return Path(text)


def _of_type(value: object) -> str:
    """Returns the representation of a value on one line, of bounded length, and its type."""
    return f"{' '.join(reprlib.repr(value).split())} ({type(value).__name__})"


class Check(Protocol):
    """A range of values."""

    @property
    def description(self) -> str:
        """The expected value, as a noun phrase: ``"an integer of at least 1"``."""
        ...

    def check(self, name: str, value: object, /) -> Any:  # noqa: ANN401 - of the range's own type
        """Returns ``value`` as a plain Python value; raises ``TypeError`` or ``ValueError`` if it is out of range."""
        ...

    def parse(self, text: str, /) -> Any:  # noqa: ANN401
        """Returns the value that a text denotes; raises ``ValueError`` if it denotes none."""
        ...


def check_fields(config: object, ranges: Mapping[str, Check]) -> None:
    """Checks the fields of a frozen dataclass, and converts NumPy's numbers in them to plain ones."""
    for name, expected in ranges.items():
        object.__setattr__(config, name, expected.check(name, getattr(config, name)))


def _refused(text: str, expected: Check) -> ValueError:
    return ValueError(f"expected {expected.description}, got {text!r}")


@dataclass(frozen=True, kw_only=True)
class Int:
    """The integers from ``minimum`` to ``maximum``."""

    minimum: int = 1
    maximum: int | None = None

    @property
    def description(self) -> str:
        """The expected value."""
        upper = "" if self.maximum is None else f" and at most {self.maximum}"
        return f"an integer of at least {self.minimum}{upper}"

    def check(self, name: str, value: object) -> int:
        """Returns ``value`` as an ``int``."""
        return check_int(name, value, minimum=self.minimum, maximum=self.maximum)

    def parse(self, text: str) -> int:
        """Returns the number that a text denotes."""
        try:
            return self.check("", int(text))
        except ValueError:
            raise _refused(text, self) from None


@dataclass(frozen=True, kw_only=True)
class Number:
    """The finite numbers from ``minimum`` to ``maximum``; either end can be excluded."""

    minimum: float = 0.0
    maximum: float = math.inf
    above_minimum: bool = False
    below_maximum: bool = False

    @property
    def description(self) -> str:
        """The expected value."""
        interval = _interval(
            self.minimum, self.maximum, above_minimum=self.above_minimum, below_maximum=self.below_maximum
        )
        return f"a number {interval}" if self.above_minimum else f"a number of {interval}"

    def check(self, name: str, value: object) -> float:
        """Returns ``value`` as a ``float``."""
        return check_number(
            name,
            value,
            minimum=self.minimum,
            maximum=self.maximum,
            above_minimum=self.above_minimum,
            below_maximum=self.below_maximum,
        )

    def parse(self, text: str) -> float:
        """Returns the number that a text denotes."""
        try:
            return self.check("", float(text))
        except ValueError:
            raise _refused(text, self) from None


@dataclass(frozen=True)
class Choice:
    """One of several names."""

    choices: tuple[str, ...]

    @property
    def description(self) -> str:
        """The expected value."""
        return f"one of {', '.join(self.choices)}"

    def check(self, name: str, value: object) -> str:
        """Returns ``value``, one of the choices."""
        return str(check_choice(name, value, self.choices))

    def parse(self, text: str) -> str:
        """Returns the text, one of the choices."""
        if text not in self.choices:
            raise _refused(text, self)
        return text


@dataclass(frozen=True)
class Bool:
    """``True`` or ``False``."""

    description: str = "true or false"

    def check(self, name: str, value: object) -> bool:
        """Returns ``value``, a bool."""
        return check_bool(name, value)

    def parse(self, text: str) -> bool:
        """Returns the bool that a text denotes."""
        if text not in ("true", "false"):
            raise _refused(text, self)
        return text == "true"


def check_text(name: str, value: object) -> str:
    """Returns ``value`` if it is a text: a ``str`` without lone surrogates, which are no characters.

    Raises:
        TypeError: If it is no ``str``, with how to get one.
        ValueError: If it has a lone surrogate, with its position.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {_brief(value)} ({type(value).__name__}){text_from(value)}")
    for begin in range(0, 0 if value.isascii() else len(value), _PIECE):
        try:
            value[begin : begin + _PIECE].encode("utf-8")
        except UnicodeEncodeError as error:
            position = begin + error.start
            raise ValueError(
                f"{name} has a lone surrogate, U+{ord(value[position]):04X}, at position {position}, which is no "
                "character; replace it: text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')"
            ) from None
    return value


def check_texts(name: str, value: object) -> Iterable[object]:
    """Returns ``value`` if its items may be texts, in an order: neither a text itself, nor names, nor lines.

    Raises:
        TypeError: If it is anything else, with how to get texts from it.
    """
    fix = None
    if isinstance(value, str | bytes | bytearray | os.PathLike):
        fix = "pass a list"
    elif isinstance(value, Mapping):
        fix = "pass its values: list(texts.values())"
    elif isinstance(value, AbstractSet):
        fix = "a set has no order; pass a list"
    elif is_table(value):
        fix = "iterating over a table gives the names of its columns; pass one column: table['text']"
    elif hasattr(value, "read"):
        fix = "pass the path of the file"
    elif not _can_be_iterated(value):
        fix = "pass a list"
    if fix is not None or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be several str, got {_brief(value)} ({type(value).__name__}); {fix}")
    return value


def text_from(value: object) -> str:
    """Returns how to get a text from a value, as the end of a message; nothing if there is no telling."""
    if isinstance(value, bytes | bytearray):
        return "; decode it: text.decode('utf-8')"
    if isinstance(value, os.PathLike):
        return "; read the file: read_text(path)"
    if is_table(value):
        return "; join one column: '\\n'.join(table['text'])"
    if hasattr(value, "read"):
        return "; read the file: read_text(path)"
    if not isinstance(value, Mapping | AbstractSet) and _can_be_iterated(value):
        return "; join several: '\\n'.join(texts)"
    return ""


def is_table(value: object) -> bool:
    """Returns whether a value is a data frame, of any library, or a data set of Hugging Face."""
    return hasattr(value, "columns") or hasattr(value, "column_names")


def _can_be_iterated(value: object) -> bool:
    try:
        iter(value)  # type: ignore[call-overload]
    except TypeError:
        return False
    return True


def _brief(value: object) -> str:
    """Returns the representation of a value, on one line and not long."""
    return " ".join(reprlib.repr(value).split())


@dataclass(frozen=True)
class Text:
    """Any string."""

    description: str = "a string"

    def check(self, name: str, value: object) -> str:
        """Returns ``value``, a string."""
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {value!r} ({type(value).__name__})")
        return value

    def parse(self, text: str) -> str:
        """Returns the text."""
        return text


@dataclass(frozen=True)
class Optional:
    """A value of another range, or ``None``."""

    inner: Check

    @property
    def description(self) -> str:
        """The expected value, other than ``None``."""
        return self.inner.description

    def check(self, name: str, value: object) -> Any:  # noqa: ANN401 - of the other range's type
        """Returns ``value``, or ``None``."""
        return None if value is None else self.inner.check(name, value)

    def parse(self, text: str) -> Any:  # noqa: ANN401
        """Returns the value that a text denotes, never ``None``."""
        return self.inner.parse(text)


@dataclass(frozen=True)
class Pair:
    """Two values of another range, as a tuple; any iterable is accepted, since JSON has only lists."""

    inner: Check

    @property
    def description(self) -> str:
        """The expected value."""
        return f"two values, each {self.inner.description}"

    def check(self, name: str, value: object) -> tuple[Any, Any]:
        """Returns both as plain Python values."""
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise TypeError(f"{name} must be two values, got {value!r} ({type(value).__name__})")
        values = tuple(value)
        if len(values) != 2:
            raise ValueError(f"{name} must be two values, got {value!r}")
        first, second = (self.inner.check(f"each of {name}", each) for each in values)
        return first, second

    def parse(self, text: str) -> tuple[Any, Any]:
        """Returns the two values that a text such as ``"0.9,0.95"`` denotes."""
        try:
            return self.check("", [self.inner.parse(part) for part in text.split(",")])
        except ValueError:
            raise _refused(text, self) from None


@dataclass(frozen=True)
class Many:
    """Any number of values of another range, as a tuple."""

    inner: Check

    @property
    def description(self) -> str:
        """The expected value."""
        return f"a list, each {self.inner.description}"

    def check(self, name: str, value: object) -> tuple[Any, ...]:
        """Returns all as plain Python values."""
        if not isinstance(value, list | tuple):
            raise TypeError(f"{name} must be a list, got {value!r} ({type(value).__name__})")
        return tuple(self.inner.check(f"each of {name}", each) for each in value)

    def parse(self, text: str) -> tuple[Any, ...]:
        """Returns the one value that a text denotes; a command line has one text per value."""
        return (self.inner.parse(text),)


def check_json(name: str, value: object) -> Any:  # noqa: ANN401 - of any kind that JSON has
    """Returns ``value`` as it is read back from a checkpoint, a tuple as a list, or raises ``TypeError``."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is saved in checkpoints as JSON, which cannot hold it: {error}") from error
