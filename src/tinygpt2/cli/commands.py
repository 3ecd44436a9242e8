"""What the commands do that look at a model. `tinygpt2.cli.main` parses their arguments and tells their failures."""

import argparse
import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Never

import tiktoken
import torch
from tqdm import tqdm

from tinygpt2._internal.console import write_line
from tinygpt2._internal.devices import choose_device
from tinygpt2._internal.files import atomic_write
from tinygpt2.config import GPT2Config
from tinygpt2.data.loader import make_dataloader
from tinygpt2.data.token_file import tokenize_to_file
from tinygpt2.data.windows import Batch, TokenDataset
from tinygpt2.evaluation import evaluate
from tinygpt2.formats.huggingface import CONFIG_FILE
from tinygpt2.generation.samplers import (
    GreedySampler,
    MinPSampler,
    MultinomialSampler,
    Sampler,
    TemperatureSampler,
    TopKSampler,
    TopPSampler,
)
from tinygpt2.generation.text import stream_text
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.text.reading import Utf8Reader, read_text
from tinygpt2.text.storage import TOKENIZER_FILE, load_tokenizer
from tinygpt2.text.tokenizers import CharTokenizer, Tokenizer, gpt2_tokenizer
from tinygpt2.training.checkpoints.saver import RUN_PARTS, checkpoints, newest_checkpoint, read_history
from tinygpt2.training.history import TrainingHistory

HISTORY_FILE = "history.json"
PLOT_FILE = "losses.png"


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Says in a ``ValueError`` from inside which text it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _with_model(directory: str) -> Path:
    """Returns a directory that holds a model: this one, or its newest checkpoint if it is of a run that goes on."""
    path = Path(directory)
    if not (path / CONFIG_FILE).exists() and checkpoints(path):
        newest = newest_checkpoint(path)
        write_line(f"the run in {path} did not finish; this is {newest.name}")
        return newest
    return path


def _load(directory: Path, device: torch.device) -> tuple[GPT2Model, tiktoken.Encoding | CharTokenizer]:
    return GPT2Model.from_pretrained(directory).to(device), _load_tokenizer(directory)


def _load_tokenizer(path: Path) -> tiktoken.Encoding | CharTokenizer:
    """Returns the tokenizer of a model, which for a checkpoint is in the run directory around it."""
    if not path.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such directory of a model", str(path))
    of_run = re.fullmatch(RUN_PARTS, path.resolve().name) and not (path / TOKENIZER_FILE).exists()
    return load_tokenizer(path.resolve().parent if of_run else path)


def _history(path: Path) -> TrainingHistory | None:
    if (path / HISTORY_FILE).exists():
        return TrainingHistory.load(path / HISTORY_FILE)
    return read_history(path)


def lowest_validation_loss(history: TrainingHistory) -> tuple[float, int] | None:
    """Returns the loss and the first step that had it, where there was validation data."""
    measured = zip(history.val_losses, history.steps, strict=True)
    return min(((loss, step) for loss, step in measured if loss is not None), default=None)


def plot_history(history: TrainingHistory, path: Path) -> None:
    figure = history.plot()
    kind = path.suffix.removeprefix(".") or "png"
    atomic_write(path, lambda temporary: figure.savefig(temporary, format=kind))


def generate_command(options: argparse.Namespace) -> int:
    """Writes a prompt and its continuation as it comes."""
    device = choose_device(options.device)
    model, tokenizer = _load(_with_model(options.model), device)
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
    model, tokenizer = _load(_with_model(options.model), device)
    for file in options.files:
        with naming(file):
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


def tokenize_command(options: argparse.Namespace) -> int:
    """Writes the tokens of text files into one file."""
    tokenizer = gpt2_tokenizer() if options.model is None else _load_tokenizer(Path(options.model))
    sizes = [Path(file).stat().st_size for file in options.files]
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=None, leave=False) as bar:
        tokens = tokenize_to_file(_text_of(options.files, bar), options.out, tokenizer=tokenizer)
    print(f"{tokens.path}: {len(tokens):,} tokens, {sum(sizes) / len(tokens):.2f} bytes of text a token")
    return 0


def _text_of(files: list[str], bar: "tqdm[Never]") -> Iterator[str]:
    """Yields the text of files, with a line break between two, and moves a bar on."""
    for i, file in enumerate(files):
        if i:
            yield "\n"
        for piece in Utf8Reader(file):
            yield piece
            bar.update(len(piece.encode()))


def plot_command(options: argparse.Namespace) -> int:
    """Draws a run's losses."""
    directory = Path(options.directory)
    path = directory / PLOT_FILE if options.out is None else Path(options.out)
    history = _history(directory if (directory / HISTORY_FILE).exists() else _with_model(options.directory))
    if history is None:
        raise ValueError(f"{directory} has no {HISTORY_FILE}: it is not the directory of a run")
    plot_history(history, path)
    print(path)
    return 0


def info_command(options: argparse.Namespace) -> int:
    """Writes what a run directory holds."""
    directory = _with_model(options.directory)
    model, tokenizer = _load(directory, torch.device("cpu"))
    config = model.config
    kind = "characters" if isinstance(tokenizer, CharTokenizer) else f"byte pairs ({tokenizer.name})"
    rows = {
        "parameters": f"{model.num_parameters():,}",
        "blocks": f"{config.n_layer} of width {config.n_embd}, {config.n_head} heads",
        "context length": f"{config.context_length} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens, {kind}",
        "dropout": f"{config.dropout:g}",
    }
    history = _history(directory)
    if history is not None and history.steps:
        rows["trained for"] = (
            f"{history.steps[-1]:,} steps, {history.epochs[-1]:.2f} epochs, {history.tokens_seen[-1]:,} tokens"
        )
        rows["train loss"] = f"{history.train_losses[-1]:.4f} nats per token (at first {history.train_losses[0]:.4f})"
        if best := lowest_validation_loss(history):
            rows["validation loss"] = (
                f"{history.val_losses[-1]:.4f} nats per token (lowest {best[0]:.4f}, at step {best[1]})"
            )
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    return 0
