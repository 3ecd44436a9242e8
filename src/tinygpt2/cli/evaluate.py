"""The command ``tinygpt2 evaluate``."""

import argparse
from typing import TYPE_CHECKING

from tinygpt2._internal.ranges import Int
from tinygpt2.cli.options import FILES_HELP, Commands, add_command, add_device, add_model, add_option

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tinygpt2.config import GPT2Config
    from tinygpt2.data.batches import Batch
    from tinygpt2.data.token_file import TokenFile
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
    parser.add_argument("files", metavar="FILE", nargs="+", help=f"{FILES_HELP}; or files of the model's tokens")
    add_option(parser, "--batch-size", "windows per batch", Int(), metavar="N", default=8)
    add_device(parser)


def evaluate_command(options: argparse.Namespace) -> int:
    """Prints the loss and perplexity on each file."""
    from tinygpt2._internal.devices import choose_device
    from tinygpt2.cli.common import load, naming
    from tinygpt2.cli.inputs import check_inputs
    from tinygpt2.evaluation.loss import evaluate

    check_inputs(options.files)
    device = choose_device(options.device)
    model, tokenizer = load(options.model, device, options.program)
    for file in options.files:
        name, tokens = _tokens_of(file, tokenizer)
        with naming(name):
            result = evaluate(model, _all_tokens(tokens, tokenizer, model.config, options.batch_size))
        loss = f"loss {result.loss:.4f} nats per token, perplexity {result.perplexity:.2f}"
        print(f"{name}: {loss}, {result.tokens:,} tokens")
    return 0


def _tokens_of(file: str, tokenizer: "Tokenizer") -> "tuple[str, list[int] | TokenFile]":
    """Returns the name of a file in messages, and its tokens."""
    from tinygpt2.cli.common import naming
    from tinygpt2.cli.inputs import check_not_blank, is_blank, open_input, token_file
    from tinygpt2.text.tokenizers import encoded

    with open_input(file) as reader:
        if not reader.holds_tokens:
            text = "".join(reader)
            check_not_blank([reader.name], reader.bytes_read, blank=is_blank(text))
            with naming(reader.name):
                return reader.name, encoded(tokenizer, text)
        tokens = token_file(file, reader)
    if tokens.n_vocab != tokenizer.n_vocab:
        raise ValueError(
            f"{file} has tokens from a vocabulary of {tokens.n_vocab:,}, but the model's has {tokenizer.n_vocab:,}; "
            "evaluate the text itself, or make the file with the model's tokenizer: tinygpt2 tokenize --model DIR"
        )
    return file, tokens


def _all_tokens(
    tokens: "list[int] | TokenFile", tokenizer: "Tokenizer", config: "GPT2Config", batch_size: int
) -> "Iterator[Batch]":
    """Yields batches in which each token except the first is a target once: full windows, then a shorter one."""
    from tinygpt2.data.loader import make_dataloader
    from tinygpt2.data.windows import TokenDataset

    whole = (len(tokens) - 1) // config.context_length * config.context_length
    if whole > 0:
        yield from make_dataloader(
            tokens, batch_size=batch_size, context_length=config.context_length, tokenizer=tokenizer
        )
    if whole < len(tokens) - 1 or not len(tokens):
        rest = tokens[whole:]
        inputs, targets = TokenDataset(rest, context_length=max(1, len(rest) - 1))[0]
        yield inputs.unsqueeze(0), targets.unsqueeze(0)
