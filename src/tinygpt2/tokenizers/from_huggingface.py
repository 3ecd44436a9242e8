"""Tokenizers in the files of Hugging Face and of SentencePiece.

Those that are equivalent to one of ours are read as such, without another library: byte pairs with GPT-2's pattern, and
characters as `tinygpt2.tokenizers.to_huggingface` writes them. Their own library reads the others.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tiktoken

from tinygpt2._internal.checks import shown
from tinygpt2._internal.files import parse_json, read_bytes, read_json
from tinygpt2.tokenizers.byte_pairs import checked_encoding, from_visible, gpt2_tokenizer
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.foreign import HuggingFaceTokenizer, SentencePieceTokenizer
from tinygpt2.tokenizers.protocol import END_OF_TEXT, Tokenizer, panics_as_errors
from tinygpt2.tokenizers.to_huggingface import (
    BYTE_TOKENS,
    MERGES_FILE,
    SETTINGS_FILE,
    THEIR_FILE,
    VOCABULARY_FILE,
    huggingface_files,
    merges_of,
)

SENTENCEPIECE_FILES = ("tokenizer.model", "spiece.model")
THEIR_FILES = (THEIR_FILE, VOCABULARY_FILE, *SENTENCEPIECE_FILES)
"""The files of which one is enough, in the order in which they are looked for."""

_LIMIT = 64 << 20  # bytes; with its merges, a tokenizer.json has up to 33 MB
_SETTINGS_LIMIT = 1 << 22
_MOST_IDS = 1 << 22  # the largest known vocabularies have 262,144

# Their classes add nothing to the ids of the model in the file; others, such as Pegasus', renumber them.
_SENTENCEPIECE_CLASSES = {f"{name}Tokenizer{fast}" for name in ("Llama", "T5", "Gemma") for fast in ("", "Fast")}


def read_their_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer in one of `THEIR_FILES`.

    Raises:
        ImportError: If it needs another library, with the line that installs it.
        ValueError: If it is damaged, or nothing that can be read.
    """
    try:
        if path.suffix == ".model":
            return _sentencepiece(path)
        settings = _settings(path)
        if path.name == VOCABULARY_FILE:
            return _of_two_files(path, settings)
        content = read_bytes(path, limit=_LIMIT, links=True)
        parts = parse_json(content, path.name)
        _check_beside(path, parts)
        return _of_parts(parts, content.decode(), settings)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"cannot read {path}: {reason}") from error


def _settings(path: Path) -> dict[str, Any]:
    """Returns what ``tokenizer_config.json`` beside a file says; nothing if there is none."""
    beside = path.with_name(SETTINGS_FILE)
    return read_json(beside, limit=_SETTINGS_LIMIT, links=True) if beside.exists() else {}


def _check_beside(path: Path, parts: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` if ``vocab.json`` beside a ``tokenizer.json`` is another vocabulary."""
    beside = path.with_name(VOCABULARY_FILE)
    if beside.exists():
        ids = parts["model"]["vocab"]
        vocabulary = read_json(beside, limit=_LIMIT, links=True)
        added = {token["content"]: token["id"] for token in parts.get("added_tokens", [])}
        if not isinstance(ids, dict) or not vocabulary.items() <= (ids | added).items():
            raise ValueError(f"{VOCABULARY_FILE} beside it has other ids; remove the one that is not the model's")


def _of_parts(parts: dict[str, Any], content: str, settings: Mapping[str, Any]) -> Tokenizer:
    """Returns the tokenizer of a ``tokenizer.json``."""
    end = _named_end(settings)
    if end in (None, END_OF_TEXT) and (ours := _byte_pairs(parts) or _characters(parts)):
        return ours
    _check_ids(parts)
    try:
        from tokenizers import Tokenizer as Theirs  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            f"{THEIR_FILE} describes a tokenizer of the tokenizers library; pip install 'tinygpt2[tokenizers]'"
        ) from error
    try:
        with panics_as_errors(THEIR_FILE):
            theirs = Theirs.from_str(content)
            i = None if end is None else theirs.token_to_id(end)
            if end is None or i is not None:
                return HuggingFaceTokenizer.of(theirs, i, settings)
    except Exception as error:  # the library has none of its own
        raise ValueError(shown(str(error))) from error
    raise ValueError(f"{SETTINGS_FILE} says that {shown(end)} ends a text, but there is no such token")


def _check_ids(parts: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` if an id is so large that the library would take all memory for those below it."""
    vocabulary = parts["model"]["vocab"]
    ids = [*vocabulary.values()] if isinstance(vocabulary, dict) else []
    ids += [token["id"] for token in parts.get("added_tokens", [])]
    if wrong := [i for i in ids if type(i) is not int or not 0 <= i < _MOST_IDS]:
        raise ValueError(f"the id of a token should be from 0 to {_MOST_IDS - 1:,} but is {shown(wrong[0])}")


def _named_end(settings: Mapping[str, Any]) -> str | None:
    """Returns the token that ends a text, if ``tokenizer_config.json`` names it."""
    end = settings.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    if not isinstance(end, str | None):
        raise TypeError(f"eos_token in {SETTINGS_FILE} should be a string but is {shown(end)}")
    return end


def _byte_pairs(parts: Mapping[str, Any]) -> tiktoken.Encoding | None:
    """Returns the equivalent encoding, if the parts are those of byte pairs with GPT-2's pattern."""
    ids = _ids(parts) if _splits_as_gpt2(parts) and _is_plain_merging(parts["model"]) else None
    if ids is None:
        return None
    gpt2 = gpt2_tokenizer()
    if ids == (gpt2._mergeable_ranks, gpt2._special_tokens):  # noqa: SLF001 - tiktoken does not tell otherwise
        encoding = gpt2
    else:
        encoding = checked_encoding("huggingface", gpt2._pat_str, *ids)  # noqa: SLF001
    merges, is_complete = merges_of(encoding)
    theirs = [merge if isinstance(merge, str) else " ".join(merge) for merge in parts["model"]["merges"]]
    return encoding if merges == theirs and (is_complete or parts["model"].get("ignore_merges")) else None


def _ids(parts: Mapping[str, Any]) -> tuple[dict[bytes, int], dict[str, int]] | None:
    """Returns the ids of tokens and of special tokens, if they are such that an encoding can have them."""
    vocabulary, added = parts["model"]["vocab"], parts.get("added_tokens", [])
    special = {token["content"]: token["id"] for token in added if token.get("special")}
    try:
        ranks = {from_visible(token): i for token, i in vocabulary.items() if token not in special}
    except KeyError:  # a character that stands for no byte
        return None
    ids = [*ranks.values(), *special.values()]
    possible = (
        len(special) == len(added)
        and (END_OF_TEXT in special or not special)
        and all(vocabulary.get(token, i) == i for token, i in special.items())
        and all(type(i) is int for i in ids)
        and sorted(ids) == list(range(len(ids)))
        and {bytes([byte]) for byte in range(256)} <= ranks.keys()
    )
    return (ranks, special) if possible else None


def _is_plain_merging(model: Mapping[str, Any]) -> bool:
    options = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    return "merges" in model and model.get("type", "BPE") == "BPE" and not any(model.get(name) for name in options)


def _splits_as_gpt2(parts: Mapping[str, Any]) -> bool:
    splitting, decoder = parts.get("pre_tokenizer") or {}, parts.get("decoder") or {}
    return (
        parts.get("normalizer") is None
        and splitting.get("type") == decoder.get("type") == "ByteLevel"
        and not splitting.get("add_prefix_space", True)
        and splitting.get("use_regex", True) is True
    )


def _characters(parts: Mapping[str, Any]) -> CharTokenizer | None:
    """Returns the tokenizer whose parts these are, if they are those of one of characters."""
    vocabulary = parts["model"].get("vocab")
    if not isinstance(vocabulary, dict):
        return None
    names = [token for token in vocabulary if token != END_OF_TEXT and token not in _BYTE_NAMES]
    if not names or any(len(name) != 1 for name in names):
        return None
    byte_fallback = not _BYTE_NAMES.isdisjoint(vocabulary)
    tokenizer = CharTokenizer("".join(sorted(names, key=vocabulary.__getitem__)), byte_fallback)
    ours = json.loads(huggingface_files(tokenizer)[THEIR_FILE])
    same = ("model", "pre_tokenizer", "decoder", "normalizer", "added_tokens")
    return tokenizer if all(parts.get(name) == ours[name] for name in same) else None


_BYTE_NAMES = frozenset(BYTE_TOKENS)


def _of_two_files(path: Path, settings: Mapping[str, Any]) -> Tokenizer:
    """Returns the tokenizer of ``vocab.json`` and ``merges.txt``, as GPT-2's has them."""
    vocabulary = read_json(path, limit=_LIMIT, links=True)
    if not path.with_name(MERGES_FILE).exists():
        raise ValueError(f"there is no {MERGES_FILE} beside it")
    lines = read_bytes(path.with_name(MERGES_FILE), limit=_LIMIT, links=True).decode().splitlines()
    merges = [line for line in lines[lines[:1] == ["#version: 0.2"] :] if line]
    made = {merge.replace(" ", "") for merge in merges}
    special = {token: i for token, i in vocabulary.items() if token not in made and len(token) > 1}
    parts = {
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": settings.get("add_prefix_space", False)},
        "decoder": {"type": "ByteLevel"},
        "model": {"vocab": vocabulary, "merges": merges},
        "added_tokens": [{"content": token, "id": i, "special": True} for token, i in special.items()],
    }
    named = {
        END_OF_TEXT,
        *(value for name, value in settings.items() if name.endswith("_token") and isinstance(value, str)),
    }
    known = special.keys() <= named and _named_end(settings) in (None, END_OF_TEXT)
    if not (known and (encoding := _byte_pairs(parts))):
        raise ValueError(
            f"with {MERGES_FILE} it is not a vocabulary of byte pairs like GPT-2's; load it with transformers' "
            "AutoTokenizer, and pass that tokenizer"
        )
    return encoding


def _sentencepiece(path: Path) -> Tokenizer:
    name = _settings(path).get("tokenizer_class")
    if name is not None and name not in _SENTENCEPIECE_CLASSES:
        raise ValueError(
            f"{SETTINGS_FILE} says that it is of {shown(name)}, which may have other ids; load it with transformers' "
            "AutoTokenizer, and pass that tokenizer"
        )
    content = read_bytes(path, limit=_LIMIT, links=True)
    if not content:
        raise ValueError("it is empty")
    try:
        from sentencepiece import SentencePieceProcessor  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(f"{path.name} is a model of SentencePiece; pip install 'tinygpt2[sentencepiece]'") from error
    try:
        return SentencePieceTokenizer(SentencePieceProcessor(model_proto=content))
    except RuntimeError as error:
        raise ValueError(f"it is not a model of SentencePiece: {shown(str(error))}") from error
