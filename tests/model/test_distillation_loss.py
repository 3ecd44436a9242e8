"""The loss of a student."""

import pytest
import torch
from torch import Tensor

from tinygpt2 import DistillationLoss, GPT2Config, GPT2Model, KVCache, Mixture, NGramModel
from tinygpt2.model import objective as objectives

V = 7
SHAPE = GPT2Config(vocab_size=V, context_length=6, n_layer=1, n_head=2, n_embd=8, dropout=0.0)


class Subclass(GPT2Model):
    """A model of which only the call itself is known."""

    def forward(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        return 2 * super().forward(tokens, cache)


def teacher() -> Mixture:
    torch.manual_seed(1)
    first = GPT2Model(GPT2Config(**{**vars(SHAPE), "dropout": 0.5}))
    return Mixture([first, NGramModel(list(range(V)) * 5, V)], [0.7, 0.3]).train()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs, targets = torch.randint(V, (2, 5, 6), generator=generator)
    targets[0, 2:] = -100
    targets[3] = -100
    return inputs, targets


@pytest.mark.parametrize("of", [GPT2Model, Subclass])
@pytest.mark.parametrize("at_once", [1, 2 * 6 * V, 2**24])
def test_it_is_the_cross_entropy_against_the_teacher(
    of: type[GPT2Model], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectives, "_PROBABILITIES_AT_ONCE", at_once)
    torch.manual_seed(0)
    model, taught = of(SHAPE), teacher()
    inputs, targets = batch()
    counts = targets != -100
    plain = -(taught.probabilities(inputs) * model(inputs).log_softmax(-1)).sum(-1)[counts].sum() / 9
    expected = torch.autograd.grad(plain, list(model.parameters()))
    loss = DistillationLoss(model, taught)(inputs, targets, 1 / 9)
    torch.testing.assert_close(loss, plain)
    for found, wanted in zip(torch.autograd.grad(loss, list(model.parameters())), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)


def test_the_teacher_stays_as_it_is_and_is_no_part() -> None:
    taught, model = teacher(), GPT2Model(SHAPE)
    objective = DistillationLoss(model, taught)
    inputs, targets = batch()
    first, second = objective(inputs, targets), objective(inputs, targets)
    assert first == second  # the teacher has no dropout meanwhile
    first.backward()
    assert all(module.training for module in taught.modules())
    assert all(parameter.grad is None for parameter in taught.parameters())
    assert list(objective.parameters()) == list(model.parameters())


def test_wrong_arguments() -> None:
    model = GPT2Model(SHAPE)
    with pytest.raises(TypeError, match=r"teacher must be a torch.nn.Module"):
        DistillationLoss(model, "teacher")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the teacher has a vocabulary of 3 tokens and the model one of 7"):
        DistillationLoss(model, NGramModel([0], 3))
    objective = DistillationLoss(model, teacher())
    inputs, targets = batch()
    with pytest.raises(ValueError, match=r"targets must have the shape of inputs, \(5, 6\), got \(5, 5\)"):
        objective(inputs, targets[:, 1:])
    with pytest.raises(ValueError, match="targets must be ids of the vocabulary"):
        objective(inputs, targets.clamp(min=V))
