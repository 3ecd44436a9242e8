"""The loss over a data set, held against a sum that is done by hand."""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader
from typing_extensions import override

from tinygpt2 import (
    CharTokenizer,
    Evaluation,
    GPT2Config,
    GPT2Model,
    NonFiniteLossError,
    TokenDataset,
    evaluate,
    gpt2_tokenizer,
    make_dataloader,
)
from tinygpt2.data.batches import Batch
from tinygpt2.evaluation import loss as evaluation_loss

VOCAB_SIZE = 13


class Bigram(nn.Module):
    """A row of logits for each token: the smallest language model."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        logits = torch.randn(VOCAB_SIZE, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed))
        self.logits = nn.Parameter(3 * logits.double())

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits[tokens]


def by_hand(model: nn.Module, batches: Iterable[Batch]) -> tuple[float, int]:
    """Returns loss and number of tokens, one token at a time."""
    losses = []
    with torch.no_grad():
        for inputs, targets in batches:
            for logits, target in zip(model(inputs).flatten(0, 1), targets.flatten().tolist(), strict=True):
                if target != -100:
                    losses.append(logits.exp().sum().log().item() - logits[target].item())
    return math.fsum(losses) / len(losses), len(losses)


def random_batches(shapes: list[tuple[int, int]], seed: int = 0, ignored: float = 0.0) -> list[Batch]:
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for shape in shapes:
        inputs, targets = torch.randint(VOCAB_SIZE, (2, *shape), generator=generator)
        targets[torch.rand(shape, generator=generator) < ignored] = -100
        batches.append((inputs, targets))
    return batches


shapes = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 8)), min_size=1, max_size=5)


@given(shapes, st.sampled_from([0.0, 0.5]), st.integers(0, 2**32))
@example([(4, 8), (4, 8), (1, 8)], 0.0, 0)
@example([(1, 1)], 0.0, 0)
@example([(4, 8), (4, 3), (1, 1)], 0.5, 0)
def test_every_token_weighs_alike(shapes: list[tuple[int, int]], ignored: float, seed: int) -> None:
    """The mean of the means of batches is another number where the last batch is smaller, or has fewer targets."""
    batches = random_batches(shapes, seed, ignored)
    batches[0][1][0, 0] = 0  # at least one counts
    loss, tokens = by_hand(Bigram(), batches)
    result = evaluate(Bigram(), batches)
    assert result.tokens == tokens
    assert result.loss == pytest.approx(loss, rel=1e-12)
    assert result.perplexity == pytest.approx(math.exp(loss), rel=1e-12)


@given(st.integers(1, 50), st.sets(st.integers(1, 49)))
def test_the_batch_sizes_make_no_difference(rows: int, cuts: set[int]) -> None:
    ((inputs, targets),) = random_batches([(rows, 4)])
    bounds = [0, *sorted(cut for cut in cuts if cut < rows), rows]
    parts = [slice(start, end) for start, end in pairwise(bounds)]
    whole = evaluate(Bigram(), [(inputs, targets)])
    result = evaluate(Bigram(), [(inputs[part], targets[part]) for part in parts])
    assert result.tokens == whole.tokens == rows * 4
    assert result.loss == pytest.approx(whole.loss, rel=1e-12)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_a_gpt2_over_a_loader_with_a_ragged_last_batch(model: GPT2Model, batch_size: int) -> None:
    tokens = [i * 7 % 61 for i in range(10 * 16 + 1)]
    loader = make_dataloader(tokens, batch_size=batch_size, context_length=16)
    loss, count = by_hand(model, loader)
    assert count == 160
    assert evaluate(model, loader).tokens == 160
    assert evaluate(model, loader).loss == pytest.approx(loss, rel=1e-5)


LETTERS = CharTokenizer("abcdef éßü好世")  # 12 characters of 1 to 3 bytes, and the end of text


@given(shapes, st.sampled_from([0.0, 0.5]), st.integers(0, 2**32))
def test_bits_per_byte_count_the_bytes_of_the_targets(shapes: list[tuple[int, int]], ignored: float, seed: int) -> None:
    """Of those that count, and of no other token."""
    batches = random_batches(shapes, seed, ignored)
    batches[0][1][0, 0] = 12  # the end of text, which counts as one byte
    ids = [target for _, targets in batches for target in targets.flatten().tolist() if target != -100]
    expected = sum(len([*LETTERS.characters, "\n"][token].encode()) for token in ids)
    result = evaluate(Bigram(), batches, tokenizer=LETTERS)
    assert result.bytes == expected
    assert result.bits_per_byte == pytest.approx(result.loss * result.tokens / expected / math.log(2), rel=1e-12)
    plain = evaluate(Bigram(), batches)
    assert (plain.loss, plain.tokens) == (result.loss, result.tokens)
    assert plain.bytes is plain.bits_per_byte is plain.words is plain.word_perplexity is plain.documents is None


def test_the_bytes_of_a_text_are_exact_for_byte_pairs() -> None:
    """Also where a token is part of a character."""
    ids = gpt2_tokenizer().encode_ordinary("Any text, naïve or 世界.")
    model = GPT2Model(GPT2Config(context_length=4, n_layer=1, n_head=1, n_embd=4))
    loader = make_dataloader(ids, batch_size=2, context_length=4)
    last = (len(ids) - 1) // 4 * 4
    expected = len(gpt2_tokenizer().decode_bytes(ids[1 : last + 1]))
    assert evaluate(model, loader, tokenizer=gpt2_tokenizer()).bytes == expected


def test_bytes_are_unknown_where_a_tokenizer_does_not_say() -> None:
    class Silent:
        n_vocab, eot_token = 13, 12

        def encode_ordinary(self, text: str, /) -> list[int]:
            return LETTERS.encode_ordinary(text)

        def decode(self, tokens: Iterable[int], /) -> str:
            return LETTERS.decode(tokens)

    result = evaluate(Bigram(), random_batches([(2, 3)]), tokenizer=Silent())
    assert result.bytes is result.bits_per_byte is None


def test_tokens_of_another_tokenizer_are_told() -> None:
    batches = random_batches([(2, 3)])
    batches[0][1][1, 1] = 12
    with pytest.raises(ValueError, match="tokenizer has ids 0 to 3, but one of the targets is 12; pass"):
        evaluate(Bigram(), [(batches[0][0], torch.full((2, 3), 12))], tokenizer=CharTokenizer("abc"))
    with pytest.raises(TypeError, match="tokenizer must be an object with"):
        evaluate(Bigram(), batches, tokenizer=CharTokenizer)


def test_figures_that_do_not_exist_are_none() -> None:
    """A division by zero, if a text is only whitespace, or a token stands for no text."""
    nothing = Evaluation(loss=1.0, perplexity=math.e, tokens=1, bytes=0, words=0)
    assert nothing.bits_per_byte is nothing.word_perplexity is None
    assert Evaluation(loss=800.0, perplexity=math.inf, tokens=1, words=1).word_perplexity == math.inf


def test_many_batches_add_up_with_few_of_their_sums_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = random_batches([(2, 3)] * 10)
    expected = evaluate(Bigram(), batches, tokenizer=LETTERS)
    monkeypatch.setattr(evaluation_loss, "_MOST_WAITING", 3)
    result = evaluate(Bigram(), batches, tokenizer=LETTERS)
    assert (result.tokens, result.bytes) == (expected.tokens, expected.bytes)
    assert result.loss == pytest.approx(expected.loss, rel=1e-14)


def test_a_model_that_knows_nothing_hesitates_among_all_tokens() -> None:
    model = Bigram()
    nn.init.zeros_(model.logits)
    result = evaluate(model, random_batches([(3, 4)]))
    assert result.loss == pytest.approx(math.log(VOCAB_SIZE), rel=1e-12)
    assert result.perplexity == pytest.approx(VOCAB_SIZE, rel=1e-12)


def test_a_batch_in_which_nothing_counts_weighs_nothing() -> None:
    batches = random_batches([(2, 3), (2, 3)])
    nothing = batches[0][0], torch.full((2, 3), -100)
    assert evaluate(Bigram(), [batches[0], nothing, batches[1]]) == evaluate(Bigram(), batches)


@pytest.mark.parametrize("max_batches", [1, 2, 5])
def test_max_batches_reads_no_more(max_batches: int) -> None:
    batches = random_batches([(2, 3), (1, 5), (2, 2)])
    drawn = 0

    def loader() -> Iterator[Batch]:
        nonlocal drawn
        for batch in batches:
            drawn += 1
            yield batch

    result = evaluate(Bigram(), loader(), max_batches=max_batches)
    assert result == evaluate(Bigram(), batches[:max_batches])
    assert drawn == min(max_batches, len(batches))


def test_dropout_is_off_and_every_module_gets_its_mode_back() -> None:
    config = GPT2Config(vocab_size=VOCAB_SIZE, context_length=8, n_layer=2, n_head=2, n_embd=16, dropout=0.9)
    model = GPT2Model(config).train()
    model.get_submodule("h.0").eval()
    modes = [module.training for module in model.modules()]
    batches = random_batches([(2, 8), (1, 8)])
    result = evaluate(model, batches)
    assert [module.training for module in model.modules()] == modes
    assert result == evaluate(model, batches)
    assert result == evaluate(model.eval(), batches)
    assert not model.training

    def broken() -> Iterator[Batch]:
        yield batches[0]
        raise OSError("the disk has gone")

    model.train()
    with pytest.raises(OSError, match="the disk has gone"):
        evaluate(model, broken())
    assert all(module.training for module in model.modules())


def test_dropout_is_off_also_where_only_a_part_of_the_model_is_in_training_mode() -> None:
    """Whoever trains one block of an otherwise frozen model leaves the model itself in evaluation mode."""
    config = GPT2Config(vocab_size=VOCAB_SIZE, context_length=8, n_layer=2, n_head=2, n_embd=16, dropout=0.9)
    model = GPT2Model(config).eval()
    batches = random_batches([(2, 8)])
    expected = evaluate(model, batches)
    model.get_submodule("h.0").train()
    assert evaluate(model, batches) == expected
    assert model.get_submodule("h.0").training


def test_no_graph_is_built_and_nothing_is_changed() -> None:
    class Watched(Bigram):
        @override
        def forward(self, tokens: Tensor) -> Tensor:
            logits = super().forward(tokens)
            assert not logits.requires_grad
            return logits

    model = Watched()
    before = model.logits.detach().clone()
    state = torch.get_rng_state()
    batches = random_batches([(2, 3)])
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with mode():
            evaluate(model, batches)
    assert model.logits.grad is None
    assert torch.equal(model.logits, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_sums_in_float32() -> None:
    """A sum of some thousand nats in bfloat16 would be off by a hundredth of itself; the logits' rounding is less."""
    model = Bigram().bfloat16()
    batches = random_batches([(50, 8), (1, 8)])
    loss, tokens = by_hand(model.double(), batches)
    result = evaluate(model.bfloat16(), batches)
    assert result.tokens == tokens
    assert result.loss == pytest.approx(loss, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert evaluate(model, batches).loss == pytest.approx(loss, rel=1e-5)


def test_a_module_without_parameters_can_be_evaluated() -> None:
    class Uniform(nn.Module):
        @override
        def forward(self, tokens: Tensor) -> Tensor:
            return torch.zeros(*tokens.shape, VOCAB_SIZE)

    assert evaluate(Uniform(), random_batches([(2, 3)])).loss == pytest.approx(math.log(VOCAB_SIZE))


def test_a_hopeless_model_has_an_infinite_perplexity_and_no_error() -> None:
    model = Bigram()
    with torch.no_grad():
        model.logits.copy_(1e4 * torch.eye(VOCAB_SIZE))
    inputs = torch.zeros(1, 4, dtype=torch.int64)
    result = evaluate(model, [(inputs, inputs + 1)])
    assert (result.loss, result.perplexity) == (1e4, math.inf)


def test_weights_that_are_not_finite_are_named_and_so_is_an_overflow() -> None:
    """The loss was nan, which says nothing."""
    batches = random_batches([(2, 3), (1, 3)])
    model = Bigram()
    with torch.no_grad():
        model.logits[:, 3] = math.nan
    with pytest.raises(NonFiniteLossError, match="the loss is nan: 13 of 169 values of the weight logits are not fin"):
        evaluate(model, batches)
    with torch.no_grad():
        model.logits[:] = 0
        model.logits[:, batches[0][1][0, 0]] = -math.inf
    with pytest.raises(NonFiniteLossError, match="the loss is inf: 13 of 169 values of the weight logits are not fin"):
        evaluate(model, batches)

    class Overflowing(Bigram):
        @override
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens) * torch.inf * 0

    with pytest.raises(
        NonFiniteLossError, match="all weights are finite, so the computation overflows; they are too large"
    ):
        evaluate(Overflowing(), batches)


def test_a_target_that_is_impossible_costs_an_infinite_loss() -> None:
    """As a model says that forbids tokens."""

    class Forbidding(Bigram):
        @override
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens).index_fill(-1, torch.tensor(3), -math.inf)

    result = evaluate(Forbidding(), [(torch.tensor([[1, 2]]), torch.tensor([[2, 3]]))])
    assert (result.loss, result.perplexity, result.tokens) == (math.inf, math.inf, 2)


def test_a_mask_that_is_not_finite_is_no_weight() -> None:
    model = Bigram()
    model.register_buffer("mask", torch.full((2, 2), -math.inf))
    batches = random_batches([(2, 3)])
    assert evaluate(model, batches) == evaluate(Bigram(), batches)


@pytest.mark.parametrize("wrong", [-1, 13])
def test_a_target_outside_the_vocabulary_is_told(wrong: int) -> None:
    batches = random_batches([(2, 3), (2, 3)])
    batches[1][1][1, 1] = wrong
    with pytest.raises(ValueError, match=f"targets.* {wrong}"):
        evaluate(Bigram(), batches)


def test_what_returns_no_logits_is_told() -> None:
    """As transformers' models do, which return an object."""

    class Output(Bigram):
        @override
        def forward(self, tokens: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            return {"logits": super().forward(tokens)}

    with pytest.raises(TypeError, match="expected logits and targets as tensors, got dict and Tensor"):
        evaluate(Output(), random_batches([(2, 3)]))


def test_nothing_to_evaluate_is_an_error_and_not_nan() -> None:
    """An empty validation loader gave NaN, or a division by zero, in many training scripts."""
    (batch,) = random_batches([(2, 3)])
    with pytest.raises(ValueError, match=r"no batches.*drop_last"):
        evaluate(Bigram(), [])
    too_small = DataLoader(TokenDataset(range(9), context_length=4), batch_size=4, drop_last=True)
    with pytest.raises(ValueError, match=r"no batches.*drop_last"):
        evaluate(Bigram(), too_small)
    with pytest.raises(ValueError, match="every target is -100"):
        evaluate(Bigram(), [(batch[0], torch.full((2, 3), -100))])


def test_wrong_arguments_are_told() -> None:
    batches = random_batches([(2, 3)])
    with pytest.raises(ValueError, match="max_batches must be at least 1, got 0"):
        evaluate(Bigram(), batches, max_batches=0)
    with pytest.raises(TypeError, match="max_batches must be an integer"):
        evaluate(Bigram(), batches, max_batches=True)
    with pytest.raises(ValueError, match=r"batch 0 should have one shape, \(B, T\), but have \(2, 3\) and \(2, 2\)"):
        evaluate(Bigram(), [(batches[0][0], batches[0][1][:, :2])])
