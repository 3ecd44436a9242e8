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
from pathlib import Path
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

_PIECE = 1 << 20  # characters to check at a time

LARGEST_INT = 2**63 - 1
"""The largest integer that PyTorch and NumPy hold."""

LARGEST_SEED = 2**64 - 1
"""The largest seed that PyTorch's generators accept."""

MOST_LEVELS = 100  # of lists and objects within each other in JSON; Python's own limit is that of the caller's stack

_MOST_CHARACTERS = 100  # of a value in a message


class _Shown(reprlib.Repr):
    """``repr``, of bounded length and cost."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxother, self.maxstring = 3, _MOST_CHARACTERS, _MOST_CHARACTERS

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


def _of_type(value: object) -> str:
    return f"{shown(value)} ({type(value).__name__})"


def check_int(name: str, value: object, *, minimum: int = 1, maximum: int = LARGEST_INT) -> int:
    """Returns ``value`` as an ``int`` if it is an integer, including NumPy's, in the range; a bool is rejected."""
    try:
        number = operator.index(_scalar(value))
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {_of_type(value)}") from None
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
        raise TypeError(f"{name} must be True or False, got {_of_type(value)}")
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
        raise TypeError(f"{name} must be a number, got {_of_type(value)}")
    try:
        number = float(plain) + 0.0  # not -0.0, whose sign a division would show
    except (OverflowError, ValueError):  # an integer with hundreds of digits, or a Decimal that signals
        number = math.nan
    low = number > minimum if above_minimum else number >= minimum
    high = number < maximum if below_maximum else number <= maximum
    if not (math.isfinite(number) and low and high):
        expected = _interval(minimum, maximum, above_minimum=above_minimum, below_maximum=below_maximum)
        raise ValueError(f"{name} must be a finite number {expected}, got {shown(value)}")
    return number


def _interval(minimum: float, maximum: float, *, above_minimum: bool, below_maximum: bool) -> str:
    if minimum == -math.inf:
        return "of any size"
    lower = f"greater than {minimum:g}" if above_minimum else f"at least {minimum:g}"
    upper = "" if maximum == math.inf else f" and {'less than' if below_maximum else 'at most'} {maximum:g}"
    return f"{lower}{upper}"


def check_choice(name: str, value: T, choices: tuple[T, ...]) -> T:
    """Returns ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")
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


def _refused(text: str, expected: str) -> ValueError:
    return ValueError(f"expected {expected}, got {shown(text)}")


def _spelled(text: str) -> str:
    """Returns the text of a number, which Python would read with underscores and other scripts' digits, too."""
    if "_" in text or not text.isascii():
        raise ValueError(text)
    return text


@dataclass(frozen=True, kw_only=True)
class Int:
    """The integers from ``minimum`` to ``maximum``."""

    minimum: int = 1
    maximum: int = LARGEST_INT

    @property
    def description(self) -> str:
        """The expected value."""
        upper = "" if self.maximum == LARGEST_INT else f" and at most {self.maximum}"
        return f"an integer of at least {self.minimum}{upper}"

    def check(self, name: str, value: object) -> int:
        """Returns ``value`` as an ``int``."""
        return check_int(name, value, minimum=self.minimum, maximum=self.maximum)

    def parse(self, text: str) -> int:
        """Returns the number that a text denotes."""
        try:
            return self.check("", int(_spelled(text)))
        except ValueError:
            too_large = text.isdecimal() and len(text) >= len(str(LARGEST_INT))
            expected = f"an integer of at most {self.maximum}" if too_large else self.description
            raise _refused(text, expected) from None


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
            return self.check("", float(_spelled(text)))
        except ValueError:
            raise _refused(text, self.description) from None


@dataclass(frozen=True)
class Loss:
    """Any number, even NaN or infinity, which the loss of a run that diverged can be."""

    description: str = "a number"

    def check(self, name: str, value: object) -> float:
        """Returns ``value`` as a ``float``."""
        if isinstance(value, float) and not math.isfinite(value):
            return value
        return check_number(name, value, minimum=-math.inf)

    def parse(self, text: str) -> float:
        """Returns the number that a text denotes."""
        try:
            return self.check("", float(_spelled(text)))
        except ValueError:
            raise _refused(text, self.description) from None


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
            raise _refused(text, self.description)
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
            raise _refused(text, self.description)
        return text == "true"


def check_text(name: str, value: object) -> str:
    """Returns ``value`` if it is a text: a ``str`` without lone surrogates, which are no characters.

    Raises:
        TypeError: If it is no ``str``, with how to get one.
        ValueError: If it has a lone surrogate, with its position.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {_of_type(value)}{text_from(value)}")
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
        raise TypeError(f"{name} must be several str, got {_of_type(value)}; {fix}")
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


@dataclass(frozen=True)
class Text:
    """Any string."""

    description: str = "a string"

    def check(self, name: str, value: object) -> str:
        """Returns ``value``, a string."""
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {_of_type(value)}")
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
            raise TypeError(f"{name} must be two values, got {_of_type(value)}")
        values = tuple(value)
        if len(values) != 2:
            raise ValueError(f"{name} must be two values, got {shown(value)}")
        first, second = (self.inner.check(f"each of {name}", each) for each in values)
        return first, second

    def parse(self, text: str) -> tuple[Any, Any]:
        """Returns the two values that a text such as ``"0.9,0.95"`` denotes."""
        try:
            return self.check("", [self.inner.parse(part) for part in text.split(",")])
        except ValueError:
            raise _refused(text, self.description) from None


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
            raise TypeError(f"{name} must be a list, got {_of_type(value)}")
        return tuple(self.inner.check(f"each of {name}", each) for each in value)

    def parse(self, text: str) -> tuple[Any, ...]:
        """Returns the one value that a text denotes; a command line has one text per value."""
        return (self.inner.parse(text),)


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
