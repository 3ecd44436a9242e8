"""Tokenizers on disk: tinygpt2's own format, and GPT-2's tokenizer in the formats of other libraries."""

import base64
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiktoken

from tinygpt2._internal.checks import check_path, shown
from tinygpt2._internal.directories import rereading
from tinygpt2._internal.files import PathLike, atomic_write, read_json
from tinygpt2.config import MODEL_RANGES, GPT2Config
from tinygpt2.formats.huggingface import CONFIG_FILE
from tinygpt2.formats.manifest import check_replaceable, verify_listed
from tinygpt2.text.tokenizers import END_OF_TEXT, CharTokenizer, Tokenizer, byte_pair_encoding, gpt2_tokenizer, visible

TOKENIZER_FILE = "tinygpt2_tokenizer.json"

_LIMIT = 16 << 20  # bytes; the largest known vocabularies have 4 MB, and a hostile file can cost only so much
_THEIR_LIMIT = 64 << 20  # bytes; with its merges, a tokenizer.json has up to 33 MB
_CONFIG_LIMIT = 1 << 20

_THEIR_VOCABULARIES = ("tokenizer.json", "vocab.json")
_NEVER_GPT2S = ("vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")  # WordPiece, SentencePiece

_FIX = "save_tokenizer(tokenizer, directory), or model.save_pretrained(directory, tokenizer=tokenizer)"


def save_tokenizer(tokenizer: Tokenizer, directory: PathLike) -> None:
    """Writes a tokenizer into a model's directory, atomically, for `load_tokenizer`.

    Args:
        tokenizer: A `CharTokenizer`, or a ``tiktoken.Encoding`` whose ids run from 0 without a gap and whose only
            special token, the end of text, is the last.
        directory: Directory of the model that was trained with it.

    Raises:
        OSError: If it cannot be written; an existing file stays intact.
        TypeError: If it is another kind of tokenizer, or ``directory`` not a path.
        ValueError: If `load_tokenizer` would not return the same tokenizer, or the directory is a checkpoint with one.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_tokenizer(CharTokenizer("abc"), directory)
    ...     load_tokenizer(directory)
    CharTokenizer(characters='abc', byte_fallback=False)
    """
    content = tokenizer_content(tokenizer)
    path = check_path("directory", directory)
    check_replaceable(path, [TOKENIZER_FILE])
    atomic_write(path / TOKENIZER_FILE, lambda file: file.write(content))


def tokenizer_content(tokenizer: Tokenizer) -> bytes:
    """Returns what `save_tokenizer` writes, after checking that it reads back as the same tokenizer.

    Raises:
        TypeError: If it is neither a ``tiktoken.Encoding`` nor a `CharTokenizer`.
        ValueError: If it does not read back as the same tokenizer, with the differences.
    """
    if isinstance(tokenizer, CharTokenizer):
        described: dict[str, object] = {
            "type": "characters",
            "characters": tokenizer.characters,
            "byte_fallback": tokenizer.byte_fallback,
        }
    elif isinstance(tokenizer, tiktoken.Encoding):
        described = _described(tokenizer)
    else:
        raise TypeError(
            f"expected a tiktoken.Encoding or a CharTokenizer, got {tokenizer!r} ({type(tokenizer).__name__}); "
            "save another kind of tokenizer with its own library"
        )
    try:
        content = (json.dumps(described, ensure_ascii=False) + "\n").encode("utf-8")
        differences = _differences(tokenizer, _built(json.loads(content)))
    except ValueError as error:
        raise ValueError(f"cannot save {_name(tokenizer)}: {error}") from error
    if len(content) > _LIMIT:
        raise ValueError(
            f"cannot save {_name(tokenizer)}: its file would have {len(content):,} bytes; at most {_LIMIT:,} are read"
        )
    if differences:
        raise ValueError(
            f"cannot save {_name(tokenizer)}, since it would read back as another: {'; '.join(differences)}. "
            f"The ids of an encoding must run from 0 without a gap, and the last must be its only special token, "
            f"{END_OF_TEXT}"
        )
    return content


def _described(encoding: tiktoken.Encoding) -> dict[str, object]:
    if not _differences(encoding, gpt2_tokenizer()):
        return {"type": "gpt2"}
    ranks = encoding._mergeable_ranks  # noqa: SLF001 - tiktoken's own way to build one encoding from another
    tokens = [base64.b64encode(token).decode() for token in sorted(ranks, key=ranks.__getitem__)]
    return {"type": "byte pairs", "name": encoding.name, "pattern": encoding._pat_str, "tokens": tokens}  # noqa: SLF001


def _name(tokenizer: "tiktoken.Encoding | CharTokenizer") -> str:
    return f"the encoding {tokenizer.name!r}" if isinstance(tokenizer, tiktoken.Encoding) else "the CharTokenizer"


def _differences(
    tokenizer: "tiktoken.Encoding | CharTokenizer", other: "tiktoken.Encoding | CharTokenizer"
) -> list[str]:
    """Returns the differences between two tokenizers."""
    if isinstance(tokenizer, CharTokenizer) or isinstance(other, CharTokenizer):
        return [] if tokenizer == other else [f"{type(other).__name__} instead of {type(tokenizer).__name__}"]
    ours, theirs = _facts(tokenizer), _facts(other)
    found = [f"{name} {theirs[name]} instead of {value}" for name, value in ours.items() if value != theirs[name]]
    if tokenizer._mergeable_ranks != other._mergeable_ranks:  # noqa: SLF001
        found.append("different token ids")
    if tokenizer._pat_str != other._pat_str:  # noqa: SLF001
        found.append("a different split pattern")
    return found


def _facts(encoding: tiktoken.Encoding) -> dict[str, object]:
    special = encoding._special_tokens  # noqa: SLF001 - eot_token raises where there is none
    return {
        "name": repr(encoding.name),
        "n_vocab": encoding.n_vocab,
        "eot_token": special.get(END_OF_TEXT),
        "special_tokens_set": sorted(encoding.special_tokens_set),
    }


def load_tokenizer(directory: PathLike) -> "tiktoken.Encoding | CharTokenizer":
    """Returns the tokenizer of the model in a directory.

    It is the one that `save_tokenizer` wrote there. If there is none, as with OpenAI's own GPT-2, it is GPT-2's
    tokenizer, provided that ``config.json`` and any vocabularies of other libraries in the directory match it. Files
    that a ``manifest.json`` lists, as in a checkpoint, must match that, too.

    Args:
        directory: Directory of a model, a checkpoint or a run.

    Raises:
        FileNotFoundError: If there is no such directory.
        TypeError: If it is not a path.
        ValueError: If the directory does not identify a tokenizer, its files contradict each other, or one is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     save_tokenizer(CharTokenizer("abc"), directory)
    ...     tokenizer = load_tokenizer(directory)
    >>> tokenizer.encode_ordinary("cab")
    [2, 0, 1]
    """
    return _load(check_path("directory", directory))


@rereading
def _load(directory: Path) -> "tiktoken.Encoding | CharTokenizer":
    if not directory.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such model directory", str(directory))
    verify_listed(directory, (CONFIG_FILE, TOKENIZER_FILE))
    size = _vocabulary_size(directory)
    if not os.path.lexists(directory / TOKENIZER_FILE):  # a link that leads nowhere is an error
        _check_gpt2(directory, size)
        return gpt2_tokenizer()
    tokenizer = _read(directory / TOKENIZER_FILE)
    if size is not None and tokenizer.n_vocab > size:
        raise ValueError(
            f"{directory / TOKENIZER_FILE} has {tokenizer.n_vocab:,} tokens, but the model's {CONFIG_FILE} has a "
            f"vocab_size of {size:,}: it is not this model's tokenizer. Save the one that the model was trained with: "
            f"{_FIX}"
        )
    return tokenizer


def _vocabulary_size(directory: Path) -> int | None:
    """Returns the size of a model's vocabulary; ``None`` if there is no model."""
    path = directory / CONFIG_FILE
    if not path.exists():
        return None
    try:
        size = read_json(path, limit=_CONFIG_LIMIT, links=True).get("vocab_size", GPT2Config.vocab_size)
        return int(MODEL_RANGES["vocab_size"].check("vocab_size", size))
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _check_gpt2(directory: Path, size: int | None) -> None:
    """Raises ``ValueError`` unless the files in a model's directory show that its tokenizer is GPT-2's."""
    expected = gpt2_tokenizer().n_vocab
    if size != expected:
        model = (
            f"has no {CONFIG_FILE}" if size is None else f"has a vocab_size of {size:,} where GPT-2's is {expected:,}"
        )
        raise ValueError(
            f"{directory} has no {TOKENIZER_FILE}, and {model}, so its tokenizer is unknown; save the one that the "
            f"model was trained with: {_FIX}"
        )
    for name in _NEVER_GPT2S:
        if (directory / name).exists():
            raise _foreign(directory, name)
    for name in _THEIR_VOCABULARIES:
        if (directory / name).exists() and _their_vocabulary(directory / name) != _gpt2_vocabulary():
            raise _foreign(directory, name)


def _foreign(directory: Path, name: str) -> ValueError:
    return ValueError(
        f"{directory} has no {TOKENIZER_FILE}, and the vocabulary in {name} is not GPT-2's: tinygpt2 does not read "
        "that kind of tokenizer. Encode with the library that it belongs to, and pass the ids to make_dataloader or "
        "generate"
    )


def _their_vocabulary(path: Path) -> object:
    """Returns ids by token, in Hugging Face's notation, without tokens that were added later."""
    try:
        content = read_json(path, limit=_THEIR_LIMIT, links=True)
    except ValueError as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    model = content.get("model") if path.name == "tokenizer.json" else {"vocab": content}
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict):
        return None
    return {token: i for token, i in vocabulary.items() if token != END_OF_TEXT}  # an added token in some files


def _gpt2_vocabulary() -> dict[str, int]:
    return {visible(token): rank for token, rank in gpt2_tokenizer()._mergeable_ranks.items()}  # noqa: SLF001


def _read(path: Path) -> "tiktoken.Encoding | CharTokenizer":
    try:
        return _built(read_json(path, limit=_LIMIT, links=True))
    except (ValueError, TypeError, KeyError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a tinygpt2 tokenizer: {reason}") from error


def _built(content: Mapping[str, Any]) -> "tiktoken.Encoding | CharTokenizer":
    """Returns the tokenizer that a file describes."""
    match content["type"]:
        case "characters":
            return CharTokenizer(_text(content, "characters"), content.get("byte_fallback", False))
        case "gpt2":
            return gpt2_tokenizer()
        case "byte pairs":
            return byte_pair_encoding(_text(content, "name"), _text(content, "pattern"), _tokens(content["tokens"]))
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
