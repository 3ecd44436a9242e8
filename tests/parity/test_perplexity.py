"""The perplexity of a text, held against transformers' GPT-2 with the recipe of its documentation.

The recipe is "Perplexity of fixed-length models": windows of ``max_length`` tokens slide by ``stride``, and the labels
of tokens that an earlier window had are -100. Theirs shifts the labels inside, so the last position of each window
predicts nothing: for windows in which ``context_length`` tokens are inputs, theirs need one more.
"""

import math
from typing import Any

import pytest
import torch

from tinygpt2 import CharTokenizer, GPT2Config, GPT2Model, evaluate_text, score
from tinygpt2.formats.huggingface import state_from_huggingface

transformers = pytest.importorskip("transformers")

LETTERS = CharTokenizer("abcdefgh \n")
LENGTH = 16
TEXT = "a bad cab had a bed\nfeed a deaf hag beef\n" * 4


@pytest.fixture(scope="module")
def theirs() -> Any:  # noqa: ANN401 - not typed
    """A model of transformers with a position more than ours uses."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=LETTERS.n_vocab, n_positions=LENGTH + 1, n_layer=2, n_head=2, n_embd=24, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.fixture(scope="module")
def ours(theirs: Any) -> GPT2Model:  # noqa: ANN401
    config = GPT2Config(vocab_size=LETTERS.n_vocab, context_length=LENGTH, n_layer=2, n_head=2, n_embd=24)
    state = theirs.state_dict()
    name = "transformer.wpe.weight"
    state[name] = state[name][:LENGTH]
    model = GPT2Model(config)
    model.load_state_dict(state_from_huggingface(state, config))
    return model.eval()


def by_their_recipe(model: Any, ids: torch.Tensor, max_length: int, stride: int) -> tuple[float, int]:  # noqa: ANN401
    """Returns the sum of the losses in nats, and the number of tokens."""
    nats, count, previous_end = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + max_length, ids.shape[1])
        labels = ids[:, begin:end].clone()
        labels[:, : previous_end - begin] = -100
        with torch.no_grad():
            loss = model(ids[:, begin:end], labels=labels).loss
        predicted = int((labels[:, 1:] != -100).sum())
        nats, count, previous_end = nats + loss.item() * predicted, count + predicted, end
        if end == ids.shape[1]:
            break
    return nats, count


@pytest.mark.parametrize("stride", [1, 5, 8, LENGTH - 1, LENGTH])
def test_the_perplexity_is_that_of_their_recipe(theirs: Any, ours: GPT2Model, stride: int) -> None:  # noqa: ANN401
    ids = torch.tensor([[LETTERS.eot_token, *LETTERS.encode_ordinary(TEXT)]])
    nats, count = by_their_recipe(theirs, ids, LENGTH + 1, stride)
    result = evaluate_text(ours, LETTERS, TEXT, stride=stride)
    assert result.tokens == count == len(TEXT)
    assert result.loss == pytest.approx(nats / count, rel=1e-5)
    assert result.perplexity == pytest.approx(math.exp(nats / count), rel=1e-4)
    assert result.word_perplexity == pytest.approx(math.exp(nats / len(TEXT.split())), rel=1e-3)
    assert -sum(each.log_probability for each in score(ours, LETTERS, TEXT, stride=stride)) == pytest.approx(nats)


def test_a_longer_context_is_worth_something(ours: GPT2Model) -> None:
    """Otherwise the strides above could not be told apart."""
    losses = [evaluate_text(ours, LETTERS, TEXT, stride=stride).loss for stride in (1, 5, 8, LENGTH)]
    assert len({round(loss, 4) for loss in losses}) == 4
