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
        names: Of the parameters in each group.
        made: Options of each group as the optimizer was made.
        options: The same as they are.
        values: State of each parameter that is not a tensor, by its name.
    """

    type: str
    names: Sequence[Sequence[str]]
    made: Sequence[Mapping[str, Any]]
    options: Sequence[Mapping[str, Any]]
    values: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class TrainingRecord:
    """What ``training.json`` holds.

    Attributes:
        progress: How far the run had come.
        history: Its evaluations.
        training_config: How it was trained.
        optimizer: What updated it; ``None`` in ``best``.
        data: What the training and the validation data were.
        loader: Within a pass, the training loader's own ``position``, where it has one, and the hash of the ``last``
            sequence.
        callbacks: The states of callbacks that have one.
        environment: Versions, device and threads.
    """

    progress: Progress
    history: TrainingHistory
    training_config: TrainingConfig
    optimizer: OptimizerRecord
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
        optimizer = OptimizerRecord(**_part(content, "optimizer", dict))
        if not len(optimizer.names) == len(optimizer.made) == len(optimizer.options):
            raise ValueError(f"the groups of the optimizer in {TRAINING_FILE} do not fit together")
        return cls(
            progress=Progress.from_dict(content.get("progress")),
            history=TrainingHistory.from_dict(content.get("history")),
            training_config=TrainingConfig(**_part(content, "training_config", dict)),
            optimizer=optimizer,
            data=_part(content, "data", dict),
            loader=_part(content, "loader", dict),
            callbacks=_part(content, "callbacks", list),
            environment=_part(content, "environment", dict),
        )


def _part(content: Mapping[str, Any], name: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    value = content.get(name)
    if not isinstance(value, kind):
        raise ValueError(f"{name} is {value!r:.100} in {TRAINING_FILE}")  # noqa: TRY004 - a wrong file
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
    weights: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor]


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
    """
    verify_manifest(path, (STATE_FILE, TRAINING_FILE))
    try:
        record = TrainingRecord.from_json(read_json(path / TRAINING_FILE, limit=_JSON_LIMIT))
        model_config, weights = read_pretrained(path)
        checkpoint = Checkpoint(
            path=path,
            record=record,
            model_config=model_config,
            weights=weights,
            tensors=load_file(path / STATE_FILE),
        )
        for name, tensor in (*weights.items(), *checkpoint.tensors.items()):
            if not torch.isfinite(tensor).all():
                raise ValueError(f"{name} has values that are not finite")  # noqa: TRY301 - told like the others
    except CheckpointError:
        raise
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error}") from error
    if record.progress.step != step:
        raise CheckpointError(f"{path} is not a whole checkpoint: it is of step {record.progress.step}")
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
