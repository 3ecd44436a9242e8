"""What a sampler is."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

NO_TOKEN = -1
"""What ``tokens`` have where a row has no text: the padding of a batch."""


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
                batch of `generate_text`, shorter rows are padded on the left with -1, which is no token, so that all
                end at the same place. A row that has ended continues with the token that ended it. ``None`` where there
                is no text.
            generator: Source of randomness, on the device of ``logits``; PyTorch's global one if ``None``.

        Returns:
            Token ids, (B,) int64.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If ``logits`` is not (B, V), a row has NaN, +inf or only -inf, or the generator is on another
                device. On CUDA the values are checked asynchronously, and PyTorch reports a failure as a device error.
        """
        ...


def with_tokens(sampler: Sampler) -> Sampler:
    """Returns a sampler that can be called with ``tokens``: ``sampler``, or a wrapper that calls it without them.

    The signature decides, not an error from the call, which could have another cause. If the signature cannot be read,
    or accepts any keyword, the sampler is trusted to follow the protocol.

    Raises:
        TypeError: If it cannot be called in either way, or is a class instead of an instance.
    """
    check_sampler(sampler)
    try:
        # The __call__ of every module has the same signature.
        signature = inspect.signature(sampler.forward if isinstance(sampler, nn.Module) else sampler)
    except (TypeError, ValueError):  # a builtin
        return sampler
    if _accepts(signature, tokens=None, generator=None):
        return sampler
    if not _accepts(signature, generator=None):
        raise TypeError(
            f"a sampler must accept (logits, *, tokens=None, generator=None), got {name_of(sampler)}, which accepts "
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


def check_sampler(sampler: object) -> None:
    """Raises ``TypeError`` if ``sampler`` cannot be called, or is a class instead of an instance."""
    if isinstance(sampler, type) or not callable(sampler):
        fix = f"; pass an instance, {sampler.__name__}(...)" if isinstance(sampler, type) else ""
        raise TypeError(f"expected a sampler, such as GreedySampler() or TopKSampler(50), got {sampler!r}{fix}")


def name_of(sampler: object) -> str:
    """Returns the name of a sampler for messages: a function's name, or an object's repr."""
    return str(getattr(sampler, "__name__", None) or repr(sampler))
