"""When checkpoints are written, which are kept, and from which a run resumes."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from tinygpt2._internal.files import remove_directory, write_directory
from tinygpt2.data.batches import Batch
from tinygpt2.data.passes import Passes, sha256_of
from tinygpt2.errors import CheckpointError
from tinygpt2.model.gpt2 import model_contents
from tinygpt2.run.directory import TRAINING_FILE, RunDirectory
from tinygpt2.text.storage import tokenizer_content
from tinygpt2.text.tokenizers import Tokenizer
from tinygpt2.training.callbacks.base import Callbacks
from tinygpt2.training.checkpoints.format import (
    TrainingRecord,
    described,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
    write_files,
)
from tinygpt2.training.checkpoints.restore import (
    compare,
    environment,
    optimizer_record,
    optimizer_tensors,
    read_on,
    restore,
)
from tinygpt2.training.state import TrainState

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Resumed(NamedTuple):
    """What a run resumes from: the record of a checkpoint, and the batches left of the pass that it was in.

    Not the checkpoint, whose tensors lie in its files: those can be removed long before the run ends.
    """

    record: TrainingRecord
    batches: Iterator[Batch]


BUDGET = 0.01  # share of the time that saving may take, where checkpoint_every is not given


def newest_checkpoint(directory: str | PathLike[str]) -> Path:
    """Returns the newest checkpoint in a directory that is whole; those that it skips are logged with the reason.

    Args:
        directory: The ``checkpoint_dir`` of `train`, or a run directory of the command line.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        CheckpointError: If there are some, but each is damaged.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     newest_checkpoint(directory)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: ... has no checkpoint
    """
    return _newest(RunDirectory(Path(directory)), verify_checkpoint)[0]


def _newest(run: RunDirectory, read: Callable[[Path], T]) -> tuple[T, list[Path]]:
    """Returns what ``read`` makes of the newest checkpoint that is whole, and those that are not."""
    skipped: list[Path] = []
    reasons: list[str] = []
    for path in run.checkpoints():
        try:
            result = read(path)
        except CheckpointError as error:
            logger.warning("skipped a damaged checkpoint: %s", error)
            skipped.append(path)
            reasons.append(str(error))
        else:
            return result, skipped
    if skipped:
        raise CheckpointError(f"no checkpoint in {run.path} is whole: {'; '.join(reasons)}")
    raise FileNotFoundError(f"{run.path} has no checkpoint")


class CheckpointSaver:
    """Decides when to save, saves, and tidies up.

    Args:
        run: Where the checkpoints are; it is made if it is not there.
        data: What the data are.
        callbacks: Those of the run, whose states are saved.
        tokenizer: That of the data, saved beside each model; ``None`` if it is not known.
        every: Steps between checkpoints; ``None`` for as often as a hundredth of the time allows.
        keep: How many to keep.
    """

    def __init__(
        self,
        run: RunDirectory,
        state: TrainState,
        *,
        data: dict[str, Any],
        callbacks: Callbacks,
        tokenizer: Tokenizer | None,
        every: int | None,
        keep: int,
    ) -> None:
        self.run, self.data, self.callbacks = run, data, callbacks
        self.tokenizer = _storable(tokenizer)
        self.every, self.keep = every, keep
        self.made = optimizer_record(state)
        self._loader: Mapping[str, Any] = {}  # where it was when the run was resumed
        self._read: tuple[Batch, dict[str, Any] | None] | None = None  # last, and the loader's own position after it
        self.failed = False
        self._best: tuple[dict[str, Tensor], bytes] | None = None  # found and not yet written
        self._saved: tuple[int, int] | None = None  # step, and evaluations, of which the newest checkpoint is
        self._began = time.perf_counter()
        self._spent = self._latest = 0.0
        run.path.mkdir(parents=True, exist_ok=True)
        run.recover()

    def resume(self, state: TrainState, passes: Passes, *, allow_changes: bool) -> Resumed | None:
        """Makes the state that of the newest whole checkpoint, and returns what it was; ``None`` if there is none.

        Reading finds what is damaged; comparing refuses what is of another run, and until then nothing is changed;
        restoring cannot fail any more. Damaged checkpoints that are newer are renamed at the end.

        Args:
            state: The run as it would begin.
            passes: Over its training data.
            allow_changes: As in `train`.

        Raises:
            CheckpointError: If there are checkpoints and none is whole.
            IncompatibleRunError: If the newest whole one is of another run.
        """
        try:
            checkpoint, damaged = _newest(self.run, lambda path: read_checkpoint(path, self.run.step_of(path)))
        except FileNotFoundError:
            return None
        compare(checkpoint, state, self.made, self.data, allow_changes=allow_changes)
        batches = read_on(checkpoint, passes, same_data=checkpoint.record.data["training"] == self.data["training"])
        restore(state, checkpoint, self.made)
        self._loader = checkpoint.record.loader
        self.callbacks.load_state_dict(checkpoint.record.callbacks)
        for path in damaged:
            names = (f"{path.name}.damaged{f'-{i}' * (i > 1)}" for i in count(1))
            path.rename(next(other for name in names if not (other := path.with_name(name)).exists()))
        self._saved = state.step, len(state.history.steps)
        return Resumed(checkpoint.record, batches)

    def read_until(self, batch: Batch, position: dict[str, Any] | None) -> None:
        """Notes the last batch of the step to come, and the loader's own position after it."""
        self._read = batch, position

    def step_done(self, state: TrainState) -> None:
        """Saves if it is time to."""
        if self.every is None:
            due = self._spent + self._latest <= BUDGET * (time.perf_counter() - self._began)
        else:
            due = state.step % self.every == 0
        if due:
            self.save(state)

    def evaluated(self, state: TrainState) -> None:
        """Keeps a copy of the weights if no validation loss was lower; the next save writes it."""
        *earlier, latest = state.history.val_losses
        if latest is None or not all(latest < loss for loss in earlier if loss is not None):
            return
        # In memory until then, so that on the disk it is never of a later step than the newest checkpoint by much, and
        # costs no more than that.
        weights = {name: weight.detach().to("cpu", copy=True) for name, weight in state.model.state_dict().items()}
        self._best = weights, self._record(state, weights).to_json()

    def save(self, state: TrainState) -> None:
        """Writes what is not yet written, and removes what is then too old.

        Raises:
            OSError: If it cannot be written; the checkpoints that were there are as they were.
        """
        began = time.perf_counter()
        self.save_best(state)
        now = state.step, len(state.history.steps)
        if self._saved != now:
            with self._failing(state):
                model = model_contents(state.model.config, state.model.state_dict(), self.tokenizer)
                path = self.run.checkpoint(state.step)
                tensors = optimizer_tensors(state)
                write_checkpoint(path, model, tensors, self._record(state, state.model.state_dict() | tensors))
                self._saved = now
                older = [path for path in self.run.checkpoints() if self.run.step_of(path) <= state.step]
                for path in older[self.keep :]:
                    remove_directory(path)
        self._latest = time.perf_counter() - began
        self._spent += self._latest

    def save_best(self, state: TrainState) -> None:
        """Writes the model with the lowest validation loss, where it is not yet written.

        Raises:
            OSError: If it cannot be written; the one that was there is as it was.
        """
        if self._best is None:
            return
        weights, record = self._best
        contents = model_contents(state.model.config, weights, self.tokenizer) | {TRAINING_FILE: [record]}
        with self._failing(state):
            write_directory(self.run.best, lambda draft: write_files(draft, contents))
        self._best = None

    def _record(self, state: TrainState, tensors: Mapping[str, Tensor]) -> TrainingRecord:
        return TrainingRecord(
            progress=state.progress,
            total_steps=state.total_steps,
            history=state.history,
            training_config=state.config,
            optimizer=optimizer_record(state, self.made),
            tensors={name: described(tensor) for name, tensor in tensors.items()},
            data=self.data,
            loader=self._where(),
            callbacks=self.callbacks.state_dict(),
            environment=environment(state.model.device),
        )

    def _where(self) -> Mapping[str, Any]:
        """Returns where the loader is in its pass, and the sequence before, to see whether it repeats itself."""
        if self._read is None:
            return self._loader
        (inputs, targets), position = self._read
        return {"position": position, "last": sha256_of((inputs[-1], targets[-1]))}

    @contextmanager
    def _failing(self, state: TrainState) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = True
            raise OSError(
                error.errno,
                f"cannot save a checkpoint of step {state.step}: {error.strerror or error}; those that are there are "
                "whole, and training resumes from the newest with resume=True",
                str(self.run.path),
            ) from error


def _storable(tokenizer: Tokenizer | None) -> Tokenizer | None:
    """Returns a tokenizer that can be saved, or none, with a warning."""
    if tokenizer is None:
        return None
    try:
        tokenizer_content(tokenizer)
    except (TypeError, ValueError) as error:
        logger.warning("the checkpoints will not have the tokenizer, which cannot be saved: %s", error)
        return None
    return tokenizer
