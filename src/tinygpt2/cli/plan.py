"""The plan of a run: what its options, its corpus and its recipe describe."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from tinygpt2.cli.common import naming
from tinygpt2.cli.corpus import Corpus, make_loaders, prompt_from, to_read_again
from tinygpt2.cli.models import model_of, name_of_tokenizer, tokenizer_of
from tinygpt2.cli.recipes import RecipeMaker, training_config, with_recipe
from tinygpt2.cli.train_options import TrainOptions
from tinygpt2.config import TrainingConfig
from tinygpt2.data.batches import Batch
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.protocol import Tokenizer, encoded


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start.

    Attributes:
        run: Its directory.
        options: Its options, with the values chosen for those not given.
        corpus: Its texts.
        config: Its training configuration.
        prompt: A prompt to try its model with; empty if it begins new texts.
        notes: What to say about its data and its tokenizer.
        model: Its model, initialised or pretrained.
        tokenizer: Its tokenizer.
        train_loader: Its training data.
        val_loader: Its validation data.
    """

    run: RunDirectory
    options: TrainOptions
    corpus: Corpus
    config: TrainingConfig
    prompt: str
    notes: tuple[str, ...]
    model: GPT2Model
    tokenizer: Tokenizer
    train_loader: DataLoader[Batch]
    val_loader: DataLoader[Batch]


def make_plan(
    run: RunDirectory, options: TrainOptions, corpus: Corpus, maker: RecipeMaker | None, *, quiet: bool
) -> Plan:
    """Returns the run that options and a corpus describe; without the maker of a recipe, one to resume."""
    resume = maker is None
    tokenizer, choice = tokenizer_of(
        run, options, corpus, resume=resume, vocab_size=maker.vocab_size if maker else lambda: options.vocab_size
    )
    tuned = None if options.from_pretrained is None else model_of(run, options, tokenizer, resume=resume)
    recipe = maker(tokenizer, None if tuned is None else tuned.config) if maker else None
    complete = with_recipe(options, recipe) if recipe else options
    shape = replace(complete, dropout=0.0) if complete.teachers else complete  # a student needs no dropout
    model = tuned or model_of(run, shape, tokenizer, resume=resume)
    context_length = complete.context_length or model.config.context_length
    train_loader, val_loader = make_loaders(corpus, complete, tokenizer, context_length)
    prompt = prompt_from(corpus, tokenizer) if options.sample_prompt is None else options.sample_prompt
    with naming("--sample-prompt"):
        encoded(tokenizer, prompt)
    sampled = not quiet and options.sample_prompt != ""
    chosen = replace(
        complete,
        files=to_read_again(options.files),
        val=to_read_again(options.val),
        from_pretrained=None if options.from_pretrained is None else str(Path(options.from_pretrained).resolve()),
        tokenizer=name_of_tokenizer(options, corpus, choice),
        sample_prompt=prompt or options.sample_prompt,
    )
    config = training_config(chosen, prompt if sampled else None)
    notes = [*corpus.notes, *([] if choice is None else [f"tokenizer: {choice}"])]
    notes += recipe.explain().splitlines() if recipe else []
    return Plan(run, chosen, corpus, config, prompt, tuple(notes), model, tokenizer, train_loader, val_loader)


def summary(plan: Plan, device: torch.device) -> str:
    """Returns a line that says what will be trained, and where."""
    batches = f"{plan.options.batch_size} × {plan.options.context_length} tokens"
    parameters = f"{plan.model.num_parameters():,} parameters on {device.type}"
    return f"{parameters}; {plan.corpus.size} of text, in batches of {batches}; Ctrl-C stops and saves"
