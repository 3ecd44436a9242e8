"""Checks of a user's arguments, so that every message says what was expected, what came and the fix."""

import math
from typing import TypeVar

T = TypeVar("T")


def check_int(name: str, value: object, *, minimum: int = 1) -> int:
    """Returns ``value`` if it is an integer of at least ``minimum``; a bool is not one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r} ({type(value).__name__})")
    if value < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value}")
    return value


def check_bool(name: str, value: object) -> None:
    """Raises ``TypeError`` unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r} ({type(value).__name__})")


def check_number(
    name: str,
    value: object,
    *,
    minimum: float = 0.0,
    maximum: float = math.inf,
    above_minimum: bool = False,
    below_maximum: bool = False,
) -> float:
    """Returns ``value`` if it is a finite number from ``minimum`` to ``maximum``, either end left out on request."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, got {value!r} ({type(value).__name__})")
    low = value > minimum if above_minimum else value >= minimum
    high = value < maximum if below_maximum else value <= maximum
    if not (math.isfinite(value) and low and high):
        lower = f"greater than {minimum:g}" if above_minimum else f"at least {minimum:g}"
        upper = "" if maximum == math.inf else f" and {'less than' if below_maximum else 'at most'} {maximum:g}"
        raise ValueError(f"{name} must be a finite number {lower}{upper}, got {value}")
    return float(value)


def check_choice(name: str, value: T, choices: tuple[T, ...]) -> T:
    """Returns ``value`` if it is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
