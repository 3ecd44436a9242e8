"""A list of a directory's files with their sizes and SHA-256, so that damage is detected when they are read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinygpt2._internal.files import Digest, check_regular, digest_file, read_json, write_file
from tinygpt2.errors import CheckpointError

MANIFEST_FILE = "manifest.json"

_LIMIT = 1 << 16  # bytes of a manifest


def write_manifest(directory: Path, files: Mapping[str, Digest]) -> None:
    """Writes the manifest of the files that `tinygpt2._internal.files.write_file` wrote into a directory."""
    content = {name: {"size": digest.size, "sha256": digest.sha256} for name, digest in files.items()}
    write_file(directory / MANIFEST_FILE, [(json.dumps({"files": content}, indent=1) + "\n").encode()])


def check_replaceable(directory: Path, names: Iterable[str]) -> None:
    """Raises ``ValueError`` if a directory has a manifest with the hashes of any of these files.

    A new manifest would not do: the training state in a checkpoint, and the losses in ``best``, are of that model.
    """
    if not (directory / MANIFEST_FILE).exists():
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


def verify_manifest(directory: Path, names: Iterable[str], *, optional: Iterable[str] = ()) -> None:
    """Reads files and compares them with the manifest.

    Args:
        directory: The directory.
        names: The files that it must have.
        optional: Files that are compared if the manifest lists them.

    Raises:
        CheckpointError: If one of ``names`` is missing, is not in the manifest, or differs from it.
        PermissionError: If one may not be read.
    """
    try:
        content = read_json(directory / MANIFEST_FILE, limit=_LIMIT).get("files")
        files = content if isinstance(content, dict) else {}
        for name in (*names, *(name for name in optional if name in files)):
            _verify(directory / name, files.get(name))
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
        raise ValueError(f"{path.name} should have {expected.get('size')} bytes but has {size}")
    if digest_file(path) != Digest(size, str(expected.get("sha256"))):
        raise ValueError(f"{path.name} does not have the SHA-256 in {MANIFEST_FILE}")
