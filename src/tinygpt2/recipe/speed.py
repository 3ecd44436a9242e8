"""The speed of training on a machine."""

import time
from dataclasses import replace
from functools import cache

import torch

from tinygpt2._internal.cpu import keep_memory
from tinygpt2._internal.random import random_states_kept
from tinygpt2.config import GPT2Config, TrainingConfig
from tinygpt2.model.gpt2 import GPT2Model
from tinygpt2.model.objective import NextTokenLoss
from tinygpt2.recipe.rules import operations_of_step
from tinygpt2.training.optimizers import make_optimizer
from tinygpt2.training.step import training_step

SMALL = GPT2Config(vocab_size=2048, context_length=128, n_layer=2, n_head=4, n_embd=128)
"""The shape to measure first."""

_SECONDS = 0.7  # of a measurement
_STEP_SECONDS = 0.2  # of a step that is measured, at most, as far as that is known
_FEWEST, _MOST = 6, 30  # steps of a measurement
_LONGEST = 4.0  # seconds, after which it ends however few steps there were
_USUAL = 1.05  # the time of a usual step, as a multiple of the quickest

_NANOSECONDS = 1e9


@cache
def first_speed(device: torch.device) -> float:
    """Returns the speed in FLOP/s at which a small model trains; it is measured once."""
    return measured_speed(SMALL, TrainingConfig(optimizer="muon"), rows=4, device=device)


def measured_speed(
    model: GPT2Config, training: TrainingConfig, *, rows: int, device: torch.device, guess: float | None = None
) -> float:
    """Returns the speed in FLOP/s, as `operations_of_step` counts them, at which a model of this shape trains.

    It is that of the quickest step as `train` makes them, but without shared spelling, after a first one that is not
    counted: what else a machine does for a moment makes steps slower, a hundred times if all cores are taken, never
    quicker.

    Args:
        model: Its shape.
        training: Its optimizer and precision are read.
        rows: Rows of a micro-batch; fewer are measured if a step would take long.
        device: Device to train on.
        guess: A speed that is known, of another shape.
    """
    if device.type == "cpu":
        keep_memory()
    while guess and rows > 1 and _operations(model, rows, training) / guess > _STEP_SECONDS:
        rows //= 2
    with random_states_kept(device):
        network = GPT2Model(model).to(device).train()
        objective, optimizer = NextTokenLoss(network), make_optimizer(network, replace(training, spelling=False))
        ids = torch.randint(model.vocab_size, (rows, model.context_length + 1))
        batch = ids[:, :-1], ids[:, 1:]
        times: list[float] = []
        begin = time.perf_counter_ns()
        while len(times) < _MOST + 1 and (len(times) < _FEWEST + 1 or sum(times) < _SECONDS):
            training_step(objective, optimizer, [batch], precision=training.precision, seed=len(times))
            _finish(device)
            now = time.perf_counter_ns()
            times.append((now - begin) / _NANOSECONDS)
            begin = now
            if len(times) > 1 and sum(times) > _LONGEST:
                break
    return _operations(model, rows, training) / (_USUAL * min(times[1:]))


def _operations(model: GPT2Config, rows: int, training: TrainingConfig) -> float:
    return operations_of_step(model, rows * model.context_length, training.optimizer)


def _finish(device: torch.device) -> None:
    """Waits for what a device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
