"""Tokenizers as plain values, from which a page makes the same ids."""

from functools import cache
from itertools import groupby
from typing import Any

import tiktoken

from tinygpt2.tokenizers.byte_pairs import splits_like_gpt2
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.protocol import Tokenizer

# Strings of bytes are written as Latin-1: each byte is the character of its number.
_BYTES = "latin-1"


def page_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns what a page needs to encode and decode as a tokenizer does.

    Raises:
        ValueError: If a page cannot run it.

    >>> page_tokenizer(CharTokenizer("ab"))
    {'type': 'characters', 'characters': 'ab', 'fallback': False, 'size': 3, 'end': 2}
    """
    if isinstance(tokenizer, CharTokenizer):
        kind: dict[str, Any] = {
            "type": "characters",
            "characters": tokenizer.characters,
            "fallback": tokenizer.byte_fallback,
        }
    elif isinstance(tokenizer, tiktoken.Encoding) and splits_like_gpt2(tokenizer):
        tokens: list[str | None] = [None] * tokenizer.n_vocab
        for token, rank in tokenizer._mergeable_ranks.items():  # noqa: SLF001 - tiktoken's own, in one call
            tokens[rank] = token.decode(_BYTES)
        special = {str(rank): name for name, rank in tokenizer._special_tokens.items()}  # noqa: SLF001
        kind = {"type": "byte pairs", "tokens": tokens, "special": special, "classes": classes()}
    else:
        raise ValueError(
            "a page runs tokenizers of characters and of byte pairs that split texts as GPT-2's do, but this model has "
            f"{_name(tokenizer)}; train one with --tokenizer bpe or char, for instance"
        )
    return kind | {"size": tokenizer.n_vocab, "end": tokenizer.eot_token}


def _name(tokenizer: Tokenizer) -> str:
    if isinstance(tokenizer, tiktoken.Encoding):
        return f"the encoding {tokenizer.name!r}, which splits them in another way"
    return f"one of another library ({type(tokenizer).__name__})"


@cache
def classes() -> dict[str, str]:
    r"""Returns the letters, the numbers and the whitespace by which GPT-2's pattern splits, as ranges in a class.

    They are those of the installed tiktoken: browsers have other versions of Unicode, and another ``\s``.

    >>> classes()["spaces"]
    '\\u{9}-\\u{d}\\u{20}\\u{85}\\u{a0}\\u{1680}\\u{2000}-\\u{200a}\\u{2028}-\\u{2029}\\u{202f}\\u{205f}\\u{3000}'
    """
    every = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    return {
        name: _ranges(_matches(pattern, every))
        for name, pattern in {"letters": r"\p{L}", "numbers": r"\p{N}", "spaces": r"\s"}.items()
    }


def _matches(pattern: str, text: str) -> str:
    """Returns the characters of a text that match a pattern: tiktoken leaves out what does not."""
    single = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("class", pat_str=pattern, mergeable_ranks=single, special_tokens={})
    return bytes(encoding.encode_ordinary(text)).decode()


def _ranges(characters: str) -> str:
    """Returns ascending characters as the inside of a class in a regular expression of JavaScript."""
    ranges = []
    for _, group in groupby(enumerate(map(ord, characters)), key=lambda pair: pair[1] - pair[0]):
        codes = [code for _, code in group]
        ranges.append(rf"\u{{{codes[0]:x}}}" + (rf"-\u{{{codes[-1]:x}}}" if len(codes) > 1 else ""))
    return "".join(ranges)
