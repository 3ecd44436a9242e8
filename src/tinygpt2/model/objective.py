"""The training objective: the only definition of a model's loss."""

from torch import Tensor, nn
from typing_extensions import override

from tinygpt2._internal.checks import check_instance
from tinygpt2.kernels.cross_entropy import linear_cross_entropy
from tinygpt2.kernels.switch import is_plain_computation
from tinygpt2.losses import summed_cross_entropy
from tinygpt2.model.checks import checked_scale
from tinygpt2.model.gpt2 import GPT2Model


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
        if plain and isinstance(model, GPT2Model) and model.splits():
            hidden = model.hidden_states(inputs)
            return linear_cross_entropy(hidden, model.head_weight, targets, reduction="sum", scale=scale)
        return summed_cross_entropy(model(inputs), targets) * scale
