"""Text samples during training."""

from dataclasses import dataclass, field

import torch
from typing_extensions import override

from tinygpt2._internal.checks import check_int
from tinygpt2._internal.console import write_line
from tinygpt2._internal.random import mixed_seed
from tinygpt2.generation.samplers.draws import GreedySampler
from tinygpt2.generation.samplers.protocol import Sampler, with_tokens
from tinygpt2.generation.text import generate_text
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.protocol import encoded
from tinygpt2.training.callbacks.base import Callback
from tinygpt2.training.state import TrainState

_GREEDY = GreedySampler()


@dataclass
class TextSamples(Callback):
    """Writes a continuation of a prompt to stderr after each epoch, and after a run that ends within one.

    `train` adds one if ``config.sample_prompt`` is given.

    Attributes:
        prompt: Prompt to continue.
        tokenizer: Tokenizer of the training data.
        max_new_tokens: Tokens to generate.
        sampler: Sampler that chooses each token; greedy by default, so that samples can be compared.

    Raises:
        TypeError: If a value is of the wrong type.
        ValueError: If the prompt cannot be encoded, the tokenizer has no end-of-text token, or ``max_new_tokens`` is
            negative.
    """

    prompt: str
    tokenizer: AnyTokenizer
    max_new_tokens: int = 50
    sampler: Sampler = _GREEDY
    _last_step: int = field(default=-1, init=False, repr=False)

    def __post_init__(self) -> None:
        # Before training, not after an epoch.
        self.tokenizer = as_tokenizer(self.tokenizer, ends=True)
        encoded(self.tokenizer, self.prompt)
        self.max_new_tokens = check_int("max_new_tokens", self.max_new_tokens, minimum=0)
        with_tokens(self.sampler)

    @override
    def on_epoch(self, state: TrainState) -> None:
        if not state.interrupted:
            self._write(state)

    @override
    def on_end(self, state: TrainState, error: BaseException | None) -> None:
        if error is None and not state.interrupted and state.step != self._last_step:
            self._write(state)

    def _write(self, state: TrainState) -> None:
        self._last_step = state.step
        with state.averaged():
            text = generate_text(
                state.model,
                self.tokenizer,
                self.prompt,
                max_new_tokens=self.max_new_tokens,
                sampler=self.sampler,
                generator=torch.Generator(state.model.device).manual_seed(mixed_seed(state.config.seed)),
            )
        write_line(f"  sample: {' '.join(text.split())}")
