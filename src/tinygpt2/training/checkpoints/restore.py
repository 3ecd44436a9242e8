"""Comparison of a checkpoint with a run, and restoration of the run from it."""

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from tinygpt2._internal.checks import check_json, shown
from tinygpt2.data.batches import Batch
from tinygpt2.data.identity import sha256_of
from tinygpt2.data.passes import Passes
from tinygpt2.distributed.ranks import Ranks
from tinygpt2.distributed.sharding import load_whole, share_of
from tinygpt2.errors import IncompatibleRunError
from tinygpt2.training.checkpoints.format import Checkpoint, OptimizerRecord
from tinygpt2.training.optimizers import names_of_trained
from tinygpt2.training.state import TrainState

logger = logging.getLogger(__name__)

FREE_TO_CHANGE = (
    "epochs", "max_steps", "ema_decay", "eval_every", "eval_batches", "sample_prompt", "sample_tokens", "sharding",
)  # fmt: skip
"""Fields of `TrainingConfig` that may differ in a resumed run: its length, what it averages, reports, and divides."""

_OPTIMIZER, _GROUP = "optimizer.", "optimizer group "

_SHAPING = ("amsgrad", "centered", "momentum")
"""Options of PyTorch's optimizers that decide, by being zero or not, which state they have."""


def _group_options(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Returns the options of each of an optimizer's groups that JSON can hold.

    The learning rate is omitted: each step sets it, from ``initial_lr``.
    """
    left_out = ("params", "lr")
    return [
        {key: check_json(key, value) for key, value in group.items() if key not in left_out and _is_json(value)}
        for group in optimizer.param_groups
    ]


def _is_json(value: object) -> bool:
    try:
        check_json("", value)
    except TypeError:
        return False
    return True


def optimizer_record(state: TrainState, made: OptimizerRecord | None = None) -> OptimizerRecord:
    """Returns the record of a run's optimizer, which holds all but its tensors.

    Args:
        state: State of the run.
        made: The record when the optimizer was created; ``None`` if that is now.

    Raises:
        TypeError: If the optimizer has a state that a checkpoint cannot hold.
    """
    values: dict[str, dict[str, Any]] = {}
    for name, of_parameter in _states(state).items():
        for key, value in of_parameter.items():
            if isinstance(value, Tensor):
                continue
            if not _is_json(value):
                kind = type(value).__name__
                raise TypeError(f"{key} in the optimizer's state of {name} is a {kind}, which a checkpoint cannot hold")
            values.setdefault(name, {})[key] = value
    options = _group_options(state.optimizer)
    before = [] if made is None else list(made.made)
    frozen = [name for name, parameter in state.model.named_parameters() if not parameter.requires_grad]
    return OptimizerRecord(
        type=_type_name(state.optimizer),
        frozen=frozen if made is None else made.frozen,
        names=names_of_trained(state.model, state.optimizer),
        made=before + options[len(before) :],  # a callback may have added a group
        options=options,
        values=values,
    )


def optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    """Returns the optimizer's tensors by the names of their parameters, and those among the options of its groups."""
    of_parameters = {
        f"{_OPTIMIZER}{name}.{key}": value
        for name, of_parameter in _states(state).items()
        for key, value in of_parameter.items()
        if isinstance(value, Tensor)
    }
    return of_parameters | {
        f"{_GROUP}{i}.{key}": value
        for i, group in enumerate(state.optimizer.param_groups)
        for key, value in group.items()
        if isinstance(value, Tensor) and key != "lr"
    }


def _states(state: TrainState) -> dict[str, dict[str, Any]]:
    """Returns the optimizer's state of each parameter that has one; a parameter without gradients has none."""
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
    """Returns the environment that the exact bits of a result depend on."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }


def compare(
    checkpoint: Checkpoint, state: TrainState, made: OptimizerRecord, data: Mapping[str, Any], *, allow_changes: bool
) -> None:
    """Raises `IncompatibleRunError` with all differences if a checkpoint is from another run.

    Args:
        checkpoint: Checkpoint to resume from.
        state: State of the run as it would begin.
        made: Record of its optimizer.
        data: Identity of its data and of its teacher.
        allow_changes: Whether the data, the configuration, the optimizer's options and the dropout may differ.
    """
    fixed = [*_of_model(checkpoint, state), *_of_optimizer(checkpoint.record.optimizer, made)]
    changes = list(_of_configuration(checkpoint, state, made, data))
    if fixed or (changes and not allow_changes):
        fix = "Pass what the run began with, or start a new run in another directory"
        if not fixed:
            fix += ", or resume with the changes: allow_changes=True"
        raise IncompatibleRunError(checkpoint.path, [*fixed, *changes], fix=fix)
    for text in changes:
        logger.warning("resuming with a change: %s", text)
    for text in _differences("the", checkpoint.record.environment, environment(state.model.device)).values():
        logger.warning("the resumed run may differ in the last digits from an uninterrupted one: %s", text)


def _of_model(checkpoint: Checkpoint, state: TrainState) -> Iterator[str]:
    shapes = _differences("the model's", asdict(checkpoint.model_config), asdict(state.model.config))
    shapes.pop("dropout", None)
    yield from shapes.values()
    old, new = checkpoint.weights, state.model.state_dict()
    if shapes:  # other names and shapes follow from these, but other types do not
        old, new = ({name: weights[name] for name in old.keys() & new.keys()} for weights in (old, new))
    for name in sorted(old.keys() | new.keys()):
        before, now = (_described(weights.get(name), shape=not shapes) for weights in (old, new))
        if before != now:
            yield f"{name} was {before} and is {now}"


def _described(weight: Tensor | None, *, shape: bool) -> str:
    if weight is None:
        return "absent"
    return str(weight.dtype).removeprefix("torch.") + (f" {tuple(weight.shape)}" if shape else "")


def _of_optimizer(old: OptimizerRecord, new: OptimizerRecord) -> Iterator[str]:
    if old.type != new.type:
        yield f"the optimizer was {old.type:.100} and is {new.type}"
    before, now = ({name for group in record.names for name in group} for record in (old, new))
    yield from (f"{name} was trained and is not" for name in sorted(before - now))
    yield from (f"{name} was not trained and is" for name in sorted(now - before))
    for name in sorted(set(old.frozen) ^ set(new.frozen)):
        if name not in before ^ now:  # already reported
            was, is_now = ("frozen", "not") if name in old.frozen else ("not frozen", "frozen")
            yield f"{name} was {was} and is {is_now}"
    if before == now and old.names != new.names:
        yield "the optimizer's groups had other parameters or another order"
    yield from (text for _, text, shaping in _of_options(old, new) if shaping)


def _of_options(old: OptimizerRecord, new: OptimizerRecord) -> Iterator[tuple[str, str, bool]]:
    """Yields each option that differs, the difference, and whether the optimizer's state depends on it."""
    if old.type != new.type or len(old.made) != len(new.made):
        return
    for i, (before, now) in enumerate(zip(old.made, new.made, strict=True)):
        for name, text in _differences(f"the optimizer's group {i}'s", before, now).items():
            if name == "spelling":  # a hash
                yield name, "the tokenizer had tokens of other spellings", True
            else:
                yield name, text, name in _SHAPING and bool(before.get(name)) != bool(now.get(name))


def _of_configuration(
    checkpoint: Checkpoint, state: TrainState, made: OptimizerRecord, data: Mapping[str, Any]
) -> Iterator[str]:
    record = checkpoint.record
    dropout = _differences("the model's", asdict(checkpoint.model_config), asdict(state.model.config)).get("dropout")
    if dropout:
        yield dropout
    training = _differences("the", asdict(record.training_config), asdict(state.config))
    if record.optimizer.type != made.type:
        training.pop("optimizer", None)  # already reported
    yield from (text for name, text in training.items() if name not in FREE_TO_CHANGE)
    # Already reported: the options that make_optimizer takes from the configuration.
    said = {*training, *(["initial_lr"] if "learning_rate" in training else [])}
    yield from (text for name, text, shaping in _of_options(record.optimizer, made) if name not in said and not shaping)
    for part in ("training", "validation"):
        yield from _of_data(part, record.data.get(part), data.get(part))
    yield from _of_teacher(record.data.get("teacher"), data.get("teacher"))


def _of_data(part: str, old: object, new: object) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        texts = _differences(f"the {part} data's", old, new)
        if len(texts) > 1:
            texts.pop("sequences", None)  # it follows from the others
        yield from texts.values()
    elif old != new:
        yield f"there was no {part} data and now there is" if new else f"there was {part} data and now there is none"


def _of_teacher(old: object, new: object) -> Iterator[str]:
    if old and new and old != new:
        yield "there was another teacher"
    elif old != new:
        yield "there was no teacher and now there is one" if new else "there was a teacher and now there is none"


def _differences(whose: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{whose} {name:.100} was {shown(old.get(name))} and is {shown(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def at_the_same_place(checkpoint: Checkpoint, data: Mapping[str, Any]) -> Checkpoint:
    """Returns a checkpoint with its position in the run's own sequences, as large a part of a pass as before.

    Args:
        checkpoint: Checkpoint to resume from.
        data: Identity of the run's data, for instance in windows of another length.
    """
    record = checkpoint.record
    before, now = (_sequences(part.get("training")) for part in (record.data, data))
    if before is None or now is None or before == now:
        return checkpoint
    items = -(-min(record.progress.items, before) * now // before)  # rounded up, so that epochs never run backwards
    return replace(checkpoint, record=replace(record, progress=replace(record.progress, items=items)))


def _sequences(data: object) -> int | None:
    """Returns the number of sequences in a pass over data, if their identity says it."""
    count = data.get("sequences") if isinstance(data, Mapping) else None
    return count if type(count) is int and count > 0 else None


def read_on(checkpoint: Checkpoint, passes: Passes, *, same_data: bool) -> Iterator[Batch]:
    """Returns the batches left of the pass that a run was in.

    Args:
        checkpoint: Checkpoint of the run.
        passes: Passes over its training data.
        same_data: Whether the data should be the same as before.

    Raises:
        IncompatibleRunError: If a loader whose earlier batches must be read again does not repeat them.
    """
    progress, loader = checkpoint.record.progress, checkpoint.record.loader
    batches = passes.read(progress.epoch, items=progress.items, state=loader.get("position"))
    if not progress.items:
        return batches
    first = list(islice(batches, 1))
    if same_data and passes.before is not None and sha256_of(passes.before) != loader.get("last"):
        raise IncompatibleRunError(
            checkpoint.path,
            [f"{passes.name} did not repeat its batches up to step {progress.step}"],
            fix="Give it an order that depends only on a seed, for instance with DataLoader(..., generator=...)",
        )
    return chain(first, batches)


def sent(read: Callable[[], Checkpoint | None], ranks: Ranks) -> Checkpoint | None:
    """Returns the checkpoint that rank 0 reads, on every rank; errors are raised on every rank, too."""
    own: list[Checkpoint] = []

    def without_tensors() -> Checkpoint | None:
        found = read()
        if found is None:
            return None
        own.append(found)
        return replace(found, weights={}, tensors={})

    checkpoint = ranks.on_first(without_tensors)
    if checkpoint is None or ranks.alone:
        return own[0] if own else None
    weights = ranks.from_first(lambda: own[0].weights)
    return replace(checkpoint, weights=weights, tensors=ranks.from_first(lambda: own[0].tensors))


def restore(state: TrainState, checkpoint: Checkpoint, made: OptimizerRecord) -> None:
    """Restores a new training state from a checkpoint that was compared with it.

    An option of the optimizer's groups gets its saved value, which a callback may have changed, unless the optimizer
    is now created with another value.
    """
    load_whole(state.model, checkpoint.weights)
    if state.average:
        state.average.restore(checkpoint.tensors)
    _restore_optimizer(state, checkpoint, made)
    state.progress = checkpoint.record.progress
    state.history = checkpoint.record.history


def _restore_optimizer(state: TrainState, checkpoint: Checkpoint, made: OptimizerRecord) -> None:
    record, optimizer = checkpoint.record.optimizer, state.optimizer
    names = [name for group in names_of_trained(state.model, optimizer) for name in group]
    parameters_by_name = dict(state.model.named_parameters())
    saved: dict[str, dict[str, Any]] = {name: dict(values) for name, values in record.values.items()}
    for full_name, tensor in checkpoint.tensors.items():
        if not full_name.startswith((_OPTIMIZER, _GROUP)):
            continue
        name, _, key = full_name.removeprefix(_OPTIMIZER).rpartition(".")
        like = parameters_by_name.get(name, tensor)
        saved.setdefault(name, {})[key] = share_of(tensor.clone(), like)  # those of safetensors lie in the file
    content = optimizer.state_dict()
    content["state"] = {i: saved[name] for i, name in enumerate(names) if name in saved}
    optimizer.load_state_dict(content)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for name, parameter in zip(names, parameters, strict=True):
        for key, value in saved.get(name, {}).items():
            now = optimizer.state[parameter][key]
            if isinstance(value, Tensor) and now.dtype != value.dtype:  # load_state_dict used the parameter's
                optimizer.state[parameter][key] = value.to(now.device)
    for i, group in enumerate(optimizer.param_groups):
        for key, value in (record.options[i] | saved.get(f"{_GROUP}{i}", {})).items():
            now = group.get(key)
            if record.made[i].get(key) == made.made[i].get(key):
                group[key] = tuple(value) if isinstance(now, tuple) else value
            if isinstance(now, Tensor) and isinstance(value, Tensor):
                group[key] = value.to(now.device)
