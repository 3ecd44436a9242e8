"""Tokenizers of other libraries, as tinygpt2's."""

from typing import cast

from tinygpt2.text.tokenizers import Tokenizer, check_tokenizer


def as_tokenizer(tokenizer: object, *, ends: bool = False) -> Tokenizer:
    """Returns a tokenizer with tinygpt2's interface, of any library's.

    Args:
        tokenizer: A `Tokenizer`, or a tokenizer of another library.
        ends: Whether it must be able to end a text.

    Raises:
        TypeError: If it is anything else, for instance the class of a tokenizer.
        ValueError: If it cannot end a text, but must.
    """
    check_tokenizer(tokenizer, ends=ends)
    return cast("Tokenizer", tokenizer)
