"""A checkpoint and a run: what of the run is saved, whether they fit, and how the run resumes from it."""

import json
import logging
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from tinygpt2.errors import IncompatibleRunError
from tinygpt2.training.checkpoints.format import Checkpoint, OptimizerRecord
from tinygpt2.training.optimizers import names_of_trained
from tinygpt2.training.state import TrainState

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = ("epochs", "max_steps", "eval_every", "eval_batches", "sample_prompt", "sample_tokens")
"""Fields of `TrainingConfig` that may differ in a resumed run: how long it is, and what it reports."""

_OPTIMIZER = "optimizer."

Options = list[dict[str, Any]]


def group_options(optimizer: torch.optim.Optimizer) -> Options:
    """Returns the options of each of an optimizer's groups, as far as JSON can hold them.

    The rate is left out: it is set anew at each step, from ``initial_lr``.
    """
    left_out = ("params", "lr")
    return [
        {key: json.loads(json.dumps(value)) for key, value in group.items() if key not in left_out and _is_json(value)}
        for group in optimizer.param_groups
    ]


def _is_json(value: object) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True


def optimizer_record(state: TrainState, made: Options) -> OptimizerRecord:
    """Returns what a run's optimizer is, apart from its tensors; ``made`` are its options as it was made."""
    values = {
        name: {key: value for key, value in of_parameter.items() if not isinstance(value, Tensor)}
        for name, of_parameter in _states(state).items()
    }
    return OptimizerRecord(
        type=_type_name(state.optimizer),
        names=names_of_trained(state.model, state.optimizer),
        made=made,
        options=group_options(state.optimizer),
        values={name: of_parameter for name, of_parameter in values.items() if of_parameter},
    )


def optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """Returns the optimizer's tensors, by the names of their parameters."""
    return {
        f"{_OPTIMIZER}{name}.{key}": value
        for name, of_parameter in _states(state).items()
        for key, value in of_parameter.items()
        if isinstance(value, Tensor)
    }


def _states(state: TrainState) -> dict[str, dict[str, Any]]:
    """Returns the optimizer's state of each parameter that has one; one that never had a gradient has none."""
    names = [name for group in names_of_trained(state.model, state.optimizer) for name in group]
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    return {
        name: state.optimizer.state[parameter]
        for name, parameter in zip(names, parameters, strict=True)
        if parameter in state.optimizer.state
    }


def _type_name(optimizer: torch.optim.Optimizer) -> str:
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"


def environment(device: torch.device) -> dict[str, Any]:
    """Returns what the bits of a result depend on, apart from the run itself."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def compare(
    checkpoint: Checkpoint, state: TrainState, made: Options, data: Mapping[str, Any], *, allow_changes: bool
) -> None:
    """Raises `IncompatibleRunError` with all differences if the run of a checkpoint is another one than this.

    Args:
        checkpoint: Where the run is to resume.
        state: The run as it would begin.
        made: The options of its optimizer's groups.
        data: Its data.
        allow_changes: Whether other data, configurations, optimizer's options, and another dropout, may be.
    """
    fixed = [*_of_model(checkpoint, state), *_of_optimizer(checkpoint, state)]
    changes = list(_of_configuration(checkpoint, state, made, data))
    if fixed or (changes and not allow_changes):
        fix = "Pass what the run began with, or begin a new run in another directory"
        if not fixed:
            fix += ", or resume with the changes: allow_changes=True, on the command line --allow-changes"
        raise IncompatibleRunError(checkpoint.path, [*fixed, *changes], fix=fix)
    for text in changes:
        logger.warning("resuming with a change: %s", text)
    for text in _differences("the", checkpoint.record.environment, environment(state.model.device)).values():
        logger.warning("the resumed run may differ in the last digits from an uninterrupted one: %s", text)


def _of_model(checkpoint: Checkpoint, state: TrainState) -> Iterator[str]:
    shapes = _differences("the model's", asdict(checkpoint.model_config), asdict(state.model.config))
    shapes.pop("dropout", None)
    yield from shapes.values()
    if shapes:
        return  # the weights differ as these say
    both = checkpoint.weights, state.model.state_dict()
    old, new = ({name: _described(weight) for name, weight in weights.items()} for weights in both)
    differing = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    texts = [f"{name} was {old.get(name, 'absent')} and is {new.get(name, 'absent')}" for name in differing]
    yield from _listed("weights", texts)


def _described(weight: Tensor) -> str:
    return f"{str(weight.dtype).removeprefix('torch.')} {tuple(weight.shape)}"


def _of_optimizer(checkpoint: Checkpoint, state: TrainState) -> Iterator[str]:
    record = checkpoint.record.optimizer
    if record.type != (name := _type_name(state.optimizer)):
        yield f"the optimizer was {record.type} and is {name}"
    old, new = record.names, names_of_trained(state.model, state.optimizer)
    before, now = ({name for group in groups for name in group} for groups in (old, new))
    yield from _listed("parameters", [f"{name} was trained and is not" for name in sorted(before - now)])
    yield from _listed("parameters", [f"{name} was not trained and is" for name in sorted(now - before)])
    if before == now and [list(group) for group in old] != new:
        yield "the optimizer's groups had other parameters, or in another order"


def _of_configuration(
    checkpoint: Checkpoint, state: TrainState, made: Options, data: Mapping[str, Any]
) -> Iterator[str]:
    record = checkpoint.record
    dropout = _differences("the model's", asdict(checkpoint.model_config), asdict(state.model.config)).get("dropout")
    if dropout:
        yield dropout
    training = _differences("the", asdict(record.training_config), asdict(state.config))
    yield from (text for name, text in training.items() if name not in FREE_TO_CHANGE)
    if len(record.optimizer.made) == len(made):
        for i, (old, new) in enumerate(zip(record.optimizer.made, made, strict=True)):
            changed = _differences(f"the optimizer's group {i}'s", old, new)
            # Said already: the options that make_optimizer takes from the configuration.
            yield from (text for name, text in changed.items() if name not in {"initial_lr", *training})
            if "initial_lr" in changed and "learning_rate" not in training:
                yield changed["initial_lr"]
    for part in ("training", "validation"):
        yield from _of_data(part, record.data.get(part), data.get(part))


def _of_data(part: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _differences(f"the {part} data's", old, new).values()
    elif old != new:
        yield f"there was no {part} data and now there is" if new else f"there was {part} data and now there is none"


def _listed(what: str, differences: Sequence[str], most: int = 8) -> list[str]:
    """Returns differences of many like parts, of which a few stand for all where there are too many to read."""
    more = len(differences) - most
    return [*differences[:most], *([f"and {more} more {what}"] if more > 0 else [])]


def _differences(whose: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{whose} {name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def restore(state: TrainState, checkpoint: Checkpoint, made: Options) -> None:
    """Makes a fresh training state that of a checkpoint with which it was compared.

    An option of the optimizer's groups is as it was saved, changed by a callback for instance, unless the optimizer
    was now made with another one.
    """
    state.model.load_state_dict(checkpoint.weights)
    _restore_optimizer(state, checkpoint, made)
    state.progress = checkpoint.record.progress
    state.history = checkpoint.record.history


def _restore_optimizer(state: TrainState, checkpoint: Checkpoint, made: Options) -> None:
    record, optimizer = checkpoint.record.optimizer, state.optimizer
    names = [name for group in names_of_trained(state.model, optimizer) for name in group]
    saved: dict[str, dict[str, Any]] = {name: dict(values) for name, values in record.values.items()}
    for full_name, tensor in checkpoint.tensors.items():
        name, _, key = full_name.removeprefix(_OPTIMIZER).rpartition(".")
        saved.setdefault(name, {})[key] = tensor.clone()  # what safetensors gives lies in the file
    content = optimizer.state_dict()
    content["state"] = {i: saved[name] for i, name in enumerate(names) if name in saved}
    optimizer.load_state_dict(content)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        for key, value in saved.get(name, {}).items():
            now = optimizer.state[parameter][key]
            if isinstance(value, Tensor) and now.dtype != value.dtype:  # load_state_dict gave it the parameter's
                optimizer.state[parameter][key] = value.to(now.device)
    for group, was_made, is_made, was in zip(optimizer.param_groups, record.made, made, record.options, strict=True):
        for key, value in was.items():
            if key in group and was_made.get(key) == is_made.get(key):
                group[key] = tuple(value) if isinstance(group[key], tuple) else value
