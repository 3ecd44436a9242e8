"""Corpora in several files of tokens, made so that an interrupted run continues where it stopped."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple, NoReturn

from tinygpt2._internal.checks import check_int, check_path, shown
from tinygpt2._internal.files import PathLike, make_directories
from tinygpt2._internal.texts import utf8_size
from tinygpt2.data.pieces import CUT, can_be_cut, in_parts
from tinygpt2.data.token_file import TokenFile, read_header
from tinygpt2.data.token_header import MOST_SHARDS, Header, Shard
from tinygpt2.data.tokenizing import Corpus, check_threads
from tinygpt2.tokenizers.foreign import AnyTokenizer

_SHARD_BYTES = 1 << 28  # of text: what an interruption costs is ten seconds of work
_MOST_SHARD_BYTES = 1 << 48
_END = b"\xff"  # of a document, in hashes: UTF-8 does not have it


def tokenize_to_shards(
    source: Iterable[str | os.PathLike[str]],
    directory: PathLike,
    *,
    shard_bytes: int = _SHARD_BYTES,
    tokenizer: AnyTokenizer | None = None,
    threads: int | None = None,
    documents: bool = False,
    field: str = "text",
    share: tuple[int, int] | None = None,
) -> list[TokenFile]:
    """Encodes a large corpus into several files of token ids, and continues where an interrupted call stopped.

    The files are ``00000.tokens``, ``00001.tokens`` and so on. Each appears only when it is complete. Where one ends
    depends on the text alone: at the end of a document, or where a text can be cut without changing its tokens, so that
    all ids are those of the whole text encoded at once.

    A call with the same arguments reads the text of the complete files again, compares its hash with theirs, and
    encodes the rest. If all files are complete, it reads their headers and no text: for a text that has changed,
    delete the directory, or pass another one.

    Args:
        source: As in `tokenize_to_file`; it gives the same text in each call.
        directory: Directory of the files; it is created if needed.
        shard_bytes: After how many bytes of text in UTF-8 a file ends, as soon as it can.
        tokenizer: `gpt2_tokenizer` by default. Without ``documents``, byte pairs with GPT-2's pattern or a
            `CharTokenizer`, since of others it is not known where a text can be cut.
        threads: Number of threads that encode; the number of cores by default.
        documents: Whether each item of ``source`` is a document, to be followed by the end-of-text token.
        field: Name of the column of documents, if ``source`` is a table or a data set.
        share: (k, n) to write the k-th of every n files only, counted from 1, for instance one of n machines that write
            into a directory which all of them see, or whose files are brought together afterwards. Each reads the whole
            text, and encodes its share.

    Returns:
        The files that are there, in order.

    Raises:
        FileNotFoundError: If a file does not exist; other ``OSError`` if one cannot be read or written.
        TypeError: As `tokenize_to_file` does.
        ValueError: As `tokenize_to_file` does; if the text of one tokenizer cannot be cut; or if complete files were
            made of another text, with another tokenizer or with other options.

    >>> import tempfile
    >>> texts = ["One document.", "Another one.", "The third."]
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     shards = tokenize_to_shards(
    ...         texts, directory, shard_bytes=20, documents=True
    ...     )
    >>> [(shard.path.name, shard.documents) for shard in shards]
    [('00000.tokens', 2), ('00001.tokens', 1)]
    """
    threads = check_threads(threads)
    directory = check_path("directory", directory)
    shard_bytes = check_int("shard_bytes", shard_bytes, maximum=_MOST_SHARD_BYTES)
    corpus = Corpus(source, tokenizer, documents=documents, field=field)
    if not documents and not can_be_cut(corpus.tokenizer):
        raise ValueError(
            "it is not known where a text can be cut without changing the tokens of this tokenizer; pass "
            "documents=True, or use tokenize_to_file"
        )
    number, of = _checked_share(share)
    made = _complete(directory, corpus, shard_bytes, gaps=of > 1)
    if not (made and list(made) == list(range(len(made))) and made[len(made) - 1].last):
        make_directories(directory)
        _write(corpus, directory, shard_bytes, made, threads=threads, share=(number - 1, of))
    return [TokenFile(path) for path in _paths(directory, gaps=of > 1)]


def check_complete(files: Sequence[TokenFile]) -> None:
    """Raises ``ValueError`` if files of `tokenize_to_shards` are not all of their corpus, and names what is wrong.

    Args:
        files: Files of tokens; of others nothing is checked.
    """
    corpora: dict[Path, dict[int, tuple[TokenFile, Shard]]] = {}
    for file in files:
        shard = read_header(file.path).shard
        if shard is not None:
            corpora.setdefault(file.path.parent, {})[shard.index] = file, shard
    for directory, shards in corpora.items():
        last = max(shards)
        again = "run the same tokenize command again"
        if missing := [index for index in range(last) if index not in shards]:
            raise ValueError(f"{_path(directory, missing[0])} is missing: there are files up to {last:05d}; {again}")
        if not shards[last][1].last:
            raise ValueError(f"the corpus in {directory} ends before its text does: it has no file after "
                             f"{last:05d}.tokens; {again}")  # fmt: skip
        first = shards[0]
        for file, shard in shards.values():
            same = file.tokenizer_sha256 == first[0].tokenizer_sha256 and shard.shard_bytes == first[1].shard_bytes
            if not same or (shard.last and shard.index != last):
                raise ValueError(f"{file.path} is of another corpus than {first[0].path}; {again}, in a new directory")


def _checked_share(share: object) -> tuple[int, int]:
    if share is None:
        return 1, 1
    if not (isinstance(share, tuple | list) and len(share) == 2):
        raise TypeError(f"share must be (k, n), the k-th of n, got {shown(share)}")
    of = check_int("share[1]", share[1], maximum=MOST_SHARDS)
    return check_int("share[0]", share[0], maximum=of), of


def _path(directory: Path, index: int) -> Path:
    return directory / f"{index:05d}.tokens"


def _paths(directory: Path, *, gaps: bool) -> list[Path]:
    """Returns the files that are there, in order: up to the first that is not, unless there may be gaps."""
    if gaps:
        return sorted(directory.glob("[0-9]" * 5 + ".tokens"))
    return list(takewhile(Path.exists, (_path(directory, index) for index in count())))


def _complete(directory: Path, corpus: Corpus, shard_bytes: int, *, gaps: bool) -> dict[int, Shard]:
    """Returns the places of the complete files, whose headers fit the corpus, by their numbers.

    Raises:
        ValueError: If one does not, with what differs, or one is missing and must not be.
    """
    shards: dict[int, Shard] = {}
    for path in _paths(directory, gaps=gaps):
        tokens = TokenFile(path)
        tokens.check_tokenizer(corpus.tokenizer)
        header, index = read_header(path), int(path.stem)
        shards[index] = _check(path, header, index, shard_bytes, documents=corpus.documents)
    last = max(shards, default=-1)
    later = sorted(path.name for path in directory.glob("[0-9]" * 5 + ".tokens"))[len(shards) :]
    if later or any(shard.last for index, shard in shards.items() if index < last):
        name = later[0] if later else _path(directory, last).name
        raise ValueError(
            f"{directory / name} does not belong to the files before it; delete it, or use another directory"
        )
    return shards


def _check(path: Path, header: Header, index: int, shard_bytes: int, *, documents: bool) -> Shard:
    shard = header.shard
    if shard is None or shard.index != index:
        raise ValueError(f"{path} is not file {index} of a corpus; delete it, or use another directory")
    if shard.shard_bytes != shard_bytes:
        _refuse(path, f"with shard_bytes={shard.shard_bytes}", f"{shard_bytes}")
    if (header.documents is not None) != documents:
        _refuse(path, f"with documents={not documents}", f"{documents}")
    return shard


def _refuse(path: Path, made: str, now: str) -> NoReturn:
    raise ValueError(f"{path} was made {made}, not {now}; pass the same to continue, or another directory")


def _write(
    corpus: Corpus,
    directory: Path,
    shard_bytes: int,
    made: Mapping[int, Shard],
    *,
    threads: int,
    share: tuple[int, int],
) -> None:
    """Reads the text of the files that are made, or that others make, and writes the rest."""
    reader, (number, of) = _Reader(corpus, shard_bytes), share
    for index in range(MOST_SHARDS):
        path = _path(directory, index)
        if index in made or index % of != number:
            for _ in reader.next_shard():
                pass
            if index in made and reader.place(index) != made[index]:
                raise ValueError(
                    f"{path} was made of another text than this one, or before it an earlier file was; pass the same "
                    "text to continue, or another directory"
                )
        else:
            corpus.write(path, reader.next_shard(), threads, shard=partial(reader.place, index))
        if reader.ended:
            return
    raise ValueError(f"the text needs more than {MOST_SHARDS:,} files; pass a larger shard_bytes")


class _Part(NamedTuple):
    """A document, or a part of a text.

    Attributes:
        text: The text.
        full: Whether a file ends after it.
    """

    text: str
    full: bool


class _Reader:
    """The text of a corpus, one file after another.

    Attributes:
        ended: Whether all of it has been read.
    """

    def __init__(self, corpus: Corpus, shard_bytes: int) -> None:
        parts = _whole_documents if corpus.documents else _cut_text
        self._parts = parts(corpus, shard_bytes)
        self._end = _END if corpus.documents else b""
        self._shard_bytes = shard_bytes
        self._digest = hashlib.sha256()
        self._next: _Part | None = None
        self._begun = self.ended = False

    def next_shard(self) -> Iterator[str]:
        """Yields the text of the next file; whether it is the last is known before its last part is yielded."""
        if not self._begun:
            self._begun, self._next = True, next(self._parts, None)
        full = False
        while not full and self._next is not None:
            (text, full), self._next = self._next, next(self._parts, None)
            self._digest.update(text.encode("utf-8") + self._end)
            self.ended = self._next is None
            yield text

    def place(self, index: int) -> Shard:
        """Returns the place of the file whose text has just been read."""
        return Shard(index, self.ended, self._shard_bytes, self._digest.hexdigest())


def _whole_documents(documents: Iterable[str], shard_bytes: int) -> Iterator[_Part]:
    size = 0
    for document in documents:
        size += utf8_size(document)
        yield _Part(document, size >= shard_bytes)
        size = 0 if size >= shard_bytes else size


def _cut_text(parts: Iterable[str], shard_bytes: int) -> Iterator[_Part]:
    """Yields a text so that files end at the first place after ``shard_bytes`` where it can be cut.

    However the text comes in parts, these are the same places: they begin at the first character after so many bytes.
    """
    held, size = "", 0  # bytes of the file so far, without what is held back
    for part in (short for long in parts for short in in_parts(long)):
        text = held + part
        while True:
            first = _characters(text, shard_bytes - size)
            match = CUT.search(text, first)
            if match is None:
                break
            yield _Part(text[: match.end()], full=True)
            text, size = text[match.end() :], 0
        begin = max(min(first, len(text)), len(text) - 1)  # a cut after the last character depends on the next one
        held = text[begin:]
        if begin:
            yield _Part(text[:begin], full=False)
            size += len(text[:begin].encode("utf-8"))
    if held:
        yield _Part(held, full=False)


def _characters(text: str, size: int) -> int:
    """Returns how many characters have ``size`` bytes in UTF-8, rounded up, or all."""
    if size <= 0:
        return 0
    content = text[:size].encode("utf-8")
    while size < len(content) and content[size] & 0xC0 == 0x80:
        size += 1
    return len(content[:size].decode("utf-8"))
