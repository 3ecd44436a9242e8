"""Mixtures of models."""

import pytest
import torch
from torch import nn

from tinygpt2 import GPT2Config, GPT2Model, Mixture, NGramModel, evaluate, evaluate_text, make_dataloader
from tinygpt2.tokenizers.characters import CharTokenizer

TEXT = "abcabcaabbcc" * 5
V = 4


def gpt2(seed: int = 0, *, context_length: int = 8, vocab_size: int = V) -> GPT2Model:
    torch.manual_seed(seed)
    shape = GPT2Config(vocab_size=vocab_size, context_length=context_length, n_layer=1, n_head=2, n_embd=8, dropout=0.5)
    return GPT2Model(shape)


def test_probabilities_are_the_weighted_mean_without_dropout() -> None:
    one, two, counts = gpt2(0), gpt2(1), NGramModel([0, 1, 2, 0, 2, 1, 3], V)
    inputs = torch.tensor([[0, 1, 2], [2, 0, 1]])
    mixture = Mixture([one, Mixture([two, counts], [0.25, 0.75])], [0.6, 0.4]).train()
    found = mixture(inputs)
    assert mixture.training
    assert one.training
    mixture.eval()
    with torch.no_grad():
        parts = one(inputs).softmax(-1), two(inputs).softmax(-1), counts(inputs).exp()
    expected = sum(weight * part for weight, part in zip((0.6, 0.1, 0.3), parts, strict=True))
    torch.testing.assert_close(found.exp(), expected)
    assert not found.requires_grad
    assert torch.equal(Mixture([one])(inputs), one(inputs).softmax(-1).log())


def test_any_module_can_be_mixed() -> None:
    class Constant(nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*tokens.shape, V, dtype=torch.bfloat16)

    probabilities = Mixture([Constant(), NGramModel([0], V, order=1)], [0.5, 0.5]).probabilities(torch.tensor([[1]]))
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities[0, 0], torch.tensor([0.375 + 0.0625, *[0.125 + 0.0625] * 3]))


def test_it_can_be_evaluated() -> None:
    tokenizer = CharTokenizer.from_text(TEXT)
    ids = tokenizer.encode_ordinary(TEXT)
    size = tokenizer.n_vocab
    mixture = Mixture([gpt2(vocab_size=size), gpt2(context_length=6, vocab_size=size), NGramModel(ids, size)])
    assert mixture.config.context_length == 6
    of_text = evaluate_text(mixture, tokenizer, TEXT)  # type: ignore[arg-type] # what has its attributes will do
    of_loader = evaluate(mixture, make_dataloader(ids, batch_size=4, context_length=6))
    assert of_text.loss == pytest.approx(of_loader.loss, rel=0.1)


def test_wrong_models_and_weights() -> None:
    model, counts = gpt2(), NGramModel([0, 1], V)
    with pytest.raises(ValueError, match="at least one model, got none"):
        Mixture([])
    with pytest.raises(TypeError, match=r"models\[1\] must be a torch.nn.Module"):
        Mixture([model, "another"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="2 models and 1 weights"):
        Mixture([model, counts], [1.0])
    with pytest.raises(ValueError, match=r"must sum to 1, got .*, with a sum of 1\.2"):
        Mixture([model, counts], [0.7, 0.5])
    with pytest.raises(ValueError, match=r"weights\[0\] must be"):
        Mixture([model, counts], [-0.5, 1.5])
    with pytest.raises(ValueError, match="vocabularies of 4 and 5 tokens"):
        Mixture([model, NGramModel([0, 1], 5)])
    with pytest.raises(AttributeError, match="no attribute 'config'"):
        _ = Mixture([counts]).config
