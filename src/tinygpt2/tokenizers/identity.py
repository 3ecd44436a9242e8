"""What is known of a tokenizer: the bytes of its tokens, and a hash of what decides its ids."""

import hashlib
import operator
from typing import TYPE_CHECKING

import tiktoken

from tinygpt2.tokenizers.byte_pairs import splits_like_gpt2
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable


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
