"""Writing safetensors, a tensor at a time.

Reading is the safetensors package's. Its writer neither waits for the disk nor hashes, and a file on a full disk is an
error of its own kind; the format is small: the length of a header, the header as JSON, the tensors' bytes.
"""

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

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

    Tensors are brought to the CPU and laid out one by one as they are needed, so that no second copy of all is made.

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
    yield len(encoded).to_bytes(8, "little")
    yield encoded
    for tensor in tensors.values():
        if tensor.numel():
            yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
