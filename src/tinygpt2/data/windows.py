"""Windows of a sequence of tokens, with their targets."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
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
        if len(self.tokens) <= context_length:
            fitting = len(self.tokens) - 1
            shorter = f"context_length={fitting} or less, or " if fitting >= _SHORTEST_CONTEXT else ""
            raise ValueError(
                f"context_length is {context_length}, which needs at least {context_length + 1} tokens (targets are "
                f"shifted by one), but the text has only {len(self.tokens)}; pass {shorter}a longer text"
            )
        _check_ids(self.tokens, None if n_vocab is None else check_int("n_vocab", n_vocab))
        self._window = np.arange(context_length + 1)

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
        wanted = _as_indices(indices)
        outside = wanted[(wanted < -len(self)) | (wanted >= len(self))]
        if outside.size:
            raise IndexError(f"window {outside[0]} of {len(self)}")
        starts = wanted.astype(np.int64) % len(self) * self.stride
        windows = self.tokens[starts[:, None] + self._window]  # (B, T + 1)
        # astype copies, so that masking targets in place does not change the inputs.
        return torch.from_numpy(windows[:, :-1].astype(np.int64)), torch.from_numpy(windows[:, 1:].astype(np.int64))


def _as_indices(indices: object) -> TokenArray:
    """Returns the indices of a batch as an array; a conversion to integers would round others."""
    wanted: npt.NDArray[Any] | None = None
    with suppress(RuntimeError, TypeError, ValueError):  # of a tensor without values, for instance
        wanted = np.asarray(indices)
    if wanted is None or wanted.ndim != 1 or (wanted.size and wanted.dtype.kind not in "iu"):
        raise TypeError(f"indices must be integers in a list, got {of_type(indices)}")
    return wanted


def _as_token_array(tokens: object) -> TokenArray:
    """Returns a one-dimensional integer array that shares memory with ``tokens`` where possible."""
    values = tokens.detach() if isinstance(tokens, Tensor) else _as_array(tokens)
    if values.ndim != 1:
        fix = "; for (1, T) pass tokens[0]" if values.ndim == 2 else ""
        raise ValueError(f"expected token ids in one dimension, (T,), got shape {tuple(values.shape)}{fix}")
    if not len(values):
        raise ValueError("there are no tokens to cut into windows: the text is empty")
    if not _are_integers(values):
        first = values[0]
        fix = "join texts into one: '\\n'.join(texts)" if isinstance(first, str) else "convert whole numbers to int64"
        raise TypeError(f"token ids must be integers, got {values.dtype}, beginning with {first!r}; {fix}")
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
