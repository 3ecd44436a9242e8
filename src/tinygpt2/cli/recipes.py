"""The recipe of a run: what its options leave open is chosen for its text, its machine and its minutes."""

import time
from dataclasses import fields, replace
from typing import Any

import tiktoken
import torch

from tinygpt2.cli.corpus import Corpus
from tinygpt2.cli.inputs import Part, is_of_tokens
from tinygpt2.cli.train_options import TrainOptions, shape_of
from tinygpt2.config import TRAINING_RANGES, GPT2Config, TrainingConfig
from tinygpt2.recipe.recipe import Recipe
from tinygpt2.recipe.recommend import recommend
from tinygpt2.recipe.rules import TOKENS_PER_BYTE
from tinygpt2.recipe.speed import first_speed
from tinygpt2.recipe.statistics import TextStatistics
from tinygpt2.recipe.task import GIVEN
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.choice import tokens_for
from tinygpt2.tokenizers.protocol import Tokenizer
from tinygpt2.tokenizers.spelling import spelling_of

# The name of each option in Python, except that of samples, which are no part of a recipe.
_NAMES = {field.name: field.name for field in fields(TrainOptions) if field.name != "sample_prompt"}
_NAMES["accumulate"] = "gradient_accumulation_steps"


class RecipeMaker:
    """The choice of a recipe for a corpus, in two parts: of the vocabulary, and, given the tokenizer, of the rest.

    Args:
        options: Options of the run.
        corpus: Its corpus.
        device: Device to train on.
        began: When the command began, by ``time.monotonic``.
        processes: Number of processes that train together.
    """

    def __init__(
        self, options: TrainOptions, corpus: Corpus, device: torch.device, began: float, *, processes: int = 1
    ) -> None:
        self.options, self.corpus, self.device, self.began, self.processes = options, corpus, device, began, processes

    def vocab_size(self) -> int | None:
        """Returns the size of a vocabulary of byte pairs; ``None`` for the vocabulary that suits the whole text."""
        if self.options.vocab_size is not None:
            return self.options.vocab_size
        text = _statistics(self.corpus.train)
        recipe = recommend(
            text,
            minutes=self.options.minutes,
            device=self.device,
            speed=first_speed(self.device),
            given={"spelling": self.options.spelling, "tokenizer": self.options.tokenizer},
            processes=self.processes,
        )
        size = recipe.model.vocab_size
        return None if recipe.tokenizer == "char" or size == tokens_for(text.bytes, names=text.names) else size

    def __call__(self, tokenizer: Tokenizer, pretrained: GPT2Config | None) -> Recipe:
        """Returns the recipe for a new model, or for the training of a pretrained one."""
        text, held_out = _statistics(self.corpus.train, tokenizer), None
        if any(map(len, self.corpus.val)):
            held_out = _statistics(self.corpus.val, tokenizer).tokens
        return recommend(
            replace(text, held_out=held_out),
            minutes=self.options.minutes,
            device=self.device,
            given=self._given(tokenizer, pretrained),
            pretrained=pretrained,
            spent=time.monotonic() - self.began,
            processes=self.processes,
        )

    def _given(self, tokenizer: Tokenizer, pretrained: GPT2Config | None) -> dict[str, object]:
        given: dict[str, object] = {
            name: getattr(self.options, option) for option, name in _NAMES.items() if name in GIVEN
        }
        given |= shape_of(self.options)
        if pretrained is None:
            given["vocab_size"] = tokenizer.n_vocab
            given["tokenizer"] = self.options.tokenizer or ("char" if isinstance(tokenizer, CharTokenizer) else "bpe")
        if is_of_tokens(self.corpus.train) or not isinstance(tokenizer, tiktoken.Encoding):
            given["bpe_dropout"] = given["bpe_dropout"] or 0.0  # there are no words, or no merges
        if pretrained is None and spelling_of(tokenizer) is None:
            given["spelling"] = given["spelling"] or False  # or no texts of tokens
        return given


def _statistics(part: Part, tokenizer: Tokenizer | None = None) -> TextStatistics:
    """Returns the statistics of a part of a corpus; those of files of tokens are in their headers."""
    if not is_of_tokens(part):
        return TextStatistics.of(part, tokenizer)
    tokens = sum(map(len, part))
    known = [file.bytes for file in part if file.bytes is not None]
    size = sum(known) if len(known) == len(part) else round(tokens / TOKENS_PER_BYTE)
    documents = sum(file.documents or 0 for file in part)
    return TextStatistics(bytes=max(1, size), documents=max(1, documents), tokens=tokens)


def with_recipe(options: TrainOptions, recipe: Recipe) -> TrainOptions:
    """Returns options with what a recipe has chosen."""
    training, model, noise = recipe.training, recipe.model, recipe.noise
    chosen: dict[str, Any] = {
        option: getattr(training, name) for option, name in _NAMES.items() if name in TRAINING_RANGES
    }
    if training.max_steps is not None:
        chosen["epochs"] = None
    if options.from_pretrained is None:
        chosen |= {name: getattr(model, name) for name in ("n_layer", "n_head", "n_embd")}
    return replace(
        options,
        minutes=recipe.minutes if options.minutes is None else options.minutes,
        context_length=model.context_length,
        dropout=model.dropout,
        batch_size=recipe.batch_size,
        bpe_dropout=noise.bpe_dropout if noise else 0.0,
        token_noise=noise.token_noise if noise else 0.0,
        noise_epochs=noise.epochs if noise else options.noise_epochs,
        teachers=recipe.teachers,
        student_steps=None if recipe.student is None else recipe.student.max_steps,
        **chosen,
    )


def training_config(options: TrainOptions, prompt: str | None) -> TrainingConfig:
    """Returns the configuration that complete options describe.

    Args:
        options: Options of a run, with all that its recipe has chosen.
        prompt: Prompt of its samples; ``None`` for no samples.
    """
    values = {name: getattr(options, option) for option, name in _NAMES.items() if name in TRAINING_RANGES}
    return TrainingConfig(sample_prompt=prompt, **{name: value for name, value in values.items() if value is not None})
