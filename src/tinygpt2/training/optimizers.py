"""Optimizers, and the learning rates of their groups."""

from typing import Any

import torch
from torch import Tensor, nn

from tinygpt2._internal.checks import check_bool, check_instance, shown
from tinygpt2.config import TrainingConfig
from tinygpt2.tokenizers.foreign import AnyTokenizer, as_tokenizer
from tinygpt2.tokenizers.spelling import Spelling, spelling_of
from tinygpt2.training.muon import Muon, hidden_matrices
from tinygpt2.training.spelling import Incidence, SharedUpdates, token_embeddings


def make_optimizer(
    model: nn.Module, config: TrainingConfig, tokenizer: AnyTokenizer | None = None, *, fused: bool = True
) -> torch.optim.Optimizer:
    """Returns AdamW or Muon over the model's trainable parameters.

    AdamW (Loshchilov and Hutter 2019) has PyTorch's fused kernel. Muon (Jordan 2024) is for the hidden matrices, the
    weights of the `nn.Linear` layers in an `nn.ModuleList`, as a model's blocks are; of ``c_attn``, query, key and
    value are one matrix each. Everything else, such as embeddings, the head and layer norms, has AdamW. Muon's updates
    have the size of AdamW's, so one learning rate and one weight decay suit both (Liu et al. 2025).

    With ``config.spelling`` the token embedding, and a head with a weight of its own, are trained as the sum of a
    vector for each token and vectors for the features of its spelling, such as its parts of one to four characters
    (after Bojanowski et al. 2017): a rare token learns from those that are spelled like it. The sum is in the optimizer
    alone; the model and its parameters are the same.

    Matrices and embeddings decay; biases and layer norms, which have one dimension, do so only with
    ``config.decay_all_parameters``.

    Args:
        model: Any module; parameters without ``requires_grad`` are omitted. With ``config.spelling`` a `GPT2Model`, or
            a module that has one.
        config: Its ``optimizer``, ``spelling``, ``learning_rate``, ``betas``, ``weight_decay`` and
            ``decay_all_parameters`` are read.
        tokenizer: Tokenizer of the data, for ``config.spelling``.
        fused: Whether AdamW has PyTorch's fused kernel, which is faster. Gradient scalers for fp16 that clip gradients,
            such as Lightning's, cannot use it. Muon and shared spelling have it in any case.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If the model has no trainable parameter, or no hidden matrix for Muon; or, with ``config.spelling``,
            no trainable token embedding, or the tokenizer is missing, has more ids than the model or does not say what
            its tokens are.

    >>> from torch import nn
    >>> config = TrainingConfig(weight_decay=0.1)
    >>> optimizer = make_optimizer(nn.Linear(3, 2), config)
    >>> groups = optimizer.param_groups
    >>> [(group["weight_decay"], len(group["params"])) for group in groups]
    [(0.1, 1), (0.0, 1)]
    """
    check_instance("model", model, nn.Module, "a torch.nn.Module")
    check_instance("config", config, TrainingConfig, "a TrainingConfig")
    fused = check_bool("fused", fused)
    tokenizer = None if tokenizer is None else as_tokenizer(tokenizer)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model has no trainable parameter: all have requires_grad=False")
    hidden = _hidden(model) if config.optimizer == "muon" else {}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in hidden if hidden[p] == n], "weight_decay": config.weight_decay, "matrices": n}
        for n in sorted(set(hidden.values()))
    ]
    embeddings = token_embeddings(model) if config.spelling else []
    others = [parameter for parameter in trainable if parameter not in {*hidden, *embeddings}]
    options: dict[str, Any] = {"lr": config.learning_rate, "betas": config.betas}
    if config.spelling:
        incidence = Incidence.of(_spelling(tokenizer, embeddings[0]), len(embeddings[0]), embeddings[0].device)
        groups.append({"params": embeddings, "weight_decay": config.weight_decay, "spelling": incidence.identity})
        return SharedUpdates(groups + _groups(others, config), incidence, **options)
    groups += _groups(others, config)
    return Muon(groups, **options) if hidden else torch.optim.AdamW(groups, **options, fused=fused)


def _hidden(model: nn.Module) -> dict[nn.Parameter, int]:
    hidden = hidden_matrices(model)
    if not hidden:
        raise ValueError(
            "the model has no hidden matrix for Muon: no trainable weight of an nn.Linear in an nn.ModuleList; pass "
            'optimizer="adamw"'
        )
    return hidden


def _spelling(tokenizer: AnyTokenizer | None, embedding: Tensor) -> Spelling:
    if tokenizer is None:
        raise ValueError(
            "spelling=True needs the tokenizer of the data; pass make_optimizer(model, config, tokenizer), or "
            "tokenizer=... to train, which then makes the optimizer"
        )
    ours = as_tokenizer(tokenizer)
    if ours.n_vocab > len(embedding):
        raise ValueError(
            f"the tokenizer has {ours.n_vocab} ids and the model {len(embedding)}; pass the tokenizer of its data"
        )
    spelling = spelling_of(ours)
    if spelling is None:
        raise ValueError(
            f"spelling=True needs the text of each token, which {shown(ours)} does not tell; pass a tokenizer of byte "
            "pairs or characters, or spelling=False"
        )
    return spelling


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
