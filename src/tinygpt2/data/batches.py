"""Batches in the form that the library computes with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tinygpt2.losses import IGNORE_INDEX

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, both (B, T) int64; the targets are the inputs shifted by one."""

_KEYS = {"input_ids", "labels", "attention_mask"}


def as_batch(batch: Any, name: str = "a batch") -> Batch:  # noqa: ANN401 - whatever a loader yields
    """Returns a batch as inputs and targets.

    Args:
        batch: (inputs, targets), both (B, T) integer tensors; or, as in Hugging Face, a mapping with
            ``input_ids`` and ``labels``, (B, T) each, in which label t is token t itself, or -100 if it does not
            count: the labels are shifted here. An ``attention_mask`` may mark padding on the right.
        name: Name of the batch in error messages.

    Raises:
        TypeError: If it is anything else.
        ValueError: If the shapes do not match.

    >>> ids = torch.tensor([[5, 6, 7]])
    >>> as_batch({"input_ids": ids, "labels": ids})[1]
    tensor([[   6,    7, -100]])
    """
    if isinstance(batch, Mapping):
        return _shifted(batch, name)
    if not (isinstance(batch, tuple | list | Tensor) and len(batch) == 2):
        items = f" of {len(batch)}" if isinstance(batch, tuple | list) else ""
        raise TypeError(
            f"{name} should be (inputs, targets), or a dict of input_ids and labels, but is a "
            f"{type(batch).__name__}{items}; map your loader's batches to such pairs"
        )
    inputs, targets = batch
    return _integers(name, inputs=inputs, targets=targets)


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
        _, mask = _integers(name, input_ids=inputs, attention_mask=batch["attention_mask"])
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
        if value.is_floating_point() or value.dim() != 2:
            raise ValueError(f"the {part} of {name} should be (B, T) int64, got {value.dtype} of {tuple(value.shape)}")
    (first, one), (second, other) = ((part, value) for part, value in pair.items() if isinstance(value, Tensor))
    if one.shape != other.shape:
        raise ValueError(
            f"the {first} and {second} of {name} should have one shape, (B, T), but have {tuple(one.shape)} and "
            f"{tuple(other.shape)}"
        )
    return one.long(), other.long()
