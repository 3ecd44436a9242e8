"""Headers of safetensors files: what describes exactly the bytes that follow is read, and nothing else."""

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tinygpt2.formats.safetensors import read_safetensors, safetensors_chunks

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor(0.5, dtype=torch.bfloat16),
    "c": torch.zeros(0, 4),
    "d": torch.tensor([True, False, True]),
    "e": torch.tensor([-(2**63), 2**63 - 1]),
}
ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def write(path: Path, header: object, body: bytes = bytes(24)) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.dtype == second[name].dtype and torch.equal(value, second[name]) for name, value in first.items()
    )


def test_what_we_write_and_what_the_package_writes_is_read(path: Path) -> None:
    path.write_bytes(b"".join(bytes(chunk) for chunk in safetensors_chunks(TENSORS)))
    assert equal(read_safetensors(path), TENSORS)
    save_file(TENSORS, path, metadata={"format": "pt", "by": "us"})
    assert equal(read_safetensors(path), TENSORS)
    save_file({}, path)
    assert read_safetensors(path) == {}


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2])
def test_types_that_only_others_write_are_read(path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.ones(4).to(dtype)}, path)
    assert read_safetensors(path)["a"].dtype == dtype


def test_a_right_header_is_read(path: Path) -> None:
    for header in (
        {"a": ENTRY},
        {"a": ENTRY, "__metadata__": {}},
        {"a": ENTRY, "b": ENTRY | {"data_offsets": [24, 48]}},
    ):
        write(path, header, bytes(48 if "b" in header else 24))
        assert read_safetensors(path)["a"].shape == (2, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "F8"}, "'a' in model.safetensors has the dtype 'F8'; expected one of F64, F32"),
        ({"dtype": None}, "has the dtype None"),
        ({"dtype": ["F32"]}, "has the dtype"),
        ({"dtype": "F16"}, "should have 12 bytes, by its shape and dtype, but has 24"),
        ({"shape": 6}, "'a' in model.safetensors: shape must be a list, got 6"),
        ({"shape": [2, "3"]}, "each of shape must be an integer, got '3'"),
        ({"shape": [2, 3.0]}, "each of shape must be an integer, got 3.0"),
        ({"shape": [True, 6]}, "each of shape must be an integer, got True"),
        ({"shape": [-2, -3]}, "each of shape must be at least 0, got -2"),
        ({"shape": [2, 4]}, "should have 32 bytes"),
        ({"shape": [2**62, 4]}, "should have 73,786,976,294,838,206,464 bytes"),
        ({"shape": [2**63]}, "each of shape must be at most 9223372036854775807"),
        ({"shape": [10**400]}, "got about 10**400"),
        ({"shape": [1] * 9}, "has 9 dimensions; at most 8"),
        ({"shape": [2**62] * 100_000}, "has 100,000 dimensions"),
        ({"data_offsets": [0]}, "data_offsets must be two values"),
        ({"data_offsets": [0, 24, 48]}, "data_offsets must be two values"),
        ({"data_offsets": "0 24"}, "data_offsets must be two values"),
        ({"data_offsets": [24, 0]}, "but has -24"),
        ({"data_offsets": [-24, 0]}, "each of data_offsets must be at least 0"),
        ({"data_offsets": [0, 2**62]}, "but has 4,611,686,018,427,387,904"),
        ({"data_offsets": [4, 28]}, "should follow each other, up to its end, but do not at byte 0"),
        ({"more": 1}, "should have dtype, shape and data_offsets"),
    ],
)
def test_a_wrong_entry_is_told_by_the_names_of_tensor_and_file(
    path: Path, changes: dict[str, Any], message: str
) -> None:
    write(path, {"a": ENTRY | changes})
    with pytest.raises(ValueError, match=r"model\.safetensors") as caught:
        read_safetensors(path)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("header", "body", "message"),
    [
        ({"a": ENTRY, "b": ENTRY}, 24, "do not at byte 24"),
        ({"a": ENTRY, "b": ENTRY | {"data_offsets": [28, 52]}}, 52, "do not at byte 24"),
        ({"a": ENTRY}, 25, "do not at byte 24"),
        ({"a": ENTRY}, 23, "do not at byte 24"),
        ({}, 1, "do not at byte 0"),
        ({"a": None}, 24, "'a' in model.safetensors should have dtype, shape and data_offsets but is None"),
        ({"a": {"dtype": "F32"}}, 24, "should have dtype, shape and data_offsets"),
        ({"__metadata__": {"a": 1}}, 0, "__metadata__ should have only strings"),
        ({"__metadata__": "a"}, 0, "__metadata__ should have only strings"),
        ([], 0, "the header of model.safetensors is not a JSON object"),
        (b"", 0, "the header of model.safetensors is not JSON"),
        (b'{"a":1,"a":1}', 0, "the key 'a' occurs twice"),
        (b"[" * 100_000, 0, "the header of model.safetensors is nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", 0, "it has an integer of 5,000 digits"),
        (b"\xff\xfe", 0, "the header of model.safetensors is not JSON"),
    ],
)
def test_a_wrong_header_is_told(path: Path, header: object, body: int, message: str) -> None:
    write(path, header, bytes(body))
    with pytest.raises(ValueError, match=r"model\.safetensors") as caught:
        read_safetensors(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("length", [2**25 + 1, 10**8, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_any_length_is_not_read(path: Path, length: int) -> None:
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(ValueError, match=f"has a header of {length:,} bytes; at most 33,554,432 are read"):
        read_safetensors(path)


@pytest.mark.parametrize("content", [b"", b"\x02", struct.pack("<Q", 3) + b"{}", struct.pack("<Q", 2**25)])
def test_a_file_that_ends_within_its_header_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors (ends within its header|is not JSON)|not JSON"):
        read_safetensors(path)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes, and links without a privilege")
def test_pipes_and_devices_are_not_waited_for(path: Path) -> None:
    """The package itself waits at a pipe for ever."""
    os.mkfifo(path)
    with pytest.raises(ValueError, match="is not a regular file"):
        read_safetensors(path, links=True)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="is not a regular file"):
        read_safetensors(path, links=True)
    path.unlink()
    save_file(TENSORS, path.with_name("whole"))
    path.symlink_to("whole")
    assert equal(read_safetensors(path, links=True), TENSORS)
    with pytest.raises(ValueError, match="is not a regular file"):
        read_safetensors(path)


def test_too_many_tensors_for_a_file_are_told_before_it_is_written() -> None:
    tensors = {f"{i}{'x' * 10_000}": torch.empty(0) for i in range(4000)}
    with pytest.raises(ValueError, match="4,000 tensors are too many for a file"):
        next(safetensors_chunks(tensors))
