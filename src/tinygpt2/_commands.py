"""What each command of the command line does. `tinygpt2.cli` parses their arguments and tells their failures."""

import argparse
import math
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from types import FrameType

import tiktoken
import torch
from torch.utils.data import DataLoader

from tinygpt2._files import atomic_write
from tinygpt2.callbacks import Callback, TrainState, write_line
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.data import Batch, TokenDataset, make_dataloader, read_text, sample_text, split_text
from tinygpt2.evaluation import evaluate
from tinygpt2.generation import stream_text
from tinygpt2.history import TrainingHistory
from tinygpt2.model import GPT2Model
from tinygpt2.samplers import (
    GreedySampler,
    MinPSampler,
    MultinomialSampler,
    Sampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
)
from tinygpt2.tokenizer import (
    CharTokenizer,
    Tokenizer,
    gpt2_tokenizer,
    load_tokenizer,
    save_tokenizer,
    trim_vocabulary,
)
from tinygpt2.training import NonFiniteLossError, choose_device, train

HISTORY_FILE = "history.json"
PLOT_FILE = "losses.png"

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


def train_command(options: argparse.Namespace) -> int:
    """Trains, and leaves a run directory."""
    device = choose_device(options.device)
    directory = _choose_run_directory(options)
    text = "\n".join(read_text(file) for file in options.files) if options.files else sample_text()
    torch.manual_seed(options.seed)
    model, tokenizer = _model_and_tokenizer(options, text)
    train_loader, val_loader = _loaders(options, text, tokenizer, model.config.context_length)
    prompt = options.sample_prompt or text.strip()[:PROMPT_CHARACTERS].strip()
    config = _training_config(options, prompt, len(train_loader), model.config.n_embd)
    directory.mkdir(parents=True, exist_ok=True)
    if not options.quiet:
        write_line(
            f"{model.num_parameters():,} parameters on {device.type}; {len(text):,} characters of text, in batches of "
            f"{options.batch_size} × {model.config.context_length} tokens; Ctrl-C stops and saves"
        )
    save_tokenizer(tokenizer, directory)

    def save_after_epoch(state: TrainState) -> None:
        if state.event == "epoch":
            _save(directory, model, state.history)

    with _stopping_on_signals() as (stop_if_asked, received):
        try:
            history = train(
                model,
                train_loader,
                val_loader,
                config,
                callbacks=[save_after_epoch, stop_if_asked],
                tokenizer=tokenizer,
                device=device,
                progress=not options.quiet,
            )
        except NonFiniteLossError as error:
            _save(directory, model, error.history)
            raise
        _save(directory, model, history)
    plotted = _plot_if_possible(directory, history)
    if not options.quiet:
        print(f"saved in {directory}: the model, {HISTORY_FILE}{f', {PLOT_FILE}' if plotted else ''}")
        print(f"try:  tinygpt2 generate --model {directory} {shlex.quote(prompt)}")
    if received:
        write_line(f"stopped by {received[0].name} after step {history.steps[-1]}")
        return EXIT_SIGNAL + received[0]
    return 0


def _choose_run_directory(options: argparse.Namespace) -> Path:
    """Returns where the run will go, never a directory that holds something."""
    if options.out is not None:
        directory = Path(options.out)
        if directory.is_dir() and any(directory.iterdir()):
            raise ValueError(f"{directory} is not empty; choose another --out, or remove it")
    else:
        name = Path(options.files[0]).stem if options.files else "sample-text"
        names = chain([name], (f"{name}-{i}" for i in count(2)))
        directory = next(path for path in (Path("runs", name) for name in names) if not path.exists())
    return directory


def _model_and_tokenizer(options: argparse.Namespace, text: str) -> tuple[GPT2Model, tiktoken.Encoding | CharTokenizer]:
    if options.from_pretrained is not None:
        return GPT2Model.from_pretrained(options.from_pretrained), load_tokenizer(options.from_pretrained)
    tokenizer = TOKENIZERS[options.tokenizer](text)
    config = GPT2Config.preset(
        options.preset,
        vocab_size=tokenizer.n_vocab,
        context_length=options.context_length,
        dropout=options.dropout,
    )
    return GPT2Model(config), tokenizer


def _loaders(
    options: argparse.Namespace, text: str, tokenizer: Tokenizer, context_length: int
) -> tuple[DataLoader[Batch], DataLoader[Batch]]:
    """Returns the batches to train on and those to validate on."""
    train_text, val_text = split_text(text, options.train_ratio)
    with _naming("the training part of the text"):
        train_loader = make_dataloader(
            train_text,
            batch_size=options.batch_size,
            context_length=context_length,
            shuffle=True,
            tokenizer=tokenizer,
            seed=options.seed,
        )
    with _naming(f"the validation part of the text (the last {1 - options.train_ratio:.0%}, see --train-ratio)"):
        val_loader = make_dataloader(
            val_text, batch_size=options.batch_size, context_length=context_length, tokenizer=tokenizer
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
        eval_every=options.eval_every or math.ceil(steps / EVALUATIONS),
        eval_batches=options.eval_batches,
        sample_prompt=None if options.quiet else prompt,
        seed=options.seed,
    )


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Says in a ``ValueError`` from inside which text it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


@contextmanager
def _stopping_on_signals() -> Iterator[tuple[Callback, list[signal.Signals]]]:
    """Lets the first Ctrl-C or SIGTERM end training after its step, and the second end it at once.

    Yields a callback for `train`, and a list in which the signal that came can be found.
    """
    received: list[signal.Signals] = []

    def handle(number: int, _: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number))

    def stop_if_asked(state: TrainState) -> None:
        if received and not state.stopping:
            write_line("stopping: evaluating and saving; once more ends at once, without saving")
            state.stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_if_asked, received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _save(directory: Path, model: GPT2Model, history: TrainingHistory) -> None:
    model.save_pretrained(directory)
    history.save(directory / HISTORY_FILE)


def _plot_if_possible(directory: Path, history: TrainingHistory) -> bool:
    try:
        _plot_history(history, directory / PLOT_FILE)
    except ImportError as error:
        write_line(f"no plot: {error}; then: tinygpt2 plot {directory}")
        return False
    return True


def _plot_history(history: TrainingHistory, path: Path) -> None:
    figure = history.plot()
    kind = path.suffix.removeprefix(".") or "png"
    atomic_write(path, lambda temporary: figure.savefig(temporary, format=kind))


def generate_command(options: argparse.Namespace) -> int:
    """Writes a prompt and its continuation as it comes."""
    device = choose_device(options.device)
    model = GPT2Model.from_pretrained(options.model).to(device)
    tokenizer = load_tokenizer(options.model)
    prompt = sys.stdin.buffer.read().decode("utf-8") if options.prompt == "-" else options.prompt
    generator = torch.Generator(device)
    if options.seed is None:
        generator.seed()
    else:
        generator.manual_seed(options.seed)
    print(prompt, end="", flush=True)
    for piece in stream_text(
        model,
        tokenizer,
        prompt,
        max_new_tokens=options.max_new_tokens,
        sampler=_sampler(options),
        generator=generator,
    ):
        print(piece, end="", flush=True)
    print()
    return 0


def _sampler(options: argparse.Namespace) -> Sampler:
    """Returns the sampler that the flags describe: filters first, then the temperature, then the draw."""
    if options.greedy or options.temperature == 0:
        return GreedySampler()
    sampler: Sampler = MultinomialSampler() if options.temperature == 1 else TemperatureSampler(options.temperature)
    if options.min_p is not None:
        sampler = MinPSampler(options.min_p, then=sampler)
    if options.top_p is not None:
        sampler = TopPSampler(options.top_p, then=sampler)
    return TopKSampler(options.top_k, then=sampler) if options.top_k else sampler


def evaluate_command(options: argparse.Namespace) -> int:
    """Writes the loss and perplexity on each file."""
    device = choose_device(options.device)
    model = GPT2Model.from_pretrained(options.model).to(device)
    tokenizer = load_tokenizer(options.model)
    for file in options.files:
        with _naming(file):
            result = evaluate(model, _all_tokens(read_text(file), tokenizer, model.config, options.batch_size))
        loss = f"loss {result.loss:.4f} nats per token, perplexity {result.perplexity:.2f}"
        print(f"{file}: {loss}, {result.tokens:,} tokens")
    return 0


def _all_tokens(text: str, tokenizer: Tokenizer, config: GPT2Config, batch_size: int) -> Iterator[Batch]:
    """Yields batches in which each token but the first is a target once: whole windows, then a shorter one."""
    tokens = tokenizer.encode_ordinary(text)
    whole = (len(tokens) - 1) // config.context_length * config.context_length
    if whole > 0:
        yield from make_dataloader(
            tokens, batch_size=batch_size, context_length=config.context_length, tokenizer=tokenizer
        )
    if whole < len(tokens) - 1 or not tokens:
        rest = tokens[whole:]
        inputs, targets = TokenDataset(rest, context_length=max(1, len(rest) - 1))[0]
        yield inputs.unsqueeze(0), targets.unsqueeze(0)


def plot_command(options: argparse.Namespace) -> int:
    """Draws a run's losses."""
    directory = Path(options.directory)
    path = directory / PLOT_FILE if options.out is None else Path(options.out)
    _plot_history(TrainingHistory.load(directory / HISTORY_FILE), path)
    print(path)
    return 0


def info_command(options: argparse.Namespace) -> int:
    """Writes what a run directory holds."""
    directory = Path(options.directory)
    model = GPT2Model.from_pretrained(directory)
    config, tokenizer = model.config, load_tokenizer(directory)
    kind = "characters" if isinstance(tokenizer, CharTokenizer) else f"byte pairs ({tokenizer.name})"
    rows = {
        "parameters": f"{model.num_parameters():,}",
        "blocks": f"{config.n_layer} of width {config.n_embd}, {config.n_head} heads",
        "context length": f"{config.context_length} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens, {kind}",
        "dropout": f"{config.dropout:g}",
    }
    if (directory / HISTORY_FILE).exists():
        history = TrainingHistory.load(directory / HISTORY_FILE)
        rows["trained for"] = (
            f"{history.steps[-1]:,} steps, {history.epochs[-1]:.2f} epochs, {history.tokens_seen[-1]:,} tokens"
        )
        rows["train loss"] = f"{history.train_losses[-1]:.4f} nats per token (at first {history.train_losses[0]:.4f})"
        measured = [
            (loss, step) for loss, step in zip(history.val_losses, history.steps, strict=True) if loss is not None
        ]
        if measured:
            best, step = min(measured)
            rows["validation loss"] = f"{measured[-1][0]:.4f} nats per token (lowest {best:.4f}, at step {step})"
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    return 0
