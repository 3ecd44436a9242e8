"""Rows of JSON files, and texts between separators."""

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2.text import reading
from tinygpt2.text.reading import TextReader
from tinygpt2.text.rows import as_document, json_lines, json_values, pieces_between

LINES = Path("rows.jsonl")
LIST = Path("rows.json")

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
documents = st.lists(st.text(characters, max_size=20), max_size=8)


def lines(content: str | bytes, field: str = "text") -> list[str]:
    content = content.encode() if isinstance(content, str) else content
    return list(json_lines(TextReader(io.BytesIO(content), LINES), field))


def values(content: str | bytes, field: str = "text") -> list[str]:
    content = content.encode() if isinstance(content, str) else content
    return list(json_values(TextReader(io.BytesIO(content), LIST), field))


# --- separators ---


@given(
    pieces=st.lists(st.text("ab\n", max_size=6), max_size=8),
    separator=st.text("ab\n", min_size=1, max_size=3),
)
def test_pieces_are_cut_as_their_whole_is(pieces: list[str], separator: str) -> None:
    """A separator may begin in one piece and end in another, or lie over several."""
    assert list(pieces_between(iter(pieces), separator)) == "".join(pieces).split(separator)


# --- JSON lines ---


@given(texts=documents, ascii_only=st.booleans(), newline=st.sampled_from(["\n", "\r\n", "\n\n", "\n \t\n"]))
def test_documents_are_read_back_from_json_lines(texts: list[str], ascii_only: bool, newline: str) -> None:
    rows = [text if i % 2 else {"id": i, "body": text} for i, text in enumerate(texts)]
    content = newline.join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    expected = [text.replace("\r\n", "\n") for text in texts]
    for written in (content, content + newline, "\ufeff" + content):
        assert lines(written, "body") == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"text": "a"', "line 3, column 13: the line is no JSON value by itself (Expecting ',' delimiter)"),
        ("{'text': 'a'}", "line 3, column 2: the line is no JSON value by itself (Expecting property name"),
        ('"a" "b"', "line 3, column 5: the line is no JSON value by itself (Extra data)"),
        ("plain text", "line 3, column 1: the line is no JSON value by itself (Expecting value)"),
        ('["a"]', "line 3: expected a string or an object with 'text', got ['a'] (list)"),
        ("12", "line 3: expected a string or an object with 'text', got 12 (int)"),
        ("NaN", "line 3: expected a string or an object with 'text', got nan (float)"),
        ('{"body": "a", "id": 1}', "line 3: the object has no 'text', only 'body', 'id'; pass the name of the one"),
        ("{}", "line 3: the object has no 'text', nothing at all"),
        ('{"text": null}', "line 3: 'text' must be a string, got None (NoneType); leave such rows out"),
        ('{"text": 1.5}', "line 3: 'text' must be a string, got 1.5 (float)"),
        ('{"text": ["a"]}', "line 3: 'text' must be a string, got ['a'] (list)"),
        ('{"text": Infinity}', "line 3: 'text' must be a string, got inf (float)"),
        ('{"text": ' + "9" * 10_000 + "}", "line 3: 'text' must be a string, got inf (float)"),
        ('{"text": "a\\u0000b"}', "line 3: 'text' has a NUL at character 1, which belongs in no text"),
        ('{"text": "a\\ud800b"}', "line 3: 'text' has a lone surrogate, U+D800, at position 1"),
        ('"\\ud800"', "line 3 has a lone surrogate, U+D800, at position 0"),
        ("[" * 100_000 + "]" * 100_000, "line 3: nested too deeply"),
        ("[" * 100_000, "line 3: nested too deeply"),
    ],
    ids=range(19),
)
def test_a_row_without_a_text_is_an_error_with_its_line(row: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^rows\.jsonl, line 3") as caught:
        lines(f'"one"\n\n{row}\n"three"\n')
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500
    item = message.replace("line 3", "line 3, item 2").partition(", column")[0]
    with pytest.raises(ValueError, match=r"^rows\.json, line 3") as caught:
        values(f'["one",\n\n{row},\n"three"]')
    if "Extra data" not in message:
        assert item in str(caught.value)


def test_the_rows_before_a_wrong_one_come_first() -> None:
    reader = json_lines(TextReader(io.BytesIO(b'"one"\n{\n'), LINES), "text")
    assert next(reader) == "one"
    with pytest.raises(ValueError, match=r"a \.jsonl file has a string or an object on each line"):
        next(reader)


def test_numbers_nesting_and_constants_in_other_fields_are_of_no_interest() -> None:
    row = f'{{"n": {"9" * 5000}, "x": NaN, "y": [-Infinity, 1e999, -0, {"[" * 50}{"]" * 50}], "text": "a"}}'
    assert lines(row) == values(f"[{row}]") == ["a"]
    assert lines('{"": "a"}', "") == ["a"]


def test_line_breaks_in_strings_are_as_those_in_files() -> None:
    r"""Everywhere ``\r\n`` is ``\n``, and a single ``\r`` stays."""
    assert lines(b'{"text": "a\\r\\nb\\rc"}\r\n') == values(b'["a\\r\\nb\\rc"]\r\n') == ["a\nb\rc"]


def test_what_is_no_text_at_all_is_named_as_read_text_names_it() -> None:
    for read in (lines, values):
        with pytest.raises(ValueError, match=r"rows\.jsonl? is not UTF-8: byte 0xff at offset 9"):
            read(b'["text", \xff]')
        with pytest.raises(ValueError, match=r"rows\.jsonl? has a NUL byte at offset 5"):
            read(b'"text\0"')


# --- JSON ---


@given(
    texts=documents,
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    piece=st.integers(1, 60),
    around=st.text(" \n\t", max_size=3),
)
def test_documents_are_read_back_from_a_list_in_pieces_of_any_size(
    texts: list[str],
    indent: int | None,
    ascii_only: bool,
    piece: int,
    around: str,
) -> None:
    rows = [text if i % 2 else {"n": 10**i, "body": text} for i, text in enumerate(texts)]
    content = around + json.dumps(rows, indent=indent, ensure_ascii=ascii_only) + around
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE", piece)
        patch.setattr(reading, "SAMPLE", piece)
        assert values(content, "body") == [text.replace("\r\n", "\n") for text in texts]


@given(content=st.text('[]{},:" \n19e.-atrue\\u0', max_size=25), piece=st.integers(1, 5))
def test_a_list_in_pieces_is_what_json_says_or_an_error_with_a_line(content: str, piece: int) -> None:
    content = f'["a", {content}]'
    try:
        expected = json.loads(content)
    except ValueError:
        expected = None
    good = expected is not None and all(isinstance(each, str) and "\0" not in each for each in expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE", piece)
        patch.setattr(reading, "SAMPLE", piece)
        if good:
            assert values(content) == expected
        else:
            with pytest.raises(ValueError, match=r"^rows\.json, line [0-9]+"):
                values(content)


def test_values_on_their_own_are_json_too() -> None:
    """Some corpora call JSON lines .json, others have a file for each object."""
    assert values('{"text": "a"}\n{"text": "b"}\n') == ["a", "b"]
    assert values('\n{\n  "text": "a"\n}\n') == values('"a"') == ["a"]
    assert values("") == values("[]") == values(" [ ] ") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"version": 1, "data": ["a"]}',
            "line 1, item 1: the object has no 'text', only 'version', 'data'; pass the name",
        ),
        ('\n{\n  "data": []\n}', "line 2, item 1: the object has no 'text', only 'data'; pass the name"),
        ("12\n", "line 1, item 1: expected a string or an object with 'text', got 12 (int)"),
        ('{"text": "a"}\n{"text": "b}', "line 2, item 2: not JSON (Unterminated string"),
        ("plain text", "line 1, item 1: not JSON (Expecting value)"),
        ('["a" "b"]', "line 1: expected , or ], got '\"'"),
        ('["a",\n"b"', "line 2: expected , or ], got the end of the file"),
        ('["a",\n"b', "line 2, item 2: not JSON (Unterminated string"),
        ('["a",\n]', "line 2, item 2: not JSON (Expecting value)"),
        ("[", "line 1, item 1: not JSON (Expecting value)"),
        ('["a"]\nmore', "line 2: expected nothing after the list, got 'm'"),
        ('["a"]["b"]', "line 1: expected nothing after the list, got '['"),
    ],
)
def test_what_is_no_list_says_what_it_is(content: str, message: str) -> None:
    for size in (1, 3, 1000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(reading, "_PIECE", size)
            with pytest.raises(ValueError, match=r"^rows\.json, ") as caught:
                values(content)
        assert message in str(caught.value)
        assert "a .json file may have a list of them" in str(caught.value) or "pass the name" in str(caught.value)


def test_a_mistake_at_the_beginning_is_found_without_reading_all() -> None:
    content = b'["a", oops, ' + b'"text", ' * 20_000 + b'"b"]'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE", 100)
        patch.setattr(reading, "SAMPLE", 100)
        reader = TextReader(io.BytesIO(content), LIST)
        with pytest.raises(ValueError, match="item 2: not JSON"):
            list(json_values(reader, "text"))
        assert reader.bytes_read < 1000


# --- one row ---


def test_a_value_in_a_message_is_short() -> None:
    with pytest.raises(ValueError, match="x must be a string") as caught:
        as_document("x", list(range(100_000)))
    assert len(str(caught.value)) < 300
    with pytest.raises(ValueError, match="and 980 more; pass") as caught:
        lines(json.dumps({f"field{i}": "a" for i in range(1000)}))
    assert "'field19'" in str(caught.value)
