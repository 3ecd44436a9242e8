"""Optimizers, and the learning rates of their groups."""

from typing import Any

import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import check_instance, shown
from tinygpt2.config import TrainingConfig
from tinygpt2.training.muon import Muon, hidden_matrices


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Returns AdamW or Muon over the model's trainable parameters.

    AdamW (Loshchilov and Hutter 2019) has PyTorch's fused kernel. Muon (Jordan 2024) is for the hidden matrices, the
    weights of the `nn.Linear` layers in an `nn.ModuleList`, as a model's blocks are; of ``c_attn``, query, key and
    value are one matrix each. Everything else, such as embeddings, the head and layer norms, has AdamW. Muon's updates
    have the size of AdamW's, so one learning rate and one weight decay suit both (Liu et al. 2025).

    Matrices and embeddings decay; biases and layer norms, which have one dimension, do so only with
    ``config.decay_all_parameters``.

    Args:
        model: Any module; parameters without ``requires_grad`` are omitted.
        config: Its ``optimizer``, ``learning_rate``, ``betas``, ``weight_decay`` and ``decay_all_parameters`` are read.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the model has no trainable parameter, or no hidden matrix for Muon.

    >>> from torch import nn
    >>> config = TrainingConfig(weight_decay=0.1)
    >>> optimizer = make_optimizer(nn.Linear(3, 2), config)
    >>> groups = optimizer.param_groups
    >>> [(group["weight_decay"], len(group["params"])) for group in groups]
    [(0.1, 1), (0.0, 1)]
    """
    check_instance("model", model, nn.Module, "a torch.nn.Module")
    check_instance("config", config, TrainingConfig, "a TrainingConfig")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter: all have requires_grad=False")
    if config.optimizer == "adamw":
        groups = _groups(trainable, config)
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)
    hidden = hidden_matrices(model)
    if not hidden:
        raise ValueError(
            "the model has no hidden matrix for Muon: no trainable weight of an nn.Linear in an nn.ModuleList; pass "
            'optimizer="adamw"'
        )
    groups = [
        {"params": [p for p in hidden if hidden[p] == n], "weight_decay": config.weight_decay, "matrices": n}
        for n in sorted(set(hidden.values()))
    ]
    groups += _groups([parameter for parameter in trainable if parameter not in hidden], config)
    return Muon(groups, lr=config.learning_rate, betas=config.betas)


def _groups(parameters: list[nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    """Returns AdamW's groups: the parameters that decay, and those that do not."""
    if config.decay_all_parameters:
        groups = [(parameters, config.weight_decay)]
    else:
        groups = [
            ([p for p in parameters if p.dim() >= 2], config.weight_decay),
            ([p for p in parameters if p.dim() < 2], 0.0),
        ]
    return [{"params": members, "weight_decay": decay} for members, decay in groups if members]


def names_of_trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """Returns the names of the parameters in each of the optimizer's groups.

    Raises:
        ValueError: If the optimizer updates something that is not a parameter of the model.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = [[names.get(id(parameter)) for parameter in group["params"]] for group in optimizer.param_groups]
    if any(name is None for group in groups for name in group):
        raise ValueError(
            "the optimizer has parameters that are not the model's; create it from model.parameters(), as "
            "make_optimizer(model, config) does"
        )
    return [[str(name) for name in group] for group in groups]


def checked_optimizer(make: object, model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Returns the optimizer that a user's function creates, with its initial learning rates recorded.

    Raises:
        TypeError: If it returns something else, or is not such a function.
        ValueError: If the optimizer updates something that is not a parameter of the model.
    """
    expected = "optimizer should be a function of (model, config) that returns an optimizer"
    fix = "pass for instance lambda model, config: torch.optim.SGD(model.parameters(), ...)"
    if not callable(make):
        raise TypeError(f"{expected}, but is a {type(make).__name__}; {fix}")
    try:
        optimizer = make(model, config)
    except TypeError as error:  # other arguments, for instance those of a class of PyTorch
        raise TypeError(f"{expected}, but {shown(make)} raised: {error}; {fix}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer should return a torch.optim.Optimizer, but returned {type(optimizer).__name__}")
    names_of_trained(model, optimizer)  # raises before anything is trained
    set_initial_rates(optimizer)
    return optimizer


def set_initial_rates(optimizer: torch.optim.Optimizer) -> None:
    """Records each group's learning rate as ``initial_lr``, as PyTorch's schedulers do: the schedule multiplies it."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", float(group["lr"]))


def set_rates(optimizer: torch.optim.Optimizer, multiplier: float) -> float:
    """Sets each group's learning rate to its ``initial_lr`` times a multiplier, and returns the first group's."""
    for group in optimizer.param_groups:
        rate = group["initial_lr"] * multiplier
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate
    return float(optimizer.param_groups[0]["lr"])
