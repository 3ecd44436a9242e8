"""Tokenizers of other libraries: whole texts come back as their own library writes them, in pieces too."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    TextSamples,
    Tokenizer,
    TrainingConfig,
    encode_documents,
    generate_text,
    gpt2_tokenizer,
    load_tokenizer,
    make_dataloader,
    stream_text,
    tensor_to_text,
    text_to_tensor,
    tokenize_to_file,
    train,
)
from tinygpt2.generation.pieces import Continuation
from tinygpt2.tokenizers.foreign import PythonTokenizer, as_tokenizer
from tinygpt2.tokenizers.identity import token_bytes, tokenizer_identity

tokenizers = pytest.importorskip("tokenizers")

KINDS = [
    "byte-level",
    "unigram, prefix always",
    "unigram, prefix never",
    "unigram, prefix first",
    "word pieces",
    "byte fallback",
    "byte fallback, no prefix",
    "sentencepiece",
    "sentencepiece, byte fallback",
]
PIECES = ["the ", "fox", "你", "好", "🦊", " ", "é", "don't", " n't", ".", "</s>", "[SEP]", "▁", "\n", "字", "\x00"]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=3)).map("".join)


@pytest.mark.parametrize("kind", KINDS)
def test_it_has_the_interface(foreign: Any, kind: str) -> None:  # noqa: ANN401
    tokenizer = as_tokenizer(foreign(kind), ends=True)
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode_ordinary("the fox")
    assert max(ids) < tokenizer.n_vocab
    assert tokenizer.decode(ids) == "the fox"
    assert tokenizer.eot_token not in tokenizer.encode_ordinary("the </s> fox [SEP] <|endoftext|>")
    assert as_tokenizer(tokenizer) is tokenizer


def test_ours_is_returned_as_it_is() -> None:
    class Own:
        n_vocab, eot_token = 2, 1
        encode_ordinary = decode = print

    for tokenizer in (gpt2_tokenizer(), CharTokenizer("ab"), Own()):
        assert as_tokenizer(tokenizer) is tokenizer


@pytest.mark.parametrize("value", [None, "gpt2", tokenizers.Tokenizer, tokenizers.models.BPE()])
def test_anything_else_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="tokenizer must be an object with n_vocab"):
        as_tokenizer(value)


def test_a_tokenizer_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="the tokenizer has no tokens; train it first"):
        as_tokenizer(tokenizers.Tokenizer(tokenizers.models.BPE()))


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_pieces_of_a_stream_are_the_whole_text(foreign: Any, kind: str, data: st.DataObject) -> None:  # noqa: ANN401
    """SentencePiece's byte tokens used to come out as U+FFFD, since three of them are decoded together."""
    tokenizer = as_tokenizer(foreign(kind))
    together: frozenset[int] = getattr(tokenizer, "byte_tokens", frozenset())
    ids = st.integers(0, tokenizer.n_vocab - 1)
    some = ids | st.sampled_from(sorted(together)) if together else ids
    tokens = data.draw(texts.map(tokenizer.encode_ordinary) | st.lists(some, max_size=40))
    tokens = [token for token in tokens if token != tokenizer.eot_token]
    cut = data.draw(st.integers(0, len(tokens)))
    while 0 < cut < len(tokens) and tokens[cut - 1] in together:
        cut += 1
    begin = tokenizer.decode(tokens[:cut])
    if begin.endswith("\N{REPLACEMENT CHARACTER}"):  # no prompt ends within a character
        cut, begin = 0, ""
    pieces = list(Continuation(tokens[:cut], tokenizer).pieces(tokens[cut:]))
    assert "".join(pieces) == tokenizer.decode(tokens)[len(begin) :]


@given(tokens=st.lists(st.integers(0, 262)) | texts.map(CharTokenizer("the fox", byte_fallback=True).encode_ordinary))
@settings(max_examples=100, deadline=None)
def test_pieces_of_our_characters_with_bytes_are_the_whole_text(tokens: list[int]) -> None:
    tokenizer = CharTokenizer("the fox", byte_fallback=True)
    assert tokenizer.eot_token == 263
    assert "".join(Continuation([], tokenizer).pieces(tokens)) == tokenizer.decode(tokens)


@pytest.mark.parametrize(("kind", "begin"), [("byte fallback", "🦊 狐"), ("sentencepiece, byte fallback", "🦊 狐")])
def test_a_character_of_byte_tokens_is_never_split(foreign: Any, kind: str, begin: str) -> None:  # noqa: ANN401
    tokenizer = as_tokenizer(foreign(kind))
    tokens = tokenizer.encode_ordinary(begin + " the fox")
    assert len(getattr(tokenizer, "byte_tokens", ())) == 256
    pieces = list(Continuation([], tokenizer).pieces(tokens))
    assert "".join(pieces) == begin + " the fox"
    assert len(pieces) > 3
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_the_true_size_counts_added_tokens(foreign: Any) -> None:  # noqa: ANN401
    whole = foreign("byte-level")
    copy = tokenizers.Tokenizer.from_str(whole.to_str())
    copy.add_tokens(["zebra"])
    copy.add_special_tokens(["<|user|>"])
    tokenizer = as_tokenizer(copy)
    assert (as_tokenizer(whole).n_vocab, tokenizer.n_vocab) == (300, 302)
    assert tokenizer.decode(tokenizer.encode_ordinary("zebra <|user|>")) == "zebra <|user|>"
    assert 300 in tokenizer.encode_ordinary("zebra <|user|>")
    assert 301 not in tokenizer.encode_ordinary("zebra <|user|>")


def test_truncation_padding_and_added_special_tokens_do_not_apply_and_nothing_is_changed(foreign: Any) -> None:  # noqa: ANN401
    theirs = tokenizers.Tokenizer.from_str(foreign("word pieces").to_str())
    theirs.enable_truncation(4)
    theirs.enable_padding(length=9)
    theirs.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    before = theirs.to_str()
    tokenizer = as_tokenizer(theirs)
    assert tokenizer.encode_ordinary("the sea") == as_tokenizer(foreign("word pieces")).encode_ordinary("the sea")
    assert tokenizer.decode(tokenizer.encode_ordinary("the sea the sea the sea")) == "the sea the sea the sea"
    assert theirs.to_str() == before
    assert theirs.encode_special_tokens is False
    assert theirs.encode("the sea the").ids[:1] + theirs.encode("the sea the").ids[3:4] == [1, 2]


def test_without_an_end_of_text_it_can_encode_but_not_end(foreign: Any) -> None:  # noqa: ANN401
    parts = tokenizers.Tokenizer.from_str(foreign("byte-level").to_str().replace("<|endoftext|>", "<|other|>"))
    tokenizer = as_tokenizer(parts)
    with pytest.raises(KeyError):
        _ = tokenizer.eot_token
    with pytest.raises(ValueError, match=r"tokenizer must have the token <\|endoftext\|>"):
        as_tokenizer(parts, ends=True)
    assert make_dataloader("the quick brown fox", batch_size=1, context_length=2, tokenizer=parts)


@pytest.mark.parametrize("kind", ["byte-level", "byte fallback, no prefix"])
@given(text=texts)
@settings(max_examples=50, deadline=None)
def test_the_bytes_of_tokens_are_those_of_the_text(foreign: Any, kind: str, text: str) -> None:  # noqa: ANN401
    tokenizer = as_tokenizer(foreign(kind))
    sizes = token_bytes(tokenizer)
    assert sizes is not None
    assert len(sizes) == tokenizer.n_vocab
    assert sizes[tokenizer.eot_token] == 1
    text = text.replace("▁", "")  # SentencePiece's sign for a space
    assert sum(sizes[i] for i in tokenizer.encode_ordinary(text)) == len(text.encode())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("byte-level", "byte fallback, no prefix")])
def test_the_bytes_of_tokens_are_not_known_where_the_text_is_changed(foreign: Any, kind: str) -> None:  # noqa: ANN401
    assert token_bytes(as_tokenizer(foreign(kind))) is None


@pytest.mark.parametrize("kind", ["byte-level", "unigram, prefix always", "word pieces", "sentencepiece"])
def test_everything_that_takes_a_tokenizer_takes_it(foreign: Any, kind: str, tmp_path: Path) -> None:  # noqa: ANN401
    theirs = foreign(kind)
    text = "the quick brown fox " * 20
    ids = as_tokenizer(theirs).encode_ordinary(text)
    assert text_to_tensor(text, theirs).tolist() == [ids]
    assert tensor_to_text(torch.tensor(ids), theirs) == as_tokenizer(theirs).decode(ids)
    assert tokenize_to_file([text], tmp_path / "a.tokens", tokenizer=theirs).tokens.tolist() == ids
    assert encode_documents([text], theirs).tolist() == [*ids, as_tokenizer(theirs).eot_token]
    torch.manual_seed(0)
    shape = GPT2Config(vocab_size=320, context_length=8, n_layer=1, n_head=1, n_embd=8)  # padded
    model = GPT2Model(shape)
    loader = make_dataloader(text, batch_size=2, context_length=8, tokenizer=theirs)
    config = TrainingConfig(max_steps=1, eval_batches=1)
    samples = TextSamples("the", theirs, max_new_tokens=2)
    train(
        model, loader, config=config, tokenizer=theirs, callbacks=[samples], device="cpu", progress=False,
        checkpoint_dir=tmp_path, checkpoint_every=1,
    )  # fmt: skip
    pieces = "".join(stream_text(model, theirs, "the", max_new_tokens=5))
    assert generate_text(model, theirs, "the", max_new_tokens=5) == "the" + pieces
    loaded = load_tokenizer(tmp_path / "checkpoint-1")
    assert (loaded.n_vocab, loaded.eot_token) == (as_tokenizer(theirs).n_vocab, as_tokenizer(theirs).eot_token)
    assert loaded.encode_ordinary(text) == ids


def test_files_of_tokens_know_which_of_them_made_their_ids(foreign: Any, tmp_path: Path) -> None:  # noqa: ANN401
    identities = [tokenizer_identity(as_tokenizer(foreign(kind))) for kind in KINDS]
    assert None not in identities
    assert len(set(identities)) == len(KINDS)
    file = tokenize_to_file(["the quick brown fox"], tmp_path / "a.tokens", tokenizer=foreign("unigram, prefix never"))
    file.check_tokenizer(as_tokenizer(foreign("unigram, prefix never")))
    with pytest.raises(ValueError, match="tokenizer"):
        file.check_tokenizer(as_tokenizer(foreign("unigram, prefix always")))


def test_the_trainers_of_tokenizers_are_tokenizers() -> None:
    theirs = tokenizers.ByteLevelBPETokenizer()
    theirs.train_from_iterator(["the sea"] * 9, vocab_size=260, special_tokens=["<|endoftext|>"], show_progress=False)
    tokenizer = as_tokenizer(theirs, ends=True)
    assert tokenizer.decode(tokenizer.encode_ordinary("the 海")) == "the 海"


# --- transformers ---


def fast(theirs: Any, **options: str) -> Any:  # noqa: ANN401
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=theirs, clean_up_tokenization_spaces=True, **options)


def test_the_end_of_text_of_transformers_is_what_it_says(foreign: Any) -> None:  # noqa: ANN401
    theirs = tokenizers.Tokenizer.from_str(foreign("byte-level").to_str())
    theirs.add_special_tokens(["<|im_end|>"])
    assert as_tokenizer(fast(theirs)).eot_token == 0
    named = fast(theirs, eos_token="<|im_end|>")  # noqa: S106
    assert as_tokenizer(named).eot_token == 300


def test_transformers_does_not_clean_up_spaces_here(foreign: Any) -> None:  # noqa: ANN401
    tokenizer = as_tokenizer(fast(foreign("byte-level"), eos_token="<|endoftext|>"))  # noqa: S106
    text = "do n't stop , it 's <|endoftext|> !"
    assert tokenizer.decode(tokenizer.encode_ordinary(text)) == text
    assert 0 not in tokenizer.encode_ordinary(text)


def test_a_tokenizer_of_transformers_in_python(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = as_tokenizer(transformers.ByT5Tokenizer(), ends=True)
    assert isinstance(tokenizer, PythonTokenizer)
    assert tokenizer.n_vocab > tokenizer.eot_token == 1
    for text in ("the </s> fox 你好 🦊", "a  b . c"):
        ids = tokenizer.encode_ordinary(text)
        assert 1 not in ids
        assert tokenizer.decode(ids) == text
        assert "".join(Continuation([], tokenizer).pieces(ids)) == text
    assert token_bytes(tokenizer) is None
    model = GPT2Model(GPT2Config(vocab_size=500, context_length=4, n_layer=1, n_head=1, n_embd=4))
    with pytest.raises(TypeError, match="save another kind of tokenizer with its own library"):
        model.save_pretrained(tmp_path, tokenizer=tokenizer)
