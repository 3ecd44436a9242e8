"""The keys and values of earlier positions, so that each new token costs one position instead of all."""

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_instance, check_int
from tinygpt2._internal.devices import choose_device
from tinygpt2.config import GPT2Config
from tinygpt2.kernels.switch import is_plain_computation

_MOST_SEQUENCES = 2**31 - 1  # so that the number of elements cannot overflow; memory ends long before


class KVCache:
    """Keys and values of every block for a batch of sequences.

    The memory is allocated once. Sequences of different lengths are aligned on the right: row b has ``padding[b]``
    unused slots on its left, which are never attended to and do not count as positions, so each row gives the same
    result as alone. Gradients flow through a cache as through the whole sequence, whose graph it then keeps; under
    ``torch.no_grad`` it keeps only values.

    Args:
        config: Configuration of the model that will fill it.
        batch_size: Number of sequences, B.
        capacity: Slots per sequence; ``config.context_length`` by default, and at most that.
        padding: (B,) int64, unused slots on the left of each row; ``None`` for none.
        device: Device of the cache.
        dtype: Dtype of the stored keys and values; by default that of the first ones stored. The model gets them back
            in its own dtype, so ``torch.bfloat16`` halves the memory of a float32 model's cache.

    Attributes:
        keys: (n_layer, B, H, capacity, D).
        values: (n_layer, B, H, capacity, D).
        length: Slots filled, the same in every row.

    Raises:
        RuntimeError: From PyTorch, if there is not enough memory.
        TypeError: If an argument is of the wrong type.
        ValueError: If a number is out of range, the capacity exceeds the context length, ``padding`` is not (B,)
            counts, there is no such device, or the dtype is not floating point.

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
        check_instance("config", config, GPT2Config, "a GPT2Config, such as model.config")
        batch_size = check_int("batch_size", batch_size, maximum=_MOST_SEQUENCES)
        device = None if device is None else choose_device(device)
        check_dtype(dtype)
        capacity = config.context_length if capacity is None else check_int("capacity", capacity)
        if capacity > config.context_length:
            raise ValueError(
                f"capacity is {capacity}, but the model has positions for context_length={config.context_length} tokens"
            )
        shape = (config.n_layer, batch_size, config.n_head, capacity, config.head_width)
        with torch.inference_mode(mode=False):  # tensors made in inference mode cannot be written to outside it
            self.keys = torch.zeros(shape, device=device, dtype=dtype)
            self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0
        self._takes_dtype = dtype is None  # of the first keys stored
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

    @property
    def has_padding(self) -> bool:
        """Whether some row has unused slots on its left."""
        return self._padding is not None

    def reset(self, padding: Tensor | None = None) -> None:
        """Empties the cache, keeps its memory, and sets a new ``padding``.

        Raises:
            TypeError: If ``padding`` is not a tensor.
            ValueError: If it is not (B,) counts.
        """
        if padding is not None:
            check_instance("padding", padding, Tensor, f"a tensor, ({self.batch_size},)")
            if padding.shape != (self.batch_size,):
                raise ValueError(f"padding must have shape ({self.batch_size},), got {tuple(padding.shape)}")
            if padding.dtype not in (torch.int64, torch.int32) or (padding < 0).any():
                raise ValueError(f"padding must hold integers of at least 0, got {padding}")
        self.length = 0
        self._graphs.clear()
        self._padding = None if padding is None else padding.to(self.keys.device)

    def positions(self, n: int) -> Tensor:
        """Returns the positions of the next ``n`` slots, (1, n), or (B, n) with padding, which has position 0.

        Raises:
            TypeError: If ``n`` is not an integer.
            ValueError: If so many slots are not free.
        """
        self._check_room(n)
        slots = torch.arange(self.length, self.length + n, device=self.keys.device).unsqueeze(0)  # (1, n)
        return slots if self._padding is None else (slots - self._padding.unsqueeze(1)).clamp(min=0)

    def attention_mask(self, n: int) -> Tensor | None:
        """Returns which slots each of the next ``n`` may see, or ``None`` where attention needs no explicit mask.

        Returns:
            Booleans, (1, 1, n, S) or, with padding, (B, 1, n, S).

        Raises:
            TypeError: If ``n`` is not an integer.
            ValueError: If so many slots are not free.
        """
        self._check_room(n)
        if self._padding is None and (n == 1 or self.length == 0):
            return None  # a single query sees every slot, and the first fill is plainly causal
        keys = torch.arange(self.length + n, device=self.keys.device)  # (S,)
        queries = keys[self.length :].unsqueeze(1)  # (n, 1)
        mask = (keys <= queries).unsqueeze(0)  # (1, n, S)
        if self._padding is not None:
            # A padding slot sees itself: otherwise its softmax would be NaN, and NaN times 0 is NaN.
            mask = mask & (keys >= self._padding.view(-1, 1, 1)) | (keys == queries)  # (B, n, S)
        return mask.unsqueeze(1)

    def update(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores the next n positions of block ``layer`` and returns all its positions.

        Args:
            layer: Index of the block.
            keys: (B, H, n, D).
            values: (B, H, n, D).

        Returns:
            Keys and values of all slots up to ``length + n``, (B, H, S, D) each: views of the cache, unless they
            have another dtype or gradients.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If there is no such block, the shapes do not fit, or the slots are not free.
        """
        self._check_new(layer, keys, values)
        if self._takes_dtype:
            self._take_dtype(keys.dtype)
        end = self.length + keys.shape[2]
        if not (torch.is_grad_enabled() or self._graphs) and keys.dtype == values.dtype == self.keys.dtype:
            self.keys[layer, :, :, self.length : end] = keys
            self.values[layer, :, :, self.length : end] = values
            return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]
        if layer in self._graphs:  # positions that were stored and then discarded are not part of it
            self._graphs[layer] = self._graphs[layer][..., : self.length, :]
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
        """Returns a block's keys and values followed by ``new`` (2, B, H, n, D), so that gradients flow through.

        They cannot flow through memory that is written in place. Positions without gradients are copied from there.
        """
        past = self._graphs.get(layer, new[..., :0, :])
        rest = slice(past.shape[-2], self.length)
        constant = torch.stack([self.keys[layer, :, :, rest], self.values[layer, :, :, rest]])
        self._graphs[layer] = torch.cat([past, constant, new], dim=-2)  # (2, B, H, S, D)
        return self._graphs[layer]

    def advance(self, n: int) -> None:
        """Counts ``n`` slots as filled, once every block has stored them.

        Raises:
            TypeError: If ``n`` is not an integer.
            ValueError: If so many slots are not free.
        """
        self._check_room(n)
        self.length += n

    def _check_room(self, n: int) -> None:
        """Raises an error unless ``n`` slots are free; when traced it is not a number yet."""
        free = self.capacity - self.length
        if not (type(n) is int and 0 <= n <= free) and is_plain_computation():
            check_int("n", n, minimum=0, maximum=free)

    def _check_new(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Raises an error unless a block can store these keys and values."""
        if not is_plain_computation():
            return
        layers, batch, heads, _, width = self.keys.shape
        if not (type(layer) is int and 0 <= layer < layers):
            check_int("layer", layer, minimum=0, maximum=layers - 1)
        check_instance("keys", keys, Tensor, "a tensor, (B, H, n, D)")
        check_instance("values", values, Tensor, "a tensor, (B, H, n, D)")
        shape = keys.shape
        if shape != values.shape or len(shape) != 4 or (shape[0], shape[1], shape[3]) != (batch, heads, width):
            raise ValueError(
                f"keys and values must have shape ({batch}, {heads}, n, {width}), got {tuple(keys.shape)} and "
                f"{tuple(values.shape)}"
            )
        self._check_room(shape[2])


def check_dtype(dtype: torch.dtype | None) -> None:
    """Raises an error unless a dtype, if there is one, is floating point."""
    if dtype is not None:
        check_instance("dtype", dtype, torch.dtype, "a torch.dtype")
        if not dtype.is_floating_point:
            raise ValueError(f"dtype must be floating point, such as torch.bfloat16, got {dtype}")
