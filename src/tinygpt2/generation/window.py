"""What a model sees of a batch of growing texts, as keys and values."""

import torch
from torch import Tensor

from tinygpt2._internal.cpu import fast_products, fast_rows
from tinygpt2.generation.options import Overflow
from tinygpt2.generation.steps import Steps
from tinygpt2.model.cache import KVCache
from tinygpt2.model.gpt2 import GPT2Model


class Window:
    """The newest tokens of each text, at most the context length, and the logits after them.

    Args:
        model: The model.
        prompts: How many there are.
        copies: Number of texts that begin with each, which are computed once until they differ.
        longest: Tokens of a text at the end, at most.
        padding: (B,) int64 on the CPU, tokens to ignore on the left of each row, none in the longest; ``None`` for
            none.
        overflow: As in `GenerationOptions`.
    """

    def __init__(
        self,
        model: GPT2Model,
        prompts: int,
        *,
        copies: int,
        longest: int,
        padding: Tensor | None,
        overflow: Overflow,
    ) -> None:
        self._copies, self._padding = copies, padding
        self._model, self._restarts = model, overflow == "restart"
        self._size, self._longest = model.config.context_length, longest
        capacity = min(self._size, longest)
        self._cache = RollingCache(model.config, prompts, capacity=capacity, device=model.device)
        self._steps = Steps(model, self._cache)

    def logits(self, tokens: Tensor) -> Tensor:
        """Returns the logits after the texts so far, (B, T), as (B, V); one token is new since the last call."""
        if self._cache.length == 0:
            return self._read_prompts(tokens)
        if self._cache.length == self._size:
            if not self._restarts:  # every position shifts, so everything is recomputed
                return self._read(tokens)
            self._restart(tokens)
        return self._step(tokens)

    def _read_prompts(self, tokens: Tensor) -> Tensor:
        """Reads each prompt once."""
        logits = self._read(tokens[:: self._copies])
        if self._copies == 1:
            return logits
        self._cache.repeat(self._copies)
        if self._padding is not None:
            self._padding = self._padding.repeat_interleave(self._copies)
        return logits.repeat_interleave(self._copies, dim=0)

    def _read(self, tokens: Tensor) -> Tensor:
        """Fills the cache with the window, and returns the last logits."""
        start = max(0, tokens.shape[1] - self._size)
        unused = None if self._padding is None else (self._padding - start).clamp(min=0)
        self._cache.reset(unused if unused is not None and unused.any() else None)
        with fast_products():
            return self._model.last_logits(tokens[:, start:], self._cache)

    def _restart(self, tokens: Tensor) -> None:
        """Makes room for the last token: rows that fill the window keep its newest half, with that token.

        Shorter rows of the batch go on as they are, so that each is continued as it would be alone.
        """
        rows, kept = self._cache.full_rows(), (self._size + 1) // 2 - 1
        half = KVCache(self._model.config, len(rows), capacity=max(1, kept), device=self._model.device)
        if kept:
            with fast_products():
                self._model.last_logits(tokens[rows, -1 - kept : -1], half)
        self._cache.refill(rows, half)
        self._cache.compact()
        self._steps.rewind()

    def _step(self, tokens: Tensor) -> Tensor:
        """Adds the last token to the cache and returns its logits."""
        left = self._longest - tokens.shape[1] + 1 if self._restarts else self._cache.capacity - self._cache.length
        # For a single row, not oneDNN but the use of all cores is faster: see kernels.linear.
        with fast_products() if len(tokens) > 1 else fast_rows(self._model.wpe.weight.dtype):
            return self._steps(tokens[:, -1:], left)


class RollingCache(KVCache):
    """A cache, without gradients, in which some rows can begin anew while the others go on."""

    def repeat(self, copies: int) -> None:
        """Repeats each row, so that a sequence can go on in several ways."""
        self.keys, self.values = (self._repeated(store, copies) for store in (self.keys, self.values))
        if self._padding is not None:
            self._padding = self._padding.repeat_interleave(copies)

    def _repeated(self, store: Tensor, copies: int) -> Tensor:
        layers, batch, *rest = store.shape
        repeated = store.new_zeros((layers, batch * copies, *rest))
        repeated[..., : self.length, :] = store[..., : self.length, :].repeat_interleave(copies, dim=1)
        return repeated

    def full_rows(self) -> Tensor:
        """Returns the indices of the rows without padding, (R,): in a full cache, those that need room."""
        if self._padding is None:
            return torch.arange(self.batch_size, device=self.keys.device)
        return (self._padding == 0).nonzero().squeeze(1)

    def refill(self, rows: Tensor, other: KVCache) -> None:
        """Replaces what some rows, (R,), hold by the R sequences of another cache, flush right."""
        begin = self.length - other.length
        self.keys[:, rows, :, begin : self.length] = other.keys[..., : other.length, :].to(self.keys.dtype)
        self.values[:, rows, :, begin : self.length] = other.values[..., : other.length, :].to(self.values.dtype)
        if self._padding is None:
            self._padding = torch.zeros(self.batch_size, dtype=torch.int64, device=self.keys.device)
        self._padding = self._padding.index_fill(0, rows, begin)

    def compact(self) -> None:
        """Moves all rows to the left, as far as the longest one can go; a slot says nothing about a position."""
        if self._padding is None:
            return
        unused = int(self._padding.min())
        self.length -= unused
        for store in (self.keys, self.values):
            store[..., : self.length, :] = store[..., unused : unused + self.length, :].clone()
        self._padding = self._padding - unused if (self._padding > unused).any() else None
