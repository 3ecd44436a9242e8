"""The plan of a run: what its options, its corpus and its recipe describe."""

from dataclasses import dataclass, replace

import torch
from torch.utils.data import DataLoader

from tinygpt2.cli.common import naming
from tinygpt2.cli.corpus import Corpus, make_loaders, prompt_from, to_read_again
from tinygpt2.cli.inputs import is_of_tokens
from tinygpt2.cli.models import model_of, name_of_tokenizer, tokenizer_of
from tinygpt2.cli.recipes import RecipeMaker, training_config, with_recipe
from tinygpt2.cli.train_options import TrainOptions, lasting
from tinygpt2.config import TrainingConfig
from tinygpt2.data.batches import Batch
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.protocol import Tokenizer, encoded


@dataclass(frozen=True)
class Choices:
    """What was chosen for a run, without its data and its weights: what one process tells the others.

    Attributes:
        options: The options, with the values chosen for those not given.
        config: The training configuration.
        prompt: A prompt to try the model with; empty if it begins new texts.
        notes: What to say about the data and the tokenizer.
        tokenizer: The tokenizer.
        resume: Whether the run is resumed.
    """

    options: TrainOptions
    config: TrainingConfig
    prompt: str
    notes: tuple[str, ...]
    tokenizer: Tokenizer
    resume: bool


@dataclass(frozen=True)
class Plan:
    """A run that is ready to start.

    Attributes:
        run: Its directory.
        choices: What was chosen for it.
        corpus: Its texts.
        model: Its model, initialised or pretrained.
        train_loader: Its training data.
        val_loader: Its validation data.
    """

    run: RunDirectory
    choices: Choices
    corpus: Corpus
    model: GPT2Model
    train_loader: DataLoader[Batch]
    val_loader: DataLoader[Batch]

    @property
    def options(self) -> TrainOptions:
        """The options of the run."""
        return self.choices.options

    @property
    def config(self) -> TrainingConfig:
        """Its training configuration."""
        return self.choices.config

    @property
    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return self.choices.tokenizer


def make_choices(
    run: RunDirectory, options: TrainOptions, corpus: Corpus, maker: RecipeMaker | None, *, quiet: bool
) -> Choices:
    """Returns what is chosen for a run with these options; without the maker of a recipe, for one to resume."""
    resume = maker is None
    tokenizer, choice = tokenizer_of(
        run, options, corpus, resume=resume, vocab_size=maker.vocab_size if maker else lambda: options.vocab_size
    )
    if is_of_tokens(corpus.train):
        for file in corpus.train:
            file.check_tokenizer(tokenizer)
    pretrained = None if options.from_pretrained is None else model_of(run, options, tokenizer, resume=resume).config
    recipe = maker(tokenizer, pretrained) if maker else None
    complete = with_recipe(options, recipe) if recipe else options
    prompt = prompt_from(corpus, tokenizer) if options.sample_prompt is None else options.sample_prompt
    with naming("--sample-prompt"):
        encoded(tokenizer, prompt)
    sampled = not quiet and options.sample_prompt != ""
    chosen = replace(
        complete,
        files=to_read_again(options.files),
        val=to_read_again(options.val),
        from_pretrained=options.from_pretrained and lasting(options.from_pretrained),
        tokenizer=name_of_tokenizer(options, corpus, choice),
        sample_prompt=prompt or options.sample_prompt,
    )
    config = training_config(chosen, prompt if sampled else None)
    notes = [*corpus.notes, *([] if choice is None else [f"tokenizer: {choice}"])]
    notes += recipe.explain().splitlines() if recipe else []
    return Choices(chosen, config, prompt, tuple(notes), tokenizer, resume)


def make_plan(run: RunDirectory, choices: Choices, corpus: Corpus) -> Plan:
    """Returns the run that choices and a corpus describe."""
    options = choices.options
    shape = replace(options, dropout=0.0) if options.teachers else options  # a student needs no dropout
    model = model_of(run, shape, choices.tokenizer, resume=choices.resume)
    context_length = options.context_length or model.config.context_length
    return Plan(run, choices, corpus, model, *make_loaders(corpus, options, choices.tokenizer, context_length))


def summary(plan: Plan, device: torch.device, processes: int) -> str:
    """Returns a line that says what will be trained, and where."""
    batches = f"{plan.options.batch_size} × {plan.options.context_length} tokens"
    parameters = f"{plan.model.num_parameters():,} parameters on {device.type}"
    trained = sum(parameter.numel() for parameter in plan.model.parameters() if parameter.requires_grad)
    if trained < plan.model.num_parameters():
        parameters += f", of which {trained:,} are trained"
    if processes > 1:
        parameters += f", in {processes} processes"
    return f"{parameters}; {plan.corpus.size} of text, in batches of {batches}; Ctrl-C stops and saves"
