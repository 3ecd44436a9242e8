"""Files and pipes: opened once, recognised, and refused in one line that helps."""

import bz2
import codecs
import errno
import gzip
import io
import lzma
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from tinygpt2 import read_text, sample_text, tokenize_to_file
from tinygpt2.text import reading
from tinygpt2.text.reading import TextReader, open_text
from tinygpt2.text.recognition import SAMPLE, unlike_text

ENGLISH = "A line of text, and another one.\r\n" * 50
CHINESE = "第一次世界大战是一场主要发生在欧洲的战争，但是波及了全世界。各国人民为此付出了很大的代价。\n" * 20
TAIWAN = "第一次世界大戰是一場主要發生在歐洲的戰爭，但是波及了全世界。各國人民為此付出了很大的代價。\n" * 20
JAPANESE = "第一次世界大戦は、ヨーロッパを主な戦場とした戦争である。多くの国がこれに加わった。\n" * 20
KOREAN = "제일차 세계 대전은 유럽을 중심으로 일어난 전쟁이다. 많은 나라가 이 전쟁에 참가하였다.\n" * 20
RUSSIAN = "Первая мировая война была одним из самых крупных конфликтов в истории человечества.\n" * 20
FRENCH = "L’été dernier, Hélène a mangé des crêpes à Besançon, où elle était née.\n" * 20
GERMAN = "Die Bäume blühen früh in der Straße, und schöne Mädchen grüßen über den Zaun.\n" * 20
PORTUGUESE = "A Primeira Guerra Mundial não acabou com as guerras; a população sofreu muitas privações.\n" * 20
POLISH = "Pierwsza wojna światowa trwała cztery lata i objęła całą Europę, a potem także inne części świata.\n" * 20
TURKISH = "Birinci Dünya Savaşı dört yıl sürdü ve milyonlarca insanın ölümüne yol açtı, çünkü silahlar ağırdı.\n" * 20
GREEK = "Ο Πρώτος Παγκόσμιος Πόλεμος ήταν μια από τις πιο φονικές συγκρούσεις στην ιστορία.\n" * 20
HEBREW = "מלחמת העולם הראשונה הייתה מלחמה עולמית שהחלה באירופה ונמשכה ארבע שנים.\n" * 20
ARABIC = "الحرب العالمية الأولى كانت حربا عالمية بدأت في أوروبا واستمرت أربع سنوات.\n" * 20
TEXTS = {"English": ENGLISH, "Chinese": CHINESE, "Japanese": JAPANESE, "Russian": RUSSIAN}


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[bytes, str], str]:
    """Returns what says why a file with some content is refused, in a whole and in pieces, whatever reads it."""

    def message(content: bytes, name: str = "old.txt") -> str:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
            read_text(path)
        with pytest.raises(ValueError, match=re.escape(str(path))) as tokenizing:
            tokenize_to_file(["text", path], tmp_path / "out")
        assert str(tokenizing.value) == str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return message


Refusal = Callable[..., str]


# --- encodings ---


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("language", TEXTS)
def test_what_an_editor_saved_in_utf16_is_recognised_with_its_mark_and_without(
    refusal: Refusal, language: str, codec: str
) -> None:
    """Without one it was trained on, NULs and all; with one the advice was to convert it from GB18030."""
    content = TEXTS[language].encode(codec)
    name = codec[:6].upper()
    marked = refusal("\ufeff".encode(codec) + content)
    assert f"it is {name}: " in marked
    assert f"iconv -f {name} -t UTF-8 old.txt > new.txt" in marked
    unmarked = refusal(content)
    exact = codec.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert f"it looks like {exact}: " in unmarked
    assert f"iconv -f {exact} -t UTF-8" in unmarked
    assert "it looks like" in refusal(content[: SAMPLE // 2 * 2 + 2])


@pytest.mark.parametrize("text", ["a", "ab", "a line"])
def test_the_shortest_texts_in_utf16_are_recognised(refusal: Refusal, text: str) -> None:
    assert "UTF-16LE" in refusal(text.encode("utf-16-le"))
    assert "UTF-16BE" in refusal(text.encode("utf-16-be"))
    assert "it is UTF-16:" in refusal(codecs.BOM_UTF16_LE)


@pytest.mark.parametrize(
    ("text", "codec", "name", "iconv"),
    [
        (CHINESE, "gb18030", "GB18030 (simplified Chinese)", "GB18030"),
        (CHINESE, "gbk", "GB18030 (simplified Chinese)", "GB18030"),
        ("大战", "gb18030", "GB18030 (simplified Chinese)", "GB18030"),
        (TAIWAN, "big5", "Big5 (traditional Chinese)", "CP950"),
        (JAPANESE, "shift_jis", "Shift-JIS (Japanese)", "CP932"),
        (JAPANESE, "euc_jp", "EUC-JP (Japanese)", "EUC-JP"),
        (KOREAN, "euc_kr", "EUC-KR (Korean)", "CP949"),
        (RUSSIAN, "cp1251", "Windows-1251 (Cyrillic)", "CP1251"),
        (RUSSIAN, "koi8_r", "KOI8-R (Cyrillic)", "KOI8-R"),
        (FRENCH, "cp1252", "Windows-1252 (Western European, Latin-1)", "CP1252"),
        (GERMAN, "latin-1", "Windows-1252 (Western European, Latin-1)", "CP1252"),
        ("caf\xe9", "latin-1", "Windows-1252 (Western European, Latin-1)", "CP1252"),
        (ENGLISH * 100 + FRENCH, "cp1252", "Windows-1252 (Western European, Latin-1)", "CP1252"),
        (PORTUGUESE, "cp1252", "Windows-1252 (Western European, Latin-1)", "CP1252"),
        (POLISH, "cp1250", "Windows-1250 (Central European)", "CP1250"),
        (TURKISH, "cp1254", "Windows-1254 (Turkish)", "CP1254"),
        (GREEK, "cp1253", "Windows-1253 (Greek)", "CP1253"),
        (HEBREW, "cp1255", "Windows-1255 (Hebrew)", "CP1255"),
        (ARABIC, "cp1256", "Windows-1256 (Arabic)", "CP1256"),
        ("一个人来到这个城市。\n" * 9, "gbk", "GB18030 (simplified Chinese)", "GB18030"),  # 一 is valid in UTF-8, too
    ],
)
def test_the_likely_encoding_is_told_with_the_command_and_the_offset(
    refusal: Refusal, text: str, codec: str, name: str, iconv: str
) -> None:
    content = text.encode(codec)
    with pytest.raises(UnicodeDecodeError) as expected:
        content.decode("utf-8")
    offset = expected.value.start
    message = refusal(content)
    assert f"old.txt is not UTF-8: byte 0x{content[offset]:02x} at offset {offset}; it looks like {name}: " in message
    assert f"iconv -f {iconv} -t UTF-8 old.txt > new.txt" in message
    assert content.decode(iconv) == text  # the command does what it promises


def test_a_text_in_utf8_with_a_byte_that_is_not_is_damaged_and_no_other_encoding(refusal: Refusal) -> None:
    start = CHINESE.encode()
    message = refusal(start + b"\xe9" + ENGLISH.encode())
    assert f"byte 0xe9 at offset {len(start)}; the text before it is UTF-8, so the file is damaged" in message
    assert "GB18030" not in message


def test_bytes_of_no_encoding_get_the_general_advice(refusal: Refusal) -> None:
    message = refusal(b"\x98\x81" * 100 + b"text")
    assert "byte 0x98 at offset 0" in message
    assert "(with its actual encoding after -f)" in message
    for text, codec in ((FRENCH, "mac_roman"), (RUSSIAN, "cp866")):
        assert "looks like" not in refusal(text.encode(codec, "replace"))  # better none than a wrong one


@pytest.mark.parametrize("before", ["", "text ", ENGLISH * 100, CHINESE * 100])
def test_a_nul_byte_in_a_text_is_refused_with_its_offset(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    monkeypatch.setattr(reading, "_PIECE", 1000)
    content = before.encode() + b"\0" + ENGLISH.encode()
    message = refusal(content)
    assert f"old.txt has a NUL byte at offset {len(before.encode())}, which belongs in no text" in message
    assert "tr -d '\\000' < old.txt > new.txt" in message
    assert "\0" not in content.replace(b"\0", b"").decode()


def test_a_file_of_nuls_is_no_text_in_any_encoding(refusal: Refusal) -> None:
    """As a crashed disk leaves it."""
    assert "is a binary file: NUL byte at offset 0" in refusal(bytes(5000))
    assert "is a binary file" in refusal(bytes(3))


@pytest.mark.parametrize(
    "line",
    ["hello\0world ", "hello\0hi ", "abc\0", "hi\0", "人\0工智能", "1 1 1 1\0 ", "one\0\0two\n", "\x1b[1mred\x1b[0m\0"],
)
@pytest.mark.parametrize("count", [1, 2, 300, 20_000])
def test_a_few_nuls_at_regular_places_are_no_utf16(refusal: Refusal, line: str, count: int) -> None:
    """It was told to be UTF-16, which would have made Chinese of English."""
    message = refusal((line * count).encode())
    assert f"old.txt has a NUL byte at offset {line.encode().index(0)}, which belongs in no text" in message


@given(
    words=st.lists(st.text("abcdefghij é人\n", min_size=5, max_size=40), min_size=2, max_size=20),
    repeats=st.integers(1, 300),
)
def test_utf8_with_nuls_between_words_is_no_other_encoding(words: list[str], repeats: int) -> None:
    assert (unlike_text(("\0".join(words) * repeats).encode()) or "").startswith("has a NUL byte at offset")


HINDI, THAI = "हिन्दी में एक वाक्य।\n" * 20, "ประโยค ภาษาไทย\n" * 20
ALPHABETS = [ENGLISH, FRENCH, POLISH, RUSSIAN, GREEK, HEBREW, ARABIC, HINDI, THAI]
MIXED = ["第一次 world war 大战 one\n" * 20, "见 https://example.org/a/b 的说明。\n" * 9, "word 犇 word 骉 word\n" * 9]


@pytest.mark.parametrize("codec", ["UTF-16LE", "UTF-16BE"])
@pytest.mark.parametrize("text", [*ALPHABETS, *MIXED, CHINESE, TAIWAN, JAPANESE, KOREAN, "一\n", "да\n", "第一 a"])
def test_utf16_of_every_script_is_recognised_without_a_mark(text: str, codec: str) -> None:
    for content in (text.encode(codec), (text * 3000).encode(codec)[:SAMPLE]):
        message = unlike_text(content)
        assert message is None if b"\0" not in content else f"it looks like {codec}: " in str(message)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<u4", ">u4", "<i8"])
@pytest.mark.parametrize("ids", [range(1, 60), range(0, 50_000, 7), [0, 1, 2] * 50], ids=["small", "large", "smallest"])
def test_numbers_are_no_text_in_any_encoding(dtype: str, ids: Sequence[int]) -> None:
    """As other programs write token ids."""
    if dtype.endswith("u4") and max(ids) > 1000:
        pytest.skip("each could be a character in UTF-32")
    assert "is a binary file: NUL byte" in str(unlike_text(np.array([*ids] * 9, dtype).tobytes()))


def test_a_byte_order_mark_of_utf8_is_dropped_and_only_the_first(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes(b"\xef\xbb\xbf\xef\xbb\xbftext")
    assert read_text(tmp_path / "old.txt") == "\ufefftext"
    (tmp_path / "old.txt").write_bytes(b"\xef\xbb")
    with pytest.raises(ValueError, match="byte 0xef at offset 0"):
        read_text(tmp_path / "old.txt")


class Failing(io.BytesIO):
    """A file on a disk that fails behind its first bytes."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


def test_an_error_of_reading_names_what_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While tokenizing, the disk of the file to write was blamed."""
    monkeypatch.setattr(reading, "open_file", lambda _: Failing(ENGLISH.encode()))
    for read in (read_text, lambda path: tokenize_to_file([path], tmp_path / "out")):
        with pytest.raises(OSError, match="Input/output error") as caught:
            read(tmp_path / "book.txt")
        assert caught.value.filename == str(tmp_path / "book.txt")
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(TextReader(Failing(ENGLISH.encode())))
    assert caught.value.filename == "standard input"
    assert not list(tmp_path.iterdir())


# --- formats ---


def zipped(*names: str, stored: bytes = b"some content") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name in names:
            file.writestr(name, stored)
    return stream.getvalue()


def saved_by_torch() -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, stream)
    return stream.getvalue()


def saved_by_numpy(save: Callable[..., None]) -> bytes:
    stream = io.BytesIO()
    save(stream, np.arange(9))
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        entry = tarfile.TarInfo("book.txt")
        entry.size = 4
        file.addfile(entry, io.BytesIO(b"text"))
    return stream.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE texts (text)")
        return connection.serialize()


TEXT = sample_text().encode()
FORMATS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "gz.txt": (lambda: gzip.compress(TEXT), "compressed with gzip", "gzip -dc {} | tinygpt2 train -"),
    "bz2.txt": (lambda: bz2.compress(TEXT), "compressed with bzip2", "bzip2 -dc {} | tinygpt2 train -"),
    "xz.txt": (lambda: lzma.compress(TEXT), "compressed with xz", "xz -dc {} | tinygpt2 train -"),
    "zst.txt": (lambda: b"\x28\xb5\x2f\xfd\x24\x04!\x00\x00text\x9f", "compressed with zstd", "zstd -dc {} | tinygpt2"),
    "lz4": (
        lambda: b"\x04\x22\x4d\x18d@\xa7\x04\0\0\x80text\0",
        "compressed with lz4",
        "lz4 -dc {} | tinygpt2 train -",
    ),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(40), "a 7z archive", "7z x {}"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\0" + bytes(40), "a RAR archive", "unrar x {}"),
    "tar": (tarred, "a tar archive", "tar -xf {}"),
    "zip": (lambda: zipped("a.txt", "word/1.txt"), "a zip archive", "unzip -p {} | tinygpt2 train -"),
    "empty.zip": (zipped, "a zip archive", "unzip -p {}"),
    "docx": (lambda: zipped("[Content_Types].xml", "word/document.xml"), "a Word document", "pandoc -f docx"),
    "of-libreoffice.docx": (lambda: zipped("_rels/.rels", "word/document.xml"), "a Word document", "pandoc -f docx"),
    "xlsx": (lambda: zipped("[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook", ".txt"),
    "pptx": (lambda: zipped("[Content_Types].xml", "ppt/presentation.xml"), "an Office document", ".txt"),
    "unordered.docx": (lambda: zipped("docProps/app.xml", "word/document.xml"), "a Word document", "pandoc -f docx"),
    "unordered.xlsx": (lambda: zipped("docProps/app.xml", "xl/workbook.xml"), "an Excel workbook", ".txt"),
    "named.docx": (lambda: zipped("customXml/item1.xml"), "a Word document", "pandoc -f docx -t plain {}"),
    "named.ODT": (lambda: zipped("content.xml"), "an OpenDocument file", "pandoc -f odt -t plain {}"),
    "named.epub": (lambda: zipped("OEBPS/1.xhtml"), "an EPUB book", "pandoc -f epub -t plain {}"),
    "named.pptx": (lambda: zipped("docProps/app.xml"), "an Office document", ".txt"),
    "renamed-docx.bin": (lambda: zipped("docProps/app.xml", "word/document.xml"), "a Word document", "pandoc -f docx"),
    "epub": (lambda: zipped("mimetype", stored=b"application/epub+zip"), "an EPUB book", "pandoc -f epub -t plain {}"),
    "odt": (
        lambda: zipped("mimetype", stored=b"application/vnd.oasis.opendocument.text"),
        "an OpenDocument file",
        "pandoc -f odt",
    ),
    "doc": (lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500), "an Office document of before 2007", ".txt"),
    "pdf": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", "a PDF", "pdftotext {} - | tinygpt2 train -"),
    "plain.pdf": (lambda: b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj", "a PDF", "pdftotext {} -"),
    "rtf": (lambda: rb"{\rtf1\ansi A text}", "a document in Rich Text Format", "pandoc -f rtf -t plain {}"),
    "png": (lambda: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "an image", "trains on text"),
    "jpg": (lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0", "an image", "trains on text"),
    "mp4": (lambda: b"\0\0\0\x20ftypisom\0\0\2\0", "a video", "trains on text"),
    "mp3": (lambda: b"ID3\x04\0\0\0\0\x1f\x76\xff\xfb", "audio", "trains on text"),
    "parquet": (lambda: b"PAR1\x15\x04\x15\xfe\xff\0\0PAR1", "a Parquet table", 'read_documents({}, field="text")'),
    "arrow": (lambda: b"\xff\xff\xff\xff\xb8\x01\0\0\x10\0\0\0", "an Arrow table", 'from_file({})["text"]'),
    "sqlite": (database, "an SQLite database", "sqlite3 {}"),
    "pkl": (lambda: pickle.dumps(["text"]), "a pickle", "trains on text"),
    "pt": (saved_by_torch, "a file of PyTorch", "trains on text"),
    "npy": (lambda: saved_by_numpy(np.save), "an array of NumPy", "numpy.load({}, mmap_mode='r')"),
    "npz": (lambda: saved_by_numpy(np.savez), "an archive of NumPy", "make_dataloader"),
    "safetensors": (lambda: save({"weight": torch.zeros(3)}), "a file of weights", "trains on text"),
    "so": (lambda: b"\x7fELF\2\1\1\0" + bytes(8), "a program", "trains on text"),
    "bin": (lambda: bytes(range(256)), "a binary file", "trains on text"),
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_of_another_format_is_named_with_the_command_that_helps(refusal: Refusal, suffix: str) -> None:
    content, kind, command = FORMATS[suffix]
    message = refusal(content(), f"my book.{suffix}")
    assert f"my book.{suffix} is {kind}" in message
    assert "iconv" not in message
    quoted = re.search(r"'[^']*my book\.[^']*'", message)
    assert command.format(quoted[0] if quoted else "?") in message


def test_a_path_in_python_is_a_string_even_without_spaces(refusal: Refusal, tmp_path: Path) -> None:
    message = refusal(FORMATS["parquet"][0](), "{book}.parquet")
    assert f"read_documents({str(tmp_path / '{book}.parquet')!r}, " in message


@pytest.mark.skipif(not all(map(shutil.which, ["bash", "gzip"])), reason="has no bash or gzip")
def test_the_command_that_decompresses_works(refusal: Refusal) -> None:
    message = refusal(gzip.compress(TEXT), "it's a book")
    command = message.partition("decompress it: ")[2].replace("tinygpt2 train -", "cat")
    assert subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout == TEXT


@pytest.mark.parametrize(
    "text", ["PK and other words", "MZé", "GIF89a", "ID3 tags", "%PDF", "{", "Rar!", "PAR1", "BZh9"]
)
def test_a_text_that_begins_like_a_format_is_a_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    assert read_text(tmp_path / "text.txt") == text


def test_a_file_of_tokens_is_no_text(refusal: Refusal, tmp_path: Path) -> None:
    tokens = tokenize_to_file(["some text"], tmp_path / "tokens").path.read_bytes()
    message = refusal(tokens)
    assert (
        "is a file of tokens, where a text is expected; pass its path to 'tinygpt2 train', or TokenFile(path)"
        in message
    )


# --- pipes ---


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Returns what makes a named pipe into which a thread writes pieces."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("has no named pipes")
    threads: list[threading.Thread] = []

    def make(*pieces: bytes) -> Path:
        path = tmp_path / f"pipe-{len(threads)}"
        os.mkfifo(path)

        def write() -> None:
            with path.open("wb", buffering=0) as file:
                for piece in pieces:
                    file.write(piece)

        threads.append(threading.Thread(target=write, daemon=True))
        threads[-1].start()
        return path

    yield make
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_pipe_loses_nothing_however_it_is_filled(pipe: Callable[..., Path], tmp_path: Path) -> None:
    """Its first 4,096 bytes were gone, since it was opened once to look what it was and again to read it."""
    text = sample_text().replace("\n", "\r\n")
    content = "\ufeff".encode() + text.encode()
    assert read_text(pipe(content)) == sample_text()
    assert read_text(pipe(*(content[i : i + 1] for i in range(300)), content[300:])) == sample_text()
    tokens = tokenize_to_file([pipe(content[:5000], content[5000:])], tmp_path / "out")
    assert tokens.tokens.tolist() == tokenize_to_file([sample_text()], tmp_path / "same").tokens.tolist()


def test_what_a_pipe_brings_is_recognised_too(pipe: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="compressed with gzip"):
        read_text(pipe(b"\x1f", gzip.compress(TEXT)[1:1000]))
    with pytest.raises(ValueError, match="it looks like UTF-16LE"):
        read_text(pipe(b"a", "a text".encode("utf-16-le")[1:]))
    with pytest.raises(ValueError, match=r"gzip -dc FILE \|"):  # not the name of the pipe, which is empty by then
        read_text(pipe(gzip.compress(TEXT)))
    with pytest.raises(ValueError, match="byte 0xff at offset 70000"):
        read_text(pipe(b"a" * 70_000, b"\xff"))


@contextmanager
def in_pieces_of(size: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_PIECE", size)
        patch.setattr(reading, "SAMPLE", size)
        yield


@given(text=st.text("a\r\n\ufeff你😀", max_size=30), piece=st.integers(1, 7))
@settings(max_examples=200)
def test_a_text_in_pieces_that_end_anywhere_is_the_whole(text: str, piece: int) -> None:
    with in_pieces_of(piece):
        reader = TextReader(io.BytesIO(text.encode()))
        assert "".join(reader) == text.removeprefix("\ufeff").replace("\r\n", "\n")
        assert reader.bytes_read == len(text.encode())


@given(before=st.text("ab你😀", max_size=20), piece=st.integers(1, 7))
def test_the_offset_of_a_wrong_byte_is_the_files(before: str, piece: int) -> None:
    content = before.encode() + b"\xff and more"
    with in_pieces_of(piece), pytest.raises(ValueError, match=rf"byte 0xff at offset {len(before.encode())};"):
        list(TextReader(io.BytesIO(content)))


@given(content=st.binary(max_size=400))
@settings(max_examples=300)
def test_any_bytes_are_their_text_or_one_line(content: bytes) -> None:
    is_text = b"\0" not in content and not content.startswith((b"%PDF-", rb"{\rtf"))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        is_text = False
    if is_text:
        expected = text.removeprefix("\ufeff").replace("\r\n", "\n")
        assert "".join(TextReader(io.BytesIO(content))) == expected
        return
    with pytest.raises(ValueError, match=r"^standard input [ -~]+$"):
        list(TextReader(io.BytesIO(content)))


def test_a_file_is_opened_once_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[IO[Any]] = []
    real: Callable[..., IO[Any]] = Path.open

    def counting(*arguments: object) -> IO[Any]:
        opened.append(real(*arguments))
        return opened[-1]

    (tmp_path / "text.txt").write_bytes(TEXT)
    monkeypatch.setattr(Path, "open", counting)
    read_text(tmp_path / "text.txt")
    with open_text(tmp_path / "text.txt") as reader:
        next(iter(reader))
    assert [file.closed for file in opened] == [True, True]


# --- what cannot be opened ---


def readers(path: Path, out: Path) -> Iterator[Callable[[], object]]:
    yield lambda: read_text(path)
    yield lambda: read_text(str(path))
    yield lambda: tokenize_to_file(["text", path], out)
    yield lambda: tokenize_to_file(path, out)  # type: ignore[arg-type]


def test_a_missing_file_has_a_name_like_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("book.txt", "journal.txt"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    for read in readers(tmp_path / "bok.txt", tmp_path / "out"):
        with pytest.raises(FileNotFoundError, match=rf"did you mean {re.escape(str(tmp_path / 'book.txt'))}\?.*bok"):
            read()
    with pytest.raises(FileNotFoundError) as caught:
        read_text(tmp_path / "else.md")
    assert "did you mean" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="No such file"):
        read_text(tmp_path / "none" / "book.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"did you mean journal\.txt\?"):
        read_text("jurnal.txt")
    with pytest.raises(FileNotFoundError, match=f"directory in {re.escape(str(tmp_path))}"):
        read_text("else.md")


def test_a_folder_says_which_files_it_has(tmp_path: Path) -> None:
    for read in readers(tmp_path, tmp_path / "out"):
        with pytest.raises(IsADirectoryError, match=r"Is a directory, without \.txt files; pass text files"):
            read()
    for name in ("a.txt", "B.TXT", "c.md"):
        (tmp_path / name).touch()
    pattern = re.escape(str(tmp_path / "*.txt"))
    for read in readers(tmp_path, tmp_path / "out"):
        with pytest.raises(IsADirectoryError, match=f"Is a directory with 2 text files; pass them: {pattern}"):
            read()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.touch(0o200)
    for read in readers(path, tmp_path / "out"):
        with pytest.raises(PermissionError, match="its owner can allow reading it"):
            read()


def test_an_empty_file_is_an_empty_text_and_no_tokens(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.touch()
    assert read_text(path) == ""
    with pytest.raises(ValueError, match=r"no tokens to write: .*empty\.txt is empty"):
        tokenize_to_file([path], tmp_path / "out")
