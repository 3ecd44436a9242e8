"""Sequences that a model writes."""

import numpy as np
import pytest
import torch

from tinygpt2 import GPT2Config, GPT2Model, Mixture, NGramModel, sample_sequences

V = 6
TEXT = np.random.default_rng(0).integers(0, V, 300)


def gpt2(*, dropout: float = 0.0) -> GPT2Model:
    torch.manual_seed(0)
    return GPT2Model(GPT2Config(vocab_size=V, context_length=9, n_layer=2, n_head=2, n_embd=8, dropout=dropout))


def test_each_begins_with_a_piece_of_the_text_and_goes_on_as_the_model_says() -> None:
    cycle = np.arange(60) % V
    found = sample_sequences(NGramModel(cycle[:-1], V, order=2), cycle, count=50, length=8, prompt_tokens=3, seed=1)
    assert found.shape == (50, 8)
    assert found.dtype == torch.int64
    assert ((found[:, 1:3] - found[:, :2]) % V == 1).all()
    assert ((found[:, 1:] - found[:, :-1]) % V == 1).double().mean() > 0.9


def test_the_cache_changes_nothing() -> None:

    model = gpt2(dropout=0.5)
    mixture = Mixture([model, NGramModel(TEXT, V)], [0.7, 0.3])

    class Whole(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return mixture.probabilities(tokens).log()

    options = {"count": 7, "length": 10, "batch_size": 3, "seed": 4}
    assert torch.equal(sample_sequences(mixture, TEXT, **options), sample_sequences(Whole(), TEXT, **options))
    assert model.training


def test_they_are_a_function_of_the_seed() -> None:
    model = gpt2()
    one, again, other = (sample_sequences(model, TEXT, count=4, length=10, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len({tuple(row.tolist()) for row in one}) == 4


def test_tokens_have_the_models_probabilities() -> None:
    counts = NGramModel(TEXT, V, order=2)
    found = sample_sequences(counts, TEXT, count=40_000, length=3, prompt_tokens=1, batch_size=20_000)
    after = found[found[:, 1] == 2, 2]
    expected = counts.probabilities(torch.tensor([[2]]))[0, 0]
    observed = torch.bincount(after, minlength=V) / len(after)
    assert (observed - expected).abs().max() < 0.02  # four standard deviations


def test_wrong_arguments() -> None:
    model = gpt2()
    with pytest.raises(ValueError, match="at most length=10"):
        sample_sequences(model, TEXT, count=1, length=11)
    with pytest.raises(ValueError, match="at least prompt_tokens=8 ids of a text, got 5"):
        sample_sequences(model, TEXT[:5], count=1, length=10)
    with pytest.raises(ValueError, match="prompt_tokens must be at most 4, got 8"):
        sample_sequences(model, TEXT, count=1, length=4)
