"""What every tokenizer has, and calls of one that raise errors which say what is wrong."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from tinygpt2._internal.checks import of_type, shown
from tinygpt2._internal.texts import check_text

END_OF_TEXT = "<|endoftext|>"

_MEMBERS = ("n_vocab", "encode_ordinary", "decode", "eot_token")  # the last raises KeyError if there is no such token


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


def end_of_text(tokenizer: Tokenizer) -> int | None:
    """Returns the id of the token that ends a text, if there is one."""
    try:
        return tokenizer.eot_token
    except KeyError:
        return None


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
