"""Models of the Hugging Face Hub, by name, through ``huggingface_hub`` and its cache."""

import os
import re
from pathlib import Path

from tinygpt2._internal.checks import check_instance, first_line

_NAME = re.compile(r"[A-Za-z0-9][\w\-]*/[A-Za-z0-9][\w.\-]*")
_ALONE = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2")  # from the time when names had no owner

_BESIDE = ("*.json", "*.txt", "*.model")  # configurations and tokenizers
_DEEPER = ["*/*"]  # other programs' forms of the model


def named_directory(path: str | os.PathLike[str], *, revision: str | None = None, token: str | None = None) -> Path:
    """Returns a directory: the one that a path names, or that of a model of the Hub in the cache, downloaded if needed.

    A ``str`` is a name if there is no such path, and it has an owner that is no directory here, or is one of GPT-2's.

    Args:
        path: Path or name.
        revision: Branch, tag or commit of a model of the Hub.
        token: Token for it; by default the one that ``huggingface_hub`` finds.

    Raises:
        FileNotFoundError: If the Hub has no such model, or it is not in the cache and cannot be downloaded.
        ImportError: If ``huggingface_hub`` is not installed.
        TypeError: If ``revision`` or ``token`` is not a ``str``.
        ValueError: If there is a ``revision`` of a directory.
    """
    for argument, value in {"revision": revision, "token": token}.items():
        if value is not None:
            check_instance(argument, value, str, "a str")
    if not is_name(path):
        if revision is not None:
            raise ValueError(f"revision is of a model of the Hub, but {os.fspath(path)} is a path; omit it")
        return Path(path)
    from tinygpt2.formats.weights import PICKLED_FILE, WEIGHT_FILES, WEIGHTS_FILE  # noqa: PLC0415 - imports PyTorch

    name = str(path)
    try:
        from huggingface_hub import errors, snapshot_download  # noqa: PLC0415 - an extra
    except ImportError:
        raise without_hub(f"{name} is not a directory here, and downloading it from the Hub") from None

    def download(weights: str) -> Path:
        patterns = [*_BESIDE, weights.replace(".", "*.")]
        return Path(snapshot_download(name, revision=revision, token=token, allow_patterns=patterns,
                                      ignore_patterns=_DEEPER))  # fmt: skip

    try:
        directory = download(WEIGHTS_FILE)
        if not any((directory / file).exists() for file in WEIGHT_FILES):
            directory = download(PICKLED_FILE)
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise FileNotFoundError(
            f"{name} is neither a directory here nor in the cache of huggingface_hub, and cannot be downloaded: "
            f"{first_line(error).rstrip('.')}; check the name, the revision, the token and the network"
        ) from error
    return directory


def without_hub(what: str) -> ImportError:
    """Returns the error that something needs ``huggingface_hub``."""
    return ImportError(f"{what} needs huggingface_hub: pip install 'tinygpt2[hub]'")


def is_name(path: str | os.PathLike[str]) -> bool:
    """Returns whether something names a model of the Hub, and no directory or file here."""
    if not isinstance(path, str) or os.path.lexists(path):
        return False
    return path in _ALONE or (bool(_NAME.fullmatch(path)) and not os.path.lexists(path.partition("/")[0]))
