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
    from pathlib import Path

    from tinygpt2.cli.common import read_model
    from tinygpt2.cli.report import report_lines

    rows = read_model(options.directory, _rows, options.program)
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {value}")
    for line in report_lines(Path(options.directory)):
        print(line)
    return 0


def _rows(directory: "Path") -> dict[str, str]:
    from tinygpt2.model.gpt2 import GPT2Model
    from tinygpt2.tokenizers.storage import load_tokenizer

    model = GPT2Model.from_pretrained(directory)
    try:
        tokenizer = load_tokenizer(directory)
        kind = _kind(tokenizer)
    except ValueError as error:  # the rest is still worth knowing
        kind = f"but no tokenizer: {error}"
    return _shape(model, kind) | _recipe(directory) | _losses(directory)


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


def _recipe(directory: "Path") -> dict[str, str]:
    """Returns the row on how a model was trained, if ``tinygpt2 train`` has saved that."""
    from tinygpt2.cli.train_options import saved_options
    from tinygpt2.recipe.reasons import counted
    from tinygpt2.run.directory import RunDirectory

    run = RunDirectory(directory)
    try:
        options = saved_options(run if run.options.exists() else RunDirectory(directory.parent))
    except (OSError, ValueError):  # another directory with a model
        return {}
    steps, epochs = options.get("max_steps"), options.get("epochs")
    length = counted(steps, "step") if steps else counted(epochs or 0, "epoch")
    if teachers := options.get("teachers"):
        length = f"{counted(teachers, 'teacher')} of {length}, then {counted(options['student_steps'], 'step')}"
    parts = [f"{options['optimizer']} at {options.get('learning_rate')}, {options.get('schedule')}",
             f"batches of {options.get('batch_size')}", f"weight decay {options['weight_decay']}"]  # fmt: skip
    noise = {"merges skipped": options["bpe_dropout"], "tokens replaced": options["token_noise"]}
    parts += [f"{name} {value}" for name, value in noise.items() if value]
    minutes = f", planned for {options['minutes']:g} minutes" if options.get("minutes") else ""
    return {"recipe": f"{length}{minutes}; {', '.join(parts)}"}


def _losses(directory: "Path") -> dict[str, str]:
    """Returns the rows on the training: of the model in the directory, and of the whole run if that went on."""
    from tinygpt2.cli.common import history_in, loss_in_words, validation_loss_in_words
    from tinygpt2.run.directory import RunDirectory

    run, history = RunDirectory(directory), history_in(directory)
    if history is None or not history.steps:
        return {}
    last = len(history.steps) - 1
    shown = history.best if run.history.exists() and history.best is not None else last
    rows = {
        "trained for": f"{history.steps[-1]:,} steps, {history.epochs[-1]:.2f} epochs, "
        f"{history.tokens_seen[-1]:,} tokens",
    }
    if history.stopped is not None:
        rows["stopped early"] = history.stopped
    rows["model"] = f"of step {history.steps[shown]:,}{_compared(shown, history)}"
    rows["train loss"] = (
        f"{loss_in_words(history.train_losses[shown], history.train_bits_per_byte[shown])} "
        f"(initially {history.train_losses[0]:.4f} nats)"
    )
    if loss := validation_loss_in_words(history, shown):
        rows["validation loss"] = loss
    if shown != last:
        place = run.checkpoint(history.steps[last])
        rows["last model"] = f"of step {history.steps[last]:,}{f', in {place}' if place.exists() else ''}"
        rows["its validation loss"] = str(validation_loss_in_words(history, last))
    return rows


def _compared(shown: int, history: "TrainingHistory") -> str:
    """Returns what to add on a model whose validation loss was, or was not, the lowest."""
    if history.best is None:
        return ""
    if shown == history.best:
        return ", which has the lowest validation loss"
    return f"; the validation loss was lowest at step {history.steps[history.best]:,}"
