"""A list of a directory's files with their sizes and SHA-256, so that damage is detected when they are read."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinygpt2._internal.checks import shown
from tinygpt2._internal.files import Digest, check_regular, digest_file, read_json, write_file
from tinygpt2.errors import CheckpointError

MANIFEST_FILE = "manifest.json"
STATE_FILE = "training_state.safetensors"
"""In a checkpoint: the optimizer's state and other tensors."""
TRAINING_FILE = "training.json"
"""In a checkpoint: the step, the history, the configurations."""

_LIMIT = 1 << 16  # bytes of a manifest
_THEIR_LIMIT = 1 << 24  # bytes of another program's


def write_manifest(directory: Path, files: Mapping[str, Digest]) -> None:
    """Writes the manifest of the files that `tinygpt2._internal.files.write_file` wrote into a directory."""
    content = {name: {"size": digest.size, "sha256": digest.sha256} for name, digest in files.items()}
    write_file(directory / MANIFEST_FILE, [(json.dumps({"files": content}, indent=1) + "\n").encode()])


def has_manifest(directory: Path) -> bool:
    """Returns whether a directory has a manifest of ours, however damaged; other programs have files of that name.

    One beside the files of a checkpoint is ours, whatever is in it. Elsewhere damage must not make it another
    program's: of ours, a changed byte leaves the word that stands before each hash.
    """
    path = directory / MANIFEST_FILE
    if not os.path.lexists(path):
        return False
    if any(os.path.lexists(directory / name) for name in (STATE_FILE, TRAINING_FILE)):
        return True
    try:
        content = read_json(path, limit=_THEIR_LIMIT, links=True)
    except (OSError, ValueError):
        return True
    return "files" in content or "sha256" in json.dumps(content)


def verify_listed(directory: Path, names: Iterable[str]) -> None:
    """Reads those files that the manifest lists, if there is one, and compares them with it; raises the same errors."""
    if has_manifest(directory):
        verify_manifest(directory, names, all_listed=False)


def verify_manifest(directory: Path, names: Iterable[str], *, all_listed: bool = True) -> None:
    """Reads files and compares them with the manifest.

    Args:
        directory: The directory of the files and of their manifest.
        names: Names of the files.
        all_listed: Whether each must be in the manifest; otherwise those that are not, are not read.

    Raises:
        CheckpointError: If one of ``names`` is missing, is not in the manifest, or differs from it.
        PermissionError: If one may not be read.
    """
    try:
        files = read_json(directory / MANIFEST_FILE, limit=_LIMIT).get("files")
        listed = files if isinstance(files, dict) else {}
        for name in names:
            if all_listed or name in listed:
                _verify(directory / name, listed.get(name))
    except PermissionError:
        raise  # which says nothing about what is in the file
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        file = f"{Path(error.filename).name}: " if isinstance(error, OSError) and error.filename else ""
        raise CheckpointError(f"{directory} is not an intact checkpoint: {file}{reason}") from error


def _verify(path: Path, expected: Any) -> None:  # noqa: ANN401 - whatever the manifest holds
    if not isinstance(expected, dict):
        raise ValueError(f"{path.name} is not in {MANIFEST_FILE}")  # noqa: TRY004 - a wrong file
    size = check_regular(path)
    if size != expected.get("size"):
        raise ValueError(f"{path.name} should have {shown(expected.get('size'))} bytes but has {size}")
    if digest_file(path) != Digest(size, str(expected.get("sha256"))):
        raise ValueError(f"{path.name} does not have the SHA-256 in {MANIFEST_FILE}")


def check_replaceable(directory: Path, names: Iterable[str]) -> None:
    """Raises ``ValueError`` if a directory has a manifest with the hashes of any of these files.

    A new manifest would not do: the training state in a checkpoint, and the losses in ``best``, are of that model.
    """
    if not has_manifest(directory):
        return
    try:
        files = read_json(directory / MANIFEST_FILE, limit=_LIMIT).get("files")
    except (OSError, ValueError):
        files = None
    if not isinstance(files, dict) or any(name in files for name in names):
        raise ValueError(
            f"{directory} is a checkpoint or a copy of one: its {MANIFEST_FILE} has the hashes of the files that would "
            f"be replaced; choose another directory, or remove {MANIFEST_FILE} first"
        )
