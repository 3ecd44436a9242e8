"""Files of tokens, made from texts and documents of any size."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

from tinygpt2._internal.checks import check_bool, check_int, check_path
from tinygpt2._internal.files import PathLike
from tinygpt2._internal.texts import check_text, check_texts
from tinygpt2.data.encoding import default_threads, encode_pieces
from tinygpt2.data.pieces import pieces_of_documents, pieces_of_text
from tinygpt2.data.token_file import TokenFile, Written, write_token_file
from tinygpt2.data.token_header import Header, Shard
from tinygpt2.text.documents import documents_of
from tinygpt2.text.reading import open_text
from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.identity import tokenizer_identity
from tinygpt2.tokenizers.protocol import Tokenizer, end_of_text

_MOST_THREADS = 1024  # each has pieces of a megabyte in memory


def tokenize_to_file(
    source: Iterable[str | os.PathLike[str]],
    out: PathLike,
    *,
    tokenizer: AnyTokenizer | None = None,
    threads: int | None = None,
    documents: bool = False,
    field: str = "text",
) -> TokenFile:
    """Encodes texts into a file of token ids, in pieces on every core.

    The ids are those of the whole text encoded at once, or of each document. A few megabytes of it are in memory,
    unless it has a longer stretch without spaces and line breaks. The file appears only when it is complete. With the
    extra ``fast``, byte pairs with GPT-2's pattern are encoded by gigatoken, many times as fast, to the same ids.

    Args:
        source: Texts (``str``), UTF-8 files or pipes (``pathlib.Path``), or both, in a list, a column of a table or any
            other iterable; they are joined without separators. With ``documents``, the documents: a list, an iterator,
            a column of a table, or a table.
        out: File to write; an existing one is replaced.
        tokenizer: `gpt2_tokenizer` by default. Byte pairs with GPT-2's pattern, such as those of `trim_vocabulary`, and
            `CharTokenizer` use every core; any other encodes the whole text, or each document, at once, since it is not
            known where its text can be cut.
        threads: Number of threads that encode; the number of cores by default.
        documents: Whether each item of ``source`` is a document, to be followed by the end-of-text token. Empty ones
            are left out and counted.
        field: Name of the column of documents, if ``source`` is a table or a data set.

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
    ...     names = tokenize_to_file(
    ...         ["Emma", "Olivia"], f"{directory}/names.tokens", documents=True
    ...     )
    >>> tokens.n_vocab, str(tokens.tokens.dtype)
    (50257, 'uint16')
    >>> names.documents, names.bytes, names.tokens.tolist()
    (2, 10, [10161, 2611, 50256, 46, 16017, 544, 50256])
    """
    threads = check_threads(threads)
    out = check_path("out", out)
    corpus = Corpus(source, tokenizer, documents=documents, field=field)
    return corpus.write(out, corpus, threads)


def check_threads(threads: object) -> int:
    """Returns a number of threads, that of cores for ``None``."""
    return default_threads() if threads is None else check_int("threads", threads, maximum=_MOST_THREADS)


class Corpus:
    """One text in parts, or documents, and the tokenizer that encodes them into files.

    Attributes:
        tokenizer: The tokenizer.
        tokenizer_sha256: Its identity, if that is known.
        documents: Whether each text is a document.

    Args:
        source: As `tokenize_to_file` takes it, with the rest.
        tokenizer: `gpt2_tokenizer` by default.
        documents: Likewise.
        field: Likewise.
    """

    def __init__(self, source: object, tokenizer: Tokenizer | None, *, documents: bool, field: str) -> None:
        self.documents = check_bool("documents", documents)
        self.tokenizer = as_tokenizer(gpt2_tokenizer() if tokenizer is None else tokenizer, ends=documents)
        self.tokenizer_sha256 = tokenizer_identity(self.tokenizer)
        check_text("field", field)
        self._empty = 0  # documents that have been left out
        if documents:
            self._texts: Iterable[str] = self._full_ones(documents_of("source", source, field))
        else:
            items = [source] if isinstance(source, str | os.PathLike) else check_texts("source", source)
            self._texts = _parts(items)

    def __iter__(self) -> Iterator[str]:
        """Yields the texts, which can be read once."""
        return iter(self._texts)

    def write(
        self, path: Path, texts: Iterable[str], threads: int, shard: Callable[[], Shard | None] = lambda: None
    ) -> TokenFile:
        """Encodes some of the texts into a file.

        Args:
            path: The file.
            texts: Those that are next.
            threads: Number of threads that encode.
            shard: Returns the place of the file in the corpus, once the texts are read.
        """
        pieces = (pieces_of_documents if self.documents else pieces_of_text)(texts, self.tokenizer)
        empty_before = self._empty

        def header(written: Written) -> Header:
            return Header(
                tokens=written.tokens,
                n_vocab=self.tokenizer.n_vocab,
                sha256=written.sha256,
                bytes=written.bytes,
                documents=written.documents if self.documents else None,
                empty_documents=self._empty - empty_before if self.documents else None,
                eot_token=end_of_text(self.tokenizer),
                tokenizer_sha256=self.tokenizer_sha256,
                shard=shard(),
            )

        with closing(encode_pieces(pieces, self.tokenizer, threads)) as parts:
            write_token_file(path, parts, header)
        return TokenFile(path)

    def _full_ones(self, documents: Iterable[str]) -> Iterator[str]:
        any_full = False
        for document in documents:
            if document:
                any_full = True
                yield document
            else:
                self._empty += 1
        if not any_full:
            reason = f"all {self._empty:,} documents are empty" if self._empty else "there are no documents"
            raise ValueError(f"there are no tokens to write: {reason}; expected some text")


def _parts(source: Iterable[object]) -> Iterator[str]:
    """Yields a text in parts of any size."""
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
