"""The command ``tinygpt2 evaluate``."""

import argparse
from collections.abc import Iterator

from tinygpt2._internal.checks import Int
from tinygpt2._internal.devices import choose_device
from tinygpt2.cli.common import directory_with_model, load, naming
from tinygpt2.cli.options import Commands, add_command, add_device, add_model, add_option
from tinygpt2.config import GPT2Config
from tinygpt2.data.batches import Batch
from tinygpt2.data.loader import make_dataloader
from tinygpt2.data.windows import TokenDataset
from tinygpt2.evaluation import evaluate
from tinygpt2.text.reading import read_text
from tinygpt2.text.tokenizers import Tokenizer


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "evaluate",
        evaluate_command,
        "measure a model's loss and perplexity on text files",
        "Each token except the first is predicted once, from the tokens before it, at most as many as the model's "
        "context length.",
    )
    add_model(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", help="UTF-8 text files")
    add_option(parser, "--batch-size", "windows per batch", Int(), metavar="N", default=8)
    add_device(parser)


def evaluate_command(options: argparse.Namespace) -> int:
    """Prints the loss and perplexity on each file."""
    device = choose_device(options.device)
    model, tokenizer = load(directory_with_model(options.model), device)
    for file in options.files:
        with naming(file):
            result = evaluate(model, _all_tokens(read_text(file), tokenizer, model.config, options.batch_size))
        loss = f"loss {result.loss:.4f} nats per token, perplexity {result.perplexity:.2f}"
        print(f"{file}: {loss}, {result.tokens:,} tokens")
    return 0


def _all_tokens(text: str, tokenizer: Tokenizer, config: GPT2Config, batch_size: int) -> Iterator[Batch]:
    """Yields batches in which each token except the first is a target once: full windows, then a shorter one."""
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
