"""Vocabularies that are learned from a text, or trimmed to one."""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import regex
import tiktoken

from tinygpt2._internal.checks import check_instance, check_int, check_iterable
from tinygpt2._internal.texts import check_text
from tinygpt2.text.documents import texts_of
from tinygpt2.tokenizers.byte_pairs import (
    LONGEST_TOKEN,
    MOST_TOKENS,
    SPLIT_PATTERN,
    byte_pair_encoding,
    checked_encoding,
)
from tinygpt2.tokenizers.protocol import END_OF_TEXT, encoded

_WORD = regex.compile(SPLIT_PATTERN)
_CUT = regex.compile(r"\S(?=[ \n])")  # no word has whitespace after anything else, so a text can be cut before it
_PIECE = 1 << 20  # characters of a long text to cut into words at a time

_FEWEST = 2  # occurrences of a pair that is merged: a token that was seen once teaches nothing

_Integers = npt.NDArray[np.integer[Any]]


def train_tokenizer(
    documents: str | Iterable[str], vocab_size: int, *, special_tokens: Sequence[str] = ()
) -> tiktoken.Encoding:
    """Returns a byte-pair tokenizer whose vocabulary is learned from a text (Sennrich et al. 2016).

    The text is cut into words as GPT-2 cuts it, and each word into bytes. Then the most frequent pair of neighbouring
    tokens within words becomes a token, again and again; of equally frequent pairs, the one whose first token has the
    lowest id, then the one whose second token has. A pair that occurs once is not merged. Any text, not only the one it
    was learned from, is encoded and decoded without loss.

    The ids are, in this order: the 256 bytes; the merged tokens, as they were merged; ``special_tokens``; the end of
    text. ``encode_ordinary`` never returns special tokens: in a text, their names are ordinary characters.
    ``encode(text, allowed_special="all")`` returns them.

    Args:
        documents: The text to learn from, or several. They are read once, one at a time; only their different words are
            kept. Text on which the model will be evaluated should not be among them.
        vocab_size: Number of ids, at least 257 plus the number of ``special_tokens``.
        special_tokens: Names of special tokens besides the end of text, such as ``"<|user|>"`` for chats.

    Raises:
        TypeError: If an argument, a document or a name is of the wrong type.
        ValueError: If there is no text, or a lone surrogate in it, the size is out of range, or a name is empty, occurs
            twice or is that of the end of text.

    Warns:
        UserWarning: If the text has too few pairs that occur twice; the vocabulary is then smaller.

    >>> tokenizer = train_tokenizer("the cat and the hat and the bat", 261)
    >>> [tokenizer.decode([i]) for i in range(256, 261)]
    ['at', 'he', 'the', ' a', '<|endoftext|>']
    >>> tokenizer.decode(tokenizer.encode_ordinary("那只猫"))
    '那只猫'
    """
    names = _checked_names(special_tokens)
    vocab_size = check_int("vocab_size", vocab_size, minimum=256 + len(names) + 1, maximum=MOST_TOKENS)
    tokenizer = learned_from(count_words("documents", documents), vocab_size, names)
    if missing := vocab_size - tokenizer.n_vocab:
        warnings.warn(
            f"the vocabulary has {tokenizer.n_vocab:,} tokens, {missing:,} fewer than vocab_size: no other pair of "
            "tokens occurs twice in the text",
            stacklevel=2,
        )
    return tokenizer


def _checked_names(names: Iterable[Any]) -> list[str]:
    check_iterable("special_tokens", names, "several str")
    checked: list[str] = []
    for i, name in enumerate(names):
        check_text(f"special_tokens[{i}]", name)
        if name in {"", END_OF_TEXT, *checked}:
            reason = {"": "is empty", END_OF_TEXT: "is always a special token"}.get(name, "occurs twice")
            raise ValueError(f"special_tokens[{i}] {reason}: {name!r}; leave it out")
        checked.append(name)
    return checked


def count_words(name: str, documents: object) -> Counter[str]:
    """Returns how often each word of GPT-2's cut occurs in a text or in several.

    Args:
        name: Name of the documents in error messages.
        documents: A ``str``, or what `documents_of` takes.

    Raises:
        TypeError: If they are of another type.
        ValueError: If there is no text, or a lone surrogate in it.
    """
    words: Counter[str] = Counter()
    for text in texts_of(name, documents):
        for piece in _pieces(text):
            words.update(_WORD.findall(piece))
    if not words:
        raise ValueError(f"{name} must have some text to learn a vocabulary from, got none")
    return words


def _pieces(text: str) -> Iterator[str]:
    """Yields a text in pieces whose words are those of the text."""
    begin = 0
    while begin < len(text):
        cut = _CUT.search(text, begin + _PIECE)
        end = cut.end() if cut else len(text)
        yield text[begin:end]
        begin = end


def learned_from(words: Mapping[str, int], vocab_size: int, special_tokens: Sequence[str] = ()) -> tiktoken.Encoding:
    """Returns what `train_tokenizer` does, without a warning, given the words and how often each occurs."""
    tokens = _merged(words, vocab_size - len(special_tokens) - 1)
    return byte_pair_encoding("byte-pairs", SPLIT_PATTERN, tokens, special_tokens)


def _merged(words: Mapping[str, int], wanted: int) -> list[bytes]:
    """Returns the bytes and the tokens of the merges, ``wanted`` in all if the words have so many."""
    tokens = [bytes([byte]) for byte in range(256)]
    rows = _Rows(words)
    heap = [(-count, *pair, at) for pair, count, at in rows.pairs()]
    heapify(heap)
    while heap and len(tokens) < wanted:
        before, first, second, at = heappop(heap)
        at, count = rows.counted(first, second, at)
        if count < -before:  # earlier merges took some of its tokens; no count ever grows
            if count >= _FEWEST:
                heappush(heap, (-count, first, second, at))
        elif len(token := tokens[first] + tokens[second]) <= LONGEST_TOKEN:
            for pair, number, places in rows.merge(first, second, at, new=len(tokens)):
                heappush(heap, (-number, *pair, places))
            tokens.append(token)
    return tokens


class _Rows:
    """The tokens of all words in one row, each word followed by -1, with links across the gaps that merges leave.

    A pair of neighbours is named by its two tokens; its places are the indices of the first of them, ascending.
    """

    def __init__(self, words: Mapping[str, int]) -> None:
        encoded_words = [word.encode("utf-8") for word in words]
        lengths = np.array([len(word) + 1 for word in encoded_words])
        self.tokens = np.frombuffer(b"\0" + b"\0".join(encoded_words) + b"\0", np.uint8).astype(np.int32)
        self.tokens[[0, *np.cumsum(lengths)]] = -1
        self.weights = np.append(0, np.repeat(np.fromiter(words.values(), np.int64, len(words)), lengths))
        self.before = np.arange(-1, len(self.tokens) - 1, dtype=np.int32)
        self.after = self.before + 2

    def pairs(self) -> Iterator[tuple[tuple[int, int], int, _Integers]]:
        """Yields every pair that is frequent enough, how often it occurs, and its places."""
        at = np.flatnonzero((self.tokens[:-1] >= 0) & (self.tokens[1:] >= 0)).astype(np.int32)
        for key, count, places in self._grouped(self.tokens[at] << 8 | self.tokens[at + 1], at):
            yield divmod(key, 256), count, places

    def counted(self, first: int, second: int, at: _Integers) -> tuple[_Integers, int]:
        """Returns the places at which a pair still is, and how often it occurs."""
        at = at[(self.tokens[at] == first) & (self.tokens[self.after[at]] == second)]
        return at, int(self.weights[at].sum())

    def merge(
        self, first: int, second: int, at: _Integers, *, new: int
    ) -> Iterator[tuple[tuple[int, int], int, _Integers]]:
        """Merges a pair, and yields the pairs of the new token as `pairs` does."""
        if first == second:
            at = self._apart(at)
        dropped = self.after[at]
        self.tokens[at], self.tokens[dropped] = new, -1
        self.after[at] = self.after[dropped]
        self.before[self.after[at]] = at
        left = self.before[at]
        left = left[self.tokens[left] >= 0]
        for token, count, places in self._grouped(self.tokens[left], left):
            yield (token, new), count, places
        right = self.tokens[self.after[at]]
        at = at[(right >= 0) & (right != new)]  # a pair of two new ones has been counted from the right one
        for token, count, places in self._grouped(self.tokens[self.after[at]], at):
            yield (new, token), count, places

    def _apart(self, at: _Integers) -> _Integers:
        """Returns every other place of each run of places that share a token: aaa has one pair to merge."""
        shares = np.append(False, self.after[at[:-1]] == at[1:])
        index = np.arange(len(at))
        begin = np.maximum.accumulate(np.where(shares, 0, index))  # of the run of each place
        apart: _Integers = at[(index - begin) % 2 == 0]
        return apart

    def _grouped(self, keys: _Integers, at: _Integers) -> Iterator[tuple[int, int, _Integers]]:
        """Yields each key, how often it occurs, and its places, if it is frequent enough."""
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        keys, at = keys[order], at[order]
        begins = np.append(0, np.flatnonzero(keys[1:] != keys[:-1]) + 1)
        counts = np.add.reduceat(self.weights[at], begins)
        for begin, end, count in zip(begins, [*begins[1:], len(keys)], counts.tolist(), strict=True):
            if count >= _FEWEST:
                yield int(keys[begin]), count, at[begin:end]


def trim_vocabulary(tokenizer: tiktoken.Encoding, text: str | Iterable[str]) -> tiktoken.Encoding:
    """Returns a tokenizer with only the tokens that ``text`` needs, which makes a model smaller and much faster.

    A text of 90,000 characters uses a tenth of GPT-2's tokens, and in a small model the head takes most of the
    computation. The text is split into the same tokens as before, with new ids. Any other text can still be encoded and
    decoded exactly: all single bytes stay, and words that ``text`` does not have are split into smaller tokens.

    Args:
        tokenizer: For instance `gpt2_tokenizer`.
        text: The text that the model will be trained on, or several documents, which are read one at a time.

    Raises:
        TypeError: If the tokenizer is not a ``tiktoken.Encoding``, or the text neither a ``str`` nor several.
        ValueError: If it has a lone surrogate.

    >>> text = "Byte pairs, byte by byte, from GPT-2's own merges."
    >>> whole, trimmed = gpt2_tokenizer(), trim_vocabulary(gpt2_tokenizer(), text)
    >>> whole.n_vocab, trimmed.n_vocab
    (50257, 283)
    >>> [trimmed.decode([i]) for i in trimmed.encode_ordinary(text)][:5]
    ['Byte', ' pairs', ',', ' byte', ' by']
    """
    check_instance("tokenizer", tokenizer, tiktoken.Encoding, "a tiktoken.Encoding, such as gpt2_tokenizer()")
    ranks = tokenizer._mergeable_ranks  # noqa: SLF001 - tiktoken's own way to build one encoding from another
    used: set[int] = set()
    for document in texts_of("text", text):
        used.update(encoded(tokenizer, document))
    kept = {bytes([byte]) for byte in range(256)}
    for token in tokenizer.decode_tokens_bytes(sorted(used)):
        kept |= _merged_on_the_way(token, ranks)
    tokens = sorted(kept, key=ranks.__getitem__)
    return byte_pair_encoding(f"{tokenizer.name}-trimmed", tokenizer._pat_str, tokens)  # noqa: SLF001


def add_special_tokens(tokenizer: tiktoken.Encoding, special_tokens: Sequence[str]) -> tiktoken.Encoding:
    """Returns a tokenizer with more special tokens, such as the roles in a chat; all ids that there are stay.

    The new ids are the next ones, in the order of the names; ``model.with_vocab_size(tokenizer.n_vocab)`` is a model
    for them. As with `train_tokenizer`, only ``encode(text, allowed_special="all")`` returns special tokens: in an
    ordinary text, their names are ordinary characters.

    Args:
        tokenizer: For instance `gpt2_tokenizer`, or what `load_tokenizer` has returned.
        special_tokens: Their names.

    Raises:
        TypeError: If the tokenizer is not a ``tiktoken.Encoding``, or a name not a ``str``.
        ValueError: If a name is empty, occurs twice, or is that of a special token already.

    >>> chat = add_special_tokens(gpt2_tokenizer(), ["<|user|>", "<|assistant|>"])
    >>> chat.n_vocab, chat.encode("<|user|>Hello", allowed_special="all")
    (50259, [50257, 15496])
    """
    check_instance("tokenizer", tokenizer, tiktoken.Encoding, "a tiktoken.Encoding, such as gpt2_tokenizer()")
    before = tokenizer._special_tokens  # noqa: SLF001 - tiktoken's own way to build one encoding from another
    names = _checked_names(special_tokens)
    if known := [name for name in names if name in before]:
        raise ValueError(f"{known[0]!r} is a special token of the tokenizer already; leave it out")
    special = before | {name: tokenizer.n_vocab + i for i, name in enumerate(names)}
    ranks = tokenizer._mergeable_ranks  # noqa: SLF001
    return checked_encoding(tokenizer.name, tokenizer._pat_str, ranks, special)  # noqa: SLF001


def _merged_on_the_way(token: bytes, ranks: dict[bytes, int]) -> set[bytes]:
    """Returns every token that byte-pair encoding forms on the way from single bytes to ``token``, inclusive."""
    parts = [token[i : i + 1] for i in range(len(token))]
    formed = set()
    while len(parts) > 1:
        pairs = [first + second for first, second in pairwise(parts)]
        i = min(range(len(pairs)), key=lambda i: ranks.get(pairs[i], len(ranks)))
        parts[i : i + 2] = [pairs[i]]
        formed.add(pairs[i])
    return formed
