"""The weights of a model directory: safetensors or PyTorch's pickled tensors, in one file or in shards."""

import json
import re
import zipfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tinygpt2._internal.checks import first_line, shown
from tinygpt2._internal.files import check_regular, read_json
from tinygpt2.formats.safetensors import read_safetensors, safetensors_chunks

WEIGHTS_FILE = "model.safetensors"
PICKLED_FILE = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"

WEIGHT_FILES = (WEIGHTS_FILE, WEIGHTS_FILE + INDEX_SUFFIX, PICKLED_FILE, PICKLED_FILE + INDEX_SUFFIX)
"""The files that weights are in, or are listed in if they are in shards; the first one there is read."""

_INDEX_LIMIT = 1 << 26  # bytes
_SHARD = re.compile(r"[\w.\-]+\.(safetensors|bin)")
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # of DistributedDataParallel and torch.compile
_OUR_SHARD = re.compile(r"model-[0-9]{5}-of-[0-9]{5}\.safetensors")

Contents = dict[str, Iterable[memoryview | bytes]]
"""The bytes of files, in pieces, by the files' names."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of one of `WEIGHT_FILES`; those of safetensors are mapped into memory.

    Raises:
        FileNotFoundError: If a shard is missing.
        ValueError: If a file is damaged, or has anything but tensors.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    return tensors_in(read_pickle(path), path.name) if path.suffix == ".bin" else read_safetensors(path, links=True)


def weight_contents(weights: Mapping[str, Tensor], max_shard_size: int | None = None) -> Contents:
    """Returns the bytes of one file of weights, or of shards of at most so many bytes and their index.

    A tensor that is larger has a shard of its own.
    """
    total = sum(weight.nbytes for weight in weights.values())
    if max_shard_size is None or total <= max_shard_size:
        return {WEIGHTS_FILE: safetensors_chunks(weights)}
    shards = list[dict[str, Tensor]]()
    size = max_shard_size  # of the last one; there is none yet
    for name, weight in weights.items():
        if size + weight.nbytes > max_shard_size:
            shards.append({})
            size = 0
        shards[-1][name] = weight
        size += weight.nbytes
    stem = WEIGHTS_FILE.removesuffix(".safetensors")
    names = [f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    places = {weight: name for name, shard in zip(names, shards, strict=True) for weight in shard}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    contents: Contents = {name: safetensors_chunks(shard) for name, shard in zip(names, shards, strict=True)}
    return contents | {WEIGHTS_FILE + INDEX_SUFFIX: [(json.dumps(index, indent=2) + "\n").encode()]}


def remove_other_weights(directory: Path, names: Container[str]) -> None:
    """Removes safetensors files of an earlier model that the one with files of these names does not have."""
    for path in [*directory.glob("model*.safetensors"), directory / (WEIGHTS_FILE + INDEX_SUFFIX)]:
        if path.name not in names and (path.name in WEIGHT_FILES or _OUR_SHARD.fullmatch(path.name)):
            path.unlink(missing_ok=True)


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


def read_pickle(path: Path) -> object:
    """Returns what ``torch.save`` wrote; unpickling constructs tensors, containers and plain values, nothing else.

    Raises:
        ValueError: If the file is damaged, or has anything else.
    """
    check_regular(path, links=True)
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # noqa: BLE001 - PyTorch and pickle have many
        reason = first_line(error).partition(". ")[0]
        raise ValueError(
            f"{path.name} is damaged, or has more than tensors, which is not read, as it could run code: {reason}"
        ) from None
    return content


def tensors_in(content: object, file: str) -> dict[str, Tensor]:
    """Returns the content of a file if it is tensors by their names, without prefixes that wrappers add.

    Raises:
        ValueError: If it is anything else.
    """
    if not (isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())):
        raise ValueError(f"{file} should have tensors by their names, but has {shown(type(content).__name__)}")
    return {_WRAPPERS.sub("", str(name)): tensor.detach() for name, tensor in content.items()}
