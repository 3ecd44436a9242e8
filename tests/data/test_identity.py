"""Identities of loaders: what is in memory is seen, and so is what decides which items are read in which order."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from typing_extensions import override

from tinygpt2 import GPT2Config, GPT2Model, IncompatibleRunError, TokenDataset, TrainingConfig, on_step, train
from tinygpt2.data import identity
from tinygpt2.data.batches import Batch
from tinygpt2.data.identity import sha256_of
from tinygpt2.data.order import EpochSampler
from tinygpt2.data.passes import Passes

ROWS = torch.randint(50, (40, 9), generator=torch.Generator().manual_seed(5))
OTHER = ROWS.clone()
OTHER[-1, -1] = (OTHER[-1, -1] + 1) % 50  # the last target of the last item
TENSORS, OTHERS = (TensorDataset(rows[:, :-1], rows[:, 1:]) for rows in (ROWS, OTHER))


def batches(rows: Tensor = ROWS) -> list[Batch]:
    return [(part[:, :-1], part[:, 1:]) for part in rows.view(10, 4, 9)]


def dicts(rows: Tensor = ROWS) -> list[dict[str, Tensor]]:
    return [{"input_ids": part, "labels": part} for part in rows.view(10, 4, 9)]


def identity_of(loader: Any) -> dict[str, Any]:  # noqa: ANN401 - any loader
    return Passes(loader, name="train_loader", seed=0).identity()


def over(dataset: Any, **options: Any) -> DataLoader[Any]:  # noqa: ANN401 - any of DataLoader's
    return DataLoader(dataset, **({"batch_size": 4} | options))


def shuffled(seed: int) -> DataLoader[Any]:
    return over(TENSORS, shuffle=True, generator=torch.Generator().manual_seed(seed))


def reversed_pairs(items: list[tuple[Tensor, Tensor]]) -> Batch:
    inputs, targets = zip(*items[::-1], strict=True)
    return torch.stack(inputs), torch.stack(targets)


class InMemory(Dataset[Batch]):
    """A data set of one's own, with its rows in memory, as a tensor, an array or a list."""

    def __init__(self, rows: Any) -> None:  # noqa: ANN401 - any of them
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    @override
    def __getitem__(self, index: int) -> Batch:
        row = torch.as_tensor(self.rows[index])
        return row[:-1], row[1:]


class Elsewhere(InMemory):
    """One whose rows are not seen, as those of a data base."""

    def __init__(self, rows: Any, name: str | None = None) -> None:  # noqa: ANN401
        self._rows = rows
        if name is not None:
            self.identity = lambda: {"table": name}

    @property
    def rows(self) -> Any:  # noqa: ANN401
        return self._rows


class Backwards:
    """A sampler of one's own."""

    def __init__(self, n: int, step: int = -1) -> None:
        self.n, self.step = n, step

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        indices = [3, 2, 1, 0, *range(4, self.n)]  # the first batch is the same whatever the step
        return iter(indices[:4] + indices[4:][:: self.step])


def weighted(weight: float, *, n: int = 40, replacement: bool = True) -> DataLoader[Any]:
    weights = [1.0] * 39 + [weight]
    generator = torch.Generator().manual_seed(0)
    return over(TENSORS, sampler=WeightedRandomSampler(weights, n, replacement, generator=generator))


def distributed(**options: Any) -> DataLoader[Any]:  # noqa: ANN401 - any of the sampler's
    return over(TENSORS, sampler=DistributedSampler(TENSORS, **({"num_replicas": 2, "rank": 0} | options)))


Make = Callable[[], Any]

# What differs, how, and the name that says so.
DIFFERENCES: dict[str, tuple[Make, Make, str]] = {
    "a later batch of a list": (batches, lambda: batches(OTHER), "sha256"),
    "a later batch of a tuple": (lambda: tuple(batches()), lambda: tuple(batches(OTHER)), "sha256"),
    "a later batch of dicts": (dicts, lambda: dicts(OTHER), "sha256"),
    "the order of a list": (batches, lambda: [*batches()[:5], *batches()[:4:-1]], "sha256"),
    "masked targets": (batches, lambda: [*batches()[:-1], (ROWS[36:, :-1], ROWS[36:, 1:] * 0 - 100)], "sha256"),
    "a longer list": (batches, lambda: batches() + batches()[:1], "batches"),
    "tensors": (lambda: over(TENSORS), lambda: over(OTHERS), "dataset.tensors_sha256"),
    "a list of pairs": (
        lambda: over([*zip(*TENSORS.tensors, strict=True)]),
        lambda: over([*zip(*OTHERS.tensors, strict=True)]),
        "dataset.sha256",
    ),
    "an own data set": (lambda: over(InMemory(ROWS)), lambda: over(InMemory(OTHER)), "dataset.rows_sha256"),
    "an array": (
        lambda: over(InMemory(ROWS.numpy())),
        lambda: over(InMemory(OTHER.numpy())),
        "dataset.rows_sha256",
    ),
    "lists of ids": (
        lambda: over(InMemory(ROWS.tolist())),
        lambda: over(InMemory(OTHER.tolist())),
        "dataset.rows_sha256",
    ),
    "the class": (lambda: over(TENSORS), lambda: over(InMemory(ROWS)), "dataset"),
    "the length": (lambda: over(Elsewhere(ROWS)), lambda: over(Elsewhere(ROWS[:-1])), "dataset"),
    "the data set's identity": (
        lambda: over(Elsewhere(ROWS, "a")),
        lambda: over(Elsewhere(ROWS, "b")),
        "dataset.identity",
    ),
    "items of a subset": (
        lambda: over(Subset(TENSORS, range(20))),
        lambda: over(Subset(TENSORS, [*range(4), *range(24, 40)])),
        "dataset.indices_sha256",
    ),
    "one of many items": (
        lambda: over(Subset(TENSORS, list(np.arange(20)))),
        lambda: over(Subset(TENSORS, [*range(19), 25])),
        "dataset.indices_sha256",
    ),
    "a subset of others": (
        lambda: over(Subset(TENSORS, range(20))),
        lambda: over(Subset(OTHERS, range(20))),
        "dataset.dataset.tensors_sha256",
    ),
    "one of several": (
        lambda: over(ConcatDataset([TENSORS, TENSORS])),
        lambda: over(ConcatDataset([TENSORS, OTHERS])),
        "dataset.datasets_sha256",
    ),
    "windows": (
        lambda: over(TokenDataset(ROWS.flatten(), context_length=8)),
        lambda: over(TokenDataset(OTHER.flatten(), context_length=8)),
        "dataset.sha256",
    ),
    "shuffling": (lambda: over(TENSORS, shuffle=True), lambda: over(TENSORS), "shuffle"),
    "the seed": (lambda: shuffled(1), lambda: shuffled(2), "seeds"),
    "no generator": (lambda: shuffled(1), lambda: over(TENSORS, shuffle=True), "seeds"),
    "the batch size": (lambda: over(TENSORS), lambda: over(TENSORS, batch_size=5), "batch_size"),
    "the last batch": (lambda: over(TENSORS, drop_last=True), lambda: over(TENSORS), "drop_last"),
    "the function that collates": (
        lambda: over(TENSORS),
        lambda: over(TENSORS, collate_fn=functools.partial(reversed_pairs)),
        "collate_fn",
    ),
    "replacement": (
        lambda: over(TENSORS, sampler=RandomSampler(TENSORS, replacement=True)),
        lambda: over(TENSORS, sampler=RandomSampler(TENSORS)),
        "sampler.replacement",
    ),
    "the number of samples": (
        lambda: over(TENSORS, sampler=RandomSampler(TENSORS, num_samples=40)),
        lambda: over(TENSORS, sampler=RandomSampler(TENSORS, num_samples=20)),
        "sampler.num_samples",
    ),
    "a weight": (lambda: weighted(1.0), lambda: weighted(2.0), "sampler.weights_sha256"),
    "the indices of a sampler": (
        lambda: over(TENSORS, sampler=SubsetRandomSampler(range(20))),
        lambda: over(TENSORS, sampler=SubsetRandomSampler(range(20, 40))),
        "sampler.indices_sha256",
    ),
    "the rank": (lambda: distributed(rank=0), lambda: distributed(rank=1), "sampler.rank"),
    "the number of processes": (distributed, lambda: distributed(num_replicas=4), "sampler.num_replicas"),
    "the seed of a distributed order": (distributed, lambda: distributed(seed=1), "sampler.seed"),
    "a distributed order": (distributed, lambda: distributed(shuffle=False), "sampler.shuffle"),
    "the kind of a sampler": (distributed, lambda: over(TENSORS), "sampler"),
    "a sampler of one's own": (
        lambda: over(TENSORS, sampler=Backwards(40)),
        lambda: over(TENSORS, sampler=Backwards(40, -7)),
        "sampler.order_sha256",
    ),
    "a list of indices": (
        lambda: over(TENSORS, sampler=[*range(40)]),
        lambda: over(TENSORS, sampler=[*range(20), *range(39, 19, -1)]),
        "sampler.order_sha256",
    ),
    "our sampler": (
        lambda: over(TENSORS, sampler=EpochSampler(40, shuffle=True, seed=1)),
        lambda: over(TENSORS, sampler=EpochSampler(40, shuffle=True, seed=2)),
        "sampler.seed",
    ),
    "a sampler of batches": (
        lambda: DataLoader(TENSORS, batch_sampler=BatchSampler(SequentialSampler(TENSORS), 4, drop_last=False)),
        lambda: DataLoader(TENSORS, batch_sampler=BatchSampler(SequentialSampler(TENSORS), 4, drop_last=True)),
        "batch_sampler.drop_last",
    ),
    "lists of batches of indices": (
        lambda: DataLoader(TENSORS, batch_sampler=[[0, 1], [2, 3], [4, 5]]),
        lambda: DataLoader(TENSORS, batch_sampler=[[0, 1], [2, 3], [4, 6]]),
        "batch_sampler.order_sha256",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_is_seen_and_named(name: str) -> None:
    """A list with other batches after the first, or a Subset of other items, resumed without a word."""
    make, other, key = DIFFERENCES[name]
    before, now = identity_of(make()), identity_of(other())
    assert before.get(key) != now.get(key)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_equal_loaders_are_equal_and_so_is_one_that_was_read(name: str) -> None:
    make, *_ = DIFFERENCES[name]
    loader = make()
    torch.manual_seed(1)
    expected = identity_of(loader)
    torch.manual_seed(2)
    assert identity_of(make()) == expected
    list(loader)
    assert identity_of(loader) == expected


def run(loader: Any, directory: Path, stop: int | None = None, **options: Any) -> None:  # noqa: ANN401
    model = GPT2Model(GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=8, dropout=0.0))
    train(
        model, loader, config=TrainingConfig(epochs=2, eval_batches=1), device="cpu", progress=False,
        checkpoint_dir=directory, resume=True, callbacks=[on_step(lambda s: s.stop() if s.step == stop else None)],
        **options,
    )  # fmt: skip


def test_the_refusal_says_what_was_and_what_is(tmp_path: Path) -> None:
    run(over(TENSORS, shuffle=True), tmp_path, stop=10)
    with pytest.raises(IncompatibleRunError, match="the training data's shuffle was True and is False"):
        run(over(TENSORS), tmp_path)
    run(over(TENSORS), tmp_path, allow_changes=True)


def test_what_follows_from_another_difference_is_not_reported(tmp_path: Path) -> None:
    run(batches(), tmp_path, stop=10)
    with pytest.raises(IncompatibleRunError) as caught:
        run(batches()[:8], tmp_path)
    assert not any("sequences" in difference for difference in caught.value.differences)
    assert "the training data's batches was 10 and is 8" in caught.value.differences


def test_what_is_not_in_memory_is_not_seen_unless_it_says_so() -> None:
    """What docs/guide/resume.md says of it."""
    assert identity_of(over(Elsewhere(ROWS))) == identity_of(over(Elsewhere(OTHER)))
    assert identity_of(over(Elsewhere(ROWS, "a"))) == identity_of(over(Elsewhere(OTHER, "a")))


def test_a_stream_has_no_length_and_no_order() -> None:
    class Stream(IterableDataset[Batch]):
        @override
        def __iter__(self) -> Iterator[Batch]:
            return iter(TENSORS)

    found = identity_of(over(Stream()))
    assert found["dataset"].endswith("Stream")
    assert found["sequences"] is None
    assert not any("sampler" in name for name in found)


# --- hashes ---


def test_integers_have_one_hash_whatever_their_type() -> None:
    ids = [3, 1, 2]
    arrays = [np.array(ids, dtype) for dtype in ("u1", "i2", "<u2", ">u4", "i8")]
    tensors = [torch.tensor(ids, dtype=dtype) for dtype in (torch.uint8, torch.int32, torch.int64)]
    assert len({sha256_of(value) for value in [ids, (3, 1, 2), [np.int64(3), np.int64(1), 2], *arrays, *tensors]}) == 1


def test_different_values_have_different_hashes() -> None:
    values: list[object] = [
        [], {}, None, 0, 0.0, False, "", "0", b"0", [0], [0.0], [[0]], ["0"], [None], [True], range(1), [[], []],
        [1, 2, 3, 4], [[1, 2], [3, 4]], torch.arange(1, 5).view(2, 2).t(), [[1], [2, 3, 4]], [10**30], [-(10**30)],
        {"a": 1}, {"a": 2}, {"b": 1}, {1: "a"}, 1j, np.float32(0), torch.zeros(3), torch.zeros(3, dtype=torch.int16),
        torch.ones(3).bfloat16(), torch.zeros(3, 1), torch.zeros(3, dtype=torch.bool), np.array([None, 1]),
        np.array(["a"]), torch.ones(2, device="meta"), torch.ones(3, device="meta"), object(),
    ]  # fmt: skip
    assert len({sha256_of(value) for value in values}) == len(values)


def test_a_list_in_itself_has_a_hash() -> None:
    endless: list[object] = [1, "a"]
    endless.append(endless)
    assert sha256_of(endless) == sha256_of(endless)


def test_of_much_data_much_is_hashed_and_of_tokens_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "MAX_ELEMENTS", 64)
    monkeypatch.setattr(identity, "_PIECE", 16)
    monkeypatch.setattr(identity, "MAX_ITEMS", 8)
    array = np.arange(1000)
    hashed = [i for i in (0, 500, 999) if sha256_of(np.where(array == i, -1, array)) != sha256_of(array)]
    assert hashed[0] == 0
    assert hashed[-1] == 999
    assert sha256_of(array) != sha256_of(array[:-1])
    assert all(
        sha256_of(np.where(array == i, -1, array), whole=True) != sha256_of(array, whole=True) for i in range(1000)
    )
    texts = [str(i) for i in range(100)]
    assert sha256_of(texts) != sha256_of(["", *texts[1:]])
    assert sha256_of(texts) == sha256_of([*texts[:5], "", *texts[6:]])
    assert sha256_of(texts) != sha256_of(texts[:-1])
