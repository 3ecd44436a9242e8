"""Steps of decoding as CUDA graphs.

On a GPU, a step on one token consists of hundreds of short kernels, and launching them one by one takes longer than
they do. A graph launches all of them at once. It always works on the same memory and the same shapes, so a step then
attends to every slot of the cache, of which those to come are masked.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from tinygpt2.model.cache import KVCache
from tinygpt2.model.gpt2 import GPT2Model

LEAST_STEPS = 32
"""Steps from which on recording one is repaid."""

_WARM_UPS = 3  # steps before the recording, in which libraries choose their kernels and allocate


class StaticCache(KVCache):
    """A cache whose next slot is a number on the device, and which is always read as a whole: for steps on one token.

    Args:
        cache: The cache that it continues, whose memory it shares.

    Attributes:
        slot: (1,) int64, the next slot.
    """

    def __init__(self, cache: KVCache) -> None:  # which has no memory to allocate
        self.keys, self.values, self.length = cache.keys, cache.values, cache.length
        padding = cache._padding  # noqa: SLF001 - of the same kind
        self._padding = None if padding is None else padding.clone()  # whose memory is read in every step
        self.slot = torch.full((1,), cache.length, dtype=torch.int64, device=self.keys.device)
        self._slots = torch.arange(self.capacity, device=self.keys.device)

    def follow(self, cache: KVCache) -> None:
        """Makes the next slot, and the padding, those of the cache that it continues, which can have gone back."""
        self.length = cache.length
        self.slot.fill_(cache.length)
        if self._padding is not None:
            padding = cache._padding  # noqa: SLF001 - of the same kind
            self._padding.copy_(torch.zeros_like(self._padding) if padding is None else padding)

    @override
    def positions(self, n: int) -> Tensor:
        slot = self.slot.view(1, 1)
        return slot if self._padding is None else (slot - self._padding.unsqueeze(1)).clamp(min=0)

    @override
    def attention_mask(self, n: int) -> Tensor:
        mask = (self._slots <= self.slot).unsqueeze(0)  # (1, S)
        if self._padding is not None:
            mask = mask & (self._slots >= self._padding.unsqueeze(1)) | (self._slots == self.slot)  # (B, S)
        return mask[:, None, None]

    @override
    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer].index_copy_(2, self.slot, keys)
        self.values[layer].index_copy_(2, self.slot, values)
        return self.keys[layer], self.values[layer]

    @override
    def advance(self, n: int) -> None:
        self.slot.add_(n)  # the length is counted where the recorded step is repeated


class RecordedStep:
    """The next step of decoding, recorded and repeated.

    Args:
        model: The model.
        cache: Cache with the tokens so far, which each step continues.
    """

    def __init__(self, model: GPT2Model, cache: KVCache) -> None:
        self._cache = cache
        self._tokens = torch.zeros((cache.batch_size, 1), dtype=torch.int64, device=cache.keys.device)
        self._static = StaticCache(cache)

        def step() -> Tensor:
            return model.last_logits(self._tokens, self._static)

        self._repeat = record(step, self.rewind)
        self.rewind()

    def __call__(self, tokens: Tensor) -> Tensor:
        """Returns the logits after the next tokens, (B, 1), as (B, V)."""
        self._tokens.copy_(tokens)
        logits = self._repeat()
        self._cache.advance(1)
        self._static.length += 1
        return logits.clone()  # the next step overwrites it

    def rewind(self) -> None:
        """Makes the next step that of the cache again, from which tokens may have been discarded since."""
        self._static.follow(self._cache)


def record(step: Callable[[], Tensor], rewind: Callable[[], None]) -> Callable[[], Tensor]:
    """Returns what repeats a step on a CUDA device, in the same memory.

    Args:
        step: The step.
        rewind: Undoes what the step did to its place in the cache.
    """
    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(_WARM_UPS):
            rewind()
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may use the GPU meanwhile
        logits = step()

    def repeat() -> Tensor:
        graph.replay()
        return logits

    return repeat


def is_recordable(cache: KVCache) -> bool:
    """Returns whether the device of a cache has graphs."""
    return cache.keys.device.type == "cuda"
