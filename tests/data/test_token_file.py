"""Corpora in files: the tokens are those of the whole text, wherever it is cut."""

import copy
import io
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import torch
from hypothesis import given
from hypothesis import strategies as st

import tinygpt2.data.pieces
from tinygpt2 import (
    CharTokenizer,
    TokenDataset,
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
    monkeypatch.setattr(tinygpt2.data.pieces, "_PIECE", 5)


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
        patch.setattr(tinygpt2.data.pieces, "_PIECE", piece)
        file = tokenize_to_file(parts, tmp_path_factory.mktemp("tokens") / "out", threads=2)
    assert file.tokens.tolist() == gpt2_tokenizer().encode_ordinary(text)


@given(text=st.text(SIGNS, min_size=1, max_size=300))
def test_a_text_can_be_cut_at_every_place_that_is_taken_for_one(text: str) -> None:
    tokenizer = gpt2_tokenizer()
    whole = tokenizer.encode_ordinary(text)
    for match in tinygpt2.data.pieces.CUT.finditer(text):
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
    with pytest.raises(ValueError, match="has tokens of a vocabulary of 50,257, but the tokenizer has 4"):
        make_dataloader(file, batch_size=3, context_length=8, tokenizer=CharTokenizer("abc"))


def test_a_part_is_a_slice(tmp_path: Path) -> None:
    file = tokenize_to_file(["abcab"], tmp_path / "out", tokenizer=CharTokenizer("abc"))
    assert file[1:][1:-1].tokens.tolist() == [2, 0]
    for part in (0, "a", None, [0, 1]):
        with pytest.raises(TypeError, match=r"part must be a slice, such as .* \(single ids are in \.tokens\), got"):
            file[part]  # type: ignore[index]


@pytest.mark.parametrize(("out", "error"), [("", ValueError), (None, TypeError), (3, TypeError), (b"out", TypeError)])
def test_the_file_to_write_is_a_path_and_no_text_is_read_before_that(out: Any, error: type[Exception]) -> None:  # noqa: ANN401
    texts = iter(["abc"])
    with pytest.raises(error, match="out must be "):
        tokenize_to_file(texts, out)
    assert list(texts) == ["abc"]


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


# --- in another process ---


def unpickled(content: bytes) -> Any:  # noqa: ANN401
    return pickle.loads(content)  # noqa: S301 - this test's own


def test_a_pickle_holds_the_path_and_the_part_and_no_tokens(tmp_path: Path) -> None:
    """Each worker that was started with spawn, as on Windows and macOS, received a copy of the corpus."""
    whole = tokenize_to_file([sample_text()], tmp_path / "out")
    for file in (whole, whole[100:9000], whole[100:9000][50:60], whole[5:5]):
        content = pickle.dumps(file)
        assert len(content) < 1000
        copies = [unpickled(content), copy.deepcopy(file), copy.copy(file)]
        for again in copies:
            assert isinstance(again.tokens, np.memmap) or not len(file)
            assert again.tokens.tolist() == file.tokens.tolist()
            assert (again.identity(), again.n_vocab) == (file.identity(), file.n_vocab)
            assert again.path == file.path.absolute()


def test_a_data_set_of_a_file_is_pickled_without_its_tokens(tmp_path: Path) -> None:
    file = tokenize_to_file([sample_text()], tmp_path / "out")[100:9000]
    loader = make_dataloader(file, batch_size=4, context_length=16, shuffle=True)
    content = pickle.dumps(loader.dataset)
    assert len(content) < 2000
    again = unpickled(content)
    assert again.identity == file.identity()
    assert len(again) == len(loader.dataset)  # type: ignore[arg-type]
    for i in (0, 7, len(again) - 1):
        assert all(map(torch.equal, again[i], loader.dataset[i]))
    plain = unpickled(pickle.dumps(TokenDataset(range(30), context_length=4)))
    assert plain[3][0].tolist() == [12, 13, 14, 15]


def test_a_file_is_found_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(tokenize_to_file(["some text"], "out"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gpt2_tokenizer().decode(unpickled(content).tokens.tolist()) == "some text"


def test_another_file_of_that_name_is_told(tmp_path: Path) -> None:
    file = tokenize_to_file(["one text of some tokens"], tmp_path / "out")
    contents = [pickle.dumps(file), pickle.dumps(make_dataloader(file, batch_size=1, context_length=2).dataset)]
    tokenize_to_file(["two text of some tokens"], tmp_path / "out")
    for content in contents:
        with pytest.raises(ValueError, match=r"out is another file than when .* was pickled: .*; open it anew"):
            unpickled(content)
    file.path.unlink()
    for content in contents:
        with pytest.raises(FileNotFoundError, match="out"):
            unpickled(content)


def test_a_worker_that_is_spawned_gives_the_same_batches(tmp_path: Path) -> None:
    file = tokenize_to_file([sample_text()[:2000]], tmp_path / "out")
    loader = make_dataloader(file, batch_size=4, context_length=16)
    spawned = torch.utils.data.DataLoader(
        loader.dataset, batch_size=4, num_workers=1, multiprocessing_context=multiprocessing.get_context("spawn")
    )
    for (inputs, targets), (same_inputs, same_targets) in zip(loader, spawned, strict=True):
        assert inputs.equal(same_inputs)
        assert targets.equal(same_targets)


# --- what is no source ---


class Column:
    """A column of a table, such as pandas' ``Series``, whose truth value is an error."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __iter__(self) -> Iterator[object]:
        return iter(self.items)

    def __getitem__(self, i: int) -> object:
        return self.items[i]

    def __len__(self) -> int:
        return len(self.items)

    def __bool__(self) -> bool:
        raise ValueError("the truth value of a column is ambiguous")


class Table(Column):
    """A table, such as pandas' ``DataFrame``: iterating over it gives the names of its columns."""

    columns = ("text",)


def test_a_column_of_texts_is_as_good_as_a_list(tmp_path: Path) -> None:
    expected = gpt2_tokenizer().encode_ordinary("one, two")
    for source in (Column("one", ", two"), np.array(["one", ", two"]), iter(["one", ", two"]), ("one", ", two")):
        assert tokenize_to_file(source, tmp_path / "out").tokens.tolist() == expected  # type: ignore[arg-type]


def test_a_column_of_pandas_is_as_good_as_a_list_and_a_data_frame_is_not(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    expected = gpt2_tokenizer().encode_ordinary("one, two")
    table = pandas.DataFrame({"text": ["one", ", two"]})
    assert tokenize_to_file(table["text"], tmp_path / "out").tokens.tolist() == expected
    with pytest.raises(TypeError, match="pass one column"):
        tokenize_to_file(table, tmp_path / "out")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Table("text"), r"source must be several str, got .*\(Table\); .* pass one column: table\['text'\]"),
        ({"text": "one"}, r"\(dict\); pass its values"),
        ({"one", "two"}, r"\(set\); a set has no order"),
        (b"one", r"got b'one' \(bytes\); pass a list"),
        (io.StringIO("one"), r"\(StringIO\); pass the path"),
        (None, r"got None \(NoneType\); pass a list"),
        (17, r"got 17 \(int\); pass a list"),
        (["one", b"two"], r"source\[1\], neither text nor path, must be a str, got b'two' \(bytes\); decode it"),
        ([["one"]], r"source\[0\], .*, got \['one'\] \(list\); join several"),
        (Column("one", float("nan")), r"source\[1\], .*, got nan \(float\)"),
        ((piece for piece in [b"one"]), r"source\[0\], .* decode it"),
        (range(3), r"source\[0\], .*, got 0 \(int\)"),
    ],
)
def test_what_holds_no_texts_is_a_type_error_with_the_fix(tmp_path: Path, source: Any, message: str) -> None:  # noqa: ANN401
    """A data frame silently became the names of its columns."""
    with pytest.raises(TypeError, match=message):
        tokenize_to_file(source, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_a_file_is_not_taken_for_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens were those of the name."""
    (tmp_path / "book.txt").write_text("content", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    named: list[Any] = ["book.txt", ["one", "book.txt"], [str(tmp_path / "book.txt")]]
    for source in named:
        with pytest.raises(ValueError, match=r"is the name of a file; for its text pass pathlib\.Path\('.*book.txt'\)"):
            tokenize_to_file(source, tmp_path / "out")
    others: list[Any] = ["other.txt", ["book.txt\n"], "book.\0", iter(["book.txt"])]
    for source in others:
        tokenize_to_file(source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["gpt2", "characters", "another"])
def test_half_a_character_is_refused_with_its_position(tmp_path: Path, kind: str) -> None:
    """tiktoken replaced it in silence, or raised a UnicodeEncodeError, depending on what called it."""
    gpt2 = gpt2_tokenizer()
    another = tiktoken.Encoding("ours", pat_str=r"\S+|\s+", mergeable_ranks=gpt2._mergeable_ranks, special_tokens={})
    tokenizer: Any = {"gpt2": gpt2, "characters": CharTokenizer("abc"), "another": another}[kind]
    with pytest.raises(
        ValueError, match=r"source\[1\].* has a lone surrogate, U\+DC80, at position 2, .*surrogatepass"
    ):
        tokenize_to_file(["a", "ab\udc80c"], tmp_path / "out", tokenizer=tokenizer)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_a_pipe_is_no_file_of_tokens(tmp_path: Path) -> None:
    """And is not opened, which would wait for a writer."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe or a device, but a file of tokens is memory-mapped"):
        TokenFile(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        TokenFile(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*pipe\?"):
        TokenFile(tmp_path / "pip")
