"""What a file is if it is not a text in UTF-8, and what turns it into one."""

import codecs
import difflib
import errno
import os
import re
import stat
from pathlib import Path
from typing import IO

TOKENS_MAGIC = b"tinygpt2 tokens\n"
"""How a file of tokens begins."""

SAMPLE = 64 << 10
"""Bytes from which a content is recognised."""

_NAMES = 10_000  # in a directory; in a larger one, no similar name is looked for


def check_input(path: Path) -> os.stat_result:
    """Returns what the system knows about a file or a pipe without opening it, or raises as `explained` does."""
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
    except OSError as error:
        raise explained(error, path) from error
    return found


def open_file(path: Path) -> IO[bytes]:
    """Opens a file or a pipe for reading, or raises as `explained` does."""
    try:
        return path.open("rb")
    except OSError as error:
        raise explained(error, path) from error


def explained(error: OSError, path: Path) -> OSError:
    """Returns the error of opening a file that also says what to do."""
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where nobody may look; Windows has no error of its own
        return IsADirectoryError(errno.EISDIR, f"Is a directory{_texts_in(path)}", str(path))
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, f"No such file or directory{_nearest(path)}", str(path))
    if isinstance(error, PermissionError):
        return PermissionError(errno.EACCES, "Permission denied; its owner can allow reading it", str(path))
    return error


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names
    except OSError:
        return []


def _texts_in(directory: Path) -> str:
    count = sum(name.lower().endswith(".txt") for name in _names_in(directory))
    if not count:
        return ", without .txt files; pass text files"
    return f" with {count:,} text {'file' if count == 1 else 'files'}; pass them: {directory / '*.txt'}"


def _nearest(path: Path) -> str:
    names = _names_in(path.parent)
    close = difflib.get_close_matches(path.name, names, n=1) if len(names) <= _NAMES else []
    if close:
        return f"; did you mean {path.parent / close[0]}?"
    return "" if path.is_absolute() else f" in {Path.cwd()}"


# --- contents ---

_TRAIN = "tinygpt2 train -"
_NO_TEXT = "tinygpt2 trains on text"
_NAMED = "pass a file whose name ends in"

# How contents begin, what they are, and how to get a text. No text in UTF-8 begins so, but for the first two.
_MARKED = (
    (rb"%PDF-", "a PDF", f"extract its text: pdftotext {{file}} - | {_TRAIN}"),
    (rb"\{\\rtf", "a document in Rich Text Format", f"extract its text: pandoc -f rtf -t plain {{file}} | {_TRAIN}"),
)
_DOCX = ("a Word document", f"extract its text: pandoc -f docx -t plain {{file}} | {_TRAIN}")
_XLSX = ("an Excel workbook", "save its texts as a .txt file")
_PPTX = ("an Office document", "save its text as a .txt file")
_ODT = ("an OpenDocument file", f"extract its text: pandoc -f odt -t plain {{file}} | {_TRAIN}")
_EPUB = ("an EPUB book", f"extract its text: pandoc -f epub -t plain {{file}} | {_TRAIN}")
_ZIPPED = {".docx": _DOCX, ".xlsx": _XLSX, ".pptx": _PPTX, ".odt": _ODT, ".epub": _EPUB}  # whatever comes first in them
_ZIP = rb"PK(?:\x03\x04|\x05\x06)"
_FILE_OF_A_ZIP = rb"(?=PK\x03\x04).*PK\x03\x04.{26}"
_BINARY = (
    (re.escape(TOKENS_MAGIC), "a file of tokens, where a text is expected",
     "pass its path to 'tinygpt2 train', or TokenFile(path) to make_dataloader"),
    (rb"\x1f\x8b", "compressed with gzip", f"{_NAMED} .gz, or decompress it: gzip -dc {{file}} | {_TRAIN}"),
    (rb"BZh[1-9]1AY&SY", "compressed with bzip2", f"{_NAMED} .bz2, or decompress it: bzip2 -dc {{file}} | {_TRAIN}"),
    (rb"\xfd7zXZ\0", "compressed with xz", f"{_NAMED} .xz, or decompress it: xz -dc {{file}} | {_TRAIN}"),
    (rb"\x28\xb5\x2f\xfd", "compressed with zstd", f"{_NAMED} .zst, or decompress it: zstd -dc {{file}} | {_TRAIN}"),
    (rb"\x04\x22\x4d\x18", "compressed with lz4", f"decompress it: lz4 -dc {{file}} | {_TRAIN}"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it, and pass its text files: 7z x {file}"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it, and pass its text files: unrar x {file}"),
    (rb"[\s\S]{257}ustar", "a tar archive", "unpack it, and pass its text files: tar -xf {file}"),
    (rb"PK\x03\x04.{26}mimetypeapplication/epub", *_EPUB),
    (rb"PK\x03\x04.{26}mimetypeapplication/vnd\.oasis", *_ODT),
    (_FILE_OF_A_ZIP + rb"word/(?:document|styles|settings|fontTable)\.xml", *_DOCX),
    (_FILE_OF_A_ZIP + rb"xl/(?:workbook\.xml|worksheets/)", *_XLSX),
    (_FILE_OF_A_ZIP + rb"(?:ppt/(?:presentation\.xml|slides/)|\[Content_Types\]|_rels/)", *_PPTX),
    (_FILE_OF_A_ZIP + rb"META-INF/container\.xml", *_EPUB),
    (rb"PK\x03\x04.{26}[^/\0]{1,255}/(?:data\.pkl|\.format_version|version)", "a file of PyTorch", _NO_TEXT),
    (rb"PK\x03\x04.{26}[^\0]{1,255}?\.npy", "an archive of NumPy", "pass its array of token ids to make_dataloader"),
    (_ZIP, "a zip archive", f"unpack it: unzip -p {{file}} | {_TRAIN}"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document of before 2007", "save its text as a .txt file"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF.{4}WEBP", "an image", _NO_TEXT),
    (rb"ID3[\x02-\x04]|OggS\0|fLaC\0|RIFF.{4}(?:WAVE|AVI )|\xff[\xfb\xf3\xf2].{0,600}\0", "audio", _NO_TEXT),
    (rb".{4}ftyp|\x1aE\xdf\xa3", "a video", _NO_TEXT),
    (rb"PAR1[\0-\x1f]", "a Parquet table",
     'read its column of texts, from a name that ends in .parquet: read_documents({path}, field="text")'),
    (rb"ARROW1|\xff\xff\xff\xff.{2}\0\0", "an Arrow table",
     'write its column of texts: tokenize_to_file(datasets.Dataset.from_file({path})["text"], "corpus.tokens")'),
    (rb"SQLite format 3\0", "an SQLite database", f"select its texts: sqlite3 {{file}} 'SELECT ...' | {_TRAIN}"),
    (rb"\x80[\x02-\x05]", "a pickle", _NO_TEXT),
    (rb"\x93NUMPY", "an array of NumPy", "pass token ids to make_dataloader: numpy.load({path}, mmap_mode='r')"),
    (rb"\x89HDF\r\n", "an HDF5 file", _NO_TEXT),
    (rb"GGUF[\x01-\x0f]\0|.{4}\0\0\0\0\{", "a file of weights", _NO_TEXT),
    (rb"\x7fELF|MZ.{0,100}\0|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe|\0asm", "a program", _NO_TEXT),
)  # fmt: skip

# The encodings that an editor may have used: name, codec (Python's and iconv's), and characters that are frequent in
# texts in it. Another encoding's text becomes other characters when it is read in this one.
_CHINESE = "的一是不了在人有我他中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过，。、：；“”《》"
_TAIWAN = "的一是不了在人有我他中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過，。、：；「」《》"
_JAPANESE = "のにはをたがでとしれさあるいすもなかっらりくこまきんそけ、。「」"
_KOREAN = "이다는에의가을를고한하은지로사기도아어리나인자대시그해서스정라일"
_CYRILLIC = "оеаинтсрвлкмдп"
_GREEK = "αοιετσνηρπκςάέήίόώ"
_HEBREW = "יוהלאתרבמשנםחעדק"
_ARABIC = "اليمنوربتعدةسأفحك"
_WESTERN = "éèêëàâäáåãæçîïíñóòôöõøœúùûüßÉÀÄÖÜ’‘“”–—…«»°·€£©"
_CENTRAL = "ąćęłńóśźżáčďéěíňřšťúůýžäöüőűăâîșțŠČŽŚ„”“’–—…"
_TURKISH = "ğışöüçâîİŞÖÜÇ’‘“”–—…"
_ENCODINGS = (
    ("GB18030 (simplified Chinese)", "GB18030", _CHINESE),
    ("Big5 (traditional Chinese)", "CP950", _TAIWAN),
    ("Shift-JIS (Japanese)", "CP932", _JAPANESE),
    ("EUC-JP (Japanese)", "EUC-JP", _JAPANESE),
    ("EUC-KR (Korean)", "CP949", _KOREAN),
)
_OF_WORDS = (  # one byte for each letter of a word
    ("Windows-1251 (Cyrillic)", "CP1251", _CYRILLIC),
    ("KOI8-R (Cyrillic)", "KOI8-R", _CYRILLIC),
    ("Windows-1253 (Greek)", "CP1253", _GREEK),
    ("Windows-1255 (Hebrew)", "CP1255", _HEBREW),
    ("Windows-1256 (Arabic)", "CP1256", _ARABIC),
)
_OF_ACCENTS = (  # one byte for each letter with an accent, among ASCII
    ("Windows-1252 (Western European, Latin-1)", "CP1252", _WESTERN),
    ("Windows-1250 (Central European)", "CP1250", _CENTRAL),
    ("Windows-1254 (Turkish)", "CP1254", _TURKISH),
)
_SHARES = {1: 0.7, 2: 0.25}  # of those characters, by the bytes of each, from which the encoding is likely
_IN_A_WORD = 2.5  # bytes together, on average: accents come one or two at a time

_WIDE = frozenset(_CHINESE + _TAIWAN + _JAPANESE + _KOREAN + _CYRILLIC)
_CERTAIN = 10  # characters of several bytes that are valid in UTF-8; of two-byte encodings, one in four happens to be

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def unlike_text(start: bytes, name: str = "") -> str | None:
    """Returns what a content is and what to do, if its beginning shows that it is not a text in UTF-8.

    Args:
        start: The first bytes, `SAMPLE` of them if there are as many.
        name: Name of the file, whose ending tells archives apart.

    Returns:
        A predicate, in which ``{file}`` stands for the name of the file in a shell, ``{path}`` for that in Python.
    """
    utf8 = _is_utf8(start)
    plain = utf8 and b"\0" not in start
    suffix = Path(name).suffix.lower()
    named = [(_ZIP, *_ZIPPED[suffix])] if suffix in _ZIPPED else []
    for pattern, kind, advice in _MARKED if plain else (*_MARKED, *named, *_BINARY):
        if re.match(pattern, start, re.DOTALL):
            return f"is {kind}; {advice}"
    if mark := next((name for mark, name in _MARKS if start.startswith(mark)), None):
        return f"is not UTF-8: byte 0x{start[0]:02x} at offset 0; it is {mark}: {_converted(mark)}"
    if b"\0" not in start:
        return None
    if wide := _wide(start):
        return f"is not UTF-8: NUL byte at offset {start.index(0)}; it looks like {wide}: {_converted(wide)}"
    if utf8 and start.count(0) <= len(start) / 3 and _is_readable(start.replace(b"\0", b"").decode("utf-8", "replace")):
        return nul_bytes(start.index(0))
    return f"is a binary file: NUL byte at offset {start.index(0)}; {_NO_TEXT}"


def advice_on_bytes(content: bytes, error: int) -> str:
    """Returns what to do about a content that is not UTF-8 from the byte at index ``error``."""
    begin = content.rfind(b"\n", 0, error) + 1
    if len(re.findall(rb"[\xc2-\xf4][\x80-\xbf]", content[:error])) >= _CERTAIN:
        return (
            "the text before it is UTF-8, so the file is damaged or joined from several encodings; mend it, or drop "
            "what is invalid: iconv -c -f UTF-8 -t UTF-8 old.txt > new.txt"
        )
    if likely := _likely(content[begin : begin + SAMPLE]):
        name, codec = likely
        return f"it looks like {name}: {_converted(codec)}"
    return f"{_converted('GB18030')} (with its actual encoding after -f)"


def nul_bytes(offset: int) -> str:
    """Returns what is wrong with a content that has a NUL byte there, and what to do."""
    return (
        f"has a NUL byte at offset {offset}, which belongs in no text; remove them all: "
        "tr -d '\\000' < old.txt > new.txt"
    )


def _converted(codec: str) -> str:
    return f"save it as UTF-8 in your editor, or convert it: iconv -f {codec} -t UTF-8 old.txt > new.txt"


def _is_utf8(start: bytes) -> bool:
    """Returns whether the bytes, which may end within a character, are UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return True


def _wide(start: bytes) -> str | None:
    """Returns which encoding of two or four bytes a character explains the NULs, if one does."""
    bytes_ = [start[i::4] for i in range(4)]
    first, second, third, fourth = (part.count(0) / (len(start) / 4) for part in bytes_)
    fits = {
        "UTF-32LE": len(start) >= 4 and min(third, fourth) > 0.9 > first,
        "UTF-32BE": len(start) >= 4 and min(first, second) > 0.9 > fourth,
        "UTF-16LE": _is_utf16(start[1::2], start[::2]),
        "UTF-16BE": _is_utf16(start[::2], start[1::2]),
    }
    for codec, explains in fits.items():
        text = start.decode(codec, "replace")
        if (explains or _share(text, _WIDE) > _SHARES[2]) and _is_readable(text):
            return codec
    return None


def _is_utf16(high: bytes, low: bytes) -> bool:
    """Returns whether the bytes that would be the higher and the lower halves of characters are.

    NULs on one side alone would not do: a text with one in each line of an even length has them there, too. In UTF-16
    of all alphabets nearly all higher halves are below 0x20, as few bytes of a text in ASCII are.
    """
    if high.count(0) * len(low) <= 20 * low.count(0) * len(high):
        return False
    return high.count(0) > len(high) / 2 or sum(byte < 0x20 for byte in high) > 0.9 * len(high)


def _is_readable(text: str) -> bool:
    """Returns whether hardly any characters are control characters, which small numbers in a binary file would be."""
    return sum(char < " " and char not in "\t\n\r\f\v\b\x1b" for char in text) <= len(text) / 20


def _likely(sample: bytes) -> tuple[str, str] | None:
    """Returns the most likely encoding of bytes that are not UTF-8, as its name and codec, if one is likely."""
    runs = re.findall(rb"[\x80-\xff]+", sample)
    in_words = sum(map(len, runs)) > _IN_A_WORD * len(runs)
    candidates = [(*each, _SHARES[2]) for each in _ENCODINGS]
    candidates += [(*each, _SHARES[1]) for each in (_OF_WORDS if in_words else _OF_ACCENTS)]
    score, name, codec = max(
        (_share(sample.decode(codec, "replace"), frozenset(frequent)) / needed, name, codec)
        for name, codec, frequent, needed in candidates
    )
    return (name, codec) if score >= 1 else None


def _share(text: str, frequent: frozenset[str]) -> float:
    """Returns how many of the characters outside ASCII are among the frequent ones."""
    others = [char for char in text if not char.isascii()]
    return sum(char in frequent for char in others) / max(1, len(others))
