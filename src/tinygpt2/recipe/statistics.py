"""What a recipe depends on in a text."""

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from tinygpt2._internal.ranges import Bool, Check, Int, Number, Optional, Text, check_fields
from tinygpt2._internal.texts import utf8_size
from tinygpt2.text.documents import texts_of
from tinygpt2.tokenizers.choice import are_names, script_of
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer, encoded
from tinygpt2.tokenizers.vocabulary import count_words

_PIECE = 1 << 16  # characters that are in the sample or not as a whole
_SAMPLE = 16 * _PIECE  # characters, at most

STATISTICS_RANGES: Mapping[str, Check] = MappingProxyType(
    {
        "bytes": Int(),
        "documents": Int(),
        "script": Text(),
        "names": Bool(),
        "characters": Optional(Int()),
        "repetition": Number(maximum=1),
        "tokens": Optional(Int()),
        "held_out": Optional(Int()),
    }
)
"""The range of each field of `TextStatistics`."""


@dataclass(frozen=True, kw_only=True)
class TextStatistics:
    """What `recommend` needs to know about the text to train on. All but its size is estimated from a sample.

    Attributes:
        bytes: Size in UTF-8.
        documents: Number of documents that are not empty; 1 for one continuous text.
        script: The script that most of its letters have, such as ``"mostly Latin letters"``.
        names: Whether it is a list of names, whose words hardly ever come again.
        characters: Number of different characters; ``None`` if it is not known.
        repetition: Share of its bytes that a compressor (zlib) saves: about 0.6 for prose, nearly 1 for a text that
            repeats itself.
        tokens: Number of tokens that a pass over the text reads, if its tokenizer exists; otherwise it is estimated.
        held_out: Number of tokens to validate on; by default a ninth of those to train on.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If a value is out of range.

    >>> text = "It was a bright cold day in April. " * 100
    >>> statistics = TextStatistics.of(text)
    >>> statistics.bytes, statistics.script
    (3500, 'Latin letters')
    >>> statistics.repetition > 0.9
    True
    """

    bytes: int
    documents: int = 1
    script: str = "unknown script"
    names: bool = False
    characters: int | None = None
    repetition: float = 0.6
    tokens: int | None = None
    held_out: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, STATISTICS_RANGES)

    @classmethod
    def of(cls, documents: str | Iterable[str], tokenizer: AnyTokenizer | None = None) -> Self:
        """Returns the statistics of a text, or of documents, which are read once.

        Args:
            documents: The text, or several.
            tokenizer: Its tokenizer, if that exists. ``tokens`` is then known.

        Raises:
            TypeError: If it is neither a text nor documents.
            ValueError: If there is no text, or a lone surrogate in it.
        """
        size = count = 0
        sample = _Sample()
        for text in texts_of("documents", documents):
            if text:
                size, count = size + utf8_size(text), count + 1
                sample.add(text)
        if not size:
            raise ValueError("documents must have some text to choose a recipe for, got none")
        text = "".join(sample.pieces)
        utf8, characters = text.encode("utf-8"), Counter(text)
        return cls(
            bytes=size,
            documents=count,
            script=script_of(characters),
            names=are_names(count_words("documents", sample.pieces), len(utf8)),
            characters=len(characters),
            repetition=round(max(0.0, 1 - len(zlib.compress(utf8)) / len(utf8)), 3),
            tokens=None if tokenizer is None else _tokens(sample.pieces, as_tokenizer(tokenizer), size, count),
        )


def _tokens(pieces: list[str], tokenizer: Tokenizer, size: int, documents: int) -> int:
    """Returns the tokens of a text of so many bytes, of which these pieces are a sample, with the ends of documents."""
    if documents == 1:
        pieces = ["".join(pieces)]
    share = sum(map(utf8_size, pieces)) / size
    ends = documents if documents > 1 else 0
    return max(1, round(sum(len(encoded(tokenizer, piece)) for piece in pieces) / share) + ends)


class _Sample:
    """Pieces of texts, evenly spread over all of them: each n-th, with n a power of two as small as possible."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._every, self._number = 1, 0
        self._held: list[str] = []
        self._length = 0

    def add(self, text: str) -> None:
        for piece in _cut(text):
            if self._number % self._every == 0:
                self._add(piece)
            self._number += 1

    def _add(self, piece: str) -> None:
        self.pieces.append(piece)
        self._length += len(piece)
        if self._length > _SAMPLE:
            self.pieces = self.pieces[::2]
            self._length = sum(map(len, self.pieces))
            self._every *= 2


def _cut(text: str) -> Iterator[str]:
    return (text[begin : begin + _PIECE] for begin in range(0, len(text), _PIECE))
