"""The format of a checkpoint: written whole or not at all, verified when it is read.

A checkpoint is a directory ``checkpoint-STEP`` with these files:

- ``config.json``, ``model.safetensors`` and ``tinygpt2_tokenizer.json``: the model in Hugging Face layout, which all
  tools read, and its tokenizer where it is known;
- ``training_state.safetensors``: the optimizer's tensors;
- ``training.json``: the progress, the history, the configurations, what the optimizer and the data were, the versions;
- ``manifest.json``: size and SHA-256 of each of the others.

``best`` beside it is the model with the lowest validation loss, without the optimizer. Nothing in them depends on time
or place, so two equal runs leave equal bytes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinygpt2._internal.files import Digest, read_json, write_directory, write_file
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.errors import CheckpointError
from tinygpt2.formats.huggingface import CONFIG_FILE, WEIGHTS_FILE, Contents, read_pretrained
from tinygpt2.formats.manifest import verify_manifest, write_manifest
from tinygpt2.formats.safetensors import safetensors_chunks
from tinygpt2.run.directory import STATE_FILE, TRAINING_FILE
from tinygpt2.training.history import TrainingHistory
from tinygpt2.training.state import Progress

_JSON_LIMIT = 32 << 20  # bytes; hundreds of thousands of evaluations, and what a hostile file can cost stays bounded


@dataclass(frozen=True)
class OptimizerRecord:
    """What an optimizer is, apart from its tensors.

    Attributes:
        type: Name of its class.
        frozen: Names of the model's parameters without ``requires_grad`` as the optimizer was made.
        names: Of the parameters in each group.
        made: Options of each group as the optimizer was made.
        options: The same as they are.
        values: State of each parameter that is not a tensor, by its name.
    """

    type: str
    frozen: list[str]
    names: list[list[str]]
    made: list[dict[str, Any]]
    options: list[dict[str, Any]]
    values: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class TrainingRecord:
    """What ``training.json`` holds.

    Attributes:
        progress: How far the run had come.
        total_steps: Updates that it was to make.
        history: Its evaluations.
        training_config: How it was trained.
        optimizer: What updated it.
        tensors: What each tensor of the model and of the optimizer is: a name that is missing, another shape or a
            value that is not finite where all were is damage.
        data: What the training and the validation data were.
        loader: The training loader's own ``position``, where it has one, and the hash of the ``last`` sequence read.
        callbacks: The states of callbacks that have one.
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
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrainingRecord":
        """Returns what `to_json` wrote.

        Raises:
            TypeError: If it is anything else.
            ValueError: Likewise.
        """
        callbacks = _part(content, "callbacks", list)
        if not all(isinstance(saved, dict) and saved.keys() == {"type", "state"} for saved in callbacks):
            raise ValueError(f"callbacks is {callbacks!r:.100} in {TRAINING_FILE}")
        if _part(content, "total_steps", int) < 0:
            raise ValueError(f"total_steps is {content['total_steps']} in {TRAINING_FILE}")
        return cls(
            progress=Progress.from_dict(content.get("progress")),
            total_steps=content["total_steps"],
            history=TrainingHistory.from_dict(content.get("history")),
            training_config=TrainingConfig(**_part(content, "training_config", dict)),
            optimizer=_optimizer(_part(content, "optimizer", dict)),
            tensors=_part(content, "tensors", dict),
            data={part: _part(content, "data", dict).get(part) for part in ("training", "validation")},
            loader=_part(content, "loader", dict),
            callbacks=callbacks,
            environment=_part(content, "environment", dict),
        )


def _optimizer(content: Mapping[str, Any]) -> OptimizerRecord:
    """Returns the record of an optimizer, in which what is compared and restored later cannot fail."""
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
    ):
        raise ValueError(f"the parts of the optimizer in {TRAINING_FILE} do not fit together")
    return record


def _part(content: Mapping[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    value = content.get(name)
    if type(value) is not kind:
        raise ValueError(f"{name} is {value!r:.100} in {TRAINING_FILE}")
    return value


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint directory holds.

    Attributes:
        path: The directory.
        record: The content of ``training.json``.
        model_config: Shape of the model.
        weights: The model's, under our names.
        tensors: The optimizer's.
    """

    path: Path
    record: TrainingRecord
    model_config: GPT2Config
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]


def verify_checkpoint(path: Path) -> Path:
    """Returns a checkpoint's directory, once all its files are what its manifest says.

    Raises:
        CheckpointError: If they are not.
    """
    verify_manifest(path, (CONFIG_FILE, WEIGHTS_FILE, STATE_FILE, TRAINING_FILE))
    return path


def read_checkpoint(path: Path, step: int) -> Checkpoint:
    """Reads the checkpoint of a step.

    Raises:
        CheckpointError: If it is not whole, or is not a checkpoint of tinygpt2.
        PermissionError: If it may not be read.
    """
    verify_manifest(path, (STATE_FILE, TRAINING_FILE))
    try:
        record = TrainingRecord.from_json(read_json(path / TRAINING_FILE, limit=_JSON_LIMIT))
        model_config, weights = read_pretrained(path, keep=record.tensors)
        checkpoint = Checkpoint(
            path=path,
            record=record,
            model_config=model_config,
            weights=weights,
            tensors=load_file(path / STATE_FILE),
        )
        _check_tensors(checkpoint)
    except (CheckpointError, PermissionError):
        raise
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from error
    if record.progress.step != step:
        raise CheckpointError(f"{path} is not a whole checkpoint: it is of step {record.progress.step}")
    return checkpoint


def described(tensor: Tensor) -> str:
    """Returns the type and shape of a tensor, and whether it has values that are not finite, a mask's for instance."""
    not_finite = "" if torch.isfinite(tensor).all() else ", not all finite"
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}{not_finite}"


def _check_tensors(checkpoint: Checkpoint) -> None:
    found = {name: described(tensor) for name, tensor in (checkpoint.weights | checkpoint.tensors).items()}
    expected = checkpoint.record.tensors
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(f"{name} should be {expected.get(name, 'absent')} and is {found.get(name, 'absent')}")


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


def write_checkpoint(path: Path, model: Contents, tensors: Mapping[str, Tensor], record: TrainingRecord) -> None:
    """Writes a checkpoint in one step, and reads it back."""
    contents = model | {STATE_FILE: safetensors_chunks(tensors), TRAINING_FILE: [record.to_json()]}
    write_directory(path, lambda draft: write_files(draft, contents))
    verify_manifest(path, contents)


def write_files(directory: Path, contents: Mapping[str, Iterable[memoryview | bytes]]) -> None:
    """Writes files and their manifest."""
    digests: dict[str, Digest] = {}
    for name, chunks in contents.items():
        digests[name] = write_file(directory / name, chunks)
    write_manifest(directory, digests)
