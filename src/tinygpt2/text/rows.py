"""Rows of files as documents, and those of JSON files."""

import json
import re
from collections.abc import Iterable, Iterator

from tinygpt2._internal.checks import of_type, shown
from tinygpt2._internal.texts import check_text
from tinygpt2.text.reading import TextReader

_SHOWN_NAMES = 20  # of columns
_NO_SPACE = re.compile(r"[^ \t\n\r]")
_MANY_DIGITS = 20
_LONGEST_WORD = 20  # characters in JSON that cannot be read in part: -Infinity, an escaped pair of surrogates
_TOO_DEEP = "nested too deeply, with lists or objects within each other"
_FORMS = "a .jsonl file has a string or an object on each line, a .json file may have a list of them"


def pieces_between(pieces: Iterable[str], separator: str) -> Iterator[str]:
    """Yields what is before, between and after the places where a separator occurs, as ``str.split`` cuts a whole."""
    held: list[str] = []  # since the last separator
    tail = ""  # what may be the beginning of one
    for piece in pieces:
        text, begin = tail + piece, 0
        while (end := text.find(separator, begin)) >= 0:
            yield "".join([*held, text[begin:end]])
            held.clear()
            begin = end + len(separator)
        keep = max(begin, len(text) - len(separator) + 1)
        held.append(text[begin:keep])
        tail = text[keep:]
    yield "".join([*held, tail])


def as_document(name: str, value: object) -> str:
    r"""Returns the text of a row, with ``\n`` for ``\r\n``.

    Args:
        name: What messages call it.
        value: What is in the row.

    Raises:
        ValueError: If it is no text, or one with a NUL or a lone surrogate.
    """
    if not isinstance(value, str):
        raise ValueError(f"{name} must be a string, got {of_type(value)}; leave such rows out")  # noqa: TRY004 - a file
    check_text(name, value)
    if (nul := value.find("\0")) >= 0:
        raise ValueError(f"{name} has a NUL at character {nul}, which belongs in no text; remove it")
    return value.replace("\r\n", "\n")


def no_column(field: str, names: Iterable[object]) -> str:
    """Returns that a table or a row has no column or field of that name, and which it has."""
    quoted = [shown(name) for name in names]
    more = f" and {len(quoted) - _SHOWN_NAMES:,} more" if len(quoted) > _SHOWN_NAMES else ""
    has = f"only {', '.join(quoted[:_SHOWN_NAMES])}{more}" if quoted else "nothing at all"
    return f"has no {field!r}, {has}; pass the name of the one with the texts as field (--field)"


# --- JSON ---


def _integer(digits: str) -> float:
    """Returns a number, of which only messages tell; Python itself refuses more than 4,300 digits."""
    return int(digits) if len(digits) < _MANY_DIGITS else float(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


def json_lines(reader: TextReader, field: str) -> Iterator[str]:
    """Yields the documents of a file with a JSON value on each line."""
    for number, line in enumerate(pieces_between(reader, "\n"), start=1):
        if not line or line.isspace():
            continue
        place = f"{reader.name}, line {number:,}"
        try:
            row = _DECODER.decode(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{place}, column {error.colno:,}: the line is no JSON value by itself ({error.msg}); {_FORMS}"
            ) from None
        except RecursionError:
            raise ValueError(f"{place}: {_TOO_DEEP}") from None
        yield _of_row(row, field, place)


def json_values(reader: TextReader, field: str) -> Iterator[str]:
    """Yields the documents of a JSON file, which is never held as a whole: a list of values, or values on their own."""
    values = _JSONValues(reader)
    for row in values:
        yield _of_row(row, field, values.place)


class _JSONValues:
    """The values in a JSON list, or with nothing but spaces between them."""

    def __init__(self, reader: TextReader) -> None:
        self._pieces, self._name = iter(reader), reader.name
        self._text, self._at = "", 0  # what was read and not yet parsed begins there
        self._lines = self._counted = 0  # line breaks so far, and up to where in that text
        self._number = self._begin = 0  # of the last value, and where it begins in that text

    @property
    def place(self) -> str:
        """Where the last value is, for messages."""
        return f"{self._name}, line {self._line(self._begin):,}, item {self._number:,}"

    def __iter__(self) -> Iterator[object]:
        if self._next() != "[":
            while self._next():
                yield self._value()
            return
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            while True:
                yield self._value()
                if self._expect(",]") == "]":
                    break
        self._expect("")

    def _expect(self, characters: str) -> str:
        """Passes one of some characters, or the end if there are none, and returns it."""
        found = self._next()
        if found not in characters or bool(found) != bool(characters):
            wanted = " or ".join(characters) or "nothing after the list"
            got = repr(found) if found else "the end of the file"
            raise ValueError(f"{self._name}, line {self._line(self._at):,}: expected {wanted}, got {got}; {_FORMS}")
        self._at += 1
        return found

    def _next(self) -> str:
        """Passes spaces and returns the next character, nothing at the end."""
        while True:
            if match := _NO_SPACE.search(self._text, self._at):
                self._at = match.start()
                return match[0]
            self._at = len(self._text)
            if not self._read():
                return ""

    def _value(self) -> object:
        self._number += 1
        self._next()
        while True:
            self._begin = self._at
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # It may be cut off where the text that was read ends.
                within = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_WORD
                if not (within and self._read()):
                    raise ValueError(f"{self.place}: not JSON ({error.msg}); {_FORMS}") from None
            except RecursionError:
                raise ValueError(f"{self.place}: {_TOO_DEEP}") from None
            else:
                length = end - self._at
                if end < len(self._text) or not self._read():  # a number may go on
                    self._at += length
                    return value

    def _read(self) -> bool:
        """Reads on, by twice as much if a value is longer than what was read; returns ``False`` at the end."""
        self._line(self._at)
        rest = self._text[self._at :]
        parts, missing = [rest], max(1, len(rest))
        while missing > 0 and (piece := next(self._pieces, None)) is not None:
            parts.append(piece)
            missing -= len(piece)
        self._text = "".join(parts)
        self._at = self._begin = self._counted = 0
        return len(self._text) > len(rest)

    def _line(self, position: int) -> int:
        """Returns the number of the line of a position, which is not before the last one that was asked for."""
        self._lines += self._text.count("\n", self._counted, position)
        self._counted = position
        return self._lines + 1


def _of_row(row: object, field: str, place: str) -> str:
    if isinstance(row, str):
        return as_document(place, row)
    if isinstance(row, dict) and field in row:
        return as_document(f"{place}: {field!r}", row[field])
    if isinstance(row, dict):
        raise ValueError(f"{place}: the object {no_column(field, row)}")  # noqa: TRY004 - a wrong file, not a wrong argument
    raise ValueError(f"{place}: expected a string or an object with {field!r}, got {of_type(row)}; {_FORMS}")
