"""Ranges of values, each defined once: it checks a value, parses one from the command line, and describes itself."""

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Protocol

from tinygpt2._internal.checks import (
    LARGEST_INT,
    can_be_iterated,
    check_bool,
    check_choice,
    check_int,
    check_number,
    interval,
    of_type,
    shown,
)


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


def _parsed_float(text: str, expected: Check) -> float:
    try:
        return float(expected.check("", float(_spelled(text))))
    except ValueError:
        raise _refused(text, expected.description) from None


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
        within = interval(
            self.minimum, self.maximum, above_minimum=self.above_minimum, below_maximum=self.below_maximum
        )
        return f"a number {within}" if self.above_minimum else f"a number of {within}"

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
        return _parsed_float(text, self)


@dataclass(frozen=True)
class Loss:
    """Any number, even NaN or infinity, which the loss of a run that diverged can be."""

    description: str = "a number"

    def check(self, name: str, value: object) -> float:
        """Returns ``value`` as a ``float``."""
        try:
            return check_number(name, value, minimum=-math.inf)
        except ValueError:
            plain = getattr(value, "item", lambda: value)()
            if isinstance(plain, float):  # NaN or infinity
                return float(plain)
            raise

    def parse(self, text: str) -> float:
        """Returns the number that a text denotes."""
        return _parsed_float(text, self)


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
        return check_choice(name, value, self.choices)

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


@dataclass(frozen=True)
class Text:
    """Any string."""

    description: str = "a string"

    def check(self, name: str, value: object) -> str:
        """Returns ``value``, a string."""
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a string, got {of_type(value)}")
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
        if isinstance(value, str | bytes | Mapping | AbstractSet) or not can_be_iterated(value):  # a set has no order
            raise TypeError(f"{name} must be two values, got {of_type(value)}")
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
            raise TypeError(f"{name} must be a list, got {of_type(value)}")
        return tuple(self.inner.check(f"each of {name}", each) for each in value)

    def parse(self, text: str) -> tuple[Any, ...]:
        """Returns the one value that a text denotes; a command line has one text per value."""
        return (self.inner.parse(text),)
