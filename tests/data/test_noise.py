"""Noise on the training text: other windows, other cuts and other tokens in each pass, and always the true targets."""

import itertools
import math
import pickle
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import tiktoken
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from tinygpt2 import (
    CharTokenizer,
    GPT2Config,
    GPT2Model,
    IncompatibleRunError,
    TokenDataset,
    TrainingConfig,
    TrainingHistory,
    TrainState,
    evaluate,
    gpt2_tokenizer,
    make_dataloader,
    on_step,
    sample_text,
    tokenize_to_file,
    train,
    train_tokenizer,
)
from tinygpt2.data.batches import Batch
from tinygpt2.data.noise import TextNoise
from tinygpt2.data.noisy import NoisyDataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinygpt2.data.order import EpochSampler

TEXT = sample_text()[:3_000]
TOKENIZER = train_tokenizer(TEXT, 400)
DOCUMENTS = [line for line in TEXT.split("\n") if line]
BOTH = TextNoise(bpe_dropout=0.3, token_noise=0.2)

PROBABILITIES = st.sampled_from([0.0, 0.1, 0.5])


def noises() -> st.SearchStrategy[TextNoise]:
    return st.builds(
        TextNoise, bpe_dropout=PROBABILITIES, token_noise=PROBABILITIES, epochs=st.none() | st.integers(0, 3)
    )


def loader_of(
    source: Any = TEXT,  # noqa: ANN401 - any source
    noise: TextNoise | None = BOTH,
    *,
    batch_size: int = 4,
    context_length: int = 16,
    shuffle: bool = True,
    **options: Any,  # noqa: ANN401 - any of make_dataloader's
) -> DataLoader[Batch]:
    options = {"tokenizer": TOKENIZER, "shuffle": shuffle, **options}
    return make_dataloader(source, batch_size=batch_size, context_length=context_length, noise=noise, **options)


def data(loader: DataLoader[Batch]) -> NoisyDataset:
    return cast("NoisyDataset", loader.dataset)


def windows(dataset: NoisyDataset, epoch: int) -> Batch:
    """Returns all windows of a pass, in their order in the text."""
    return dataset.__getitems__(range(epoch * len(dataset), (epoch + 1) * len(dataset)))


def rows(loader: DataLoader[Batch], epoch: int) -> list[Any]:
    """Returns the windows of a pass in their order in it, with their targets."""
    cast("EpochSampler", loader.sampler).set_epoch(epoch)
    return [pair for inputs, targets in loader for pair in zip(inputs.tolist(), targets.tolist(), strict=True)]


# --- windows ---


@given(
    size=st.integers(2, 90),
    context_length=st.integers(1, 12),
    stride=st.none() | st.integers(1, 15),
    epoch=st.integers(0, 2**40),
)
def test_a_pass_has_as_many_windows_as_the_clean_text_evenly_spread(
    size: int, context_length: int, stride: int | None, epoch: int
) -> None:
    context_length = min(context_length, size - 1)
    loader = make_dataloader(range(size), batch_size=3, context_length=context_length, stride=stride, noise=TextNoise())
    clean = TokenDataset(range(size), context_length=context_length, stride=stride)
    dataset = data(loader)
    assert len(dataset) == len(clean)
    assert len(loader) == math.ceil(len(clean) / 3)
    inputs, targets = windows(dataset, epoch)
    assert torch.equal(targets, inputs + 1)  # of tokens that are their own places
    assert (inputs[:, 1:] == inputs[:, :-1] + 1).all()
    starts = inputs[:, 0]
    assert 0 <= starts.min() <= starts.max() + context_length < size
    distances = starts.diff()
    apart = (size - context_length) / len(clean)
    assert apart <= clean.stride
    assert ((distances == math.floor(apart)) | (distances == math.ceil(apart))).all()


def test_each_place_is_as_likely_to_begin_a_window_as_any_other() -> None:
    """Over 1,000 passes each of 13 places is expected 231 times; 100 off is seven standard deviations."""
    dataset = data(make_dataloader(range(17), batch_size=1, context_length=4, stride=5, noise=TextNoise()))
    assert len(dataset) == 3
    counts = torch.zeros(13)
    for epoch in range(1000):
        counts[windows(dataset, epoch)[0][:, 0]] += 1
    assert (counts - 1000 * 3 / 13).abs().max() < 100


def test_a_pass_whose_tokens_are_too_few_for_a_window_is_the_clean_text() -> None:
    """Skipping a merge can make a text shorter: abcd is ab c d, but without ab it is a bcd."""
    tokens = [*(bytes([byte]) for byte in range(256)), b"ab", b"bc", b"bcd"]
    tokenizer = tiktoken.Encoding(
        "abcd", pat_str=r"\w+", mergeable_ranks={token: i for i, token in enumerate(tokens)}, special_tokens={}
    )
    dataset = data(loader_of("abcd", TextNoise(bpe_dropout=0.5), tokenizer=tokenizer, context_length=2, batch_size=1))
    assert dataset._words is not None
    shortest = min(len(dataset._words.encode(0.5, np.random.default_rng(seed))) for seed in range(20))
    assert shortest == 2
    for epoch in range(20):
        inputs, targets = windows(dataset, epoch)
        assert tokenizer.decode([*inputs[0].tolist(), int(targets[0, -1])]) in "abcd"


def test_windows_never_cross_from_one_file_into_the_next(tmp_path: Path) -> None:
    letters = CharTokenizer("abcdefgh")
    files = [
        tokenize_to_file(text * 9, tmp_path / f"{i}.tokens", tokenizer=letters)
        for i, text in enumerate(["abcd", "efghe"])
    ]
    loader = make_dataloader(files, batch_size=2, context_length=5, noise=TextNoise())
    assert len(data(loader)) == len(data(loader).clean)
    for epoch in range(9):
        inputs, targets = windows(data(loader), epoch)
        assert all(
            len({int(i) // 4 for i in [*row, last]}) == 1 for row, last in zip(inputs, targets[:, -1], strict=True)
        )
        assert torch.equal(inputs[:, 1:], targets[:, :-1])


# --- cuts ---


@given(noise=noises(), epoch=st.integers(0, 5), seed=st.integers(0, 3))
def test_the_targets_of_any_pass_spell_the_text(noise: TextNoise, epoch: int, seed: int) -> None:
    loader = loader_of(noise=noise, seed=seed, context_length=40)
    inputs, targets = windows(data(loader), epoch)
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        assert TOKENIZER.decode_bytes(target) in TEXT.encode()
        if not (noise.token_noise and data(loader).is_noisy(epoch)):
            assert TOKENIZER.decode_bytes([row[0], *target]) in TEXT.encode()
            assert row[1:] == target[:-1]


def test_a_pass_with_dropout_has_other_tokens_and_a_clean_one_has_not() -> None:
    dataset = data(loader_of(noise=TextNoise(bpe_dropout=0.3, epochs=2)))
    clean = TOKENIZER.encode_ordinary(TEXT)
    assert [np.array_equal(dataset._tokens(epoch, 0), clean) for epoch in range(4)] == [False, False, True, True]
    assert not np.array_equal(dataset._tokens(0, 0), dataset._tokens(1, 0))


def test_documents_keep_their_ends() -> None:
    dataset = data(loader_of(DOCUMENTS))
    end = TOKENIZER.eot_token
    for epoch in range(3):
        tokens = dataset._tokens(epoch, 0)
        assert TOKENIZER.decode(tokens.tolist()) == "".join(f"{document}<|endoftext|>" for document in DOCUMENTS)
        inputs, targets = windows(dataset, epoch)
        assert torch.equal(inputs[:, 1:] == end, targets[:, :-1] == end)
        assert (targets == end).any()


def test_a_table_is_cut_as_a_list_is() -> None:
    table = [{"body": document} for document in DOCUMENTS]
    assert rows(loader_of(table, field="body"), 1) == rows(loader_of(DOCUMENTS), 1)


# --- tokens ---


@pytest.mark.parametrize("source", ["text", "ids", "file"])
def test_a_share_of_the_inputs_is_replaced_by_tokens_as_frequent_as_in_the_text(source: str, tmp_path: Path) -> None:
    """Of 23,040 inputs a fifth is drawn, a tenth of which by chance is what it was; five standard deviations are 1.5%.

    The text is x nine times in ten and y otherwise, with ends that are neither replaced nor drawn.
    """
    letters = CharTokenizer("xy")
    documents = ["xxxxxxxxxy" * 4] * 60
    sources: dict[str, Callable[[], Any]] = {
        "text": lambda: documents,
        "ids": lambda: [i for text in documents for i in [*letters.encode_ordinary(text), letters.eot_token]],
        "file": lambda: tokenize_to_file(documents, tmp_path / "a.tokens", tokenizer=letters, documents=True),
    }
    noise = TextNoise(token_noise=0.2)
    loader = loader_of(sources[source](), noise, tokenizer=None if source == "file" else letters, context_length=20)
    pairs = [windows(data(loader), epoch) for epoch in range(10)]
    inputs = torch.cat([inputs[:, 1:] for inputs, _ in pairs]).flatten()
    truth = torch.cat([targets[:, :-1] for _, targets in pairs]).flatten()
    end = letters.eot_token
    assert torch.equal(inputs == end, truth == end)
    for token, other in ((0, 1), (1, 0)):
        share = (inputs[truth == token] == other).float().mean().item()
        expected = 0.2 * (0.9 if other == 0 else 0.1)
        assert abs(share - expected) < 5 * math.sqrt(expected / int((truth == token).sum()))


@given(noise=noises(), batch_size=st.integers(1, 9), data_=st.data())
def test_a_window_depends_on_nothing_else_in_its_batch(noise: TextNoise, batch_size: int, data_: st.DataObject) -> None:
    dataset = data(loader_of(noise=noise, batch_size=batch_size))
    indices = data_.draw(st.lists(st.integers(0, 4 * len(dataset)), min_size=1, max_size=9))
    inputs, targets = dataset.__getitems__(indices)
    for i, row, target in zip(indices, inputs, targets, strict=True):
        alone = dataset[i]
        assert torch.equal(row, alone[0])
        assert torch.equal(target, alone[1])


def test_ids_of_any_size_are_drawn() -> None:
    ids = [0, 10**15] * 50
    inputs, _ = windows(data(make_dataloader(ids, batch_size=1, context_length=9, noise=TextNoise(token_noise=0.9))), 0)
    assert set(inputs.flatten().tolist()) == set(ids)


# --- passes ---


def test_the_same_seed_and_pass_is_the_same_and_any_other_is_not() -> None:
    first, second = loader_of(seed=3), loader_of(seed=3)
    passes = [rows(first, epoch) for epoch in range(4)]
    assert [rows(second, epoch) for epoch in (3, 0, 2, 1)] == [passes[epoch] for epoch in (3, 0, 2, 1)]
    others = [rows(loader_of(seed=seed), 0) for seed in (4, 5)]
    assert all(sorted(a) != sorted(b) for a, b in itertools.combinations([*passes, *others], 2))


def test_a_plain_loop_sees_each_pass_in_turn() -> None:
    loader = loader_of(shuffle=False)
    for epoch in range(3):
        inputs, targets = (torch.cat(parts) for parts in zip(*loader, strict=True))
        expected = windows(data(loader), epoch)
        assert torch.equal(inputs, expected[0])
        assert torch.equal(targets, expected[1])


def test_a_pass_begun_in_the_middle_is_the_rest_of_it() -> None:
    loader, other = loader_of(batch_size=1), loader_of(batch_size=1)
    whole = rows(loader, 2)
    cast("EpochSampler", other.sampler).set_epoch(2, start=30)
    assert [(inputs[0].tolist(), targets[0].tolist()) for inputs, targets in other] == whole[30:]


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_have_the_same_windows_in_every_pass(persistent: bool) -> None:
    """Persistent ones have a copy of the data set from before the first pass."""
    ours = loader_of(DOCUMENTS)
    theirs = DataLoader(
        ours.dataset, batch_size=4, sampler=ours.sampler, num_workers=2, persistent_workers=persistent,
        collate_fn=ours.collate_fn, generator=torch.Generator(),
    )  # fmt: skip
    for epoch in range(3):
        assert rows(theirs, epoch) == rows(ours, epoch)


def test_a_data_set_can_be_iterated_and_copied() -> None:
    dataset = data(loader_of())
    inputs, _ = windows(dataset, 0)
    copy = pickle.loads(pickle.dumps(dataset))  # noqa: S301 - our own
    for one, other in zip(inputs, copy, strict=True):
        assert torch.equal(one, other[0])
    assert len(pickle.dumps(dataset)) == len(pickle.dumps(loader_of().dataset))  # without the tokens of a pass


# --- training and evaluation ---

SHAPE = GPT2Config(vocab_size=TOKENIZER.n_vocab, context_length=16, n_layer=1, n_head=2, n_embd=8)
CONFIG = TrainingConfig(epochs=4, eval_every=23, eval_batches=3, learning_rate=1e-2)


def run(
    directory: Path | None = None,
    noise: TextNoise | None = BOTH,
    *,
    stop: int | None = None,
    **options: Any,  # noqa: ANN401 - any of train's
) -> tuple[list[torch.Tensor], TrainingHistory]:
    torch.manual_seed(1)
    model = GPT2Model(SHAPE)
    history = train(
        model, loader_of(DOCUMENTS, noise, batch_size=8, drop_last=True), config=CONFIG, device="cpu", progress=False,
        checkpoint_dir=directory, resume=directory is not None,
        callbacks=[on_step(lambda state: state.stop() if state.step == stop else None)], **options,
    )  # fmt: skip
    return [weight.detach().clone() for weight in model.parameters()], history


@pytest.mark.parametrize("epochs", [None, 2])
def test_a_run_that_stops_in_the_middle_of_any_pass_resumes_exactly(tmp_path: Path, epochs: int | None) -> None:
    noise = replace(BOTH, epochs=epochs)
    expected, history = run(noise=noise)
    assert history.steps[-1] == 4 * len(loader_of(DOCUMENTS, batch_size=8, drop_last=True))
    for stop in (3, 11, 20):
        run(tmp_path, noise, stop=stop)
    again, resumed = run(tmp_path, noise)
    assert all(map(torch.equal, again, expected))
    assert resumed.steps[-1] == history.steps[-1]
    assert resumed.train_losses[-1] == history.train_losses[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bpe_dropout": 0.1}, "the training data's bpe_dropout was 0.3 and is 0.1"),
        ({"token_noise": 0.0}, "the training data's token_noise was 0.2 and is 0.0"),
        ({"epochs": 3}, "the training data's noise_epochs was None and is 3"),
    ],
)
def test_resuming_with_other_noise_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    run(tmp_path, stop=2)
    with pytest.raises(IncompatibleRunError, match=message):
        run(tmp_path, replace(BOTH, **change))
    run(tmp_path, replace(BOTH, **change), stop=3, allow_changes=True)


def test_resuming_without_noise_is_refused(tmp_path: Path) -> None:
    run(tmp_path, stop=2)
    with pytest.raises(IncompatibleRunError, match=r"bpe_dropout was 0\.3 and is None"):
        run(tmp_path, None)


def test_losses_in_the_history_are_those_of_the_clean_text() -> None:
    """Of the same batches as without noise, also while a pass is in progress; and of validation data with noise."""
    model = GPT2Model(SHAPE)
    noisy, clean = loader_of(DOCUMENTS), loader_of(DOCUMENTS, None)
    losses: list[float] = []

    def measure(state: TrainState) -> None:
        if state.event in ("start", "step") and state.step in (0, 1, 2, 3):
            losses.append(evaluate(state.model, clean_again(), max_batches=5).loss)

    def clean_again() -> DataLoader[Batch]:
        cast("EpochSampler", clean.sampler).set_epoch(0)
        return clean

    config = TrainingConfig(max_steps=3, eval_every=1, eval_batches=5, learning_rate=1e-2)
    history = train(model, noisy, loader_of(DOCUMENTS), config, device="cpu", progress=False, callbacks=[measure])
    assert history.train_losses == losses
    assert history.val_losses == losses


def test_evaluate_reads_the_clean_text() -> None:
    model = GPT2Model(SHAPE)
    assert evaluate(model, loader_of(shuffle=False)) == evaluate(model, loader_of(noise=None, shuffle=False))
    assert evaluate(model, loader_of()) == evaluate(model, loader_of())


def test_training_with_noise_draws_no_global_random_numbers() -> None:
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    train(GPT2Model(SHAPE), loader_of(), config=TrainingConfig(max_steps=2), device="cpu", progress=False)
    torch.manual_seed(5)
    list(loader_of())
    assert torch.equal(torch.get_rng_state(), expected)


def test_ids_outside_the_models_vocabulary_are_found_before_training() -> None:
    with pytest.raises(ValueError, match="vocabulary has ids 0 to 9, but train_loader has"):
        train(GPT2Model(replace(SHAPE, vocab_size=10)), loader_of(), device="cpu", progress=False)


# --- what is refused ---


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("bpe_dropout", 1, "bpe_dropout must be a finite number at least 0 and less than 1, got 1"),
        ("bpe_dropout", -0.1, "bpe_dropout must be"),
        ("bpe_dropout", "0.1", "bpe_dropout must be a number"),
        ("token_noise", 1.5, "token_noise must be"),
        ("token_noise", float("nan"), "token_noise must be"),
        ("token_noise", None, "token_noise must be a number"),
        ("epochs", -1, "epochs must be at least 0"),
        ("epochs", 1.5, "epochs must be an integer"),
        ("epochs", True, "epochs must be an integer"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        TextNoise(**{field: value})  # type: ignore[arg-type]


def test_noise_is_plain_values() -> None:
    numbers: dict[str, Any] = {"bpe_dropout": np.float32(0.5), "token_noise": 0, "epochs": np.int64(3)}
    noise = TextNoise(**numbers)
    assert asdict(noise) == {"bpe_dropout": 0.5, "token_noise": 0.0, "epochs": 3}
    assert [type(value) for value in asdict(noise).values()] == [float, float, int]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"source": [1, 2, 3] * 9, "noise": TextNoise(bpe_dropout=0.1)}, "source has only the ids of tokens; pass the"),
        (
            {"tokenizer": CharTokenizer.from_text(TEXT), "noise": TextNoise(bpe_dropout=0.1)},
            "tokenizer is .*CharTokenizer.*, which has none; pass one of train_tokenizer, .* or bpe_dropout=0",
        ),
        ({"source": DOCUMENTS, "streaming": True}, "with streaming=True it is encoded while it is read; omit one"),
        (
            {"source": [1] * 9, "tokenizer": CharTokenizer("a"), "noise": TextNoise(token_noise=0.1)},
            "token_noise draws tokens of the text, but all are ends of texts",
        ),
    ],
)
def test_noise_that_has_nothing_to_work_on_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        loader_of(context_length=4, **options)


def test_a_file_of_tokens_has_no_words(tmp_path: Path) -> None:
    file = tokenize_to_file(TEXT, tmp_path / "a.tokens", tokenizer=TOKENIZER)
    with pytest.raises(ValueError, match="bpe_dropout cuts words into other tokens, but source has only the ids"):
        loader_of(file)


def test_noise_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"noise must be a TextNoise, got 0\.1"):
        loader_of(noise=cast("TextNoise", 0.1))


@pytest.mark.parametrize("indices", [[-1], [0.5], [[1]]])
def test_indices_that_are_no_windows_are_refused(indices: Any) -> None:  # noqa: ANN401
    with pytest.raises(
        (IndexError, TypeError), match=r"counted from 0, those of the second pass from|must be integers"
    ):
        data(loader_of()).__getitems__(indices)


def test_gpt2s_tokenizer_is_the_default() -> None:
    loader = make_dataloader(TEXT, batch_size=1, context_length=8, noise=TextNoise(bpe_dropout=0.3))
    tokens = data(loader)._tokens(0, 0).tolist()
    assert gpt2_tokenizer().decode(tokens) == TEXT
    assert tokens != gpt2_tokenizer().encode_ordinary(TEXT)
