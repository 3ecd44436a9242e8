"""Samplers that choose the next token from logits.

Samplers compose in the order in which logits flow through them: ``TopKSampler(3, then=TemperatureSampler(1.4))`` keeps
the three best tokens, then scales, then draws.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import check_instance, check_int, check_number


@runtime_checkable
class Sampler(Protocol):
    """A callable that chooses a token for each row of logits. A plain function with this signature is one, too.

    A sampler does not change its input, treats each row independently, and never chooses a token whose logit is -inf.
    A filter passes ``tokens`` on to the next sampler. A callable whose signature has no ``tokens`` also works: it is
    called without them.

    >>> isinstance(TopKSampler(3), Sampler)
    True
    """

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses a token for each row.

        Args:
            logits: (B, V), floating point, unnormalised log-probabilities; -inf for a token that must not be chosen.
            tokens: The text so far, (B, T) int64 on the device of ``logits``: the prompt and what was generated. In a
                batch of `generate_text`, shorter rows are padded on the left with the end-of-text token, so that all
                end at the same place, and a row that has ended continues with it. ``None`` where there is no text.
            generator: Source of randomness, on the device of ``logits``; PyTorch's global one if ``None``.

        Returns:
            Token ids, (B,) int64.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If ``logits`` is not (B, V), a row has NaN, +inf or only -inf, or the generator is on another
                device. On CUDA the values are checked asynchronously, and PyTorch reports a failure as a device error.
        """
        ...


@dataclass(frozen=True)
class GreedySampler:
    """Chooses the most probable token; the first of several with the same logit.

    >>> import torch
    >>> GreedySampler()(torch.tensor([[0.1, 2.0, 1.0]]))
    tensor([1])
    """

    def __call__(
        self,
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Returns the index of each row's largest logit; see `Sampler`."""
        return checked_logits(logits).argmax(dim=-1)


@dataclass(frozen=True)
class MultinomialSampler:
    """Draws a token with its probability under the softmax of the logits.

    >>> import torch
    >>> generator = torch.Generator().manual_seed(123)
    >>> MultinomialSampler()(torch.zeros(5, 50), generator=generator).shape
    torch.Size([5])
    """

    def __call__(
        self,
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws one token per row; see `Sampler`."""
        probabilities = torch.softmax(checked_logits(logits), dim=-1)
        check_generator(generator, logits.device)
        return torch.multinomial(probabilities, num_samples=1, generator=generator).squeeze(-1)


@dataclass(frozen=True)
class TopKSampler:
    """Keeps each row's ``k`` largest logits (Fan et al. 2018) and passes them on.

    All tokens that tie with the k-th survive, as in transformers. A ``k`` beyond the vocabulary keeps everything.

    Attributes:
        k: Number of tokens to keep, at least 1.
        then: The sampler that chooses among them.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    >>> TopKSampler(1)(logits)
    tensor([1])
    >>> TopKSampler(3, then=TemperatureSampler(1.4))
    TopKSampler(k=3, then=TemperatureSampler(temperature=1.4, then=MultinomialSampler()))
    """

    k: int
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", check_int("k", self.k))
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` among the ``k`` most probable tokens; see `Sampler`."""
        _check_shape(logits)
        kth = logits.topk(min(self.k, logits.shape[-1]), dim=-1).values[:, -1:]  # (B, 1)
        return self._then(logits.masked_fill(logits < kth, -math.inf), tokens=tokens, generator=generator)


@dataclass(frozen=True)
class TemperatureSampler:
    """Divides the logits by a temperature: below 1, probable tokens gain probability; above 1, improbable ones do.

    Attributes:
        temperature: Greater than 0. Towards 0 the choice becomes greedy; towards infinity, uniform.
        then: The sampler that chooses from the scaled logits.

    >>> import torch
    >>> TemperatureSampler(1e-6)(torch.tensor([[0.0, 3.0, 1.0]]))
    tensor([1])
    >>> TemperatureSampler(0)
    Traceback (most recent call last):
    ...
    ValueError: temperature must be a finite number greater than 0, got 0; for temperature 0 take GreedySampler()
    """

    temperature: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        try:
            temperature = check_number("temperature", self.temperature, above_minimum=True)
        except ValueError as error:
            raise ValueError(f"{error}; for temperature 0 take GreedySampler()") from None
        object.__setattr__(self, "temperature", temperature)
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` from the scaled logits; see `Sampler`."""
        logits = _as_float32(_check_shape(logits))
        # Shifting a row does not change its softmax; with the maximum at 0, no temperature can overflow to +inf.
        largest = logits.amax(dim=-1, keepdim=True)
        shifted = logits - largest.masked_fill(largest.isinf(), 0)  # inf - inf is NaN, which would hide the reason
        float32 = torch.finfo(torch.float32)  # beyond its range a temperature would become 0 or infinite
        temperature = min(max(self.temperature, float32.tiny), float32.max)
        return self._then(shifted / temperature, tokens=tokens, generator=generator)


@dataclass(frozen=True)
class TopPSampler:
    """Keeps the fewest most probable tokens with total probability at least ``p`` (nucleus, Holtzman et al. 2020).

    All tokens that tie with the last of them survive; the most probable one always does.

    Attributes:
        p: Greater than 0, at most 1; 1 keeps everything.
        then: The sampler that chooses among them.

    >>> import torch
    >>> TopPSampler(0.5)(torch.tensor([[0.6, 0.3, 0.1]]).log())
    tensor([0])
    """

    p: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_number("p", self.p, maximum=1, above_minimum=True))
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` among the most probable tokens; see `Sampler`."""
        _check_shape(logits)
        if self.p == 1:  # rounding of the cumulative sum must not drop the rarest tokens
            return self._then(logits, tokens=tokens, generator=generator)
        descending = logits.sort(dim=-1, descending=True).values
        probabilities = torch.softmax(_as_float32(descending), dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities  # total probability of the more probable tokens
        kept = (before < self.p).sum(dim=-1, keepdim=True).clamp(min=1)  # (B, 1)
        last = descending.gather(-1, kept - 1)
        return self._then(logits.masked_fill(logits < last, -math.inf), tokens=tokens, generator=generator)


@dataclass(frozen=True)
class MinPSampler:
    """Keeps tokens at least ``p`` times as probable as the most probable one (Nguyen et al. 2024).

    Attributes:
        p: Greater than 0, at most 1; 1 keeps only the most probable token and those that tie with it.
        then: The sampler that chooses among them.

    >>> import torch
    >>> MinPSampler(0.6)(torch.tensor([[0.6, 0.3, 0.1]]).log())
    tensor([0])
    """

    p: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", check_number("p", self.p, maximum=1, above_minimum=True))
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` among the tokens that are probable enough; see `Sampler`."""
        values = _as_float32(_check_shape(logits))
        threshold = values.amax(dim=-1, keepdim=True) + math.log(self.p)
        return self._then(logits.masked_fill(values < threshold, -math.inf), tokens=tokens, generator=generator)


def with_tokens(sampler: Sampler) -> Sampler:
    """Returns a sampler that can be called with ``tokens``: ``sampler``, or a wrapper that calls it without them.

    The signature decides, not an error from the call, which could have another cause. If the signature cannot be read,
    or accepts any keyword, the sampler is trusted to follow the protocol.

    Raises:
        TypeError: If it cannot be called in either way, or is a class instead of an instance.
    """
    _check_sampler(sampler)
    try:
        # The __call__ of every module has the same signature.
        signature = inspect.signature(sampler.forward if isinstance(sampler, nn.Module) else sampler)
    except (TypeError, ValueError):  # a builtin
        return sampler
    if _accepts(signature, tokens=None, generator=None):
        return sampler
    if not _accepts(signature, generator=None):
        raise TypeError(
            f"a sampler must accept (logits, *, tokens=None, generator=None), got {_name(sampler)}, which accepts "
            f"{signature}"
        )
    return _WithoutTokens(sampler)


def _accepts(signature: inspect.Signature, **options: None) -> bool:
    """Returns whether a function with this signature can be called with logits and these keywords."""
    try:
        signature.bind(None, **options)
    except TypeError:
        return False
    return True


@dataclass(frozen=True)
class _WithoutTokens:
    """Adapts a sampler that sees only the logits to the protocol."""

    sampler: Callable[..., Tensor]

    def __call__(
        self,
        logits: Tensor,
        /,
        *,
        tokens: Tensor | None = None,  # noqa: ARG002
        generator: torch.Generator | None = None,
    ) -> Tensor:
        return self.sampler(logits, generator=generator)


def _check_sampler(sampler: object) -> None:
    if isinstance(sampler, type) or not callable(sampler):
        fix = f"; pass an instance, {sampler.__name__}(...)" if isinstance(sampler, type) else ""
        raise TypeError(f"expected a sampler, such as GreedySampler() or TopKSampler(50), got {sampler!r}{fix}")


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
                f"the sampler {_name(sampler)} must return token ids from 0 to {logits.shape[-1] - 1}, got {lowest} to "
                f"{highest}; return indices of the logits"
            )
    return ids


def _converted_ids(sampler: Sampler, ids: Tensor, logits: Tensor) -> Tensor:
    expected = f"the sampler {_name(sampler)} must return token ids as a tensor of shape ({len(logits)},), int64, "
    if not isinstance(ids, Tensor):
        raise TypeError(f"{expected}got {ids!r} ({type(ids).__name__}); return a tensor with one id per row")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{expected}got {ids.dtype} of {tuple(ids.shape)}; return indices, such as argmax(dim=-1)")
    if ids.shape not in ((len(logits),), (len(logits), 1)):
        raise ValueError(f"{expected}got {ids.dtype} of {tuple(ids.shape)}; return one id per row of logits")
    return ids.reshape(len(logits)).to(torch.int64)


def _name(sampler: object) -> str:
    """Returns the name of a sampler for messages: a function's name, or an object's repr."""
    return str(getattr(sampler, "__name__", None) or repr(sampler))


def _as_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _check_shape(logits: Tensor) -> Tensor:
    check_instance("logits", logits, Tensor, "a tensor, (B, V)")
    if logits.dim() != 2 or logits.shape[-1] == 0 or not logits.is_floating_point():
        raise ValueError(
            f"a sampler takes floating-point logits of shape (B, V), got {logits.dtype} of {tuple(logits.shape)}; "
            "for the last position of a model's output pass logits[:, -1]"
        )
    return logits


def checked_logits(logits: Tensor) -> Tensor:
    """Returns ``logits`` in at least float32 after checking that each row has a most probable token.

    Filters keep a row's maximum, so only the samplers at the end of a chain need to check it. The maximum of a row
    with a NaN is NaN.
    """
    logits = _as_float32(_check_shape(logits))
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
