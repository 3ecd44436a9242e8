"""Checks of texts and of what holds several, for which a table, a file or a name is easily mistaken."""

import os
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet

from tinygpt2._internal.checks import can_be_iterated, of_type

_PIECE = 1 << 20  # characters to check at a time


def check_text(name: str, value: object) -> str:
    """Returns ``value`` if it is a text: a ``str`` without lone surrogates, which are no characters.

    Raises:
        TypeError: If it is no ``str``, with how to get one.
        ValueError: If it has a lone surrogate, with its position.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, got {of_type(value)}{text_from(value)}")
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
    if fix is None and can_be_iterated(value):
        return value
    raise TypeError(f"{name} must be several str, got {of_type(value)}; {fix or 'pass a list'}")


def utf8_size(text: str) -> int:
    """Returns the number of bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8"))


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
    if not isinstance(value, Mapping | AbstractSet) and can_be_iterated(value):
        return "; join several: '\\n'.join(texts)"
    return ""


def is_table(value: object) -> bool:
    """Returns whether a value is a data frame, of any library, or a data set of Hugging Face."""
    return hasattr(value, "columns") or hasattr(value, "column_names")
