"""Corpora in files: the tokens are those of the whole text, wherever it is cut."""

from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

import tinygpt2.data.token_file
from tinygpt2 import (
    CharTokenizer,
    TokenFile,
    Tokenizer,
    gpt2_tokenizer,
    make_dataloader,
    sample_text,
    tokenize_to_file,
    trim_vocabulary,
)

# Signs at which GPT-2's pattern turns one way or the other.
SIGNS = " \n\t\r\u3000\u00a0\u2009'`.,;0-9aestlmAZé你好，。！？：、；０Ωßａ\U00020000\u0600😀\u200d\x1c\x85"


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinygpt2.data.token_file, "_PIECE", 5)


@given(
    parts=st.lists(st.one_of(st.text(SIGNS, max_size=40), st.text(max_size=20)), min_size=1), piece=st.integers(1, 9)
)
def test_the_tokens_are_those_of_the_whole_text(
    tmp_path_factory: pytest.TempPathFactory, parts: list[str], piece: int
) -> None:
    """Texts, and where they are divided, are drawn; so is how soon a piece may be cut off."""
    text = "".join(parts)
    if not text:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tinygpt2.data.token_file, "_PIECE", piece)
        file = tokenize_to_file(parts, tmp_path_factory.mktemp("tokens") / "out", threads=2)
    assert file.tokens.tolist() == gpt2_tokenizer().encode_ordinary(text)


@given(text=st.text(SIGNS, min_size=1, max_size=300))
def test_a_text_can_be_cut_at_every_place_that_is_taken_for_one(text: str) -> None:
    tokenizer = gpt2_tokenizer()
    whole = tokenizer.encode_ordinary(text)
    for match in tinygpt2.data.token_file._CUT.finditer(text):
        first, second = text[: match.end()], text[match.end() :]
        assert tokenizer.encode_ordinary(first) + tokenizer.encode_ordinary(second) == whole


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("kind", ["gpt2", "trimmed", "characters", "another pattern"])
def test_every_tokenizer_gives_what_it_gives_for_the_whole(tmp_path: Path, kind: str) -> None:
    text = sample_text()[:3000]
    gpt2 = gpt2_tokenizer()
    end = {"<|endoftext|>": gpt2.eot_token}
    tokenizers: dict[str, Tokenizer] = {
        "gpt2": gpt2,
        "trimmed": trim_vocabulary(gpt2, text),
        "characters": CharTokenizer.from_text(text),
        "another pattern": tiktoken.Encoding(
            "ours", pat_str=r"\S+\s+\S+|[\s\S]", mergeable_ranks=gpt2._mergeable_ranks, special_tokens=end
        ),
    }
    tokenizer = tokenizers[kind]
    file = tokenize_to_file([text], tmp_path / "out", tokenizer=tokenizer)
    assert file.tokens.tolist() == tokenizer.encode_ordinary(text)
    assert file.n_vocab == tokenizer.n_vocab


def test_files_and_texts_are_joined_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes("\ufeffErste Zeile\r\nzweite 你".encode())
    file = tokenize_to_file([tmp_path / "one.txt", "好 and <|endoftext|>"], tmp_path / "out")
    assert file.tokens.tolist() == gpt2_tokenizer().encode_ordinary("Erste Zeile\nzweite 你好 and <|endoftext|>")


def test_the_type_is_the_smallest_that_holds_the_vocabulary(tmp_path: Path) -> None:
    assert tokenize_to_file(["text"], tmp_path / "small").tokens.dtype == np.uint16
    many = CharTokenizer("".join(map(chr, range(0x10000, 0x10000 + 70_000))))
    file = tokenize_to_file([many.characters[-1]], tmp_path / "large", tokenizer=many)
    assert file.tokens.dtype == np.uint32
    assert file.tokens.tolist() == [69_999]


def test_a_loader_takes_the_file_as_it_is(tmp_path: Path) -> None:
    text = sample_text()[:2000]
    file = tokenize_to_file([text], tmp_path / "out")
    ours = make_dataloader(file, batch_size=3, context_length=8, shuffle=True)
    for (inputs, targets), (same_inputs, same_targets) in zip(
        ours, make_dataloader(text, batch_size=3, context_length=8, shuffle=True), strict=True
    ):
        assert inputs.equal(same_inputs)
        assert targets.equal(same_targets)
    assert len(make_dataloader(file.tokens[:100], batch_size=1, context_length=9).dataset) == 11  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has ids of a vocabulary of 50257, but the tokenizer has 4"):
        make_dataloader(file, batch_size=3, context_length=8, tokenizer=CharTokenizer("abc"))


def test_a_file_that_is_something_else_is_told(tmp_path: Path) -> None:
    good = tokenize_to_file(["some text of several tokens"], tmp_path / "good").path.read_bytes()
    damaged = {
        "a text": (b"Once upon a time", "not a file of tokens"),
        "nothing": (b"", "not a file of tokens"),
        "cut off": (good[:-1], "should have .* bytes but has"),
        "longer": (good + b"x", "should have .* bytes but has"),
        "half a header": (good[:100], "not a file of tokens"),
        "another type": (good.replace(b"<u2", b"<f2"), "not a file of tokens"),
    }
    for name, (content, message) in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            TokenFile(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        TokenFile(tmp_path / "missing")


def test_verify_reads_all_of_it(tmp_path: Path) -> None:
    file = tokenize_to_file(["some text of several tokens"], tmp_path / "out")
    file.verify()
    content = bytearray(file.path.read_bytes())
    content[-1] ^= 1
    file.path.write_bytes(content)
    with pytest.raises(ValueError, match="SHA-256"):
        TokenFile(file.path).verify()


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    old = tokenize_to_file(["old"], tmp_path / "out").path.read_bytes()
    (tmp_path / "bad.txt").write_bytes(b"x " * 100 + b"\xff")
    with pytest.raises(ValueError, match=r"bad\.txt is not UTF-8: byte 0xff at offset 200"):
        tokenize_to_file(["new", tmp_path / "bad.txt"], tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        tokenize_to_file([tmp_path / "missing"], tmp_path / "out")
    with pytest.raises(ValueError, match="text is empty"):
        tokenize_to_file(["", ""], tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.txt", "out"]
