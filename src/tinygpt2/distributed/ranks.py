"""Ranks: the processes that train one model together, and what they tell each other."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tinygpt2._internal.devices import device_of
from tinygpt2.distributed.sharding import is_sharded, without_reducing
from tinygpt2.errors import LostRankError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

TIMEOUT = timedelta(minutes=10)
"""How long a rank waits for the others, if nothing else is known."""

_PATIENCE = 5.0  # seconds in which the other ranks say that they are there, after the connection to one was lost


class Ranks:
    """The processes that train one model together, of which this is one; by itself, it is rank 0 of one.

    What ranks tell each other are numbers and small objects on the CPU, in a group of their own; gradients go through
    PyTorch's engines. Every rank must call the same methods in the same order.

    Args:
        rank: Number of this process, from 0.
        size: Number of processes.
        store: What finds out which rank was lost, if the process group was made with it.

    Attributes:
        first: Whether this is rank 0, which alone writes files and shows progress.
        alone: Whether there is no other.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, store: "Store | None" = None) -> None:
        self.rank, self.size, self._store = rank, size, store
        self.first, self.alone = rank == 0, size == 1
        self._messages: Any = None if self.alone else dist.new_group(backend="gloo", timeout=_timeout())
        self._places = self.gathered((platform.node(), os.getpid()))

    # --- messages ---

    def sums(self, values: Sequence[float]) -> list[float]:
        """Returns numbers, each summed over the ranks."""
        if self.alone:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device="cpu")
        dist.all_reduce(total, group=self._messages)
        found: list[float] = total.tolist()
        return found

    def any(self, *flags: bool) -> list[bool]:
        """Returns for each flag whether it is set on any rank."""
        return list(flags) if self.alone else [count > 0 for count in self.sums([float(flag) for flag in flags])]

    def gathered(self, value: T) -> list[T]:
        """Returns the values of all ranks."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._messages)
        return values

    def on_first(self, function: Callable[[], T]) -> T:
        """Returns what a function returns on rank 0, where alone it is called, or raises what it raises there."""
        if self.alone:
            return function()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = function()
            except Exception as error:  # noqa: BLE001 - raised below, on every rank
                answer[1] = error
        dist.broadcast_object_list(answer, src=0, group=self._messages)
        if answer[1] is not None:
            raise answer[1]
        result: T = answer[0]
        return result

    def from_first(self, function: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Returns the tensors that a function returns on rank 0, as `on_first` does; among several ranks on the CPU."""
        if self.alone:
            return dict(function())
        found: dict[str, Tensor] = {}

        def described() -> dict[str, tuple[torch.Size, torch.dtype]]:
            found.update({name: tensor.detach().cpu().contiguous() for name, tensor in function().items()})
            return {name: (tensor.shape, tensor.dtype) for name, tensor in found.items()}

        kinds = self.on_first(described)
        if not self.first:
            found = {name: torch.empty(shape, dtype=dtype, device="cpu") for name, (shape, dtype) in kinds.items()}
        for tensor in found.values():
            dist.broadcast(tensor, src=0, group=self._messages)
        return found

    def check_equal(self, whose: Mapping[str, object]) -> None:
        """Raises ``ValueError``, on every rank, if a value differs from that of rank 0.

        Args:
            whose: Values by what they are of, in words.
        """
        everyone = self.gathered(dict(whose))
        for rank, theirs in enumerate(everyone):
            differing = [name for name, value in everyone[0].items() if theirs[name] != value]
            if differing:
                raise ValueError(
                    f"rank {rank} has other values than rank 0 for {', '.join(differing)}; run the same code on the "
                    "same files in every process"
                )

    # --- work ---

    def rows(self, batch: tuple[Tensor, Tensor], ignored: int) -> tuple[Tensor, Tensor]:
        """Returns this rank's rows of a batch; if there are too few, one whose targets do not count."""
        if self.alone:
            return batch
        inputs, targets = (each.tensor_split(self.size)[self.rank] for each in batch)
        if len(inputs):
            return inputs, targets
        return batch[0][:1], torch.full_like(batch[1][:1], ignored)

    def divided(self, function: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """Returns what a function returns for items, (N, ...), of which every rank computes some.

        Args:
            function: Function of some of the items that returns a tensor of the same shape and dtype.
            items: The items, the same ones on every rank.
        """
        if self.alone:
            return function(items)
        results = torch.empty_like(items, memory_format=torch.contiguous_format)
        parts = results.tensor_split(self.size)
        if len(parts[self.rank]):
            parts[self.rank].copy_(function(items.tensor_split(self.size)[self.rank]))
        for rank, part in enumerate(parts):
            if len(part):
                dist.broadcast(part, src=rank)
        return results

    def parallel(self, objective: nn.Module) -> nn.Module:
        """Returns a module whose gradients are averaged over the ranks, and which begins with the weights of rank 0."""
        if self.alone or is_sharded(objective):
            return objective
        device = device_of(objective)
        return DistributedDataParallel(objective, device_ids=None if device.type == "cpu" else [device])

    # --- the end ---

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raises `LostRankError` within the block if the connection to a rank is lost, and closes it on any error."""
        try:
            yield
        except BaseException as error:
            if self.alone:
                raise
            lost = self._lost() if _of_connection(error) else None
            self.leave()
            if lost is None:
                raise
            raise LostRankError(lost, self.size) from error

    def _lost(self) -> list[int]:
        """Returns the ranks that have ended, or do not answer."""
        over = time.monotonic() + _PATIENCE
        others = silent = [rank for rank in range(self.size) if rank != self.rank]
        if self._store is not None:
            with suppress(RuntimeError):
                self._store.set(f"tinygpt2/{self.rank}", "here")
        while silent and time.monotonic() < over:
            ended = [rank for rank in silent if self._is_here(rank) and _has_ended(self._places[rank][1])]
            if cause := [rank for rank in ended if not self._answers(rank)]:
                return cause
            time.sleep(0.1)
            silent = [rank for rank in silent if self._is_here(rank) or not self._answers(rank)]
        return silent or others

    def _is_here(self, rank: int) -> bool:
        """Returns whether a rank is a process of this machine."""
        return self._places[rank][0] == self._places[self.rank][0]

    def _answers(self, rank: int) -> bool:
        """Returns whether a rank has lost a connection, too, and so is not the one that was lost."""
        if self._store is None:
            return False
        try:
            return bool(self._store.check([f"tinygpt2/{rank}"]))
        except RuntimeError:  # the store was in the process that ended
            return False

    def leave(self) -> None:
        """Closes the connections, so that no rank waits for this one; of a caller's process group its own alone."""
        messages, self._messages = self._messages, None
        if messages is not None and dist.is_initialized():
            with suppress(RuntimeError, ValueError):
                dist.destroy_process_group(messages if self._store is None else None)


ALONE = Ranks()
"""A process by itself."""


def _timeout() -> timedelta:
    """Returns how long the process group waits; PyTorch has no other way to ask."""
    world: Any = dist.group.WORLD
    try:
        timeout: timedelta = world._get_backend(torch.device("cpu")).options._timeout  # noqa: SLF001
    except (AttributeError, RuntimeError):  # of GPUs alone
        return TIMEOUT
    return timeout


def without_averaging(objective: nn.Module) -> Any:  # noqa: ANN401 - a context
    """Returns a context in which gradients are not averaged over ranks yet."""
    if is_sharded(objective):
        return without_reducing(objective)
    return objective.no_sync() if isinstance(objective, DistributedDataParallel) else nullcontext()


def _has_ended(process: int) -> bool:
    """Returns whether a process of this machine has ended, also if nobody has taken note of it yet."""
    if os.name != "posix":
        return False
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][0] == "Z"
    except ProcessLookupError:
        return True
    except OSError:
        return False


def _of_connection(error: BaseException) -> bool:
    """Returns whether an error says that a connection between ranks was lost."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())
