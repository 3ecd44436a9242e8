"""Documents that are encoded while they are read: the windows are those of a list of them."""

import itertools
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    IncompatibleRunError,
    TokenFile,
    TrainingConfig,
    TrainingHistory,
    evaluate,
    gpt2_tokenizer,
    make_dataloader,
    on_step,
    tokenize_to_file,
    train,
)
from tinygpt2.data import streams
from tinygpt2.data.batches import Batch
from tinygpt2.data.passes import Passes

LETTERS = CharTokenizer("abcdefghijklmnopqrstuvwxyz")
DOCUMENTS = [chr(ord("a") + i % 26) * (i % 5) + chr(ord("a") + i * 7 % 26) for i in range(60)]
SHAPE = GPT2Config(vocab_size=LETTERS.n_vocab, context_length=8, n_layer=1, n_head=2, n_embd=8, dropout=0.0)

Row = tuple[list[int], list[int]]


class Documents:
    """Documents whose iteration begins anew each time."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = list(texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)


def loader(source: Any, **options: Any) -> DataLoader[Batch]:  # noqa: ANN401 - any source, and any option
    given: dict[str, Any] = {"batch_size": 4, "context_length": 8, "tokenizer": LETTERS, "streaming": True}
    return make_dataloader(source, **(given | options))


def rows(loader: Iterable[Any]) -> list[Row]:
    return [row for batch in loader for row in zip(*(part.tolist() for part in batch), strict=True)]


# --- windows ---


@given(
    documents=st.lists(st.text("abc", max_size=9), max_size=30),
    context_length=st.integers(1, 7),
    stride=st.none() | st.integers(1, 20),
    drop_last=st.booleans(),
)
def test_batches_are_those_of_a_list(
    documents: list[str], context_length: int, stride: int | None, drop_last: bool
) -> None:
    options = {"context_length": context_length, "stride": stride, "drop_last": drop_last, "batch_size": 3}
    try:
        expected = list(loader(documents, streaming=False, **options))
    except ValueError as error:
        if "drop_last" not in str(error):
            with pytest.raises(ValueError, match=r"nothing to encode|context_length is \d+.* has only"):
                list(loader(documents, **options))
            return
        expected = []
    for source in (documents, iter(documents), Documents(documents), lambda: iter(documents)):
        found = list(loader(source, **options))
        assert len(found) == len(expected)
        for batch, same in zip(found, expected, strict=True):
            assert all(map(torch.equal, batch, same))
            assert [part.dtype for part in batch] == [torch.int64, torch.int64]


def test_the_default_tokenizer_is_gpt2s() -> None:
    ((inputs, targets),) = loader(iter(["a b", "c"]), tokenizer=None, context_length=4)
    end = gpt2_tokenizer().eot_token
    assert [inputs.tolist(), targets.tolist()] == [[[64, 275, end, 66]], [[275, end, 66, end]]]


def test_masking_the_targets_in_place_does_not_change_the_inputs() -> None:
    inputs, targets = next(iter(loader(DOCUMENTS).dataset))
    before = inputs.clone()
    targets.fill_(-100)
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_document_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch, shuffle: bool) -> None:
    monkeypatch.setattr(streams, "BUFFER", 10)
    taken = itertools.count()

    def endless() -> Iterator[str]:
        for _ in taken:
            yield "abcdefg"

    batches = iter(loader(endless, shuffle=shuffle))
    for _ in range(5):
        next(batches)
    windows = 5 * 4 + (10 if shuffle else 0)
    assert next(taken) == windows + 1  # the last target is in one more


def test_memory_does_not_grow_with_the_documents() -> None:
    def peak(documents: int) -> int:
        tracemalloc.start()
        for _ in loader((("abcdefgh" * 9 for _ in range(documents))), shuffle=True, context_length=64):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak(1500), peak(6000)
    assert many < few + 100_000  # a list of the texts alone would add 540,000


# --- order ---


def test_shuffled_windows_come_once_each_in_an_order_of_seed_and_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BUFFER", 7)
    plain = rows(loader(DOCUMENTS))
    shuffled = loader(DOCUMENTS, shuffle=True)
    first, second = rows(shuffled), rows(shuffled)
    assert sorted(first) == sorted(second) == sorted(plain)
    assert first != second
    assert first != plain
    for place, row in enumerate(first):  # a window waits any time, but is not drawn before it is read
        assert row in plain[: place + 7]
    shuffled.dataset.set_epoch(1)  # type: ignore[attr-defined]
    assert rows(shuffled) == second
    assert rows(loader(DOCUMENTS, shuffle=True)) == first
    assert rows(loader(DOCUMENTS, shuffle=True, seed=1)) != first


def test_all_of_a_short_stream_is_shuffled() -> None:
    last = rows(loader(DOCUMENTS))[-1]
    places = {rows(loader(DOCUMENTS, shuffle=True, seed=seed)).index(last) for seed in range(40)}
    assert min(places) < 5 < len(places)


def test_the_global_random_numbers_are_as_before() -> None:
    state = torch.get_rng_state()
    rows(loader(DOCUMENTS, shuffle=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_default_device_does_not_reach_the_stream() -> None:
    with torch.device("meta"):
        found = rows(loader(DOCUMENTS, shuffle=True))
    assert found == rows(loader(DOCUMENTS, shuffle=True))


def test_a_source_with_epochs_is_told_which_one_it_is() -> None:
    class Rotated(Documents):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __iter__(self) -> Iterator[str]:
            return iter(self.texts[self.epoch :] + self.texts[: self.epoch])

    source = Rotated(DOCUMENTS)
    stream = loader(source)
    for epoch in range(3):
        assert rows(stream) == rows(loader(DOCUMENTS[epoch:] + DOCUMENTS[:epoch]))


# --- once, or again and again ---


@pytest.mark.parametrize("make", [iter, lambda texts: (text for text in texts), lambda texts: map(str, texts)])
def test_an_iterator_is_read_once_and_a_second_pass_says_so(make: Callable[[list[str]], Iterator[str]]) -> None:
    stream = loader(make(DOCUMENTS))
    assert rows(stream) == rows(loader(DOCUMENTS))
    with pytest.raises(ValueError, match=r"an iterator, which can be read once, and this is the second pass; pass a f"):
        rows(stream)


def test_training_refuses_an_iterator_before_it_begins() -> None:
    source = (text for text in DOCUMENTS)
    again = loader(DOCUMENTS)
    for name, loaders in {"train_loader": (loader(source), None), "val_loader": (again, loader(source))}.items():
        message = (
            rf"{name} reads its documents from a generator, .* once, but training .*; pass a function that returns"
        )
        with pytest.raises(ValueError, match=message):
            train(GPT2Model(SHAPE), *loaders, config=TrainingConfig(max_steps=2), device="cpu", progress=False)
    assert next(source) == DOCUMENTS[0]  # nothing was taken


def test_one_pass_over_an_iterator_can_be_evaluated() -> None:
    model = GPT2Model(SHAPE)
    assert evaluate(model, loader(iter(DOCUMENTS))) == evaluate(model, loader(DOCUMENTS, streaming=False))


def test_a_stream_has_no_length_so_training_needs_a_number_of_steps() -> None:
    stream = loader(DOCUMENTS)
    with pytest.raises(TypeError):
        len(stream)
    with pytest.raises(ValueError, match=r"train_loader does not say how many batches.*TrainingConfig\(max_steps="):
        train(GPT2Model(SHAPE), stream, device="cpu", progress=False)


def test_an_iterable_that_does_not_begin_anew_is_told() -> None:
    class Once(Documents):
        def __init__(self) -> None:
            self.begun = iter(DOCUMENTS)

        def __iter__(self) -> Iterator[str]:
            return self.begun

    stream = loader(Once())
    rows(stream)
    with pytest.raises(ValueError, match="no documents, all are empty, or their source does not begin anew"):
        rows(stream)


# --- training ---


def run(source: Any, directory: Path | None = None, *, stop: int | None = None, **options: Any) -> TrainingHistory:  # noqa: ANN401
    torch.manual_seed(3)
    return train(
        GPT2Model(SHAPE), loader(source, **options), loader(DOCUMENTS[:20]), device="cpu", progress=False,
        config=TrainingConfig(max_steps=20, eval_every=3, eval_batches=2, learning_rate=1e-2),
        checkpoint_dir=directory, resume=directory is not None,
        callbacks=[on_step(lambda state: state.stop() if state.step == stop else None)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "shuffle"),
    [(list, False), (Documents, True), (lambda texts: lambda: iter(texts), True)],
    ids=["list", "iterable", "function"],
)
def test_a_stopped_run_resumes_exactly(tmp_path: Path, make: Callable[[list[str]], Any], shuffle: bool) -> None:
    """Stops within a pass of 8 batches, at its end, and within the next; evaluations come in between."""
    assert len(list(loader(DOCUMENTS))) == 8
    history = run(make(DOCUMENTS), tmp_path / "whole", shuffle=shuffle)
    for stop in (2, 8, 10, None):
        again = run(make(DOCUMENTS), tmp_path / "broken", stop=stop, shuffle=shuffle)
    assert again == history
    checkpoints = [max((tmp_path / name).glob("*/model.safetensors")) for name in ("whole", "broken")]
    assert checkpoints[0].read_bytes() == checkpoints[1].read_bytes()


def test_a_stream_trains_as_a_list_in_memory_does() -> None:
    assert run(DOCUMENTS, streaming=True).train_losses == run(DOCUMENTS, streaming=False).train_losses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": Documents(["zebra", *DOCUMENTS])}, "first_batch_sha256"),
        ({"shuffle": True}, "dataset.identity"),
        ({"stride": 3}, "dataset.identity"),
        ({"seed": 1}, "seeds"),
        ({"drop_last": True}, "drop_last"),
    ],
)
def test_a_resumed_run_notices_other_data(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"source": Documents(DOCUMENTS), "directory": tmp_path}
    run(**given, stop=4)
    with pytest.raises(IncompatibleRunError, match=rf"the training data's {message} was"):
        run(**(given | change))


def identity_of(source: Any) -> dict[str, Any]:  # noqa: ANN401
    return Passes(loader(source), name="train_loader", seed=0).identity()


def test_of_a_list_all_documents_are_known_and_of_another_source_what_it_says() -> None:
    assert identity_of(DOCUMENTS) == identity_of(list(DOCUMENTS))
    assert identity_of(DOCUMENTS) != identity_of([*DOCUMENTS[:-1], "zz"])
    named = Documents(DOCUMENTS)
    named.identity = lambda: {"name": "documents"}  # type: ignore[attr-defined]
    assert identity_of(named)["dataset.identity"]["identity"] == {"name": "documents"}
    assert identity_of(Documents(DOCUMENTS)) == identity_of(Documents([*DOCUMENTS[:-1], "zz"]))  # is not seen


# --- workers ---


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # Python 3.12 and 3.13, since torch has threads
def test_one_worker_gives_the_same_batches() -> None:
    stream = loader(DOCUMENTS, shuffle=True)
    parallel = DataLoader(stream.dataset, batch_size=4, num_workers=1, persistent_workers=True)
    expected = [rows(stream), rows(stream)]
    stream.dataset.set_epoch(0)  # type: ignore[attr-defined]
    assert [rows(parallel), rows(parallel)] == expected


def test_several_workers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would have encoded all documents, and every window would have come once from each."""
    monkeypatch.setattr(streams, "get_worker_info", lambda: SimpleNamespace(num_workers=2))
    with pytest.raises(ValueError, match=r"each of 2 workers would read all documents.*num_workers=0 or 1, or make a"):
        iter(loader(DOCUMENTS).dataset)
    monkeypatch.setattr(streams, "get_worker_info", lambda: SimpleNamespace(num_workers=1))
    with pytest.raises(ValueError, match=r"a list_iterator, .* and a worker process has only a copy of it; pass a fu"):
        iter(loader(iter(DOCUMENTS)).dataset)


# --- what is refused ---


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "one text",
            TypeError,
            r"with streaming=True, source must be several documents, got 'one text' \(str\); leave",
        ),
        (b"bytes", TypeError, "source must be several str, got b'bytes'"),
        (3, TypeError, r"source must be several str, got 3 \(int\)"),
        (None, TypeError, "source must be several str, got None"),
        (int, TypeError, r"source must be several str, got <class 'int'>"),
        (lambda: 3, TypeError, r"source must be several str, got 3 \(int\)"),
        ([1, 2], TypeError, r"source\[0\] must be a str, got 1 \(int\)"),
        (["a", None], TypeError, r"source\[1\] must be a str, got None"),
        ((text for text in ("a", b"b")), TypeError, r"source\[1\] must be a str, got b'b' \(bytes\)"),
        (["a", "b\ud800"], ValueError, r"source\[1\] has a lone surrogate"),
        (["a", "ä"], ValueError, "the character 'ä'"),
        ([], ValueError, "nothing to encode: there are no documents, all are empty"),
        (iter(["", ""]), ValueError, "nothing to encode: there are no documents, all are empty"),
        (iter(["ab", "", "c"]), ValueError, "context_length is 8, which needs at least 9 tokens.* has only 5; pass a "),
    ],
)
def test_what_is_no_stream_of_documents_is_told(source: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    with pytest.raises(error, match=message):
        list(loader(source))


def test_a_file_of_tokens_is_no_stream(tmp_path: Path) -> None:
    tokens = tokenize_to_file(["abc"], tmp_path / "a.tokens", tokenizer=LETTERS, threads=1)
    with pytest.raises(TypeError, match=r"must be several documents, got TokenFile\(.*leave out streaming=True"):
        loader(TokenFile(tokens.path))


def test_options_are_checked_at_the_call() -> None:
    for name, value in {"streaming": 1, "context_length": 0, "stride": 0, "batch_size": 0, "shuffle": "yes"}.items():
        with pytest.raises((TypeError, ValueError), match=name):
            loader(DOCUMENTS, **{name: value})


# --- datasets ---


def test_a_stream_of_datasets_resumes_exactly_with_its_own_shuffling(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": DOCUMENTS})

    def column() -> Any:  # noqa: ANN401
        return table.to_iterable_dataset().shuffle(seed=1, buffer_size=16)["text"]

    assert sorted(column()) == sorted(DOCUMENTS)
    history = run(column(), tmp_path / "whole")
    for stop in (9, None):
        again = run(column(), tmp_path / "broken", stop=stop)
    assert again == history
