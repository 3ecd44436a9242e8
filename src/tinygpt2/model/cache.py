"""The keys and values of positions already seen, so that each new token costs one position and not all of them."""

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_int
from tinygpt2.config import GPT2Config


class KVCache:
    """Keys and values of every block for a batch of sequences.

    The memory is allocated once. Sequences of different lengths stand flush right: row b has ``padding[b]`` unused
    slots on its left, which are never attended to and do not count as positions, so each row comes out as it would
    alone. Gradients flow through a cache as through the whole sequence, for which it then keeps the graph; under
    ``torch.no_grad`` it keeps numbers alone.

    Args:
        config: Of the model that will fill it.
        batch_size: Number of sequences, B.
        capacity: Slots per sequence; ``config.context_length`` by default, and at most that.
        padding: (B,) int64, unused slots on the left of each row; ``None`` for none.
        device: Where the cache lies.
        dtype: Of the keys and values that are kept; by default that of the first ones that come. The model gets them
            back in its own, so that ``torch.bfloat16`` halves the memory of a float32 model's cache.

    Attributes:
        keys: (n_layer, B, H, capacity, D).
        values: (n_layer, B, H, capacity, D).
        length: Slots filled, the same in every row.

    Raises:
        ValueError: If the capacity is beyond the context length, or ``padding`` is not (B,) counts.

    >>> import torch
    >>> from tinygpt2 import GPT2Model
    >>> shape = GPT2Config(
    ...     vocab_size=9, context_length=8, n_layer=2, n_head=2, n_embd=4
    ... )
    >>> model = GPT2Model(shape).eval()
    >>> cache = KVCache(model.config, batch_size=1)
    >>> tokens = torch.tensor([[3, 1, 4, 1, 5]])
    >>> _ = model(tokens[:, :3], cache)
    >>> torch.allclose(model(tokens[:, 3:], cache), model(tokens)[:, 3:], atol=1e-6)
    True
    >>> cache.length
    5
    """

    def __init__(
        self,
        config: GPT2Config,
        batch_size: int,
        *,
        capacity: int | None = None,
        padding: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_int("batch_size", batch_size)
        capacity = config.context_length if capacity is None else check_int("capacity", capacity)
        if capacity > config.context_length:
            raise ValueError(
                f"capacity is {capacity}, but the model has positions for context_length={config.context_length} tokens"
            )
        shape = (config.n_layer, batch_size, config.n_head, capacity, config.head_width)
        with torch.inference_mode(mode=False):  # what is made in inference mode cannot be written to outside of it
            self.keys = torch.zeros(shape, device=device, dtype=dtype)
            self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0
        self._takes_dtype = dtype is None  # of the first keys
        self._graphs: dict[int, Tensor] = {}  # a block's keys and values, (2, B, H, S, D), where they have gradients
        self._padding: Tensor | None = None
        self.reset(padding)

    @property
    def batch_size(self) -> int:
        """Number of sequences, B."""
        return self.keys.shape[1]

    @property
    def capacity(self) -> int:
        """Slots per sequence."""
        return self.keys.shape[3]

    def reset(self, padding: Tensor | None = None) -> None:
        """Forgets all that was cached, keeps the memory, and takes a new ``padding``."""
        if padding is not None:
            if padding.shape != (self.batch_size,):
                raise ValueError(f"padding must have shape ({self.batch_size},), got {tuple(padding.shape)}")
            if padding.dtype not in (torch.int64, torch.int32) or (padding < 0).any():
                raise ValueError(f"padding must count slots, integers of at least 0, got {padding}")
        self.length = 0
        self._graphs.clear()
        self._padding = None if padding is None else padding.to(self.keys.device)

    def positions(self, n: int) -> Tensor:
        """Returns the positions of the next ``n`` slots, (1, n), or (B, n) with padding, whose own position is 0."""
        slots = torch.arange(self.length, self.length + n, device=self.keys.device).unsqueeze(0)  # (1, n)
        return slots if self._padding is None else (slots - self._padding.unsqueeze(1)).clamp(min=0)

    def attention_mask(self, n: int) -> Tensor | None:
        """Returns which slots each of the next ``n`` may see, or ``None`` where attention needs no mask of its own.

        Returns:
            Booleans, (1, 1, n, S) or, with padding, (B, 1, n, S).
        """
        if self._padding is None and (n == 1 or self.length == 0):
            return None  # one query sees all there is, and a first fill is plainly causal
        keys = torch.arange(self.length + n, device=self.keys.device)  # (S,)
        queries = keys[self.length :].unsqueeze(1)  # (n, 1)
        mask = (keys <= queries).unsqueeze(0)  # (1, n, S)
        if self._padding is not None:
            # A padding slot sees itself: with nothing to see its softmax would be NaN, and NaN times 0 is NaN.
            mask = mask & (keys >= self._padding.view(-1, 1, 1)) | (keys == queries)  # (B, n, S)
        return mask.unsqueeze(1)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores block ``layer``'s next n positions and returns all it has.

        Args:
            layer: Index of the block.
            keys: (B, H, n, D).
            values: (B, H, n, D).

        Returns:
            Keys and values of all slots up to ``length + n``, (B, H, S, D) each: views of the cache, unless they are
            of another dtype or have gradients.
        """
        if self._takes_dtype:
            self._take_dtype(keys.dtype)
        if layer in self._graphs:  # what was stored and given up since is no part of it
            self._graphs[layer] = self._graphs[layer][..., : self.length, :]
        end = self.length + keys.shape[2]
        new_keys, new_values = keys.to(self.keys.dtype), values.to(self.values.dtype)
        self.keys[layer, :, :, self.length : end] = new_keys.detach()
        self.values[layer, :, :, self.length : end] = new_values.detach()
        if torch.is_grad_enabled() and (keys.requires_grad or values.requires_grad or layer in self._graphs):
            all_keys, all_values = self._extend_graph(layer, torch.stack([new_keys, new_values]))
        else:
            all_keys, all_values = self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        return all_keys.to(keys.dtype), all_values.to(values.dtype)

    def _take_dtype(self, dtype: torch.dtype) -> None:
        self._takes_dtype = False
        if dtype != self.keys.dtype:
            with torch.inference_mode(mode=False):
                self.keys = torch.zeros_like(self.keys, dtype=dtype)
                self.values = torch.zeros_like(self.values, dtype=dtype)

    def _extend_graph(self, layer: int, new: Tensor) -> Tensor:
        """Returns a block's keys and values with ``new`` (2, B, H, n, D) after them, so that gradients flow through.

        They cannot flow through memory that is written in place. What came without gradients is copied from there.
        """
        past = self._graphs.get(layer, new[..., :0, :])
        rest = slice(past.shape[-2], self.length)
        constant = torch.stack([self.keys[layer, :, :, rest], self.values[layer, :, :, rest]])
        self._graphs[layer] = torch.cat([past, constant, new], dim=-2)  # (2, B, H, S, D)
        return self._graphs[layer]

    def advance(self, n: int) -> None:
        """Counts ``n`` slots as filled, once every block has stored them."""
        self.length += n
