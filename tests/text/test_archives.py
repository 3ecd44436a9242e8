"""Compressed files: read in pieces, and refused where they are cut off, damaged or something else."""

import bz2
import gzip
import io
import lzma
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt2 import read_text
from tinygpt2.text import archives
from tinygpt2.text.archives import Decompressed, check_can_decompress


def zstd(content: bytes) -> bytes:
    module = pytest.importorskip("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    compressed: bytes = module.compress(content)
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
NAMES = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
TEXT = "".join(f"{i} lines, 世界, and more of them\n" for i in range(5000))

every_format = pytest.mark.parametrize("suffix", COMPRESS)


def read(content: bytes, suffix: str) -> bytes:
    return Decompressed(io.BytesIO(content), Path(f"a{suffix}")).read()


@every_format
def test_a_compressed_text_is_read_as_the_text(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"book.txt{suffix.upper()}"
    path.write_bytes(COMPRESS[suffix](("\ufeff" + TEXT.replace("\n", "\r\n")).encode()))
    assert read_text(path) == TEXT


@every_format
@given(parts=st.lists(st.binary(max_size=50), min_size=1, max_size=4), piece=st.integers(1, 9), data=st.data())
def test_any_bytes_in_several_streams_with_zeros_between_and_pieces_of_any_size(
    suffix: str, parts: list[bytes], piece: int, data: st.DataObject
) -> None:
    """As `cat a.gz b.gz` makes them, and as tapes pad them."""
    content = b"".join(COMPRESS[suffix](part) + bytes(4 * data.draw(st.integers(0, 5))) for part in parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archives, "_PIECE", piece)
        file = Decompressed(io.BytesIO(content), Path(f"a{suffix}"))
        found = b"".join(iter(lambda: file.read(data.draw(st.integers(1, 30))), b""))
    assert found == b"".join(parts)
    assert file.read() == b""  # at its end again
    assert file.position == len(content)


@every_format
@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_anywhere_says_so(suffix: str, cut: float) -> None:
    content = COMPRESS[suffix](TEXT.encode())
    content = content[: int(cut * len(content))]
    short = "is cut off|is not compressed with" if len(content) < 6 else "is cut off"
    with pytest.raises(ValueError, match=rf"a\{suffix} ({short})"):
        read(content, suffix)


@every_format
def test_a_file_that_is_cut_off_says_where_and_what_to_do(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"book{suffix}"
    content = COMPRESS[suffix](TEXT.encode())[:-3]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"is cut off: it ends after {len(content):,} bytes, within what") as caught:
        read_text(path)
    assert str(caught.value).startswith(str(path))
    assert str(caught.value).endswith("make or download it again")


@every_format
@given(at=st.floats(0.1, 0.9), flip=st.integers(1, 255))
def test_damage_is_an_error_or_changes_nothing(suffix: str, at: float, flip: int) -> None:
    """Each format has a checksum, but zstd's default has none: there, damage may be another text."""
    content = bytearray(COMPRESS[suffix](TEXT.encode()))
    content[int(at * len(content))] ^= flip
    try:
        found = read(bytes(content), suffix)
    except ValueError as error:
        assert "damaged" in str(error) or "cut off" in str(error)  # noqa: PT017 - one of both
    else:
        assert found == TEXT.encode() or suffix == ".zst"


@every_format
def test_what_follows_the_end_is_refused(suffix: str) -> None:
    content = COMPRESS[suffix](b"text")
    for garbage in (b"garbage that is long enough", b"x", b"\0\0\0\0x"):
        with pytest.raises(ValueError, match=f"a{suffix} has something other than {NAMES[suffix]} after its end"):
            read(content + garbage, suffix)


@every_format
def test_another_content_than_the_name_says(suffix: str) -> None:
    for content in (TEXT.encode(), b"a", b"\0\0\0\0\0\0text"):
        with pytest.raises(ValueError, match=f"is not compressed with {NAMES[suffix]}, .* rename it without {suffix}"):
            read(content, suffix)


@every_format
def test_much_of_nothing_is_never_held_as_a_whole(suffix: str) -> None:
    """A gigabyte of zeros fits into a few bytes."""
    file = Decompressed(io.BytesIO(COMPRESS[suffix](bytes(20 << 20))), Path(f"a{suffix}"))
    sizes = [len(piece) for piece in iter(lambda: file.read1(100_000), b"")]
    assert sum(sizes) == 20 << 20
    assert max(sizes) <= 1 << 20


@every_format
def test_an_error_of_the_disk_is_no_damage(suffix: str) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(min(size or 10, 10))

    with pytest.raises(OSError, match="Input/output error"):
        Decompressed(Failing(COMPRESS[suffix](TEXT.encode())), Path(f"a{suffix}")).read()


def test_zstd_without_its_module_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        if name.endswith("zstd"):
            raise ModuleNotFoundError(name)
        return import_module(name)

    monkeypatch.setattr(archives, "import_module", missing)
    check_can_decompress(Path("a.gz"))
    with pytest.raises(ImportError, match=r"reading a\.ZST needs backports\.zstd: pip install 'tinygpt2\[zstd\]'"):
        check_can_decompress(Path("a.ZST"))
