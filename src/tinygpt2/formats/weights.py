"""The weights of a model directory: safetensors or PyTorch's pickled tensors, in one file or in shards."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tinygpt2._internal.checks import shown
from tinygpt2._internal.files import check_regular, read_json
from tinygpt2.formats.safetensors import read_safetensors

WEIGHTS_FILE = "model.safetensors"
PICKLED_FILE = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"

WEIGHT_FILES = (WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX, PICKLED_FILE, PICKLED_FILE + INDEX_SUFFIX)
"""The files that weights are in, or are listed in if they are in shards; the first one there is read."""

_INDEX_LIMIT = 1 << 26  # bytes
_SHARD = re.compile(r"[\w.\-]+\.(safetensors|bin)")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of one of `WEIGHT_FILES`; those of safetensors are mapped into memory.

    Raises:
        FileNotFoundError: If a shard is missing.
        ValueError: If a file is damaged, or has anything but tensors.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    return _read_pickled(path) if path.suffix == ".bin" else read_safetensors(path, links=True)


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Returns the tensors of all shards that an index lists."""
    places = read_json(index, limit=_INDEX_LIMIT, links=True).get("weight_map")
    if not (isinstance(places, dict) and places):
        raise ValueError(f"weight_map in {index.name} should have the shard of each weight, but is {shown(places)}")
    for name in set(map(str, places.values())):
        if not _SHARD.fullmatch(name):
            raise ValueError(f"{index.name} has a shard {shown(name)}, which is not the name of a file of weights")
    weights = dict[str, Tensor]()
    for shard in dict.fromkeys(places.values()):
        path = index.parent / shard
        if not path.exists():
            raise FileNotFoundError(f"{index.parent} has no {shard}, a shard that {index.name} lists")
        found = read_weights(path)
        if missing := [name for name, place in places.items() if place == shard and name not in found]:
            raise ValueError(f"{shard} has no {missing[0]}, although {index.name} says so")
        weights |= found
    return weights


def _read_pickled(path: Path) -> dict[str, Tensor]:
    """Returns the tensors that ``torch.save`` wrote; unpickling constructs tensors and containers, nothing else."""
    check_regular(path, links=True)
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # noqa: BLE001 - PyTorch and pickle have many
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"{path.name} is damaged, or has more than tensors, which is not read, as it could run code: {reason}"
        ) from None
    if not (isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())):
        raise ValueError(f"{path.name} should have tensors by their names, but has {shown(type(content).__name__)}")
    return {str(name): tensor.detach() for name, tensor in content.items()}
