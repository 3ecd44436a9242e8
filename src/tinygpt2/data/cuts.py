"""Byte pairs with dropout: other cuts of the same words."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import regex
import tiktoken

from tinygpt2.data.encoding import ids_dtype
from tinygpt2.data.pieces import Piece
from tinygpt2.tokenizers.protocol import Tokenizer, encoded

LONGEST_WORD = 256  # bytes of a word that is cut in other ways; the time for it grows with the square

_WIDTHS = (1, 2, 3, 4, 5, 6, 8, 11, 16, 24, 36, 56, 96, 160, LONGEST_WORD)  # of words that are merged side by side
_BLOCK = 1 << 20  # symbols that are merged at a time
_NOTHING = -1  # where a word has no token
_NO_TOKEN = np.iinfo(np.int32).max  # what a pair makes that is not merged

_Ints = npt.NDArray[np.int32]


class Words:
    """The words of a text, which can be cut into tokens in many ways.

    Args:
        pieces: The text, or documents.
        tokenizer: Byte pairs, whose pattern tells words apart.

    Raises:
        ValueError: If the tokenizer has no merges of bytes.
    """

    def __init__(self, pieces: Iterable[Piece], tokenizer: Tokenizer) -> None:
        self._pairs = _Pairs(_ranks_of(tokenizer))
        self._dtype = ids_dtype(tokenizer.n_vocab).newbyteorder("=")
        symbols, sizes = [np.empty(0, self._dtype)], [np.empty(0, np.int32)]
        for part, lengths in _symbols(pieces, tokenizer):
            symbols.append(part.astype(self._dtype))
            sizes.append(np.asarray(lengths, dtype=np.int32))
        self._symbols = np.concatenate(symbols)  # (N,) the tokens of single bytes, and the ends of documents
        self._sizes = np.concatenate(sizes)  # (W,) of how many of them each word consists

    def encode(self, dropout: float, generator: np.random.Generator) -> npt.NDArray[np.integer[Any]]:
        """Returns the ids of the text, (N,) of `ids_dtype`, in which each word is cut anew.

        Args:
            dropout: Probability of skipping each merge, at each step of merging. With 0 the ids are those of the
                tokenizer; with 1 those of single bytes.
            generator: Source of randomness.
        """
        ends = np.cumsum(self._sizes, dtype=np.int64)
        cuts = np.searchsorted(ends, np.arange(0, len(self._symbols), _BLOCK)).tolist()
        parts, begin = [np.empty(0, self._dtype)], 0
        for first, last in pairwise([*cuts, len(self._sizes)]):
            end = int(ends[last - 1]) if last > first else begin
            ids = self._merged_block(self._symbols[begin:end], self._sizes[first:last], dropout, generator)
            parts.append(ids.astype(self._dtype))
            begin = end
        return np.concatenate(parts)

    def _merged_block(
        self, symbols: npt.NDArray[Any], sizes: _Ints, dropout: float, generator: np.random.Generator
    ) -> _Ints:
        """Returns the ids of some words, given the tokens of their bytes."""
        ids = symbols.astype(np.int32)
        starts = np.cumsum(sizes, dtype=np.int64) - sizes
        for shorter, width in pairwise(_WIDTHS):
            rows = np.flatnonzero((sizes > shorter) & (sizes <= width))
            if rows.size:
                inside = np.arange(width) < sizes[rows][:, None]  # (R, width)
                places = (starts[rows][:, None] + np.arange(width))[inside]
                words = np.full(inside.shape, _NOTHING, dtype=np.int32)
                words[inside] = ids[places]
                ids[places] = self._merged(words, dropout, generator)[inside]  # with nothing after the last token
        found: _Ints = ids[ids != _NOTHING]
        return found

    def _merged(self, words: _Ints, dropout: float, generator: np.random.Generator) -> _Ints:
        """Returns words, (R, width), after their merges; at each step every word makes one, or is done."""
        done = np.full_like(words, _NOTHING)
        rows = np.arange(len(words))  # of those not done
        made = self._pairs(words[:, :-1], words[:, 1:])  # the token of each pair of neighbours
        while made.shape[1]:
            skipped = generator.random(made.shape, dtype=np.float32) < dropout
            allowed = np.where(skipped, _NO_TOKEN, made)
            at = allowed.argmin(axis=1)
            token = np.take_along_axis(allowed, at[:, None], axis=1)[:, 0]
            goes_on = token != _NO_TOKEN
            done[rows[~goes_on], : words.shape[1]] = words[~goes_on]
            rows, at, token = rows[goes_on], at[goes_on], token[goes_on]
            words, made = self._with_merge(words[goes_on], made[goes_on], at, token)
        done[rows, : words.shape[1]] = words
        return done

    def _with_merge(self, words: _Ints, made: _Ints, at: npt.NDArray[np.intp], token: _Ints) -> tuple[_Ints, _Ints]:
        """Returns words with one pair of each merged into a token, and what their pairs make now."""
        words, made = _without(words, at + 1), _without(made, at)
        words[np.arange(len(words)), at] = token
        left = np.flatnonzero(at > 0)
        made[left, at[left] - 1] = self._pairs(words[left, at[left] - 1], token[left])
        right = np.flatnonzero(at < made.shape[1])
        made[right, at[right]] = self._pairs(token[right], words[right, at[right] + 1])
        return words, made


class _Pairs:
    """A function from pairs of tokens to the tokens that they make, or ``_NO_TOKEN``."""

    def __init__(self, ranks: dict[bytes, int]) -> None:
        self._factor = max(ranks.values()) + 2
        made = {
            self._key(ranks[token[:i]], ranks[token[i:]]): rank
            for token, rank in ranks.items()
            for i in range(1, len(token))
            if token[:i] in ranks and token[i:] in ranks
        }
        keys = np.fromiter(made, dtype=np.int64, count=len(made))
        order = np.argsort(keys)
        self._keys = np.append(keys[order], np.iinfo(np.int64).max)
        self._made = np.append(np.fromiter(made.values(), np.int32, len(made))[order], np.int32(_NO_TOKEN))

    def __call__(self, first: _Ints, second: _Ints) -> _Ints:
        """Returns what pairs of tokens make; of ``_NOTHING`` nothing."""
        keys = self._key(first.astype(np.int64), second.astype(np.int64))
        places = np.searchsorted(self._keys, keys)
        return np.where(self._keys[places] == keys, self._made[places], np.int32(_NO_TOKEN))

    def _key(self, first: Any, second: Any) -> Any:  # noqa: ANN401 - of numbers or arrays
        """Returns a number that no other pair has; ``_NOTHING`` is one less than the lowest id."""
        return first * self._factor + second + 1


def _without(matrix: _Ints, column: npt.NDArray[np.intp]) -> _Ints:
    """Returns a matrix (R, N) without one column of each row, (R, N - 1)."""
    kept = np.ones(matrix.shape, dtype=bool)
    kept[np.arange(len(matrix)), column] = False
    return matrix[kept].reshape(len(matrix), matrix.shape[1] - 1)


def _ranks_of(tokenizer: Tokenizer) -> dict[bytes, int]:
    """Returns the ids of the tokens of byte pairs, which are also the order of their merges."""
    ranks = tokenizer._mergeable_ranks if isinstance(tokenizer, tiktoken.Encoding) else {}  # noqa: SLF001
    if not all(bytes([byte]) in ranks for byte in range(256)):
        raise ValueError(
            f"bpe_dropout skips merges of byte pairs, but tokenizer is {tokenizer!r}, which has none; pass one of "
            "train_tokenizer, trim_vocabulary or gpt2_tokenizer, or bpe_dropout=0"
        )
    return ranks


def _symbols(pieces: Iterable[Piece], tokenizer: Any) -> Iterator[tuple[npt.NDArray[Any], list[int]]]:  # noqa: ANN401
    """Yields the tokens of the bytes of texts, and how many each word has; an end is a word of its own."""
    ranks = _ranks_of(tokenizer)
    of_bytes = np.asarray([ranks[bytes([byte])] for byte in range(256)])
    pattern = regex.compile(tokenizer._pat_str)  # noqa: SLF001
    for piece in pieces:
        for text in piece.texts:
            for words in _runs(match[0].encode() for match in pattern.finditer(text)):
                if len(words[0]) > LONGEST_WORD:
                    ids = encoded(tokenizer, words[0].decode())
                    yield np.asarray(ids), [1] * len(ids)
                else:
                    yield of_bytes[np.frombuffer(b"".join(words), dtype=np.uint8)], [len(word) for word in words]
            if piece.ended:
                yield np.asarray([tokenizer.eot_token]), [1]


def _runs(words: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yields words in lists: a long one alone, all others between two of them together."""
    run: list[bytes] = []
    for word in words:
        if len(word) <= LONGEST_WORD:
            run.append(word)
            continue
        if run:
            yield run
        yield [word]
        run = []
    if run:
        yield run
