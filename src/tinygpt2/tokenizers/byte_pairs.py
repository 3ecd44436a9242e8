"""Byte pairs: GPT-2's tokenizer, whose vocabulary is built in, and others that split texts in some way."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files

import tiktoken

from tinygpt2.tokenizers.protocol import END_OF_TEXT, encoded

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


def splits_like_gpt2(tokenizer: object) -> bool:
    """Returns whether a tokenizer is byte pairs that split a text as GPT-2's do before they merge."""
    return isinstance(tokenizer, tiktoken.Encoding) and is_gpt2_pattern(tokenizer._pat_str)  # noqa: SLF001


def is_gpt2_pattern(pattern: str) -> bool:
    """Returns whether a pattern is known to split every text as GPT-2's does."""
    return pattern in _SAME_PATTERNS


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
