"""Columns of CSV and Parquet files."""

import csv
import io
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2.text import reading, tables
from tinygpt2.text.reading import TextReader
from tinygpt2.text.tables import ParquetRows, check_can_read_parquet, table_rows

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
documents = st.lists(st.text(characters, max_size=20), max_size=8)
LIMIT = csv.field_size_limit()


def column(content: str | bytes, field: str = "text", delimiter: str = ",") -> list[str]:
    content = content.encode() if isinstance(content, str) else content
    return list(table_rows(TextReader(io.BytesIO(content), Path("rows.csv")), field, delimiter))


# --- CSV ---


@given(
    texts=documents,
    delimiter=st.sampled_from([",", "\t"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    piece=st.integers(1, 30),
)
def test_documents_are_read_back_from_a_column(
    texts: list[str], delimiter: str, newline: str, quoting: int, piece: int
) -> None:
    if (newline, quoting) == ("\n", csv.QUOTE_MINIMAL):
        texts = [text.replace("\r", "") for text in texts]  # which Python then writes without quotes
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=newline, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["id", "text", "more"])
    writer.writerows([i, text, f"a{delimiter}b"] for i, text in enumerate(texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE", piece)
        expected = [text.replace("\r\n", "\n") for text in texts]
        assert column("\ufeff" + stream.getvalue(), delimiter=delimiter) == expected


@given(texts=documents)
def test_documents_are_read_back_from_what_pandas_writes(texts: list[str]) -> None:
    pandas = pytest.importorskip("pandas")
    # pandas writes a lone \r unquoted, and reads it as the end of a row itself.
    texts = [text.replace("\r", "") for text in texts]
    content = pandas.DataFrame({"text": texts, "n": range(len(texts))}).to_csv()
    assert column(content) == texts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,body,title\n1,a,b\n", "line 1: the header has no 'text', only 'id', 'body', 'title'; pass the name"),
        ("Emma\nOlivia\n", "line 1: the header has no 'text', only 'Emma'; pass the name of the one with the texts"),
        ("text,text\na,b\n", "has 2 columns 'text'; rename all but one of them"),
        ("id,text\n1,a\n\n2,b,c\n", "line 4: expected 2 fields, as in the header, got 3; quote texts with ','"),
        ('id,text\n1,"a\nb"\n2\n', "line 4: expected 2 fields, as in the header, got 1"),
        ('id,text\n1,"a\nb\n2,b\n', "line 2: a quote that opens in this row is never closed"),
        ('id,text\n1,"a\nb" c\n2,b\n', "line 2: the row cannot be read (',' expected after '\"'); within quotes"),
        ("id,text\n1,a\rb\n", "line 2: a carriage return without a line feed; convert the line ends: tr '\\r' '\\n' <"),
        ("id,text\n1,a\n\n2,a\0b\n", "has a NUL byte at offset 16"),
    ],
)
def test_a_table_that_cannot_be_read_is_an_error_with_its_line(content: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^rows\.csv[, ]") as caught:
        column(content)
    assert message in str(caught.value)
    assert csv.field_size_limit() == LIMIT


def test_a_list_of_names_says_how_to_read_it() -> None:
    with pytest.raises(ValueError, match="a list without a header, read it as a plain text") as caught:
        column("Emma\nOlivia\n")
    assert str(caught.value).endswith(r"from a name that ends in .txt or from standard input, with the separator '\n'")
    with pytest.raises(ValueError, match="has no 'text'") as caught:
        column("Emma,F\n")
    assert "without a header" not in str(caught.value)


@pytest.mark.parametrize("separator", [";", "|", "\t"])
def test_columns_with_something_else_between_them_are_recognised(separator: str) -> None:
    with pytest.raises(
        ValueError, match=r"its columns are separated by .* with commas as \.csv, or with tabs as \.tsv"
    ) as e:
        column(f"id{separator}text\n1{separator}a\n")
    assert repr(separator) in str(e.value)


def test_a_table_without_rows_has_no_documents() -> None:
    assert column("") == column("\n\n") == column("text\n") == column("id,text") == []


def test_line_breaks_in_fields_are_as_those_in_files() -> None:
    assert column(b'text\r\n"a\r\nb\rc"\r\n') == ["a\nb\rc"]


def test_a_document_of_a_million_lines_is_no_longer_than_a_field_may_be() -> None:
    text = "a line\n" * 1_000_000
    stream = io.StringIO()
    csv.writer(stream).writerows([["text"], [text], ["b"]])
    rows = table_rows(TextReader(io.BytesIO(stream.getvalue().encode()), Path("rows.csv")), "text", ",")
    assert next(rows) == text
    assert csv.field_size_limit() == LIMIT  # for the rest of the process, also while rows are left
    assert list(rows) == ["b"]


def test_the_limit_is_restored_when_the_last_of_several_threads_is_done() -> None:
    """A pipe may keep one of them waiting in the middle of a row."""
    waiting, go_on = threading.Event(), threading.Event()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                waiting.set()
                assert go_on.wait(60)
            return super().read(min(size or 0, 200_000))

    long = "a" * 300_000
    found: list[str] = []
    reader = TextReader(Slow(f'text\n"{long}"\n'.encode()), Path("slow.csv"))
    thread = threading.Thread(target=lambda: found.extend(table_rows(reader, "text", ",")))
    thread.start()
    assert waiting.wait(60)
    assert column(f"text\n{long}\n") == [long]
    assert csv.field_size_limit() > LIMIT
    go_on.set()
    thread.join(60)
    assert (found, csv.field_size_limit()) == ([long], LIMIT)


# --- Parquet ---


def write_parquet(path: Path, columns: dict[str, Any], **options: object) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


@given(texts=documents, group=st.integers(1, 5), rows=st.integers(1, 4))
def test_documents_are_read_back_from_parquet(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], group: int, rows: int
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    array = pyarrow.array(texts, type=pyarrow.string())
    path = tmp_path_factory.mktemp("tables") / "rows.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_ROWS", rows)
        for each in (array, array.cast(pyarrow.large_string()), array.dictionary_encode()):
            write_parquet(path, {"id": range(len(texts)), "text": each}, row_group_size=group)
            table = ParquetRows(path)
            assert list(table.documents("text")) == [text.replace("\r\n", "\n") for text in texts]
            assert table.position == path.stat().st_size


def test_a_table_that_parquet_cannot_give_is_an_error_with_its_row(tmp_path: Path) -> None:
    columns = {"id": [1, 2], "text": ["a", None], "nul": ["a", "b\0"], "list": [["a"], []]}
    path = write_parquet(tmp_path / "rows.parquet", columns)
    for field, message in {
        "body": "rows.parquet: the table has no 'body', only 'id', 'text', 'nul', 'list'; pass",
        "text": "rows.parquet, row 2: 'text' must be a string, got None (NoneType)",
        "id": "rows.parquet, row 1: 'id' must be a string, got 1 (int)",
        "list": "rows.parquet, row 1: 'list' must be a string, got ['a'] (list)",
        "nul": "rows.parquet, row 2: 'nul' has a NUL at character 1",
    }.items():
        with pytest.raises(ValueError, match=r"^/|^[A-Z]:") as caught:
            list(ParquetRows(path).documents(field))
        assert message in str(caught.value)


def test_a_parquet_file_that_is_damaged_says_so(tmp_path: Path) -> None:
    path = write_parquet(
        tmp_path / "rows.parquet", {"text": [f"text {i}" * 50 for i in range(500)]}, compression="zstd"
    )
    content = path.read_bytes()
    for damaged in (content[:-20], content[:100], b"", b"text,\n", content[:100] + b"\xff" * 200 + content[300:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"rows\.parquet is no Parquet table, cut off or damaged \("):
            list(ParquetRows(path).documents("text"))


def test_a_parquet_file_that_is_a_pipe_or_compressed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"is a pipe, but a Parquet table is read from its end; pass a file"):
        check_can_read_parquet(tmp_path)
    with pytest.raises(ValueError, match=r"is a compressed Parquet table, .*; decompress it first"):
        check_can_read_parquet(tmp_path / "rows.parquet.gz")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name)
        return import_module(name)

    monkeypatch.setattr(tables, "import_module", missing)
    path = tmp_path / "rows.parquet"
    path.touch()
    with pytest.raises(ImportError, match=r"rows\.parquet needs pyarrow: pip install 'tinygpt2\[parquet\]'"):
        check_can_read_parquet(path)
