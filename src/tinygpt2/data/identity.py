"""Identities of loaders: hashes of what lies in memory, and the kind, size and options of the rest."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, IterableDataset, RandomSampler, SequentialSampler, Subset
from torch.utils.data import Sampler as IndexSampler

from tinygpt2._internal.checks import check_json
from tinygpt2.data.noisy import NoisyDataset
from tinygpt2.data.order import EpochSampler
from tinygpt2.data.windows import JoinedTokenDataset, TokenDataset, parts_of

MAX_ELEMENTS = 1 << 27  # of an array that are hashed, in one or two seconds; of a larger one as many, evenly spaced
MAX_ITEMS = 1 << 16  # likewise of a list
_PIECE = 1 << 20  # elements converted at a time
_MAX_DEPTH = 8  # of lists in lists, which can contain themselves


def own_identity(name: str, part: Any) -> dict[str, Any] | None:  # noqa: ANN401 - any loader or data set
    """Returns what the ``identity()`` of a loader or of a data set returns, if it has one.

    Raises:
        TypeError: If JSON cannot hold it.
    """
    if not callable(getattr(part, "identity", None)):
        return None
    return {"identity": check_json(f"the identity() of {name}", part.identity())}


def identity_of_windows(dataset: TokenDataset | JoinedTokenDataset | NoisyDataset) -> dict[str, Any]:
    """Returns what the windows of a data set depend on."""
    if isinstance(dataset, NoisyDataset):
        return identity_of_windows(dataset.clean) | dataset.settings()
    first, *others = parts = parts_of(dataset)
    identities = [part.identity or {"sha256": sha256_of(part.tokens, whole=True)} for part in parts]
    return {
        "context_length": first.context_length,
        "stride": first.stride,
        "tokens": sum(len(part.tokens) for part in parts),
        **(
            {f"files[{i}].{name}": value for i, each in enumerate(identities) for name, value in each.items()}
            if others
            else identities[0]
        ),
    }


def identity_of(loader: object) -> dict[str, Any]:
    """Returns the identity of a loader other than those of `make_dataloader`, in values that JSON can hold.

    A list of batches is hashed. Of a ``DataLoader`` it is the options that decide which items are read in which order,
    those of PyTorch's samplers, the first indices of another sampler, and the content of the data set where that is in
    memory: lists, tensors, arrays, and public attributes that are such, also within a ``Subset`` or ``ConcatDataset``.
    """
    if isinstance(loader, list | tuple):
        return {"sha256": sha256_of(loader)}
    found: dict[str, Any] = {}
    if isinstance(loader, DataLoader):
        found |= {"drop_last": loader.drop_last, "collate_fn": _name_of(loader.collate_fn)}
    dataset = getattr(loader, "dataset", None)
    if dataset is not None:
        found |= _of_dataset("dataset", dataset)
    for name in ("sampler",) if getattr(loader, "batch_size", None) else ("batch_sampler", "sampler"):
        sampler = getattr(loader, name, None)
        if isinstance(sampler, Iterable) and not isinstance(dataset, IterableDataset):
            return found | dict(_of_sampler(name, sampler))
    return found


def _of_dataset(name: str, dataset: object) -> dict[str, Any]:
    if isinstance(dataset, TokenDataset | JoinedTokenDataset | NoisyDataset):
        return {f"{name}.{key}": value for key, value in identity_of_windows(dataset).items()}
    if own := own_identity(name, dataset):
        return {f"{name}.identity": own["identity"]}
    try:
        size = f" of {len(dataset)}"  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # a stream
        size = ""
    found = {name: f"{type(dataset).__qualname__}{size}"}
    if isinstance(dataset, Subset):
        found |= {f"{name}.indices_sha256": sha256_of(dataset.indices)}
        return found | _of_dataset(f"{name}.dataset", dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        parts = [_of_dataset("", part) for part in dataset.datasets]
        return found | {f"{name}.datasets_sha256": sha256_of(parts)}
    if _is_in_memory(dataset):
        return found | {f"{name}.sha256": sha256_of(dataset)}
    attributes: dict[str, Any] = getattr(dataset, "__dict__", {})
    return found | {
        f"{name}.{key}_sha256": sha256_of(value)
        for key, value in attributes.items()
        if not key.startswith("_") and _is_in_memory(value)
    }


def _of_sampler(name: str, sampler: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    if type(sampler) in (RandomSampler, SequentialSampler):
        yield "shuffle", type(sampler) is RandomSampler
    else:
        yield name, type(sampler).__qualname__
    if not isinstance(sampler, EpochSampler) and not type(sampler).__module__.startswith("torch."):
        yield f"{name}.order_sha256", sha256_of(list(islice(sampler, MAX_ITEMS)))
        return
    for key, value in vars(sampler).items():
        option = f"{name}.{key.strip('_')}"
        if key in ("data_source", "dataset", "epoch", "start"):
            continue
        if isinstance(value, IndexSampler):
            yield from _of_sampler(option, value)
        elif _is_in_memory(value):
            yield f"{option}_sha256", sha256_of(value)
        elif isinstance(value, bool | int | float | str) and (key, value) != ("replacement", False):
            yield option, value


def _name_of(function: object) -> str:
    function = getattr(function, "func", function)  # of a functools.partial
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _is_in_memory(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray | list | tuple | range)


def sha256_of(value: object, *, whole: bool = False) -> str:
    """Returns the SHA-256 of numbers, text, tensors, arrays, and lists and dicts of them.

    Integers have the same hash whatever their type. Of other objects, the class is hashed.

    Args:
        value: The value.
        whole: Whether to hash all of an array or a list that has more than ``MAX_ELEMENTS`` or ``MAX_ITEMS``.
    """
    digest = hashlib.sha256()
    _add(digest, value, whole=whole, depth=0)
    return digest.hexdigest()


def _add(digest: Any, value: object, *, whole: bool, depth: int) -> None:  # noqa: ANN401 - hashlib does not name it
    """Adds a value to a digest."""
    if isinstance(value, Tensor):
        value = _as_array(value)
    elif isinstance(value, list | tuple) and value and isinstance(value[0], int | float | np.number):
        value = _as_numbers(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        kind = "integers" if value.dtype.kind in "iu" else str(value.dtype)
        digest.update(f"{kind} {value.shape}".encode())
        for piece in _pieces(value.reshape(-1), whole=whole):
            digest.update(piece)
    elif isinstance(value, Mapping):
        digest.update(b"dict")
        _add(
            digest,
            [list(item) for item in sorted(value.items(), key=lambda item: str(item[0]))],
            whole=whole,
            depth=depth + 1,
        )
    elif isinstance(value, list | tuple | np.ndarray) and depth < _MAX_DEPTH:
        digest.update(f"list of {len(value)}".encode())
        every = 1 if whole else max(1, math.ceil(len(value) / MAX_ITEMS))
        for item in islice(value, 0, None, every):
            _add(digest, item, whole=whole, depth=depth + 1)
    elif isinstance(value, str | bytes | bool | int | float | complex | range | np.generic | type(None)):
        digest.update(f"{value!r},".encode())
    else:
        digest.update(type(value).__qualname__.encode())


def _as_array(tensor: Tensor) -> npt.NDArray[Any] | list[str]:
    """Returns a tensor as an array, or what is known of one without values, as a sparse or a meta tensor is."""
    try:
        tensor = tensor.detach().cpu().contiguous()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()  # NumPy has no bfloat16
    except (RuntimeError, TypeError, NotImplementedError):
        return [str(tensor.dtype), str(tuple(tensor.shape))]


def _as_numbers(values: Sequence[Any]) -> object:
    """Returns numbers as an array, in a fraction of the time that each of them takes alone; or what they are."""
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):  # lists among them
        return list(values)
    return array if array.dtype.kind in "iuf" else list(values)


def _pieces(array: npt.NDArray[Any], *, whole: bool) -> Iterator[memoryview | bytes]:
    starts: Iterable[int] = range(0, len(array), _PIECE)
    if len(array) > MAX_ELEMENTS and not whole:
        starts = np.linspace(0, len(array) - _PIECE, MAX_ELEMENTS // _PIECE, dtype=np.int64).tolist()
    for start in starts:
        piece = array[start : start + _PIECE]
        yield np.ascontiguousarray(piece, dtype="<i8").data if piece.dtype.kind in "iu" else piece.tobytes()
