"""The recipe that suits a text, a machine and some minutes."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch

from tinygpt2._internal.checks import check_instance, check_int, check_number, shown
from tinygpt2._internal.devices import choose_device
from tinygpt2.config import GPT2Config
from tinygpt2.recipe.choices import choose
from tinygpt2.recipe.memory import free_memory
from tinygpt2.recipe.recipe import Recipe
from tinygpt2.recipe.rules import default_minutes
from tinygpt2.recipe.speed import first_speed, measured_speed
from tinygpt2.recipe.statistics import TextStatistics
from tinygpt2.recipe.task import GIVEN, SHAPE, Task

_MEASUREMENTS = 2  # of shapes, at most, beside that of a small one


def recommend(
    documents: str | Iterable[str] | TextStatistics,
    *,
    minutes: float | None = None,
    device: torch.device | str | None = None,
    speed: float | None = None,
    memory: int | None = None,
    given: Mapping[str, object] | None = None,
    pretrained: GPT2Config | None = None,
    spent: float = 0.0,
    processes: int = 1,
) -> Recipe:
    """Returns the model and the training that suit a text, a machine and some minutes.

    Where there is more text than time, the size of the model follows from the speed of the machine, and less than one
    pass over the text may be made. Where there is more time than text, it follows from the text, and the more often
    that is read, the more is done against memorising it. Given ``speed`` and ``memory``, it is a pure function.

    Args:
        documents: The text to train on, or several, which are read once, or their statistics.
        minutes: What the run may take; by default a time that suits the size of the text.
        device: Device to train on, as for `train`.
        speed: Sustained speed of training on it in FLOP/s, of each process; by default it is measured for about two
            seconds, on a small model and then on the one that was chosen.
        memory: Bytes of memory to share; by default those that are free on the device. Half of them are used.
        given: What is chosen already, by its name: fields of `GPT2Config`, of `TrainingConfig` and of `TextNoise`
            (whose ``epochs`` is ``noise_epochs``), ``tokenizer``, ``batch_size``, ``teachers`` and ``student_steps``.
            The rest is chosen around it. With ``epochs`` or ``max_steps``, the minutes decide the size of the model,
            not the length of the run, and there are no teachers unless they are given.
        pretrained: Shape of the model, if one is fine-tuned; only the batch, the rate and the length are then chosen.
        spent: Seconds of the minutes that have passed already.
        processes: Number of processes that will train together.

    Raises:
        TypeError: If an argument, or a given value, is of the wrong type.
        ValueError: If there is no text, a number or a given value is out of range, or a given name is unknown.

    >>> text = TextStatistics(bytes=90_000, script="Latin letters")
    >>> recipe = recommend(text, speed=1e11, memory=2**32)
    >>> recipe.minutes, recipe.model.n_embd, recipe.training.optimizer
    (2.0, 128, 'muon')
    >>> wide = recommend(
    ...     text, speed=1e11, memory=2**32, given={"n_embd": 256, "dropout": 0.0}
    ... )
    >>> wide.model.n_embd, wide.model.dropout
    (256, 0.0)
    """
    text = documents if isinstance(documents, TextStatistics) else TextStatistics.of(documents)
    target = choose_device(device)
    processes = check_int("processes", processes)
    task = Task(
        text=text,
        minutes=default_minutes(text.bytes) if minutes is None else _positive("minutes", minutes),
        spent=check_number("spent", spent),
        speed=(1.0 if speed is None else _positive("speed", speed)) * processes,
        memory=free_memory(target) if memory is None else check_int("memory", memory),
        given=_checked(given),
        pretrained=pretrained,
        usual=minutes is None,
        processes=processes,
    )
    if pretrained is not None:
        check_instance("pretrained", pretrained, GPT2Config, "a GPT2Config")
    if speed is not None:
        return choose(task)
    return measured_choice(replace(task, speed=first_speed(target) * processes), target)


def measured_choice(task: Task, device: torch.device) -> Recipe:
    """Returns the recipe for a task, whose speed is a first guess: that of the shape that will run is measured."""
    recipe = choose(task)
    for left in range(_MEASUREMENTS, 0, -1):
        before, began = recipe, time.monotonic()
        rows, guess = max(1, before.batch_size // task.processes), task.speed / task.processes
        speed = measured_speed(before.model, before.training, rows=rows, device=device, guess=guess)
        task = replace(task, speed=speed * task.processes, spent=task.spent + time.monotonic() - began)
        recipe = choose(task)
        if _shape(recipe) == _shape(before):
            break
        if left == 1:  # it stays with the shape that was measured
            recipe = choose(replace(task, given={**task.given, **_shape(before)}))
            recipe = replace(recipe, reasons={**recipe.reasons, "model": before.reasons["model"]})
    return recipe


def _shape(recipe: Recipe) -> dict[str, int]:
    return {name: getattr(recipe.model, name) for name in SHAPE}


def _positive(name: str, value: float) -> float:
    return check_number(name, value, above_minimum=True)


def _checked(given: Mapping[str, object] | None) -> dict[str, object]:
    """Returns what was given, without what is ``None``."""
    if given is None:
        return {}
    check_instance("given", given, Mapping, "a dict of names and values")
    for name in given:
        if name not in GIVEN:
            raise ValueError(f"given has {shown(name)}; expected names among {', '.join(sorted(GIVEN))}")
    return {name: GIVEN[name].check(name, value) for name, value in given.items() if value is not None}
