"""Vocabularies trimmed to a text."""

from collections.abc import Iterable
from itertools import pairwise

import tiktoken

from tinygpt2._internal.checks import check_instance
from tinygpt2.text.tokenizers import byte_pair_encoding, encoded, texts_of


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
