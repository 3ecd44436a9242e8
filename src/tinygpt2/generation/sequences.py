"""Sequences of tokens that a model writes, as text to train another one on."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import LARGEST_SEED, check_instance, check_int
from tinygpt2._internal.cpu import fast_products
from tinygpt2._internal.devices import device_of
from tinygpt2._internal.random import seeded_generator
from tinygpt2.model.cache import KVCache
from tinygpt2.model.checks import ids_of_text
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.mixture import Mixture, as_probabilities, vocab_size_in, weighted_sum
from tinygpt2.model.modes import evaluation_mode
from tinygpt2.model.ngram import NGramModel

_MOST_SEQUENCES, _LONGEST = 2**24, 2**20  # far more than anybody waits for

_SAMPLES = 5  # the purpose of a seed; dropout, the order of the data and noise have others


def sample_sequences(
    model: nn.Module,
    tokens: "npt.NDArray[np.integer[Any]] | Tensor",
    *,
    count: int,
    length: int,
    prompt_tokens: int = 8,
    batch_size: int = 256,
    seed: int = 0,
) -> Tensor:
    """Returns sequences that begin with a few tokens of a text, and which a model continues.

    The places of the text are drawn, and each token from the model's probabilities as they are, at a temperature of 1:
    so the sequences are like the model's own text, not like its best. They are a function of the model, the text, the
    arguments and the device.

    Args:
        model: A `GPT2Model`, an `NGramModel`, a `Mixture`, or any module from tokens (B, T) to logits (B, T, V).
        tokens: Ids of the text, (N,).
        count: Number of sequences.
        length: Tokens of each, with those of the text. A model reads all but the last, so at most the context length
            and one more.
        prompt_tokens: Tokens of the text at the beginning of each, at most ``length``.
        batch_size: Sequences that are written at once.
        seed: Seed of the places and of the tokens.

    Returns:
        (count, length) int64, on the CPU.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the text is shorter than ``prompt_tokens``, the sequences are longer than the model can read, or
            a number or an id is out of range.

    >>> import numpy as np
    >>> from tinygpt2 import NGramModel
    >>> text = np.array([0, 1, 2] * 20)
    >>> model = NGramModel(text, vocab_size=3)
    >>> sample_sequences(model, text, count=2, length=6, prompt_tokens=2).shape
    torch.Size([2, 6])
    """
    check_instance("model", model, nn.Module, "a torch.nn.Module")
    count = check_int("count", count, maximum=_MOST_SEQUENCES)
    length = check_int("length", length, maximum=_LONGEST)
    batch_size = check_int("batch_size", batch_size)
    prompt_tokens = check_int("prompt_tokens", prompt_tokens, maximum=length)
    seed = check_int("seed", seed, minimum=0, maximum=LARGEST_SEED)
    text = ids_of_text(tokens, vocab_size_in(model))
    if len(text) < prompt_tokens:
        raise ValueError(
            f"tokens must be at least prompt_tokens={prompt_tokens} ids of a text, got {len(text)}; pass a longer "
            "text, or a smaller prompt_tokens"
        )
    parts = []
    with torch.inference_mode(mode=False), torch.no_grad(), evaluation_mode(model), fast_products():
        for first in range(0, count, batch_size):
            generator = seeded_generator(seed, _SAMPLES, first)
            starts = torch.randint(
                len(text) - prompt_tokens + 1, (min(batch_size, count - first), 1), generator=generator, device="cpu"
            )
            prompts = text[starts.numpy() + np.arange(prompt_tokens)]
            parts.append(_continued(model, torch.from_numpy(prompts), length, generator).cpu())
    return torch.cat(parts)


def _continued(model: nn.Module, prompts: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Returns sequences of a length that begin with prompts, (B, length)."""
    rows, width = prompts.shape
    device = device_of(model)
    tokens = torch.empty((rows, length), dtype=torch.int64, device=device)
    tokens[:, :width] = prompts
    reader = _Reader(model, rows, length - 1)
    for end in range(width, length):
        up_to = reader.probabilities(tokens[:, :end]).cumsum(dim=-1)  # (B, V)
        drawn = torch.rand((rows, 1), generator=generator, device="cpu").to(device) * up_to[:, -1:]
        chosen = torch.searchsorted(up_to, drawn, right=True)
        tokens[:, end] = chosen.squeeze(1).clamp_(max=up_to.shape[-1] - 1)
    return tokens


class _Reader:
    """A model that reads growing sequences, and what it has kept of them."""

    def __init__(self, model: nn.Module, rows: int, longest: int) -> None:
        self.model = model
        self.parts = [_Reader(part, rows, longest) for part in model.models] if isinstance(model, Mixture) else []
        self.cache: KVCache | None = None
        if isinstance(model, GPT2Model):
            if longest > model.config.context_length:
                raise ValueError(
                    f"length is {longest + 1}, but the model can read {model.config.context_length} tokens; pass at "
                    f"most length={model.config.context_length + 1}"
                )
            self.cache = KVCache(model.config, rows, capacity=max(1, longest), device=model.device)

    def probabilities(self, tokens: Tensor) -> Tensor:
        """Returns the probabilities of the next token of each sequence, (B, V)."""
        model = self.model
        if isinstance(model, Mixture):
            return weighted_sum((part.probabilities(tokens) for part in self.parts), model.shares)
        if isinstance(model, NGramModel):
            return model.last_probabilities(tokens[:, -max(1, model.order - 1) :])
        if isinstance(model, GPT2Model) and self.cache is not None:
            return as_probabilities(model.last_logits(tokens[:, self.cache.length :], self.cache))
        return as_probabilities(model(tokens)[:, -1])
