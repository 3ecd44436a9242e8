"""Checkpoints: written whole or not at all, verified when they are read, and enough to go on exactly.

A checkpoint is a directory ``checkpoint-STEP`` with these files:

- ``config.json`` and ``model.safetensors``: the model in Hugging Face layout, which all tools read;
- ``training_state.safetensors``: the optimizer's moments, the random states;
- ``training.json``: the step, the history, the configurations, what the data were, the versions;
- ``manifest.json``: size and SHA-256 of each of the others.

``best`` beside it is the model with the lowest validation loss, without the optimizer. Nothing in them depends on time
or place, so two equal runs leave equal bytes.
"""

import json
import logging
import platform
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinygpt2._internal.files import (
    Digest,
    read_json,
    recover_directories,
    remove_directory,
    write_directory,
    write_file,
)
from tinygpt2._internal.random import random_states, set_random_states
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.errors import CheckpointError
from tinygpt2.formats.huggingface import CONFIG_FILE, WEIGHTS_FILE, pretrained_contents, read_pretrained
from tinygpt2.formats.manifest import verify_manifest, write_manifest
from tinygpt2.formats.safetensors import safetensors_chunks
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.state import TrainState

logger = logging.getLogger(__name__)

T = TypeVar("T")

STATE_FILE = "training_state.safetensors"
TRAINING_FILE = "training.json"
BEST = "best"

BUDGET = 0.01  # share of the time that saving may take, where checkpoint_every is not given

FREE_TO_CHANGE = ("epochs", "max_steps", "eval_every", "eval_batches", "sample_prompt", "sample_tokens")
"""Fields of `TrainingConfig` that may differ in a resumed run: how long it is, and what it reports."""

_NAME = r"checkpoint-(\d+)"
RUN_PARTS = rf"checkpoint-\d+|{BEST}"
"""Regular expression of what `CheckpointSaver` makes in its directory."""

_JSON_LIMIT = 32 << 20  # bytes; hundreds of thousands of evaluations, and what a hostile file can cost stays bounded

_RANDOM = "random."
_OPTIMIZER_STATE = ("step", "exp_avg", "exp_avg_sq")  # of AdamW


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds.

    Attributes:
        path: The directory.
        step: Updates made.
        tokens_seen: Training tokens read.
        loss: Training loss of the last step.
        grad_norm: Norm of its gradients.
        learning_rate: Its rate.
        history: The evaluations.
        model_config: Shape of the model.
        training_config: How it was trained.
        data: What `tinygpt2.data.loader.fingerprint` said of the training and the validation data.
        environment: Versions, device and threads.
        weights: The model's, under our names.
        tensors: The optimizer's state and the random states.
    """

    path: Path
    step: int
    tokens_seen: int
    loss: float
    grad_norm: float
    learning_rate: float
    history: TrainingHistory
    model_config: GPT2Config
    training_config: TrainingConfig
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]


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

    def verified(path: Path) -> Path:
        verify_manifest(path, (CONFIG_FILE, WEIGHTS_FILE, STATE_FILE, TRAINING_FILE))
        return path

    return _newest(Path(directory), verified)[0]


def checkpoints(directory: Path) -> list[Path]:
    """Returns the checkpoints in a directory, newest first, unread."""
    found = {}
    if directory.is_dir():
        for path in directory.iterdir():
            if match := re.fullmatch(_NAME, path.name):
                found[path] = int(match[1])
    return sorted(found, key=found.__getitem__, reverse=True)


def _newest(directory: Path, read: Callable[[Path], T]) -> tuple[T, list[Path]]:
    """Returns what ``read`` makes of the newest checkpoint that it accepts, and those that it did not."""
    skipped: list[Path] = []
    reasons: list[str] = []
    for path in checkpoints(directory):
        try:
            result = read(path)
        except CheckpointError as error:
            logger.warning("skipped a damaged checkpoint: %s", error)
            skipped.append(path)
            reasons.append(str(error))
        else:
            return result, skipped
    if skipped:
        raise CheckpointError(f"no checkpoint in {directory} is whole: {'; '.join(reasons)}")
    raise FileNotFoundError(f"{directory} has no checkpoint")


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        CheckpointError: If it is not whole, or is not a checkpoint of tinygpt2.
    """
    verify_manifest(path, (STATE_FILE, TRAINING_FILE))
    try:
        content = read_json(path / TRAINING_FILE, limit=_JSON_LIMIT)
        model_config, weights = read_pretrained(path)
        checkpoint = Checkpoint(
            path=path,
            step=_count(content, "step"),
            tokens_seen=_count(content, "tokens_seen"),
            loss=_number(content, "loss"),
            grad_norm=_number(content, "grad_norm"),
            learning_rate=_number(content, "learning_rate"),
            history=TrainingHistory.from_dict(content.get("history")),
            model_config=model_config,
            training_config=TrainingConfig(**_object(content, "training_config")),
            data=_object(content, "data"),
            environment=_object(content, "environment"),
            weights=weights,
            tensors=load_file(path / STATE_FILE),
        )
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from error
    if path.name != f"checkpoint-{checkpoint.step}":
        raise CheckpointError(f"{path} is not a whole checkpoint: it is of step {checkpoint.step}")
    return checkpoint


def read_history(path: Path) -> TrainingHistory | None:
    """Returns the history in a checkpoint, or in ``best``; ``None`` if the directory is neither.

    Raises:
        CheckpointError: If it is damaged.
    """
    if not (path / TRAINING_FILE).exists():
        return None
    verify_manifest(path, [TRAINING_FILE])
    try:
        return TrainingHistory.from_dict(read_json(path / TRAINING_FILE, limit=_JSON_LIMIT).get("history"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from error


def _count(content: Mapping[str, Any], name: str) -> int:
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r} in {TRAINING_FILE}")
    return value


def _number(content: Mapping[str, Any], name: str) -> float:
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r} in {TRAINING_FILE}")  # noqa: TRY004 - a wrong file
    return float(value)


def _object(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r} in {TRAINING_FILE}")  # noqa: TRY004
    return value


def write_checkpoint(path: Path, state: TrainState, data: Mapping[str, Any]) -> None:
    """Writes a checkpoint in one step, and reads it back."""
    contents: dict[str, Iterable[memoryview | bytes]] = {
        **pretrained_contents(state.model.config, state.model.state_dict()),
        STATE_FILE: safetensors_chunks(_optimizer_tensors(state) | _random_tensors(state)),
        TRAINING_FILE: [_training_json(state, data)],
    }
    write_directory(path, lambda draft: _write_files(draft, contents))
    verify_manifest(path, contents)


def _write_files(directory: Path, contents: Mapping[str, Iterable[memoryview | bytes]]) -> None:
    digests: dict[str, Digest] = {}
    for name, chunks in contents.items():
        digests[name] = write_file(directory / name, chunks)
    write_manifest(directory, digests)


def _training_json(state: TrainState, data: Mapping[str, Any]) -> bytes:
    content = {
        "step": state.step,
        "tokens_seen": state.tokens_seen,
        "loss": state.loss,
        "grad_norm": state.grad_norm,
        "learning_rate": state.learning_rate,
        "training_config": asdict(state.config),
        "data": data,
        "environment": _environment(state.model.device),
        "history": asdict(state.history),
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _environment(device: torch.device) -> dict[str, Any]:
    """Returns what the bits of a result depend on, apart from the run itself."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in _trained(state).items()
        for key, value in state.optimizer.state[parameter].items()
    }


def _trained(state: TrainState) -> dict[str, Tensor]:
    """Returns the parameters by their names, in the order in which the optimizer has them."""
    names = {id(parameter): name for name, parameter in state.model.named_parameters()}
    return {names[id(parameter)]: parameter for group in state.optimizer.param_groups for parameter in group["params"]}


def _random_tensors(state: TrainState) -> dict[str, Tensor]:
    return {f"{_RANDOM}{kind}": value for kind, value in random_states(state.model.device).items()}


def restore(state: TrainState, checkpoint: Checkpoint) -> None:
    """Makes a fresh training state, and the global random state, those of a checkpoint.

    Raises:
        CheckpointError: If the checkpoint's tensors are not those of the state. Model and optimizer are as before.
    """
    weights = state.model.state_dict()
    optimizer = state.optimizer.state_dict()
    trained = _trained(state)
    expected = {
        f"optimizer.{name}.{key}": torch.zeros(()) if key == "step" else parameter
        for name, parameter in (trained.items() if checkpoint.step else ())
        for key in _OPTIMIZER_STATE
    }
    random = {name: value for name, value in checkpoint.tensors.items() if name.startswith(_RANDOM)}
    found = {name: value for name, value in checkpoint.tensors.items() if name not in random}
    try:
        _check_tensors(checkpoint.weights, weights)
        _check_tensors(found, expected)
        set_random_states(state.model.device, {name.removeprefix(_RANDOM): value for name, value in random.items()})
    except (ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{checkpoint.path} is not a whole checkpoint: {error}") from error

    state.model.load_state_dict(checkpoint.weights)
    if found:
        optimizer["state"] = {
            # Copies: what safetensors gives lies in the file.
            i: {key: found[f"optimizer.{name}.{key}"].clone() for key in _OPTIMIZER_STATE}
            for i, name in enumerate(trained)
        }
        state.optimizer.load_state_dict(optimizer)
    state.history = checkpoint.history
    state.step = checkpoint.step
    state.tokens_seen = checkpoint.tokens_seen
    state.loss, state.grad_norm = checkpoint.loss, checkpoint.grad_norm
    state.learning_rate = checkpoint.learning_rate


def _check_tensors(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    if differing := sorted(found.keys() ^ expected.keys()):
        raise ValueError(f"{differing[0]} is {'missing' if differing[0] in expected else 'not of this model'}")
    for name, value in found.items():
        like = expected[name]
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            shapes = f"{like.dtype} {tuple(like.shape)}", f"{value.dtype} {tuple(value.shape)}"
            raise ValueError(f"{name} should be {shapes[0]} and is {shapes[1]}")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} has values that are not finite")


def check_same_run(checkpoint: Checkpoint, state: TrainState, data: Mapping[str, Any], *, allow_changes: bool) -> None:
    """Raises ``ValueError`` with all differences if the run of a checkpoint is another one than this.

    Args:
        checkpoint: Where the run is to go on from.
        state: The run as it would begin.
        data: Its data.
        allow_changes: Whether other data and training configurations, and another dropout, may be.
    """
    shapes = _differences("the model's", asdict(checkpoint.model_config), asdict(state.model.config))
    dropout = shapes.pop("dropout", None)
    training = _differences("the", asdict(checkpoint.training_config), asdict(state.config))
    changes = [
        *([dropout] if dropout else []),
        *(text for name, text in training.items() if name not in FREE_TO_CHANGE),
        *_data_differences(checkpoint.data, data),
    ]
    if shapes:
        raise ValueError(
            f"{checkpoint.path} is of another model: {'; '.join(shapes.values())}. Pass a model with the old values, "
            "or begin a new run in another directory"
        )
    if changes and not allow_changes:
        raise ValueError(
            f"{checkpoint.path} is of another run: {'; '.join(changes)}. Pass the old values, begin a new run in "
            "another directory, or go on with the new ones: allow_changes=True, on the command line --allow-changes"
        )
    for text in changes:
        logger.warning("resuming with a change: %s", text)
    for text in _differences("the", checkpoint.environment, _environment(state.model.device)).values():
        logger.warning("the resumed run may differ in the last digits from an uninterrupted one: %s", text)


def _differences(whose: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{whose} {name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _data_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for part in ("training", "validation"):
        before, now = old.get(part), new.get(part)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(f"the {part} data's", before, now).values()
        elif before != now:
            yield (
                f"there was no {part} data and now there is" if now else f"there was {part} data and now there is none"
            )


class CheckpointSaver:
    """Decides when to save, saves, and tidies up.

    Args:
        directory: Where the checkpoints are; it is made if it is not there.
        data: What the data are.
        every: Steps between checkpoints; ``None`` for as often as a hundredth of the time allows.
        keep: How many to keep.
    """

    def __init__(self, directory: Path, data: Mapping[str, Any], *, every: int | None, keep: int) -> None:
        self.directory, self.data, self.every, self.keep = directory, data, every, keep
        self.failed = False
        self._best: tuple[GPT2Config, dict[str, Tensor], bytes] | None = None  # found and not yet written
        self._saved: tuple[int, int] | None = None  # step, and evaluations, of which the newest checkpoint is
        self._began = time.perf_counter()
        self._spent = self._last = 0.0
        directory.mkdir(parents=True, exist_ok=True)
        recover_directories(directory, RUN_PARTS)

    def resume(self, state: TrainState, *, allow_changes: bool) -> bool:
        """Makes the state that of the newest checkpoint, if there is one; damaged newer ones are renamed.

        Raises:
            CheckpointError: If there are checkpoints and none is whole.
            ValueError: If they are of another run.
        """

        def read(path: Path) -> Checkpoint:
            checkpoint = read_checkpoint(path)
            check_same_run(checkpoint, state, self.data, allow_changes=allow_changes)
            restore(state, checkpoint)
            return checkpoint

        try:
            checkpoint, skipped = _newest(self.directory, read)
        except FileNotFoundError:
            return False
        for path in skipped:
            names = (f"{path.name}.damaged{f'-{i}' * (i > 1)}" for i in count(1))
            path.rename(next(other for name in names if not (other := path.with_name(name)).exists()))
        self._saved = checkpoint.step, len(checkpoint.history.steps)
        return True

    def step_done(self, state: TrainState) -> None:
        """Saves if it is time to."""
        if self.every is None:
            due = self._spent + self._last <= BUDGET * (time.perf_counter() - self._began)
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
        self._best = state.model.config, weights, _training_json(state, self.data)

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
                write_checkpoint(self.directory / f"checkpoint-{state.step}", state, self.data)
                self._saved = now
                older = [path for path in checkpoints(self.directory) if _step(path) <= state.step]
                for path in older[self.keep :]:
                    remove_directory(path)
        self._last = time.perf_counter() - began
        self._spent += self._last

    def save_best(self, state: TrainState) -> None:
        """Writes the model with the lowest validation loss, where it is not yet written.

        Raises:
            OSError: If it cannot be written; the one that was there is as it was.
        """
        if self._best is None:
            return
        config, weights, training = self._best
        contents = {**pretrained_contents(config, weights), TRAINING_FILE: [training]}
        with self._failing(state):
            write_directory(self.directory / BEST, lambda draft: _write_files(draft, contents))
        self._best = None

    @contextmanager
    def _failing(self, state: TrainState) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = True
            raise OSError(
                error.errno,
                f"cannot save a checkpoint of step {state.step}: {error.strerror or error}; those that are there are "
                "whole, and training goes on from the newest with resume=True",
                str(self.directory),
            ) from error


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])
