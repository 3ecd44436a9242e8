"""One token for each character."""

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Self

from tinygpt2._internal.checks import check_bool, of_type
from tinygpt2._internal.texts import check_text
from tinygpt2.text.documents import texts_of
from tinygpt2.tokenizers.protocol import END_OF_TEXT


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
