"""Files of token ids, memory-mapped for corpora larger than memory."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from tinygpt2._internal.checks import check_instance, check_path
from tinygpt2._internal.files import PathLike, atomic_write, open_regular
from tinygpt2.data.encoding import Encoded, ids_dtype
from tinygpt2.data.token_header import HEADER_BYTES, Header, format_header, parse_header
from tinygpt2.text.recognition import check_input
from tinygpt2.tokenizers.foreign import as_tokenizer
from tinygpt2.tokenizers.identity import tokenizer_identity
from tinygpt2.tokenizers.protocol import Tokenizer

_PIECE = 1 << 20  # bytes to hash at a time


class TokenFile:
    """A memory-mapped file of token ids, made by `tokenize_to_file`.

    `make_dataloader` takes one, or a part of one: ``tokens[:1_000_000]``. Pickled, for a worker process or another one,
    it is its path and the part, and opens the file anew.

    Attributes:
        path: The path of the file.
        tokens: (N,) uint16, or uint32 if the vocabulary needs it; memory-mapped and read-only.
        n_vocab: Size of the vocabulary of the tokenizer that made it.
        tokenizer_sha256: Hash of what decides the ids of that tokenizer, ``None`` if it is not known.
        eot_token: Id of its end-of-text token, ``None`` if it has none.
        documents: Number of documents, each followed by that token; ``None`` if the file is one text, or for a part.
        empty_documents: Number of empty ones that were left out; likewise.
        bytes: Size of the text in UTF-8, without the ends of documents; ``None`` for a part.
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
            header = read_header(self.path)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} is not a file of tokens ({error}); make one with tokenize_to_file or 'tinygpt2 tokenize'"
            ) from error
        dtype = ids_dtype(header.n_vocab)
        self.n_vocab, self.eot_token = header.n_vocab, header.eot_token
        self.sha256, self.tokenizer_sha256 = header.sha256, header.tokenizer_sha256
        self.documents, self.empty_documents = header.documents, header.empty_documents
        self.bytes: int | None = header.bytes
        self.begin = 0
        expected, size = HEADER_BYTES + header.tokens * dtype.itemsize, self.path.stat().st_size
        if size != expected:
            raise ValueError(f"{self.path} is damaged: it should have {expected:,} bytes but has {size:,}")
        self.tokens: npt.NDArray[np.integer[Any]] = np.memmap(
            self.path, dtype=dtype, mode="r", offset=HEADER_BYTES, shape=(header.tokens,)
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
        if len(view) < len(self):  # what the header counts is of the whole file
            view.documents = view.empty_documents = view.bytes = None
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

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Checks that a tokenizer is the one that made the file.

        Raises:
            TypeError: If it is not a `Tokenizer`.
            ValueError: If it has a vocabulary of another size, or both identities are known and differ.

        >>> import tempfile
        >>> from tinygpt2 import CharTokenizer
        >>> letters = CharTokenizer("abc")
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = f"{directory}/abc.tokens"
        ...     tokens = tokenize_to_file(["abc"], path, tokenizer=letters)
        >>> tokens.check_tokenizer(letters)
        """
        tokenizer = as_tokenizer(tokenizer)
        if self.n_vocab != tokenizer.n_vocab:
            differ = f"has tokens of a vocabulary of {self.n_vocab:,}, but the tokenizer has {tokenizer.n_vocab:,}"
        elif self.tokenizer_sha256 not in (None, tokenizer_identity(tokenizer) or self.tokenizer_sha256):
            differ = f"was made with another tokenizer, whose vocabulary of {self.n_vocab:,} has the same size"
        else:
            return
        raise ValueError(
            f"{self.path} {differ}; load the tokenizer that made it, or make the file again with this one: "
            "tokenize_to_file, or 'tinygpt2 tokenize --tokenizer DIR'"
        )

    def verify(self) -> None:
        """Reads the whole file and checks its hash.

        Raises:
            ValueError: If the file is damaged.
        """
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(HEADER_BYTES)
            while piece := file.read(_PIECE):
                digest.update(piece)
        if digest.hexdigest() != self.sha256:
            raise ValueError(f"{self.path} is damaged: its tokens do not have the SHA-256 in its header; make it again")


def read_header(path: Path) -> Header:
    """Returns the header of a file of tokens.

    Raises:
        OSError: If it cannot be read.
        TypeError: If a value in it is of the wrong type.
        ValueError: If it is no header of such a file.
    """
    with open_regular(path, links=True) as file:
        return parse_header(file.read(HEADER_BYTES))


@dataclass
class Written:
    """What has been written to a file of tokens.

    Attributes:
        tokens: Number of ids.
        sha256: Their hash.
        bytes: Size of their text in UTF-8, without ends.
        documents: Number of documents that ended.
    """

    tokens: int
    sha256: str
    bytes: int
    documents: int


def write_token_file(path: PathLike, parts: Iterable[Encoded], header: Callable[[Written], Header]) -> None:
    """Writes a file of tokens, which appears only when it is complete.

    Args:
        path: File to write; an existing one is replaced.
        parts: The ids.
        header: Returns the header, once all parts are written.

    Raises:
        OSError: If it cannot be written.
        ValueError: If there are no ids.
    """

    def write(file: BinaryIO) -> None:
        digest, tokens, size, documents = hashlib.sha256(), 0, 0, 0
        file.write(bytes(HEADER_BYTES))
        for part in parts:
            content = part.ids.data
            file.write(content)
            digest.update(content)
            tokens += len(part.ids)
            size += part.bytes
            documents += part.ends
        if not tokens:
            raise ValueError("there are no tokens to write: the tokenizer makes none of the text")
        file.seek(0)
        file.write(format_header(header(Written(tokens, digest.hexdigest(), size, documents))))

    atomic_write(path, write, streams=False)
