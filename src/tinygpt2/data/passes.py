"""Passes over a loader: in a known order, from a known position, and checked against the loader's length."""

import math
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from tinygpt2._internal.checks import check_iterable, check_json
from tinygpt2._internal.random import mixed_seed
from tinygpt2.data.batches import Batch, BatchCheck
from tinygpt2.data.identity import identity_of, identity_of_windows, own_identity, sha256_of
from tinygpt2.data.loader import Loader, without_noise
from tinygpt2.data.noisy import NoisyDataset
from tinygpt2.data.order import EpochSampler
from tinygpt2.data.streams import DocumentStream, check_read_again
from tinygpt2.data.token_file import TokenFile
from tinygpt2.data.windows import JoinedTokenDataset, TokenDataset, parts_of


@runtime_checkable
class _HasEpochs(Protocol):
    def set_epoch(self, epoch: int) -> object: ...


@runtime_checkable
class _HasPosition(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> object: ...


_OURS = TokenDataset | JoinedTokenDataset | NoisyDataset

MAX_BYTES = 1 << 28  # of a memory-mapped file that is read before training, in less than a second


class Passes:
    """Passes over a loader, each a function of (seed, epoch), that can begin in the middle.

    Args:
        loader: Batches that can be read repeatedly.
        name: Name of the loader in error messages.
        seed: Seed of the order if the loader has none of its own, as PyTorch's ``DataLoader(shuffle=True)``.
        vocab_size: Size of the model's vocabulary, in which all ids must be; ``None`` if it is not known.

    Attributes:
        batches: Number of batches in a pass; ``None`` for a stream of unknown length.
        before: The sequence before the first of a pass, if `read` had to read what it skipped.

    Raises:
        TypeError: If the loader is not iterable.
        ValueError: If it has no batches or can be read only once; or if a loader of `make_dataloader` has an id outside
            the vocabulary, or a file of tokens that is damaged. Files larger than ``MAX_BYTES`` are not read for that.
    """

    def __init__(self, loader: Loader, *, name: str, seed: int, vocab_size: int | None = None) -> None:
        self.loader, self.name, self.seed = loader, name, seed
        if isinstance(loader, Iterator):
            raise ValueError(  # noqa: TRY004 - the type would be right for a single pass
                f"{name} is a {type(loader).__name__}, an iterator, which can be read once; pass a list, a DataLoader, "
                "or an object whose __iter__ begins a new pass"
            )
        check_iterable(name, loader, "an iterable of batches")
        self.batches = _length(loader)
        if self.batches == 0:
            raise ValueError(f"{name} has no batches; with drop_last=True a data set smaller than one batch has none")
        self._check = BatchCheck(vocab_size, shifted=self.is_ours)
        if isinstance(loader, DataLoader) and isinstance(loader.dataset, DocumentStream):
            check_read_again(name, loader.dataset)
        if vocab_size is not None and isinstance(loader, DataLoader):
            for part in parts_of(without_noise(loader).dataset):
                _check_tokens(part, name, vocab_size)
        self._generators = [(generator, generator.initial_seed()) for generator in _generators(loader)]
        self._beginning = self.position()
        self._epoch = 0
        self._moves = 0  # of the loader's own position during a pass
        self.before: Batch | None = None

    @property
    def is_ours(self) -> bool:
        """Whether `make_dataloader` created the loader, whose order then needs only its own random numbers."""
        loader = self.loader
        return (
            isinstance(loader, DataLoader)
            and isinstance(loader.sampler, EpochSampler)
            and isinstance(loader.dataset, _OURS)
        )

    def read(self, epoch: int, *, items: int = 0, state: dict[str, Any] | None = None) -> Iterator[Batch]:
        """Yields the batches of a pass.

        Args:
            epoch: Number of the pass, counted from 0.
            items: Number of sequences of the pass to skip.
            state: The loader's own position after those sequences, if it has one.

        Raises:
            TypeError: If a batch has another form.
            ValueError: If there are not as many batches as the loader says.
        """
        self._epoch = epoch
        self._begin(epoch)
        skipped = items
        if state is not None and isinstance(self.loader, _HasPosition):
            self._move(state)
            skipped = 0
        elif items and self.is_ours:
            sampler: Any = getattr(self.loader, "sampler", None)
            sampler.set_epoch(epoch, start=items)
            skipped = 0
        self.before = None
        for inputs, targets in self._checked(self.loader, epoch, whole=skipped == items):
            left_out = min(skipped, len(inputs))
            skipped -= left_out
            if left_out:
                self.before = inputs[left_out - 1], targets[left_out - 1]
            if left_out < len(inputs):
                yield inputs[left_out:], targets[left_out:]

    @contextmanager
    def evaluation(self) -> Iterator[Iterator[Batch]]:
        """Provides the batches of the first pass, always the same ones, even while another pass is in progress.

        Those of a loader with noise are the ones that it would have without.
        """
        here = self.position()
        with self._generators_kept():
            try:
                self._begin(0)
                self._move(self._beginning)
                yield self._checked(_beside(without_noise(self.loader)), 0, whole=True)
            finally:
                self._set_epoch(self._epoch)
                self._move(here)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restores the states of the loader's generators and the loader's own position at the end."""
        with self._generators_kept():
            try:
                yield
            finally:
                self._move(self._beginning)

    @contextmanager
    def _generators_kept(self) -> Iterator[None]:
        states = [(generator, generator.get_state()) for generator, _ in self._generators]
        try:
            yield
        finally:
            for generator, state in states:
                generator.set_state(state)

    def position(self) -> dict[str, Any] | None:
        """Returns the loader's own position after the last batch, if it has one."""
        return self.loader.state_dict() if isinstance(self.loader, _HasPosition) else None

    def identity(self) -> dict[str, Any]:
        """Returns what the batches depend on, in values that JSON can hold, equal for equal loaders.

        If `make_dataloader` did not create the loader, and it has no ``identity()``, its first batch is read.

        Raises:
            TypeError: If the loader's own identity or position has a value that JSON cannot hold.
        """
        loader = self.loader
        check_json(f"the state_dict() of {self.name}", self.position())
        own = own_identity(self.name, loader)
        if own is not None:
            return own
        if self.is_ours and isinstance(loader, DataLoader) and isinstance(loader.dataset, _OURS):
            sampler: Any = loader.sampler
            return {
                "sequences": self.items_per_pass(),
                "batch_size": loader.batch_size,
                "drop_last": loader.drop_last,
                **identity_of_windows(loader.dataset),
                "shuffle": sampler.shuffle,
                "seed": sampler.seed,
            }
        inputs, _ = self._first
        with self.evaluation():  # a sampler may draw random numbers
            return {
                "sequences": self.items_per_pass(),
                "batches": self.batches,
                "batch_size": _batch_size(loader) or len(inputs),
                "context_length": inputs.shape[-1],
                "seeds": [seed for _, seed in self._generators],
                **({} if isinstance(loader, list | tuple) else {"first_batch_sha256": sha256_of(self._first)}),
                **identity_of(loader),
            }

    def items_per_pass(self) -> int | None:
        """Returns the number of sequences in a pass, including those of a dropped last batch.

        If the loader is neither PyTorch's nor a list, all its batches are assumed to be as large as the first.
        """
        loader = self.loader
        if self.batches is None:
            return None
        if isinstance(loader, DataLoader) and _batch_size(loader) and isinstance(loader.sampler, Sized):
            return len(loader.sampler)
        if isinstance(loader, list | tuple):
            return self._rows_of_list
        return self.batches * len(self._first[0])

    def rows_of_batch(self) -> int | None:
        """Returns the number of sequences in each batch but the last, if the loader is PyTorch's and says so."""
        return _batch_size(self.loader)

    def batches_left(self, items: int) -> int:
        """Returns the number of batches left in a pass after ``items`` sequences; 0 for a stream of unknown length."""
        total = self.items_per_pass()
        if self.batches is None or total is None:
            return 0
        size = _batch_size(self.loader)
        left = max(0, total - items) / (size or total / self.batches)
        return math.floor(left) if size and getattr(self.loader, "drop_last", False) else math.ceil(left)

    @cached_property
    def _rows_of_list(self) -> int:
        batches: Any = self.loader
        try:
            return sum(len(batch["input_ids"] if isinstance(batch, Mapping) else batch[0]) for batch in batches)
        except (TypeError, LookupError):  # a batch of another form, which is refused when it is read
            return len(batches) * len(self._first[0])

    @cached_property
    def _first(self) -> Batch:
        with self.evaluation() as batches:
            return next(batches)

    def _begin(self, epoch: int) -> None:
        """Makes the order of the next pass a function of (seed, epoch)."""
        for generator, seed in self._generators:
            generator.manual_seed(mixed_seed(seed, epoch))
        if not self.is_ours:
            torch.default_generator.manual_seed(mixed_seed(self.seed, epoch))
        self._set_epoch(epoch)

    def _move(self, position: dict[str, Any] | None) -> None:
        if position is not None and isinstance(self.loader, _HasPosition):
            self.loader.load_state_dict(position)
            self._moves += 1

    def _set_epoch(self, epoch: int) -> None:
        if isinstance(self.loader, _HasEpochs):
            self.loader.set_epoch(epoch)
            return
        for part in ("sampler", "batch_sampler", "dataset"):
            owner = getattr(self.loader, part, None)
            if isinstance(owner, _HasEpochs):
                owner.set_epoch(epoch)

    def _checked(self, loader: Loader, epoch: int, *, whole: bool) -> Iterator[Batch]:
        """Yields the remaining batches of a pass; a ``whole`` pass must have as many as the loader says."""
        iterator, moves, count = _begun(loader), self._moves, 0
        expected = self.batches if loader is self.loader else _length(loader)
        while True:
            if moves != self._moves:  # an evaluation moved the loader's own position, and restored it
                iterator, moves = _begun(loader), self._moves
            if not self.is_ours:  # a batch's random numbers, for augmentation, depend on no other batch
                torch.default_generator.manual_seed(mixed_seed(self.seed, epoch, count))
            try:
                batch = next(iterator)
            except StopIteration:
                break
            count += 1
            if whole and expected is not None and count > expected:
                raise ValueError(f"{self.name} says that it has {expected} batches, but yields more")
            yield self._check(batch, f"batch {count - 1} of {self.name}")
        if whole and count == 0:
            raise ValueError(
                f"{self.name} yielded no batch in pass {epoch + 1}; it is empty, or its iter() begins no new pass"
            )
        if whole and expected is not None and count < expected:
            raise ValueError(f"{self.name} says that it has {expected} batches, but yielded {count}")


def _check_tokens(dataset: TokenDataset, name: str, vocab_size: int) -> None:
    """Raises ``ValueError`` if an id is outside the vocabulary, or the file of the ids is damaged."""
    tokens = dataset.tokens
    if not (isinstance(tokens, np.memmap) and tokens.nbytes > MAX_BYTES):
        highest = int(tokens.max())
        if highest >= vocab_size:
            raise ValueError(
                f"the model's vocabulary has ids 0 to {vocab_size - 1}, but {name} has {highest}; build the model with "
                "vocab_size=tokenizer.n_vocab of the tokenizer that made them"
            )
    path = None if dataset.file is None else dataset.file.path
    if path is None or not path.is_file() or path.stat().st_size > MAX_BYTES:
        return
    file = TokenFile(path)
    if file.sha256 == (dataset.identity or {}).get("file"):  # otherwise another file has replaced the one in use
        file.verify()


def _length(loader: Loader) -> int | None:
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):  # a stream, for instance of an IterableDataset
        return None


def _batch_size(loader: Loader) -> int | None:
    """Returns the size of each batch but the last, if the loader is PyTorch's and says so."""
    counts = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    return loader.batch_size if counts else None  # type: ignore[attr-defined]


def _generators(loader: Loader) -> list[torch.Generator]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = {id(g): g for owner in owners if isinstance(g := getattr(owner, "generator", None), torch.Generator)}
    return list(found.values())


def _begun(loader: Loader) -> Iterator[Any]:
    """Returns ``iter(loader)``, after drawing as many random numbers as in any other pass.

    PyTorch draws a seed for its workers when it starts them, from the generator that also decides the order.
    """
    if isinstance(loader, DataLoader) and getattr(loader, "_iterator", None) is not None:  # they persist
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
    return iter(loader)


def _beside(loader: Loader) -> Loader:
    """Returns a loader of the same batches; persistent workers serve one pass at a time, and one is in progress."""
    if not (isinstance(loader, DataLoader) and loader.persistent_workers):
        return loader
    common: dict[str, Any] = {"collate_fn": loader.collate_fn, "generator": loader.generator}
    if isinstance(loader.dataset, IterableDataset):
        return DataLoader(loader.dataset, batch_size=loader.batch_size, drop_last=loader.drop_last, **common)
    if loader.batch_sampler is None:
        return DataLoader(loader.dataset, batch_size=None, sampler=loader.sampler, **common)
    return DataLoader(loader.dataset, batch_sampler=loader.batch_sampler, **common)
