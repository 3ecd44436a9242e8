"""Held against transformers: what we save gives the same ids there, and its pipeline generates and stops."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TrainingConfig,
    gpt2_tokenizer,
    load_tokenizer,
    make_dataloader,
    sample_text,
    save_tokenizer,
    train,
    trim_vocabulary,
)
from tinygpt2.tokenizers.byte_pairs import byte_pair_encoding, checked_encoding
from tinygpt2.tokenizers.foreign import as_tokenizer

transformers = pytest.importorskip("transformers")

TEXT = sample_text()[:3000]
CHARACTERS = "".join(map(chr, range(128))) + "é你好世界，\u2028\ufeff🦊"
CASED = r"\p{N}{1,3}+|[\p{Lu}]?+[\p{Ll}]++| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++|\p{L}"  # as later vocabularies have them
PIECES = [
    "the ", " the", "It's", "'LL", "好", "你好，", "🦊", " ", "  ", "\n", "\r\n", "\t", "\x00", "\x1c", "\x85", "é",
    "e\u0301", "\u200b", "\ufeff", "\u2028", "1234567", "_", "ABCdef", "hello", "abcab",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4)).map("".join)
KINDS = [
    "characters, byte fallback",
    "trimmed",
    "more special tokens",
    "end of text first",
    "whole words",
    "another pattern",
]


@cache
def tokenizer_of(kind: str) -> tiktoken.Encoding | CharTokenizer:
    trimmed = trim_vocabulary(gpt2_tokenizer(), TEXT)
    pattern, ranks = trimmed._pat_str, trimmed._mergeable_ranks
    tokens = sorted(ranks, key=ranks.__getitem__)
    if kind == "characters":
        return CharTokenizer(CHARACTERS)
    if kind == "characters, byte fallback":
        return CharTokenizer(CHARACTERS, byte_fallback=True)
    if kind == "whole words":  # which no merge makes
        return byte_pair_encoding("own", pattern, [*(bytes([i]) for i in range(256)), b"hello", b"abc", b"ab", b" the"])
    if kind == "end of text first":
        return checked_encoding("own", pattern, {token: i + 1 for token, i in ranks.items()}, {"<|endoftext|>": 0})
    special = ["<|user|>", "<|bot|>"] if kind == "more special tokens" else []
    return byte_pair_encoding("own", CASED if kind == "another pattern" else pattern, tokens, special)


@pytest.fixture(scope="session")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - not typed
    """Returns a function that returns what transformers reads of a tokenizer that we saved."""

    @cache
    def read(kind: str) -> Any:  # noqa: ANN401
        directory = tmp_path_factory.mktemp("tokenizer")
        save_tokenizer(tokenizer_of(kind), directory)
        return transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)

    return read


@pytest.mark.parametrize("kind", KINDS)
@given(text=texts)
@example(text=" " * 9)
@example(text="好 \x00\x01\x1f\x7f")
@settings(max_examples=150, deadline=None)
def test_any_text_has_the_same_ids_there(theirs: Any, kind: str, text: str) -> None:  # noqa: ANN401
    ours = tokenizer_of(kind)
    ids = ours.encode_ordinary(text)
    assert theirs(kind)(text)["input_ids"] == ids
    assert theirs(kind).decode(ids) == ours.decode(ids) == text


@given(text=st.text(st.sampled_from(CHARACTERS)))
@settings(max_examples=150, deadline=None)
def test_known_characters_have_the_same_ids_there(theirs: Any, text: str) -> None:  # noqa: ANN401
    ours = tokenizer_of("characters")
    ids = ours.encode_ordinary(text)
    assert theirs("characters")(text)["input_ids"] == ids
    assert theirs("characters").decode(ids) == text


def test_an_unknown_character_is_an_error_there_too(theirs: Any) -> None:  # noqa: ANN401
    with pytest.raises(Exception, match="UNK"):
        theirs("characters")("aΩ")


@pytest.mark.parametrize("kind", [*KINDS, "characters"])
def test_special_tokens_have_the_same_ids_there(theirs: Any, kind: str) -> None:  # noqa: ANN401
    ours, read = tokenizer_of(kind), theirs(kind)
    assert len(read) == read.vocab_size == ours.n_vocab
    assert read.bos_token_id == read.eos_token_id == ours.eot_token
    assert read.decode([ours.eot_token]) == ours.decode([ours.eot_token]) == "<|endoftext|>"
    special = {"<|endoftext|>": ours.eot_token} if isinstance(ours, CharTokenizer) else ours._special_tokens
    assert read.get_added_vocab() == special
    # In a text they are special there, as is usual in transformers, and ordinary characters here.
    assert read("a<|endoftext|>")["input_ids"] == [*ours.encode_ordinary("a"), ours.eot_token]
    assert ours.eot_token not in ours.encode_ordinary("a<|endoftext|>")


@pytest.mark.parametrize("kind", [*KINDS, "characters"])
def test_what_they_save_in_our_directory_is_the_same_tokenizer(tmp_path: Path, kind: str) -> None:
    ours = tokenizer_of(kind)
    save_tokenizer(ours, tmp_path)
    transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True).save_pretrained(tmp_path)
    if kind in ("whole words", "another pattern"):
        pytest.importorskip("tokenizers")
    for name in ("tinygpt2_tokenizer.json", "vocab.json"):
        if kind != "another pattern":  # which we cannot compare with ours
            assert load_tokenizer(tmp_path).encode_ordinary("the cat") == ours.encode_ordinary("the cat")
        (tmp_path / name).unlink(missing_ok=True)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.n_vocab, loaded.eot_token) == (ours.n_vocab, ours.eot_token)
    assert loaded.encode_ordinary("the cat") == ours.encode_ordinary("the cat")


@pytest.mark.parametrize("kind", ["trimmed", "more special tokens", "characters", "characters, byte fallback"])
def test_the_pipeline_generates_and_stops(tmp_path: Path, kind: str) -> None:
    """In each directory of a run; ``config.json`` used to name no end of text, and there was no tokenizer."""
    ours = tokenizer_of(kind)
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=ours.n_vocab, context_length=16, n_layer=1, n_head=2, n_embd=8))
    loader = make_dataloader("the cat sat on the mat " * 9, batch_size=2, context_length=16, tokenizer=ours)
    config = TrainingConfig(max_steps=1, eval_batches=1)
    train(model, loader, loader, config, tokenizer=ours, device="cpu", progress=False, checkpoint_dir=tmp_path)
    model.save_pretrained(tmp_path, tokenizer=ours)
    for directory in (tmp_path, tmp_path / "checkpoint-1", tmp_path / "best"):
        content = json.loads((directory / "config.json").read_bytes())
        assert (content["n_ctx"], content["bos_token_id"], content["eos_token_id"]) == (16, *[ours.eot_token] * 2)
        pipe = transformers.pipeline("text-generation", model=str(directory), device="cpu")
        prompt = "the cat"
        assert pipe(prompt, max_new_tokens=3, do_sample=False)[0]["generated_text"].startswith(prompt)
        with torch.no_grad():  # whatever the input, the end of text is next
            network = pipe.model.transformer
            network.ln_f.weight.zero_()
            network.wte.weight[ours.eot_token] = 1.0
            network.ln_f.bias.fill_(1.0)
        ids = pipe(prompt, max_new_tokens=9, do_sample=False, return_tensors=True)[0]["generated_token_ids"]
        assert ids == [*ours.encode_ordinary(prompt), ours.eot_token]


def test_a_tokenizer_of_theirs_goes_through_our_directory(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.ByteLevelBPETokenizer()
    made.train_from_iterator([TEXT], vocab_size=300, special_tokens=["<pad>", "</s>"], show_progress=False)
    marks = {"eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, **marks)
    save_tokenizer(tokenizer, tmp_path)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert (read.eos_token, read.pad_token, read.eos_token_id, read.pad_token_id) == ("</s>", "<pad>", 1, 0)
    ids = as_tokenizer(tokenizer).encode_ordinary(TEXT)
    assert read(TEXT)["input_ids"] == load_tokenizer(tmp_path).encode_ordinary(TEXT) == ids
