"""Checks of what samplers take and return."""

import math

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_instance
from tinygpt2.generation.samplers.protocol import Sampler, name_of


def check_generator(generator: torch.Generator | None, device: torch.device) -> None:
    """Raises an error if ``generator`` cannot be the source of randomness on a device.

    Raises:
        TypeError: If it is neither a generator nor ``None``.
        ValueError: If it is on another kind of device.
    """
    if generator is None:
        return
    check_instance("generator", generator, torch.Generator, "a torch.Generator or None")
    if generator.device.type != device.type:
        raise ValueError(
            f"generator must be on the device of the model, {device}, got one on {generator.device}; make it with "
            f"torch.Generator({device.type!r})"
        )


def checked_ids(sampler: Sampler, ids: Tensor, logits: Tensor) -> Tensor:
    """Returns the ids that ``sampler`` chose from ``logits`` as (B,) int64 on their device; reads them only on a CPU.

    Raises:
        TypeError: If ``ids`` is not a tensor of integers.
        ValueError: If it is not one id per row, (B,) or, as ``torch.multinomial`` returns it, (B, 1), or if one is
            outside the vocabulary.
    """
    if not (getattr(ids, "dtype", None) == torch.int64 and ids.shape == (len(logits),)):  # as it should be
        ids = _converted_ids(sampler, ids, logits)
    ids = ids.to(logits.device)
    if ids.is_cpu and len(ids):
        lowest, highest = (int(value) for value in ids.aminmax())
        if lowest < 0 or highest >= logits.shape[-1]:
            raise ValueError(
                f"the sampler {name_of(sampler)} must return token ids from 0 to {logits.shape[-1] - 1}, got {lowest} "
                f"to {highest}; return indices of the logits"
            )
    return ids


def _converted_ids(sampler: Sampler, ids: Tensor, logits: Tensor) -> Tensor:
    expected = f"the sampler {name_of(sampler)} must return token ids as a tensor of shape ({len(logits)},), int64, "
    if not isinstance(ids, Tensor):
        raise TypeError(f"{expected}got {ids!r} ({type(ids).__name__}); return a tensor with one id per row")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{expected}got {ids.dtype} of {tuple(ids.shape)}; return indices, such as argmax(dim=-1)")
    if ids.shape not in ((len(logits),), (len(logits), 1)):
        raise ValueError(f"{expected}got {ids.dtype} of {tuple(ids.shape)}; return one id per row of logits")
    return ids.reshape(len(logits)).to(torch.int64)


def as_float32(logits: Tensor) -> Tensor:
    """Returns logits in float32, or in float64 if they are so already."""
    return logits if logits.dtype == torch.float64 else logits.float()


def in_float32(factor: float) -> float:
    """Returns a positive factor within the range of float32, beyond which it would become 0 or infinite."""
    float32 = torch.finfo(torch.float32)
    return min(max(factor, float32.tiny), float32.max)


def changed_where(chosen: Tensor, changed: Tensor, logits: Tensor) -> Tensor:
    """Returns ``changed`` where a logit is ``chosen`` and finite, and ``logits`` elsewhere, so that -inf and NaN stay.

    A change cannot overflow: what was finite is so afterwards, and the token remains possible.
    """
    largest = torch.finfo(logits.dtype).max
    return torch.where(chosen & logits.isfinite(), changed.clamp(-largest, largest), logits)


def check_shape(logits: Tensor) -> Tensor:
    """Returns ``logits`` if they are floating-point numbers of shape (B, V).

    Raises:
        TypeError: If they are no tensor.
        ValueError: If they are of another shape or dtype.
    """
    check_instance("logits", logits, Tensor, "a tensor, (B, V)")
    if logits.dim() != 2 or logits.shape[-1] == 0 or not logits.is_floating_point():
        raise ValueError(
            f"a sampler takes floating-point logits of shape (B, V), got {logits.dtype} of {tuple(logits.shape)}; "
            "for the last position of a model's output pass logits[:, -1]"
        )
    return logits


def checked_text(tokens: Tensor | None, logits: Tensor) -> Tensor:
    """Returns the text so far as (B, T) int64 after checking that it goes with ``logits``; T is 0 for ``None``.

    Raises:
        TypeError: If it is not a tensor of integers.
        ValueError: If it has not one row for each of the logits, or is on another kind of device.
    """
    if tokens is None:
        return torch.empty((len(logits), 0), dtype=torch.int64, device=logits.device)
    check_instance("tokens", tokens, Tensor, "a tensor, (B, T), or None")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f"tokens must be integers, (B, T), got {tokens.dtype} of {tuple(tokens.shape)}; pass token ids")
    if tokens.dim() != 2 or len(tokens) != len(logits):
        raise ValueError(
            f"tokens must have a row for each row of logits, ({len(logits)}, T), got {tuple(tokens.shape)}; pass the "
            "text so far of each"
        )
    if tokens.device.type != logits.device.type:
        raise ValueError(
            f"tokens must be on the device of the logits, {logits.device}, got some on {tokens.device}; move them "
            "there: tokens.to(logits.device)"
        )
    return tokens.to(torch.int64)


def checked_logits(logits: Tensor) -> Tensor:
    """Returns ``logits`` in at least float32 after checking that each row has a most probable token.

    What comes before passes on a NaN, +inf, and a row of only -inf, so only the samplers at the end of a chain need to
    check for them. The maximum of a row with a NaN is NaN.
    """
    logits = as_float32(check_shape(logits))
    largest = logits.amax(dim=-1)
    sound = largest.isfinite().all()
    if logits.device.type == "cuda":  # raises later, so that decoding does not wait
        message = "a row of logits has NaN, +inf or only -inf, so no token can be chosen"
        torch.ops.aten._assert_async.msg(sound, message)  # noqa: SLF001
    elif not sound:
        raise ValueError(f"{_unsound(largest)}, so no token can be chosen")
    return logits


def _unsound(largest: Tensor) -> str:
    """Returns what is wrong with rows of logits of which these are the largest, not all finite."""
    if not (largest == -math.inf).any():
        found = "NaN" if largest.isnan().any() else "+inf"
        return f"a row of logits has {found}: the model has diverged, or its weights are damaged"
    return "a row of logits has only -inf: what comes before this sampler excludes every token"
