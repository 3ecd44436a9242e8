"""Windows of a sequence of tokens, with their targets."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset
from typing_extensions import override

from tinygpt2._internal.checks import LARGEST_INT, check_int, of_type
from tinygpt2._internal.texts import is_table, text_from
from tinygpt2.data.batches import Batch
from tinygpt2.data.token_file import TokenFile

_LARGEST = np.iinfo(np.int64).max  # batches are int64

_SHORTEST_CONTEXT = 16  # to advise; a model with a shorter one learns nothing of use

TokenArray = npt.NDArray[np.integer[Any]]


class TokenDataset(Dataset[Batch]):
    """Windows of a sequence of tokens, each with its targets: the same window one token later.

    Item i is ``(tokens[s : s + context_length], tokens[s + 1 : s + 1 + context_length])`` with ``s = i * stride``. A
    tail too short for a window is left out.

    Args:
        tokens: Token ids, one-dimensional, of any integer type. A NumPy array (also a memory-mapped one), a `TokenFile`
            or a tensor on the CPU is not copied.
        context_length: Tokens in a window, T.
        stride: Distance between the starts of successive windows; ``context_length`` by default, so that every token is
            a target once. With a smaller one the windows overlap.
        n_vocab: If given, every id must be less than this.

    Raises:
        TypeError: If the tokens are not integers in a sequence, or an option is not an integer.
        ValueError: If they are not one-dimensional, are too few for one window, or are outside the vocabulary.

    >>> dataset = TokenDataset(range(6), context_length=3, stride=2)
    >>> len(dataset)
    2
    >>> dataset[1]
    (tensor([2, 3, 4]), tensor([3, 4, 5]))
    """

    def __init__(
        self,
        tokens: "Sequence[int] | Tensor | TokenArray | TokenFile",
        *,
        context_length: int,
        stride: int | None = None,
        n_vocab: int | None = None,
    ) -> None:
        self.context_length = context_length = check_int("context_length", context_length)
        self.stride = context_length if stride is None else check_int("stride", stride)
        self.identity: dict[str, object] | None = None  # if it is known without reading all tokens
        self.file: TokenFile | None = None
        if isinstance(tokens, TokenFile):
            self.file, self.identity, tokens = tokens, tokens.identity(), tokens.tokens
        self.tokens = _as_token_array(tokens)
        check_long_enough(len(self.tokens), context_length)
        _check_ids(self.tokens, None if n_vocab is None else check_int("n_vocab", n_vocab))

    def __getstate__(self) -> dict[str, Any]:
        """Returns what a worker process needs: of the tokens in a file, the file's path and the part."""
        return self.__dict__ | ({} if self.file is None else {"tokens": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file is not None:
            self.tokens = self.file.tokens

    def __len__(self) -> int:
        return (len(self.tokens) - 1 - self.context_length) // self.stride + 1

    @override
    def __getitem__(self, index: int) -> Batch:
        """Returns window ``index`` and its targets, both (T,) int64; a negative one counts from the end.

        Raises:
            IndexError: If there is no such window.
            TypeError: If it is not an integer.
        """
        inputs, targets = self.__getitems__([check_int("index", index, minimum=-LARGEST_INT)])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the windows of a batch, gathered at once, both (B, T) int64; a ``DataLoader`` calls this.

        PyTorch's ``default_collate`` stacks the pair into (2, B, T), which unpacks into the same two tensors.

        Raises:
            IndexError: If one of the windows does not exist.
            TypeError: If the indices are not integers in a sequence.
        """
        starts = _places(indices, len(self)) * self.stride
        windows = np.lib.stride_tricks.sliding_window_view(self.tokens, self.context_length + 1)[starts]  # (B, T + 1)
        # astype copies, so that masking targets in place does not change the inputs.
        return torch.from_numpy(windows[:, :-1].astype(np.int64)), torch.from_numpy(windows[:, 1:].astype(np.int64))


class JoinedTokenDataset(ConcatDataset[Batch]):
    """The windows of several sequences of tokens, one sequence after the other; no window crosses two of them.

    Args:
        datasets: The windows of each.

    >>> one = TokenDataset(range(5), context_length=2)
    >>> two = TokenDataset(range(10, 15), context_length=2)
    >>> JoinedTokenDataset([one, two]).__getitems__([1, 2])[0]
    tensor([[ 2,  3],
            [10, 11]])
    """

    datasets: list[TokenDataset]  # type: ignore[assignment]

    def __init__(self, datasets: Iterable[TokenDataset]) -> None:
        super().__init__(datasets)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Returns the windows of a batch, as `TokenDataset` does; a ``DataLoader`` calls this."""
        wanted = _places(indices, len(self))
        of = np.searchsorted(self.cumulative_sizes, wanted, side="right")  # the sequence of each
        inputs = torch.empty((len(wanted), self.datasets[0].context_length), dtype=torch.int64, device="cpu")
        targets = torch.empty_like(inputs)
        for part in np.unique(of).tolist():
            here = np.flatnonzero(of == part)
            before = self.cumulative_sizes[part - 1] if part else 0
            inputs[here], targets[here] = self.datasets[part].__getitems__((wanted[here] - before).tolist())
        return inputs, targets


def parts_of(dataset: object) -> list[TokenDataset]:
    """Returns the sequences of tokens of which a data set has the windows; none if it is of another kind."""
    if isinstance(dataset, TokenDataset):
        return [dataset]
    return dataset.datasets if isinstance(dataset, JoinedTokenDataset) else []


def check_long_enough(tokens: int, context_length: int) -> None:
    """Raises ``ValueError`` if a text has too few tokens for one window."""
    if tokens <= context_length:
        shorter = f"context_length={tokens - 1} or less, or " if tokens > _SHORTEST_CONTEXT else ""
        raise ValueError(
            f"context_length is {context_length}, which needs at least {context_length + 1} tokens (targets are "
            f"shifted by one), but the text has only {tokens}; pass {shorter}a longer text"
        )


def places(indices: object) -> npt.NDArray[Any]:
    """Returns the indices of a batch as an array of integers, whose conversion would round others.

    Raises:
        TypeError: If they are not integers in a sequence.
    """
    wanted: npt.NDArray[Any] | None = None
    with suppress(RuntimeError, TypeError, ValueError):  # of a tensor without values, for instance
        wanted = np.asarray(indices)
    if wanted is None or wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise TypeError(f"indices must be integers in a list, got {of_type(indices)}")
    return wanted


def _places(indices: object, size: int) -> npt.NDArray[np.int64]:
    """Returns the windows of a batch, counted from the start."""
    wanted = places(indices)
    outside = wanted[(wanted < -size) | (wanted >= size)]
    if outside.size:
        raise IndexError(f"window {outside[0]} of {size}")
    return wanted.astype(np.int64) % size


def _as_token_array(tokens: object) -> TokenArray:
    """Returns a one-dimensional integer array that shares memory with ``tokens`` where possible."""
    values = tokens.detach() if isinstance(tokens, Tensor) else _as_array(tokens)
    if values.ndim != 1:
        fix = "; for (1, T) pass tokens[0]" if values.ndim == 2 else ""
        raise ValueError(f"expected token ids in one dimension, (T,), got shape {tuple(values.shape)}{fix}")
    if not len(values):
        raise ValueError("there are no tokens to cut into windows: the text is empty")
    if not _are_integers(values):
        raise TypeError(_not_integers(tokens, values))
    array: TokenArray = values.cpu().numpy() if isinstance(values, Tensor) else values
    if array.dtype.itemsize == 8 and array.dtype.kind == "u" and (highest := int(array.max())) > _LARGEST:
        raise ValueError(f"token ids must be at most {_LARGEST}, got {highest}")
    return array


def _as_array(tokens: object) -> npt.NDArray[Any]:
    """Returns a sequence of ids as an array."""
    if isinstance(tokens, bytes | bytearray | Mapping) or is_table(tokens) or not hasattr(tokens, "__getitem__"):
        fix = text_from(tokens) or "; pass a text, or its ids as a list, an array or a tensor"
        if isinstance(tokens, Generator):
            fix = "; make a list of it: list(tokens)"
        raise TypeError(f"expected a text or token ids, got {type(tokens).__name__}{fix}")
    try:
        return np.asanyarray(tokens)
    except ValueError:
        raise ValueError(
            "expected token ids in one dimension, (T,), got sequences of several lengths; join them into one"
        ) from None


def _not_integers(tokens: object, values: "Tensor | npt.NDArray[Any]") -> str:
    """Returns the message for values of which not all are integers."""
    items = tokens if isinstance(tokens, list | tuple) else values if values.dtype == object else ()
    text = next((i for i, item in enumerate(items) if isinstance(item, str)), None)
    if text:  # NumPy makes texts of the numbers before it
        return f"token ids must be integers, but item {text} is {of_type(items[text])}; pass ids alone, or texts alone"
    fix = "encode texts: encode_documents(texts)" if isinstance(values[0], str) else "convert whole numbers to int64"
    return f"token ids must be integers, got {values.dtype}, beginning with {values[0]!r}; {fix}"


def _are_integers(values: "Tensor | npt.NDArray[Any]") -> bool:
    if isinstance(values, Tensor):
        return not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    return values.dtype.kind in "iu"


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
