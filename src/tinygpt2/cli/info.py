"""The command ``tinygpt2 info``."""

import argparse
from typing import TYPE_CHECKING

from tinygpt2.cli.options import Commands, add_command

if TYPE_CHECKING:
    from pathlib import Path

    from tinygpt2.model.gpt2 import GPT2Model
    from tinygpt2.tokenizers.protocol import Tokenizer
    from tinygpt2.training.history import TrainingHistory


def add(commands: Commands) -> None:
    """Adds the command."""
    parser = add_command(commands, "info", info_command, "describe a run directory")
    parser.add_argument("directory", metavar="DIR", help="run directory")


def info_command(options: argparse.Namespace) -> int:
    """Prints a description of a run directory."""
    from tinygpt2.cli.common import read_model

    rows = read_model(options.directory, _rows, options.program)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    return 0


def _rows(directory: "Path") -> dict[str, str]:
    from tinygpt2.cli.common import history_in
    from tinygpt2.model.gpt2 import GPT2Model
    from tinygpt2.tokenizers.storage import load_tokenizer

    model = GPT2Model.from_pretrained(directory)
    try:
        tokenizer = load_tokenizer(directory)
        kind = _kind(tokenizer)
    except ValueError as error:  # the rest is still worth knowing
        kind = f"but no tokenizer: {error}"
    return _shape(model, kind) | _losses(history_in(directory))


def _kind(tokenizer: "Tokenizer") -> str:
    import tiktoken

    from tinygpt2.tokenizers.characters import CharTokenizer

    if isinstance(tokenizer, tiktoken.Encoding):
        return f"byte pairs ({tokenizer.name})"
    return "characters" if isinstance(tokenizer, CharTokenizer) else "those of another library"


def _shape(model: "GPT2Model", tokenizer: str) -> dict[str, str]:
    config = model.config
    return {
        "parameters": f"{model.num_parameters():,}",
        "blocks": f"{config.n_layer} of width {config.n_embd}, {config.n_head} heads",
        "context length": f"{config.context_length} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens, {tokenizer}",
        "dropout": f"{config.dropout:g}",
    }


def _losses(history: "TrainingHistory | None") -> dict[str, str]:
    from tinygpt2.cli.common import loss_in_words, lowest_validation_loss

    if history is None or not history.steps:
        return {}
    first = history.train_losses[0]
    rows = {
        "trained for": f"{history.steps[-1]:,} steps, {history.epochs[-1]:.2f} epochs, "
        f"{history.tokens_seen[-1]:,} tokens",
        "train loss": f"{loss_in_words(history.train_losses[-1], history.train_bits_per_byte[-1])} "
        f"(initially {first:.4f} nats)",
    }
    loss, best = history.val_losses[-1], lowest_validation_loss(history)
    if loss is not None and best is not None:
        rows["validation loss"] = loss_in_words(loss, history.val_bits_per_byte[-1])
        rows["lowest validation loss"] = f"{loss_in_words(best.loss, best.bits_per_byte)}, at step {best.step}"
    return rows
