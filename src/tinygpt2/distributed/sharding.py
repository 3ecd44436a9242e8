"""Models whose weights are divided among ranks: FSDP2's ``fully_shard``, and what turns shards into whole tensors."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tinygpt2._internal.devices import device_of

# PyTorch's modules for this take long to import, some builds have none, and nothing is divided before they are there.
_FSDP, _TENSORS = "torch.distributed.fsdp", "torch.distributed.tensor"


def shard(module: nn.Module) -> None:
    """Divides the weights of an objective, those of rank 0, among the ranks: each block is a group of its own.

    The rest, such as the embedding and a head that shares its weight, is one group. What a rank has of a weight is a
    part of its rows, however many there are; of a weight with few rows some ranks have nothing.
    """
    from torch.distributed.fsdp import fully_shard  # noqa: PLC0415

    with torch.no_grad():
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)
    for blocks in [part for part in module.modules() if isinstance(part, nn.ModuleList)]:
        for block in blocks:
            fully_shard(block)
    fully_shard(module)
    with torch.no_grad():  # the first call decides which group is the root; in an evaluation it would be a block
        nothing = torch.zeros((1, 1), dtype=torch.int64, device=device_of(module))
        module(nothing, nothing)
    module.reshard()  # type: ignore[operator] # the root leaves its weights whole for a pass backward


def is_sharded(module: nn.Module) -> bool:
    """Returns whether the weights of a module are divided among ranks."""
    return any(isinstance(parameter, _sharded()) for parameter in module.parameters())


def _sharded() -> Any:  # noqa: ANN401 - a class, or none
    return getattr(sys.modules.get(_TENSORS), "DTensor", ())


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Provides the weights that are in no block within the block, for what goes round the module's own call."""
    if not isinstance(module, getattr(sys.modules.get(_FSDP), "FSDPModule", ())):
        yield
        return
    module.unshard()  # type: ignore[operator]
    try:
        yield
    finally:
        module.reshard()  # type: ignore[operator]


def whole(tensor: Tensor) -> Tensor:
    """Returns a tensor as a whole, on every rank, which must all call this."""
    return tensor.full_tensor() if isinstance(tensor, _sharded()) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def all_whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors as a whole, as `whole` does."""
    return {name: whole(tensor) for name, tensor in tensors.items()}


def share_of(tensor: Tensor, like: Any) -> Tensor:  # noqa: ANN401 - a tensor, which may be divided
    """Returns this rank's share of a tensor, which has all of it, if another tensor of its shape is divided."""
    if isinstance(tensor, _sharded()) or not isinstance(like, _sharded()) or like.shape != tensor.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


@torch.no_grad()
def load_whole(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Loads the state of a module, of which every rank has all, as ``load_state_dict`` does."""
    if not is_sharded(module):
        module.load_state_dict(tensors)
        return
    own = module.state_dict()
    for name, tensor in own.items():
        tensor.copy_(share_of(tensors[name], tensor))


@contextmanager
def without_reducing(module: nn.Module) -> Iterator[None]:
    """Lets gradients add up in each rank within the block."""
    module.set_requires_gradient_sync(False)  # type: ignore[operator]
    try:
        yield
    finally:
        module.set_requires_gradient_sync(True)  # type: ignore[operator]
