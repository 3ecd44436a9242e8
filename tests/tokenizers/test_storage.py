"""Tokenizers on the disk: what is saved comes back as it was or is refused, and what is not there is never guessed."""

import base64
import importlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch

from tinygpt2 import (
    CharTokenizer,
    CheckpointError,
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    generate_text,
    gpt2_tokenizer,
    load_tokenizer,
    make_dataloader,
    save_tokenizer,
    text_to_tensor,
    tokenize_to_file,
    train,
    trim_vocabulary,
)
from tinygpt2.tokenizers.byte_pairs import visible
from tinygpt2.tokenizers.foreign import HuggingFaceTokenizer, SentencePieceTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import Tokenizer
from tinygpt2.tokenizers.storage import tokenizer_files
from tinygpt2.tokenizers.tokenizer_file import TOKENIZER_FILE

END_OF_TEXT = "<|endoftext|>"
PATTERN = r"\w+|\W"
PROBE = "abba 世界 你好\n it's  12 <|endoftext|> <|user|>"
THEIRS = ["tokenizer.json", "tokenizer_config.json"]
PAIRS = ["merges.txt", *THEIRS, "vocab.json"]
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


def trimmed_with(special: dict[str, int]) -> tiktoken.Encoding:
    """Returns GPT-2's tokens for a text, with special tokens that have these ids among theirs."""
    ranks = trimmed()._mergeable_ranks
    ids = (i for i in range(len(ranks) + len(special)) if i not in special.values())
    tokens = dict(zip(sorted(ranks, key=ranks.__getitem__), ids, strict=True))
    return tiktoken.Encoding("own", pat_str=trimmed()._pat_str, mergeable_ranks=tokens, special_tokens=special)


def the_same(tokenizer: Tokenizer, other: Tokenizer) -> bool:
    """Returns whether two tokenizers have the same ids, of special tokens too."""
    if isinstance(tokenizer, CharTokenizer) or isinstance(other, CharTokenizer):
        return tokenizer == other
    assert isinstance(tokenizer, tiktoken.Encoding)
    assert isinstance(other, tiktoken.Encoding)
    same = [
        (each.n_vocab, each.eot_token, each._special_tokens, each._mergeable_ranks, each.encode_ordinary(PROBE))
        for each in (tokenizer, other)
    ]
    return same[0] == same[1]


# --- saving ---

SIZE = len(trimmed()._mergeable_ranks)
USUAL: list[tiktoken.Encoding | CharTokenizer] = [
    gpt2_tokenizer(),
    trimmed(),
    CharTokenizer.from_text('世界 "\\\n\u2028你好'),
    CharTokenizer("\x00\ufeff\r"),
    CharTokenizer("abc 你", byte_fallback=True),
    trimmed_with({"<|user|>": SIZE, "<|bot|>": SIZE + 1, END_OF_TEXT: SIZE + 2}),
    trimmed_with({END_OF_TEXT: 0}),
    trimmed_with({END_OF_TEXT: 7, "<|user|>": 200}),
]
UNUSUAL = [  # as no vocabulary that was trained has them
    encoding(BYTE_RANKS, {END_OF_TEXT: 256}),
    encoding({bytes([i]): 255 - i for i in range(256)} | {b"ab": 256}, {END_OF_TEXT: 257}, "gpt2"),
    encoding({token: rank + 1 for token, rank in BYTE_RANKS.items()}, {END_OF_TEXT: 0}),
]


@pytest.mark.parametrize("tokenizer", [*USUAL, *UNUSUAL])
def test_a_saved_tokenizer_comes_back(tmp_path: Path, tokenizer: tiktoken.Encoding | CharTokenizer) -> None:
    save_tokenizer(tokenizer, tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert the_same(tokenizer, loaded)
    assert [loaded.decode([i]) for i in range(loaded.n_vocab)] == [tokenizer.decode([i]) for i in range(loaded.n_vocab)]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == tokenizer_files(tokenizer)
    assert tokenizer_files(loaded) == tokenizer_files(tokenizer)
    assert list(tokenizer_files(tokenizer))[-1] == TOKENIZER_FILE, "which is written last"
    assert the_same(tokenizer, load_tokenizer(tmp_path / TOKENIZER_FILE))


@pytest.mark.parametrize("tokenizer", USUAL)
def test_both_forms_are_written(tmp_path: Path, tokenizer: tiktoken.Encoding | CharTokenizer) -> None:
    save_tokenizer(tokenizer, tmp_path)
    theirs = THEIRS if isinstance(tokenizer, CharTokenizer) else PAIRS
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([TOKENIZER_FILE, *theirs])


def test_the_merges_of_a_vocabulary_are_those_of_gpt2_that_make_its_tokens(tmp_path: Path) -> None:
    save_tokenizer(gpt2_tokenizer(), tmp_path)
    whole = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert whole[:3] == ["#version: 0.2", "Ġ t", "Ġ a"]
    assert json.loads((tmp_path / "vocab.json").read_bytes()) == gpt2_vocabulary()
    save_tokenizer(trimmed(), tmp_path)
    kept = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    tokens = {visible(token) for token in trimmed()._mergeable_ranks}
    assert kept == [merge for merge in whole if merge == whole[0] or merge.replace(" ", "") in tokens]


def test_a_pattern_that_another_library_reads_otherwise_is_not_written_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """There ``(?m)`` means something else, and ``.`` never matches the end of a line."""
    pytest.importorskip("tokenizers")
    own = tiktoken.Encoding(
        "own", pat_str=r"(?s)a.|.", mergeable_ranks=BYTE_RANKS | {b"a\n": 256}, special_tokens={END_OF_TEXT: 257}
    )
    save_tokenizer(own, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TOKENIZER_FILE]
    assert "the encoding 'own' is not written for transformers: tokenizers " in caplog.text
    assert the_same(own, load_tokenizer(tmp_path))


def test_a_special_token_that_is_also_an_ordinary_one_is_not_written_for_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    both = gpt2_like("both", {END_OF_TEXT: 50256, "hello": 50257})
    save_tokenizer(both, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [TOKENIZER_FILE]
    assert "'hello' is a special token and an ordinary one" in caplog.text
    assert the_same(both, load_tokenizer(tmp_path))


def test_without_tokenizers_only_gpt2s_pattern_is_written_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    own = encoding(BYTE_RANKS | {b"own": 256}, {END_OF_TEXT: 257})
    text = importlib.import_module("tinygpt2.tokenizers.to_huggingface")
    text._why_not.cache_clear()
    save_tokenizer(own, tmp_path)
    text._why_not.cache_clear()
    assert [path.name for path in tmp_path.iterdir()] == [TOKENIZER_FILE]
    assert "pip install tokenizers" in caplog.text
    save_tokenizer(trimmed(), tmp_path)
    assert "merges.txt" in {path.name for path in tmp_path.iterdir()}
    (tmp_path / TOKENIZER_FILE).unlink()
    assert the_same(trimmed(), load_tokenizer(tmp_path)), "and read"


def test_gpt2s_tokenizer_is_saved_by_its_name_and_comes_back_as_the_one_there_is(tmp_path: Path) -> None:
    content = json.loads(tokenizer_files(gpt2_tokenizer())[TOKENIZER_FILE])
    assert content.pop("type") == "gpt2"
    assert list(content) == ["sha256 of tokenizer.json"]
    save_tokenizer(gpt2_tokenizer(), tmp_path)
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        pytest.param(
            encoding(BYTE_RANKS, {END_OF_TEXT: 300}),
            "its special tokens should have different ids from 0 to 256, but are {'<|endoftext|>': 300}",
            id="a gap before the end of text, as o200k_base has it",
        ),
        pytest.param(
            encoding({**BYTE_RANKS, b"ab": 300}, {END_OF_TEXT: 256}), "different token ids", id="a gap within"
        ),
        pytest.param(encoding(BYTE_RANKS, {"<eos>": 256}), "one of its special tokens", id="another end of text"),
        pytest.param(encoding(BYTE_RANKS, {}), "should be <|endoftext|>, but", id="no end of text"),
        pytest.param(
            encoding(dict(list(BYTE_RANKS.items())[:255]), {END_OF_TEXT: 255}), "byte is missing", id="a byte less"
        ),
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
    class Own:
        n_vocab, eot_token = 2, 1
        encode_ordinary = decode = print

    with pytest.raises(
        TypeError, match=r"expected a tiktoken\.Encoding, a CharTokenizer, or a tokenizer of transformers"
    ):
        save_tokenizer(Own(), tmp_path)


def test_a_tokenizer_takes_the_place_of_all_files_of_an_earlier_one(tmp_path: Path) -> None:
    save_tokenizer(trimmed(), tmp_path)
    for name in ("added_tokens.json", "special_tokens_map.json", "tokenizer.model"):
        (tmp_path / name).touch()
    (tmp_path / "README.md").touch()
    save_tokenizer(CharTokenizer("abc"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*THEIRS, TOKENIZER_FILE, "README.md"])
    model = GPT2Model(GPT2Config(vocab_size=400, context_length=4, n_layer=1, n_head=1, n_embd=4))
    model.save_pretrained(tmp_path, tokenizer=trimmed())
    model.save_pretrained(tmp_path, tokenizer=CharTokenizer("abc"))
    others = ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*THEIRS, TOKENIZER_FILE, *others])


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
    write(tmp_path, "config.json", {})  # what has its default is left out of some
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()
    for name, content in tokenizer_files(gpt2_tokenizer()).items():
        if name != TOKENIZER_FILE:
            (tmp_path / name).write_bytes(content)
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()
    for name in THEIRS:
        (tmp_path / name).unlink()
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()


def test_the_older_form_of_gpt2s_tokenizer_is_read(tmp_path: Path) -> None:
    """As it is at OpenAI's: without the type of the model, with options at their defaults left out."""
    parts = json.loads(tokenizer_files(gpt2_tokenizer())["tokenizer.json"])
    del parts["model"]["type"], parts["model"]["ignore_merges"], parts["pre_tokenizer"]["use_regex"]
    parts["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    parts["model"]["unk_token"] = ""
    write(tmp_path, "tokenizer.json", parts)
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()
    parts["model"]["merges"] = [merge.split(" ") for merge in parts["model"]["merges"]]  # as newer ones have them
    write(tmp_path, "tokenizer.json", parts)
    assert load_tokenizer(tmp_path) is gpt2_tokenizer()


@pytest.mark.parametrize("tokenizer", USUAL)
def test_their_form_alone_is_read_without_their_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: tiktoken.Encoding | CharTokenizer
) -> None:
    save_tokenizer(tokenizer, tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert the_same(tokenizer, load_tokenizer(tmp_path))
    assert the_same(tokenizer, load_tokenizer(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize("tokenizer", [trimmed(), trimmed_with({END_OF_TEXT: 5})])
def test_a_vocabulary_and_merges_are_read(tmp_path: Path, tokenizer: tiktoken.Encoding) -> None:
    save_tokenizer(tokenizer, tmp_path)
    for name in (TOKENIZER_FILE, *THEIRS):
        (tmp_path / name).unlink()
    assert the_same(tokenizer, load_tokenizer(tmp_path))
    assert the_same(tokenizer, load_tokenizer(tmp_path / "vocab.json"))
    merges = (tmp_path / "merges.txt").read_text(encoding="utf-8")
    write(tmp_path, "merges.txt", "\n".join(reversed(merges.splitlines())))
    with pytest.raises(ValueError, match=r"vocab\.json: with merges\.txt it is not a vocabulary of byte pairs like"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match=r"vocab\.json: there is no merges\.txt beside it"):
        load_tokenizer(tmp_path)


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


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        load_tokenizer(tmp_path / "none")
    write(tmp_path, "file.txt", "text")
    with pytest.raises(ValueError, match=r"cannot read .*file\.txt: file\.txt is not JSON"):
        load_tokenizer(tmp_path / "file.txt")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", {"model": {"vocab": {"a": 0, "b": 1}}}),
        ("tokenizer.json", {"model": None}),
        ("tokenizer.json", {}),
        ("tokenizer.json", "{"),
        ("tokenizer.json", "[" * 100_000),
        ("vocab.json", {"a": 0}),
        ("vocab.json", "[]"),
        ("vocab.txt", "[PAD]\n"),
        ("tokenizer.model", ""),
        ("tokenizer.model", "no model"),
        ("spiece.model", "\0"),
        ("sentencepiece.bpe.model", ""),
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


# --- files of another library ---


@pytest.mark.parametrize("kind", ["unigram, prefix always", "word pieces", "byte fallback", "byte-level, another end"])
def test_a_tokenizer_of_another_library_is_saved_in_its_form(tmp_path: Path, foreign: Any, kind: str) -> None:  # noqa: ANN401
    theirs = foreign(kind)
    model = GPT2Model(GPT2Config(vocab_size=320, context_length=4, n_layer=1, n_head=1, n_embd=4))
    model.save_pretrained(tmp_path, tokenizer=theirs)
    files = ["config.json", "generation_config.json", "model.safetensors", *THEIRS, TOKENIZER_FILE]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    expected = as_tokenizer(theirs)
    config = json.loads((tmp_path / "config.json").read_bytes())
    assert (config["bos_token_id"], config["eos_token_id"]) == (expected.eot_token, expected.eot_token)
    generation = json.loads((tmp_path / "generation_config.json").read_bytes())
    assert generation == dict.fromkeys(["bos_token_id", "eos_token_id", "pad_token_id"], expected.eot_token)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(path)
        assert isinstance(loaded, HuggingFaceTokenizer)
        assert (loaded.n_vocab, loaded.eot_token) == (expected.n_vocab, expected.eot_token)
        assert loaded.encode_ordinary(PROBE) == expected.encode_ordinary(PROBE)
    assert tokenizer_files(loaded) == tokenizer_files(expected)
    (tmp_path / TOKENIZER_FILE).unlink()
    assert load_tokenizer(tmp_path).encode_ordinary(PROBE) == expected.encode_ordinary(PROBE)


def test_byte_pairs_of_another_library_come_back_as_an_encoding(tmp_path: Path, foreign: Any) -> None:  # noqa: ANN401
    save_tokenizer(foreign("byte-level"), tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, tiktoken.Encoding)
    assert (loaded.n_vocab, loaded.eot_token) == (300, 0)
    assert loaded.encode_ordinary(PROBE) == as_tokenizer(foreign("byte-level")).encode_ordinary(PROBE)


@pytest.mark.parametrize("kind", ["sentencepiece", "sentencepiece, byte fallback"])
def test_a_sentencepiece_model_is_saved_as_it_is(tmp_path: Path, foreign: Any, kind: str) -> None:  # noqa: ANN401
    theirs = foreign(kind)
    save_tokenizer(theirs, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [TOKENIZER_FILE, "tokenizer.model"]
    assert (tmp_path / "tokenizer.model").read_bytes() == theirs.serialized_model_proto()
    (tmp_path / TOKENIZER_FILE).unlink()
    for path in (tmp_path, tmp_path / "tokenizer.model"):
        loaded = load_tokenizer(path)
        assert isinstance(loaded, SentencePieceTokenizer)
        assert loaded.encode_ordinary(PROBE) == as_tokenizer(theirs).encode_ordinary(PROBE)
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizerFast"})
    assert load_tokenizer(tmp_path).n_vocab == theirs.vocab_size()
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "PegasusTokenizer"})
    with pytest.raises(ValueError, match="it is of 'PegasusTokenizer', which may have other ids"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("kind", "library"), [("word pieces", "tokenizers"), ("sentencepiece", "sentencepiece")])
def test_what_has_to_be_installed_is_said(
    tmp_path: Path, foreign: Any, monkeypatch: pytest.MonkeyPatch, kind: str, library: str  # noqa: ANN401
) -> None:  # fmt: skip
    save_tokenizer(foreign(kind), tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"pip install 'tinygpt2\[{library}\]'"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
    ],
)
def test_what_splits_otherwise_than_gpt2_is_no_encoding(tmp_path: Path, change: dict[str, object]) -> None:
    pytest.importorskip("tokenizers")
    write(tmp_path, "tokenizer.json", json.loads(tokenizer_files(trimmed())["tokenizer.json"]) | change)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, HuggingFaceTokenizer)
    assert (loaded.n_vocab, loaded.eot_token) == (trimmed().n_vocab, trimmed().eot_token)


def test_merges_in_another_order_than_the_ids_are_no_encoding(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    parts = json.loads(tokenizer_files(trimmed())["tokenizer.json"])
    parts["model"]["merges"].reverse()
    write(tmp_path, "tokenizer.json", parts)
    assert isinstance(load_tokenizer(tmp_path), HuggingFaceTokenizer)


@pytest.mark.parametrize("wrong", [1 << 32, 1 << 22, -1, 1.5, "7", None])
def test_an_id_for_which_their_library_takes_all_memory_is_refused(tmp_path: Path, wrong: object) -> None:
    """With 2^32 it ended the process, which could not have 4 GiB."""
    parts = json.loads(tokenizer_files(CharTokenizer("abc"))["tokenizer.json"])
    parts["model"]["vocab"]["b"] = wrong
    write(tmp_path, "tokenizer.json", parts)
    with pytest.raises(ValueError, match=r"tokenizer\.json: (the id of a token should be from 0 to|'<' not supported)"):
        load_tokenizer(tmp_path)


def test_the_end_of_text_is_the_one_that_their_settings_name(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    own = trimmed_with({"<|user|>": SIZE, END_OF_TEXT: SIZE + 1})
    save_tokenizer(own, tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    for named in ("<|user|>", {"content": "<|user|>"}):
        write(tmp_path, "tokenizer_config.json", {"eos_token": named})
        assert load_tokenizer(tmp_path).eot_token == SIZE
    write(tmp_path, "tokenizer_config.json", {"eos_token": "<|bot|>"})
    with pytest.raises(ValueError, match=r"says that '<\|bot\|>' ends a text, but there is no such token"):
        load_tokenizer(tmp_path)
    write(tmp_path, "tokenizer_config.json", {"eos_token": 7})
    with pytest.raises(ValueError, match=r"eos_token in tokenizer_config\.json should be a string but is 7"):
        load_tokenizer(tmp_path)


# --- two forms that contradict each other ---


def test_a_tokenizer_json_of_another_tokenizer_is_not_ignored(tmp_path: Path) -> None:
    save_tokenizer(trimmed(), tmp_path)
    theirs = tmp_path / "tokenizer.json"
    parts = json.loads(theirs.read_bytes())
    theirs.write_bytes(json.dumps(parts, indent=1).encode())  # as another program writes the same
    assert the_same(trimmed(), load_tokenizer(tmp_path))
    for name, content in tokenizer_files(trimmed_with({"<|user|>": SIZE, END_OF_TEXT: SIZE + 1})).items():
        if name in PAIRS:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"tinygpt2_tokenizer\.json and tokenizer\.json beside it are two tokenizers"):
        load_tokenizer(tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    assert load_tokenizer(tmp_path).n_vocab == SIZE + 2


def test_a_tokenizer_json_of_other_characters_is_not_ignored(tmp_path: Path) -> None:
    save_tokenizer(CharTokenizer("abc"), tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_files(CharTokenizer("abd"))["tokenizer.json"])
    with pytest.raises(ValueError, match="two tokenizers"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path) == CharTokenizer("abc")


def test_a_vocab_json_of_another_vocabulary_is_not_ignored(tmp_path: Path) -> None:
    save_tokenizer(trimmed(), tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    write(tmp_path, "vocab.json", {"a": 0, "b": 1})
    with pytest.raises(ValueError, match=r"tokenizer\.json: vocab\.json beside it has other ids"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("tokenizer", [trimmed(), CharTokenizer("abcdefgh")])
def test_their_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_tokenizer(tokenizer, tmp_path)
    (tmp_path / TOKENIZER_FILE).unlink()
    write(tmp_path, "config.json", {"vocab_size": tokenizer.n_vocab})
    assert the_same(tokenizer, load_tokenizer(tmp_path))
    write(tmp_path, "config.json", {"vocab_size": tokenizer.n_vocab - 1})
    with pytest.raises(ValueError, match=r"tokenizer\.json has \d+ tokens, but .* a vocab_size of \d+: it is not this"):
        load_tokenizer(tmp_path)


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
        {"type": "byte pairs", "name": "x", "pattern": "p" * 5000, "tokens": BYTES},
        {"type": "byte pairs", "name": "\ud800", "pattern": PATTERN, "tokens": BYTES},
        {"type": "characters", "characters": "a\ud800"},
        {"type": "characters", "characters": "ab" * 500_000},
        {"type": 10**400},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": [256]},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": {}},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": {"<eos>": 256}},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": {END_OF_TEXT: 257}},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": {END_OF_TEXT: -1}},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": {END_OF_TEXT: True}},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": {END_OF_TEXT: 9, "a": 9}},
        {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES, "special": {END_OF_TEXT: 9, "": 8}},
        {
            "type": "byte pairs",
            "name": "x",
            "pattern": PATTERN,
            "tokens": BYTES,
            "special": {END_OF_TEXT: 9, "\ud800": 8},
        },
        {"type": "other library"},
        {"type": "other library", "file": "../tokenizer.json"},
        {"type": "other library", "file": ["tokenizer.json"]},
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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": 10**400}, "tokens should be a list but is about 10**400"),
        ({"tokens": {"a": 1}}, "tokens should be a list but is {'a': 1}"),
        ({"tokens": [*BYTES, 5]}, "each of tokens should be a string in base64, but one is 5"),
        ({"tokens": [*BYTES, None]}, "each of tokens should be a string in base64, but one is None"),
        ({"pattern": ["x"] * 10**5}, "pattern should be a string but is ['x', 'x'"),
        ({"pattern": "\ud800"}, "pattern has a lone surrogate"),
        ({"name": True}, "name should be a string but is True"),
        ({"pattern": "p" * 4097}, "its pattern has 4,097 characters; at most 4,096 are read"),
        (
            {"tokens": [*BYTES, base64.b64encode(bytes(1025)).decode()]},
            "a token of 1,025 bytes; at most 1,024 are read",
        ),
        ({"tokens": "many"}, "it has 524,289 tokens; at most 524,288 are read"),
    ],
)
def test_a_wrong_value_is_told_by_its_key_and_in_one_line(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    if changes == {"tokens": "many"}:
        more = [base64.b64encode(i.to_bytes(3)).decode() for i in range((1 << 19) + 1 - 256)]
        changes = {"tokens": [*BYTES, *more]}
    write(tmp_path, TOKENIZER_FILE, {"type": "byte pairs", "name": "x", "pattern": PATTERN, "tokens": BYTES} | changes)
    with pytest.raises(ValueError, match=rf"{TOKENIZER_FILE} is not a tinygpt2 tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 250


def test_the_longest_tokens_and_patterns_are_read(tmp_path: Path) -> None:
    tokens = [*BYTES, base64.b64encode(b"a" * 1024).decode()]
    pattern = "|".join(["a"] * 2047) + "|."
    assert len(pattern) == 4095
    write(tmp_path, TOKENIZER_FILE, {"type": "byte pairs", "name": "x", "pattern": pattern, "tokens": tokens})
    assert load_tokenizer(tmp_path).n_vocab == 258


# --- patterns with which tiktoken panics ---

PANICS = ["x*", "", "a|", r"\b", "^", "$", "(?=a)", "(?<=a)", "(?s).*", r"(?:a|aa)+(?=q)|(?s).", r"(a|a)*\1b|(?s)."]
LATER = r"(?=字)|(?s)."  # which no text shows that does not have this character


@pytest.mark.parametrize("pattern", PANICS)
def test_a_pattern_that_matches_nothing_or_backtracks_is_found_when_it_is_loaded(tmp_path: Path, pattern: str) -> None:
    """It used to be found when a text was encoded, by an exception that ``except Exception`` does not catch."""
    write(tmp_path, TOKENIZER_FILE, {"type": "byte pairs", "name": "x", "pattern": pattern, "tokens": BYTES})
    with pytest.raises(ValueError, match=rf"{TOKENIZER_FILE} is not a tinygpt2 tokenizer: .*its split pattern"):
        load_tokenizer(tmp_path)
    own = tiktoken.Encoding("own", pat_str=pattern, mergeable_ranks=BYTE_RANKS, special_tokens={END_OF_TEXT: 256})
    with pytest.raises(ValueError, match=r"cannot save the encoding 'own': .*its split pattern"):
        save_tokenizer(own, tmp_path)


@pytest.mark.parametrize("pattern", [PATTERN, "(?s).", r"(?<=a)b|(?s).", r"(?s)(?=(.)).|\1", r"(?>a+)b|(?s).", LATER])
def test_a_pattern_that_looks_around_and_matches_something_is_loaded(tmp_path: Path, pattern: str) -> None:
    write(tmp_path, TOKENIZER_FILE, {"type": "byte pairs", "name": "x", "pattern": pattern, "tokens": BYTES})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode_ordinary("ab, aab")) == "ab, aab"


def test_a_panic_is_an_error_wherever_a_text_is_encoded(tmp_path: Path) -> None:
    own = tiktoken.Encoding("own", pat_str=LATER, mergeable_ranks=BYTE_RANKS, special_tokens={END_OF_TEXT: 256})
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=257, context_length=4, n_layer=1, n_head=1, n_embd=4))
    loader = make_dataloader("a" * 20, batch_size=2, context_length=4, tokenizer=own)
    config = TrainingConfig(max_steps=1, eval_batches=1, sample_prompt="字")
    text = "字文" * 3
    for encode in (
        lambda: text_to_tensor(text, own),
        lambda: trim_vocabulary(own, text),
        lambda: make_dataloader(text, batch_size=1, context_length=2, tokenizer=own),
        lambda: tokenize_to_file([text], tmp_path / "tokens", tokenizer=own),
        lambda: generate_text(model, own, "字", max_new_tokens=1),
        lambda: generate_text(model, own, ["a", "字"], max_new_tokens=1),
        lambda: train(model, loader, config=config, tokenizer=own, device="cpu", progress=False),
    ):
        with pytest.raises(ValueError, match="<Encoding 'own'> cannot encode a text: its split pattern matches"):
            encode()
    assert not (tmp_path / "tokens").exists()
    assert generate_text(model, own, "a", max_new_tokens=1).startswith("a")


# --- what else is at their place ---


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, devices, and links without a privilege")
@pytest.mark.parametrize("name", [TOKENIZER_FILE, "config.json", "tokenizer.json", "vocab.json"])
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, name: str) -> None:
    def check(what: str) -> None:
        if name != "config.json":
            write(tmp_path, "config.json", {"vocab_size": 50257})
        with pytest.raises(ValueError, match=name.replace(".", r"\.")):
            load_tokenizer(tmp_path)
        (tmp_path / name).rmdir() if what == "directory" else (tmp_path / name).unlink()

    os.mkfifo(tmp_path / name)
    check("pipe")
    (tmp_path / name).symlink_to("/dev/zero")
    check("device")
    (tmp_path / name).mkdir()
    check("directory")


@pytest.mark.skipif(sys.platform == "win32", reason="links without a privilege")
def test_a_link_is_followed_and_one_that_leads_nowhere_is_no_reason_to_guess(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"vocab_size": 50257})
    (tmp_path / "elsewhere").mkdir()
    save_tokenizer(CharTokenizer("abc"), tmp_path / "elsewhere")
    (tmp_path / TOKENIZER_FILE).symlink_to(tmp_path / "elsewhere" / TOKENIZER_FILE)
    assert load_tokenizer(tmp_path) == CharTokenizer("abc")
    (tmp_path / "elsewhere" / TOKENIZER_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=TOKENIZER_FILE):
        load_tokenizer(tmp_path)


def test_the_tokenizer_of_a_checkpoint_is_compared_with_its_manifest(tmp_path: Path) -> None:
    """A bit that flips in a character used to give another text without a word."""
    tokenizer = CharTokenizer("abcdefgh")
    model = GPT2Model(GPT2Config(vocab_size=9, context_length=4, n_layer=1, n_head=1, n_embd=4))
    loader = make_dataloader("abcdefgh" * 4, batch_size=2, context_length=4, tokenizer=tokenizer)
    config = TrainingConfig(max_steps=1, eval_batches=1)
    train(
        model, loader, config=config, tokenizer=tokenizer, device="cpu", progress=False, checkpoint_dir=tmp_path,
        checkpoint_every=1,
    )  # fmt: skip
    checkpoint = tmp_path / "checkpoint-1"
    assert load_tokenizer(checkpoint) == tokenizer
    path = checkpoint / TOKENIZER_FILE
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"abc", b"abx"))
    with pytest.raises(CheckpointError, match=rf"{TOKENIZER_FILE} does not have the SHA-256 in manifest\.json"):
        load_tokenizer(checkpoint)
    path.unlink()
    with pytest.raises(CheckpointError, match=TOKENIZER_FILE):
        load_tokenizer(checkpoint)
    path.write_bytes(whole)
    (checkpoint / "manifest.json").write_text("{}", encoding="utf-8")
    assert load_tokenizer(checkpoint) == tokenizer, "of a model that was saved without one and was given it later"


@pytest.mark.parametrize("which", [0, 1, slice(None)], ids=["first", "second", "both"])
def test_a_special_token_may_be_part_of_a_merge(which: Any, tmp_path: Path, foreign: Any) -> None:  # noqa: ANN401
    """It got another name, of which the library then had no merge."""
    parts = json.loads(foreign("byte-level, another end").to_str())
    token = "".join(parts["model"]["merges"][0][which])
    parts["added_tokens"].append(parts["added_tokens"][0] | {"content": token, "id": parts["model"]["vocab"][token]})
    (tmp_path / "tokenizer.json").write_text(json.dumps(parts), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode_ordinary("the quick brown fox")) == "the quick brown fox"
