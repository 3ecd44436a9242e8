"""The examination of a device: whether it computes what it should, and how fast."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinygpt2._internal.devices import computes_bf16
from tinygpt2._internal.random import random_states_kept
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.generation.decoding import decode
from tinygpt2.generation.options import Decoding
from tinygpt2.kernels.switch import without_kernels
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.modes import evaluation_mode
from tinygpt2.model.objective import NextTokenLoss
from tinygpt2.training.optimizers import make_optimizer
from tinygpt2.training.step import training_step

SHAPE = GPT2Config(vocab_size=331, context_length=64, n_layer=2, n_head=2, n_embd=128, dropout=0.0)
"""A model that is large enough for every kernel, with heads of the usual width, and quick."""

_ROWS, _STEPS, _PROMPT = 4, 5, 8
_TRAINING = TrainingConfig(learning_rate=1e-3)
_CLOSE, _CLOSE_IN_BF16 = 1e-3, 0.05  # relative differences that rounding explains; errors of a kernel are far larger


@dataclass(frozen=True)
class Finding:
    """What a device computed, beside the plain computation in fp64 on the CPU.

    Attributes:
        name: What was computed.
        difference: Relative difference; NaN if it failed or was not a number.
        most: What rounding explains.
    """

    name: str
    difference: float
    most: float = _CLOSE

    @property
    def right(self) -> bool:
        """Whether rounding explains the difference."""
        return self.difference <= self.most


def examine(device: torch.device) -> Iterator[Finding]:
    """Yields what a device makes of a model's loss, its gradients, some training steps, and its generation."""
    with random_states_kept(device):
        torch.manual_seed(0)
        model = GPT2Model(SHAPE)
        ids = torch.randint(SHAPE.vocab_size, (_ROWS, SHAPE.context_length + 1))
    batch = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    with without_kernels():
        expected = _trained(copy.deepcopy(model).double(), batch)
    found = _trained(copy.deepcopy(model).to(device), batch)
    yield Finding("loss", _difference(found.losses[:1], expected.losses[:1]))
    yield Finding("gradients", _difference(found.gradients, expected.gradients))
    yield Finding("training", _difference(found.losses, expected.losses))
    yield Finding("generation", _regret(expected.model, found.model, ids[:, :_PROMPT]))
    if device.type == "cuda" and computes_bf16(device):
        rounded = _trained(copy.deepcopy(model).to(device), batch, precision="bf16")
        yield Finding("training, bf16", _difference(rounded.losses, expected.losses), _CLOSE_IN_BF16)


@dataclass(frozen=True)
class _Trained:
    """A model after a few steps, the loss of each, and the gradients of the first."""

    model: GPT2Model
    losses: Tensor
    gradients: Tensor


def _trained(model: GPT2Model, batch: tuple[Tensor, Tensor], precision: str = "fp32") -> _Trained:
    objective, optimizer = NextTokenLoss(model.train()), make_optimizer(model, _TRAINING)
    losses, gradients = list[float](), torch.zeros(0)
    for step in range(_STEPS):
        result = training_step(objective, optimizer, [batch], max_grad_norm=None, precision=precision)  # type: ignore[arg-type]
        losses.append(result.loss)
        if not step:
            gradients = _flat(model)
    return _Trained(model, torch.tensor(losses, dtype=torch.float64), gradients)


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None])


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _regret(expected: GPT2Model, model: GPT2Model, prompts: Tensor) -> float:
    """Returns by how much the tokens that a model chose are less likely than the likeliest, at most, in nats.

    Two tokens that are about as likely may change places by rounding, so it does not matter which ones were chosen.
    """
    decoding = Decoding(max_new_tokens=SHAPE.context_length - _PROMPT)
    written = torch.stack([step.ids.cpu() for step in decode(model.eval(), prompts.to(model.device), decoding)], dim=1)
    tokens = torch.cat([prompts, written], dim=1)
    with without_kernels(), torch.no_grad(), evaluation_mode(expected):
        likely = expected(tokens[:, :-1])[:, _PROMPT - 1 :].log_softmax(dim=-1)
    chosen = likely.gather(2, written.unsqueeze(2)).squeeze(2)
    regret = float((likely.amax(dim=-1) - chosen).max())
    return regret if math.isfinite(regret) else math.nan
