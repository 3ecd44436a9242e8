"""GPT-2's tokenizer against a second one built from the same merges, trimmed vocabularies, and characters."""

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tinygpt2.tokenizers.byte_pairs
import tokenizers
from tinygpt2 import (
    CharTokenizer,
    TextSamples,
    Tokenizer,
    gpt2_tokenizer,
    sample_text,
    tensor_to_text,
    text_to_tensor,
    trim_vocabulary,
)
from tinygpt2.generation.pieces import Continuation
from tinygpt2.tokenizers.identity import token_bytes
from tinygpt2.tokenizers.protocol import check_tokenizer

END_OF_TEXT = "<|endoftext|>"

# Pieces at whose borders byte-pair encoders disagree: contractions, white space of every kind, digits of other scripts,
# characters whose bytes are cut apart, characters of several code points, runs of one letter.
PIECES = [
    "don't", "it's", "they're", "we've", "I'm", "he'll", "she'd", "WE'LL", "'s", "''", "__", "!?...", "<|", END_OF_TEXT,
    "123456", "١٢", "½", " the", "The", "a" * 100, "=" * 70,
    " ", "  ", "   \n", "\n\n", "\t", "\r\n", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "\u3000", "\x00", "\xad",
    "\ufeff", "\ufffd", "中文", "第一次世界大战，", "。", "世", "𠮷", "🙂", "👩\u200d👩\u200d👧", "e\u0301", "é", "İ",
]  # fmt: skip
# Unassigned characters are left out: which of them are letters depends on the version of Unicode.
CHARACTERS = st.characters(exclude_categories=["Cs", "Cn"])
TEXTS = st.one_of(st.text(CHARACTERS), st.lists(st.sampled_from(PIECES) | st.text(CHARACTERS, max_size=3)).map("".join))
PROSE = " ".join(topics.values())  # 465 KB of English that comes with Python


@cache
def reference() -> tokenizers.Tokenizer:
    """Returns Hugging Face's byte-level BPE of the same merges; its ids are built here as OpenAI's encoder.py does."""
    lines = files("tinygpt2").joinpath("assets/gpt2_merges.bpe").read_text(encoding="utf-8").splitlines()[1:]
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    signs = [chr(byte) for byte in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    merges = [(first, second) for first, second in (line.split(" ") for line in lines)]
    tokens = signs + [first + second for first, second in merges]
    model = tokenizers.models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


@cache
def trimmed() -> tiktoken.Encoding:
    return trim_vocabulary(gpt2_tokenizer(), "Byte pairs, byte by byte: 字节对，一个接一个。")


@given(text=TEXTS)
@settings(max_examples=300)
def test_gpt2_tokens_are_those_of_a_second_implementation(text: str) -> None:
    assert gpt2_tokenizer().encode_ordinary(text) == reference().encode(text).ids


def test_any_two_pieces_together_have_the_tokens_of_a_second_implementation() -> None:
    for text in map("".join, product(PIECES, repeat=2)):
        assert gpt2_tokenizer().encode_ordinary(text) == reference().encode(text).ids


@pytest.mark.parametrize(
    "text",
    [PROSE, sample_text(), "a" * 9999, " " * 9999, "\n" * 9999, " a" * 999, "嗯" * 3333, "🙂" * 999],
    ids=["prose", "sample", "letters", "spaces", "newlines", "words", "chinese", "emoji"],
)
def test_long_texts_have_the_tokens_of_a_second_implementation(text: str) -> None:
    ids = gpt2_tokenizer().encode_ordinary(text)
    assert ids == reference().encode(text).ids
    assert gpt2_tokenizer().decode(ids) == text


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello, world", [15496, 11, 995]),
        ("hello world", [31373, 995]),
        ("Hello, I'm a language model,", [15496, 11, 314, 1101, 257, 3303, 2746, 11]),
        ("", []),
        (END_OF_TEXT, [27, 91, 437, 1659, 5239, 91, 29]),
    ],
)
def test_gpt2_tokens_are_those_that_openai_published(text: str, ids: list[int]) -> None:
    assert gpt2_tokenizer().encode_ordinary(text) == ids


@given(text=TEXTS)
def test_decoding_is_lossless(text: str) -> None:
    ids = gpt2_tokenizer().encode_ordinary(text)
    assert gpt2_tokenizer().decode(ids) == text
    assert all(0 <= token < 50256 for token in ids)  # never the end of text, whatever the user wrote


@given(ids=st.lists(st.integers(0, 50256)))
def test_any_ids_decode_and_their_bytes_are_those_of_the_tokens(ids: list[int]) -> None:
    whole = b"".join(gpt2_tokenizer().decode_single_token_bytes(token) for token in ids)
    assert gpt2_tokenizer().decode(ids) == whole.decode("utf-8", errors="replace")


def test_gpt2_has_50257_tokens_of_which_the_last_ends_a_text() -> None:
    tokenizer = gpt2_tokenizer()
    assert (tokenizer.n_vocab, tokenizer.eot_token, tokenizer.decode([50256])) == (50257, 50256, END_OF_TEXT)
    assert len(set(tokenizer.token_byte_values())) == 50256


def test_special_tokens_are_special_only_if_asked_for() -> None:
    text = f"one{END_OF_TEXT}two"
    assert 50256 not in gpt2_tokenizer().encode_ordinary(text)
    assert gpt2_tokenizer().encode(text, allowed_special="all") == [505, 50256, 11545]


def test_the_tokenizer_is_built_once() -> None:
    assert gpt2_tokenizer() is gpt2_tokenizer()


def test_several_threads_may_encode_at_once() -> None:
    expected = gpt2_tokenizer().encode_ordinary(PROSE)
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(gpt2_tokenizer().encode_ordinary(PROSE))) for _ in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


IMPORTED_THEN_USED = """
import sys
touched = []
def watch(event, _):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        touched.append(event)
sys.addaudithook(watch)
import tinygpt2
assert tinygpt2.gpt2_tokenizer.cache_info().currsize == 0, "built at import"
assert tinygpt2.gpt2_tokenizer().encode_ordinary("Hello") == [15496]
print(touched)
"""


def test_importing_builds_no_tokenizer_and_building_one_uses_neither_network_nor_cache(tmp_path: Path) -> None:
    home = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")}
    home = {**os.environ, **home}
    result = subprocess.run(
        [sys.executable, "-c", IMPORTED_THEN_USED], env=home, capture_output=True, text=True, check=True
    )
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_vocabulary_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    whole = files("tinygpt2").joinpath("assets/gpt2_merges.bpe").read_bytes()
    flipped = whole[:200_000] + bytes([whole[200_000] ^ 1]) + whole[200_001:]
    (tmp_path / "assets").mkdir()
    asset = tmp_path / "assets" / "gpt2_merges.bpe"
    asset.write_bytes({"flip": flipped, "truncate": whole[:-1], "empty": b""}[damage])
    monkeypatch.setattr(tinygpt2.tokenizers.byte_pairs, "files", lambda _: tmp_path)
    with pytest.raises(RuntimeError, match=r"damaged.*SHA-256.*reinstall"):
        gpt2_tokenizer.__wrapped__()
    asset.write_bytes(whole)
    assert gpt2_tokenizer.__wrapped__().encode_ordinary("Hello") == [15496]


def test_the_protocol_is_what_a_plain_tiktoken_encoding_has() -> None:
    encoding = tiktoken.Encoding(
        "bytes",
        pat_str=r"(?s).",
        mergeable_ranks={bytes([i]): i for i in range(256)},
        special_tokens={END_OF_TEXT: 256},
    )
    tokenizer: Tokenizer = encoding  # mypy agrees
    assert isinstance(tokenizer, Tokenizer)
    assert tensor_to_text(text_to_tensor("世界", tokenizer), tokenizer) == "世界"
    assert isinstance(CharTokenizer("ab"), Tokenizer)
    assert not isinstance(SimpleNamespace(encode_ordinary=list, decode=str, n_vocab=256), Tokenizer)


# --- trimmed vocabularies ---


@given(text=TEXTS)
def test_a_trimmed_vocabulary_cuts_its_own_text_as_before(text: str) -> None:
    whole, small = gpt2_tokenizer(), trim_vocabulary(gpt2_tokenizer(), text)
    before = whole.decode_tokens_bytes(whole.encode_ordinary(text))
    assert small.decode_tokens_bytes(small.encode_ordinary(text)) == before
    assert 257 <= small.n_vocab <= 257 + sum(len(token) for token in before)


def test_a_trimmed_vocabulary_cuts_the_sample_text_as_before() -> None:
    whole, small = gpt2_tokenizer(), trim_vocabulary(gpt2_tokenizer(), sample_text())
    before = whole.decode_tokens_bytes(whole.encode_ordinary(sample_text()))
    assert small.decode_tokens_bytes(small.encode_ordinary(sample_text())) == before
    assert small.n_vocab < whole.n_vocab / 5


@given(text=TEXTS)
def test_a_trimmed_vocabulary_encodes_any_other_text_without_loss(text: str) -> None:
    ids = trimmed().encode_ordinary(text)
    assert trimmed().decode(ids) == text
    assert all(0 <= token < trimmed().eot_token for token in ids)


def test_the_end_of_text_stays_last_when_the_vocabulary_is_trimmed() -> None:
    assert trimmed().eot_token == trimmed().n_vocab - 1
    assert trimmed().decode([trimmed().eot_token]) == END_OF_TEXT
    assert len(trimmed().token_byte_values()) == trimmed().n_vocab - 1


def test_trimming_twice_is_trimming_once() -> None:
    text = PROSE[:5000]
    once = trim_vocabulary(gpt2_tokenizer(), text)
    twice = trim_vocabulary(once, text)
    assert [twice.decode_single_token_bytes(i) for i in range(twice.eot_token)] == [
        once.decode_single_token_bytes(i) for i in range(once.eot_token)
    ]


# --- one token a character ---


@given(text=st.text(min_size=1))
def test_characters_are_lossless_and_in_code_point_order(text: str) -> None:
    tokenizer = CharTokenizer.from_text(text)
    ids = tokenizer.encode_ordinary(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert tokenizer.n_vocab == len(set(text)) + 1
    assert sorted(set(ids)) == list(range(tokenizer.eot_token))
    assert tokenizer.decode(range(tokenizer.eot_token)) == "".join(sorted(set(text)))


@given(text=st.text(min_size=1), permuted=st.randoms())
def test_equal_alphabets_make_equal_tokenizers(text: str, permuted: Any) -> None:  # noqa: ANN401
    other = "".join(permuted.sample(text, len(text))) * 2
    assert CharTokenizer.from_text(other) == CharTokenizer.from_text(text)
    assert hash(CharTokenizer.from_text(other)) == hash(CharTokenizer.from_text(text))
    assert CharTokenizer.from_text(text) != CharTokenizer("".join(sorted(set(text + "ab"), reverse=True)))


def test_the_end_of_text_is_an_id_of_its_own_even_if_a_text_spells_it() -> None:
    tokenizer = CharTokenizer.from_text(END_OF_TEXT)
    assert tokenizer.eot_token == tokenizer.n_vocab - 1
    assert tokenizer.eot_token not in tokenizer.encode_ordinary(END_OF_TEXT)
    assert tokenizer.decode([0, tokenizer.eot_token]) == "<" + END_OF_TEXT


def test_an_unknown_character_is_told_with_its_position() -> None:
    with pytest.raises(ValueError, match=r"'界' \(U\+754C\) at position 2 .* 3 "):
        CharTokenizer("你好世").encode_ordinary("你世界")


@pytest.mark.parametrize(
    ("characters", "message"),
    [("", "at least one"), ("你好你", "'你' occurs twice"), ("a\ud800", "lone surrogate, U\\+D800, at position 1")],
)
def test_wrong_characters_are_refused(characters: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CharTokenizer(characters)


def test_an_empty_text_makes_no_character_tokenizer() -> None:
    with pytest.raises(ValueError, match="at least one"):
        CharTokenizer.from_text("")


@pytest.mark.parametrize("ids", [[3], [0, 7, 1], [-1], [2, -4]])
def test_characters_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 2, got {min(ids)} to {max(ids)}"):
        CharTokenizer("ab").decode(ids)


@pytest.mark.parametrize("ids", [[0.0], [[0, 1]], ["a"], [None], torch.zeros(2), 1])
def test_only_integers_are_decoded_to_characters(ids: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match="tokens must be integers, in a list for instance, got "):
        CharTokenizer("ab").decode(ids)


@pytest.mark.parametrize("ids", [np.array([1, 0], np.uint8), torch.tensor([1, 0]), iter([1, 0]), (np.int64(1), 0)])
def test_integers_of_every_kind_are_decoded(ids: Any) -> None:  # noqa: ANN401
    assert CharTokenizer("ab").decode(ids) == "ba"


# --- one token a character, and the bytes of all others ---


@given(characters=st.text(min_size=1), text=st.text())
def test_with_the_bytes_every_text_is_lossless(characters: str, text: str) -> None:
    tokenizer = CharTokenizer.from_text(characters, byte_fallback=True)
    ids = tokenizer.encode_ordinary(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.eot_token for i in ids)
    assert len(ids) == sum(1 if char in characters else len(char.encode()) for char in text)


@given(characters=st.text(min_size=1))
def test_the_bytes_come_after_the_characters_and_the_end_of_text_last(characters: str) -> None:
    plain = CharTokenizer.from_text(characters)
    tokenizer = CharTokenizer.from_text(characters, byte_fallback=True)
    first = len(plain.characters)
    assert tokenizer.encode_ordinary(characters) == plain.encode_ordinary(characters)
    assert (tokenizer.n_vocab, tokenizer.eot_token) == (first + 257, first + 256)
    assert tokenizer.decode([tokenizer.eot_token]) == END_OF_TEXT
    ascii_only = CharTokenizer("é", byte_fallback=True).encode_ordinary("".join(map(chr, range(128))))
    assert ascii_only == list(range(1, 129))


@given(ids=st.lists(st.integers(0, 258)))
def test_bytes_that_are_no_character_are_replaced(ids: list[int]) -> None:
    tokenizer = CharTokenizer("a好", byte_fallback=True)
    pieces = [b"a", "好".encode(), *(bytes([byte]) for byte in range(256)), END_OF_TEXT.encode()]
    assert tokenizer.decode(ids) == b"".join(pieces[i] for i in ids).decode("utf-8", errors="replace")


def test_tokenizers_with_and_without_the_bytes_differ() -> None:
    plain, tokenizer = CharTokenizer("ab"), CharTokenizer("ab", byte_fallback=True)
    assert tokenizer == CharTokenizer("ab", byte_fallback=True) != plain
    assert hash(tokenizer) == hash(CharTokenizer("ab", byte_fallback=True)) != hash(plain)
    for each in (plain, tokenizer):
        assert eval(repr(each)) == pickle.loads(pickle.dumps(each)) == each  # noqa: S301, S307


def test_the_bytes_of_each_token_are_known() -> None:
    assert token_bytes(CharTokenizer("aé好🙂")) == [1, 2, 3, 4, 1]
    assert token_bytes(CharTokenizer("aé好🙂", byte_fallback=True)) == [1, 2, 3, 4, *[1] * 256, 1]


@given(prompt=st.text("a🙂", max_size=3), text=st.text("ab好é🙂", min_size=1))
def test_a_streamed_character_of_several_bytes_is_held_back_until_it_is_whole(prompt: str, text: str) -> None:
    tokenizer = CharTokenizer("ab", byte_fallback=True)
    pieces = list(Continuation(tokenizer.encode_ordinary(prompt), tokenizer).pieces(tokenizer.encode_ordinary(text)))
    assert pieces == list(text)


def test_streamed_bytes_that_never_become_a_character_are_replaced() -> None:
    tokenizer = CharTokenizer("ab", byte_fallback=True)
    emoji = tokenizer.encode_ordinary("🙂")
    pieces = Continuation([1], tokenizer).pieces([*emoji[:3], 0, *emoji, emoji[0]])
    assert list(pieces) == ["\ufffda", "🙂", "\ufffd"]


@pytest.mark.parametrize("value", [1, None, "yes"])
def test_the_fallback_is_a_bool(value: Any) -> None:  # noqa: ANN401
    for make in (CharTokenizer, CharTokenizer.from_text):
        with pytest.raises(TypeError, match="byte_fallback must be True or False, got "):
            make("ab", byte_fallback=value)


def test_a_long_text_with_few_unknown_characters_is_encoded() -> None:
    text = "abc好" * 100_000
    ids = CharTokenizer("abc", byte_fallback=True).encode_ordinary(text)
    assert len(ids) == 600_000
    assert ids[:6] == [0, 1, 2, *(3 + byte for byte in "好".encode())]


# --- what is no tokenizer ---

ENDLESS = tiktoken.Encoding(
    "endless", pat_str=".", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
)


class _Wrapped:
    """Forwards what it does not have, as wrappers do."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.tokenizer, name)


@pytest.mark.parametrize("tokenizer", [gpt2_tokenizer(), CharTokenizer("ab"), _Wrapped(CharTokenizer("ab"))])
def test_a_tokenizer_is_what_has_its_methods(tokenizer: Tokenizer) -> None:
    check_tokenizer(tokenizer, ends=True)
    assert tensor_to_text(text_to_tensor("ab", tokenizer), tokenizer) == "ab"


@pytest.mark.parametrize("tokenizer", [None, "gpt2", CharTokenizer, tokenizers.models.BPE()])
def test_what_is_no_tokenizer_is_a_type_error(tokenizer: Any) -> None:  # noqa: ANN401
    """The class of a tokenizer and a part of one have only some of the methods, or no values."""
    message = "tokenizer must be an object with n_vocab, .*, such as gpt2_tokenizer"
    uses: list[tuple[Any, object]] = [(text_to_tensor, "a"), (TextSamples, "a"), (tensor_to_text, torch.tensor([0]))]
    for use, first in uses:
        with pytest.raises(TypeError, match=message):
            use(first, tokenizer)


def test_an_encoding_without_an_end_of_text_encodes_and_decodes_but_does_not_generate() -> None:
    """Its ``eot_token`` raises a KeyError, which came after the first epoch of a run with samples."""
    assert tensor_to_text(text_to_tensor("ab", ENDLESS), ENDLESS) == "ab"
    with pytest.raises(ValueError, match=r"tokenizer must have the token <\|endoftext\|>, .* got <Encoding 'endless'"):
        TextSamples("ab", ENDLESS)


@pytest.mark.parametrize("tokenizer", [CharTokenizer("ab"), tiktoken.Encoding, None])
def test_only_the_vocabulary_of_an_encoding_is_trimmed(tokenizer: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=r"tokenizer must be a tiktoken\.Encoding, such as gpt2_tokenizer\(\), got"):
        trim_vocabulary(tokenizer, "ab")


# --- tensors ---


@given(text=TEXTS, dtype=st.sampled_from([torch.int64, torch.int32]))
def test_a_text_goes_through_a_tensor_without_loss(text: str, dtype: torch.dtype) -> None:
    tokenizer = gpt2_tokenizer()
    tokens = text_to_tensor(text, tokenizer)
    assert (tokens.dtype, tokens.shape) == (torch.int64, (1, len(tokenizer.encode_ordinary(text))))
    assert tensor_to_text(tokens.to(dtype), tokenizer) == text
    assert tensor_to_text(tokens[0].to(dtype), tokenizer) == text


@pytest.mark.parametrize("shape", [(2, 3), (3, 1), (0, 3), (1, 1, 3), ()])
def test_a_batch_is_not_one_text(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="for each row"):
        tensor_to_text(torch.zeros(shape, dtype=torch.int64), gpt2_tokenizer())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.complex64])
def test_a_tensor_of_other_numbers_is_no_text(dtype: torch.dtype) -> None:
    for tokenizer in (gpt2_tokenizer(), CharTokenizer("ab")):
        with pytest.raises(TypeError, match=f"tokens must be a tensor of integers, got {dtype}"):
            tensor_to_text(torch.ones(2, dtype=dtype), tokenizer)


# --- what is no text ---

ENTRANCES: dict[str, Callable[[Any], object]] = {
    "CharTokenizer.from_text": CharTokenizer.from_text,
    "CharTokenizer.encode_ordinary": CharTokenizer("ab").encode_ordinary,
    "trim_vocabulary": lambda text: trim_vocabulary(gpt2_tokenizer(), text),
    "text_to_tensor": lambda text: text_to_tensor(text, gpt2_tokenizer()),
    "text_to_tensor, characters": lambda text: text_to_tensor(text, CharTokenizer("ab")),
    "TextSamples": lambda text: TextSamples(text, gpt2_tokenizer()),
}

LEARNING = {"CharTokenizer.from_text", "trim_vocabulary"}


@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
def test_half_a_character_is_refused_with_its_position(enter: Callable[[Any], object]) -> None:
    """tiktoken replaced it in silence, and a CharTokenizer made a token of it that could not be saved."""
    with pytest.raises(
        ValueError, match=r"lone surrogate, U\+DC80, at position 2, which is no character; replace it: "
    ):
        enter("ab\udc80")


@pytest.mark.parametrize("enter", ENTRANCES.values(), ids=ENTRANCES)
@pytest.mark.parametrize("text", [b"ab", None, Path("ab")])
def test_what_is_no_text_is_a_type_error(enter: Callable[[Any], object], text: object) -> None:
    with pytest.raises(TypeError, match=r"text must be a str, got .*\((bytes|NoneType|\w*Path)\)"):
        enter(text)


@pytest.mark.parametrize("name", sorted(set(ENTRANCES) - LEARNING))
@pytest.mark.parametrize("text", [["a", "b"], ("a", "b")])
def test_several_texts_are_no_text(name: str, text: object) -> None:
    """A list of texts became the ids of one."""
    with pytest.raises(TypeError, match=r"text must be a str, got .*\((list|tuple)\)"):
        ENTRANCES[name](text)


@pytest.mark.parametrize("name", sorted(LEARNING))
def test_a_vocabulary_is_learned_from_documents_as_from_a_text(name: str) -> None:
    learn = ENTRANCES[name]
    expected = learn("ba the cat")
    for documents in (["ba the", " cat"], ("ba", " the cat", ""), iter(["ba the cat"])):
        found = learn(documents)
        assert getattr(found, "_mergeable_ranks", found) == getattr(expected, "_mergeable_ranks", expected)
    with pytest.raises(TypeError, match=r"text\[1\] must be a str, got 2 \(int\)"):
        learn(["a", 2])


def test_characters_are_one_text() -> None:
    with pytest.raises(TypeError, match=r"characters must be a str, got \['a', 'b'\] \(list\)"):
        CharTokenizer(["a", "b"])  # type: ignore[arg-type]


@pytest.mark.parametrize("tokens", [[1, 2], "ab", np.arange(3), None])
def test_only_a_tensor_is_turned_into_a_text(tokens: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError, match=r"tokens must be a tensor of ids, got .*; for a list call tokenizer\.decode"):
        tensor_to_text(tokens, gpt2_tokenizer())
