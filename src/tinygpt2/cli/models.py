"""The model of a run and its tokenizer: a new one, or one to fine-tune."""

import re
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tinygpt2._internal.console import write_line
from tinygpt2._internal.random import random_states_kept, seed_everywhere
from tinygpt2.cli.corpus import Corpus
from tinygpt2.cli.inputs import is_of_tokens
from tinygpt2.cli.options import suggested
from tinygpt2.cli.runs import suggesting_runs
from tinygpt2.cli.train_options import AUTO, FLAGS, TOKENIZERS, TrainOptions, shape_of
from tinygpt2.cli.wording import in_flags
from tinygpt2.config import GPT2Config
from tinygpt2.data.token_file import TokenFile
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.byte_pairs import gpt2_tokenizer
from tinygpt2.tokenizers.choice import TokenizerChoice, choose_tokenizer
from tinygpt2.tokenizers.identity import tokenizer_identity
from tinygpt2.tokenizers.protocol import Tokenizer
from tinygpt2.tokenizers.storage import load_tokenizer
from tinygpt2.training.checkpoints.saver import newest_checkpoint

_SEEDING = threading.Lock()  # all threads initialise weights with the same global random numbers


def tokenizer_of(
    run: RunDirectory, options: TrainOptions, corpus: Corpus, *, resume: bool, vocab_size: Callable[[], int | None]
) -> tuple[Tokenizer, TokenizerChoice | None]:
    """Returns the tokenizer of a run, and why it is that one, if it was chosen for the corpus.

    Args:
        run: Its directory.
        options: Its options.
        corpus: Its corpus.
        resume: Whether it is resumed.
        vocab_size: Returns the size of a vocabulary that is learned from the text; called only if that is wanted.
    """
    if resume and run.tokenizer.exists():
        return load_tokenizer(run.path), None
    if options.from_pretrained is not None:
        with suggesting_runs(Path(options.from_pretrained)):
            return load_tokenizer(options.from_pretrained), None
    if options.tokenizer not in (None, *TOKENIZERS):
        return load_tokenizer(_existing(options.tokenizer)), None
    if is_of_tokens(corpus.train):
        return _tokenizer_of_tokens(corpus.train, options.tokenizer), None
    choice = _chosen(corpus.train, options, vocab_size)
    return choice.tokenizer, choice


def model_of(run: RunDirectory, options: TrainOptions, tokenizer: Tokenizer, *, resume: bool) -> GPT2Model:
    """Returns the model of a run: an initialised one, or the one to fine-tune, whose weights a checkpoint replaces."""
    if options.from_pretrained is None:
        return _new_model(_new_shape(options, tokenizer.n_vocab), options.seed)
    begun = resume and run.tokenizer.exists() and run.checkpoints()
    model = _pretrained(newest_checkpoint(run.path) if begun else options.from_pretrained, options)
    if options.train_only is not None:
        train_only(model, options.train_only)
    return model


def train_only(model: GPT2Model, pattern: str) -> None:
    """Leaves all weights of a model as they are but those with a match of a regular expression in their names.

    Raises:
        ValueError: If there is none.
    """
    names = [name for name, _ in model.named_parameters()]
    if not any(re.search(pattern, name) for name in names):
        raise ValueError(
            f"no weight of the model has a match of --train-only {pattern!r} in its name; they are named like "
            f"{', '.join(names[:1] + names[2:4] + names[-1:])}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(re.search(pattern, name)))


def _chosen(part: str | list[str], options: TrainOptions, vocab_size: Callable[[], int | None]) -> TokenizerChoice:
    """Returns the tokenizer that suits a text, and writes a warning as a line of its own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        size = vocab_size() if options.tokenizer in (None, "bpe") else None
        choice = choose_tokenizer(part, options.tokenizer or AUTO, size)
    if size is not None and options.vocab_size is None:  # the recipe chose it, nobody asked for it
        return replace(choice, reason="for what can be read in the time")
    for warning in caught:
        write_line(f"note: {in_flags(str(warning.message), FLAGS)}")
    return choice


def _tokenizer_of_tokens(files: list[TokenFile], name: str | None) -> Tokenizer:
    """Returns GPT-2's tokenizer, if it made files of tokens."""
    if name not in (None, "gpt2"):
        raise ValueError(
            f"--tokenizer {name} is for text, but the corpus is a file of tokens; omit it, or pass the directory of "
            "the tokenizer that made the tokens"
        )
    tokenizer = gpt2_tokenizer()
    if files[0].tokenizer_sha256 not in (None, tokenizer_identity(tokenizer)):
        raise ValueError(
            f"{files[0].path} was not made with GPT-2's tokenizer; pass the one that made it: --tokenizer DIR"
        )
    return tokenizer


def name_of_tokenizer(options: TrainOptions, corpus: Corpus, choice: TokenizerChoice | None) -> str | None:
    """Returns the tokenizer of a run, as its options save it; ``None`` of a pretrained model, which has its own."""
    if choice is not None:
        return choice.name
    if options.from_pretrained is not None:
        return None
    if options.tokenizer is None:
        return "gpt2" if is_of_tokens(corpus.train) else None
    return options.tokenizer if options.tokenizer in TOKENIZERS else str(Path(options.tokenizer).resolve())


def _existing(path: str) -> Path:
    if not Path(path).exists():
        advice = suggested(path, (AUTO, *TOKENIZERS))
        raise ValueError(
            f"--tokenizer {path} is neither {AUTO}, {', '.join(TOKENIZERS)} nor the path of a tokenizer{advice}"
        )
    return Path(path)


def _new_model(shape: GPT2Config, seed: int) -> GPT2Model:
    """Returns an initialised model, and leaves PyTorch's global random numbers as they were for a program around it."""
    device = torch.get_default_device()
    with _SEEDING, random_states_kept(device):
        seed_everywhere(device, seed)
        return GPT2Model(shape)


def _new_shape(options: TrainOptions, vocab_size: int) -> GPT2Config:
    others: dict[str, Any] = {name: getattr(options, name) for name in ("context_length", "dropout")} | shape_of(
        options
    )
    given = {name: value for name, value in others.items() if value is not None}
    return GPT2Config(vocab_size=vocab_size, **given)


def _pretrained(directory: Path | str, options: TrainOptions) -> GPT2Model:
    """Returns the model to fine-tune."""
    model = GPT2Model.from_pretrained(directory)
    if model.is_quantized:
        raise ValueError(
            f"the model in {directory} has weights of 8 bits, which cannot be trained; pass the one that it was made "
            "from"
        )
    longest = model.config.context_length
    if options.context_length is not None and options.context_length > longest:
        raise ValueError(
            f"--context-length is {options.context_length}, but the model in {directory} has a context length of "
            f"{longest}; omit the option, or pass at most that"
        )
    if options.dropout is None or options.dropout == model.config.dropout:
        return model
    changed = GPT2Model(replace(model.config, dropout=options.dropout))
    changed.load_state_dict(model.state_dict())
    return changed
