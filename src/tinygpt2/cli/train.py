"""What ``tinygpt2 train`` does. `tinygpt2.cli.main` parses its arguments and tells its failures."""

import argparse
import json
import math
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from types import FrameType
from typing import Any, Never

import tiktoken
import torch
from torch.utils.data import DataLoader

from tinygpt2._internal.console import write_line
from tinygpt2._internal.devices import choose_device
from tinygpt2._internal.files import read_json, write_text
from tinygpt2.cli.commands import HISTORY_FILE, PLOT_FILE, lowest_validation_loss, naming, plot_history
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.data.loader import make_dataloader
from tinygpt2.data.token_file import TokenFile, is_token_file
from tinygpt2.data.windows import Batch
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.text.reading import read_text, sample_text, split_text
from tinygpt2.text.storage import TOKENIZER_FILE, load_tokenizer, save_tokenizer
from tinygpt2.text.tokenizers import CharTokenizer, Tokenizer, gpt2_tokenizer
from tinygpt2.text.vocabulary import trim_vocabulary
from tinygpt2.training.callbacks.stopping import EarlyStopping
from tinygpt2.training.checkpoints.saver import BEST, checkpoints, newest_checkpoint
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.state import TrainState
from tinygpt2.training.train import train

OPTIONS_FILE = "options.json"

PARAGRAPH_CHARACTERS = 60  # at least; a shorter line may be a title
PROMPT_CHARACTERS = 20  # of the text, to continue after each epoch unless --sample-prompt says otherwise
TOKENIZERS: dict[str, Callable[[str], tiktoken.Encoding | CharTokenizer]] = {
    "trimmed": lambda text: trim_vocabulary(gpt2_tokenizer(), text),
    "gpt2": lambda _: gpt2_tokenizer(),
    "char": CharTokenizer.from_text,
}

EVALUATIONS = 20  # in a run, unless --eval-every says otherwise
RATE_TIMES_WIDTH = 0.5  # the wider a model, the smaller its steps: GPT-3 paper, table 2.1, 6e-4 at a width of 768
WARMUP_STEPS = 100  # unless --warmup-steps says otherwise, or the run is short
EXIT_SIGNAL = 128  # plus the signal's number, as shells count

_OF_ONE_CALL = ("run", "traceback", "out", "resume", "allow_changes", "device", "quiet")  # not what a run is made of
_OPTIONS_LIMIT = 1 << 20  # bytes


class _TerminatedError(BaseException):
    """SIGTERM, as an exception."""


def train_command(options: argparse.Namespace) -> int:
    """Trains, and leaves a run directory."""
    device = choose_device(options.device)
    directory = Path(options.out) if options.resume else _new_run_directory(options)
    corpus = _corpus(options.files)
    torch.manual_seed(options.seed)
    model, tokenizer = _model_and_tokenizer(options, corpus, directory)
    train_loader, val_loader = _loaders(options, corpus, tokenizer, model.config.context_length)
    beginning = (
        corpus if isinstance(corpus, str) else tokenizer.decode(corpus.tokens[: 10 * PROMPT_CHARACTERS].tolist())
    )
    prompt = options.sample_prompt or _prompt(beginning)
    config = _training_config(options, prompt, len(train_loader), model.config.n_embd)
    directory.mkdir(parents=True, exist_ok=True)

    def note_the_run(state: TrainState) -> None:
        if state.event == "start":  # a run that may not be resumed with these options has been refused by then
            _save_options(options, config, prompt, directory)
            save_tokenizer(tokenizer, directory)

    if not options.quiet:
        write_line(
            f"{model.num_parameters():,} parameters on {device.type}; {len(corpus):,} "
            f"{'characters of text' if isinstance(corpus, str) else 'tokens'}, in batches of "
            f"{options.batch_size} × {model.config.context_length} tokens; Ctrl-C stops and saves"
        )
    try:
        with _sigterm_raises():
            history = train(
                model,
                train_loader,
                val_loader,
                config,
                callbacks=[note_the_run, *([EarlyStopping(options.early_stopping)] if options.early_stopping else [])],
                tokenizer=tokenizer,
                device=device,
                checkpoint_dir=directory,
                checkpoint_every=options.checkpoint_every,
                checkpoint_keep=options.keep,
                resume=options.resume,
                allow_changes=options.allow_changes,
                progress=not options.quiet,
            )
    except (KeyboardInterrupt, _TerminatedError) as error:
        number = signal.SIGTERM if isinstance(error, _TerminatedError) else signal.SIGINT
        go_on = f"tinygpt2 train --out {shlex.quote(str(directory))} --resume"
        write_line(f"stopped by {number.name}; to go on:  {go_on}")
        return EXIT_SIGNAL + number
    model.save_pretrained(directory)
    history.save(directory / HISTORY_FILE)
    plotted = _plot_if_possible(directory, history)
    if not options.quiet:
        print(f"saved in {directory}: the model, {HISTORY_FILE}{f', {PLOT_FILE}' if plotted else ''}")
        best = lowest_validation_loss(history)
        if best is not None and best[1] < history.steps[-1]:
            print(f"in {directory / BEST}: the model with the lowest validation loss, after step {best[1]}")
        print(f"try:  tinygpt2 generate --model {directory} {shlex.quote(prompt)}")
    return 0


def saved_options(directory: str | None) -> dict[str, Any]:
    """Returns the options with which a run began.

    Raises:
        ValueError: If there is no run in the directory.
    """
    if directory is None:
        raise ValueError("--resume needs --out DIR, the directory of the run to go on with")
    path = Path(directory, OPTIONS_FILE)
    if not path.exists():
        raise ValueError(f"{directory} has no {OPTIONS_FILE}: no run of 'tinygpt2 train' began there")
    return read_json(path, limit=_OPTIONS_LIMIT)


def _save_options(options: argparse.Namespace, config: TrainingConfig, prompt: str, directory: Path) -> None:
    """Writes the options that make the run what it is, with what was chosen for those not given."""
    chosen = {
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_steps,
        "eval_every": config.eval_every,
        "sample_prompt": prompt,
        "files": [str(Path(file).resolve()) for file in options.files],
        "from_pretrained": options.from_pretrained and str(Path(options.from_pretrained).resolve()),
    }
    content = {name: value for name, value in vars(options).items() if name not in _OF_ONE_CALL} | chosen
    write_text(directory / OPTIONS_FILE, json.dumps(content, indent=1) + "\n")


def _new_run_directory(options: argparse.Namespace) -> Path:
    """Returns where the run will go, never a directory that holds something."""
    if options.out is not None:
        directory = Path(options.out)
        if directory.is_dir() and any(directory.iterdir()):
            go_on = ", go on with the run in it (--resume)" if (directory / OPTIONS_FILE).exists() else ""
            raise ValueError(f"{directory} is not empty; choose another --out{go_on}, or remove it")
    else:
        name = Path(options.files[0]).stem if options.files else "sample-text"
        names = chain([name], (f"{name}-{i}" for i in count(2)))
        directory = next(path for path in (Path("runs", name) for name in names) if not path.exists())
    return directory


def _prompt(text: str) -> str:
    """Returns the first words of the first paragraph: a title is followed by nothing that a model could show."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [text]
    paragraph = next((line for line in lines if len(line) >= PARAGRAPH_CHARACTERS), lines[0])
    words = paragraph[: PROMPT_CHARACTERS + 1]
    return words.rpartition(" ")[0] or words[:PROMPT_CHARACTERS]


def _corpus(files: list[str]) -> str | TokenFile:
    """Returns the text of files, or the tokens that 'tinygpt2 tokenize' made of them."""
    if not files:
        return sample_text()
    made = [file for file in files if is_token_file(file)]
    if not made:
        return "\n".join(map(read_text, files))
    if len(files) > 1:
        raise ValueError(f"{made[0]} is a file of tokens and cannot be joined with others; tokenize all texts into one")
    return TokenFile(made[0])


def _model_and_tokenizer(
    options: argparse.Namespace, corpus: str | TokenFile, directory: Path
) -> tuple[GPT2Model, tiktoken.Encoding | CharTokenizer]:
    """Returns a new model, or one of the shape of that to resume, and the tokenizer."""
    begun = options.resume and (directory / TOKENIZER_FILE).exists()
    if options.from_pretrained is not None:
        source = newest_checkpoint(directory) if begun and checkpoints(directory) else options.from_pretrained
        return GPT2Model.from_pretrained(source), load_tokenizer(directory if begun else source)
    if isinstance(corpus, TokenFile):
        tokenizer: tiktoken.Encoding | CharTokenizer = gpt2_tokenizer()
    else:
        tokenizer = load_tokenizer(directory) if begun else TOKENIZERS[options.tokenizer](corpus)
    config = GPT2Config.preset(
        options.preset,
        vocab_size=tokenizer.n_vocab,
        context_length=options.context_length,
        dropout=options.dropout,
    )
    return GPT2Model(config), tokenizer


def _loaders(
    options: argparse.Namespace, corpus: str | TokenFile, tokenizer: Tokenizer, context_length: int
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Returns the batches to train on and those to validate on."""
    if isinstance(corpus, str):
        encoder: Tokenizer | None = tokenizer
        train_part: Any
        val_part: Any
        train_part, val_part = split_text(corpus, options.train_ratio)
    else:
        if corpus.n_vocab != tokenizer.n_vocab:
            raise ValueError(
                f"{corpus.path} has the tokens of a vocabulary of {corpus.n_vocab:,} and the model has "
                f"{tokenizer.n_vocab:,}; make it with the model's tokenizer: tinygpt2 tokenize --model DIR"
            )
        encoder = None
        cut = int(len(corpus) * options.train_ratio)
        train_part, val_part = corpus.tokens[:cut], corpus.tokens[cut:]
    with naming("the training part of the text"):
        train_loader = make_dataloader(
            train_part,
            batch_size=options.batch_size,
            context_length=context_length,
            shuffle=True,
            tokenizer=encoder,
            seed=options.seed,
        )
    with naming(f"the validation part of the text (the last {1 - options.train_ratio:.0%}, see --train-ratio)"):
        val_loader = make_dataloader(
            val_part, batch_size=options.batch_size, context_length=context_length, tokenizer=encoder
        )
    return train_loader, val_loader


def _training_config(options: argparse.Namespace, prompt: str, batches_per_epoch: int, width: int) -> TrainingConfig:
    steps = options.max_steps or options.epochs * math.ceil(batches_per_epoch / options.accumulate)
    usual_rate = RATE_TIMES_WIDTH / width * (1 if options.from_pretrained is None else 0.1)
    return TrainingConfig(
        epochs=options.epochs,
        max_steps=options.max_steps,
        learning_rate=options.learning_rate or usual_rate,
        schedule=options.schedule,
        warmup_steps=min(WARMUP_STEPS, steps // 5) if options.warmup_steps is None else options.warmup_steps,
        weight_decay=options.weight_decay,
        gradient_accumulation_steps=options.accumulate,
        precision=options.precision,
        compile=options.compile,
        eval_every=options.eval_every or math.ceil(steps / EVALUATIONS),
        eval_batches=options.eval_batches,
        sample_prompt=None if options.quiet else prompt,
        seed=options.seed,
    )


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    def handle(_: int, __: FrameType | None) -> Never:
        raise _TerminatedError

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _plot_if_possible(directory: Path, history: TrainingHistory) -> bool:
    try:
        plot_history(history, directory / PLOT_FILE)
    except ImportError as error:
        write_line(f"no plot: {error}; then: tinygpt2 plot {directory}")
        return False
    return True
