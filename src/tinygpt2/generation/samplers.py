"""How the next token is chosen from the model's logits.

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

from tinygpt2._internal.checks import check_int, check_number


@runtime_checkable
class Sampler(Protocol):
    """Anything that chooses a token for each row of logits. A plain function of this form is one, too.

    A sampler does not change its input, works on each row alone, and never chooses a token whose logit is -inf. A
    filter passes ``tokens`` on to the sampler after it. A callable whose signature has no ``tokens`` works as well: it
    is called without them.

    >>> isinstance(TopKSampler(3), Sampler)
    True
    """

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses a token for each row.

        Args:
            logits: (B, V), floating point, unnormalised log-probabilities; -inf for a token that must not come.
            tokens: The text so far, (B, T) int64 on the device of ``logits``: the prompt and what was generated. In a
                batch of `generate_text` a shorter row begins with the end-of-text token, repeated, so that all end at
                the same place; a row that has ended goes on with it. ``None`` where there is no text.
            generator: Source of randomness, on the device of ``logits``; PyTorch's global one if ``None``.

        Returns:
            Token ids, (B,) int64.

        Raises:
            ValueError: If ``logits`` is not (B, V), or a row has NaN, +inf or nothing but -inf. On CUDA the values
                are checked without waiting for them, and PyTorch reports a failure as a device error.
        """
        ...


@dataclass(frozen=True)
class GreedySampler:
    """The most probable token; of several with the same logit the first.

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
        return _checked(logits).argmax(dim=-1)


@dataclass(frozen=True)
class MultinomialSampler:
    """A token drawn with its probability under the softmax of the logits.

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
        """Draws one token a row; see `Sampler`."""
        probabilities = torch.softmax(_checked(logits), dim=-1)
        return torch.multinomial(probabilities, num_samples=1, generator=generator).squeeze(-1)


@dataclass(frozen=True)
class TopKSampler:
    """Keeps each row's ``k`` largest logits (Fan et al. 2018) and passes them on.

    All tokens that tie with the k-th survive, as in transformers. A ``k`` beyond the vocabulary keeps everything.

    Attributes:
        k: How many tokens stay, at least 1.
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
        check_int("k", self.k)
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` among the ``k`` best; see `Sampler`."""
        _check_shape(logits)
        kth = logits.topk(min(self.k, logits.shape[-1]), dim=-1).values[:, -1:]  # (B, 1)
        return self._then(logits.masked_fill(logits < kth, -math.inf), tokens=tokens, generator=generator)


@dataclass(frozen=True)
class TemperatureSampler:
    """Divides the logits by a temperature: below 1 the probable tokens gain, above 1 the others.

    Attributes:
        temperature: Greater than 0. Towards 0 the choice becomes greedy, towards infinity uniform.
        then: The sampler that chooses with the new logits.

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
        if self.temperature == 0:
            raise ValueError(
                "temperature must be a finite number greater than 0, got 0; for temperature 0 take GreedySampler()"
            )
        check_number("temperature", self.temperature, above_minimum=True)
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` from the scaled logits; see `Sampler`."""
        logits = _as_float32(_check_shape(logits))
        # The softmax does not change when a row is shifted; with its maximum at 0 no temperature can overflow to +inf.
        shifted = logits - logits.amax(dim=-1, keepdim=True)
        float32 = torch.finfo(torch.float32)  # beyond it a temperature would be 0 or infinite
        temperature = min(max(self.temperature, float32.tiny), float32.max)
        return self._then(shifted / temperature, tokens=tokens, generator=generator)


@dataclass(frozen=True)
class TopPSampler:
    """Keeps the most probable tokens that together have at least probability ``p`` (Holtzman et al. 2020, nucleus).

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
        check_number("p", self.p, maximum=1, above_minimum=True)
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` among the most probable; see `Sampler`."""
        _check_shape(logits)
        if self.p == 1:  # rounding of the running sum must not cost the rarest tokens
            return self._then(logits, tokens=tokens, generator=generator)
        descending = logits.sort(dim=-1, descending=True).values
        probabilities = torch.softmax(_as_float32(descending), dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities  # what the more probable tokens have together
        kept = (before < self.p).sum(dim=-1, keepdim=True).clamp(min=1)  # (B, 1)
        last = descending.gather(-1, kept - 1)
        return self._then(logits.masked_fill(logits < last, -math.inf), tokens=tokens, generator=generator)


@dataclass(frozen=True)
class MinPSampler:
    """Keeps tokens at least ``p`` times as probable as the most probable one (Nguyen et al. 2024).

    Attributes:
        p: Greater than 0, at most 1; 1 keeps only the most probable and what ties with it.
        then: The sampler that chooses among them.

    >>> import torch
    >>> MinPSampler(0.6)(torch.tensor([[0.6, 0.3, 0.1]]).log())
    tensor([0])
    """

    p: float
    then: Sampler = MultinomialSampler()

    def __post_init__(self) -> None:
        check_number("p", self.p, maximum=1, above_minimum=True)
        _check_sampler(self.then)

    @cached_property
    def _then(self) -> Sampler:
        return with_tokens(self.then)

    def __call__(
        self, logits: Tensor, /, *, tokens: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Chooses with ``then`` among the tokens probable enough; see `Sampler`."""
        values = _as_float32(_check_shape(logits))
        threshold = values.amax(dim=-1, keepdim=True) + math.log(self.p)
        return self._then(logits.masked_fill(values < threshold, -math.inf), tokens=tokens, generator=generator)


def with_tokens(sampler: Sampler) -> Sampler:
    """Returns a sampler that can be called with ``tokens``: ``sampler``, or what calls it without them.

    The signature decides, not an error of the call, which could have any other cause. Where there is none to read, or
    it takes any keyword, the sampler is trusted to follow the protocol.

    Raises:
        TypeError: If it cannot be called, or is a class and not an instance.
    """
    _check_sampler(sampler)
    try:
        # Every module's own call has the same signature.
        signature = inspect.signature(sampler.forward if isinstance(sampler, nn.Module) else sampler)
    except (TypeError, ValueError):  # a builtin
        return sampler
    try:
        signature.bind(None, tokens=None, generator=None)
    except TypeError:
        return _WithoutTokens(sampler)
    return sampler


@dataclass(frozen=True)
class _WithoutTokens:
    """A sampler that sees the logits alone, to be called as the others are."""

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


def checked_ids(sampler: Sampler, ids: Tensor, logits: Tensor) -> Tensor:
    """Returns what ``sampler`` chose from ``logits`` as (B,) int64 on their device, without looking at the values.

    Raises:
        TypeError: If ``ids`` is not a tensor of integers.
        ValueError: If it is not one id a row, (B,) or, as ``torch.multinomial`` returns it, (B, 1).
    """
    expected = f"the sampler {_name(sampler)} must return token ids as a tensor of shape ({len(logits)},), int64, "
    if not isinstance(ids, Tensor):
        raise TypeError(f"{expected}got {ids!r} ({type(ids).__name__}); return a tensor with an id for each row")
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise TypeError(f"{expected}got {ids.dtype} of {tuple(ids.shape)}; return indices, such as argmax(dim=-1)")
    if ids.shape not in ((len(logits),), (len(logits), 1)):
        raise ValueError(f"{expected}got {ids.dtype} of {tuple(ids.shape)}; return one id for each row of logits")
    return ids.reshape(len(logits)).to(logits.device, torch.int64)


def _name(sampler: object) -> str:
    """Returns how messages call a sampler: a function's name, and what rebuilds an object."""
    return str(getattr(sampler, "__name__", None) or repr(sampler))


def _as_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _check_shape(logits: Tensor) -> Tensor:
    if logits.dim() != 2 or logits.shape[-1] == 0 or not logits.is_floating_point():
        raise ValueError(
            f"a sampler takes floating-point logits of shape (B, V), got {logits.dtype} of {tuple(logits.shape)}; "
            "for the last position of a model's output pass logits[:, -1]"
        )
    return logits


def _checked(logits: Tensor) -> Tensor:
    """Returns ``logits`` in at least float32, once each row is known to have a most probable token.

    Filters keep a row's maximum, so it is enough that the samplers which choose check it. The maximum of a row with a
    NaN is NaN.
    """
    logits = _as_float32(_check_shape(logits))
    sound = logits.amax(dim=-1).isfinite().all()
    message = (
        "a row of logits has NaN, +inf or nothing but -inf, so no token can be chosen; look at the model that made it"
    )
    if logits.device.type == "cuda":  # raises later, so that decoding does not wait
        torch.ops.aten._assert_async.msg(sound, message)  # noqa: SLF001
    elif not sound:
        raise ValueError(message)
    return logits
