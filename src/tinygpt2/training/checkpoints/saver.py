"""Checkpoint saving: the schedule, the checkpoints to keep, and the one to resume from."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from tinygpt2._internal.checks import check_path
from tinygpt2._internal.directories import InUseError, remove_directory, write_directory
from tinygpt2._internal.files import make_directories
from tinygpt2.data.batches import Batch
from tinygpt2.data.identity import sha256_of
from tinygpt2.data.passes import Passes
from tinygpt2.distributed.ranks import ALONE, Ranks
from tinygpt2.distributed.sharding import all_whole, is_sharded
from tinygpt2.errors import CheckpointError
from tinygpt2.formats.manifest import TRAINING_FILE
from tinygpt2.model.gpt2 import model_contents
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.protocol import Tokenizer
from tinygpt2.tokenizers.storage import tokenizer_files
from tinygpt2.training.callbacks.base import Callbacks
from tinygpt2.training.checkpoints.format import (
    Checkpoint,
    TrainingRecord,
    described,
    read_best,
    read_checkpoint,
    verify_checkpoint,
    write_checkpoint,
    write_files,
)
from tinygpt2.training.checkpoints.restore import (
    at_the_same_place,
    compare,
    environment,
    optimizer_record,
    optimizer_tensors,
    read_on,
    restore,
    sent,
)
from tinygpt2.training.checkpoints.seconds import read_seconds, write_seconds
from tinygpt2.training.history import lowest_loss
from tinygpt2.training.state import TrainState

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Resumed(NamedTuple):
    """The record of the checkpoint that a run resumes from, and the batches left of the pass that it was in.

    It excludes the checkpoint itself, whose tensors lie in files that can be removed long before the run ends.
    """

    record: TrainingRecord
    batches: Iterator[Batch]


BUDGET = 0.01  # share of the time that saving may take, if checkpoint_every is not given


def newest_checkpoint(directory: str | PathLike[str]) -> Path:
    """Returns the newest intact checkpoint in a directory; damaged ones that it skips are logged with the reason.

    A checkpoint is a directory ``checkpoint-STEP``, with the step in the digits 0 to 9 and without leading zeros, that
    was saved after this step; `train` resumes from the same one. A run that is training there may remove it after two
    more saves.

    Args:
        directory: The ``checkpoint_dir`` of `train`, or a run directory of the command line.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        CheckpointError: If there are checkpoints, but all are damaged.
        TypeError: If it is not a path.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     newest_checkpoint(directory)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: ... has no checkpoint
    """
    return _newest(RunDirectory(check_path("directory", directory)), verify_checkpoint)[0]


def _newest(run: RunDirectory, read: Callable[[Path, int], T]) -> tuple[T, list[Path]]:
    """Returns what ``read`` returns for the newest intact checkpoint, and the damaged ones that are newer."""
    for path in run.misnamed_checkpoints():
        expected = run.checkpoint(int(path.name.removeprefix("checkpoint-"))).name
        logger.warning("ignored %s: it is not named like a checkpoint; expected %s", path, expected)
    damaged: dict[Path, str] = {}
    while waiting := [path for path in run.checkpoints() if path not in damaged]:
        path = waiting[0]
        try:
            return read(path, run.step_of(path)), list(damaged)
        except CheckpointError as error:
            if os.path.lexists(path):  # and was not removed meanwhile by a run that is training there
                logger.warning("skipped a damaged checkpoint: %s", error)
                damaged[path] = str(error)
    if damaged:
        raise CheckpointError(f"no checkpoint in {run.path} is intact: {'; '.join(damaged.values())}")
    raise FileNotFoundError(f"{run.path} has no checkpoint")


class CheckpointSaver:
    """Saves checkpoints when they are due, and removes old ones.

    Args:
        run: Directory of the checkpoints; it is created if it does not exist.
        data: Identity of the training and the validation data.
        callbacks: Callbacks of the run, whose states are saved.
        tokenizer: Tokenizer of the data, saved with each model; ``None`` if it is not known.
        every: Steps between checkpoints; ``None`` saves as often as a hundredth of the time allows.
        keep: Number of checkpoints to keep.
        ranks: The processes that train together, of which the first alone touches the directory.
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
        ranks: Ranks = ALONE,
    ) -> None:
        self.run, self.data, self.callbacks, self.ranks = run, data, callbacks, ranks
        self.tokenizer = _storable(tokenizer) if ranks.first else None
        self.every, self.keep = every, keep
        self.made = optimizer_record(state)
        self._loader: Mapping[str, Any] = {}  # its position when the run was resumed
        self._read: tuple[Batch, dict[str, Any] | None] | None = None  # the last batch, and the loader's own position
        self.failed = False
        self._best: tuple[dict[str, Tensor], bytes] | None = None  # not yet written
        self._saved: tuple[int, int] | None = None  # step and number of evaluations of the newest checkpoint
        self._seconds: dict[int, float] = {}  # that the run had taken at each step that was evaluated or saved
        self._began = time.perf_counter()
        self._spent = self._latest = 0.0
        if ranks.first:
            make_directories(run.path)
            run.recover()

    def resume(self, state: TrainState, passes: Passes, *, allow_changes: bool) -> Resumed | None:
        """Restores the newest intact checkpoint and returns its record and the batches left; ``None`` if there is none.

        Reading detects damage, and comparing rejects a checkpoint from another run; nothing changes before restoring,
        which cannot fail. Newer, damaged checkpoints are renamed at the end.

        Args:
            state: State of the run as it would begin.
            passes: Passes over its training data.
            allow_changes: As in `train`.

        Raises:
            CheckpointError: If there are checkpoints, but none is intact.
            IncompatibleRunError: If the newest intact one is from another run.
        """
        damaged: list[Path] = []

        def read() -> Checkpoint | None:
            try:
                checkpoint, found = _newest(self.run, read_checkpoint)
            except FileNotFoundError:
                return None
            compare(checkpoint, state, self.made, self.data, allow_changes=allow_changes)
            damaged.extend(found)
            return at_the_same_place(checkpoint, self.data)

        checkpoint = sent(read, self.ranks)
        if checkpoint is None:
            return None
        batches = read_on(checkpoint, passes, same_data=checkpoint.record.data["training"] == self.data["training"])
        restore(state, checkpoint, self.made)
        self._loader = checkpoint.record.loader
        self.callbacks.load_state_dict(checkpoint.record.callbacks)
        for path in damaged:
            _set_aside(path)
        self._saved = state.step, len(state.history.steps)
        self._seconds = self.ranks.on_first(lambda: read_seconds(self.run.seconds))
        state.history.seconds = [self._seconds.get(step) for step in state.history.steps]
        known = [step for step in self._seconds if step <= state.step]  # the last is earlier after a kill in a save
        state.seconds_before = self._seconds[max(known)] if known else None
        return Resumed(checkpoint.record, batches)

    def read_until(self, batch: Batch, position: dict[str, Any] | None) -> None:
        """Records the last batch of the next step, and the loader's own position after it."""
        self._read = batch, position

    def step_done(self, state: TrainState) -> None:
        """Saves a checkpoint if one is due."""
        if self.every is None:
            due = self._spent + self._latest <= BUDGET * (time.perf_counter() - self._began)
        else:
            due = state.step % self.every == 0
        if is_sharded(state.model):
            (due,) = self.ranks.any(due and self.ranks.first)
        if due:
            self.save(state)

    def keep_weights(self, state: TrainState, weights: dict[str, Tensor]) -> None:
        """Keeps a copy of the weights, which have the lowest validation loss so far; the next save writes it.

        It is in memory until then, so that the one on disk is never much newer than the newest checkpoint, and is
        written no more often.
        """
        record = self._record(state, weights)  # which has the bytes of a run that did not end here
        self._best = weights, replace(record, history=replace(state.history, stopped=None)).to_json()

    def best_weights(self, state: TrainState) -> dict[str, Tensor] | None:
        """Returns the weights with the lowest validation loss; ``None``, with a warning, if ``best`` has lost them."""
        return self.ranks.from_first(lambda: self._best_weights(state) or {}) or None

    def _best_weights(self, state: TrainState) -> dict[str, Tensor] | None:
        if self._best is not None:
            return self._best[0]
        try:
            record, weights = read_best(self.run.best)
        except (OSError, ValueError) as error:
            reason = str(error)
        else:
            tensors = {name: described(weight) for name, weight in state.model.state_dict().items()}
            if lowest_loss(record.history) <= lowest_loss(state.history) and record.tensors == tensors:
                return weights
            reason = f"the model there is another one, of step {record.progress.step}"
        logger.warning("the model keeps its last weights, not those with the lowest validation loss: %s", reason)
        return None

    def save(self, state: TrainState) -> None:
        """Writes the checkpoint and ``best`` if they are not yet written, and removes old checkpoints.

        Raises:
            OSError: If it cannot be written; existing checkpoints stay intact.
        """
        if self.is_idle(state):
            return
        began = time.perf_counter()
        self.save_best(state)
        now = state.step, len(state.history.steps)
        if self._saved != now:
            tensors = all_whole(optimizer_tensors(state) | (state.average.last_weights() if state.average else {}))
            with self._failing(state), state.averaged():
                self._write(state, all_whole(state.model.state_dict()), tensors)
                self._saved = now
        self._latest = time.perf_counter() - began
        self._spent += self._latest

    def is_idle(self, state: TrainState) -> bool:
        """Returns whether this process has nothing to do for a checkpoint, not even to give its share of weights."""
        return not (self.ranks.first or is_sharded(state.model))

    def _write(self, state: TrainState, weights: dict[str, Tensor], tensors: dict[str, Tensor]) -> None:
        if not self.ranks.first:
            return
        model = model_contents(state.model.config, weights, self.tokenizer)
        write_checkpoint(self.run.checkpoint(state.step), model, tensors, self._record(state, weights | tensors))
        self._save_seconds(state)
        older = [path for path in self.run.checkpoints() if self.run.step_of(path) <= state.step]
        for path in older[self.keep :]:
            remove_directory(path)

    def _save_seconds(self, state: TrainState) -> None:
        """Writes the time that the run has taken, beside the checkpoints: equal runs write equal ones."""
        now = [(state.step, state.seconds), *zip(state.history.steps, state.history.seconds, strict=True)]
        known = self._seconds | {step: seconds for step, seconds in now if seconds is not None}
        wanted = {step for step, _ in now} | set(map(self.run.step_of, self.run.checkpoints()))
        self._seconds = {step: seconds for step, seconds in sorted(known.items()) if step in wanted}
        write_seconds(self.run.seconds, self._seconds)

    def save_best(self, state: TrainState) -> None:
        """Writes the model with the lowest validation loss, if it is not yet written.

        Raises:
            OSError: If it cannot be written; an existing one stays intact.
        """
        if self._best is None:
            return
        weights, record = self._best
        if not self.ranks.first:
            self._best = None
            return
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
        """Returns the loader's position, and the hash of the last sequence, to check that it repeats its batches."""
        if self._read is None:
            return self._loader
        (inputs, targets), position = self._read
        return {"position": position, "last": sha256_of((inputs[-1], targets[-1]))}

    @contextmanager
    def _failing(self, state: TrainState) -> Iterator[None]:
        try:
            yield
        except InUseError as error:  # a program that reads it is no reason to end the run
            logger.warning("%s %s; it keeps what it has until the next save", error.filename, error.strerror)
        except OSError as error:
            self.failed = True
            raise OSError(
                error.errno,
                f"cannot save a checkpoint of step {state.step}: {error.strerror or error}; existing checkpoints "
                "are intact; pass resume=True to resume from the newest",
                str(self.run.path),
            ) from error


def _set_aside(damaged: Path) -> None:
    """Gives a damaged checkpoint another name, so that the next one of its step has a place."""
    names = (f"{damaged.name}.damaged{f'-{i}' * (i > 1)}" for i in count(1))
    try:
        damaged.rename(next(path for name in names if not os.path.lexists(path := damaged.with_name(name))))
    except OSError as error:
        logger.warning("cannot rename the damaged %s: %s", damaged, error.strerror)


def _storable(tokenizer: Tokenizer | None) -> Tokenizer | None:
    """Returns the tokenizer if it can be saved; otherwise warns and returns ``None``."""
    if tokenizer is None:
        return None
    try:
        tokenizer_files(tokenizer)
    except (TypeError, ValueError) as error:
        logger.warning("the checkpoints will not include the tokenizer, which cannot be saved: %s", error)
        return None
    return tokenizer
