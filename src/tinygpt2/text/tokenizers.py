"""Tokenizers: GPT-2's, whose vocabulary is built in, or one token per character."""

import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from itertools import chain
from typing import Protocol, Self, runtime_checkable

import tiktoken

from tinygpt2._internal.checks import can_be_iterated, check_bool, of_type, shown
from tinygpt2._internal.texts import check_text
from tinygpt2.text.documents import documents_of

END_OF_TEXT = "<|endoftext|>"

_MEMBERS = ("n_vocab", "encode_ordinary", "decode", "eot_token")  # the last raises KeyError if there is no such token

_MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

# How GPT-2 splits a text before it merges: contractions, then words, numbers and other signs, each with the space
# before it, then whitespace. It is equivalent to the pattern in OpenAI's encoder.py, but with possessive quantifiers,
# which avoid backtracking on long runs: nothing that follows could make a shorter run match.
SPLIT_PATTERN = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

# The same, as others write it: OpenAI's encoder.py, and tiktoken's own encodings.
_SAME_PATTERNS = {
    SPLIT_PATTERN,
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s",
}


# A file may ask for more than any tokenizer needs. tiktoken takes a second to build half a million tokens, and its time
# grows faster than their number; the largest known vocabularies have 262,144, the longest known tokens 256 bytes, and
# the longest known patterns 500 characters.
MOST_TOKENS = 1 << 19
LONGEST_TOKEN = 1 << 10  # bytes
_LONGEST_PATTERN = 1 << 12  # characters

# Each kind of character, and runs on which a pattern that backtracks would do so; short, since it can for long.
_PROBES = ("", "It's 10 o'clock;\r\n\n\tnaïve 你好。 🦊 ", *(sign * 48 + "!" for sign in "aZ0 \n好"))


@runtime_checkable
class Tokenizer(Protocol):
    """The tokenizer interface that tinygpt2 needs. A plain ``tiktoken.Encoding`` has it.

    >>> isinstance(gpt2_tokenizer(), Tokenizer)
    True
    >>> isinstance(CharTokenizer("ab"), Tokenizer)
    True
    """

    @property
    def n_vocab(self) -> int:
        """Number of token ids, V; every id is less than V."""
        ...

    @property
    def eot_token(self) -> int:
        """Id of the token that ends a text."""
        ...

    def encode_ordinary(self, text: str, /) -> list[int]:
        """Returns the ids of ``text``, in which special tokens such as ``<|endoftext|>`` are ordinary characters."""
        ...

    def decode(self, tokens: Sequence[int], /) -> str:
        """Returns the text of ``tokens``; bytes that are not UTF-8 become U+FFFD."""
        ...


def token_bytes(tokenizer: Tokenizer) -> list[int] | None:
    """Returns how many bytes of text each token stands for, by its id, if that is known without the text.

    The end-of-text token counts as one byte: it stands for the line break, or another sign, that ends a text in a file.

    >>> token_bytes(CharTokenizer("aé好"))
    [1, 2, 3, 1]
    """
    if isinstance(tokenizer, CharTokenizer):
        sizes = [len(char.encode("utf-8")) for char in tokenizer.characters]
        return sizes + [1] * (tokenizer.n_vocab - len(sizes))
    if isinstance(tokenizer, tiktoken.Encoding):
        sizes = [1] * tokenizer.n_vocab
        for token, rank in tokenizer._mergeable_ranks.items():  # noqa: SLF001 - tiktoken's own, in one call
            sizes[rank] = len(token)
        return sizes
    known: Callable[[], list[int] | None] | None = getattr(tokenizer, "token_bytes", None)
    return None if known is None else known()


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """Returns the id of the token that ends a text, if there is one."""
    try:
        return tokenizer.eot_token
    except KeyError:
        return None


def splits_like_gpt2(tokenizer: object) -> bool:
    """Returns whether a tokenizer is byte pairs that split a text as GPT-2's do before they merge."""
    return isinstance(tokenizer, tiktoken.Encoding) and is_gpt2_pattern(tokenizer._pat_str)  # noqa: SLF001


def is_gpt2_pattern(pattern: str) -> bool:
    """Returns whether a pattern is known to split every text as GPT-2's does."""
    return pattern in _SAME_PATTERNS


def tokenizer_identity(tokenizer: Tokenizer) -> str | None:
    """Returns the SHA-256 of what decides the ids of a text, ``None`` if that is not known.

    It is of the ranks, the pattern and the special tokens of byte pairs, of the characters of a `CharTokenizer`, and of
    what the ``identity()`` of another one returns, if it has one.

    >>> one, other = CharTokenizer("ab"), CharTokenizer("ba")
    >>> tokenizer_identity(one) == tokenizer_identity(other)
    False
    """
    digest = hashlib.sha256()
    if isinstance(tokenizer, CharTokenizer):
        fallback = tokenizer.byte_fallback
        digest.update(f"characters {fallback} {tokenizer.characters}".encode())
    elif isinstance(tokenizer, tiktoken.Encoding):
        pattern = "GPT-2" if splits_like_gpt2(tokenizer) else tokenizer._pat_str  # noqa: SLF001 - as in token_bytes
        specials = sorted(tokenizer._special_tokens.items())  # noqa: SLF001
        digest.update(f"byte pairs {pattern} {specials}\n".encode())
        ranks = sorted(tokenizer._mergeable_ranks.items(), key=operator.itemgetter(1))  # noqa: SLF001
        digest.update(repr(ranks).encode())
    else:
        known: Callable[[], str | None] | None = getattr(tokenizer, "identity", None)
        identity = None if known is None else known()
        if identity is None:
            return None
        digest.update(f"another {identity}".encode())
    return digest.hexdigest()


def check_tokenizer(tokenizer: object, *, ends: bool = False) -> None:
    """Raises an error if a value is not a `Tokenizer`.

    Args:
        tokenizer: The value.
        ends: Whether it must be able to end a text, which an encoding of tiktoken is not without a token for that.

    Raises:
        TypeError: If it is anything else, for instance the class of a tokenizer.
        ValueError: If it cannot end a text, but must.
    """
    try:
        complete = not isinstance(tokenizer, type) and all(hasattr(tokenizer, name) for name in _MEMBERS)
    except KeyError:
        if ends:
            raise ValueError(
                f"tokenizer must have the token {END_OF_TEXT}, at which a generated text ends, got {of_type(tokenizer)}"
            ) from None
        return
    if not complete:
        raise TypeError(
            f"tokenizer must be an object with {', '.join(_MEMBERS)}, such as gpt2_tokenizer() or a CharTokenizer, got "
            f"{of_type(tokenizer)}"
        )


@cache
def gpt2_tokenizer() -> tiktoken.Encoding:
    """Returns GPT-2's tokenizer: byte-level BPE with 50,257 tokens (Sennrich et al. 2016; GPT-2 paper, section 2.2).

    It is built from the vocabulary in the package on the first call and cached; nothing is downloaded. ``decode``
    restores any encoded text exactly. English has about 4.5 characters per token; Chinese has about two tokens per
    character, since a character takes three bytes and few have a token of their own.

    Raises:
        RuntimeError: If the vocabulary file of the installed package is damaged.

    >>> gpt2_tokenizer().encode_ordinary("Hello, world")
    [15496, 11, 995]
    >>> gpt2_tokenizer().decode([15496, 11, 995])
    'Hello, world'
    """
    return byte_pair_encoding("gpt2", SPLIT_PATTERN, _gpt2_tokens())


def _gpt2_tokens() -> list[bytes]:
    """Returns the tokens in the order of their ranks: the 256 bytes in GPT-2's order, then one token per merge."""
    return [bytes([byte]) for byte in _signs()] + [from_visible(merge.replace(" ", "")) for merge in gpt2_merges()]


def gpt2_merges() -> list[str]:
    """Returns GPT-2's merges in their order, each two tokens in the notation of `visible`, separated by a space."""
    content = files("tinygpt2").joinpath("assets/gpt2_merges.bpe").read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != _MERGES_SHA256:
        raise RuntimeError(
            f"the vocabulary in the tinygpt2 package is damaged: its SHA-256 should be {_MERGES_SHA256} but is "
            f"{digest}; reinstall tinygpt2"
        )
    return content.decode("utf-8").splitlines()[1:]  # the first line is a version


@cache
def _signs() -> dict[int, str]:
    """Returns the visible character that stands for each byte in GPT-2's files, in the order of the bytes' ids.

    It is the Latin-1 character of the byte if that is visible, else the next character from U+0100.
    """
    visible = [byte for byte in range(256) if chr(byte).isprintable() and chr(byte) != " "]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def visible(token: bytes) -> str:
    """Returns a token in the notation of GPT-2's and Hugging Face's files.

    >>> visible(b" world")
    'Ġworld'
    """
    return "".join(map(_signs().__getitem__, token))


def from_visible(token: str) -> bytes:
    """Returns the bytes of a token in that notation.

    Raises:
        KeyError: If a character in it stands for no byte.

    >>> from_visible("Ġworld")
    b' world'
    """
    return bytes(map(_bytes_of_signs().__getitem__, token))


@cache
def _bytes_of_signs() -> dict[str, int]:
    return {sign: byte for byte, sign in _signs().items()}


def byte_pair_encoding(
    name: str, pattern: str, tokens: Sequence[bytes], special_tokens: Sequence[str] = ()
) -> tiktoken.Encoding:
    """Returns the encoding with these tokens, in the order of their ranks, followed by special tokens.

    The last of them is the end of text, which is not among ``special_tokens``.

    Raises:
        ValueError: If there are too many tokens, one is too long, or the pattern is not one that splits texts.
    """
    special = {token: len(tokens) + i for i, token in enumerate([*special_tokens, END_OF_TEXT])}
    return checked_encoding(name, pattern, {token: rank for rank, token in enumerate(tokens)}, special)


def checked_encoding(
    name: str, pattern: str, ranks: Mapping[bytes, int], special: Mapping[str, int]
) -> tiktoken.Encoding:
    """Returns the encoding with these ids of tokens and of special tokens, which can be anywhere among them.

    Raises:
        ValueError: If there are too many tokens, one is too long, or the pattern is not one that splits texts.
    """
    if (most := max(len(ranks), len(special))) > MOST_TOKENS:
        raise ValueError(f"it has {most:,} tokens; at most {MOST_TOKENS:,} are read")
    if (longest := max(map(len, ranks), default=0)) > LONGEST_TOKEN:
        raise ValueError(f"it has a token of {longest:,} bytes; at most {LONGEST_TOKEN:,} are read")
    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"its pattern has {len(pattern):,} characters; at most {_LONGEST_PATTERN:,} are read")
    encoding = tiktoken.Encoding(
        name=name,
        pat_str=pattern,
        mergeable_ranks=dict(ranks),
        special_tokens=dict(special),
        explicit_n_vocab=len(ranks) + len(special),
    )
    for text in _PROBES:
        encoded(encoding, text)
    return encoding


def texts_of(name: str, source: object) -> Iterable[str]:
    """Returns the only text that a ``str`` is, or the documents that another value holds, as `documents_of` does.

    Raises:
        TypeError: If it is neither.
        ValueError: If it has a lone surrogate; with documents, during iteration.
    """
    several = can_be_iterated(source) and not isinstance(source, str | bytes | bytearray)
    return documents_of(name, source) if several else [check_text(name, source)]


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns the ids of a text, which tiktoken would change if it has lone surrogates.

    Raises:
        TypeError: If it is not a ``str``.
        ValueError: If it has a lone surrogate, with its position, or the tokenizer cannot encode it.
    """
    with panics_as_errors(tokenizer):
        return tokenizer.encode_ordinary(check_text("text", text))


@contextmanager
def panics_as_errors(tokenizer: object) -> Iterator[None]:
    """Raises ``ValueError`` where tiktoken panics in the block, with an exception that ``except Exception`` misses."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # it cannot be imported
            raise
        raise ValueError(
            f"{tokenizer!r} cannot encode a text: its split pattern matches without consuming a character, or "
            f"backtracks too often, or it has no token for a byte (tiktoken panicked: {shown(str(error))})"
        ) from None


@dataclass(frozen=True)
class CharTokenizer:
    """A tokenizer with one token per character: a few dozen ids for English, a few thousand for Chinese.

    The ids are, in this order: the characters; with ``byte_fallback`` the 256 bytes; the end of text.

    Attributes:
        characters: The characters, each once; the index of each is its id.
        byte_fallback: Whether any other character is encoded as the bytes of its UTF-8, so that every text can be.

    Raises:
        TypeError: If they are not a ``str``, or ``byte_fallback`` not a bool.
        ValueError: If there are no characters, one occurs twice, or one is a lone surrogate.

    >>> tokenizer = CharTokenizer.from_text("你好，世界")
    >>> tokenizer.n_vocab
    6
    >>> tokenizer.decode(tokenizer.encode_ordinary("世界你好"))
    '世界你好'
    >>> CharTokenizer("ab", byte_fallback=True).encode_ordinary("aé")
    [0, 197, 171]
    """

    characters: str
    byte_fallback: bool = False
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)
    _pieces: list[bytes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_text("characters", self.characters)
        check_bool("byte_fallback", self.byte_fallback)
        if not self.characters:
            raise ValueError("a CharTokenizer needs at least one character, got none")
        ids = {char: i for i, char in enumerate(self.characters)}
        if len(ids) != len(self.characters):
            twice = next(char for i, char in enumerate(self.characters) if ids[char] != i)
            raise ValueError(f"the characters of a CharTokenizer must differ, but {twice!r} occurs twice; "
                             "use CharTokenizer.from_text(text)")  # fmt: skip
        fallback = [bytes([byte]) for byte in range(256)] if self.byte_fallback else []
        pieces = [*(char.encode("utf-8") for char in ids), *fallback, END_OF_TEXT.encode("ascii")]
        object.__setattr__(self, "_ids", ids)
        object.__setattr__(self, "_pieces", pieces)

    @classmethod
    def from_text(cls, text: str | Iterable[str], *, byte_fallback: bool = False) -> Self:
        r"""Returns the tokenizer of the characters that occur in ``text``, in code point order.

        Args:
            text: A text, or several documents, which are read one at a time.
            byte_fallback: Whether it encodes any other character, too.

        Raises:
            TypeError: If ``text`` is neither a ``str`` nor several, or ``byte_fallback`` not a bool.
            ValueError: If there is no text, or a lone surrogate in it.
        """
        characters: set[str] = set()
        for document in texts_of("text", text):
            characters.update(document)
        return cls("".join(sorted(characters)), byte_fallback)

    @property
    def n_vocab(self) -> int:
        """Number of token ids, V: one per character, with ``byte_fallback`` one per byte, and the end of text."""
        return len(self._pieces)

    @property
    def eot_token(self) -> int:
        """Id of the token that ends a text: the last one."""
        return len(self._pieces) - 1

    def encode_ordinary(self, text: str, /) -> list[int]:
        """Returns the ids of ``text``.

        Raises:
            TypeError: If ``text`` is not a ``str``.
            ValueError: If a character is a lone surrogate, or is not in the vocabulary and there is no
                ``byte_fallback``.
        """
        check_text("text", text)
        try:
            return list(map(self._ids.__getitem__, text))
        except KeyError as error:
            if self.byte_fallback:
                return self._with_bytes(text)
            char = error.args[0]
            raise ValueError(
                f"the character {char!r} (U+{ord(char):04X}) at position {text.index(char)} is not among the "
                f"{len(self.characters)} of this CharTokenizer; leave it out, build the tokenizer from a text that "
                "has it, or pass byte_fallback=True"
            ) from None

    def _with_bytes(self, text: str) -> list[int]:
        first = len(self.characters)  # the id of byte 0
        ids = {char: [self._ids[char]] if char in self._ids else [first + byte for byte in char.encode("utf-8")]
               for char in set(text)}  # fmt: skip
        return list(chain.from_iterable(map(ids.__getitem__, text)))

    def decode(self, tokens: Iterable[int], /) -> str:
        """Returns the text of ``tokens``; the end-of-text token reads ``<|endoftext|>``, as GPT-2's does.

        Bytes that are not UTF-8 become U+FFFD.

        Raises:
            TypeError: If ``tokens`` is not an iterable of integers.
            ValueError: If an id is outside the vocabulary.
        """
        try:
            ids = [operator.index(token) for token in tokens]
        except (RuntimeError, TypeError):  # the former from PyTorch, of a tensor without values
            raise TypeError(f"tokens must be integers, in a list for instance, got {of_type(tokens)}") from None
        if ids and not (min(ids) >= 0 and max(ids) < self.n_vocab):
            raise ValueError(f"token ids must be from 0 to {self.n_vocab - 1}, got {min(ids)} to {max(ids)}")
        return b"".join(map(self._pieces.__getitem__, ids)).decode("utf-8", errors="replace")
