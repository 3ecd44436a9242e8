"""The training objectives: the only definitions of a model's loss."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from tinygpt2._internal.checks import check_instance
from tinygpt2.kernels.cross_entropy import checked_targets, linear_cross_entropy
from tinygpt2.kernels.soft_cross_entropy import linear_soft_cross_entropy, soft_cross_entropy
from tinygpt2.kernels.switch import is_plain_computation
from tinygpt2.losses import IGNORE_INDEX, summed_cross_entropy
from tinygpt2.model.checks import checked_scale
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.mixture import probabilities_of, vocab_size_in
from tinygpt2.model.modes import evaluation_mode

_PROBABILITIES_AT_ONCE = 2**24  # of a teacher, in 64 MB


def vocab_size_of(module: nn.Module) -> int | None:
    """Returns the size of the vocabulary of the `GPT2Model` in a module; ``None`` if there is none."""
    return next((part.config.vocab_size for part in module.modules() if isinstance(part, GPT2Model)), None)


class NextTokenLoss(nn.Module):
    """The summed negative log-likelihood of the next tokens under a model, as a module.

    `train` and `evaluate` call it; in your own loop, wrap it in ``torch.compile``, ``DistributedDataParallel`` or
    ``fully_shard``. The head and the loss are computed together, without ever holding all logits, where this is
    provably equivalent to calling the model. Otherwise the model is called: if it is a subclass with its own
    ``forward``, or if it or its head has hooks, adapters or other types.

    Args:
        model: Any module from tokens (B, T) to logits (B, T, V), such as a `GPT2Model`.

    Raises:
        TypeError: If it is not a module.

    >>> import torch
    >>> from tinygpt2 import GPT2Config, GPT2Model, cross_entropy_loss
    >>> model = GPT2Model(GPT2Config(
    ...     vocab_size=9, context_length=8, n_layer=1, n_head=2, n_embd=4,
    ...     dropout=0.0,
    ... ))
    >>> inputs, targets = torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]])
    >>> loss = NextTokenLoss(model)(inputs, targets, 1 / targets.numel())
    >>> torch.allclose(loss, cross_entropy_loss(model(inputs), targets))
    True
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        check_instance("model", model, nn.Module, "a torch.nn.Module")
        self.model = model

    @override
    def forward(self, inputs: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
        """Returns ``scale`` times the summed loss in nats, a scalar.

        Args:
            inputs: (B, T) int64.
            targets: (B, T), of any integer type; targets of -100 do not count.
            scale: For instance 1 over the number of targets that count in all micro-batches of a step.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If the model cannot be called with ``inputs``, the shapes do not fit, the targets are not
                integers, or, on a CPU, one is outside the vocabulary.
        """
        model, plain = self.model, is_plain_computation()
        if plain:  # otherwise a value may be symbolic
            scale = checked_scale(targets, scale)
        if plain and isinstance(model, GPT2Model) and model.splits() and not model.is_quantized:
            hidden = model.hidden_states(inputs)
            return linear_cross_entropy(hidden, model.head_weight, targets, reduction="sum", scale=scale)
        return summed_cross_entropy(model(inputs), targets) * scale


class DistillationLoss(nn.Module):
    """The summed cross-entropy of a model against the probabilities of a teacher, as a module: its student's loss.

    The model learns the teacher's probability of every token, not only which token comes next in a text (Hinton et al.
    2015). Its signature is that of `NextTokenLoss`; of the targets it matters only which ones count. The teacher reads
    the same inputs, without dropout and without gradients. It is no part of the module: it has no parameters here, and
    stays on its device, which must be that of the model.

    The loss is at least the teacher's entropy, so it does not fall to zero.

    Args:
        model: The student, any module from tokens (B, T) to logits (B, T, V), such as a `GPT2Model`.
        teacher: Another one of the same vocabulary, such as a `Mixture`.

    Raises:
        TypeError: If one of them is not a module.
        ValueError: If their vocabularies have different sizes.

    >>> import torch
    >>> from tinygpt2 import GPT2Config, GPT2Model, NGramModel
    >>> model = GPT2Model(GPT2Config(
    ...     vocab_size=3, context_length=8, n_layer=1, n_head=2, n_embd=4,
    ...     dropout=0.0,
    ... ))
    >>> teacher = NGramModel([0, 1, 0, 1, 0, 2], vocab_size=3, order=2)
    >>> inputs, targets = torch.tensor([[0, 1]]), torch.tensor([[1, 0]])
    >>> loss = DistillationLoss(model, teacher)(inputs, targets)
    >>> log_probabilities = model(inputs).log_softmax(dim=-1)
    >>> plain = -(teacher(inputs).exp() * log_probabilities).sum()
    >>> torch.allclose(loss, plain)
    True
    """

    def __init__(self, model: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        check_instance("model", model, nn.Module, "a torch.nn.Module")
        check_instance("teacher", teacher, nn.Module, "a torch.nn.Module")
        sizes = vocab_size_of(model), vocab_size_in(teacher)
        if None not in sizes and sizes[0] != sizes[1]:
            raise ValueError(
                f"the teacher has a vocabulary of {sizes[1]} tokens and the model one of {sizes[0]}; a teacher needs "
                "the tokenizer of its student"
            )
        self.model = model
        self._teacher = (teacher,)  # in a tuple, so that it is no submodule

    @override
    def forward(self, inputs: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
        """Returns ``scale`` times the summed loss in nats, a scalar.

        Args:
            inputs: (B, T) int64.
            targets: (B, T), of any integer type; positions whose target is -100 do not count.
            scale: As in `NextTokenLoss`.

        Raises:
            TypeError: If an argument is of the wrong type.
            ValueError: If the model or the teacher cannot be called with ``inputs``, or the targets do not fit.
        """
        model, plain = self.model, is_plain_computation()
        if plain:
            check_instance("inputs", inputs, Tensor, "a tensor of ids, (B, T)")
            scale = checked_scale(targets, scale)
        if inputs.shape != targets.shape:
            raise ValueError(
                f"targets must have the shape of inputs, {tuple(inputs.shape)}, got {tuple(targets.shape)}"
            )
        weight: Tensor | None = None
        if plain and isinstance(model, GPT2Model) and model.splits() and not model.is_quantized:
            rows, weight = model.hidden_states(inputs), model.head_weight  # (B, T, C), (V, C)
        else:
            rows = model(inputs)  # (B, T, V)
        vocab_size = rows.shape[-1] if weight is None else len(weight)
        factors = (checked_targets(targets, vocab_size, IGNORE_INDEX) != IGNORE_INDEX).to(torch.float32) * scale
        at_once = max(1, _PROBABILITIES_AT_ONCE // max(1, inputs.shape[1] * vocab_size))
        losses = []
        for part, sequences, counted in zip(
            *(torch.split(each, at_once) for each in (rows, inputs, factors)), strict=True
        ):
            wanted: Tensor = _taught(self._teacher[0], sequences).flatten(0, 1)  # pyright: ignore[reportCallIssue]
            if weight is None:
                losses.append(soft_cross_entropy(part.flatten(0, 1), wanted, counted.flatten()))
            else:
                losses.append(linear_soft_cross_entropy(part.flatten(0, 1), weight, wanted, counted.flatten()))
        return torch.stack(losses).sum()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _taught(teacher: nn.Module, inputs: Tensor) -> Tensor:
    """Returns the probabilities that a teacher gives, (B, T, V), without dropout and gradients."""
    with torch.no_grad(), evaluation_mode(teacher):
        return probabilities_of(teacher, inputs)
