"""Tokenizers of other libraries (transformers, tokenizers, SentencePiece) with tinygpt2's interface."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, TypeAlias, Union, cast

from tinygpt2._internal.checks import of_type
from tinygpt2.tokenizers.byte_pairs import from_visible, visible
from tinygpt2.tokenizers.protocol import END_OF_TEXT, Tokenizer, check_tokenizer

AnyTokenizer: TypeAlias = Union[Tokenizer, Any]  # noqa: UP007 - Any would swallow the name, which says what is meant
"""A `Tokenizer`, or a tokenizer of transformers, tokenizers or SentencePiece."""

ENDS = (END_OF_TEXT, "</s>", "[SEP]")
"""What a token that ends a text is called, where a tokenizer does not say which one it is."""

_BYTE_TOKENS = {f"<0x{byte:02X}>" for byte in range(256)}  # of bytes that belong to no other token
_IN_NO_TEXT = "\U0010ffff"  # which Unicode reserves for such uses
_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # stands for a space in the vocabularies of SentencePiece


def as_tokenizer(tokenizer: object, *, ends: bool = False) -> Tokenizer:
    """Returns a tokenizer with tinygpt2's interface, of any library's.

    The tokenizer itself is not changed. What its library would do beside encoding is not done: no special tokens are
    added or looked for in a text, and nothing is truncated or padded.

    Args:
        tokenizer: A `Tokenizer`, or a tokenizer of transformers, tokenizers or SentencePiece.
        ends: Whether it must be able to end a text.

    Raises:
        TypeError: If it is anything else, for instance the class of a tokenizer.
        ValueError: If it cannot end a text, but must.
    """
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(tokenizer).__mro__}
    theirs: Any = tokenizer
    if "transformers.PreTrainedTokenizerBase" in kinds:
        theirs = _of_transformers(theirs)
    elif "tokenizers.BaseTokenizer" in kinds:  # such as ByteLevelBPETokenizer, which trains the one in it
        theirs = HuggingFaceTokenizer.of(theirs._tokenizer)  # noqa: SLF001 - it has no other name
    elif "tokenizers.Tokenizer" in kinds:
        theirs = HuggingFaceTokenizer.of(theirs)
    elif "sentencepiece.SentencePieceProcessor" in kinds:
        theirs = SentencePieceTokenizer(theirs)
    check_tokenizer(theirs, ends=ends)
    return cast("Tokenizer", theirs)


def byte_token_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Returns the ids of tokens that are decoded together: a run of them can read otherwise with the next one."""
    return cast("frozenset[int]", getattr(tokenizer, "byte_tokens", frozenset()))


def _of_transformers(tokenizer: Any) -> "HuggingFaceTokenizer | PythonTokenizer":  # noqa: ANN401 - of any class
    if not hasattr(tokenizer, "backend_tokenizer"):
        ids = (tokenizer.convert_tokens_to_ids(name) for name in ENDS if name in tokenizer.all_special_tokens)
        return PythonTokenizer(tokenizer, next(ids, None) if tokenizer.eos_token is None else tokenizer.eos_token_id)
    tokens = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    end = None if tokenizer.eos_token is None else tokenizer.eos_token_id
    return HuggingFaceTokenizer.of(tokenizer.backend_tokenizer, end, tokens)


@dataclass(frozen=True, eq=False, repr=False)
class _Foreign:
    """What the wrappers share.

    Attributes:
        inner: The other library's tokenizer.
        end: Id of the token that ends a text, if it has one.
    """

    inner: Any
    end: int | None = None

    @property
    def eot_token(self) -> int:
        """Id of the token that ends a text.

        Raises:
            KeyError: If there is none.
        """
        if self.end is None:
            raise KeyError(END_OF_TEXT)
        return self.end

    def token_bytes(self) -> list[int] | None:
        """Returns the bytes of text that each token stands for, if that is known; ``None`` here."""
        return None

    def token_texts(self) -> list[bytes] | None:
        """Returns the text of each token, none for special tokens, if that is known; ``None`` here."""
        return None

    def identity(self) -> str | None:
        """Returns what decides the ids of a text, if that is known; ``None`` here."""
        return None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of a {type(self.inner).__module__.partition('.')[0]}.{type(self.inner).__name__}>"
        )


@dataclass(frozen=True, eq=False, repr=False)
class HuggingFaceTokenizer(_Foreign):
    """A ``tokenizers.Tokenizer``, which is also within each fast tokenizer of transformers.

    Attributes:
        encoder: A copy of it that takes special tokens in a text for ordinary text.
        said: What transformers knows about it besides, as in ``tokenizer_config.json``.
    """

    encoder: Any = None
    said: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tokenizer: Any,  # noqa: ANN401 - not a dependency
        end: int | None = None,
        said: Mapping[str, Any] | None = None,
    ) -> "HuggingFaceTokenizer":
        """Returns the wrapper of a copy, with the end of text that is given, or that the tokenizer has."""
        if not tokenizer.get_vocab_size():
            raise ValueError(f"the tokenizer has no tokens; train it first: {of_type(tokenizer)}")
        kind: Any = type(tokenizer)
        return _wrapped(kind, tokenizer.to_str(), end, json.dumps(said or {}, default=str))

    def settings(self) -> dict[str, Any]:
        """Returns the content of a ``tokenizer_config.json`` with which transformers, of any version, reads it."""
        end = {} if self.end is None else {"eos_token": self.inner.id_to_token(self.end)}
        return {"clean_up_tokenization_spaces": False, **self.said, **end, "tokenizer_class": "PreTrainedTokenizerFast"}

    @cached_property
    def _vocabulary(self) -> dict[str, int]:
        vocabulary: dict[str, int] = self.inner.get_vocab(with_added_tokens=True)
        return vocabulary

    @cached_property
    def _size(self) -> int:
        return max(self._vocabulary.values()) + 1

    @property
    def n_vocab(self) -> int:
        """Number of token ids: one more than the largest, added tokens included."""
        return self._size

    @cached_property
    def byte_tokens(self) -> frozenset[int]:
        """Ids of tokens for single bytes, of which a run is decoded together."""
        if "ByteFallback" not in str(self._parts.get("decoder")):
            return frozenset()
        return frozenset(i for token, i in self._vocabulary.items() if token in _BYTE_TOKENS)

    @cached_property
    def _parts(self) -> dict[str, Any]:
        parts: dict[str, Any] = json.loads(self.inner.to_str())
        return parts

    def encode_ordinary(self, text: str, /) -> list[int]:
        """Returns the ids of ``text``, without special tokens."""
        ids: list[int] = self.encoder.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int], /) -> str:
        """Returns the text of ``tokens``, special tokens included."""
        text: str = self.inner.decode(list(tokens), skip_special_tokens=False)
        return text

    def identity(self) -> str:
        """Returns the description of the tokenizer, as JSON."""
        description: str = self.encoder.to_str()
        return description

    def token_bytes(self) -> list[int] | None:
        """Returns the bytes of text that each token stands for; ``None`` where a text is changed before it is split."""
        read, added = self._reading, {token["content"] for token in self._parts["added_tokens"]}
        if read is None:
            return None
        sizes = [0] * self.n_vocab
        for token, i in self._vocabulary.items():
            sizes[i] = len(token.encode() if token in added else read(token))
        if self.end is not None:
            sizes[self.end] = 1
        return sizes

    def token_texts(self) -> list[bytes] | None:
        """Returns the text of each token, none for special tokens; ``None`` where ``token_bytes`` does."""
        read, added = self._reading, {token["content"]: token["special"] for token in self._parts["added_tokens"]}
        if read is None:
            return None
        texts = [b""] * self.n_vocab
        for token, i in self._vocabulary.items():
            if not added.get(token):
                texts[i] = token.encode() if token in added else read(token)
        return texts

    @property
    def _reading(self) -> Callable[[str], bytes] | None:
        """The function that reads a token of the vocabulary, if a text is split as it is."""
        if _is_byte_level(self._parts):
            return _read_visible
        return _read_with_bytes if _is_byte_fallback(self._parts) else None


def _read_visible(token: str) -> bytes:
    try:
        return from_visible(token)
    except KeyError:  # no text has it
        return token.encode()


def _read_with_bytes(token: str) -> bytes:
    """Returns the text of a token of characters, or of a byte."""
    return bytes.fromhex(token[3:5]) if token in _BYTE_TOKENS else token.replace(_SPACE, " ").encode()


@lru_cache(maxsize=4)  # a large vocabulary takes a second
def _wrapped(kind: Any, content: str, end: int | None, said: str) -> HuggingFaceTokenizer:  # noqa: ANN401
    parts = json.loads(content)
    if end is None:
        special = {token["content"]: token["id"] for token in parts["added_tokens"] if token["special"]}
        end = next((special[name] for name in ENDS if name in special), None)
    encoder = kind.from_str(json.dumps(_without_special_tokens(parts)))
    encoder.encode_special_tokens = True
    return HuggingFaceTokenizer(kind.from_str(content), end, encoder, json.loads(said))


def _without_special_tokens(parts: dict[str, Any]) -> dict[str, Any]:
    """Returns the parts of a ``tokenizer.json`` with the same ids, in which no text has a special token.

    A model can find special tokens in a text by itself, since they are in its vocabulary. There they get names that no
    text has, except those that it makes of others, or others of.
    """
    model = parts["model"]
    pairs = [merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model.get("merges", [])]
    merged = {token for pair in pairs for token in (*pair, "".join(pair))}
    special = {token["content"] for token in parts["added_tokens"] if token["special"]} - merged
    name = {token: f"{_IN_NO_TEXT}{token}" for token in special}
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        vocabulary = {name.get(token, token): i for token, i in vocabulary.items()}
    else:
        vocabulary = [[name.get(token, token), score] for token, score in vocabulary]
    unknown = {"unk_token": name.get(model["unk_token"], model["unk_token"])} if "unk_token" in model else {}
    return {
        **parts,
        "truncation": None,
        "padding": None,
        "post_processor": None,
        "added_tokens": [
            token | {"content": name.get(token["content"], token["content"])} for token in parts["added_tokens"]
        ],
        "model": model | {"vocab": vocabulary} | unknown,
    }


def _is_byte_level(parts: dict[str, Any]) -> bool:
    """Returns whether a ``tokenizer.json`` describes tokens whose characters stand for the bytes of a text."""
    splitting = parts.get("pre_tokenizer") or {}
    steps = splitting.get("pretokenizers", [splitting])
    levels = [step for step in steps if step.get("type") == "ByteLevel"]
    return (
        parts.get("normalizer") is None
        and parts["model"]["type"] == "BPE"
        and parts["model"]["vocab"].keys() >= set(visible(bytes(range(256))))  # otherwise it loses some
        and bool(levels)
        and not any(step.get("add_prefix_space", True) for step in levels)
        and all(step.get("behavior") != "Removed" for step in steps)
        and (parts.get("decoder") or {}).get("type") == "ByteLevel"
    )


def _is_byte_fallback(parts: dict[str, Any]) -> bool:
    """Returns whether a ``tokenizer.json`` describes tokens of characters, and of bytes for those without a token."""
    model = parts["model"]
    names = set(model["vocab"]) if isinstance(model["vocab"], dict) else {token for token, _ in model["vocab"]}
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    splitting = parts.get("pre_tokenizer")
    is_plain = splitting is None or (
        splitting.get("type") == "Metaspace" and splitting.get("prepend_scheme") == "never"
    )
    return (
        bool(model.get("byte_fallback"))
        and names >= _BYTE_TOKENS
        and parts.get("normalizer") in (None, spaces)
        and is_plain
    )


@dataclass(frozen=True, eq=False, repr=False)
class PythonTokenizer(_Foreign):
    """A tokenizer of transformers that is written in Python."""

    @property
    def n_vocab(self) -> int:
        """Number of token ids: one more than the largest, added tokens included."""
        largest: int = max(self.inner.get_vocab().values())
        return largest + 1

    def encode_ordinary(self, text: str, /) -> list[int]:
        """Returns the ids of ``text``, without special tokens."""
        ids: list[int] = self.inner.encode(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
        return ids

    def decode(self, tokens: Sequence[int], /) -> str:
        """Returns the text of ``tokens``, special tokens included."""
        text: str = self.inner.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


@dataclass(frozen=True, eq=False, repr=False)
class SentencePieceTokenizer(_Foreign):
    """A ``sentencepiece.SentencePieceProcessor``."""

    def __post_init__(self) -> None:
        if self.end is None and self.inner.eos_id() >= 0:
            object.__setattr__(self, "end", self.inner.eos_id())

    @property
    def n_vocab(self) -> int:
        """Number of token ids."""
        size: int = self.inner.vocab_size()
        return size

    @cached_property
    def byte_tokens(self) -> frozenset[int]:
        """Ids of tokens for single bytes, of which a run is decoded together."""
        return frozenset(filter(self.inner.is_byte, range(self.n_vocab)))

    def identity(self) -> str:
        """Returns the model, in hexadecimal digits."""
        model: bytes = self.inner.serialized_model_proto()
        return model.hex()

    def encode_ordinary(self, text: str, /) -> list[int]:
        """Returns the ids of ``text``, without special tokens."""
        ids: list[int] = self.inner.encode(
            text, out_type=int, add_bos=False, add_eos=False, reverse=False, enable_sampling=False
        )
        return ids

    def decode(self, tokens: Sequence[int], /) -> str:
        """Returns the text of ``tokens``; SentencePiece leaves out its control tokens, such as the end of text."""
        text: str = self.inner.decode(list(tokens))
        return text
