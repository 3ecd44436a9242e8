"""The file ``tinygpt2_tokenizer.json``, which describes a tokenizer of ours, or names the file of another library's."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import tiktoken

from tinygpt2._internal.checks import shown
from tinygpt2._internal.files import read_bytes, read_json
from tinygpt2.tokenizers.byte_pairs import checked_encoding, gpt2_tokenizer, is_gpt2_pattern
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.from_huggingface import THEIR_FILES, read_their_tokenizer
from tinygpt2.tokenizers.protocol import END_OF_TEXT, Tokenizer
from tinygpt2.tokenizers.to_huggingface import THEIR_FILE

TOKENIZER_FILE = "tinygpt2_tokenizer.json"

_LIMIT = 16 << 20  # bytes; the largest known vocabularies have 4 MB, and a hostile file can cost only so much
_THEIR_LIMIT = 64 << 20

_OTHER = "other library"
_BESIDE = f"sha256 of {THEIR_FILE}"


def tokenizer_content(tokenizer: tiktoken.Encoding | CharTokenizer, beside: bytes | None = None) -> bytes:
    """Returns the content of the file, after checking that it reads back as the same tokenizer.

    Args:
        tokenizer: The tokenizer.
        beside: The content of a ``tokenizer.json`` that describes the same tokenizer.

    Raises:
        ValueError: If it does not read back as the same tokenizer, with the differences.
    """
    described = _described(tokenizer) | ({} if beside is None else {_BESIDE: hashlib.sha256(beside).hexdigest()})
    try:
        content = (json.dumps(described, ensure_ascii=False) + "\n").encode("utf-8")
        different = _differences(tokenizer, _built(json.loads(content)))
    except ValueError as error:
        raise ValueError(f"cannot save {_name(tokenizer)}: {error}") from error
    if len(content) > _LIMIT:
        raise ValueError(
            f"cannot save {_name(tokenizer)}: its file would have {len(content):,} bytes; at most {_LIMIT:,} are read"
        )
    if different:
        raise ValueError(
            f"cannot save {_name(tokenizer)}, since it would read back as another: {'; '.join(different)}. The ids of "
            f"an encoding must run from 0 without a gap, and one of its special tokens must be {END_OF_TEXT}"
        )
    return content


def _described(tokenizer: tiktoken.Encoding | CharTokenizer) -> dict[str, object]:
    if isinstance(tokenizer, CharTokenizer):
        return {
            "type": "characters",
            "characters": tokenizer.characters,
            "byte_fallback": tokenizer.byte_fallback,
        }
    if not _differences(tokenizer, gpt2_tokenizer()):
        return {"type": "gpt2"}
    ranks, special = tokenizer._mergeable_ranks, tokenizer._special_tokens  # noqa: SLF001 - tiktoken's own way to build
    tokens = [base64.b64encode(token).decode() for token in sorted(ranks, key=ranks.__getitem__)]
    usual = special == {END_OF_TEXT: len(tokens)}
    return {
        "type": "byte pairs",
        "name": tokenizer.name,
        "pattern": tokenizer._pat_str,  # noqa: SLF001 - one encoding from another
        **({} if usual else {"special": special}),
        "tokens": tokens,
    }


def _name(tokenizer: tiktoken.Encoding | CharTokenizer) -> str:
    return f"the encoding {tokenizer.name!r}" if isinstance(tokenizer, tiktoken.Encoding) else "the CharTokenizer"


def _differences(tokenizer: tiktoken.Encoding | CharTokenizer, other: tiktoken.Encoding | CharTokenizer) -> list[str]:
    """Returns the differences between two tokenizers."""
    if isinstance(tokenizer, CharTokenizer) or isinstance(other, CharTokenizer):
        return [] if tokenizer == other else [f"{type(other).__name__} instead of {type(tokenizer).__name__}"]
    ours, theirs = _facts(tokenizer), _facts(other)
    found = [
        f"{name} {shown(theirs[name])} instead of {shown(value)}"
        for name, value in ours.items()
        if value != theirs[name]
    ]
    if tokenizer._mergeable_ranks != other._mergeable_ranks:  # noqa: SLF001
        found.append("different token ids")
    if tokenizer._pat_str != other._pat_str:  # noqa: SLF001
        found.append("a different split pattern")
    return found


def _facts(encoding: tiktoken.Encoding) -> dict[str, object]:
    special = encoding._special_tokens  # noqa: SLF001 - eot_token raises where there is none
    return {
        "name": encoding.name,
        "n_vocab": encoding.n_vocab,
        "eot_token": special.get(END_OF_TEXT),
        "special tokens": special,
    }


def other_content(file: str) -> bytes:
    """Returns the content where another library's file describes the tokenizer."""
    return (json.dumps({"type": _OTHER, "file": file}) + "\n").encode()


def read_tokenizer_file(path: Path) -> Tokenizer:
    """Returns the tokenizer that a file describes.

    Raises:
        ValueError: If it is not such a file, or the ``tokenizer.json`` beside it is that of another tokenizer.
    """
    content = _read(path)
    if content.get("type") == _OTHER:
        return read_their_tokenizer(path.with_name(content["file"]))
    with _naming(path):
        tokenizer = _built(content)
    beside = path.with_name(THEIR_FILE)
    if beside.exists():
        whole = read_bytes(beside, limit=_THEIR_LIMIT, links=True)
        if hashlib.sha256(whole).hexdigest() != content.get(_BESIDE) and not _same_ids(tokenizer, beside):
            raise ValueError(
                f"{path} and {THEIR_FILE} beside it are two tokenizers: {THEIR_FILE} was not saved with the other, or "
                "was changed later. Remove the file that is not the model's, or save its tokenizer with save_tokenizer"
            )
    return tokenizer


def _read(path: Path) -> dict[str, Any]:
    with _naming(path):
        content = read_json(path, limit=_LIMIT, links=True)
        if content["type"] == _OTHER and content["file"] not in THEIR_FILES:
            raise ValueError(
                f"its file should be {', '.join(THEIR_FILES[:-1])} or {THEIR_FILES[-1]} but is {shown(content['file'])}"
            )
        return content


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a tinygpt2 tokenizer: {reason}") from error


def _same_ids(tokenizer: tiktoken.Encoding | CharTokenizer, path: Path) -> bool:
    """Returns whether a ``tokenizer.json``, however it is written, certainly describes the same tokenizer."""
    theirs = read_their_tokenizer(path)
    if isinstance(tokenizer, CharTokenizer) or not isinstance(theirs, tiktoken.Encoding):
        return tokenizer == theirs
    ours = (tokenizer._mergeable_ranks, tokenizer._special_tokens, is_gpt2_pattern(tokenizer._pat_str))  # noqa: SLF001
    return ours == (theirs._mergeable_ranks, theirs._special_tokens, is_gpt2_pattern(theirs._pat_str))  # noqa: SLF001


def _built(content: Mapping[str, Any]) -> tiktoken.Encoding | CharTokenizer:
    """Returns the tokenizer that a file describes."""
    match content["type"]:
        case "characters":
            return CharTokenizer(_text(content, "characters"), content.get("byte_fallback", False))
        case "gpt2":
            return gpt2_tokenizer()
        case "byte pairs":
            tokens = _tokens(content["tokens"])
            special = _special(content.get("special", {END_OF_TEXT: len(tokens)}), len(tokens))
            reserved = set(special.values())
            ids = (i for i in count() if i not in reserved)
            ranks = dict(zip(tokens, ids, strict=False))
            return checked_encoding(_text(content, "name"), _text(content, "pattern"), ranks, special)
        case other:
            raise ValueError(f"its type should be 'characters', 'gpt2' or 'byte pairs' but is {shown(other)}")


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} should be a string but is {shown(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # later it would be an error in a text, which cannot be written
        raise ValueError(f"{name} has a lone surrogate, which is not a character: {shown(value)}") from None
    return value


def _tokens(encoded: object) -> list[bytes]:
    if not isinstance(encoded, list):
        raise TypeError(f"tokens should be a list but is {shown(encoded)}")
    if wrong := [token for token in encoded if not isinstance(token, str)]:
        raise TypeError(f"each of tokens should be a string in base64, but one is {shown(wrong[0])}")
    tokens = [base64.b64decode(token, validate=True) for token in encoded]
    if len(set(tokens)) != len(tokens):
        raise ValueError("a token occurs twice")
    if b"" in tokens:
        raise ValueError("a token is empty")
    if not {bytes([byte]) for byte in range(256)} <= set(tokens):
        raise ValueError("the token of a single byte is missing")  # tiktoken would panic on a text that has it
    return tokens


def _special(ids: object, tokens: int) -> dict[str, int]:
    """Returns the ids of special tokens, among so many others."""
    if not isinstance(ids, dict):
        raise TypeError(f"special should be an object of ids by token but is {shown(ids)}")
    if END_OF_TEXT not in ids:
        raise ValueError(f"one of its special tokens should be {END_OF_TEXT}, but they are {shown(ids)}")
    for token in ids:
        if not _text({"a special token": token}, "a special token"):
            raise ValueError("a special token is empty")
    size = tokens + len(ids)
    if not all(type(i) is int and 0 <= i < size for i in ids.values()) or len(set(ids.values())) != len(ids):
        raise ValueError(f"its special tokens should have different ids from 0 to {size - 1}, but are {shown(ids)}")
    return ids
