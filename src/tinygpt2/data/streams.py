"""Windows of documents that are encoded as they are read, for text larger than memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info
from typing_extensions import override

from tinygpt2._internal.checks import check_int, of_type
from tinygpt2._internal.random import seeded_generator
from tinygpt2.data.batches import Batch
from tinygpt2.data.identity import own_identity, sha256_of
from tinygpt2.data.token_file import TokenFile
from tinygpt2.data.windows import TokenArray, check_long_enough
from tinygpt2.text.documents import documents_of
from tinygpt2.tokenizers.protocol import Tokenizer, encoded

BUFFER = 1024  # windows that are held to be shuffled


class DocumentStream(IterableDataset[Batch]):
    """The windows that `TokenDataset` has of the same documents, each followed by the end-of-text token.

    No more than one document, and the windows to be shuffled, are in memory. Each iteration advances to the next epoch;
    ``set_epoch`` chooses one, also of a source that has that method.

    Args:
        source: Documents, or a function without arguments that returns them. An iterator can be read once.
        tokenizer: Encodes them; it has an end-of-text token.
        field: Name of the column of texts, if the source has several.
        context_length: Tokens in a window, T.
        stride: Distance between the starts of successive windows; ``context_length`` by default.
        shuffle: Whether each window is drawn from the next ``BUFFER`` ones, as a pure function of seed and epoch.
        seed: Seed of the draws.

    Raises:
        TypeError: If the source is not several texts; of its items, during iteration.
        ValueError: If an iterator is read again, or by several workers; or during iteration, if there is no text, or
            too little for one window.
    """

    def __init__(
        self,
        source: "TokenFile | Iterable[Any] | Callable[[], Iterable[Any]]",
        tokenizer: Tokenizer,
        *,
        field: str,
        context_length: int,
        stride: int | None,
        shuffle: bool,
        seed: int,
    ) -> None:
        self.context_length = context_length = check_int("context_length", context_length)
        self.stride = context_length if stride is None else check_int("stride", stride)
        self.source, self.tokenizer, self.field = source, tokenizer, field
        self.shuffle, self.seed, self.epoch = shuffle, seed, 0
        self.reads_once = isinstance(source, Iterator)
        self._begun = False
        if isinstance(source, str | TokenFile):
            raise TypeError(
                f"with streaming=True, source must be several documents, got {of_type(source)}; leave out "
                "streaming=True"
            )
        if not _returns_documents(source):
            documents_of("source", source, field)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next iteration, counted from 0."""
        self.epoch = check_int("epoch", epoch, minimum=0)

    def identity(self) -> dict[str, Any]:
        """Returns what the windows depend on, as far as it is known without reading the documents."""
        names = ("context_length", "stride", "shuffle", "seed")
        listed = {"sha256": sha256_of(self.source)} if isinstance(self.source, list | tuple) else {}
        return {name: getattr(self, name) for name in names} | listed | (own_identity("source", self.source) or {})

    @override
    def __iter__(self) -> Iterator[Batch]:
        self._check_readable()
        self._begun = True
        epoch, self.epoch = self.epoch, self.epoch + 1
        windows = self._windows(epoch)
        if self.shuffle:
            windows = _shuffled(windows, seeded_generator(self.seed, epoch))
        return map(_as_batch, windows)

    def _check_readable(self) -> None:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise ValueError(
                f"each of {worker.num_workers} workers would read all documents of a stream; pass num_workers=0 or 1, "
                "or make a file of their tokens with tokenize_to_file"
            )
        if self.reads_once and (self._begun or worker is not None):
            why = "this is the second pass" if worker is None else "a worker process has only a copy of it"
            raise ValueError(f"the documents are read from {_an_iterator(self.source)}, and {why}; {_ANEW}")

    def _windows(self, epoch: int) -> Iterator[TokenArray]:
        """Yields the ids of each window and of its last target, (T + 1,)."""
        width = self.context_length + 1
        tokens: TokenArray = np.empty(0, np.uint32)
        start = total = 0  # of the next window in these tokens, and the number of all tokens so far
        for ids in self._encoded(epoch):
            before, total = len(tokens), total + len(ids)
            tokens = np.concatenate([tokens[start:], ids])
            start = max(0, start - before)
            while start + width <= len(tokens):
                yield tokens[start : start + width]
                start += self.stride
        if not total:
            raise ValueError(
                "there is nothing to encode: there are no documents, all are empty, or their source does not begin "
                "anew for another pass"
            )
        check_long_enough(total, self.context_length)

    def _encoded(self, epoch: int) -> Iterator[TokenArray]:
        """Yields the ids of each document that is not empty, and of its end."""
        source: Any = self.source
        if _returns_documents(source):
            source = source()
        if callable(getattr(source, "set_epoch", None)):  # for instance to shuffle differently in each
            source.set_epoch(epoch)
        for text in documents_of("source", source, self.field):
            if text:
                yield np.asarray([*encoded(self.tokenizer, text), self.tokenizer.eot_token], dtype=np.uint32)


_ANEW = "pass a function that returns them anew: make_dataloader(lambda: ..., streaming=True)"


def check_read_again(name: str, dataset: DocumentStream) -> None:
    """Raises ``ValueError`` if the documents can be read only once; training reads them several times."""
    if dataset.reads_once:
        raise ValueError(
            f"{name} reads its documents from {_an_iterator(dataset.source)}, but training reads them several times, "
            f"also to measure the loss; {_ANEW}"
        )


def _an_iterator(source: object) -> str:
    return f"a {type(source).__name__}, an iterator, which can be read once"


def _returns_documents(source: object) -> bool:
    return callable(source) and not isinstance(source, Iterable | type)


def _shuffled(windows: Iterator[TokenArray], generator: torch.Generator) -> Iterator[TokenArray]:
    """Yields each window once, drawn from the next ``BUFFER`` ones."""
    held: list[TokenArray] = []
    for window in windows:
        if len(held) < BUFFER:
            held.append(window.copy())  # a view would hold the whole document
            continue
        place = int(torch.randint(BUFFER, (), generator=generator, device="cpu"))
        yield held[place]
        held[place] = window.copy()
    for place in torch.randperm(len(held), generator=generator, device="cpu").tolist():
        yield held[place]


def _as_batch(window: TokenArray) -> Batch:
    """Returns a window and its targets, both (T,) int64, in memory of their own."""
    return torch.from_numpy(window[:-1].astype(np.int64)), torch.from_numpy(window[1:].astype(np.int64))
