"""Functions that several commands share."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tiktoken
import torch

from tinygpt2._internal.console import write_line
from tinygpt2._internal.files import atomic_write
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.directory import RunDirectory
from tinygpt2.text.storage import load_tokenizer
from tinygpt2.text.tokenizers import CharTokenizer
from tinygpt2.training.checkpoints.format import read_history
from tinygpt2.training.checkpoints.saver import newest_checkpoint
from tinygpt2.training.history import TrainingHistory


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Prefixes the message of a ``ValueError`` from the block with what it concerns."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def directory_with_model(directory: str) -> Path:
    """Returns a directory with a model: this one, or its newest checkpoint if it belongs to an unfinished run."""
    run = RunDirectory(Path(directory))
    if not run.config.exists() and run.checkpoints():
        newest = newest_checkpoint(run.path)
        write_line(f"the run in {run.path} did not finish; using {newest.name}")
        return newest
    return run.path


def load(directory: Path, device: torch.device) -> tuple[GPT2Model, tiktoken.Encoding | CharTokenizer]:
    """Returns the model in a directory and its tokenizer."""
    return GPT2Model.from_pretrained(directory).to(device), load_tokenizer(directory)


def history_in(directory: Path) -> TrainingHistory | None:
    """Returns the losses of the run or the checkpoint in a directory; ``None`` if it is neither."""
    path = RunDirectory(directory).history
    return TrainingHistory.load(path) if path.exists() else read_history(directory)


def lowest_validation_loss(history: TrainingHistory) -> tuple[float, int] | None:
    """Returns the loss and the first step at which it was measured; ``None`` without validation data."""
    measured = zip(history.val_losses, history.steps, strict=True)
    return min(((loss, step) for loss, step in measured if loss is not None), default=None)


def plot_history(history: TrainingHistory, path: Path) -> None:
    """Writes the plot of losses, in the format of the path's suffix."""
    figure = history.plot()
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.removeprefix(".") or "png")
    atomic_write(path, lambda file: file.write(picture.getbuffer()))
