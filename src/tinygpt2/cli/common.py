"""Functions that several commands share."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from tinygpt2._internal.console import write_line
from tinygpt2._internal.files import atomic_write
from tinygpt2.cli.hints import option, to_paste
from tinygpt2.cli.runs import suggesting_runs
from tinygpt2.evaluation.baselines import Baselines
from tinygpt2.formats.hub import named_directory
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.characters import CharTokenizer
from tinygpt2.tokenizers.protocol import Tokenizer
from tinygpt2.tokenizers.storage import load_tokenizer
from tinygpt2.training.checkpoints.format import read_history
from tinygpt2.training.checkpoints.saver import newest_checkpoint
from tinygpt2.training.history import TrainingHistory

T = TypeVar("T")


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Prefixes the message of a ``ValueError`` from the block with what it concerns."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def read_model(directory: str, read: Callable[[Path], T], program: Sequence[str], *, last: bool = False) -> T:
    """Calls ``read`` with a directory that has a model: this one or, if no run in it finished, one within it.

    That is ``best`` if the validation loss has risen since, or else the newest checkpoint; a line on stderr says which.

    A run that finished and was made longer has the model of its first end until it finishes again, even if there are
    newer checkpoints: the same model that `GPT2Model.from_pretrained` reads there. A line on stderr names the newest.

    Args:
        directory: The directory, or the name of a model on the Hub.
        read: Called with it, its ``best`` or its checkpoint.
        program: The words that call this program, for that line.
        last: Whether it should be the newest checkpoint in any case, whose history is the longest.

    Raises:
        FileNotFoundError: If it is no such directory, with the runs that may have been meant.
    """
    with suggesting_runs(Path(directory)):
        run = RunDirectory(named_directory(directory))
    while True:
        place = _directory_with_model(run, program, last=last)
        try:
            with suggesting_runs(run.path):
                return read(place)
        except (OSError, ValueError):
            if place == run.path or place.exists():
                raise  # otherwise the run, which is still training, has removed this checkpoint


def _directory_with_model(run: RunDirectory, program: Sequence[str], *, last: bool) -> Path:
    if run.config.exists() or not run.checkpoints():
        _mention_newer_checkpoint(run, program)
        return run.path
    newest = newest_checkpoint(run.path)
    step = None if last else _step_of_a_better_model(run, newest)
    if step is None:
        write_line(f"the run in {run.path} {_fate(run)}; using {newest.name}")
        return newest
    write_line(
        f"the run in {run.path} {_fate(run)}; using {run.best.name}, the model of step {step}, as the validation loss "
        f"has risen since; the last model is in {newest}"
    )
    return run.best


def _step_of_a_better_model(run: RunDirectory, newest: Path) -> int | None:
    """Returns the step of ``best`` if the model there is better than that of a checkpoint, as far as is known."""
    try:
        history, best = read_history(newest), read_history(run.best)
    except (OSError, ValueError):  # a damaged one, or a checkpoint that the run has removed
        return None
    if history is None or best is None or history.best in (None, len(history.steps) - 1):
        return None
    return best.steps[-1]


def _fate(run: RunDirectory) -> str:
    """Returns the predicate of a run whose newest checkpoint is not the end of it."""
    return "is still training" if run.is_training() else "did not finish"


def _mention_newer_checkpoint(run: RunDirectory, program: Sequence[str]) -> None:
    try:
        steps = TrainingHistory.load(run.history).steps
    except (OSError, ValueError):  # which concerns those who read the losses
        return
    newest = next(iter(run.checkpoints()), None)
    if newest is not None and steps and run.step_of(newest) > steps[-1]:
        fate, resume = _fate(run), [*program, "train", *option("--out", run.path), "--resume"]
        write_line(
            f"using {run.path} as it was after step {steps[-1]}; {newest.name} is of a longer run that {fate}. "
            f"To use it, pass {to_paste([str(newest)])}"
            + (f"; to resume the run:  {to_paste(resume)}" if fate == "did not finish" else "")
        )


def load(directory: str, device: torch.device, program: Sequence[str]) -> tuple[GPT2Model, Tokenizer]:
    """Returns the model in a directory and its tokenizer, as `read_model` finds them."""

    def read(place: Path) -> tuple[GPT2Model, Tokenizer]:
        return GPT2Model.from_pretrained(place).to(device), load_tokenizer(place)

    return read_model(directory, read, program)


def check_prompt(prompt: str, tokenizer: Tokenizer) -> None:
    """Raises ``ValueError`` if a prompt has a character that a model of characters was not trained on."""
    if not isinstance(tokenizer, CharTokenizer) or tokenizer.byte_fallback:
        return
    for position, character in enumerate(prompt):
        if character not in tokenizer.characters:
            raise ValueError(
                f"the prompt has {character!r} (U+{ord(character):04X}) at position {position}, which is not among the "
                f"{len(tokenizer.characters)} characters that the model was trained on; leave it out of the prompt, or "
                "train with a tokenizer that has every character, as CharTokenizer(..., byte_fallback=True) does"
            )


def history_in(directory: Path) -> TrainingHistory | None:
    """Returns the losses of the run or the checkpoint in a directory; ``None`` if it is neither."""
    path = RunDirectory(directory).history
    return TrainingHistory.load(path) if path.exists() else read_history(directory)


def loss_in_words(loss: float, bits_per_byte: float | None) -> str:
    """Returns a loss with its units.

    >>> loss_in_words(2.5, 1.25)
    '2.5000 nats per token, 1.2500 bits per byte'
    """
    bits = "" if bits_per_byte is None else f", {bits_per_byte:.4f} bits per byte"
    return f"{loss:.4f} nats per token{bits}"


def validation_loss_in_words(history: TrainingHistory, index: int) -> str | None:
    """Returns the validation loss of an evaluation with its units; ``None`` without validation data."""
    loss = history.val_losses[index]
    return None if loss is None else loss_in_words(loss, history.val_bits_per_byte[index])


def plot_history(history: TrainingHistory, path: Path, baselines: Baselines | None = None) -> None:
    """Writes the plot of losses, with baselines if they are known, in the format of the path's suffix."""
    figure = history.plot(baselines)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.removeprefix(".") or "png")
    atomic_write(path, lambda file: file.write(picture.getbuffer()))
