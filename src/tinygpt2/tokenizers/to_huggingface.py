"""Tokenizers of ours as the files of Hugging Face, which transformers' ``AutoTokenizer`` reads."""

import json
import logging
import re
import sys
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import tiktoken

from tinygpt2._internal.checks import shown
from tinygpt2.tokenizers.byte_pairs import byte_pair_encoding, gpt2_merges, gpt2_tokenizer, is_gpt2_pattern, visible
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.protocol import END_OF_TEXT, encoded

logger = logging.getLogger(__name__)

THEIR_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"

BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
"""What the tokens of single bytes are called beside those of characters, in the order of the bytes."""

EACH_CHARACTER = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
"""The step that splits a text into its characters."""


def huggingface_files(tokenizer: tiktoken.Encoding | CharTokenizer) -> dict[str, bytes]:
    """Returns the contents of files by their names; none, with the reason in the log, if the ids would differ.

    The ids are equal for every text, apart from special tokens that are written in a text: to transformers they are the
    tokens, to tinygpt2 ordinary characters. A character that a `CharTokenizer` does not have is an error there, too.
    """
    if isinstance(tokenizer, CharTokenizer):
        return _files(_of_characters(tokenizer), "PreTrainedTokenizerFast")
    pattern, special = tokenizer._pat_str, tokenizer._special_tokens  # noqa: SLF001 - tiktoken does not tell otherwise
    merges, is_complete = merges_of(tokenizer)
    if both := special.keys() & map(visible, tokenizer._mergeable_ranks):  # noqa: SLF001
        return _none(tokenizer, f"{shown(min(both))} is a special token and an ordinary one")
    if reason := _why_not(pattern):
        return _none(tokenizer, reason)
    content = _of_byte_pairs(tokenizer)
    plain = is_gpt2_pattern(pattern) and is_complete  # as all of GPT2Tokenizer's are
    return _files(content, "GPT2Tokenizer" if plain else "PreTrainedTokenizerFast") | {
        VOCABULARY_FILE: _json(content["model"]["vocab"]),
        MERGES_FILE: "\n".join(["#version: 0.2", *merges, ""]).encode(),
    }


@lru_cache(maxsize=4)
def merges_of(encoding: tiktoken.Encoding) -> tuple[list[str], bool]:
    """Returns the merges of an encoding, in their order, and whether they make every token.

    tiktoken joins any two tokens whose bytes are those of a third, that of the lowest rank first, so the merge that
    makes a token is the last one in encoding its bytes. A token which that does not make still stands for a whole word.
    """
    ranks = encoding._mergeable_ranks  # noqa: SLF001
    if ranks == gpt2_tokenizer()._mergeable_ranks:  # noqa: SLF001
        return gpt2_merges(), True
    last = [_last_merge(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    return [" ".join(map(visible, parts)) for parts in last if parts], all(last)


def _last_merge(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Returns the two tokens that byte-pair encoding joins last to make a token; nothing if it does not make it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        known = [(ranks[pair], i) for i, pair in enumerate(map(b"".join, pairwise(parts))) if pair in ranks]
        if not known:
            return []
        _, i = min(known)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


def _of_byte_pairs(encoding: tiktoken.Encoding) -> dict[str, Any]:
    ranks, special, pattern = encoding._mergeable_ranks, encoding._special_tokens, encoding._pat_str  # noqa: SLF001
    merges, is_complete = merges_of(encoding)
    ids = {visible(token): i for token, i in ranks.items()} | special
    model = _bpe(vocab=_in_order(ids), merges=merges, ignore_merges=not is_complete)
    return _described(model, special, pre_tokenizer=_splitting(pattern), decoder=_byte_level(use_regex=True))


def _bpe(**options: object) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **options,
    }


def _of_characters(tokenizer: CharTokenizer) -> dict[str, Any]:
    tokens = [*tokenizer.characters]
    model: dict[str, Any] = {"type": "WordLevel", "unk_token": ""}  # a token that is not there, so an error
    decoder: dict[str, Any] = {"type": "Fuse"}
    if tokenizer.byte_fallback:
        tokens += BYTE_TOKENS
        model = _bpe(byte_fallback=True, merges=[])
        decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
    special = {END_OF_TEXT: tokenizer.eot_token}
    vocabulary = {token: i for i, token in enumerate(tokens)} | special
    return _described(model | {"vocab": vocabulary}, special, pre_tokenizer=EACH_CHARACTER, decoder=decoder)


def _described(model: dict[str, Any], special: Mapping[str, int], **steps: object) -> dict[str, Any]:
    """Returns the content of ``tokenizer.json``."""
    added = [{"id": i, "content": token} | _TAKEN_AS_IT_IS for token, i in _in_order(special).items()]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "post_processor": None,
        **steps,
        "model": model,
    }


_TAKEN_AS_IT_IS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def _in_order(ids: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(ids.items(), key=lambda pair: pair[1]))


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _splitting(pattern: str) -> dict[str, Any]:
    if is_gpt2_pattern(pattern):
        return _byte_level(use_regex=True)
    theirs = re.sub(r"(\{\d+(?:,\d*)?\})\+", r"\1", pattern)  # in their syntax a + there means a repetition
    split = {"type": "Split", "pattern": {"Regex": theirs}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _byte_level(use_regex=False)]}


def _files(content: Mapping[str, Any], tokenizer_class: str) -> dict[str, bytes]:
    added = {token["id"]: {"content": token["content"]} | _TAKEN_AS_IT_IS for token in content["added_tokens"]}
    settings = {
        "added_tokens_decoder": {str(i): token for i, token in added.items()},
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": tokenizer_class,
    }
    if tokenizer_class == "GPT2Tokenizer":
        settings |= {"unk_token": END_OF_TEXT, "add_prefix_space": False}
    return {THEIR_FILE: _json(content), SETTINGS_FILE: (json.dumps(settings, indent=2) + "\n").encode()}


def _json(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False) + "\n").encode()


def _none(tokenizer: tiktoken.Encoding, reason: str) -> dict[str, bytes]:
    logger.info("the encoding %r is not written for transformers: %s", tokenizer.name, reason)
    return {}


@lru_cache(maxsize=4)
def _why_not(pattern: str) -> str:
    """Returns why a pattern cannot be relied on in another library, whose regular expressions are others."""
    if is_gpt2_pattern(pattern):
        return ""
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415 - optional
    except ImportError:
        return "its split pattern is not GPT-2's, and tokenizers is not installed to check it: pip install tokenizers"
    probes = _probes()
    pairs = {bytes(pair) for text in probes for pair in pairwise(text.encode())}
    ours = byte_pair_encoding("probe", pattern, [*(bytes([byte]) for byte in range(256)), *sorted(pairs)])
    try:
        theirs = Tokenizer.from_str(json.dumps(_of_byte_pairs(ours)))
    except Exception as error:  # noqa: BLE001 - of a kind of its own
        return f"tokenizers does not read its split pattern: {shown(str(error))}"
    different = (text for text in probes if theirs.encode(text).ids != encoded(ours, text))
    return next((f"tokenizers splits {shown(text)} otherwise by its pattern" for text in different), "")


def _probes() -> list[str]:
    """Returns texts with each kind of character: between others, and in runs."""
    kinds: dict[str, str] = {}
    for i in range(sys.maxunicode + 1):
        kinds.setdefault(unicodedata.category(chr(i)), chr(i))
    del kinds["Cs"]  # surrogates
    signs = [*map(chr, range(128)), *kinds.values(), "好", "é", "É", "ſ", "\u2028", "\x85"]
    texts = [f"a{sign}b {sign}{sign} {sign}1{sign}\n{sign}A{sign * 9}\n\n{sign * 4}" for sign in signs]
    return ["", "It's, WE'LL 'd ' S'T\n\n\r\n \n  x", *texts]
