"""From text to batches: reading, cleaning, splitting, cutting into windows, shuffling."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data import Sampler as IndexSampler
from typing_extensions import override

from tinygpt2._internal.checks import check_int, check_number
from tinygpt2._internal.files import Utf8Reader
from tinygpt2.data.token_file import TokenFile
from tinygpt2.text.tokenizers import Tokenizer, gpt2_tokenizer

TokenArray = npt.NDArray[np.integer[Any]]

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, both (B, T) int64; the targets are the inputs shifted by one."""


class Loader(Protocol):
    """Batches that can be read again and again: a ``DataLoader``, or as little as a list of (inputs, targets)."""

    def __iter__(self) -> Iterator[Batch]:
        """Begins a pass over the batches."""
        ...

    def __len__(self) -> int:
        """Returns how many batches a pass has."""
        ...


def sample_text() -> str:
    """Returns the article that comes with the package: the First World War, in about 90,000 characters.

    It was written for tinygpt2 and is under the package's licence.

    >>> sample_text().splitlines()[0]
    'The First World War'
    """
    return files("tinygpt2").joinpath("assets/sample_text.txt").read_text(encoding="utf-8")


def read_text(path: str | os.PathLike[str]) -> str:
    r"""Reads a text file as UTF-8, whatever the platform's locale; a byte order mark goes, ``\r\n`` becomes ``\n``.

    Raises:
        FileNotFoundError: If there is no such file; other ``OSError`` if it cannot be read.
        ValueError: If the file is not UTF-8, with the offset of the first byte that is not.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = pathlib.Path(directory, "from-windows.txt")
    ...     _ = path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    ...     read_text(path)
    'one\ntwo\n'
    """
    return "".join(Utf8Reader(path))


def clean_text(text: str) -> str:
    r"""Strips white space from both ends of every line and drops the lines that are then empty.

    >>> clean_text("  one \n\n\t two\n")
    'one\ntwo'
    """
    stripped = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in stripped if line)


def split_text(text: str, train_ratio: float = 0.8) -> tuple[str, str]:
    """Splits a text in two at a character: the first part to train on, the rest to validate on.

    Args:
        text: Any text of at least two characters.
        train_ratio: Share of the characters in the first part, greater than 0 and less than 1.

    Raises:
        ValueError: If the ratio is out of range, or a part would be empty.

    >>> split_text("abcdefghij", train_ratio=0.8)
    ('abcdefgh', 'ij')
    """
    check_number("train_ratio", train_ratio, maximum=1, above_minimum=True, below_maximum=True)
    cut = int(train_ratio * len(text))
    if cut == 0 or cut == len(text):
        raise ValueError(
            f"a text of {len(text)} characters cannot be split at train_ratio={train_ratio}: one part would be empty; "
            "pass a longer text"
        )
    return text[:cut], text[cut:]


class TokenDataset(Dataset[Batch]):
    """Windows of a sequence of tokens, each with its targets: the same window one token later.

    Item i is ``(tokens[s : s + context_length], tokens[s + 1 : s + 1 + context_length])`` with ``s = i * stride``. A
    tail too short for a window is left out.

    Args:
        tokens: Token ids, one-dimensional, of any integer type. A NumPy array, also a memory-mapped one, or a tensor on
            the CPU is not copied.
        context_length: Tokens in a window, T.
        stride: Distance between the beginnings of two windows; ``context_length`` by default, so that every token is a
            target once. A smaller one makes the windows overlap.
        n_vocab: Where given, every id must be less.

    Raises:
        TypeError: If the tokens are not integers.
        ValueError: If they are not one-dimensional, too few for one window, or outside the vocabulary.

    >>> dataset = TokenDataset(range(6), context_length=3, stride=2)
    >>> len(dataset)
    2
    >>> dataset[1]
    (tensor([2, 3, 4]), tensor([3, 4, 5]))
    """

    def __init__(
        self,
        tokens: "Sequence[int] | Tensor | TokenArray",
        *,
        context_length: int,
        stride: int | None = None,
        n_vocab: int | None = None,
    ) -> None:
        self.context_length = check_int("context_length", context_length)
        self.stride = context_length if stride is None else check_int("stride", stride)
        self.tokens = _as_token_array(tokens)
        if len(self.tokens) <= context_length:
            shorter = f"context_length={len(self.tokens) - 1} or less, or " if len(self.tokens) > 1 else ""
            raise ValueError(
                f"context_length is {context_length}, which needs at least {context_length + 1} tokens (targets are "
                f"one further), but the text has only {len(self.tokens)}; pass {shorter}a longer text"
            )
        _check_ids(self.tokens, n_vocab)
        self._window = np.arange(context_length + 1)

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.context_length) // self.stride + 1

    @override
    def __getitem__(self, index: int) -> Batch:
        """Returns window ``index`` and its targets, both (T,) int64."""
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the windows of a batch gathered at once, both (B, T) int64; what a ``DataLoader`` calls.

        PyTorch's own ``default_collate`` stacks the pair into (2, B, T), which unpacks into the same two.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        outside = wanted[(wanted < -len(self)) | (wanted >= len(self))]
        if outside.size:
            raise IndexError(f"window {outside[0]} of {len(self)}")
        starts = wanted % len(self) * self.stride
        windows = self.tokens[starts[:, None] + self._window]  # (B, T + 1)
        # astype copies, so that masking targets in place does not reach the inputs.
        return torch.from_numpy(windows[:, :-1].astype(np.int64)), torch.from_numpy(windows[:, 1:].astype(np.int64))


class EpochSampler(IndexSampler[int]):
    """The order of a data set's items, a pure function of (seed, epoch).

    Iterating goes on to the next epoch by itself, so a plain loop sees another order each time; ``set_epoch`` chooses
    one. Lightning and accelerate call it, as they do for PyTorch's ``DistributedSampler``.

    Args:
        size: Number of items.
        shuffle: Whether to permute them; otherwise every epoch is 0, 1, 2, ...
        seed: Seed of the permutations.

    >>> sampler = EpochSampler(5, shuffle=True, seed=0)
    >>> first, second = list(sampler), list(sampler)
    >>> sampler.set_epoch(0)
    >>> list(sampler) == first != second
    True
    """

    def __init__(self, size: int, *, shuffle: bool, seed: int) -> None:
        self.size = check_int("size", size)
        self.shuffle = shuffle
        self.seed = check_int("seed", seed, minimum=0)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Makes the next iteration that of epoch ``epoch``, counted from 0."""
        self.epoch = check_int("epoch", epoch, minimum=0)

    def __len__(self) -> int:
        return self.size

    @override
    def __iter__(self) -> Iterator[int]:
        epoch, self.epoch = self.epoch, self.epoch + 1
        if not self.shuffle:
            return iter(range(self.size))
        order = torch.randperm(self.size, generator=seeded_generator(self.seed, epoch))
        # In pieces: as Python integers the order of a large corpus would take several times its memory.
        return (i for piece in torch.split(order, 4096) for i in piece.tolist())


def make_dataloader(
    source: "str | Sequence[int] | Tensor | np.ndarray | TokenFile",
    *,
    batch_size: int,
    context_length: int,
    stride: int | None = None,
    shuffle: bool = False,
    drop_last: bool = False,
    tokenizer: Tokenizer | None = None,
    seed: int = 0,
) -> DataLoader[Batch]:
    """Returns a PyTorch ``DataLoader`` of (inputs, targets), both (B, T) int64, the targets one token to the right.

    Args:
        source: A text, or token ids in one dimension: a list, tensor or NumPy array, also a memory-mapped one, or a
            `TokenFile`.
        batch_size: Windows per batch, B.
        context_length: Tokens per window, T.
        stride: Distance between the beginnings of two windows; ``context_length`` by default.
        shuffle: Whether each epoch has an order of its own, a pure function of ``seed`` and the epoch.
        drop_last: Whether to leave out a last batch with fewer than B windows.
        tokenizer: What encodes a text, `gpt2_tokenizer` by default; ids, where it is given, must be in its vocabulary.
        seed: Seed of the shuffling.

    Raises:
        TypeError: If the ids are not integers, or an option is of the wrong type.
        ValueError: If the text is empty or too short for one window (or, with ``drop_last``, for one batch), an id is
            outside the vocabulary, or a number is out of range.

    >>> loader = make_dataloader(range(9), batch_size=2, context_length=4)
    >>> inputs, targets = next(iter(loader))
    >>> inputs
    tensor([[0, 1, 2, 3],
            [4, 5, 6, 7]])
    >>> targets
    tensor([[1, 2, 3, 4],
            [5, 6, 7, 8]])
    """
    check_int("batch_size", batch_size)
    if isinstance(source, str):
        tokenizer = tokenizer or gpt2_tokenizer()
        source = tokenizer.encode_ordinary(source)
    n_vocab = tokenizer.n_vocab if tokenizer is not None else None
    if isinstance(source, TokenFile):
        if n_vocab not in (None, source.n_vocab):
            raise ValueError(f"{source.path} has ids of a vocabulary of {source.n_vocab}, the tokenizer has {n_vocab}")
        source, n_vocab = source.tokens, None  # its ids were made by that tokenizer: no need to read all of it
    dataset = TokenDataset(source, context_length=context_length, stride=stride, n_vocab=n_vocab)
    if drop_last and len(dataset) < batch_size:
        raise ValueError(
            f"the text has only {len(dataset)} windows of {context_length} tokens, less than a batch of {batch_size}, "
            "and drop_last=True leaves out smaller ones; pass a smaller batch_size, context_length or stride, "
            "or drop_last=False"
        )
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), shuffle=shuffle, seed=seed),
        drop_last=drop_last,
        collate_fn=_as_it_is,
        generator=seeded_generator(seed),  # a loader without one draws from the global state at each epoch
    )


def fingerprint(loader: Loader) -> dict[str, Any]:
    """Returns what a loader's batches depend on, in values that JSON can hold; equal loaders have equal ones.

    Of a loader that `make_dataloader` did not make, it reads the first batch.

    >>> loader = make_dataloader(range(9), batch_size=2, context_length=4)
    >>> fingerprint(loader)["tokens"]
    9
    """
    if isinstance(loader, DataLoader) and isinstance(loader.dataset, TokenDataset):
        dataset, sampler = loader.dataset, loader.sampler
        order = {"shuffle": sampler.shuffle, "seed": sampler.seed} if isinstance(sampler, EpochSampler) else {}
        return {
            "batch_size": loader.batch_size,
            "drop_last": loader.drop_last,
            "context_length": dataset.context_length,
            "stride": dataset.stride,
            "tokens": len(dataset.tokens),
            "sha256": _sha256(dataset.tokens),
            **order,
        }
    inputs, targets = next(iter(loader))
    return {
        "batches": len(loader),
        "batch_size": inputs.shape[0],
        "context_length": inputs.shape[1],
        "sha256": _sha256(torch.cat([inputs, targets]).flatten().cpu().numpy()),
    }


def _sha256(tokens: TokenArray) -> str:
    """Returns the SHA-256 of ids, whatever integer type they have."""
    digest = hashlib.sha256()
    for begin in range(0, len(tokens), 1 << 20):
        digest.update(np.ascontiguousarray(tokens[begin : begin + (1 << 20)], dtype="<i8").data)
    return digest.hexdigest()


def seeded_generator(*seeds: int) -> torch.Generator:
    """Returns a generator on the CPU that is a function of all ``seeds``, each of any size."""
    return torch.Generator().manual_seed(mixed_seed(*seeds))


def mixed_seed(*seeds: int) -> int:
    """Returns one seed, of at most 63 bits, that differs when any of ``seeds`` does."""
    return int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]) >> 1


def _as_it_is(batch: Any) -> Batch:  # noqa: ANN401 - DataLoader's own type promises a list of samples
    """Collates nothing: `TokenDataset` gathers a whole batch at once."""
    inputs, targets = batch
    return inputs, targets


def _as_token_array(tokens: "Sequence[int] | Tensor | TokenArray") -> TokenArray:
    """Returns a one-dimensional integer array, sharing memory with ``tokens`` where that is possible."""
    array = tokens.detach().cpu().numpy() if isinstance(tokens, Tensor) else np.asanyarray(tokens)
    if array.ndim != 1:
        fix = "; for (1, T) pass tokens[0]" if array.ndim == 2 else ""
        raise ValueError(f"expected token ids in one dimension, (T,), got shape {array.shape}{fix}")
    if not array.size:
        raise ValueError("there are no tokens to cut into windows: the text is empty")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"token ids must be integers, got {array.dtype}, beginning with {array[0]!r}")
    return array


def _check_ids(tokens: TokenArray, n_vocab: int | None) -> None:
    if n_vocab is None and tokens.dtype.kind == "u":
        return  # a corpus may be larger than memory
    lowest, highest = int(tokens.min()), int(tokens.max())
    if lowest < 0:
        raise ValueError(f"token ids must be at least 0, got {lowest}")
    if n_vocab is not None and highest >= n_vocab:
        raise ValueError(
            f"the vocabulary has {n_vocab} tokens, ids 0 to {n_vocab - 1}, but the data has id {highest}; "
            "encode it with the same tokenizer"
        )
