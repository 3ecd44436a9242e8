"""Steps of decoding on one token each, by whatever computes them fastest."""

import logging
from typing import Protocol

import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import first_line
from tinygpt2.generation.graphs import LEAST_STEPS, RecordedStep, is_recordable
from tinygpt2.kernels.switch import calls_only, enabled, is_plain_computation
from tinygpt2.model.cache import KVCache
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.token_step import TokenStep

logger = logging.getLogger(__name__)

_TOLERANCE = 0.02  # of the largest logit, far above the rounding of half precision

_failed: set[str] = set()  # reasons that were logged


class _FastStep(Protocol):
    """What computes the logits after the next tokens, (B, 1), as (B, V), and adds the tokens to a cache."""

    def __call__(self, tokens: Tensor, /) -> Tensor: ...

    def rewind(self) -> None:
        """Makes the next step that of the cache again, from which tokens may have been discarded since."""


class Steps:
    """The steps of decoding with a cache: of a model and the tokens so far, each adds one token to every row.

    The first decides how the others are computed: as CUDA graphs on a GPU, without modules for one row on a CPU, or
    plainly. What is fast must agree with the plain step there, and be used for some steps to be worth its preparation.
    It is for models of our own modules alone, so that code of others is always called.

    Args:
        model: The model.
        cache: Cache with the tokens so far.
    """

    def __init__(self, model: GPT2Model, cache: KVCache) -> None:
        self._model, self._cache = model, cache
        self._fast: _FastStep | None = None
        self._decided = False
        self._weights: list[Tensor] = []
        self._places: list[int] = []

    def __call__(self, tokens: Tensor, left: int) -> Tensor:
        """Returns the logits after the next tokens, (B, 1), as (B, V).

        Args:
            tokens: The next tokens, (B, 1).
            left: How many steps are left, with this one.
        """
        if not self._decided:
            self._decided = True
            return self._first(tokens, left)
        if self._fast is not None:
            if self._places == [weight.data_ptr() for weight in self._weights]:
                return self._fast(tokens)
            self._fast = None
        return self._model.last_logits(tokens, self._cache)

    def rewind(self) -> None:
        """Makes the next step that of the cache again, from which tokens may have been discarded since."""
        if self._fast is not None:
            self._fast.rewind()

    def _first(self, tokens: Tensor, left: int) -> Tensor:
        model, cache = self._model, self._cache
        kind = _kind(model, cache, left)
        length = cache.length
        expected = model.last_logits(tokens, cache)
        if kind is None:
            return expected
        cache.length = length
        try:
            step = kind(model, cache)
            found = step(tokens)
            if _agree(found, expected):
                self._fast = step
                self._weights = [*model.parameters(), *model.buffers()]
                self._places = [weight.data_ptr() for weight in self._weights]
                return found
            reason = "a fast step has other logits than a plain one"
        except RuntimeError as error:
            reason = first_line(error)
        if reason not in _failed:
            _failed.add(reason)
            logger.warning("decoding with plain steps, which is slower: %s", reason)
        cache.length = length
        return model.last_logits(tokens, cache)  # again, as the fast step has written into the cache


def _kind(model: GPT2Model, cache: KVCache, steps: int) -> type[RecordedStep] | type[TokenStep] | None:
    """Returns what computes that many steps faster than the model does, ``None`` if nothing does."""
    if (
        not is_plain_computation()
        or torch.is_autocast_enabled(cache.keys.device.type)
        or cache.keys.dtype != model.wpe.weight.dtype
        or not model.splits()
        or not all(_is_ours(module) for module in model.modules())
    ):
        return None
    if is_recordable(cache):
        return RecordedStep if steps >= LEAST_STEPS else None
    if enabled("linear") and TokenStep.fits(cache):
        return TokenStep if steps >= TokenStep.LEAST_STEPS else None
    return None


def _is_ours(module: nn.Module) -> bool:
    kind = type(module)
    return kind.__module__.partition(".")[0] in {"torch", "tinygpt2"} and calls_only(module, kind.forward)


def _agree(found: Tensor, expected: Tensor) -> bool:
    """Returns whether two logits are equal but for rounding."""
    return bool((found - expected).abs().max() <= _TOLERANCE * expected.abs().max())
