"""Files of token ids, memory-mapped for corpora larger than memory."""

import hashlib
import json
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import tiktoken

from tinygpt2._internal.checks import check_instance, check_int, check_path, shown
from tinygpt2._internal.files import PathLike, atomic_write, open_regular, parse_json
from tinygpt2._internal.texts import check_text, check_texts
from tinygpt2.text.foreign import as_tokenizer
from tinygpt2.text.reading import open_text
from tinygpt2.text.recognition import TOKENS_MAGIC, check_input
from tinygpt2.text.tokenizers import (
    CharTokenizer,
    Tokenizer,
    encoded,
    gpt2_tokenizer,
    panics_as_errors,
)

_MAGIC = TOKENS_MAGIC
_HEADER = 512  # bytes: the magic, then JSON, then spaces
_MOST_TOKENS = 1 << 48  # of two bytes or more each: all that a computer can address
_MOST_THREADS = 1024  # each has pieces of a megabyte in memory
_PIECE = 1 << 20  # characters that a thread encodes at a time

# Where a text can be cut without changing its tokens: GPT-2's pattern never matches whitespace after anything else, nor
# a sign after a letter, whatever the context. The letters and signs here are in every version of Unicode, so that
# Python and tiktoken agree on them.
_CUT = re.compile(r"\S(?=[ \n])|[\u4e00-\u9fa5](?=[\uff0c\u3002\uff01\uff1f\uff1b\uff1a\u3001])")


class TokenFile:
    """A memory-mapped file of token ids, made by `tokenize_to_file`.

    `make_dataloader` takes one, or a part of one: ``tokens[:1_000_000]``. Pickled, for a worker process or another one,
    it is its path and the part, and opens the file anew.

    Attributes:
        path: The path of the file.
        tokens: (N,) uint16, or uint32 if the vocabulary needs it; memory-mapped and read-only.
        n_vocab: Size of the vocabulary of the tokenizer that made it.
        sha256: Hash of all ids, as stored in the file.
        begin: Index in the file of the first of ``tokens``: 0, except for a part such as ``tokens[1000:]``.

    Args:
        path: A file that `tokenize_to_file` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is not a path.
        ValueError: If it is not a file of tokens, is truncated, or is a pipe, which cannot be memory-mapped; in a
            process that unpickles it, also if the file has other tokens by then.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = f"{directory}/hello.tokens"
    ...     written = tokenize_to_file(["Hello, ", "world"], path)
    ...     TokenFile(written.path).tokens.tolist()
    [15496, 11, 995]
    """

    def __init__(self, path: PathLike) -> None:
        self.path = check_path("path", path)
        if not stat.S_ISREG(check_input(self.path).st_mode):
            raise ValueError(
                f"{self.path} is a pipe or a device, but a file of tokens is memory-mapped: pass the path of the file"
            )
        try:
            with open_regular(self.path, links=True) as file:
                content = _parse(file.read(_HEADER))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.path} is not a file of tokens ({error}); make one with tokenize_to_file or 'tinygpt2 tokenize'"
            ) from error
        dtype, count = np.dtype(content["dtype"]), content["tokens"]
        self.n_vocab: int = content["n_vocab"]
        self.sha256: str = content["sha256"]
        self.begin = 0
        expected, size = _HEADER + count * dtype.itemsize, self.path.stat().st_size
        if size != expected:
            raise ValueError(f"{self.path} is damaged: it should have {expected:,} bytes but has {size:,}")
        self.tokens: npt.NDArray[np.integer[Any]] = np.memmap(
            self.path, dtype=dtype, mode="r", offset=_HEADER, shape=(count,)
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, part: slice) -> Self:
        """Returns consecutive tokens, as a `TokenFile` of the same file: ``tokens[:1_000_000]``.

        Raises:
            TypeError: If ``part`` is not a slice; ``tokens.tokens[5]`` is a single id.
            ValueError: If it has a step.
        """
        check_instance("part", part, slice, "a slice, such as tokens[:1_000_000] (single ids are in .tokens)")
        begin, end, step = part.indices(len(self))
        if step != 1:
            raise ValueError(f"a part of a TokenFile has consecutive tokens, got a step of {step}")
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view.tokens = self.tokens[begin:end]
        view.begin = self.begin + begin
        return view

    def __repr__(self) -> str:
        return f"TokenFile({os.fspath(self.path)!r}, {len(self):,} tokens)"

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path.absolute(), **self.identity()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        whole = TokenFile(state["path"])
        begin, end = state["begin"], state["begin"] + state["tokens"]
        if whole.sha256 != state["file"] or end > len(whole):
            raise ValueError(
                f"{whole.path} is another file than when this TokenFile was pickled: it has the SHA-256 {whole.sha256} "
                f"instead of {state['file']}; open it anew: TokenFile(path)"
            )
        self.__dict__.update(whole[begin:end].__dict__)

    def identity(self) -> dict[str, object]:
        """Returns what identifies these tokens, without reading them: the file's hash, and the part."""
        return {"file": self.sha256, "begin": self.begin, "tokens": len(self)}

    def verify(self) -> None:
        """Reads the whole file and checks its hash.

        Raises:
            ValueError: If the file is damaged.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(_HEADER)
            while piece := file.read(_PIECE):
                digest.update(piece)
        if digest.hexdigest() != self.sha256:
            raise ValueError(f"{self.path} is damaged: its tokens do not have the SHA-256 in its header; make it again")


def tokenize_to_file(
    source: Iterable[str | os.PathLike[str]],
    out: PathLike,
    *,
    tokenizer: Tokenizer | None = None,
    threads: int | None = None,
) -> TokenFile:
    """Encodes texts into a file of token ids, in pieces on every core.

    The ids are those of the whole text encoded at once. At most a few megabytes of it are in memory, unless it has a
    longer stretch without spaces and line breaks. The file appears only when it is complete.

    Args:
        source: Texts (``str``), UTF-8 files or pipes (``pathlib.Path``), or both, in a list, a column of a table or any
            other iterable; they are joined without separators.
        out: File to write; an existing one is replaced.
        tokenizer: `gpt2_tokenizer` by default. GPT-2's, one trimmed from it, and `CharTokenizer` use every core; any
            other encodes the whole text at once, since it is not known where its text can be cut.
        threads: Number of threads that encode; the number of cores by default.

    Raises:
        FileNotFoundError: If a file does not exist; other ``OSError`` if one cannot be read or written.
        TypeError: If ``source`` is a dict, a set, a table or an open file, an item is neither text nor path, or
            another argument is of the wrong type.
        ValueError: If a file is not UTF-8, there is no text, a text has a lone surrogate or is the name of a file, or
            ``threads`` is not from 1 to 1024.

    >>> import tempfile
    >>> from tinygpt2 import make_dataloader, sample_text
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     tokens = tokenize_to_file([sample_text()], f"{directory}/sample.tokens")
    ...     loader = make_dataloader(tokens, batch_size=2, context_length=128)
    >>> tokens.n_vocab, str(tokens.tokens.dtype)
    (50257, 'uint16')
    """
    threads = (os.cpu_count() or 1) if threads is None else check_int("threads", threads, maximum=_MOST_THREADS)
    out = check_path("out", out)
    tokenizer = as_tokenizer(gpt2_tokenizer() if tokenizer is None else tokenizer)
    dtype = _dtype(tokenizer.n_vocab)
    items = [source] if isinstance(source, str | os.PathLike) else check_texts("source", source)
    pieces = _pieces(_characters(items), tokenizer)

    def write(file: BinaryIO) -> None:
        digest, count = hashlib.sha256(), 0
        file.write(bytes(_HEADER))
        for ids in _in_order(pieces, tokenizer, threads):
            content = ids.astype(dtype).tobytes()
            file.write(content)
            digest.update(content)
            count += len(ids)
        if not count:
            raise ValueError("there are no tokens to write: the tokenizer makes none of the text")
        header = {"dtype": dtype.str, "tokens": count, "n_vocab": tokenizer.n_vocab, "sha256": digest.hexdigest()}
        file.seek(0)
        file.write(_MAGIC + json.dumps(header).encode().ljust(_HEADER - len(_MAGIC)))

    atomic_write(out, write, streams=False)
    return TokenFile(out)


def _parse(header: bytes) -> dict[str, Any]:
    if not header.startswith(_MAGIC):
        raise ValueError("it does not begin like one")
    content = parse_json(header[len(_MAGIC) :], "its header")
    check_int("tokens", content["tokens"], maximum=_MOST_TOKENS)
    check_int("n_vocab", content["n_vocab"], maximum=2**32)
    if content["dtype"] != (expected := _dtype(content["n_vocab"]).str):
        raise ValueError(f"dtype should be {expected!r}, by its n_vocab, but is {shown(content['dtype'])}")
    if not (isinstance(content["sha256"], str) and re.fullmatch("[0-9a-f]{64}", content["sha256"])):
        raise ValueError(f"sha256 should have 64 hexadecimal digits but is {shown(content['sha256'])}")
    return content


def _dtype(n_vocab: int) -> np.dtype[Any]:
    """Returns the type of the ids of a vocabulary, little-endian."""
    return np.dtype(np.uint16 if n_vocab <= np.iinfo(np.uint16).max + 1 else np.uint32).newbyteorder("<")


def _characters(source: Iterable[object]) -> Iterator[str]:
    """Yields the text in pieces of any size."""
    listed = isinstance(source, list | tuple)
    name, empty = "the text", True
    for i, item in enumerate(source):
        if isinstance(item, os.PathLike):
            with open_text(item) as reader:
                name = reader.name
                for piece in reader:
                    empty = empty and not piece
                    yield piece
        else:
            text = check_text(f"source[{i}], neither text nor path,", item)
            if listed and _names_a_file(text):
                raise ValueError(
                    f"source[{i}], {text!r}, is the name of a file; for its text pass pathlib.Path({text!r})"
                )
            empty = empty and not text
            yield text
    if empty:
        raise ValueError(f"there are no tokens to write: {name} is empty")


def _names_a_file(text: str) -> bool:
    """Returns whether a text looks like the path of a file, and there is one."""
    return len(text) < 1000 and os.path.isfile(text) and bool(Path(text).suffix)  # noqa: PTH113 - any text


def _pieces(text: Iterable[str], tokenizer: Tokenizer) -> Iterator[str]:
    """Yields the text in pieces of about a megabyte where possible, cut where that changes no token."""
    waiting, begin = "", 0
    wanted = _PIECE
    for part in text:
        waiting, begin = waiting[begin:] + part, 0
        while _can_be_cut(tokenizer) and len(waiting) - begin >= wanted:
            end = begin + wanted
            cut = end if isinstance(tokenizer, CharTokenizer) else _last_cut(waiting, begin, end)
            if cut is None:
                wanted *= 2
            else:
                yield waiting[begin:cut]
                begin, wanted = cut, _PIECE
    if begin < len(waiting):
        yield waiting[begin:]


def _can_be_cut(tokenizer: Tokenizer) -> bool:
    if isinstance(tokenizer, tiktoken.Encoding):
        return tokenizer._pat_str == gpt2_tokenizer()._pat_str  # noqa: SLF001 - tiktoken has no other way to ask
    return isinstance(tokenizer, CharTokenizer)


def _last_cut(text: str, begin: int, end: int) -> int | None:
    """Returns the last place between ``begin`` and ``end`` at which ``text`` can be cut."""
    for first in (max(begin, end - 1000), begin):
        places = [match.end() for match in _CUT.finditer(text, first, end)]
        if places:
            return places[-1]
    return None


def _in_order(pieces: Iterator[str], tokenizer: Tokenizer, threads: int) -> Iterator[npt.NDArray[np.integer[Any]]]:
    """Yields the ids of each piece, encoded ahead on several threads: tiktoken releases the GIL."""

    def encode(piece: str) -> npt.NDArray[np.integer[Any]]:
        if not isinstance(tokenizer, tiktoken.Encoding):
            return np.asarray(encoded(tokenizer, piece), dtype=np.uint32)
        with panics_as_errors(tokenizer):
            return tokenizer.encode_to_numpy(piece, disallowed_special=())

    waiting: deque[Future[npt.NDArray[np.integer[Any]]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(encode, piece))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
