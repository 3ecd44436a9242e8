"""Loaders of every kind: what `train` reads of them, in which order, and what it refuses."""

import collections
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)
from typing_extensions import override

import tinygpt2.data.passes
from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    IncompatibleRunError,
    TokenDataset,
    TokenFile,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    evaluate,
    make_dataloader,
    on_step,
    tokenize_to_file,
    train,
)
from tinygpt2.data.batches import Batch, as_batch
from tinygpt2.data.passes import Passes

SHAPE = GPT2Config(vocab_size=50, context_length=8, n_layer=1, n_head=2, n_embd=8, dropout=0.0)
ROWS = torch.randint(50, (40, 9), generator=torch.Generator().manual_seed(5))
ITEMS = TensorDataset(ROWS[:, :-1], ROWS[:, 1:])
BATCHES: list[Batch] = [(rows[:, :-1], rows[:, 1:]) for rows in ROWS.view(10, 4, 9)]
CONFIG = TrainingConfig(epochs=3, eval_every=4, eval_batches=2, learning_rate=1e-2)


def run(
    loader: Any,  # noqa: ANN401 - any loader
    directory: Path | None = None,
    config: TrainingConfig = CONFIG,
    *,
    stop: int | None = None,
    model: GPT2Model | None = None,
    callbacks: Sequence[Callable[[TrainState], object]] = (),
    **options: Any,  # noqa: ANN401 - any of train's
) -> tuple[GPT2Model, TrainingHistory]:
    if model is None:
        torch.manual_seed(3)
        model = GPT2Model(SHAPE)
    history = train(
        model, loader, config=config, device="cpu", progress=False, checkpoint_dir=directory,
        resume=directory is not None, callbacks=[on_step(lambda s: s.stop() if s.step == stop else None), *callbacks],
        **options,
    )  # fmt: skip
    return model, history


def equal(first: GPT2Model, second: GPT2Model) -> bool:
    return all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def assert_resumes_exactly(tmp_path: Path, make: Callable[[], Any], stops: Sequence[int] = (3, 10, 17)) -> None:
    """Stops within a pass, at its end, and within the next; with a new loader each time, or always the same one."""
    model, history = run(make(), tmp_path / "whole")
    for stop in stops:
        torch.manual_seed(stop)
        run(make(), tmp_path / "broken", stop=stop)
    again, same = run(make(), tmp_path / "broken")
    assert equal(again, model)
    assert same == history


# --- lengths ---


class Loader:
    """Yields some batches and says that it has as many as it likes."""

    def __init__(self, promised: int, batches: Sequence[Any]) -> None:
        self.promised, self.batches = promised, batches

    def __len__(self) -> int:
        return self.promised

    def __iter__(self) -> Iterator[Any]:
        return iter(self.batches)


class Stream(IterableDataset[Batch]):
    @override
    def __iter__(self) -> Iterator[Batch]:
        return ((row[:-1], row[1:]) for row in ROWS)


def test_a_loader_that_says_more_than_it_has_is_told_and_not_waited_for() -> None:
    """Training went round and round without a step."""
    with pytest.raises(ValueError, match="train_loader says that it has 10 batches, but yielded 8"):
        run(Loader(10, BATCHES[:8]))
    with pytest.raises(ValueError, match="val_loader says that it has 10 batches, but yielded 8"):
        run(BATCHES, config=TrainingConfig(), val_loader=Loader(10, BATCHES[:8]))


def test_a_loader_that_says_less_than_it_has_is_told() -> None:
    with pytest.raises(ValueError, match="says that it has 5 batches, but yields more"):
        run(Loader(5, BATCHES[:8]))


def test_a_stream_without_a_length_is_read_again_and_again() -> None:
    _, history = run(DataLoader(Stream(), batch_size=4), config=TrainingConfig(max_steps=25, eval_batches=1))
    assert history.steps == [0, 10, 20, 25]
    assert history.epochs == [0, 1, 2, 2]
    assert history.tokens_seen[-1] == 25 * 4 * 8


def test_a_stream_resumes_exactly(tmp_path: Path) -> None:
    config = TrainingConfig(max_steps=25, eval_batches=1)
    model, history = run(DataLoader(Stream(), batch_size=4), config=config)
    for stop in (3, 10, 17, None):
        again, same = run(DataLoader(Stream(), batch_size=4), tmp_path, config, stop=stop)
    assert equal(again, model)
    assert same == history


def test_a_stream_without_max_steps_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"does not say how many batches.*TrainingConfig\(max_steps=\.\.\.\)"):
        run(DataLoader(Stream(), batch_size=4))


@pytest.mark.parametrize("loader", [iter(BATCHES), (batch for batch in BATCHES), map(as_batch, BATCHES)])
def test_what_can_be_read_once_is_refused(loader: Iterator[Batch]) -> None:
    with pytest.raises(ValueError, match=r"train_loader is a .*, which can be read once; pass a list, a DataLoader"):
        run(loader)
    assert next(loader)[0].shape == (4, 8)  # nothing was taken


@pytest.mark.parametrize("loader", [None, 3, ITEMS.__len__])
def test_what_has_no_batches_at_all_is_a_type_error(loader: object) -> None:
    with pytest.raises(TypeError, match="train_loader must be an iterable of batches, got "):
        run(loader)


def test_an_iterable_that_does_not_begin_anew_is_told() -> None:
    class Once:
        def __init__(self, length: int | None) -> None:
            self.iterator, self.length = iter(BATCHES * 2), length

        def __len__(self) -> int:
            if self.length is None:
                raise TypeError
            return self.length

        def __iter__(self) -> Iterator[Batch]:
            return (batch for batch in self.iterator)

    with pytest.raises(ValueError, match="says that it has 10 batches, but yield"):
        run(Once(10))
    with pytest.raises(ValueError, match="yielded no batch in pass 2; it is empty, or its iter"):
        run(Once(None), config=TrainingConfig(max_steps=100, eval_batches=1, eval_every=1000))


@pytest.mark.parametrize("length", [None, 2])
def test_an_empty_loader_is_told(length: int | None) -> None:
    class Empty(IterableDataset[Batch]):
        @override
        def __iter__(self) -> Iterator[Batch]:
            return iter(())

    loader = DataLoader(Empty()) if length is None else Loader(length, [])
    with pytest.raises(ValueError, match="train_loader yielded no batch in pass 1"):
        run(loader, config=TrainingConfig(max_steps=3))
    with pytest.raises(ValueError, match="train_loader has no batches"):
        run([])


# --- batches ---


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ((ROWS, ROWS, ROWS), TypeError, r"batch 0 of train_loader should be \(inputs, targets\).* a tuple of 3; map"),
        (ROWS[:3], TypeError, "but is a Tensor"),
        ("text", TypeError, "but is a str"),
        ((ROWS.numpy(), ROWS.numpy()), TypeError, r"the inputs of .* got a numpy\.ndarray; convert .*torch\.as_tensor"),
        ((ROWS, ROWS.tolist()), TypeError, "the targets of .* got a list"),
        ((ROWS[:, :8], ROWS[:, :7]), ValueError, r"should have one shape.*\(40, 8\) and \(40, 7\)"),
        ({"input_ids": ROWS}, TypeError, "a dict with input_ids; expected .*labels=input_ids"),
        ({"labels": ROWS}, TypeError, "a dict with labels; expected input_ids"),
        ({}, TypeError, "a dict with nothing; expected input_ids"),
        ({"input_ids": ROWS, "labels": ROWS, "token_type_ids": ROWS}, TypeError, "token_type_ids.*Remove other keys"),
        ({"input_ids": ROWS, "labels": ROWS.numpy()}, TypeError, r"the labels of .* got a numpy\.ndarray"),
        ((ROWS[0], ROWS[0]), ValueError, r"the inputs of .* should be \(B, T\) int64, got torch.int64 of \(9,\)"),
        ((ROWS, ROWS.float()), ValueError, r"the targets of .* got torch\.float32 of \(40, 9\)"),
        ({"input_ids": ROWS, "labels": ROWS, "attention_mask": [1]}, TypeError, "the attention_mask of .* got a list"),
        ({"input_ids": ROWS, "labels": ROWS, "attention_mask": ROWS[:, 1:]}, ValueError, "attention_mask .* one shape"),
    ],
)
def test_a_batch_of_another_form_is_told_with_the_fix(batch: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run([batch])


def test_a_dict_is_what_transformers_means_by_it() -> None:
    """Its labels are the tokens themselves, shifted by the model: equal to transformers' own loss."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = GPT2Model(SHAPE)
    config = transformers.GPT2Config(
        vocab_size=50, n_positions=8, n_layer=1, n_head=2, n_embd=8, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    linear = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
    state = {f"transformer.{n}": w.t() if n.endswith(linear) else w for n, w in model.state_dict().items()}
    theirs.load_state_dict(state | {"lm_head.weight": model.wte.weight})

    ids, labels = ROWS[:4, :8], ROWS[:4, :8].clone()
    labels[:, 0], labels[1, 5:] = -100, -100
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0  # padding on the right
    batch = {"input_ids": ids, "labels": labels, "attention_mask": mask}
    with torch.no_grad():
        expected = theirs(**batch).loss
    assert evaluate(model, [batch]).loss == pytest.approx(float(expected), rel=1e-6)

    first: list[float] = []
    run([batch], model=model, config=TrainingConfig(), callbacks=[on_step(lambda s: first.append(s.loss)).on_step])
    assert first == pytest.approx([float(expected)], rel=1e-6)


def test_padding_on_the_left_is_refused() -> None:
    mask = torch.ones(4, 8, dtype=torch.bool)
    mask[2, :3] = False
    with pytest.raises(ValueError, match=r"padding on the left .*pad on the right"):
        run([{"input_ids": ROWS[:4, :8], "labels": ROWS[:4, :8], "attention_mask": mask}])


def test_targets_of_a_smaller_integer_type_are_read_as_they_are() -> None:
    expected, _ = run(BATCHES, config=TrainingConfig())
    small, _ = run([(x.int(), y.int()) for x, y in BATCHES], config=TrainingConfig())
    assert equal(small, expected)


# --- orders that can be repeated ---


def shuffled(**options: Any) -> DataLoader[Any]:  # noqa: ANN401 - any of DataLoader's
    return DataLoader(ITEMS, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(9), **options)


def weighted(generator: torch.Generator) -> DataLoader[Any]:
    sampler = WeightedRandomSampler(list(range(1, 41)), 40, generator=generator)
    return DataLoader(ITEMS, batch_size=4, sampler=sampler)


def drawn_late(generator: torch.Generator) -> DataLoader[Any]:
    """A sampler that draws from its generator throughout the pass, 32 indices at a time."""
    return DataLoader(ITEMS, batch_size=4, sampler=RandomSampler(ITEMS, replacement=True, generator=generator))


class Augmented(TensorDataset):
    """Draws from PyTorch's global random numbers for each item."""

    @override
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        inputs, targets = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return torch.where(torch.rand(8) < 0.1, 0, inputs), targets


ORDERS: dict[str, Callable[[], Any]] = {
    "generator": shuffled,
    "without a generator": lambda: DataLoader(ITEMS, batch_size=4, shuffle=True),
    "weighted": lambda: weighted(torch.Generator().manual_seed(2)),
    "with replacement": lambda: drawn_late(torch.Generator().manual_seed(2)),
    "windows": lambda: DataLoader(TokenDataset(ROWS.flatten(), context_length=8), batch_size=4, shuffle=True),
    "augmented": lambda: DataLoader(Augmented(*ITEMS.tensors), batch_size=4, shuffle=True),
    "dicts": lambda: [{"input_ids": rows[:, :8], "labels": rows[:, :8]} for rows in ROWS.view(10, 4, 9)],
    "list": lambda: BATCHES,
    "ours": lambda: make_dataloader(ROWS.flatten(), batch_size=4, context_length=8, shuffle=True),
}


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_that_a_seed_decides_resumes_exactly(tmp_path: Path, name: str) -> None:
    """PyTorch's own recipe for reproducibility, a generator, resumed as another run without a word."""
    assert_resumes_exactly(tmp_path, ORDERS[name])


@pytest.mark.parametrize("name", ["generator", "weighted", "with replacement", "ours"])
def test_a_loader_that_one_process_uses_again_resumes_exactly_and_is_left_as_it_was(tmp_path: Path, name: str) -> None:
    loader = ORDERS[name]()
    generator = loader.generator or loader.sampler.generator
    before = generator.get_state()
    assert_resumes_exactly(tmp_path, lambda: loader)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    "loader", [BATCHES, shuffled(), DataLoader(ITEMS, batch_size=4, shuffle=True)], ids=["list", "generator", "none"]
)
def test_the_global_random_numbers_are_as_before(loader: Any) -> None:  # noqa: ANN401 - any loader
    """A list's first batch was read, for its size, before the state was kept."""
    model = GPT2Model(SHAPE)
    before = torch.get_rng_state()
    run(loader, model=model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ORDERS)
def test_evaluations_do_not_change_what_is_read(name: str) -> None:
    expected, _ = run(ORDERS[name](), config=TrainingConfig(epochs=2, eval_batches=1))
    model, _ = run(ORDERS[name](), config=TrainingConfig(epochs=2, eval_batches=2, eval_every=3))
    assert equal(model, expected)


def test_each_item_comes_once_an_epoch_from_workers_that_persist() -> None:
    """An evaluation in the middle began the pass of the workers anew."""
    seen: list[int] = []
    ids = torch.arange(40).unsqueeze(1).repeat(1, 8)
    loader = DataLoader(TensorDataset(ids, ids), batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)
    model = GPT2Model(SHAPE)
    model.wte.register_forward_pre_hook(
        lambda _, args: seen.extend(args[0][:, 0].tolist()) if torch.is_grad_enabled() else None
    )
    run(loader, model=model, config=TrainingConfig(epochs=2, eval_every=3, eval_batches=2))
    assert collections.Counter(seen[:40]) == collections.Counter(seen[40:]) == collections.Counter(range(40))
    assert seen[:40] != seen[40:]


def test_workers_that_persist_resume_exactly(tmp_path: Path) -> None:
    """PyTorch seeds workers when it starts them, so that the second pass had another order where it was the first."""
    assert_resumes_exactly(tmp_path, lambda: shuffled(num_workers=1, persistent_workers=True), stops=(13,))


def test_an_epoch_that_is_read_late_is_the_one_under_way() -> None:
    """An evaluation left the loader in its own epoch, the first, for the rest of the pass."""

    class Late(Loader):
        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        @override
        def __iter__(self) -> Iterator[Batch]:
            return ((x.roll(self.epoch, 0), y.roll(self.epoch, 0)) for x, y in self.batches)

    passes = Passes(Late(10, BATCHES), name="train_loader", seed=0)
    reading = passes.read(2)
    next(reading)
    with passes.evaluation() as batches:
        assert torch.equal(next(batches)[0], BATCHES[0][0])
    assert torch.equal(next(reading)[0], BATCHES[1][0].roll(2, 0))


def test_an_order_that_cannot_be_repeated_is_refused_when_it_is_resumed(tmp_path: Path) -> None:
    reads = itertools.count()

    class Wandering(Loader):
        @override
        def __iter__(self) -> Iterator[Batch]:
            begin = 1 + next(reads) % 9
            return iter([self.batches[0], *self.batches[begin:], *self.batches[1:begin]])

    run(Wandering(10, BATCHES), tmp_path, stop=5)
    before = content(tmp_path)
    with pytest.raises(IncompatibleRunError, match=r"did not repeat its batches up to step 5.*generator=") as caught:
        run(Wandering(10, BATCHES), tmp_path)
    assert caught.value.differences == ("train_loader did not repeat its batches up to step 5",)
    assert content(tmp_path) == before


def test_other_data_may_go_on_within_a_pass_if_that_is_allowed(tmp_path: Path) -> None:
    """They were refused, for not repeating the old data."""
    other = [(x.flip(0), y.flip(0)) for x, y in BATCHES]
    run(BATCHES, tmp_path, stop=5)
    with pytest.raises(IncompatibleRunError, match="sha256"):
        run(other, tmp_path)
    _, history = run(other, tmp_path, allow_changes=True)
    assert history.tokens_seen[-1] == 3 * 320


# --- loaders with a position or an identity of their own ---


class Positioned:
    """A loader that can begin anywhere, counts its passes itself, and counts what it reads."""

    read = 0

    def __init__(self) -> None:
        self.epoch = self.i = 0

    def __len__(self) -> int:
        return len(BATCHES)

    def __iter__(self) -> Iterator[Batch]:
        while self.i < len(BATCHES):
            inputs, targets = BATCHES[(self.i * 3 + self.epoch) % len(BATCHES)]
            self.i += 1
            type(self).read += 1
            yield inputs, targets
        self.epoch, self.i = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "i": self.i}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.i = state["epoch"], state["i"]


def test_a_loader_with_a_position_resumes_exactly_with_evaluations_in_between(tmp_path: Path) -> None:
    """An evaluation moved the position from under the pass, and a new pass began in the order of the first."""
    assert_resumes_exactly(tmp_path, Positioned)
    loader = Positioned()
    assert_resumes_exactly(tmp_path / "again", lambda: loader)
    assert loader.state_dict() == {"epoch": 0, "i": 0}


def test_a_loader_with_a_position_reads_nothing_twice(tmp_path: Path) -> None:
    config = TrainingConfig(epochs=3, eval_every=1000, eval_batches=1)
    run(Positioned(), tmp_path, config, stop=17)
    saved = json.loads((tmp_path / "checkpoint-17" / "training.json").read_text(encoding="utf-8"))["loader"]
    assert saved["position"] == {"epoch": 1, "i": 7}
    Positioned.read = 0
    run(Positioned(), tmp_path, config)
    assert Positioned.read == 13 + 2  # what is left; the first batch for size and hash, and at the end an evaluation


def test_a_position_or_identity_that_json_cannot_hold_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    class Tensors(Positioned):
        @override
        def state_dict(self) -> dict[str, Any]:
            return {"epoch": self.epoch, "i": self.i, "more": {1}}

    class Named(Loader):
        def identity(self) -> object:
            return {1j}

    with pytest.raises(TypeError, match=r"the state_dict\(\) of train_loader is saved in checkpoints as JSON"):
        run(Tensors(), tmp_path / "a")
    with pytest.raises(TypeError, match=r"the identity\(\) of train_loader is saved"):
        run(Named(10, BATCHES), tmp_path / "b")


def test_a_loader_with_an_identity_is_known_by_it_and_not_hashed(tmp_path: Path) -> None:
    """A tuple came back from the file as a list, and was another run."""

    class Named(Loader):
        name: Any = ("corpus", 3)

        def identity(self) -> object:
            return self.name

    assert_resumes_exactly(tmp_path, lambda: Named(10, BATCHES))
    other = Named(10, BATCHES)
    other.name = "another"
    with pytest.raises(IncompatibleRunError, match=r"identity was .* and is 'another'"):
        run(other, tmp_path / "broken")


def test_another_generator_is_another_order_and_another_run(tmp_path: Path) -> None:
    def windows(seed: int) -> DataLoader[Any]:
        data = TokenDataset(ROWS.flatten(), context_length=8)
        return DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(seed))

    run(windows(1), tmp_path, stop=10)  # at the end of a pass, where no batch has to be repeated
    with pytest.raises(IncompatibleRunError, match=r"seeds was \[1\] and is \[2\]"):
        run(windows(2), tmp_path)


# --- ours ---


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 49)))
    text = "".join(alphabet[i] for i in (ROWS.flatten() % 49).tolist())
    return tokenize_to_file([text], tmp_path / "corpus.tokens", tokenizer=CharTokenizer(alphabet))


def test_a_file_of_tokens_is_known_by_its_header_and_not_hashed(
    tokens: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaders = [make_dataloader(part, batch_size=4, context_length=8) for part in (tokens, tokens[:90], tokens[30:90])]
    monkeypatch.setattr(hashlib, "sha256", lambda *_: pytest.fail("hashed"))
    found = [Passes(loader, name="train_loader", seed=0).identity() for loader in loaders]
    monkeypatch.undo()
    assert [(each["file"], each["begin"], each["tokens"]) for each in found] == [
        (tokens.sha256, 0, 360),
        (tokens.sha256, 0, 90),
        (tokens.sha256, 30, 60),
    ]


def test_several_files_of_tokens_are_known_by_their_headers_and_resume_exactly(
    tokens: TokenFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loader(*files: TokenFile) -> DataLoader[Batch]:
        return make_dataloader(list(files), batch_size=4, context_length=8, shuffle=True)

    one, two = tokens[:200], tokens[200:]
    with monkeypatch.context() as patch:
        patch.setattr(hashlib, "sha256", lambda *_: pytest.fail("hashed"))
        found = Passes(loader(one, two), name="train_loader", seed=0).identity()
    assert found["tokens"] == 360
    assert [found[f"files[{i}].begin"] for i in (0, 1)] == [0, 200]
    assert found["files[1].file"] == tokens.sha256
    assert_resumes_exactly(tmp_path, lambda: loader(one, two))
    with pytest.raises(IncompatibleRunError, match=r"training data's files\[0\]\.begin was 0 and is 200"):
        run(loader(two, one), tmp_path / "broken")
    small = GPT2Model(replace(SHAPE, vocab_size=40))
    with pytest.raises(ValueError, match="the model's vocabulary has ids 0 to 39, but train_loader has 48"):
        run(loader(one, two), model=small)


@pytest.mark.parametrize("part", [slice(None), slice(300), slice(20, 340)])
def test_parts_of_a_file_resume_exactly_and_are_not_other_parts(tmp_path: Path, tokens: TokenFile, part: slice) -> None:
    def loader(part: slice) -> DataLoader[Batch]:
        return make_dataloader(TokenFile(tokens.path)[part], batch_size=4, context_length=8, shuffle=True)

    assert_resumes_exactly(tmp_path, lambda: loader(part))
    with pytest.raises(IncompatibleRunError, match=r"the training data's (begin|tokens)"):
        run(loader(slice(5, 250)), tmp_path / "broken")


def test_what_is_skipped_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[int] = []
    real = TokenDataset.__getitems__

    def counting(dataset: TokenDataset, indices: Sequence[int]) -> Batch:
        gathered.extend(indices)
        return real(dataset, indices)

    monkeypatch.setattr(TokenDataset, "__getitems__", counting)
    config = TrainingConfig(epochs=1, eval_every=1000, eval_batches=1)
    run(ORDERS["ours"](), tmp_path, config, stop=7)
    gathered.clear()
    run(ORDERS["ours"](), tmp_path, config)
    windows = len(ORDERS["ours"]().dataset)
    assert len(gathered) == windows - 7 * 4 + 4  # and an evaluation


# --- ids ---


def test_an_id_outside_the_vocabulary_is_found_before_training_wherever_it_stands() -> None:
    """The last token of a text is never an input: the run ended at the step that had it as a target."""
    ids = ROWS.flatten().tolist()
    model = GPT2Model(SHAPE)
    for wrong in ([*ids, 50], [50, *ids], torch.tensor([*ids, 1000]), torch.tensor([*ids, 50]).int().numpy()):
        loader = make_dataloader(wrong, batch_size=4, context_length=8)
        for loaders in ((loader, None), (BATCHES, loader)):
            name = "train_loader" if loaders[1] is None else "val_loader"
            with pytest.raises(ValueError, match=rf"the model's vocabulary has ids 0 to 49, but {name} has (50|1000)"):
                run(loaders[0], val_loader=loaders[1], model=model, callbacks=[lambda _: pytest.fail("trained")])


def test_a_file_of_another_vocabulary_is_refused_before_training(tmp_path: Path) -> None:
    alphabet = "".join(map(chr, range(0x4E00, 0x4E00 + 60)))
    tokens = tokenize_to_file([alphabet * 6], tmp_path / "a.tokens", tokenizer=CharTokenizer(alphabet))
    with pytest.raises(ValueError, match=r"ids 0 to 49, but train_loader has 59; build the model with vocab_size=tok"):
        run(make_dataloader(tokens, batch_size=4, context_length=8))


@pytest.mark.parametrize(("part", "wrong"), [("inputs", 50), ("inputs", -1), ("targets", 50), ("targets", 10**12)])
def test_each_batch_is_checked_as_it_comes(part: str, wrong: int) -> None:
    """The targets died of PyTorch's own index error, on a GPU with all that the process had there."""
    batch = tuple(tensor.clone() for tensor in BATCHES[7])
    batch[part == "targets"][2, 3] = wrong
    batches = [*BATCHES[:7], batch, *BATCHES[8:]]
    message = rf"vocabulary has ids 0 to 49, but the {part} of batch 7 of train_loader have {wrong}; build the model"
    with pytest.raises(ValueError, match=message):
        run(batches, config=TrainingConfig(eval_batches=2))
    with pytest.raises(ValueError, match=message.replace(" of train_loader", "")):
        evaluate(GPT2Model(SHAPE), batches)


@pytest.mark.parametrize("mask", [-1, -2, -101])
def test_another_mask_than_100_is_told(mask: int) -> None:
    """nanoGPT and minGPT mask targets with -1."""
    message = f"the targets of batch 0 of train_loader have {mask}; for a target that does not count use -100"
    with pytest.raises(ValueError, match=message):
        run([(x, torch.where(y < 20, mask, y)) for x, y in BATCHES])
    with pytest.raises(ValueError, match="the targets of batch 0 of val_loader have"):
        run(BATCHES, val_loader=[(x, torch.where(y < 20, mask, y)) for x, y in BATCHES])
    with pytest.raises(ValueError, match=f"the targets of batch 0 have {mask}; .* use -100"):
        evaluate(GPT2Model(SHAPE), [(x, torch.where(y < 20, mask, y)) for x, y in BATCHES])
    labels = ROWS[:4, :8].clone()
    labels[1, 2] = mask
    with pytest.raises(ValueError, match=message):
        run([{"input_ids": ROWS[:4, :8], "labels": labels}])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32])
def test_ids_of_any_integer_type_are_read_as_they_are(dtype: torch.dtype) -> None:
    expected = as_batch(BATCHES[0])
    found = as_batch((BATCHES[0][0].to(dtype), BATCHES[0][1].to(dtype)))
    assert all(map(torch.equal, found, expected))
    assert {part.dtype for part in found} == {torch.int64}


def test_a_small_type_has_no_mask() -> None:
    """As uint8, 156 equals -100."""
    targets = torch.tensor([[156, 3]], dtype=torch.uint8)
    assert as_batch((targets, targets))[1].tolist() == [[156, 3]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("part", ["inputs", "targets"])
def test_ids_of_no_integer_type_are_refused(dtype: torch.dtype, part: str) -> None:
    x, y = BATCHES[0]
    batch = (x.to(dtype), y) if part == "inputs" else (x, y.to(dtype))
    with pytest.raises(ValueError, match=rf"the {part} of a batch should be \(B, T\) int64, got {dtype} of \(4, 8\)"):
        as_batch(batch)


# --- shifts ---


@pytest.mark.parametrize(
    ("batch", "fix"),
    [
        ((ROWS[:4, :8], ROWS[:4, :8]), r"shifted by 0 tokens instead of 1.*tokens\[:, 1:\].*a dict of input_ids"),
        ((ROWS[:4, :8], ROWS[:4, :8].masked_fill(ROWS[:4, :8] < 20, -100)), "shifted by 0"),
        ({"input_ids": ROWS[:4, :8], "labels": ROWS[:4, 1:]}, "shifted by 2 tokens .* pass labels=input_ids"),
        ((ROWS[:4, :7], ROWS[:4, 2:]), "shifted by 2 tokens"),
    ],
    ids=["unshifted", "masked", "shifted twice", "shifted by two"],
)
def test_targets_that_are_not_shifted_by_one_are_told_once(batch: Any, fix: str) -> None:  # noqa: ANN401
    """A model learned to copy its input, and its loss fell to 0 without a word."""
    with pytest.warns(UserWarning, match=f"the targets of batch 0 of train_loader are its inputs {fix}") as caught:
        run([batch] * 3)
    assert len(caught) == 1
    with pytest.warns(UserWarning, match=f"the targets of batch 0 are its inputs {fix}") as caught:
        evaluate(GPT2Model(SHAPE), [batch] * 3)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "batch",
    [
        BATCHES[0],
        {"input_ids": ROWS[:4, :8], "labels": ROWS[:4, :8]},
        (torch.ones(2, 8).long(), torch.ones(2, 8).long()),  # shifted or not, it looks the same
        (torch.tensor([[1], [2]]), torch.tensor([[1], [2]])),
        (torch.tensor([[1, 2] * 4]), torch.tensor([[2, 1] * 4])),  # by one, and by three
        (ROWS[:4, :8], ROWS[4:8, :8]),
        (ROWS[:4, :8], torch.full((4, 8), -100).index_fill(1, torch.tensor(0), 3)),
    ],
    ids=["shifted", "dict", "constant", "one token", "period", "unrelated", "one target"],
)
def test_of_other_targets_nothing_is_said(batch: Any) -> None:  # noqa: ANN401
    run([batch] * 3)
    evaluate(GPT2Model(SHAPE), [batch] * 3)


# --- files that changed ---


def damage(path: Path) -> None:
    """Swaps two tokens, so that every id is one of the vocabulary, and the header and the size are as before."""
    last, but_one = path.read_bytes()[-2:], path.read_bytes()[-4:-2]
    assert last != but_one
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(last + but_one)


def test_a_file_whose_tokens_are_not_those_of_its_header_is_refused_before_training(
    tmp_path: Path, tokens: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loader() -> DataLoader[Batch]:
        return make_dataloader(TokenFile(tokens.path)[:200], batch_size=4, context_length=8)

    run(loader(), tmp_path / "run", stop=3)
    damage(tokens.path)
    for directory in (None, tmp_path / "run"):
        with pytest.raises(ValueError, match="is damaged: its tokens do not have the SHA-256 in its header"):
            run(loader(), directory)
        with pytest.raises(ValueError, match="is damaged"):
            run(BATCHES, val_loader=loader())
    monkeypatch.setattr(tinygpt2.data.passes, "MAX_BYTES", 100)  # a larger file is the business of verify()
    run(loader(), tmp_path / "run")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a file that is mapped")
def test_a_file_that_is_gone_or_was_replaced_is_still_there_for_those_who_read_it(tokens: TokenFile) -> None:
    loader = make_dataloader(tokens, batch_size=4, context_length=8)
    expected, _ = run(loader)
    tokenize_to_file(["一二三四五六七八九十"], tokens.path, tokenizer=CharTokenizer("一二三四五六七八九十"))
    assert equal(run(loader)[0], expected)
    tokens.path.unlink()
    assert equal(run(loader)[0], expected)
