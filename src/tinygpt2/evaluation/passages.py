"""Passages: texts as a model predicts them."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygpt2._internal.texts import check_text
from tinygpt2.data.token_file import TokenFile
from tinygpt2.evaluation.loss import Evaluation
from tinygpt2.text.documents import documents_of
from tinygpt2.tokenizers.identity import token_bytes
from tinygpt2.tokenizers.protocol import Tokenizer, encoded, end_of_text

_PIECE = 1 << 20  # ids of a token file in which to look for ends of documents at a time


@dataclass(frozen=True, eq=False)
class Passage:
    """A text as a model predicts it.

    Attributes:
        tokens: (N,) ids.
        before: Id from which the first of them is predicted; ``None`` if the first is not predicted.
    """

    tokens: npt.NDArray[np.integer[Any]]
    before: int | None

    @property
    def targets(self) -> npt.NDArray[np.integer[Any]]:
        """The ids that are predicted."""
        return self.tokens[self.before is None :]

    def part(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Returns the targets from ``begin`` to ``end``, with the token before them."""
        if self.before is None:
            return self.tokens[begin : end + 1].astype(np.int64)
        if begin:
            return self.tokens[begin - 1 : end].astype(np.int64)
        return np.concatenate([[self.before], self.tokens[:end]], dtype=np.int64)


class Passages:
    """The passages of a source, of which it counts what has been read.

    Args:
        tokenizer: The model's.
        source: A text, several documents, or a file of tokens.
        field: Name of the column of texts, if it is a table or a data set.

    Attributes:
        sizes: Bytes that each id stands for; ``None`` if that is not known.
        before: Id from which the first token of each passage is predicted; ``None`` if it is not predicted.
        bytes: Bytes of text that the targets read stand for; ``None`` if that is not known.
        words: Words that they stand for; ``None`` if that is not known.
        documents: Documents read; ``None`` if the source is a single text.
    """

    def __init__(self, tokenizer: Tokenizer, source: str | Iterable[str] | TokenFile, field: str = "text") -> None:
        self.tokenizer, self._source, self._field = tokenizer, source, field
        self.bytes: int | None = 0
        self.words: int | None = 0
        self.documents: int | None = None
        self.sizes = token_bytes(tokenizer)
        self.before = end_of_text(tokenizer)
        self._changed = 0  # texts that the tokenizer does not keep
        self._first_changed = ""

    def __iter__(self) -> Iterator[Passage]:
        """Yields the passages, none of them without a target.

        Raises:
            ValueError: If there is nothing to predict.
        """
        source, found = self._source, False
        if isinstance(source, TokenFile):
            passages = self._of_file(source)
        elif isinstance(source, str):
            passages = iter([self._of_text("the text", check_text("source", source), None)])
        else:
            passages = self._of_documents(documents_of("source", source, self._field))
        for passage in passages:
            if len(passage.targets):
                found = True
                yield passage
        if not found:
            raise ValueError(f"there is nothing to evaluate: {_why_empty(source)}")

    def completed(self, result: Evaluation) -> Evaluation:
        """Returns an evaluation of all passages with the counts of their text, and warns if it is not all there."""
        if self._changed:
            more = f", and so do {self._changed - 1:,} more" if self._changed > 1 else ""
            warnings.warn(
                f"the tokenizer does not keep all of the text: {self._first_changed} decodes to another one{more}. "
                "What is lost was not predicted, so the bits per byte cannot be compared with those of a tokenizer "
                "that keeps it",
                stacklevel=3,
            )
        return replace(result, bytes=self.bytes, words=self.words, documents=self.documents)

    def _of_text(self, name: str, text: str, end: int | None) -> Passage:
        """Returns the passage of a text, which ends with a token if there is one, and counts it."""
        ids = encoded(self.tokenizer, text)
        if self.tokenizer.decode(ids) != text:
            self._first_changed = self._first_changed or name
            self._changed += 1
        tokens = np.asarray(ids if end is None else [*ids, end], dtype=np.uint32)
        size = len(text.encode("utf-8")) + (end is not None)
        if self.before is None:  # the first token is not predicted
            size -= self._size_of(ids[:1])
        self.bytes = (self.bytes or 0) + size
        self.words = (self.words or 0) + len(text.split())
        return Passage(tokens, self.before)

    def _size_of(self, ids: list[int]) -> int:
        if self.sizes is None:
            return len(self.tokenizer.decode(ids).encode("utf-8"))
        return sum(self.sizes[token] for token in ids)

    def _of_documents(self, documents: Iterable[str]) -> Iterator[Passage]:
        self.documents = 0
        for i, text in enumerate(documents):
            if text:
                self.documents += 1
                yield self._of_text(f"document {i}", text, self.tokenizer.eot_token)

    def _of_file(self, file: TokenFile) -> Iterator[Passage]:
        """Yields the documents of a file of tokens, each with its end; or all of it, if no token ends a document."""
        file.check_tokenizer(self.tokenizer)
        self.words = None
        begin = 0
        sizes = None if self.sizes is None else np.asarray(self.sizes)
        if sizes is None:  # the file itself may know, if all of it is predicted
            known = file.bytes is not None and self.before is not None
            self.bytes = (file.bytes or 0) + (file.documents or 0) if known else None
        for end in _ends(file.tokens, self.before):
            passage = Passage(file.tokens[begin:end], self.before)
            if sizes is not None:
                self.bytes = (self.bytes or 0) + _sum(sizes, passage.targets)
            if self.before is not None and passage.tokens[-1] == self.before:
                self.documents = (self.documents or 0) + 1
            yield passage
            begin = end


def _why_empty(source: object) -> str:
    if isinstance(source, str):
        return "the text has no token to predict" if source else "the text is empty"
    if isinstance(source, TokenFile):
        return f"{source.path} has no token to predict"
    return "there are no documents, or none has any text"


def _ends(tokens: npt.NDArray[np.integer[Any]], end_of_text: int | None) -> Iterator[int]:
    """Yields where each passage ends: after each end of text, and after the last token."""
    last = 0
    if end_of_text is not None:
        for begin in range(0, len(tokens), _PIECE):
            for place in np.flatnonzero(tokens[begin : begin + _PIECE] == end_of_text).tolist():
                last = begin + place + 1
                yield last
    if last < len(tokens):
        yield len(tokens)


def _sum(sizes: npt.NDArray[np.int64], tokens: npt.NDArray[np.integer[Any]]) -> int:
    """Returns the bytes that tokens stand for, which may be more than fit into memory."""
    return sum(int(sizes[tokens[begin : begin + _PIECE]].sum()) for begin in range(0, len(tokens), _PIECE))
