"""How much of a generated text is copied from the training text."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from tinygpt2._internal.checks import check_int
from tinygpt2._internal.texts import check_text
from tinygpt2.text.documents import documents_of

_PIECE = 1 << 20  # characters of the training text to hash at a time
_BETWEEN = "\ud800"  # stands between documents; no text has it, since it is no character
_MULTIPLIER = 0x9E3779B97F4A7C15  # odd, and without a pattern in its bits
_TABLE = 1 << 20  # places of hashes

_Hashes = npt.NDArray[np.uint64]


def copied_share(text: str | Iterable[str], training: str | Iterable[str], length: int = 50) -> float:
    """Returns the share of a text's characters that lie in long stretches copied verbatim from the training text.

    A stretch is copied if it occurs in the training text, or in a single document of it, character by character. Line
    breaks and spaces count like all characters. The result is exact. A megabyte of training text takes about a tenth of
    a second; memory grows with ``text`` and with the longest document, not with the number of documents.

    Args:
        text: Generated text, or several.
        training: The text, or the documents, that the model was trained on.
        length: Number of characters from which on a stretch counts.

    Returns:
        A number from 0 to 1.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If ``text`` has no characters, a text has a lone surrogate, or ``length`` is less than 1.

    >>> copied_share("So the cat sat there", "Then the cat sat on it", length=10)
    0.65
    """
    texts = [check_text("text", text)] if isinstance(text, str) else list(documents_of("text", text))
    pieces = [check_text("training", training)] if isinstance(training, str) else documents_of("training", training)
    length = check_int("length", length)
    characters = sum(map(len, texts))
    if not characters:
        raise ValueError("text has no characters; pass text that the model generated")
    found = _occurring(texts, pieces, length)
    return sum(_covered(each, found, length) for each in texts) / characters


def _covered(text: str, copied: set[str], length: int) -> int:
    """Returns how many characters of a text are in a window that was copied."""
    count = end = 0  # of the characters counted
    for begin in range(len(text) - length + 1):
        if text[begin : begin + length] in copied:
            count += begin + length - max(begin, end)
            end = begin + length
    return count


def _occurring(texts: list[str], training: Iterable[str], length: int) -> set[str]:
    """Returns the windows of texts that occur in the training text."""
    windows = {text[begin : begin + length] for text in texts for begin in range(len(text) - length + 1)}
    possible = np.zeros(_TABLE, dtype=np.bool_)
    for part in _parts(texts, length):
        possible[_hashes(part, length) % _TABLE] = True
    found: set[str] = set()
    for part in _parts(training, length):
        places = np.flatnonzero(possible[_hashes(part, length) % _TABLE])
        found.update(window for begin in places.tolist() if (window := part[begin : begin + length]) in windows)
        if len(found) == len(windows):
            break
    return found


def _parts(texts: Iterable[str], length: int) -> Iterator[str]:
    """Yields texts in parts of bounded size that have all their windows, short texts together."""
    waiting: list[str] = []
    size = 0
    for text in texts:
        for begin in range(0, len(text) - length + 1, _PIECE):
            waiting.append(text[begin : begin + _PIECE + length - 1])
            size += len(waiting[-1])
            if size >= _PIECE:
                yield _BETWEEN.join(waiting)
                waiting, size = [], 0
    if waiting:
        yield _BETWEEN.join(waiting)


def _hashes(text: str, length: int) -> _Hashes:
    """Returns the hash of each window of a text: a polynomial of its characters, modulo 2^64, mixed."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    powers, size = codes.astype(np.uint64), 1  # of windows as long as a power of two
    result, done = np.zeros(len(powers), dtype=np.uint64), 0
    while True:  # over the bits of the length
        if length & size:
            result = _joined(result, powers, done, size)
            done += size
        if done == length:
            break
        powers = _joined(powers, powers, size, size)
        size *= 2
    result *= np.uint64(_MULTIPLIER)
    return result ^ result >> np.uint64(32)


def _joined(first: _Hashes, second: _Hashes, offset: int, size: int) -> _Hashes:
    """Returns the hashes of windows of both kinds, one after the other; the second begins at an offset, with a size."""
    count = len(second) - offset
    return first[:count] * np.uint64(pow(_MULTIPLIER, size, 1 << 64)) + second[offset:]
