"""From text to batches: reading, cleaning, splitting, cutting into windows, shuffling."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tinygpt2._internal.checks import check_int
from tinygpt2._internal.random import seeded_generator
from tinygpt2.data.order import EpochSampler
from tinygpt2.data.token_file import TokenFile
from tinygpt2.data.windows import Batch, TokenArray, TokenDataset
from tinygpt2.text.tokenizers import Tokenizer, gpt2_tokenizer


class Loader(Protocol):
    """Batches that can be read again and again: a ``DataLoader``, or as little as a list of (inputs, targets)."""

    def __iter__(self) -> Iterator[Batch]:
        """Begins a pass over the batches."""
        ...

    def __len__(self) -> int:
        """Returns how many batches a pass has."""
        ...


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


def _as_it_is(batch: Any) -> Batch:  # noqa: ANN401 - DataLoader's own type promises a list of samples
    """Collates nothing: `TokenDataset` gathers a whole batch at once."""
    inputs, targets = batch
    return inputs, targets
