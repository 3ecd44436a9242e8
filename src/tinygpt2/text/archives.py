"""Compressed files, which are decompressed while they are read."""

import bz2
import io
import lzma
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Protocol

_PIECE = 256 << 10  # compressed bytes to read at a time
_BUFFER = 1 << 20  # bytes decompressed ahead


class _Stream(Protocol):
    """What all incremental decompressors have."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Gzip:
    """`zlib`'s decompressor with the interface of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 16)  # with gzip's header and checksum

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _zstd(path: Path) -> Any:  # noqa: ANN401 - a module
    """Returns Python's module for zstd, or the same for an older Python."""
    try:
        return import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError as error:
        raise ImportError(f"reading {path} needs backports.zstd: pip install 'tinygpt2[zstd]'") from error


@dataclass(frozen=True)
class _Format:
    name: str
    begin: bytes
    """How a stream begins, as a regular expression for `length` bytes."""
    length: int
    make: Callable[[Path], _Stream]


_FORMATS = {
    ".gz": _Format("gzip", rb"\x1f\x8b", 2, lambda _: _Gzip()),
    ".bz2": _Format("bzip2", b"BZh", 3, lambda _: bz2.BZ2Decompressor()),
    ".xz": _Format("xz", rb"\xfd7zXZ\0", 6, lambda _: lzma.LZMADecompressor(lzma.FORMAT_XZ)),
    ".zst": _Format(  # or what decompressors skip
        "zstd", rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", 4, lambda path: _zstd(path).ZstdDecompressor()
    ),
}
COMPRESSED = tuple(_FORMATS)
"""The endings of compressed files."""


def check_can_decompress(path: Path) -> None:
    """Raises ``ImportError`` if a compressed file needs a module that is not installed."""
    if path.suffix.lower() == ".zst":
        _zstd(path)


class Decompressed(io.BufferedReader):
    """The content of a compressed file, which may have several streams one after another.

    Args:
        file: The open file.
        path: Its path, whose ending says how it is compressed.

    Raises:
        ValueError: While reading, if it is compressed in another way, cut off or damaged, or if anything but zeros
            follows.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._streams = _Streams(file, path)
        super().__init__(self._streams, _BUFFER)

    @property
    def position(self) -> int:
        """Number of compressed bytes read."""
        return self._streams.position


class _Streams(io.RawIOBase):
    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self._format = _FORMATS[path.suffix.lower()]
        self._stream: _Stream | None = None
        self._held = b""  # of the next stream
        self._ended = False
        self.position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - no name for it before Python 3.12
        """Fills a part of the buffer with the next bytes; returns how many they are, 0 at the end."""
        content = b""
        while not content and not self._ended:
            if self._stream is None or self._stream.eof:
                self._stream = self._next(self._stream)
            if self._stream is None:
                self._ended = True
                return 0
            content = self._decompress(self._stream, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _next(self, last: _Stream | None) -> _Stream | None:
        """Begins the stream after the last one, if there is any."""
        content = b"" if last is None else last.unused_data
        padding = b"" if last is None else b"\0"  # which some disks and tapes add
        content = content.lstrip(padding)
        while len(content) < self._format.length and (more := self._read()):
            content = (content + more).lstrip(padding)
        if last is not None and not content:
            return None
        if content and not re.match(self._format.begin, content):
            raise ValueError(f"{self._path} {self._unlike(len(content), first=last is None)}")
        self._held = content
        return self._format.make(self._path)

    def _unlike(self, length: int, *, first: bool) -> str:
        name, suffix = self._format.name, self._path.suffix
        if first:
            return (
                f"is not compressed with {name}, though its name ends in {suffix}; if it is not compressed at all, "
                f"rename it without {suffix}"
            )
        return (
            f"has something other than {name} after its end, at byte {self.position - length:,}; it is damaged, or "
            "joined with another file: make or download it again"
        )

    def _decompress(self, stream: _Stream, size: int) -> bytes:
        content, self._held = self._held, b""
        if not content and stream.needs_input and not (content := self._read()):
            raise ValueError(
                f"{self._path} is cut off: it ends after {self.position:,} bytes, within what {self._format.name} "
                "compressed; make or download it again"
            )
        try:
            return stream.decompress(content, size)
        except Exception as error:  # noqa: BLE001 - zlib.error, OSError, LZMAError, ZstdError
            raise ValueError(
                f"{self._path} is damaged at about byte {self.position:,}: {self._format.name} cannot decompress it "
                f"({error}); make or download it again"
            ) from None

    def _read(self) -> bytes:
        content = self._file.read(_PIECE)
        self.position += len(content)
        return content


def decompressed(file: IO[bytes], path: Path) -> IO[bytes] | Decompressed:
    """Returns the content of an open file: decompressed if its name ends like that of a compressed one."""
    return Decompressed(file, path) if path.suffix.lower() in COMPRESSED else file
