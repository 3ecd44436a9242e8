"""Tokenizers on the disk: what is saved comes back as it was or is refused, and what is not there is never guessed."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    gpt2_tokenizer,
    load_tokenizer,
    save_tokenizer,
    trim_vocabulary,
)
from tinygpt2.text.storage import TOKENIZER_FILE, tokenizer_content
from tinygpt2.text.tokenizers import visible

END_OF_TEXT = "<|endoftext|>"
PATTERN = r"\w+|\W"
BYTE_RANKS = {bytes([i]): i for i in range(256)}
BYTES = [base64.b64encode(token).decode() for token in BYTE_RANKS]


@cache
def trimmed() -> tiktoken.Encoding:
    return trim_vocabulary(gpt2_tokenizer(), "Byte pairs, byte by byte: 字节对，一个接一个。")


def encoding(ranks: dict[bytes, int], special: dict[str, int], name: str = "own") -> tiktoken.Encoding:
    return tiktoken.Encoding(name, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)


def gpt2_like(name: str, special: dict[str, int], more: dict[bytes, int] | None = None) -> tiktoken.Encoding:
    ranks = gpt2_tokenizer()._mergeable_ranks | (more or {})
    return tiktoken.Encoding(name, pat_str=gpt2_tokenizer()._pat_str, mergeable_ranks=ranks, special_tokens=special)


# --- saving ---


@pytest.mark.parametrize(
    "tokenizer",
    [
        gpt2_tokenizer(),
        trimmed(),
        CharTokenizer.from_text('世界 "\\\n\u2028你好'),
        CharTokenizer("\x00\ufeff\r"),
        encoding(BYTE_RANKS, {END_OF_TEXT: 256}),
        encoding({bytes([i]): 255 - i for i in range(256)} | {b"ab": 256}, {END_OF_TEXT: 257}, "gpt2"),
    ],
)
def test_a_saved_tokenizer_comes_back(tmp_path: Path, tokenizer: tiktoken.Encoding | CharTokenizer) -> None:
    save_tokenizer(tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert (type(loaded), loaded.n_vocab, loaded.eot_token) == (type(tokenizer), tokenizer.n_vocab, tokenizer.eot_token)
    if isinstance(tokenizer, tiktoken.Encoding):
        assert loaded.encode_ordinary("abba 世界 你好\n") == tokenizer.encode_ordinary("abba 世界 你好\n")
    assert [loaded.decode([i]) for i in range(loaded.n_vocab)] == [tokenizer.decode([i]) for i in range(loaded.n_vocab)]
    assert [path.name for path in tmp_path.iterdir()] == [TOKENIZER_FILE]
    assert (tmp_path / TOKENIZER_FILE).read_bytes() == tokenizer_content(tokenizer) == tokenizer_content(loaded)


def test_gpt2s_tokenizer_is_saved_by_its_name_and_comes_back_as_the_one_there_is(tmp_path: Path) -> None:
    assert tokenizer_content(gpt2_tokenizer()) == b'{"type": "gpt2"}\n'
    save_tokenizer(gpt2_tokenizer(), tmp_path)
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        pytest.param(
            gpt2_like("p50k", {END_OF_TEXT: 50256}, {b" " * (n + 2): 50257 + n for n in range(24)}),
            "eot_token 50280 instead of 50256",
            id="the end of text in the middle, as p50k_base has it",
        ),
        pytest.param(
            encoding({token: rank + 1 for token, rank in BYTE_RANKS.items()}, {END_OF_TEXT: 0}),
            "eot_token 256 instead of 0",
            id="the end of text first, as GPT-NeoX has it",
        ),
        pytest.param(
            encoding(BYTE_RANKS, {END_OF_TEXT: 300}),
            "n_vocab 257 instead of 301",
            id="a gap before the end of text, as o200k_base has it",
        ),
        pytest.param(
            encoding({**BYTE_RANKS, b"ab": 300}, {END_OF_TEXT: 301}), "different token ids", id="a gap within"
        ),
        pytest.param(
            encoding(BYTE_RANKS, {END_OF_TEXT: 256, "<|user|>": 257}), "<|user|>", id="two special tokens"
        ),
        pytest.param(
            gpt2_like("gpt2", {END_OF_TEXT: 50256, "<|user|>": 50257}), "<|user|>", id="GPT-2's with an added token"
        ),
        pytest.param(encoding(BYTE_RANKS, {"<eos>": 256}), "eot_token 256 instead of None", id="another end of text"),
        pytest.param(encoding(BYTE_RANKS, {}), "eot_token 256 instead of None", id="no end of text"),
        pytest.param(
            encoding(dict(list(BYTE_RANKS.items())[:255]), {END_OF_TEXT: 255}), "byte is missing", id="a byte less"
        ),
        pytest.param(CharTokenizer("a\ud800"), "cannot save the CharTokenizer", id="half a character"),
    ],
)  # fmt: skip
def test_what_would_come_back_as_another_is_refused(
    tmp_path: Path, tokenizer: tiktoken.Encoding | CharTokenizer, message: str
) -> None:
    """Each of them used to be saved, and then could not be loaded or had other ids."""
    with pytest.raises(ValueError, match="cannot save") as caught:
        save_tokenizer(tokenizer, tmp_path)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_subclass_of_characters_would_come_back_as_its_parent(tmp_path: Path) -> None:
    class Reversed(CharTokenizer):
        def encode_ordinary(self, text: str, /) -> list[int]:
            return super().encode_ordinary(text)[::-1]

    with pytest.raises(ValueError, match="CharTokenizer instead of Reversed"):
        save_tokenizer(Reversed("abc"), tmp_path)


def test_other_kinds_of_tokenizer_are_refused(tmp_path: Path) -> None:
    theirs: Any = tokenizers.Tokenizer(tokenizers.models.BPE())
    with pytest.raises(TypeError, match=r"expected a tiktoken\.Encoding or a CharTokenizer"):
        save_tokenizer(theirs, tmp_path)


def test_a_tokenizer_that_is_refused_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    save_tokenizer(CharTokenizer("abc"), tmp_path)
    with pytest.raises(ValueError, match="cannot save"):
        save_tokenizer(encoding(BYTE_RANKS, {}), tmp_path)
    assert load_tokenizer(tmp_path) == CharTokenizer("abc")


# --- a directory without a file of ours ---


def write(directory: Path, name: str, content: object) -> None:
    (directory / name).write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


@cache
def gpt2_vocabulary() -> dict[str, int]:
    """Returns the vocabulary as OpenAI's ``vocab.json`` has it."""
    return {visible(token): i for token, i in gpt2_tokenizer()._mergeable_ranks.items()} | {END_OF_TEXT: 50256}


def test_the_model_of_openai_has_gpt2s_tokenizer(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"model_type": "gpt2", "vocab_size": 50257})
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()
    write(tmp_path, "vocab.json", gpt2_vocabulary())
    write(tmp_path, "tokenizer.json", {"model": {"type": "BPE", "vocab": gpt2_vocabulary()}})
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()
    write(tmp_path, "config.json", {})  # what has its default is left out of some
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()


def test_hugging_faces_own_file_of_gpt2s_tokenizer_is_known(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"vocab_size": 50257})
    merges: list[tuple[str, str]] = []
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=gpt2_vocabulary(), merges=merges))
    theirs.add_special_tokens([END_OF_TEXT])
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()


def test_a_link_is_followed_as_in_the_cache_of_the_hub(tmp_path: Path) -> None:
    model, blobs = tmp_path / "model", tmp_path / "blobs"
    model.mkdir()
    blobs.mkdir()
    write(blobs, "config", {"vocab_size": 4})
    save_tokenizer(CharTokenizer("abc"), blobs)
    (model / "config.json").symlink_to(blobs / "config")
    (model / TOKENIZER_FILE).symlink_to(blobs / TOKENIZER_FILE)
    assert load_tokenizer(model) == CharTokenizer("abc")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.json"),
        ({"vocab_size": 51200}, "has a vocab_size of 51,200 where GPT-2's is 50,257"),
        ({"vocab_size": 50256}, "has a vocab_size of 50,256"),
        ({"vocab_size": "50257"}, "vocab_size must be an integer, got '50257'"),
        ({"vocab_size": True}, "vocab_size must be an integer, got True"),
        ("{", "config.json is not JSON"),
        ("[" * 100_000, "config.json"),
    ],
)
def test_a_tokenizer_that_is_not_there_is_not_guessed(tmp_path: Path, config: object, message: str) -> None:
    """It used to be GPT-2's, whose ids a smaller vocabulary does not have."""
    if config is not None:
        write(tmp_path, "config.json", config)
    with pytest.raises(ValueError, match=r"config\.json|save_tokenizer\(tokenizer, directory\)") as caught:
        load_tokenizer(tmp_path)
    assert message in str(caught.value)


def test_the_error_says_how_to_save_the_right_one(tmp_path: Path) -> None:
    GPT2Model(GPT2Config(vocab_size=4, context_length=4, n_layer=1, n_head=1, n_embd=4)).save_pretrained(tmp_path)
    fix = r"save_tokenizer\(tokenizer, directory\), or model.save_pretrained\(directory, tokenizer=tokenizer\)"
    with pytest.raises(ValueError, match=fix):
        load_tokenizer(tmp_path)
    save_tokenizer(CharTokenizer("abc"), tmp_path)
    assert load_tokenizer(tmp_path) == CharTokenizer("abc")


@pytest.mark.parametrize("path", ["none", "file"])
def test_a_directory_that_is_not_there_is_told(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match=path):
        load_tokenizer(tmp_path / path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1}}}),
        ("tokenizer.json", {"model": {"vocab": {token: 50256 - i for token, i in gpt2_vocabulary().items()}}}),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}),
        ("tokenizer.json", {"model": None}),
        ("tokenizer.json", {}),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[" * 100_000),
        ("vocab.json", {"a": 0}),
        ("vocab.json", "[]"),
        ("vocab.txt", "[PAD]\n"),
        ("tokenizer.model", ""),
    ],
)
def test_the_vocabulary_of_another_library_is_not_taken_for_gpt2s(tmp_path: Path, name: str, content: object) -> None:
    """A model with as many tokens as GPT-2 and a vocabulary of its own, of a GPT-2 in Spanish for instance."""
    write(tmp_path, "config.json", {"vocab_size": 50257})
    write(tmp_path, name, content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load_tokenizer(tmp_path)
    save_tokenizer(gpt2_tokenizer(), tmp_path)
    assert load_tokenizer(tmp_path) is gpt2_tokenizer(), "our own file is what counts"


# --- a file of ours ---


def test_a_tokenizer_with_more_tokens_than_its_model_is_refused(tmp_path: Path) -> None:
    save_tokenizer(CharTokenizer("abcdefgh"), tmp_path)
    for size in (9, 10, 50257):
        write(tmp_path, "config.json", {"vocab_size": size})
        assert load_tokenizer(tmp_path) == CharTokenizer("abcdefgh")
    write(tmp_path, "config.json", {"vocab_size": 8})
    with pytest.raises(ValueError, match=rf"{TOKENIZER_FILE} has 9 tokens, but .* a vocab_size of 8"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "{}",
        '"gpt2"',
        "\ufffd{",
        '{"type": "gpt2", "type": "characters", "characters": "ab"}',
        "[" * 100_000,
        '{"type":' * 100_000,
        {"type": "words"},
        {"type": None},
        {"type": ["gpt2"]},
        {"type": "characters"},
        {"type": "characters", "characters": ""},
        {"type": "characters", "characters": "aa"},
        {"type": "characters", "characters": 5},
        {"type": "characters", "characters": ["a", "b"]},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": 5},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": []},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": [*BYTES, "?"]},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": [*BYTES, 5]},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": [*BYTES, "字"]},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": [*BYTES, ""]},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": [*BYTES, BYTES[0]]},
        {"type": "byte pairs", "name": "x", "pattern": "(", "tokens": BYTES},
        {"type": "byte pairs", "name": 5, "pattern": PATTERN, "tokens": BYTES},
        {"type": "byte pairs", "name": "x", "pattern": None, "tokens": BYTES},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES[1:]},  # would panic in tiktoken later
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: object) -> None:
    write(tmp_path, TOKENIZER_FILE, content)
    with pytest.raises(ValueError, match=rf"{TOKENIZER_FILE} is not a tinygpt2 tokenizer"):
        load_tokenizer(tmp_path)


def test_a_file_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / TOKENIZER_FILE).write_bytes('{"type": "characters", "characters": "你好"}'.encode("gb18030"))
    with pytest.raises(ValueError, match=rf"{TOKENIZER_FILE} is not a tinygpt2 tokenizer"):
        load_tokenizer(tmp_path)


def test_a_file_of_any_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / TOKENIZER_FILE).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="larger than"):
        load_tokenizer(tmp_path)
