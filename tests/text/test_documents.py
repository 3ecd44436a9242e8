"""Documents of files and of other libraries' tables: in order, one at a time, and refused in one line that helps."""

import gzip
import io
import json
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2.text import reading
from tinygpt2.text.documents import DocumentReader, documents_of, read_documents

EVERYTHING = {
    "a.jsonl": '{"id": 1, "text": "one"}\n"two"\n',
    "b.json": '["three", {"text": "four"}]',
    "c.csv": "id,text\n1,five\n",
    "d.md": "six\n",
    "e.tsv": "text\tid\nseven\t1\n",
    "f/g.txt": "eight",
}
NUMBERS = ["one", "two", "three", "four", "five", "six\n", "seven", "eight"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a directory, which is the current one, with a file of every kind."""
    for name, content in EVERYTHING.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def provide(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return provide


# --- files ---


def test_every_kind_of_file_is_read_in_the_order_of_names(folder: Path) -> None:
    assert list(read_documents(folder)) == list(read_documents("**/*.*")) == NUMBERS
    assert list(read_documents(["c.csv", "a.jsonl"])) == ["five", "one", "two"]
    assert list(read_documents(Path("d.md"))) == ["six\n"]


def test_what_is_known_about_the_files_is_counted(folder: Path) -> None:
    (folder / "h.txt").write_text(" \n", encoding="utf-8")
    (folder / "i.bin").touch()
    reader = DocumentReader(["a.jsonl", folder])
    sizes = [path.stat().st_size for path in reader.files if path is not None]
    assert reader.names == ["a.jsonl", *(str(folder / n) for n in (*list(EVERYTHING)[1:], "h.txt"))]
    assert (reader.total_bytes, reader.repeated, reader.left_out) == (sum(sizes), 1, 1)
    assert (reader.documents, reader.empty, reader.bytes_read, reader.text_bytes) == (0, 0, 0, 0)
    read = iter(reader)
    assert [next(read), next(read), next(read)] == NUMBERS[:3]
    assert (reader.documents, reader.bytes_read) == (3, sum(sizes[:2]))
    assert list(read) == NUMBERS[3:]
    assert (reader.documents, reader.empty, reader.bytes_read) == (8, 1, sum(sizes))
    assert reader.text_bytes == len("".join(NUMBERS))


def test_bytes_are_those_on_the_disk_and_those_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(["世界"] * 1000)[1:-1].replace(", ", "\n").encode()))
    reader = DocumentReader(path)
    assert list(reader) == ["世界"] * 1000
    assert reader.bytes_read == reader.total_bytes == path.stat().st_size
    assert reader.text_bytes == 6000


def test_files_are_opened_one_after_another_and_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[IO[Any]] = []
    real: Callable[..., IO[Any]] = Path.open

    def counting(*arguments: object) -> IO[Any]:
        opened.append(real(*arguments))
        return opened[-1]

    monkeypatch.setattr(Path, "open", counting)
    read = read_documents(folder)
    assert not opened
    next(read)
    assert [file.closed for file in opened] == [False]
    next(read), next(read)
    assert [file.closed for file in opened] == [True, False]
    read.close()  # type: ignore[attr-defined]
    assert [file.closed for file in opened] == [True, True]


@pytest.mark.usefixtures("folder")
def test_wrong_arguments_are_told_before_anything_is_read() -> None:
    with pytest.raises(FileNotFoundError, match=r"did you mean a\.jsonl\?"):
        read_documents(["d.md", "aa.jsonl"])
    with pytest.raises(TypeError, match="field must be a str, got 3"):
        read_documents("a.jsonl", field=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="separator must be a str, got b"):
        read_documents("d.md", separator=b"\n")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="separator must be at least one character, got ''"):
        read_documents("d.md", separator="")
    with pytest.raises(
        ValueError, match=r"for plain texts, but there are only rows in a\.jsonl, b\.json, c\.csv and 1 m"
    ):
        read_documents(["a.jsonl", "b.json", "c.csv", "e.tsv"], separator="\n")


@pytest.mark.usefixtures("folder")
def test_a_wrong_row_names_the_file_and_the_line() -> None:
    with pytest.raises(ValueError, match=r"^a\.jsonl, line 1: the object has no 'body', only 'id', 'text'; pass"):
        list(read_documents(["d.md", "a.jsonl"], field="body"))


def test_iterating_again_begins_anew(folder: Path) -> None:
    reader = DocumentReader(folder)
    assert list(reader) == list(reader) == NUMBERS
    assert reader.documents == 8


# --- what is empty ---


def test_empty_documents_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('"a"\n""\n" \\n\\u3000"\n"b "\n', encoding="utf-8")
    reader = DocumentReader(path)
    assert (list(reader), reader.documents, reader.empty) == (["a", "b "], 2, 2)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "a.txt: the text is empty"),
        ("a.txt", " \n\t\n", "a.txt: the text is only whitespace (4 bytes)"),
        ("a.jsonl", "", "a.jsonl: there are no documents"),
        ("a.csv", "text\n", "a.csv: there are no documents"),
        ("a.json", '["", " "]', "a.json: there are no documents; left out as empty: 2"),
    ],
)
def test_nothing_at_all_is_an_error(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    reader = DocumentReader(tmp_path / name)
    with pytest.raises(ValueError, match=r"there are no documents|the text is") as caught:
        list(reader)
    assert str(caught.value) == f"{tmp_path}{os.sep}{message}"
    if reader.single_text:
        with pytest.raises(ValueError, match="the text is") as caught:
            list(reader.pieces())
        assert str(caught.value) == f"{tmp_path}{os.sep}{message}"


# --- separators ---


@given(
    texts=st.lists(st.text("ab |", max_size=5), max_size=6),
    separator=st.sampled_from(["\n", "\n\n", "\r\n", "<|endoftext|>", "##"]),
    piece=st.integers(1, 20),
    end=st.booleans(),
)
def test_documents_are_read_back_from_between_separators(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    separator: str,
    piece: int,
    end: bool,
) -> None:
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    path.write_bytes(separator.join(["first", *texts, "last", *([""] if end else [])]).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE", piece)
        patch.setattr(reading, "SAMPLE", piece)
        reader = DocumentReader(path, separator=separator)
        assert list(reader) == ["first", *(text for text in texts if text.strip()), "last"]
    assert reader.empty == sum(not text.strip() for text in texts)
    assert not reader.has_end_of_text
    assert not reader.single_text


def test_blank_lines_between_documents_may_be_many(tmp_path: Path) -> None:
    """What is left of an odd number stays with the next document, as nothing is taken from a text."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\n\n\n\nb\r\n\r\n\r\nc\n")
    reader = DocumentReader(path, separator="\n\n")
    assert (list(reader), reader.empty) == (["a", "b", "\nc\n"], 1)


def test_rows_are_never_cut(folder: Path) -> None:
    (folder / "a.jsonl").write_text('"one\\ntwo"', encoding="utf-8")
    assert list(read_documents(["a.jsonl", "d.md"], separator="\n")) == ["one\ntwo", "six"]


@pytest.mark.usefixtures("folder")
def test_a_separator_that_never_occurs_is_an_error() -> None:
    read = read_documents(["d.md", "f/g.txt"], separator="---")
    assert [next(read), next(read)] == ["six\n", "eight"]
    with pytest.raises(ValueError, match=r"the separator '---' is not in d\.md, f.g\.txt; pass one that is"):
        next(read)
    assert list(read_documents(["d.md", "f/g.txt"], separator="\n")) == ["six", "eight"]  # in one of them


# --- one text ---


def test_a_single_plain_text_is_one_continuous_text(folder: Path) -> None:
    assert DocumentReader("d.md").single_text
    assert DocumentReader("f").single_text
    assert not DocumentReader(["d.md", "f"]).single_text
    assert not DocumentReader("a.jsonl").single_text
    assert not DocumentReader("d.md", separator="\n").single_text
    for reader in (DocumentReader(folder), DocumentReader("d.md", separator="\n")):
        with pytest.raises(ValueError, match="only a single plain text without a separator has pieces"):
            reader.pieces()


@given(text=st.text("ab <|endoftext|>\r\n世", min_size=1, max_size=40), piece=st.integers(1, 9))
def test_the_pieces_of_a_text_are_the_text(tmp_path_factory: pytest.TempPathFactory, text: str, piece: int) -> None:
    path = tmp_path_factory.mktemp("texts") / "a.txt"
    path.write_bytes(f"x{text}".encode())
    expected = f"x{text}".replace("\r\n", "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE", piece)
        patch.setattr(reading, "SAMPLE", piece)
        reader = DocumentReader(path)
        for read in (reader.pieces, reader.__iter__):
            assert "".join(read()) == expected
            assert (reader.documents, reader.empty) == (1, 0)
            assert (reader.bytes_read, reader.text_bytes) == (path.stat().st_size, len(expected.encode()))
            assert reader.has_end_of_text == ("<|endoftext|>" in expected)


@pytest.mark.parametrize("piece", [1, 5, 1000])
def test_an_end_of_text_that_somebody_typed_stays_text_and_is_noted(
    tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_PIECE", piece)
    monkeypatch.setattr(reading, "SAMPLE", piece)
    path = tmp_path / "a.txt"
    path.write_text("one<|endoftext|>two", encoding="utf-8")
    reader = DocumentReader(path)
    assert not reader.has_end_of_text
    assert (list(reader), reader.has_end_of_text) == (["one<|endoftext|>two"], True)
    assert ("".join(reader.pieces()), reader.has_end_of_text) == ("one<|endoftext|>two", True)
    cut = DocumentReader(path, separator="<|endoftext|>")
    assert (list(cut), cut.has_end_of_text) == (["one", "two"], False)


# --- pipes ---


@pytest.mark.usefixtures("folder")
def test_standard_input_is_a_text(standard_input: Callable[[bytes], None]) -> None:
    standard_input("\ufeffEmma\r\nOlivia\r\n".encode())
    reader = DocumentReader("-", separator="\n")
    assert (reader.files, reader.names, reader.total_bytes) == ([None], ["standard input"], None)
    assert list(reader) == ["Emma", "Olivia"]
    assert reader.bytes_read == 17
    with pytest.raises(ValueError, match="standard input: a pipe can be read once; keep its documents: list"):
        iter(reader)
    standard_input(b"nine")
    assert list(read_documents(["d.md", "-"])) == ["six\n", "nine"]
    standard_input(gzip.compress(b"text"))
    with pytest.raises(
        ValueError, match=r"standard input is compressed with gzip; .*gzip -dc FILE \| tinygpt2 train -"
    ):
        list(read_documents("-"))


def test_without_a_standard_input_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ValueError, match="there is no standard input; pass a file"):
        list(read_documents("-"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_a_pipe_is_what_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=[gzip.compress(b'"one"\n"two"\n')], daemon=True)
    thread.start()
    reader = DocumentReader(path)
    assert reader.total_bytes is None
    assert list(reader) == ["one", "two"]
    thread.join(60)
    with pytest.raises(ValueError, match="a pipe can be read once"):
        iter(reader)


# --- whatever is written is read ---


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20), max_size=6
    ),
    kind=st.sampled_from(["jsonl", "ndjson.xz", "json", "json.bz2", "csv.gz", "tsv", "parquet", "jsonl.zst"]),
)
def test_documents_that_pandas_writes_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], kind: str
) -> None:
    pandas = pytest.importorskip("pandas")
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    if kind.endswith("zst"):
        pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    texts = ["first", *texts]
    path = tmp_path_factory.mktemp("texts") / f"a.{kind}"
    frame = pandas.DataFrame({"id": range(len(texts)), "text": texts})
    if kind == "parquet":
        frame.to_parquet(path)
    elif kind.endswith("zst"):
        path.write_bytes(zstd(frame.to_json(orient="records", lines=True).encode()))
    elif "json" in kind:
        frame.to_json(path, orient="records", lines="nd" in kind or "jsonl" in kind)
    else:
        frame.to_csv(path, sep="\t" if kind == "tsv" else ",", index=False)
    reader = DocumentReader(path)
    assert list(reader) == [text for text in texts if text.strip()]
    assert reader.empty == sum(not text.strip() for text in texts)


def zstd(content: bytes) -> bytes:
    module = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    compressed: bytes = module.compress(content)
    return compressed


# --- other libraries' ---


TEXTS = ["one", "two", "", "four\n"]


def of(source: object, field: str = "text") -> list[str]:
    return list(documents_of("documents", source, field))


def generated() -> Iterator[str]:
    yield from TEXTS


def test_any_iterable_of_texts_or_of_rows_holds_documents() -> None:
    rows = [{"id": i, "text": text} for i, text in enumerate(TEXTS)]
    for source in (TEXTS, tuple(TEXTS), generated(), dict(enumerate(TEXTS)).values(), rows, iter(rows)):
        assert of(source) == TEXTS
    assert of([{"body": "a"}, "b"], "body") == ["a", "b"]


def test_nothing_is_taken_before_it_is_wanted() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "text"

    assert next(iter(documents_of("documents", endless()))) == "text"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("a text", TypeError, "documents must be several str, got 'a text' (str); pass a list"),
        (b"a text", TypeError, "documents must be several str"),
        ({"a": "text"}, TypeError, "pass its values"),
        ({"text"}, TypeError, "a set has no order; pass a list"),
        (Path("a.txt"), TypeError, "documents must be several str"),
        (3, TypeError, "documents must be several str, got 3 (int)"),
        (["a", 3], TypeError, "documents[1] must be a str, got 3 (int)"),
        (["a", None], TypeError, "documents[1] must be a str, got None (NoneType); drop the rows without a text"),
        ([math.nan], TypeError, "documents[0] must be a str, got nan (float); drop the rows without a text: in pandas"),
        ([["a"]], TypeError, "documents[0] must be a str, got ['a'] (list)"),
        ([{"text": 3}], TypeError, "documents[0]['text'] must be a str, got 3 (int)"),
        ([{"body": "a", "id": 1}], ValueError, "documents[0] has no 'text', only 'body', 'id'; pass the name"),
        (["a", "\ud800"], ValueError, "documents[1] has a lone surrogate"),
    ],
    ids=range(13),
)
def test_what_holds_no_documents_is_refused(source: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        of(source)
    assert message in str(caught.value)


def test_columns_and_tables_of_pandas_hold_documents() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": range(4), "text": TEXTS})
    assert of(frame) == of(frame["text"]) == of(frame[frame["id"] >= 0]["text"]) == TEXTS
    assert of(frame["text"].astype("category")) == TEXTS
    assert of(frame.rename(columns={"text": "body"}), "body") == TEXTS
    with pytest.raises(ValueError, match="documents has no 'body', only 'id', 'text'; pass"):
        of(frame, "body")
    with pytest.raises(ValueError, match="documents has 2 columns 'text'; rename all but one of them"):
        of(pandas.concat([frame, frame], axis=1))
    for missing in (None, math.nan, pandas.NA):
        column = pandas.Series(["a", missing])
        for source in (column, column.astype("string"), column.to_frame("text")):
            with pytest.raises(TypeError, match=r"documents\[1\] must be a str, got .*in pandas, \.dropna\(\)"):
                of(source)
        assert of(column.dropna()) == ["a"]
    with pytest.raises(TypeError, match=r"documents\[0\] must be a str, got 0 "):
        of(frame, "id")


def test_columns_and_tables_of_pyarrow_hold_documents() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"id": range(4), "text": TEXTS})
    assert of(table) == of(table["text"]) == of(table["text"].chunk(0)) == TEXTS
    with pytest.raises(ValueError, match="documents has no 'body', only 'id', 'text'"):
        of(table, "body")


def test_a_table_like_those_of_polars_holds_documents() -> None:
    class Frame:
        columns = ("id", "text")

        def __getitem__(self, name: str) -> list[str]:
            return {"text": TEXTS}[name]

    assert of(Frame()) == TEXTS


def test_data_sets_and_their_columns_hold_documents() -> None:
    datasets = pytest.importorskip("datasets")
    data_set = datasets.Dataset.from_dict({"id": range(4), "text": TEXTS})
    streamed = data_set.to_iterable_dataset()
    generator = datasets.IterableDataset.from_generator(lambda: ({"text": text} for text in TEXTS))
    upper = data_set.with_transform(lambda rows: {"text": [text.upper() for text in rows["text"]]})
    for source in (data_set, data_set["text"], streamed, streamed["text"], generator, generator["text"]):
        assert of(source) == TEXTS
    assert of(data_set.with_format("numpy")) == of(data_set.with_format("pandas")) == TEXTS
    assert of(upper) == of(upper["text"]) == [text.upper() for text in TEXTS]
    made = data_set.with_transform(lambda rows: {"body": [text + "!" for text in rows["text"]]})
    assert of(made, "body") == [f"{text}!" for text in TEXTS]
    with pytest.raises(ValueError, match="data set has no 'text', only 'body'"):
        of(made)
    assert of(data_set.filter(lambda row: row["id"] > 1)) == TEXTS[2:]
    for source in (data_set, streamed):
        with pytest.raises(ValueError, match="documents has no 'body', only 'id', 'text'; pass"):
            of(source, "body")
    with pytest.raises(ValueError, match="data set has no 'body', only 'text'; pass"):
        of(generator, "body")
    with pytest.raises(
        TypeError, match=r"got a DatasetDict of several; pass one: documents\['train'\], documents\['val"
    ):
        of(datasets.DatasetDict(train=data_set, validation=data_set))
    with pytest.raises(TypeError, match=r"documents\[0\] must be a str, got None"):
        of(datasets.Dataset.from_dict({"text": [None, "a"]}))


def test_a_data_set_is_never_loaded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor row by row, which is slow: a column of a data set would do that."""
    datasets = pytest.importorskip("datasets")
    data_set = datasets.Dataset.from_dict({"id": range(5000), "text": ["text"] * 5000})
    sizes: list[int] = []
    real: Callable[..., Iterator[dict[str, list[str]]]] = datasets.Dataset.iter

    def counting(self: object, batch_size: int) -> Iterator[dict[str, list[str]]]:
        for batch in real(self, batch_size):
            assert list(batch) == ["text"]  # no other column
            sizes.append(len(batch["text"]))
            yield batch

    monkeypatch.setattr(datasets.Dataset, "iter", counting)
    for source in (data_set, data_set["text"]):
        assert len(of(source)) == 5000
    assert sizes == [1000] * 10
