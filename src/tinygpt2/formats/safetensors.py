"""A writer of safetensors files, one tensor at a time, and a reader that checks them first.

The safetensors package reads them. Its writer neither syncs nor hashes, and reports a full disk with its own
exception. The format is simple: the length of a header, the header as JSON, the tensors' bytes.
"""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tinygpt2._internal.checks import shown
from tinygpt2._internal.files import check_regular, open_regular, parse_json
from tinygpt2._internal.ranges import Int, Many, Pair

_LONGEST_HEADER = 32 << 20  # bytes; that of an optimizer of ten thousand layers has less

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def safetensors_chunks(tensors: Mapping[str, Tensor]) -> Iterator[memoryview | bytes]:
    """Yields the bytes of a safetensors file.

    Each tensor is moved to the CPU and made contiguous only when it is needed, so that there is never a second copy of
    all tensors.

    Source: https://github.com/huggingface/safetensors, "Format".
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the tensors begin at a multiple of eight
    if len(encoded) > _LONGEST_HEADER:
        raise ValueError(f"{len(tensors):,} tensors are too many for a file: their header has {len(encoded):,} bytes")
    yield len(encoded).to_bytes(8, "little")
    yield encoded
    for tensor in tensors.values():
        if tensor.numel():
            yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def read_safetensors(path: Path, *, links: bool = False) -> dict[str, Tensor]:
    """Reads a safetensors file, mapped into memory, after checking its header.

    Args:
        path: A regular file.
        links: Whether it may be a link to one instead.

    Raises:
        ValueError: If it is anything else, or its header does not describe exactly the bytes that follow it.
    """
    with open_regular(path, links=links) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path.name} has a header of {length:,} bytes; at most {_LONGEST_HEADER:,} are read")
        header = file.read(length)
    size = check_regular(path, links=links) - 8 - length
    if len(header) < length or size < 0:
        raise ValueError(f"{path.name} ends within its header")
    _check_header(parse_json(header, f"the header of {path.name}"), size, path.name)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


_OTHERS = {"F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8}  # that the package reads, with their bytes
_WIDTHS = {name: dtype.itemsize for dtype, name in _DTYPES.items()} | _OTHERS
_MOST_DIMENSIONS = 8

_SHAPE, _OFFSETS = Many(Int(minimum=0)), Pair(Int(minimum=0))


def _check_header(header: Mapping[str, Any], size: int, file: str) -> None:
    """Raises ``ValueError`` unless a header describes tensors that fill ``size`` bytes without gaps or overlaps."""
    metadata = header.get("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise ValueError(f"__metadata__ should have only strings in {file}, but is {shown(metadata)}")
    places = [_place(name, entry, file) for name, entry in header.items() if name != "__metadata__"]
    ends = [(0, 0), *sorted(places), (size, size)]
    for (_, end), (begin, _) in pairwise(ends):
        if begin != end:
            raise ValueError(f"the tensors in {file} should follow each other, up to its end, but do not at byte {end}")


def _place(name: str, entry: object, file: str) -> tuple[int, int]:
    """Returns where the bytes of a tensor begin and end."""
    what = f"{shown(name)} in {file}"
    if not (isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"}):
        raise ValueError(f"{what} should have dtype, shape and data_offsets but is {shown(entry)}")
    dtype, shape = entry["dtype"], entry["shape"]
    width = _WIDTHS.get(dtype) if isinstance(dtype, str) else None
    if width is None:
        raise ValueError(f"{what} has the dtype {shown(dtype)}; expected one of {', '.join(_WIDTHS)}")
    if isinstance(shape, list) and len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{what} has {len(shape):,} dimensions; at most {_MOST_DIMENSIONS} are read")
    try:
        expected = width * prod(_SHAPE.check("shape", shape))
        begin, end = _OFFSETS.check("data_offsets", entry["data_offsets"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from error
    if end - begin != expected:
        raise ValueError(f"{what} should have {expected:,} bytes, by its shape and dtype, but has {end - begin:,}")
    return begin, end
