"""Loaders of shuffled batches of windows."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import DataLoader
from typing_extensions import override

from tinygpt2._internal.checks import LARGEST_SEED, check_bool, check_int
from tinygpt2._internal.random import seeded_generator
from tinygpt2.data.batches import Batch
from tinygpt2.data.order import EpochSampler
from tinygpt2.data.token_file import TokenFile
from tinygpt2.data.windows import TokenDataset
from tinygpt2.text.foreign import as_tokenizer
from tinygpt2.text.tokenizers import Tokenizer, encoded, gpt2_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from torch.utils.data.dataloader import _BaseDataLoaderIter


class Loader(Protocol):
    """Batches that can be read repeatedly: a ``DataLoader``, or simply a list of (inputs, targets).

    A batch is (inputs, targets), both (B, T) int64, or a dict of ``input_ids`` and ``labels`` in the convention of
    Hugging Face. The rest is optional: ``len()``, without which `train` needs ``max_steps``; ``set_epoch(epoch)``, here
    or on ``sampler``, to choose an order; ``state_dict()`` and ``load_state_dict()``, JSON values from which the next
    ``iter()`` continues, so that resuming reads nothing twice; ``identity()``, JSON values that identify the data set.

    Without ``identity()``, a resumed run compares, beside the first batch and the length: the batches of a list; of a
    ``DataLoader`` its options, the kind and options of a sampler of PyTorch's or the first indices of another, the
    seeds of generators, and the content of a data set in memory: a list, a tensor, an array, or public attributes that
    are such, also in a ``Subset`` or a ``ConcatDataset``. An ``identity()`` of the data set replaces its content. Of
    more than 65,536 items of a list, or 2^27 elements of an array, as many are hashed. What a data set reads from
    elsewhere is not seen beyond the first batch, nor is what a function for collating or a worker does.
    """

    def __iter__(self) -> Iterator[Any]:
        """Begins a pass over the batches."""
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
    """Returns a PyTorch ``DataLoader`` of (inputs, targets), both (B, T) int64, the targets shifted by one token.

    Args:
        source: A text, or one-dimensional token ids: a list, a tensor, a NumPy array (also a memory-mapped one) or a
            `TokenFile`.
        batch_size: Windows per batch, B.
        context_length: Tokens per window, T.
        stride: Distance between the starts of successive windows; ``context_length`` by default.
        shuffle: Whether each epoch has its own order, a pure function of ``seed`` and the epoch.
        drop_last: Whether to leave out a last batch with fewer than B windows.
        tokenizer: Encodes a text, `gpt2_tokenizer` by default; if given with ids, they must be in its vocabulary.
        seed: Seed of the shuffling.

    Raises:
        TypeError: If the source is neither one text nor a sequence of integers, or an option is of the wrong type.
        ValueError: If the text is empty, too short for one window (or, with ``drop_last``, for one batch) or has a lone
            surrogate, an id is outside the vocabulary, or a number is out of range.

    >>> loader = make_dataloader(range(9), batch_size=2, context_length=4)
    >>> inputs, targets = next(iter(loader))
    >>> inputs
    tensor([[0, 1, 2, 3],
            [4, 5, 6, 7]])
    >>> targets
    tensor([[1, 2, 3, 4],
            [5, 6, 7, 8]])
    """
    batch_size = check_int("batch_size", batch_size)
    seed = check_int("seed", seed, minimum=0, maximum=LARGEST_SEED)
    check_bool("shuffle", shuffle)
    check_bool("drop_last", drop_last)
    tokenizer = None if tokenizer is None else as_tokenizer(tokenizer)
    if isinstance(source, str):
        tokenizer = gpt2_tokenizer() if tokenizer is None else tokenizer
        source = encoded(tokenizer, source)
    n_vocab = None if tokenizer is None else tokenizer.n_vocab
    if isinstance(source, TokenFile):
        if n_vocab not in (None, source.n_vocab):
            raise ValueError(
                f"{source.path} has ids of a vocabulary of {source.n_vocab}, but the tokenizer has {n_vocab}"
            )
        n_vocab = None  # that tokenizer made its ids: there is no need to read them all
    dataset = TokenDataset(source, context_length=context_length, stride=stride, n_vocab=n_vocab)
    if drop_last and len(dataset) < batch_size:
        raise ValueError(
            f"the text has only {len(dataset)} windows of {context_length} tokens, fewer than a batch of {batch_size}, "
            "and drop_last=True leaves out smaller batches; pass a smaller batch_size, context_length or stride, "
            "or drop_last=False"
        )
    return _WindowLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), shuffle=shuffle, seed=seed),
        drop_last=drop_last,
        collate_fn=_as_it_is,
        generator=seeded_generator(seed),  # a loader without one draws from the global state at each epoch
    )


class _WindowLoader(DataLoader[Batch]):
    """A ``DataLoader`` that works under ``torch.set_default_device``: it draws its seed on its generator's device."""

    @override
    def __iter__(self) -> "_BaseDataLoaderIter":
        with torch.device("cpu"):
            return super().__iter__()


def _as_it_is(batch: Any) -> Batch:  # noqa: ANN401 - DataLoader's own type promises a list of samples
    """Returns the batch unchanged: `TokenDataset` gathers a whole batch at once."""
    inputs, targets = batch
    return inputs, targets
