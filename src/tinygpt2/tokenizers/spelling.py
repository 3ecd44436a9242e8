"""What the spellings of tokens have in common."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np
import tiktoken

from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_FEATURES = 50_000
"""More than GPT-2's vocabulary has; of larger ones this keeps the commonest, so that the memory is bounded."""

_LONGEST = 4  # characters of a part of a token
_BEGIN, _END = "\ud800", "\ud801"  # signs for the two ends of a token, which no text has


@dataclass(frozen=True, eq=False)
class Spelling:
    """The features of tokens' spellings: those of token i are ``features[starts[i] : starts[i + 1]]``.

    Attributes:
        starts: (V + 1,) int64.
        features: Numbers of features, from 0 to ``count`` - 1, int64.
        count: Number of features, at most `MOST_FEATURES`.
    """

    starts: "NDArray[np.int64]"
    features: "NDArray[np.int64]"
    count: int

    @property
    def identity(self) -> str:
        """A hash of all features of all tokens."""
        return hashlib.sha256(self.starts.tobytes() + self.features.tobytes()).hexdigest()


def spelling_of(tokenizer: Tokenizer) -> Spelling | None:
    """Returns the features that at least two tokens have; ``None`` if the bytes of the tokens are not known.

    They are a token's parts of one to four characters, with signs for its two ends and whatever the case; the token
    without spaces and case; its first and last three characters; whether it begins with a space or a capital; and its
    length. Bytes that are not UTF-8 are characters, too. Special tokens have no features.

    >>> from tinygpt2 import CharTokenizer
    >>> spelling = spelling_of(CharTokenizer("ab"))
    >>> spelling.starts.tolist()  # both are short, without space and capital
    [0, 5, 10, 10]
    """
    texts = token_texts(tokenizer)
    if texts is None:
        return None
    numbers: defaultdict[Hashable, int] = defaultdict(count().__next__)
    found: list[int] = []
    sizes: list[int] = []
    for text in texts:
        before = len(found)
        if text:
            # A dict, unlike a set, has the same order in every process.
            found += map(numbers.__getitem__, dict.fromkeys(_features(text.decode("utf-8", "surrogateescape"))))
        sizes.append(len(found) - before)
    tokens, features = np.repeat(np.arange(len(texts)), sizes), np.array(found, np.int64)
    frequencies = np.bincount(features, minlength=len(numbers))
    shared = np.argsort(-frequencies, kind="stable")[: min(MOST_FEATURES, int((frequencies >= 2).sum()))]
    renumbered = np.full(len(numbers), -1)
    renumbered[shared] = np.arange(len(shared))
    kept = renumbered[features] >= 0
    starts = np.append(0, np.bincount(tokens[kept], minlength=len(texts)).cumsum())
    return Spelling(starts, renumbered[features[kept]], len(shared))


def _features(text: str) -> Iterator[Hashable]:
    """Yields the features of a token's text, some of them several times."""
    word = text.strip()
    if word:
        yield "word", word.lower()
    yield "space", text[0] == " "
    yield "capital", word[:1].isupper()
    yield "length", min(len(word), 8)
    for size in range(1, _LONGEST):
        yield "first", text[:size]
        yield "last", text[-size:]
    marked = f"{_BEGIN}{text.lower()}{_END}"
    for size in range(1, _LONGEST + 1):
        yield from (marked[i : i + size] for i in range(len(marked) - size + 1))


def token_texts(tokenizer: Tokenizer) -> list[bytes] | None:
    r"""Returns the bytes of text that each token stands for, none for special tokens, if that is known.

    >>> token_texts(CharTokenizer("aé"))
    [b'a', b'\xc3\xa9', b'']
    """
    if isinstance(tokenizer, CharTokenizer):
        fallback = [bytes([byte]) for byte in range(256)] if tokenizer.byte_fallback else []
        return [*(char.encode() for char in tokenizer.characters), *fallback, b""]
    if isinstance(tokenizer, tiktoken.Encoding):
        texts = [b""] * tokenizer.n_vocab
        for token, rank in tokenizer._mergeable_ranks.items():  # noqa: SLF001 - tiktoken's own, in one call
            texts[rank] = token
        return texts
    known: Callable[[], list[bytes] | None] | None = getattr(tokenizer, "token_texts", None)
    return None if known is None else known()
