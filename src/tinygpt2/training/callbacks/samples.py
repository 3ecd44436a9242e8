"""Samples of text."""

from dataclasses import dataclass, field

import torch

from tinygpt2._internal.console import write_line
from tinygpt2._internal.random import mixed_seed
from tinygpt2.generation.samplers import GreedySampler, Sampler
from tinygpt2.generation.text import generate_text
from tinygpt2.text.tokenizers import Tokenizer
from tinygpt2.training.state import TrainState

_GREEDY = GreedySampler()


@dataclass
class TextSamples:
    """Continues a prompt at the end of each epoch, and of a run that ends within one, and writes the text to stderr.

    `train` adds one where ``config.sample_prompt`` is given.

    Attributes:
        prompt: What to continue.
        tokenizer: The one that the training data was encoded with.
        max_new_tokens: Length of the continuation.
        sampler: Chooses each token; greedy by default, so that samples can be compared.
    """

    prompt: str
    tokenizer: Tokenizer
    max_new_tokens: int = 50
    sampler: Sampler = _GREEDY
    _last_step: int = field(default=-1, init=False, repr=False)

    def __post_init__(self) -> None:
        self.tokenizer.encode_ordinary(self.prompt)  # an error, if there is one, before training and not after an epoch

    def __call__(self, state: TrainState, /) -> None:
        """Writes a sample after an epoch."""
        if state.event in ("epoch", "end") and state.step != self._last_step and not state.interrupted:
            self._last_step = state.step
            generator = torch.Generator(state.model.device).manual_seed(mixed_seed(state.config.seed))
            text = generate_text(
                state.model,
                self.tokenizer,
                self.prompt,
                max_new_tokens=self.max_new_tokens,
                sampler=self.sampler,
                generator=generator,
            )
            write_line(f"  sample: {' '.join(text.split())}")
