"""Division of texts and documents into pieces that can be encoded one by one."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tinygpt2.tokenizers.byte_pairs import splits_like_gpt2
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.protocol import Tokenizer

_PIECE = 1 << 18  # characters to encode at a time: few enough for a processor's cache
_MOST_AT_ONCE = 4 * _PIECE  # characters of a longer text that are looked at together

# Where a text can be cut without changing its tokens: GPT-2's pattern never matches whitespace after anything else, nor
# a sign after a letter, whatever the context. The letters and signs here are in every version of Unicode, so that
# Python and tiktoken agree on them.
CUT = re.compile(r"\S(?=[ \n])|[\u4e00-\u9fa5](?=[\uff0c\u3002\uff01\uff1f\uff1b\uff1a\u3001])")


class Piece(NamedTuple):
    """Text that is encoded in one call.

    Attributes:
        texts: Whole documents, or a part of one text.
        ended: Whether the end-of-text token follows each of them.
    """

    texts: list[str]
    ended: bool


def can_be_cut(tokenizer: Tokenizer) -> bool:
    """Returns whether it is known where a text can be cut without changing its tokens."""
    return isinstance(tokenizer, CharTokenizer) or splits_like_gpt2(tokenizer)


def pieces_of_text(parts: Iterable[str], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Yields a text, given in parts of any size, in pieces that are cut where that changes no token."""
    for text in _cut(parts, tokenizer):
        yield Piece([text], ended=False)


def pieces_of_documents(documents: Iterable[str], tokenizer: Tokenizer) -> Iterator[Piece]:
    """Yields documents, none of them empty: many short ones in one piece, a long one in several."""
    texts: list[str] = []
    size = 0
    for document in documents:
        if len(document) > _PIECE and can_be_cut(tokenizer):
            if texts:
                yield Piece(texts, ended=True)
                texts, size = [], 0
            *parts, last = _cut([document], tokenizer)
            for part in parts:
                yield Piece([part], ended=False)
            yield Piece([last], ended=True)
            continue
        texts.append(document)
        size += len(document) + 1
        if size >= _PIECE:
            yield Piece(texts, ended=True)
            texts, size = [], 0
    if texts:
        yield Piece(texts, ended=True)


def in_parts(text: str) -> Iterator[str]:
    """Yields a text in parts that are not copied often: each is a few megabytes long at most."""
    for begin in range(0, len(text), _MOST_AT_ONCE):
        yield text[begin : begin + _MOST_AT_ONCE]


def _cut(parts: Iterable[str], tokenizer: Tokenizer) -> Iterator[str]:
    waiting, begin = "", 0
    wanted, can_cut = _PIECE, can_be_cut(tokenizer)
    for part in (short for long in parts for short in in_parts(long)) if can_cut else parts:
        waiting, begin = waiting[begin:] + part, 0
        while can_cut and len(waiting) - begin >= wanted:
            end = begin + wanted
            cut = end if isinstance(tokenizer, CharTokenizer) else _last_cut(waiting, begin, end)
            if cut is None:
                wanted *= 2
            else:
                yield waiting[begin:cut]
                begin, wanted = cut, _PIECE
    if begin < len(waiting):
        yield waiting[begin:]


def _last_cut(text: str, begin: int, end: int) -> int | None:
    """Returns the last place between ``begin`` and ``end`` at which ``text`` can be cut."""
    for first in (max(begin, end - 1000), begin):
        places = [match.end() for match in CUT.finditer(text, first, end)]
        if places:
            return places[-1]
    return None
