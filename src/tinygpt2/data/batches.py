"""Batches in the form that the library computes with."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tinygpt2.kernels.cross_entropy import INTEGER_DTYPES, id_outside
from tinygpt2.losses import IGNORE_INDEX

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, both (B, T) int64; the targets are the inputs shifted by one."""

_EVIDENCE = 16  # targets of a batch that are shifted wrongly, at least: a few can be so by chance

_KEYS = {"input_ids", "labels", "attention_mask"}


def as_batch(batch: Any, name: str = "a batch", vocab_size: int | None = None) -> Batch:  # noqa: ANN401 - of any loader
    """Returns a batch as inputs and targets.

    Args:
        batch: (inputs, targets), both (B, T) integer tensors; or, as in Hugging Face, a mapping with
            ``input_ids`` and ``labels``, (B, T) each, in which label t is token t itself, or -100 if it does not
            count: the labels are shifted here. An ``attention_mask`` may mark padding on the right.
        name: Name of the batch in error messages.
        vocab_size: Size of the model's vocabulary, if it is known.

    Raises:
        TypeError: If it is anything else.
        ValueError: If the shapes do not match, the dtypes are not integers, or an id is negative or outside the
            vocabulary; -100 is a target that does not count.

    >>> ids = torch.tensor([[5, 6, 7]])
    >>> as_batch({"input_ids": ids, "labels": ids})[1]
    tensor([[   6,    7, -100]])
    """
    if isinstance(batch, Mapping):
        return _with_known_ids(_shifted(batch, name), name, vocab_size)
    if not (isinstance(batch, tuple | list | Tensor) and len(batch) == 2):
        items = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise TypeError(
            f"{name} should be (inputs, targets), or a dict of input_ids and labels, but is a "
            f"{type(batch).__name__}{items}; map your loader's batches to such pairs"
        )
    inputs, targets = batch
    return _with_known_ids(_integers(name, inputs=inputs, targets=targets), name, vocab_size)


class BatchCheck:
    """A check of each batch of a loader, which warns once if the targets are not the inputs shifted by one.

    Args:
        vocab_size: Size of the model's vocabulary, if it is known.
        shifted: Whether it is known that they are.
    """

    def __init__(self, vocab_size: int | None, *, shifted: bool = False) -> None:
        self.vocab_size = vocab_size
        self._shifted = shifted

    def __call__(self, batch: Any, name: str) -> Batch:  # noqa: ANN401 - of any loader
        """Returns a batch as `as_batch` does."""
        inputs, targets = as_batch(batch, name, self.vocab_size)
        shift = None if self._shifted else _wrong_shift(inputs, targets)
        if shift is not None:
            self._shifted = True  # or it is known that they are not
            fix = (
                "shift them, (tokens[:, :-1], tokens[:, 1:]), or pass a dict of input_ids and labels, which is "
                "shifted for you"
                if shift == 0
                else "the labels of a dict are shifted for you: pass labels=input_ids"
            )
            warnings.warn(
                f"the targets of {name} are its inputs shifted by {shift} tokens instead of 1, so the model does not "
                f"learn to predict the next token; {fix}",
                stacklevel=3,
            )
        return inputs, targets


def _wrong_shift(inputs: Tensor, targets: Tensor) -> int | None:
    """Returns the shift of targets that were not shifted, 0, or shifted twice, 2; otherwise ``None``."""
    counts = targets != IGNORE_INDEX
    if not (counts[:, :-1] & (targets[:, :-1] != inputs[:, 1:])).any():
        return None  # as they should be, or of equal tokens, which look the same however they are shifted
    for shift in (0, 2):
        end = max(0, inputs.shape[1] - shift)
        same = targets[:, :end] == inputs[:, shift:]
        if counts[:, :end].sum() >= _EVIDENCE and (same | ~counts[:, :end]).all():
            return shift
    return None


def _with_known_ids(batch: Batch, name: str, vocab_size: int | None) -> Batch:
    for part, ids, ignored in zip(("inputs", "targets"), batch, (None, IGNORE_INDEX), strict=True):
        wrong = id_outside(ids, vocab_size, ignored)  # on a GPU PyTorch would abort the process's work there
        if wrong is not None:
            known = (
                "ids are at least 0" if vocab_size is None else f"the model's vocabulary has ids 0 to {vocab_size - 1}"
            )
            fix = (
                f"for a target that does not count use {IGNORE_INDEX}"
                if part == "targets" and wrong < 0
                else "build the model with vocab_size=tokenizer.n_vocab of the tokenizer that made them"
            )
            raise ValueError(f"{known}, but the {part} of {name} have {wrong}; {fix}")
    return batch


def _shifted(batch: Mapping[str, Any], name: str) -> Batch:
    found = set(batch)
    if not {"input_ids", "labels"} <= found <= _KEYS:
        raise TypeError(
            f"{name} is a dict with {', '.join(map(str, sorted(found, key=str))) or 'nothing'}; expected input_ids and "
            "labels, and optionally attention_mask. Remove other keys; if the labels are the tokens themselves, "
            "pass labels=input_ids"
        )
    inputs, labels = _integers(name, input_ids=batch["input_ids"], labels=batch["labels"])
    if batch.get("attention_mask") is not None:
        mask = batch["attention_mask"]
        mask = mask.long() if isinstance(mask, Tensor) and mask.dtype == torch.bool else mask
        _, mask = _integers(name, input_ids=inputs, attention_mask=mask)
        if (mask[:, 1:] > mask[:, :-1]).any():
            raise ValueError(
                f"{name} has padding on the left in its attention_mask, which would shift the positions; pad on the "
                "right"
            )
    end = labels.new_full((len(labels), 1), IGNORE_INDEX)
    return inputs, torch.cat([labels[:, 1:], end], dim=1)


def _integers(name: str, **pair: object) -> Batch:
    """Returns two tensors of the same shape as int64; they may have smaller integer types."""
    for part, value in pair.items():
        if not isinstance(value, Tensor):
            kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
            raise TypeError(
                f"the {part} of {name} should be a tensor, (B, T) int64, got a {kind}; convert it, for instance "
                "with torch.as_tensor(...)"
            )
        if value.dtype not in INTEGER_DTYPES or value.dim() != 2:
            raise ValueError(f"the {part} of {name} should be (B, T) int64, got {value.dtype} of {tuple(value.shape)}")
    (first, one), (second, other) = ((part, value) for part, value in pair.items() if isinstance(value, Tensor))
    if one.shape != other.shape:
        raise ValueError(
            f"the {first} and {second} of {name} should have one shape, (B, T), but have {tuple(one.shape)} and "
            f"{tuple(other.shape)}"
        )
    return one.long(), other.long()
