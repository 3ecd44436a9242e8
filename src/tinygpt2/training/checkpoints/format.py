"""Format of checkpoints, which are written atomically and verified when they are read.

A checkpoint is a directory ``checkpoint-STEP`` with these files:

- ``config.json``, ``model.safetensors``: the model in Hugging Face layout, which other tools can read;
- ``tinygpt2_tokenizer.json``, ``tokenizer.json`` and others: its tokenizer, if it is known, for us and for other tools;
- ``training_state.safetensors``: the optimizer's tensors, and the last weights if the model is an average of them;
- ``training.json``: the progress, the history, the configurations, the optimizer, the data, the versions;
- ``manifest.json``: the size and SHA-256 of each of the other files.

``best``, beside it, is the model with the lowest validation loss, without the optimizer. Nothing in either depends on
time or place, so equal runs write equal bytes.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinygpt2._internal.checks import brief, shown
from tinygpt2._internal.directories import rereading, write_directory
from tinygpt2._internal.files import Digest, read_json, write_file
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.errors import CheckpointError
from tinygpt2.formats.huggingface import CONFIG_FILE, read_pretrained
from tinygpt2.formats.manifest import STATE_FILE, TRAINING_FILE, verify_listed, verify_manifest, write_manifest
from tinygpt2.formats.safetensors import read_safetensors, safetensors_chunks
from tinygpt2.formats.weights import WEIGHTS_FILE, Contents
from tinygpt2.run.directory import RunDirectory
from tinygpt2.tokenizers.storage import TOKENIZER_FILES
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.state import Progress

_JSON_LIMIT = 32 << 20  # bytes; holds hundreds of thousands of evaluations, and bounds the cost of a hostile file


@dataclass(frozen=True)
class OptimizerRecord:
    """Record of an optimizer, apart from its tensors.

    Attributes:
        type: Name of its class.
        frozen: Names of the model's parameters without ``requires_grad`` when the optimizer was created.
        names: Names of the parameters in each group.
        made: Options of each group when the optimizer was created.
        options: Current options of each group.
        values: State of each parameter, other than tensors, by the parameter's name.
    """

    type: str
    frozen: list[str]
    names: list[list[str]]
    made: list[dict[str, Any]]
    options: list[dict[str, Any]]
    values: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TrainingRecord:
    """Content of ``training.json``.

    Attributes:
        progress: Progress of the run.
        total_steps: Steps planned for the run.
        history: Its evaluations.
        training_config: Configuration of the training.
        optimizer: Record of its optimizer.
        tensors: Description of each tensor of the model and of the optimizer: a missing name, another shape, or a
            non-finite value where all were finite is damage.
        data: Identity of the training and the validation data, and of the teacher, if there is one.
        loader: The training loader's own ``position``, if it has one, and the hash of the ``last`` sequence read.
        callbacks: States of the callbacks that have one.
        environment: Versions, device and threads.
    """

    progress: Progress
    total_steps: int
    history: TrainingHistory
    training_config: TrainingConfig
    optimizer: OptimizerRecord
    tensors: Mapping[str, str]
    data: Mapping[str, Any]
    loader: Mapping[str, Any]
    callbacks: Sequence[Any]
    environment: Mapping[str, Any]

    def to_json(self) -> bytes:
        """Returns the content of the file.

        Raises:
            TypeError: If a loader or a callback has a state that JSON cannot hold.
        """
        content = asdict(self)
        del content["history"]["seconds"]  # which equal runs do not share
        return (json.dumps(content, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrainingRecord":
        """Returns the record that `to_json` wrote.

        Raises:
            TypeError: If it is anything else.
            ValueError: Likewise.
        """
        callbacks = _part(content, "callbacks", list)
        if not all(isinstance(saved, dict) and saved.keys() == {"type", "state"} for saved in callbacks):
            raise ValueError(f"callbacks is {shown(callbacks)} in {TRAINING_FILE}")
        if _part(content, "total_steps", int) < 0:
            raise ValueError(f"total_steps is {shown(content['total_steps'])} in {TRAINING_FILE}")
        return cls(
            progress=Progress.from_dict(content.get("progress")),
            total_steps=content["total_steps"],
            history=TrainingHistory.from_dict(content.get("history")),
            training_config=TrainingConfig(**_part(content, "training_config", dict)),
            optimizer=_optimizer(_part(content, "optimizer", dict)),
            tensors=_part(content, "tensors", dict),
            data={"training": None, "validation": None, **_part(content, "data", dict)},
            loader=_part(content, "loader", dict),
            callbacks=callbacks,
            environment=_part(content, "environment", dict),
        )


def _optimizer(content: Mapping[str, Any]) -> OptimizerRecord:
    """Returns the record of an optimizer, checked so that comparing and restoring it cannot fail."""
    record = OptimizerRecord(**content)
    lists: Sequence[Any] = (record.frozen, record.names, record.made, record.options)
    values: Any = record.values
    if not (
        isinstance(content["type"], str)
        and all(isinstance(part, list) for part in lists)
        and all(isinstance(group, list) for group in lists[1])
        and all(isinstance(name, str) for group in (record.frozen, *record.names) for name in group)
        and isinstance(values, dict)
        and all(isinstance(part, dict) for part in (*record.made, *record.options, *values.values()))
        and len(record.names) == len(record.made) == len(record.options)
        and all(
            _is_like(made[name], value)
            for made, options in zip(record.made, record.options, strict=True)
            for name, value in options.items()
            if name in made
        )
    ):
        raise ValueError(f"the parts of the optimizer in {TRAINING_FILE} do not match")
    return record


def _is_like(made: object, now: object) -> bool:
    """Returns whether an option can have been changed from one value to the other."""
    if isinstance(made, list):
        return isinstance(now, list) and len(now) == len(made) and all(map(_is_like, made, now))
    if isinstance(made, bool) or not isinstance(made, int | float):
        return not isinstance(now, list)
    return isinstance(now, int | float) and not isinstance(now, bool)


def _part(content: Mapping[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    value = content.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name} is {shown(value)} in {TRAINING_FILE}")
    return value


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint directory.

    Attributes:
        path: The directory.
        record: The content of ``training.json``.
        model_config: Configuration of the model.
        weights: Weights of the model, under the library's names.
        tensors: Tensors of the optimizer.
    """

    path: Path
    record: TrainingRecord
    model_config: GPT2Config
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]


@rereading
def verify_checkpoint(path: Path, step: int) -> Path:
    """Returns the directory of a step's checkpoint if all its files match its manifest, and its step is this one.

    Raises:
        CheckpointError: If they do not.
        PermissionError: If it may not be read.
    """
    verify_manifest(path, (CONFIG_FILE, WEIGHTS_FILE, STATE_FILE, TRAINING_FILE))
    verify_listed(path, TOKENIZER_FILES)
    with _damage(path):
        progress = Progress.from_dict(read_json(path / TRAINING_FILE, limit=_JSON_LIMIT).get("progress"))
        _check_step(step, progress)
    return path


@rereading
def read_checkpoint(path: Path, step: int) -> Checkpoint:
    """Reads the checkpoint of a step.

    Raises:
        CheckpointError: If it is not intact, or is not a checkpoint of tinygpt2.
        PermissionError: If it may not be read.
    """
    verify_manifest(path, (STATE_FILE, TRAINING_FILE))
    verify_listed(path, TOKENIZER_FILES)
    with _damage(path):
        record = TrainingRecord.from_json(read_json(path / TRAINING_FILE, limit=_JSON_LIMIT))
        model_config, weights = read_pretrained(path, keep=record.tensors)
        checkpoint = Checkpoint(
            path=path,
            record=record,
            model_config=model_config,
            weights=weights,
            tensors=read_safetensors(path / STATE_FILE),
        )
        _check_tensors(checkpoint)
        _check_step(step, record.progress)
    return checkpoint


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Turns whatever is wrong with the content of a checkpoint into a `CheckpointError`."""
    try:
        yield
    except (CheckpointError, PermissionError):
        raise
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is not an intact checkpoint: {brief(error)}") from error


def _check_step(step: int, progress: Progress) -> None:
    if progress.step != step:
        raise ValueError(f"its step is {progress.step}, not {step}")


def described(tensor: Tensor) -> str:
    """Returns the type and shape of a tensor, and whether it has non-finite values, as a mask can."""
    not_finite = "" if torch.isfinite(tensor).all() else ", not all finite"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}{not_finite}"


def _check_tensors(checkpoint: Checkpoint) -> None:
    found = {name: described(tensor) for name, tensor in (checkpoint.weights | checkpoint.tensors).items()}
    expected = checkpoint.record.tensors
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(f"{name} should be {expected.get(name, 'absent')} but is {found.get(name, 'absent')}")


def read_best(path: Path) -> tuple[TrainingRecord, dict[str, Tensor]]:
    """Returns the record of ``best``, and its weights under the library's names.

    Raises:
        CheckpointError: If it is not intact.
        PermissionError: If it may not be read.
    """
    verify_manifest(path, (TRAINING_FILE,))
    with _damage(path):
        record = TrainingRecord.from_json(read_json(path / TRAINING_FILE, limit=_JSON_LIMIT))
        return record, read_pretrained(path, keep=record.tensors)[1]


@rereading
def read_history(path: Path) -> TrainingHistory | None:
    """Returns the history in a checkpoint or in ``best``; ``None`` if the directory is neither.

    Raises:
        CheckpointError: If it is damaged, or if its name is that of another step's checkpoint.
        PermissionError: If it may not be read.
    """
    if not (path / TRAINING_FILE).exists():
        return None
    verify_manifest(path, [TRAINING_FILE])
    with _damage(path):
        content = read_json(path / TRAINING_FILE, limit=_JSON_LIMIT)
        if RunDirectory.is_checkpoint(path):
            _check_step(RunDirectory.step_of(path), Progress.from_dict(content.get("progress")))
        return TrainingHistory.from_dict(content.get("history"))


def write_checkpoint(path: Path, model: Contents, tensors: Mapping[str, Tensor], record: TrainingRecord) -> None:
    """Writes a checkpoint atomically, and reads it back to verify it.

    Raises:
        InUseError: If another one of that name cannot be replaced.
        OSError: If it cannot be written; an existing one stays intact.
    """
    contents = model | {STATE_FILE: safetensors_chunks(tensors), TRAINING_FILE: [record.to_json()]}
    write_directory(path, lambda draft: write_files(draft, contents))
    verify_manifest(path, contents)


def write_files(directory: Path, contents: Mapping[str, Iterable[memoryview | bytes]]) -> None:
    """Writes files and their manifest."""
    digests: dict[str, Digest] = {}
    for name, chunks in contents.items():
        digests[name] = write_file(directory / name, chunks)
    write_manifest(directory, digests)
